//! A call of a load: asked once, without patience, and timed by its pieces.

use super::student::Student;
use crate::args::Ask;
use domain::Example;
use std::time::{Duration, Instant};
use tonic::{Request, Status, Streaming};
use wire::v1;
use wire::v1::inference_service_client::InferenceServiceClient;

/// How a call ended that was not refused.
pub(crate) enum Ended {
    /// It was answered.
    Answered {
        /// When the first piece of a stream came.
        first: Option<Instant>,
        /// The model and its version; `None` where no message named them.
        by: Option<(String, u64)>,
    },
    /// Its caller left at the first piece.
    Left,
}

impl Student {
    /// Asks once. A caller that `leaves` does so when a stream's first piece has come.
    pub(crate) async fn ask_once(
        &self,
        ask: Ask,
        row: Example,
        deadline: Option<Duration>,
        leaves: bool,
    ) -> Result<Ended, Status> {
        let mut client = InferenceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(wire::MESSAGE_BYTES_MAX);
        let (model, version) = (self.model.clone(), self.version);
        match ask {
            Ask::Predict => {
                let request =
                    v1::PredictRequest { model, version, example: Some(row.into()), route_below: None };
                let answer = client.predict(within(deadline, request)).await?.into_inner();
                Ok(Ended::Answered { first: None, by: answer.answerer.map(named) })
            }
            Ask::Explain => {
                let request = v1::ExplainRequest { model, version, example: Some(row.into()), tokens_max: 0 };
                let pieces = client.explain(within(deadline, request)).await?.into_inner();
                read(pieces, leaves, |piece| piece.answerer).await
            }
            Ask::Generate => {
                let request =
                    v1::GenerateRequest { model, version, input: text_of(row), ..Default::default() };
                let pieces = client.generate(within(deadline, request)).await?.into_inner();
                read(pieces, leaves, |piece| piece.answerer).await
            }
        }
    }
}

fn within<T>(deadline: Option<Duration>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}

fn named(answerer: v1::Answerer) -> (String, u64) {
    (answerer.model, answerer.version)
}

/// What a row says as free text.
fn text_of(row: Example) -> String {
    let parts = [Some(row.input), row.premise, row.hypothesis];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Reads a stream to its end, or to its first piece.
async fn read<T>(
    mut pieces: Streaming<T>,
    leaves: bool,
    answerer: impl Fn(T) -> Option<v1::Answerer>,
) -> Result<Ended, Status> {
    let (mut first, mut by) = (None, None);
    while let Some(piece) = pieces.message().await? {
        if leaves {
            return Ok(Ended::Left);
        }
        first.get_or_insert_with(Instant::now);
        by = by.or(answerer(piece).map(named));
    }
    Ok(Ended::Answered { first, by })
}
