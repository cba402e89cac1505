//! The door: requests become rows of the queue, pieces become answers.

use crate::InferenceError;
use crate::engine::{Ask, Engine, Piece, Request};
use crate::registry::Registry;
use crate::served::Served;
use domain::objective::Read;
use domain::{Example, Violation};
use std::sync::Arc;
use std::time::Instant;
use t5::Strategy;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};
use wire::v1;
use wire::v1::inference_service_server::InferenceService;

/// Most tokens that a caller may ask for.
const TOKENS_MAX: usize = 2048;

pub(crate) struct Service {
    pub(crate) registry: Arc<Registry>,
    pub(crate) engine: Engine,
}

type Pieces = mpsc::Receiver<Result<Piece, InferenceError>>;
type Stream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn submit(
        &self,
        served: &Arc<Served>,
        ids: Vec<i64>,
        ask: Ask,
        deadline: Option<Instant>,
    ) -> Result<Pieces, InferenceError> {
        let (reply, pieces) = mpsc::channel(ask.pieces_max());
        self.engine.submit(Request { served: Arc::clone(served), ids, ask, deadline, reply, life: None })?;
        Ok(pieces)
    }

    fn greedy(
        &self,
        served: &Arc<Served>,
        ids: Vec<i64>,
        tokens_max: u32,
        deadline: Option<Instant>,
    ) -> Result<Pieces, InferenceError> {
        let tokens_max = limit(served, tokens_max);
        self.submit(served, ids, Ask::Text { strategy: Strategy::Greedy, tokens_max }, deadline)
    }

    /// The label of an example, and its rationale where that is asked for: both wait at once, and go through the model
    /// together.
    pub(crate) async fn answer(
        &self,
        served: &Arc<Served>,
        example: &Example,
        explain: bool,
        tokens_max: u32,
        deadline: Option<Instant>,
    ) -> Result<Answered, InferenceError> {
        let explained = match explain && served.objective.writes_label_alone() {
            true => Some(self.greedy(served, served.explain_ids(example)?, tokens_max, deadline)?),
            false => None,
        };
        let (read, probabilities) = self.label(served, example, deadline).await?;
        let rationale = match explained {
            Some(pieces) => text(pieces).await?,
            None => read.rationale.filter(|_| explain).unwrap_or_default(),
        };
        Ok(Answered { label: read.label, probabilities, rationale })
    }

    /// The label of an example, with the closed set's probabilities, and the rationale where the objective writes it
    /// beside the label.
    async fn label(
        &self,
        served: &Arc<Served>,
        example: &Example,
        deadline: Option<Instant>,
    ) -> Result<(Read, Vec<v1::LabelProbability>), InferenceError> {
        let ids = served.predict_ids(example)?;
        let set = served.task.label_set(example).filter(|set| served.has_label_set() && !set.is_empty());
        match set {
            Some(set) => {
                let candidates =
                    set.iter().map(|label| served.label_ids(label)).collect::<Result<Vec<_>, _>>()?;
                let pieces = self.submit(served, ids, Ask::Score(candidates), deadline)?;
                let scores = scores(pieces).await?;
                Ok(likeliest(set, &scores))
            }
            None => {
                let text = text(self.greedy(served, ids, 0, deadline)?).await?;
                Ok((served.objective.split(&text), Vec::new()))
            }
        }
    }
}

/// What a student says to one example.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) label: String,
    /// The closed set's, in its order; empty for open sets.
    pub(crate) probabilities: Vec<v1::LabelProbability>,
    /// Empty where it was not asked for.
    pub(crate) rationale: String,
}

/// The likeliest label, and each one's probability: the softmax over the sequences' log-likelihoods.
fn likeliest(set: &[String], scores: &[f64]) -> (Read, Vec<v1::LabelProbability>) {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    let probabilities: Vec<v1::LabelProbability> = set
        .iter()
        .zip(scores)
        .map(|(label, score)| v1::LabelProbability {
            label: label.clone(),
            probability: (score - highest).exp() / mass,
        })
        .collect();
    let mut best: Option<&v1::LabelProbability> = None;
    for candidate in &probabilities {
        if best.is_none_or(|best| candidate.probability > best.probability) {
            best = Some(candidate);
        }
    }
    let label = best.map_or_else(String::new, |best| best.label.clone());
    (Read { label, rationale: None }, probabilities)
}

async fn text(mut pieces: Pieces) -> Result<String, InferenceError> {
    let mut text = String::new();
    while let Some(piece) = pieces.recv().await {
        if let Piece::Text(words) = piece? {
            text.push_str(&words);
        }
    }
    Ok(text)
}

async fn scores(mut pieces: Pieces) -> Result<Vec<f64>, InferenceError> {
    match pieces.recv().await {
        Some(Ok(Piece::Scores(scores))) => Ok(scores),
        Some(Err(error)) => Err(error),
        Some(Ok(Piece::Text(_))) | None => {
            Err(InferenceError::Internal("the engine did not answer".to_owned()))
        }
    }
}

fn limit(served: &Served, tokens_max: u32) -> usize {
    match tokens_max as usize {
        0 => served.target_tokens_max,
        tokens => tokens.min(TOKENS_MAX),
    }
}

fn example(message: Option<v1::Example>) -> Result<Example, Status> {
    let message = wire::present("example", message).map_err(wire::invalid)?;
    wire::under("example", message.try_into()).map_err(wire::invalid)
}

fn answerer(served: &Served) -> Option<v1::Answerer> {
    Some(v1::Answerer { model: served.name.clone(), version: served.version })
}

/// The caller's deadline.
pub(crate) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = wire::timeout_of(metadata.get(wire::TIMEOUT_HEADER)?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
}

/// Pieces of text as messages; the first one says who answers.
fn stream<T: Send + 'static>(
    pieces: Pieces,
    served: &Served,
    message: impl Fn(String, Option<v1::Answerer>) -> T + Send + 'static,
) -> Stream<T> {
    let mut first = answerer(served);
    Box::pin(ReceiverStream::new(pieces).map(move |piece| match piece {
        Ok(Piece::Text(words)) => Ok(message(words, first.take())),
        Ok(Piece::Scores(_)) => Err(Status::internal("an internal error: the server's log has the details")),
        Err(error) => Err(error.into()),
    }))
}

#[tonic::async_trait]
impl InferenceService for Service {
    async fn predict(
        &self,
        request: tonic::Request<v1::PredictRequest>,
    ) -> Result<Response<v1::PredictResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.registry.find(&request.model, request.version)?;
        let (read, probabilities) = self.label(&served, &example(request.example)?, deadline).await?;
        Ok(Response::new(v1::PredictResponse {
            label: read.label,
            probabilities,
            answerer: answerer(&served),
        }))
    }

    type ExplainStream = Stream<v1::ExplainResponse>;

    async fn explain(
        &self,
        request: tonic::Request<v1::ExplainRequest>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.registry.find(&request.model, request.version)?;
        let ids = served.explain_ids(&example(request.example)?)?;
        let pieces = self.greedy(&served, ids, request.tokens_max, deadline)?;
        Ok(Response::new(stream(pieces, &served, |text, answerer| v1::ExplainResponse { text, answerer })))
    }

    async fn predict_and_explain(
        &self,
        request: tonic::Request<v1::PredictAndExplainRequest>,
    ) -> Result<Response<v1::PredictAndExplainResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.registry.find(&request.model, request.version)?;
        let example = example(request.example)?;
        let answered = self.answer(&served, &example, true, request.tokens_max, deadline).await?;
        Ok(Response::new(v1::PredictAndExplainResponse {
            label: answered.label,
            probabilities: answered.probabilities,
            rationale: answered.rationale,
            answerer: answerer(&served),
        }))
    }

    type GenerateStream = Stream<v1::GenerateResponse>;

    async fn generate(
        &self,
        request: tonic::Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.registry.find(&request.model, request.version)?;
        if !(0.0..=10.0).contains(&request.temperature) || !(0.0..=1.0).contains(&request.top_p) {
            let words = "must lie between 0 and 10, and top_p between 0 and 1";
            return Err(wire::invalid(vec![Violation::new("temperature", words)]));
        }
        let strategy = if request.temperature == 0.0 {
            Strategy::Greedy
        } else {
            let top_p = if request.top_p == 0.0 { 1.0 } else { request.top_p };
            let top_k = request.top_k as usize;
            Strategy::Sample { temperature: request.temperature, top_k, top_p, seed: request.seed }
        };
        let ids = served.encode(&request.input)?;
        let tokens_max = limit(&served, request.tokens_max);
        let pieces = self.submit(&served, ids, Ask::Text { strategy, tokens_max }, deadline)?;
        Ok(Response::new(stream(pieces, &served, |text, answerer| v1::GenerateResponse { text, answerer })))
    }
}
