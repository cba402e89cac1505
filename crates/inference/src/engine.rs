//! The thread that owns the device: it takes batches from the queue and answers them.

use crate::meters::{self, Meters, Outcome, Refusal};
use crate::queue::{Waiting, assemble};
use crate::served::{Loaded, Served};
use crate::text::Growing;
use crate::{InferenceError, Settings};
use domain::telemetry;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use t5::{GenerateOptions, Strategy};
use tch::{Kind, Tensor};
use tokio::sync::mpsc;
use tracing::Span;

/// Requests that wait at most, whatever their length.
const REQUESTS_MAX: usize = 4096;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Text, piece by piece.
    Text {
        /// How its tokens are chosen.
        strategy: Strategy,
        /// Most tokens.
        tokens_max: usize,
    },
    /// The log-likelihood of each candidate.
    Score(Vec<Vec<i64>>),
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next words.
    Text(String),
    /// One log-likelihood a candidate.
    Scores(Vec<f64>),
}

/// A request in the queue.
pub(crate) struct Request {
    pub(crate) served: Arc<Served>,
    pub(crate) ids: Vec<i64>,
    pub(crate) ask: Ask,
    pub(crate) deadline: Option<Instant>,
    /// Has room for everything that this request can be answered ([`Ask::pieces_max`]): the thread never waits for a
    /// caller who reads slowly.
    pub(crate) reply: mpsc::Sender<Result<Piece, InferenceError>>,
    /// `None` until it is admitted.
    pub(crate) life: Option<Life>,
}

/// A request from its admission to its end: counted, and told of in a span, when it is dropped.
pub(crate) struct Life {
    task: &'static str,
    admitted: Instant,
    outcome: Cell<Outcome>,
    span: Span,
}

impl Life {
    fn begin(request: &Request) -> Self {
        let task = request.ask.task();
        Self {
            task,
            admitted: Instant::now(),
            outcome: Cell::new(Outcome::Ok),
            span: answer_span(request, task),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let outcome = self.outcome.get();
        self.span.record("distillery.outcome", outcome.name());
        if matches!(outcome, Outcome::Deadline | Outcome::Failed) {
            self.span.record("otel.status_code", "ERROR");
        }
        meters::ended(self.task, outcome, self.admitted.elapsed());
    }
}

/// The span of a request in its caller's trace, with a link to the trace of the job that made the model; none where the
/// caller has no trace.
fn answer_span(request: &Request, task: &'static str) -> Span {
    if wire::trace::current().is_none() {
        return Span::none();
    }
    let span = tracing::info_span!(
        telemetry::span::ANSWER,
        distillery.model = %request.served.name,
        distillery.version = request.served.version,
        distillery.task = task,
        distillery.tokens_in = request.ids.len(),
        distillery.outcome = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    wire::trace::link(&span, &request.served.traceparent);
    span
}

impl Ask {
    /// What the metrics call it.
    fn task(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Score(_) => "score",
        }
    }

    /// Pieces of the longest answer: one a token, or the scores, and an error behind them.
    pub(crate) fn pieces_max(&self) -> usize {
        match self {
            Self::Text { tokens_max, .. } => tokens_max + 1,
            Self::Score(_) => 2,
        }
    }
}

impl Request {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn note(&self, outcome: Outcome) {
        if let Some(life) = &self.life {
            life.outcome.set(outcome);
        }
    }

    fn admitted(&self) -> Option<Instant> {
        self.life.as_ref().map(|life| life.admitted)
    }
}

impl Waiting for Request {
    fn group(&self) -> usize {
        Arc::as_ptr(&self.served) as usize
    }

    fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// The queue's other end.
#[derive(Clone)]
pub(crate) struct Engine {
    requests: mpsc::Sender<Request>,
    waiting: Arc<AtomicUsize>,
    draining: Arc<AtomicBool>,
    tokens_max: usize,
    meters: Meters,
}

impl Engine {
    pub(crate) fn start(settings: Settings) -> Result<Self, InferenceError> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let batch_tokens_max = settings.batch_tokens_max;
        let meters = Meters::new();
        let counts = meters.clone();
        std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || run(received, &counted, batch_tokens_max, &counts))
            .map_err(|error| InferenceError::Internal(format!("the engine cannot be started: {error}")))?;
        let draining = Arc::default();
        Ok(Self { requests, waiting, draining, tokens_max: settings.queue_tokens_max, meters })
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Admits a request, or says why not.
    pub(crate) fn submit(&self, mut request: Request) -> Result<(), InferenceError> {
        if self.is_draining() {
            meters::refused(Refusal::Draining);
            return Err(InferenceError::Draining);
        }
        let tokens = request.ids.len();
        let waiting = self.waiting.fetch_add(tokens, Ordering::SeqCst);
        let place = self.requests.try_reserve().ok().filter(|_| waiting + tokens <= self.tokens_max);
        let Some(place) = place else {
            self.waiting.fetch_sub(tokens, Ordering::SeqCst);
            meters::refused(Refusal::Overloaded);
            return Err(InferenceError::Overloaded { waiting, limit: self.tokens_max });
        };
        self.meters.waiting(waiting + tokens);
        request.life = Some(Life::begin(&request));
        place.send(request);
        Ok(())
    }
}

fn run(
    mut received: mpsc::Receiver<Request>,
    waiting: &AtomicUsize,
    batch_tokens_max: usize,
    meters: &Meters,
) {
    let mut queue: Vec<Request> = Vec::new();
    loop {
        if queue.is_empty() {
            match received.blocking_recv() {
                Some(request) => queue.push(request),
                None => return,
            }
        }
        while let Ok(request) = received.try_recv() {
            queue.push(request);
        }
        let places = assemble(&queue, batch_tokens_max);
        let mut batch = Vec::with_capacity(places.len());
        for place in places.into_iter().rev() {
            batch.push(queue.remove(place));
        }
        batch.reverse();
        let taken = batch.iter().map(Waiting::tokens).sum();
        meters.waiting(waiting.fetch_sub(taken, Ordering::SeqCst).saturating_sub(taken));
        for admitted in batch.iter().filter_map(Request::admitted) {
            meters.left_queue(admitted);
        }
        answer(batch, meters);
    }
}

/// Answers a batch of one model's requests. Callers that left, and deadlines that passed, cost nothing any more.
fn answer(batch: Vec<Request>, meters: &Meters) {
    let (late, alive): (Vec<Request>, Vec<Request>) = batch.into_iter().partition(Request::is_late);
    for request in late {
        request.note(Outcome::Deadline);
        let _ = request.reply.try_send(Err(InferenceError::Deadline));
    }
    let (left, alive): (Vec<Request>, Vec<Request>) =
        alive.into_iter().partition(|request| request.reply.is_closed());
    for request in left {
        request.note(Outcome::Cancelled);
    }
    let Some(served) = alive.first().map(|request| Arc::clone(&request.served)) else { return };
    let loaded = served.loaded.lock().unwrap_or_else(PoisonError::into_inner);
    let (scores, texts): (Vec<Request>, Vec<Request>) =
        alive.into_iter().partition(|request| matches!(request.ask, Ask::Score(_)));
    told(&scores, score(&loaded, &scores, meters));
    drop(scores);
    let (greedy, sampled): (Vec<Request>, Vec<Request>) = texts
        .into_iter()
        .partition(|request| matches!(request.ask, Ask::Text { strategy: Strategy::Greedy, .. }));
    told(&greedy, write(&loaded, &served, &greedy, meters));
    drop(greedy);
    for request in sampled {
        let alone = [request];
        told(&alone, write(&loaded, &served, &alone, meters));
    }
}

/// A pass that failed is told to everyone in it.
fn told(requests: &[Request], result: Result<(), InferenceError>) {
    if let Err(error) = result {
        for request in requests {
            request.note(Outcome::Failed);
            let _ = request.reply.try_send(Err(error.clone()));
        }
    }
}

fn score(loaded: &Loaded, requests: &[Request], meters: &Meters) -> Result<(), InferenceError> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows: Vec<&[i64]> = requests.iter().map(|request| request.ids.as_slice()).collect();
    meters.batch(rows.iter().map(|row| row.len()), width(&rows));
    let (ids, mask) = tensors(&rows);
    let encoded = loaded.model.encode(&loaded.weights, &ids, &mask)?;
    for (row, request) in (0_i64..).zip(requests) {
        if let Ask::Score(candidates) = &request.ask {
            let scores = t5::score(&loaded.model, &loaded.weights, &encoded, row, candidates)?;
            if request.reply.try_send(Ok(Piece::Scores(scores))).is_err() {
                request.note(Outcome::Cancelled);
            }
        }
    }
    Ok(())
}

fn write(
    loaded: &Loaded,
    served: &Served,
    requests: &[Request],
    meters: &Meters,
) -> Result<(), InferenceError> {
    let Some(Ask::Text { strategy, .. }) = requests.first().map(|request| &request.ask) else {
        return Ok(());
    };
    let room = |request: &Request| match request.ask {
        Ask::Text { tokens_max, .. } => tokens_max,
        Ask::Score(_) => 0,
    };
    let longest = requests.iter().map(room).max().unwrap_or(0);
    let rows: Vec<&[i64]> = requests.iter().map(|request| request.ids.as_slice()).collect();
    meters.batch(rows.iter().map(|row| row.len()), width(&rows));
    let (ids, mask) = tensors(&rows);
    let options = GenerateOptions { tokens_max: longest, strategy: *strategy, compute: loaded.compute };
    let mut growing: Vec<(Growing, usize)> = requests.iter().map(|_| Default::default()).collect();
    t5::generate_with(&loaded.model, &loaded.weights, &ids, &mask, &options, &mut |row, token| {
        let (Some(request), Some((text, count))) = (requests.get(row), growing.get_mut(row)) else {
            return ControlFlow::Break(());
        };
        if request.is_late() {
            request.note(Outcome::Deadline);
            let _ = request.reply.try_send(Err(InferenceError::Deadline));
            return ControlFlow::Break(());
        }
        *count += 1;
        if let (1, Some(admitted)) = (*count, request.admitted()) {
            meters.first_token(admitted);
        }
        let words = text.push(served, token);
        let heard = words.is_empty() || request.reply.try_send(Ok(Piece::Text(words))).is_ok();
        if !heard || request.reply.is_closed() {
            request.note(Outcome::Cancelled);
            return ControlFlow::Break(());
        }
        if *count < room(request) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    meters.wrote(growing.iter().map(|(_, count)| count).sum());
    Ok(())
}

/// Positions of each row of a batch: the longest, padded to a multiple of 8.
fn width(rows: &[&[i64]]) -> usize {
    rows.iter().map(|row| row.len()).max().unwrap_or(1).max(1).next_multiple_of(8)
}

/// Rows as ids and mask, both `[batch, source]`, padded.
pub(crate) fn tensors(rows: &[&[i64]]) -> (Tensor, Tensor) {
    let length = width(rows);
    let mut ids = Vec::with_capacity(rows.len() * length);
    let mut mask = Vec::with_capacity(rows.len() * length);
    for row in rows {
        ids.extend_from_slice(row);
        ids.extend(std::iter::repeat_n(0, length - row.len()));
        mask.extend((0..length).map(|place| place < row.len()));
    }
    let shape = [rows.len() as i64, length as i64];
    (Tensor::from_slice(&ids).reshape(shape), Tensor::from_slice(&mask).reshape(shape).to_kind(Kind::Bool))
}
