//! The thread that owns the device: it takes batches from the queue and answers them.

use crate::queue::{Waiting, assemble};
use crate::served::{Loaded, Served};
use crate::text::Growing;
use crate::{InferenceError, Settings};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use t5::{GenerateOptions, Strategy};
use tch::{Kind, Tensor};
use tokio::sync::mpsc;

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
}

impl Ask {
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
}

impl Engine {
    pub(crate) fn start(settings: Settings) -> Result<Self, InferenceError> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let batch_tokens_max = settings.batch_tokens_max;
        std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || run(received, &counted, batch_tokens_max))
            .map_err(|error| InferenceError::Internal(format!("the engine cannot be started: {error}")))?;
        let draining = Arc::default();
        Ok(Self { requests, waiting, draining, tokens_max: settings.queue_tokens_max })
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Admits a request, or says why not.
    pub(crate) fn submit(&self, request: Request) -> Result<(), InferenceError> {
        if self.is_draining() {
            return Err(InferenceError::Draining);
        }
        let tokens = request.ids.len();
        let waiting = self.waiting.fetch_add(tokens, Ordering::SeqCst);
        let overloaded = || InferenceError::Overloaded { waiting, limit: self.tokens_max };
        if waiting + tokens > self.tokens_max || self.requests.try_send(request).is_err() {
            self.waiting.fetch_sub(tokens, Ordering::SeqCst);
            return Err(overloaded());
        }
        Ok(())
    }
}

fn run(mut received: mpsc::Receiver<Request>, waiting: &AtomicUsize, batch_tokens_max: usize) {
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
        waiting.fetch_sub(batch.iter().map(Waiting::tokens).sum(), Ordering::SeqCst);
        answer(batch);
    }
}

/// Answers a batch of one model's requests. Callers that left, and deadlines that passed, cost nothing any more.
fn answer(batch: Vec<Request>) {
    let (late, alive): (Vec<Request>, Vec<Request>) = batch.into_iter().partition(Request::is_late);
    for request in late {
        let _ = request.reply.try_send(Err(InferenceError::Deadline));
    }
    let alive: Vec<Request> = alive.into_iter().filter(|request| !request.reply.is_closed()).collect();
    let Some(served) = alive.first().map(|request| Arc::clone(&request.served)) else { return };
    let loaded = served.loaded.lock().unwrap_or_else(PoisonError::into_inner);
    let (scores, texts): (Vec<Request>, Vec<Request>) =
        alive.into_iter().partition(|request| matches!(request.ask, Ask::Score(_)));
    told(&scores, score(&loaded, &scores));
    let (greedy, sampled): (Vec<Request>, Vec<Request>) = texts
        .into_iter()
        .partition(|request| matches!(request.ask, Ask::Text { strategy: Strategy::Greedy, .. }));
    told(&greedy, write(&loaded, &served, &greedy));
    for request in sampled {
        let alone = [request];
        told(&alone, write(&loaded, &served, &alone));
    }
}

/// A pass that failed is told to everyone in it.
fn told(requests: &[Request], result: Result<(), InferenceError>) {
    if let Err(error) = result {
        for request in requests {
            let _ = request.reply.try_send(Err(error.clone()));
        }
    }
}

fn score(loaded: &Loaded, requests: &[Request]) -> Result<(), InferenceError> {
    if requests.is_empty() {
        return Ok(());
    }
    let rows: Vec<&[i64]> = requests.iter().map(|request| request.ids.as_slice()).collect();
    let (ids, mask) = tensors(&rows);
    let encoded = loaded.model.encode(&loaded.weights, &ids, &mask)?;
    for (row, request) in (0_i64..).zip(requests) {
        if let Ask::Score(candidates) = &request.ask {
            let scores = t5::score(&loaded.model, &loaded.weights, &encoded, row, candidates)?;
            let _ = request.reply.try_send(Ok(Piece::Scores(scores)));
        }
    }
    Ok(())
}

fn write(loaded: &Loaded, served: &Served, requests: &[Request]) -> Result<(), InferenceError> {
    let Some(Ask::Text { strategy, .. }) = requests.first().map(|request| &request.ask) else {
        return Ok(());
    };
    let room = |request: &Request| match request.ask {
        Ask::Text { tokens_max, .. } => tokens_max,
        Ask::Score(_) => 0,
    };
    let longest = requests.iter().map(room).max().unwrap_or(0);
    let rows: Vec<&[i64]> = requests.iter().map(|request| request.ids.as_slice()).collect();
    let (ids, mask) = tensors(&rows);
    let options = GenerateOptions { tokens_max: longest, strategy: *strategy, compute: loaded.compute };
    let mut growing: Vec<(Growing, usize)> = requests.iter().map(|_| Default::default()).collect();
    t5::generate_with(&loaded.model, &loaded.weights, &ids, &mask, &options, &mut |row, token| {
        let (Some(request), Some((text, count))) = (requests.get(row), growing.get_mut(row)) else {
            return ControlFlow::Break(());
        };
        if request.is_late() {
            let _ = request.reply.try_send(Err(InferenceError::Deadline));
            return ControlFlow::Break(());
        }
        *count += 1;
        let words = text.push(served, token);
        let heard = words.is_empty() || request.reply.try_send(Ok(Piece::Text(words))).is_ok();
        if heard && !request.reply.is_closed() && *count < room(request) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(())
}

/// Rows as ids and mask, both `[batch, source]`, padded to a multiple of 8.
pub(crate) fn tensors(rows: &[&[i64]]) -> (Tensor, Tensor) {
    let length = rows.iter().map(|row| row.len()).max().unwrap_or(1).max(1).next_multiple_of(8);
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
