//! One request, from its admission to its end.

use crate::InferenceError;
use crate::cache::{Cache, Known, Question};
use crate::meters::{self, Meters, RequestOutcome};
use crate::queue::Waiting;
use crate::served::Served;
use domain::telemetry;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use student::{Ask, Choice, Event, Prompt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::Span;

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

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// A label: few tokens, or none.
    Label,
    /// A text, token by token.
    Text,
}

/// A request in the queue.
pub(crate) struct Request {
    pub(crate) served: Arc<Served>,
    pub(crate) prompt: Prompt,
    pub(crate) wants: Wants,
    pub(crate) deadline: Option<Instant>,
    /// Has room for everything that this request can be answered ([`pieces_max`]): the thread never waits for a caller who
    /// reads slowly.
    pub(crate) reply: Reply,
    /// Where its answer is kept, once it is whole.
    pub(crate) kept: Option<Keeping>,
    /// `None` until it is admitted.
    pub(crate) guard: Option<RequestGuard>,
}

/// A request from its admission to its end. Dropping it counts the request and closes its span.
pub(crate) struct RequestGuard {
    task: &'static str,
    admitted: Instant,
    outcome: Cell<RequestOutcome>,
    has_token: Cell<bool>,
    span: Span,
    /// Its share of the tokens that may be held at once, until its answer is whole.
    room: Cell<Option<OwnedSemaphorePermit>>,
}

/// An answer that will be kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    cache: Arc<Cache>,
    question: Question,
    /// What is written of it.
    text: RefCell<String>,
}

impl Keeping {
    pub(crate) fn new(cache: Arc<Cache>, question: Question) -> Self {
        Self { cache, question, text: RefCell::default() }
    }

    fn write(&self, piece: &str) {
        self.text.borrow_mut().push_str(piece);
    }

    fn keep(&self, known: Known) {
        self.cache.keep(self.question.clone(), known);
    }
}

impl RequestGuard {
    pub(crate) fn begin(request: &Request, room: OwnedSemaphorePermit) -> Self {
        let task = task(&request.prompt.ask);
        Self {
            task,
            admitted: Instant::now(),
            outcome: Cell::new(RequestOutcome::Ok),
            has_token: Cell::new(false),
            span: answer_span(request, task),
            room: Cell::new(Some(room)),
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
    pub(crate) fn is_awaited(&self) -> bool {
        if self.is_late() {
            self.note(RequestOutcome::Deadline);
            self.release();
            let _ = self.reply.try_send(Err(InferenceError::Deadline));
            return false;
        }
        if self.reply.is_closed() {
            self.note(RequestOutcome::Cancelled);
            return false;
        }
        true
    }

    fn keeping(&self, act: impl FnOnce(&Keeping)) {
        if let Some(kept) = &self.kept {
            act(kept);
        }
    }

    fn note(&self, outcome: RequestOutcome) {
        if let Some(guard) = &self.guard {
            guard.outcome.set(outcome);
        }
    }

    /// It holds nothing any more: before its caller is told of the end, who may ask again at once.
    fn release(&self) {
        if let Some(guard) = &self.guard {
            drop(guard.room.take());
        }
    }

    fn send(&self, piece: Piece) {
        if self.reply.try_send(Ok(piece)).is_err() {
            self.note(RequestOutcome::Cancelled);
        }
    }

    pub(crate) fn fail(&self, error: InferenceError) {
        self.note(RequestOutcome::Failed);
        self.release();
        let _ = self.reply.try_send(Err(error));
    }

    /// Its first token is there; the later ones change nothing.
    fn has_token(&self, meters: &Meters) {
        if let Some(guard) = self.guard.as_ref().filter(|guard| !guard.has_token.replace(true)) {
            meters.first_token(guard.admitted);
        }
    }

    /// It leaves the queue.
    pub(crate) fn leave_queue(&self, meters: &Meters) {
        if let Some(guard) = &self.guard {
            meters.left_queue(guard.admitted);
        }
    }

    /// Tokens that it may write.
    fn promised(&self) -> usize {
        match &self.prompt.ask {
            Ask::Text { tokens_max, .. } => *tokens_max,
            Ask::Choice(candidates) => candidates.tokens_max(),
        }
    }

    /// Tokens that it holds, from its admission to its end: those that it reads, and those that it may write.
    pub(crate) fn tokens(&self) -> usize {
        self.prompt.ids.len().saturating_add(self.promised())
    }

    /// Whether somebody waits for a label.
    pub(crate) fn wants_label(&self) -> bool {
        self.wants == Wants::Label
    }

    /// Gives an answer that is known, at once.
    pub(crate) fn answer(self, known: Known) {
        let began = Instant::now();
        match known {
            Known::Text(text, log_probability) => {
                self.send(Piece::Text(text));
                self.send(Piece::End(log_probability));
            }
            Known::Choice(choice) => self.send(Piece::Choice(choice)),
        }
        meters::ended(task(&self.prompt.ask), RequestOutcome::Ok, began.elapsed());
    }

    /// What the plan knows of it.
    pub(crate) fn waiting(&self, now: Instant) -> Waiting {
        let admitted = self.guard.as_ref().map_or(now, |guard| guard.admitted);
        Waiting {
            source: self.prompt.ids.len(),
            tokens: self.tokens(),
            label: self.wants_label(),
            waited: now.saturating_duration_since(admitted),
        }
    }

    /// Hands one event to its caller, and says whether the row is still of use.
    pub(crate) fn take(&self, event: Event, meters: &Meters) -> ControlFlow<()> {
        match event {
            Event::Token(piece) => {
                meters.wrote(1);
                self.has_token(meters);
                if !piece.is_empty() {
                    self.keeping(|kept| kept.write(&piece));
                    self.send(Piece::Text(piece));
                }
                return if self.is_awaited() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            }
            Event::Done { rest, log_probability, .. } => {
                self.keeping(|kept| {
                    kept.write(&rest);
                    kept.keep(Known::Text(kept.text.take(), log_probability));
                });
                if !rest.is_empty() {
                    self.send(Piece::Text(rest));
                }
                self.release();
                self.send(Piece::End(log_probability));
            }
            Event::Chosen(choice) => {
                self.has_token(meters);
                self.keeping(|kept| kept.keep(Known::Choice(choice.clone())));
                self.release();
                self.send(Piece::Choice(choice));
            }
            Event::Failed(error) => self.fail(self.served.error(error)),
        }
        ControlFlow::Break(())
    }
}
