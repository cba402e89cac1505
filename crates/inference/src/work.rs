//! The thread that owns the device: between two steps requests join the rows that are answered, and others leave.

use crate::meters::Meters;
use crate::queue::{Running, plan};
use crate::request::Request;
use crate::served::Served;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use student::{Session, StudentError};
use tokio::sync::mpsc;

/// How often those who wait are asked whether they still do, and whether their deadlines have passed.
const SWEEP_EVERY: Duration = Duration::from_millis(5);

/// Answers what is received until nobody can send any more. `held` says how many tokens requests hold.
pub(crate) fn run(
    received: &mut mpsc::Receiver<Request>,
    batch_tokens_max: usize,
    meters: &Meters,
    held: &dyn Fn() -> usize,
) {
    let mut work = Work { queue: Vec::new(), swept: Instant::now(), models: BTreeMap::new() };
    loop {
        if work.queue.is_empty() && work.models.is_empty() {
            // Nothing is held, or what is on its way is.
            meters.held(held());
            match received.blocking_recv() {
                Some(request) => work.queue.push(request),
                None => return,
            }
        }
        while let Ok(request) = received.try_recv() {
            work.queue.push(request);
        }
        meters.held(held());
        work.sweep();
        work.begin(batch_tokens_max, meters);
        work.step(meters);
    }
}

/// What waits, and what is being answered.
struct Work {
    /// In the order of arrival.
    queue: Vec<Request>,
    swept: Instant,
    models: BTreeMap<usize, Answering>,
}

impl Work {
    /// Lets those go who no longer wait.
    fn sweep(&mut self) {
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.queue.retain(Request::is_awaited);
            self.swept = Instant::now();
        }
    }

    /// Begins what the plan says.
    fn begin(&mut self, batch_tokens_max: usize, meters: &Meters) {
        let running = self.models.values().fold(Running::default(), |running, model| model.add_to(running));
        let now = Instant::now();
        let waiting = self.queue.iter().map(|request| request.waiting(now));
        let places = plan(waiting, running, batch_tokens_max);
        if places.is_empty() {
            return;
        }
        let mut queue: Vec<Option<Request>> = std::mem::take(&mut self.queue).into_iter().map(Some).collect();
        for place in places {
            let Some(request) = queue.get_mut(place).and_then(Option::take) else { continue };
            request.leave_queue(meters);
            if request.is_awaited() {
                self.answering(&request.served).join(request);
            }
        }
        self.queue = queue.into_iter().flatten().collect();
    }

    fn answering(&mut self, served: &Arc<Served>) -> &mut Answering {
        // What is being answered holds its student, so that no other one has its address.
        let address = Arc::as_ptr(served) as usize;
        self.models.entry(address).or_insert_with(|| Answering::of(Arc::clone(served)))
    }

    /// One step of every model that answers, by turns.
    fn step(&mut self, meters: &Meters) {
        for model in self.models.values_mut() {
            model.step(meters);
        }
        self.models.retain(|_, model| !model.session.is_empty());
    }
}

/// The requests that one student answers together.
struct Answering {
    served: Arc<Served>,
    session: Session,
    /// By the keys of the session.
    requests: BTreeMap<u64, Request>,
    next: u64,
    /// Source tokens of those that joined since the last step.
    joined: Vec<usize>,
}

impl Answering {
    fn of(served: Arc<Served>) -> Self {
        let (session, requests) = (Session::default(), BTreeMap::new());
        Self { served, session, requests, next: 0, joined: Vec::new() }
    }

    fn add_to(&self, mut running: Running) -> Running {
        for request in self.requests.values() {
            let rows = running.kind(request.wants_label());
            *rows = rows.with(request.tokens());
        }
        running
    }

    fn join(&mut self, request: Request) {
        let key = self.next;
        self.next += 1;
        self.joined.push(request.prompt.ids.len());
        self.session.join(key, request.prompt.clone());
        self.requests.insert(key, request);
    }

    /// Moves all on by a step. Where that panics (an allocation of libtorch's that failed, say), their callers are told, and the
    /// thread goes on: weights are only read, so that the next requests find them as they were.
    fn step(&mut self, meters: &Meters) {
        let Self { served, session, requests, joined, .. } = self;
        let joined = std::mem::take(joined);
        let stepped = std::panic::catch_unwind(AssertUnwindSafe(|| {
            served.student.with(|predictor| {
                meters.step(requests.len(), &joined, predictor.tokens_read(&joined));
                predictor.step(session, &mut |key, event| {
                    let Some(request) = requests.get(&key) else { return ControlFlow::Break(()) };
                    let goes_on = request.take(event, meters);
                    if goes_on.is_break() {
                        requests.remove(&key);
                    }
                    goes_on
                })
            })
        }));
        match stepped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(_) => {
                tracing::error!(
                    requests = self.requests.len(),
                    "the engine failed at requests, and goes on with the next ones"
                );
                self.fail(StudentError::Internal("the engine failed at this request".to_owned()));
            }
        }
    }

    /// Tells everyone in the step, and forgets what it left behind.
    fn fail(&mut self, error: StudentError) {
        let error = self.served.error(error);
        for request in std::mem::take(&mut self.requests).into_values() {
            request.fail(error.clone());
        }
        self.session = Session::default();
    }
}
