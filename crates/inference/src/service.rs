//! The gRPC service: requests become questions in the queue, pieces become answers.

use crate::InferenceError;
use crate::engine::{Admission, Engine};
use crate::registry::Registry;
use crate::request::{Piece, Request, Wants, pieces_max};
use crate::served::Served;
use domain::{Example, Violation};
use prost::Message;
use std::sync::Arc;
use std::time::Instant;
use student::{Choice, Prompt, Strategy, StudentError};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};
use wire::v1;
use wire::v1::inference_service_server::InferenceService;

pub(crate) struct InferenceApi {
    pub(crate) registry: Arc<Registry>,
    pub(crate) engine: Engine,
    preparing: Arc<Semaphore>,
}

type Pieces = mpsc::Receiver<Result<Piece, InferenceError>>;
type Stream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// The questions of one row.
#[derive(Debug)]
pub(crate) struct RowPrompts {
    predict: Prompt,
    /// Where a rationale is wanted, and is not written with the label.
    explain: Option<Prompt>,
    wants_rationale: bool,
}

impl RowPrompts {
    /// The questions for the label of `example`, and for its rationale where `explain` says so.
    pub(crate) fn of(
        served: &Served,
        example: &Example,
        explain: bool,
        tokens_max: u32,
    ) -> Result<Self, InferenceError> {
        let codec = served.student.codec();
        let asked = || -> Result<Self, StudentError> {
            let separately = explain && codec.explains_separately();
            Ok(Self {
                predict: codec.predict(example)?,
                explain: separately.then(|| codec.explain(example, tokens_max)).transpose()?,
                wants_rationale: explain,
            })
        };
        asked().map_err(|error| served.error(error))
    }
}

/// What a student says to one row.
#[derive(Debug)]
pub(crate) struct ScoredAnswer {
    pub(crate) label: String,
    /// Where the label was chosen from a set.
    pub(crate) choice: Option<Choice>,
    /// Empty where it was not asked for.
    pub(crate) rationale: String,
    /// The natural logarithm of the answer's probability.
    pub(crate) log_probability: f64,
}

impl ScoredAnswer {
    /// Each label's probability, in the order of the set; empty for open sets.
    fn probabilities(&mut self) -> Vec<v1::LabelProbability> {
        let chosen = self.choice.take().map(|choice| choice.probabilities).unwrap_or_default();
        let entry = |entry: student::LabelProbability| v1::LabelProbability {
            label: entry.label,
            probability: entry.probability,
        };
        chosen.into_iter().map(entry).collect()
    }
}

/// Most rows of one call.
pub(crate) const ROWS_MAX: usize = 1_000;
/// Rows of one call that wait in the queue at once.
const ROWS_AT_ONCE: usize = 64;
/// Questions that are made at once, each on a thread of its own: what a caller sends takes many times its bytes meanwhile.
const PREPARING_MAX: usize = 16;
/// Requests of as many bytes are made into questions at once: that takes less time than handing them over.
const INLINE_BYTES_MAX: usize = 2 * 1024;

impl InferenceApi {
    pub(crate) fn new(registry: Arc<Registry>, engine: Engine) -> Self {
        Self { registry, engine, preparing: Arc::new(Semaphore::new(PREPARING_MAX)) }
    }

    /// What `make` makes of a request of so many bytes, away from the threads that answer everybody.
    pub(crate) async fn prepare<T: Send + 'static>(
        &self,
        bytes: usize,
        make: impl FnOnce() -> Result<T, InferenceError> + Send + 'static,
    ) -> Result<T, InferenceError> {
        if bytes <= INLINE_BYTES_MAX {
            return make();
        }
        let failed = |error: String| InferenceError::Internal(error);
        let turn =
            Arc::clone(&self.preparing).acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let made = tokio::task::spawn_blocking(move || {
            // Held to the end, also where the caller leaves.
            let _turn = turn;
            make()
        });
        made.await.map_err(|error| failed(error.to_string()))?
    }

    /// The questions for a row.
    async fn asked(
        &self,
        served: &Arc<Served>,
        bytes: usize,
        row: Option<v1::Example>,
        explain: bool,
        tokens_max: u32,
    ) -> Result<RowPrompts, Status> {
        let (served, example) = (Arc::clone(served), example(row)?);
        Ok(self.prepare(bytes, move || RowPrompts::of(&served, &example, explain, tokens_max)).await?)
    }

    async fn submit(
        &self,
        served: &Arc<Served>,
        (wants, prompt): (Wants, Prompt),
        deadline: Option<Instant>,
        admission: Admission,
    ) -> Result<Pieces, InferenceError> {
        let (reply, pieces) = mpsc::channel(pieces_max(&prompt.ask));
        let request =
            Request { served: Arc::clone(served), prompt, wants, deadline, reply, kept: None, guard: None };
        self.engine.submit(request, admission).await?;
        Ok(pieces)
    }

    /// The answer of each row of one call, in order. A full queue refuses the first row; the others wait their turn.
    pub(crate) fn answer_rows(
        &self,
        served: &Arc<Served>,
        asked: Vec<RowPrompts>,
        deadline: Option<Instant>,
    ) -> impl futures::Stream<Item = Result<ScoredAnswer, InferenceError>> + Send {
        let admissions = std::iter::once(Admission::Refuse).chain(std::iter::repeat(Admission::Wait));
        let answers = asked
            .into_iter()
            .zip(admissions)
            .map(move |(asked, admission)| self.answer(served, asked, deadline, admission));
        futures::StreamExt::buffered(futures::stream::iter(answers), ROWS_AT_ONCE)
    }

    /// The answers to the questions of one row: both wait at once, and go through the model together. `admission` is that of
    /// the first one; the second belongs to a call that was admitted.
    pub(crate) async fn answer(
        &self,
        served: &Arc<Served>,
        asked: RowPrompts,
        deadline: Option<Instant>,
        admission: Admission,
    ) -> Result<ScoredAnswer, InferenceError> {
        let RowPrompts { predict, explain, wants_rationale } = asked;
        let predicted = self.submit(served, (Wants::Label, predict), deadline, admission).await?;
        let explained = match explain {
            Some(prompt) => {
                Some(self.submit(served, (Wants::Text, prompt), deadline, Admission::Wait).await?)
            }
            None => None,
        };
        let (label, choice, written, log_probability) = match whole(predicted).await? {
            Whole::Choice(choice) => {
                let log_probability = choice.log_probability;
                (choice.label.clone(), Some(choice), None, log_probability)
            }
            Whole::Text(text, log_probability) => {
                let read = served.student.codec().read(&text);
                (read.label, None, read.rationale, log_probability)
            }
        };
        let rationale = match explained {
            Some(pieces) => text(pieces).await?,
            None => written.filter(|_| wants_rationale).unwrap_or_default(),
        };
        Ok(ScoredAnswer { label, choice, rationale, log_probability })
    }
}

/// A whole answer.
enum Whole {
    /// With the natural logarithm of its probability.
    Text(String, f64),
    Choice(Choice),
}

async fn whole(mut pieces: Pieces) -> Result<Whole, InferenceError> {
    let mut text = String::new();
    // An answer whose end is missing is not sure of anything.
    let mut log_probability = f64::NEG_INFINITY;
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::Text(words) => text.push_str(&words),
            Piece::Choice(choice) => return Ok(Whole::Choice(choice)),
            Piece::End(logarithm) => log_probability = logarithm,
        }
    }
    Ok(Whole::Text(text, log_probability))
}

async fn text(pieces: Pieces) -> Result<String, InferenceError> {
    match whole(pieces).await? {
        Whole::Text(text, _) => Ok(text),
        Whole::Choice(choice) => Ok(choice.label),
    }
}

fn example(message: Option<v1::Example>) -> Result<Example, Status> {
    let message = wire::present("example", message).map_err(wire::invalid)?;
    wire::under("example", message.try_into()).map_err(wire::invalid)
}

/// The questions of many rows; one that cannot be asked is a failure of its own.
fn row_prompts(
    served: &Served,
    rows: Vec<v1::Example>,
    explain: bool,
    tokens_max: u32,
) -> Vec<Result<RowPrompts, Status>> {
    let asked = |row| Ok(RowPrompts::of(served, &example(Some(row))?, explain, tokens_max)?);
    rows.into_iter().map(asked).collect()
}

/// What the answer of one row of many comes to: what concerns the server ends the call, what concerns the row stays with it.
fn row_outcome(
    answer: Option<Result<ScoredAnswer, InferenceError>>,
) -> Result<Result<ScoredAnswer, Status>, Status> {
    let lost = || InferenceError::Internal("a row was not answered".to_owned());
    match answer.unwrap_or_else(|| Err(lost())) {
        Ok(answer) => Ok(Ok(answer)),
        Err(
            error @ (InferenceError::Overloaded { .. } | InferenceError::Draining | InferenceError::Deadline),
        ) => Err(error.into()),
        Err(error) => Ok(Err(error.into())),
    }
}

/// What became of one row.
fn row_answer(outcome: Result<ScoredAnswer, Status>, border: f64) -> v1::RowAnswer {
    use v1::row_answer::Outcome;
    let outcome = match outcome {
        Ok(mut answer) => Outcome::Prediction(v1::RowPrediction {
            probabilities: answer.probabilities(),
            label: answer.label,
            rationale: answer.rationale,
            log_probability: answer.log_probability,
            ask_teacher: answer.log_probability < border,
        }),
        Err(status) => Outcome::Failure(v1::RowFailure {
            code: u32::try_from(i32::from(status.code())).unwrap_or_default(),
            message: status.message().to_owned(),
        }),
    };
    v1::RowAnswer { outcome: Some(outcome) }
}

/// The log-probability below which an answer asks for the teacher; below nothing where the caller names none.
fn route_below(border: Option<f64>) -> Result<f64, Status> {
    let border = border.unwrap_or(f64::NEG_INFINITY);
    if border.is_nan() {
        let words = "is no number: name a log-probability, such as -0.7";
        return Err(wire::invalid(vec![Violation::new("route_below", words)]));
    }
    Ok(border)
}

fn answerer(served: &Served) -> Option<v1::Answerer> {
    let metric = v1::Metric::from(served.student.codec().task.metric).into();
    Some(v1::Answerer { model: served.name.clone(), version: served.version, metric })
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
    Box::pin(ReceiverStream::new(pieces).filter_map(move |piece| match piece {
        Ok(Piece::Text(words)) => Some(Ok(message(words, first.take()))),
        Ok(Piece::Choice(choice)) => Some(Ok(message(choice.label, first.take()))),
        Ok(Piece::End(_)) => None,
        Err(error) => Some(Err(error.into())),
    }))
}

#[tonic::async_trait]
impl InferenceService for InferenceApi {
    async fn predict(
        &self,
        request: tonic::Request<v1::PredictRequest>,
    ) -> Result<Response<v1::PredictResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let (served, bytes) = (self.registry.find(&request.model, request.version)?, request.encoded_len());
        let border = route_below(request.route_below)?;
        let asked = self.asked(&served, bytes, request.example, false, 0).await?;
        let mut answered = self.answer(&served, asked, deadline, Admission::Refuse).await?;
        Ok(Response::new(v1::PredictResponse {
            log_probability: answered.log_probability,
            ask_teacher: answered.log_probability < border,
            probabilities: answered.probabilities(),
            label: answered.label,
            answerer: answerer(&served),
        }))
    }

    async fn predict_batch(
        &self,
        request: tonic::Request<v1::PredictBatchRequest>,
    ) -> Result<Response<v1::PredictBatchResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.registry.find(&request.model, request.version)?;
        let border = route_below(request.route_below)?;
        if request.examples.len() > ROWS_MAX {
            let words = format!("has {} rows: send at most {ROWS_MAX} in a call", request.examples.len());
            return Err(wire::invalid(vec![Violation::new("examples", words)]));
        }
        let (bytes, rows) = (request.encoded_len(), request.examples);
        let asked = {
            let (served, explain, tokens_max) = (Arc::clone(&served), request.explain, request.tokens_max);
            self.prepare(bytes, move || Ok(row_prompts(&served, rows, explain, tokens_max))).await?
        };
        let mut prompts = Vec::with_capacity(asked.len());
        let unasked: Vec<Option<Status>> =
            asked.into_iter().map(|asked| asked.map(|asked| prompts.push(asked)).err()).collect();
        let mut answers = std::pin::pin!(self.answer_rows(&served, prompts, deadline));
        let mut rows = Vec::with_capacity(unasked.len());
        for failure in unasked {
            let outcome = match failure {
                Some(status) => Err(status),
                None => row_outcome(answers.next().await)?,
            };
            rows.push(row_answer(outcome, border));
        }
        Ok(Response::new(v1::PredictBatchResponse { answers: rows, answerer: answerer(&served) }))
    }

    type ExplainStream = Stream<v1::ExplainResponse>;

    async fn explain(
        &self,
        request: tonic::Request<v1::ExplainRequest>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let (served, bytes) = (self.registry.find(&request.model, request.version)?, request.encoded_len());
        let (asked, example) = (Arc::clone(&served), example(request.example)?);
        let make = move || {
            let prompt = asked.student.codec().explain(&example, request.tokens_max);
            prompt.map_err(|error| asked.error(error))
        };
        let prompt = self.prepare(bytes, make).await?;
        let pieces = self.submit(&served, (Wants::Text, prompt), deadline, Admission::Refuse).await?;
        let codec = served.student.codec();
        let message = |text, answerer| v1::ExplainResponse { text, answerer };
        if codec.explains_separately() {
            return Ok(Response::new(stream(pieces, &served, message)));
        }
        // Written with the label: the rationale is known when the text is whole.
        let rationale = codec.read(&text(pieces).await?).rationale.unwrap_or_default();
        let whole = message(rationale, answerer(&served));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(whole)))))
    }

    async fn predict_and_explain(
        &self,
        request: tonic::Request<v1::PredictAndExplainRequest>,
    ) -> Result<Response<v1::PredictAndExplainResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let (served, bytes) = (self.registry.find(&request.model, request.version)?, request.encoded_len());
        let border = route_below(request.route_below)?;
        let asked = self.asked(&served, bytes, request.example, true, request.tokens_max).await?;
        let mut answered = self.answer(&served, asked, deadline, Admission::Refuse).await?;
        Ok(Response::new(v1::PredictAndExplainResponse {
            log_probability: answered.log_probability,
            ask_teacher: answered.log_probability < border,
            probabilities: answered.probabilities(),
            label: answered.label,
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
        let (served, bytes) = (self.registry.find(&request.model, request.version)?, request.encoded_len());
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
        let asked = Arc::clone(&served);
        let make = move || {
            let prompt = asked.student.codec().generate(&request.input, strategy, request.tokens_max);
            prompt.map_err(|error| asked.error(error))
        };
        let prompt = self.prepare(bytes, make).await?;
        let pieces = self.submit(&served, (Wants::Text, prompt), deadline, Admission::Refuse).await?;
        Ok(Response::new(stream(pieces, &served, |text, answerer| v1::GenerateResponse { text, answerer })))
    }

    async fn list_served_models(
        &self,
        _: tonic::Request<v1::ListServedModelsRequest>,
    ) -> Result<Response<v1::ListServedModelsResponse>, Status> {
        let models = self.registry.all().iter().filter_map(|served| answerer(served)).collect();
        Ok(Response::new(v1::ListServedModelsResponse { models }))
    }
}
