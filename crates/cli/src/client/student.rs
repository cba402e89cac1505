//! A served student: labels and rationales.

use domain::Example;
use domain::label::Comparison;
use tonic::Status;
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

/// A served model, and how to reach it.
#[derive(Clone)]
pub(crate) struct Student {
    pub(crate) channel: Channel,
    /// Empty where the server has just one.
    pub(crate) model: String,
    /// 0 for the newest.
    pub(crate) version: u64,
}

/// What a student says of one row.
pub(crate) struct Prediction {
    pub(crate) label: String,
    /// Each label of a closed set with its probability; empty for an open one.
    pub(crate) probabilities: Vec<(String, f64)>,
    /// Absent where it was not asked for.
    pub(crate) rationale: Option<String>,
    /// How the student's task compares labels.
    pub(crate) comparison: Comparison,
}

impl Student {
    /// Labels a row, and explains it where `explain` asks for that.
    pub(crate) async fn predict(&self, row: Example, explain: bool) -> Result<Prediction, Status> {
        let mut client = InferenceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(wire::MESSAGE_BYTES_MAX);
        let (model, version) = (self.model.clone(), self.version);
        let example = Some(row.into());
        let (label, probabilities, rationale, answerer) = if explain {
            let request = v1::PredictAndExplainRequest { model, version, example, tokens_max: 0 };
            let answer = client.predict_and_explain(request).await?.into_inner();
            (answer.label, answer.probabilities, Some(answer.rationale), answer.answerer)
        } else {
            let answer = client.predict(v1::PredictRequest { model, version, example }).await?.into_inner();
            (answer.label, answer.probabilities, None, answer.answerer)
        };
        // A server of another version may not say it.
        let metric = answerer.map_or(0, |answerer| answerer.metric);
        let comparison = wire::filter("metric", metric).ok().flatten().unwrap_or(Comparison::Text);
        let probabilities = probabilities.into_iter().map(|entry| (entry.label, entry.probability)).collect();
        Ok(Prediction { label, probabilities, rationale, comparison })
    }
}
