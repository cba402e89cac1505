//! The thread that owns the device: it takes batches from the queue and answers them.

use crate::InferenceError;
use crate::meters::{self, Meters, RefusalReason, RequestOutcome};
use crate::queue::{Waiting, assemble};
use crate::served::Served;
use crate::settings::Settings;
use domain::telemetry;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use student::{Ask, Choice, Event, Predictor, Prompt, Strategy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Span;

/// How long an engine that ended at a panic stays down: one that always does must not be all that the machine does.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// Requests that wait at most, whatever their length.
const REQUESTS_MAX: usize = 4096;

/// What is answered.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next words.
    Text(String),
    /// The likeliest label, with the probabilities of its set.
    Choice(Choice),
    /// The end of a text, with the natural logarithm of its probability.
    End(f64),
}

/// Where the pieces of an answer go.
type Reply = mpsc::Sender<Result<Piece, InferenceError>>;

/// A request in the queue.
pub(crate) struct Request {
    pub(crate) served: Arc<Served>,
    pub(crate) prompt: Prompt,
    pub(crate) deadline: Option<Instant>,
    /// Has room for everything that this request can be answered ([`pieces_max`]): the thread never waits for a caller who
    /// reads slowly.
    pub(crate) reply: Reply,
    /// `None` until it is admitted.
    pub(crate) guard: Option<RequestGuard>,
}

/// What happens where the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The request is refused: the caller tries again later.
    Refuse,
    /// The request waits for room: it belongs to a call that was admitted.
    Wait,
}

/// A request from its admission to its end. Dropping it counts the request and closes its span.
pub(crate) struct RequestGuard {
    task: &'static str,
    admitted: Instant,
    outcome: Cell<RequestOutcome>,
    has_token: Cell<bool>,
    span: Span,
    /// Its share of the queue, given back when it is taken from there.
    room: Option<OwnedSemaphorePermit>,
}

impl RequestGuard {
    fn begin(request: &Request, room: OwnedSemaphorePermit) -> Self {
        let task = task(&request.prompt.ask);
        Self {
            task,
            admitted: Instant::now(),
            outcome: Cell::new(RequestOutcome::Ok),
            has_token: Cell::new(false),
            span: answer_span(request, task),
            room: Some(room),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let outcome = self.outcome.get();
        self.span.record("distillery.outcome", outcome.name());
        if matches!(outcome, RequestOutcome::Deadline | RequestOutcome::Failed) {
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
        distillery.tokens_in = request.prompt.ids.len(),
        distillery.outcome = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    wire::trace::link(&span, &request.served.traceparent);
    span
}

/// What the metrics call it.
fn task(ask: &Ask) -> &'static str {
    match ask {
        Ask::Text { .. } => "text",
        Ask::Choice(_) => "score",
    }
}

/// Pieces of the longest answer: one a token, what is left behind the last and the end, or the choice; and an error behind them.
pub(crate) fn pieces_max(ask: &Ask) -> usize {
    match ask {
        Ask::Text { tokens_max, .. } => tokens_max + 3,
        Ask::Choice(_) => 2,
    }
}

impl Request {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether a caller still waits for the answer. A passed deadline is reported to it.
    fn is_awaited(&self) -> bool {
        if self.is_late() {
            self.note(RequestOutcome::Deadline);
            let _ = self.reply.try_send(Err(InferenceError::Deadline));
            return false;
        }
        if self.reply.is_closed() {
            self.note(RequestOutcome::Cancelled);
            return false;
        }
        true
    }

    fn note(&self, outcome: RequestOutcome) {
        if let Some(guard) = &self.guard {
            guard.outcome.set(outcome);
        }
    }

    fn send(&self, piece: Piece) {
        if self.reply.try_send(Ok(piece)).is_err() {
            self.note(RequestOutcome::Cancelled);
        }
    }

    fn fail(&self, error: InferenceError) {
        self.note(RequestOutcome::Failed);
        let _ = self.reply.try_send(Err(error));
    }

    /// Its first token is there; the later ones change nothing.
    fn has_token(&self, meters: &Meters) {
        if let Some(guard) = self.guard.as_ref().filter(|guard| !guard.has_token.replace(true)) {
            meters.first_token(guard.admitted);
        }
    }

    /// It leaves the queue.
    fn leave_queue(&mut self, meters: &Meters) {
        if let Some(guard) = &mut self.guard {
            meters.left_queue(guard.admitted);
            guard.room = None;
        }
    }
}

impl Waiting for Request {
    fn group(&self) -> usize {
        Arc::as_ptr(&self.served) as usize
    }

    fn tokens(&self) -> usize {
        self.prompt.ids.len()
    }
}

/// The queue's other end.
#[derive(Clone)]
pub(crate) struct Engine {
    requests: mpsc::Sender<Request>,
    room: Room,
    draining: Arc<AtomicBool>,
    meters: Meters,
}

/// The source tokens that may wait at once.
#[derive(Clone)]
struct Room {
    tokens: Arc<Semaphore>,
    tokens_max: usize,
}

impl Room {
    fn new(tokens_max: usize) -> Self {
        let tokens_max = tokens_max.clamp(1, Semaphore::MAX_PERMITS);
        Self { tokens: Arc::new(Semaphore::new(tokens_max)), tokens_max }
    }

    fn waiting(&self) -> usize {
        self.tokens_max.saturating_sub(self.tokens.available_permits())
    }

    /// What a request of so many tokens takes. A longer one than the whole queue takes it all: it waits alone.
    fn share(&self, tokens: usize) -> u32 {
        u32::try_from(tokens.clamp(1, self.tokens_max)).unwrap_or(u32::MAX)
    }
}

impl Engine {
    pub(crate) fn start(settings: Settings) -> Result<Self, InferenceError> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let room = Room::new(settings.queue_tokens_max);
        let batch_tokens_max = settings.batch_tokens_max;
        let meters = Meters::new();
        let (emptied, counts) = (room.clone(), meters.clone());
        std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                let mut received = received;
                supervise(|| run(&mut received, &emptied, batch_tokens_max, &counts));
            })
            .map_err(|error| InferenceError::Internal(format!("the engine cannot be started: {error}")))?;
        Ok(Self { requests, room, draining: Arc::default(), meters })
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Admits a request, now or when there is room, or says why not. Its deadline ends the waiting.
    pub(crate) async fn submit(&self, request: Request, admission: Admission) -> Result<(), InferenceError> {
        match (admission, request.deadline) {
            (Admission::Refuse, _) => self.submit_now(request),
            (Admission::Wait, Some(deadline)) => {
                let waiting = tokio::time::timeout_at(deadline.into(), self.submit_when_room(request));
                waiting.await.map_err(|_| InferenceError::Deadline)?
            }
            (Admission::Wait, None) => self.submit_when_room(request).await,
        }
    }

    fn submit_now(&self, request: Request) -> Result<(), InferenceError> {
        if self.is_draining() {
            meters::refused(RefusalReason::Draining);
            return Err(InferenceError::Draining);
        }
        let share = self.room.share(request.tokens());
        let room = Arc::clone(&self.room.tokens).try_acquire_many_owned(share).ok();
        let (Some(room), Ok(place)) = (room, self.requests.try_reserve()) else {
            meters::refused(RefusalReason::Overloaded);
            let (waiting, limit) = (self.room.waiting(), self.room.tokens_max);
            return Err(InferenceError::Overloaded { waiting, limit });
        };
        self.admit(request, room, place);
        Ok(())
    }

    async fn submit_when_room(&self, request: Request) -> Result<(), InferenceError> {
        let ended = |_| InferenceError::Internal("the engine ended".to_owned());
        let share = self.room.share(request.tokens());
        let room = Arc::clone(&self.room.tokens).acquire_many_owned(share).await;
        let room = room.map_err(|error| InferenceError::Internal(error.to_string()))?;
        let place = self.requests.reserve().await.map_err(ended)?;
        self.admit(request, room, place);
        Ok(())
    }

    fn admit(&self, mut request: Request, room: OwnedSemaphorePermit, place: mpsc::Permit<'_, Request>) {
        self.meters.waiting(self.room.waiting());
        request.guard = Some(RequestGuard::begin(&request, room));
        place.send(request);
    }
}

/// Does `work` to its end, and begins it again where it panics: what waited in it is let go, so that its callers are told, and
/// who asks later is answered.
fn supervise(mut work: impl FnMut()) {
    while std::panic::catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        tracing::error!("the engine ended at a defect of this program, and begins again without what waited");
        std::thread::sleep(RESTART_AFTER);
    }
}

fn run(received: &mut mpsc::Receiver<Request>, room: &Room, batch_tokens_max: usize, meters: &Meters) {
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
            let mut request = queue.remove(place);
            request.leave_queue(meters);
            batch.push(request);
        }
        batch.reverse();
        meters.waiting(room.waiting());
        answer(batch, meters);
    }
}

/// Does `work` for requests that are answered together. Where it panics (an allocation of libtorch's that failed, say), their
/// callers are told, and the thread goes on: weights are only read, so that the next requests find them as they were.
///
/// A closed channel ends an answer, so that `replies` are those of this work alone, and are let go with it.
fn survive(replies: Vec<Reply>, work: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(work)).is_ok() {
        return;
    }
    tracing::error!(
        requests = replies.len(),
        "the engine failed at requests, and goes on with the next ones"
    );
    for reply in replies {
        // One that has left needs no answer.
        let _ = reply.try_send(Err(InferenceError::Internal("the engine failed at this request".to_owned())));
    }
}

/// Answers a batch of one model's requests. Callers that left, and deadlines that passed, cost nothing any more.
fn answer(batch: Vec<Request>, meters: &Meters) {
    let Some(served) = batch.first().map(|request| Arc::clone(&request.served)) else { return };
    let (choices, texts): (Vec<Request>, Vec<Request>) =
        batch.into_iter().partition(|request| matches!(request.prompt.ask, Ask::Choice(_)));
    let (greedy, sampled): (Vec<Request>, Vec<Request>) = texts
        .into_iter()
        .partition(|request| matches!(request.prompt.ask, Ask::Text { strategy: Strategy::Greedy, .. }));
    served.student.with(|predictor| {
        for request in choices {
            survive(vec![request.reply.clone()], || choose(predictor, &request, meters));
        }
        for requests in std::iter::once(greedy).chain(sampled.into_iter().map(|request| vec![request])) {
            let replies = requests.iter().map(|request| request.reply.clone()).collect();
            survive(replies, || write(predictor, requests, meters));
        }
    });
}

fn choose(predictor: &Predictor<'_>, request: &Request, meters: &Meters) {
    let Ask::Choice(candidates) = &request.prompt.ask else { return };
    if !request.is_awaited() {
        return;
    }
    meters.batch(&[request.tokens()]);
    match predictor.choose(&request.prompt.ids, candidates) {
        Ok(choice) => request.send(Piece::Choice(choice)),
        Err(error) => request.fail(request.served.error(error)),
    }
}

/// Writes texts, all greedy or one alone. A pass that fails is reported to everyone in it.
fn write(predictor: &Predictor<'_>, mut requests: Vec<Request>, meters: &Meters) {
    requests.retain(Request::is_awaited);
    if requests.is_empty() {
        return;
    }
    let lengths: Vec<usize> = requests.iter().map(Waiting::tokens).collect();
    meters.batch(&lengths);
    let prompts: Vec<&Prompt> = requests.iter().map(|request| &request.prompt).collect();
    let passed = predictor.write(&prompts, &mut |row, event| match requests.get(row) {
        Some(request) => take(request, event, meters),
        None => ControlFlow::Break(()),
    });
    if let Err(error) = passed
        && let Some(error) = requests.first().map(|request| request.served.error(error))
    {
        for request in &requests {
            request.fail(error.clone());
        }
    }
}

/// Hands one event of a row to its caller, and says whether the row is still of use.
fn take(request: &Request, event: Event, meters: &Meters) -> ControlFlow<()> {
    match event {
        Event::Token(piece) => {
            meters.wrote(1);
            request.has_token(meters);
            if !piece.is_empty() {
                request.send(Piece::Text(piece));
            }
        }
        Event::Done { rest, log_probability, .. } => {
            if !rest.is_empty() {
                request.send(Piece::Text(rest));
            }
            request.send(Piece::End(log_probability));
            return ControlFlow::Break(());
        }
        Event::Failed(error) => {
            request.fail(request.served.error(error));
            return ControlFlow::Break(());
        }
    }
    if request.is_awaited() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_of_a_panic_and_the_thread_goes_on() {
        let (reply, mut pieces) = mpsc::channel(2);
        let kept = reply.clone();
        survive(vec![reply], move || {
            let _held_by_the_request = kept;
            panic!("out of memory");
        });
        assert!(matches!(pieces.blocking_recv(), Some(Err(InferenceError::Internal(_)))));
        assert!(pieces.blocking_recv().is_none());
        let mut is_done = false;
        survive(Vec::new(), || is_done = true);
        assert!(is_done);
    }

    #[test]
    fn an_engine_that_ends_at_a_panic_begins_again() {
        let (requests, mut received) = mpsc::channel(4);
        let (mut rounds, mut answered) = (0, Vec::new());
        for request in [1, 2, 3] {
            requests.try_send(request).unwrap();
        }
        drop(requests);
        supervise(|| {
            rounds += 1;
            while let Some(request) = received.blocking_recv() {
                assert!(request != 2, "a defect");
                answered.push(request);
            }
        });
        assert_eq!((rounds, answered), (2, vec![1, 3]));
    }
}
