//! A call's turn within the limits that all replicas share: booked, waited for, started, settled.
//!
//! Callers that cannot be booked queue here, first come first served, and only the first few of them ask the shared limits
//! again: a thousand waiting callers cost what a few do.

use domain::pacing::PERMIT_MAX;
use domain::ports::{
    Booking, CallCost, CallOutcome, Pace, RateLimitError, RateLimiter, RateLimits, Reservation, SeenLimit,
    WaitReason,
};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

/// The longest wait for a turn. A prompt that waits longer goes back to its queue, so that its lease is held by who asks.
const PATIENCE: Duration = Duration::from_secs(60);
/// Waiting callers that ask the shared limits again.
const HEADS: usize = 4;
/// A start that is this near needs no second look at what happened meanwhile.
const AT_ONCE: Duration = Duration::from_millis(100);
/// When to ask again where nothing says how long it takes.
const LATER: Duration = Duration::from_secs(1);

/// Why a call has no turn.
#[derive(Debug)]
pub(crate) enum NoTurn {
    /// It would have to wait longer than it should.
    Later {
        /// How long.
        wait: Duration,
        /// Why.
        reason: WaitReason,
    },
    /// No call is made any more.
    Closed,
    /// A call of this size can never be made.
    NeverFits(String),
    /// The shared limits do not answer.
    Unavailable(String),
}

impl From<RateLimitError> for NoTurn {
    fn from(error: RateLimitError) -> Self {
        match error {
            RateLimitError::NeverFits { .. } => Self::NeverFits(error.to_string()),
            RateLimitError::Unavailable(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// Who wants to know of waits.
pub(crate) trait Waiting: Send + Sync {
    /// A call waits so long, for this reason.
    fn waits(&self, wait: Duration, reason: WaitReason);
}

/// The turns of one profile in this process.
pub(crate) struct Turns {
    profile: String,
    limits: RateLimits,
    rate_limiter: Arc<dyn RateLimiter>,
    waiting: Box<dyn Waiting>,
    heads: Semaphore,
    queued: AtomicUsize,
    /// A call of this process ended.
    freed: Notify,
    bookings: Mutex<HashSet<u64>>,
    renewed: Mutex<Instant>,
    closed: watch::Sender<bool>,
}

impl Turns {
    pub(crate) fn new(
        profile: String,
        limits: RateLimits,
        rate_limiter: Arc<dyn RateLimiter>,
        waiting: Box<dyn Waiting>,
    ) -> Self {
        Self {
            profile,
            limits,
            rate_limiter,
            waiting,
            heads: Semaphore::new(HEADS),
            queued: AtomicUsize::new(0),
            freed: Notify::new(),
            bookings: Mutex::default(),
            renewed: Mutex::new(Instant::now()),
            closed: watch::channel(false).0,
        }
    }

    /// Books a call of at most `cost`, and waits for its start.
    pub(crate) async fn turn(self: &Arc<Self>, cost: CallCost) -> Result<Turn, NoTurn> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let booking = self.until_closed(self.book(cost, deadline)).await??;
            let turn = Turn::new(self, booking.number);
            if booking.start_in < AT_ONCE {
                tokio::time::sleep(booking.start_in).await;
                return Ok(turn);
            }
            self.waiting.waits(booking.start_in, WaitReason::Rate);
            self.until_closed(tokio::time::sleep(booking.start_in)).await?;
            let Some((wait, reason)) = self.rate_limiter.start(&self.profile, booking.number).await? else {
                return Ok(turn);
            };
            turn.returned();
            self.pause(wait, reason, deadline).await?;
        }
    }

    /// Nobody waits any more, and nobody begins to.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) async fn pace(&self) -> Result<Pace, RateLimitError> {
        self.rate_limiter.pace(&self.profile).await
    }

    /// Keeps the bookings of this process alive for as long as it is polled, whoever of them does it.
    pub(crate) async fn renewals(&self) -> Infallible {
        let every = PERMIT_MAX / 4;
        loop {
            tokio::time::sleep(every).await;
            let due = {
                let mut renewed = lock(&self.renewed);
                let due = renewed.elapsed() >= every;
                if due {
                    *renewed = Instant::now();
                }
                due
            };
            if !due {
                continue;
            }
            let numbers: Vec<u64> = lock(&self.bookings).iter().copied().collect();
            if let Err(error) = self.rate_limiter.renew(&self.profile, &numbers).await {
                tracing::warn!(%error, "calls in flight cannot be counted");
            }
        }
    }

    async fn until_closed<T>(&self, act: impl Future<Output = T>) -> Result<T, NoTurn> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(NoTurn::Closed),
            done = act => Ok(done),
        }
    }

    async fn book(&self, cost: CallCost, deadline: Instant) -> Result<Booking, NoTurn> {
        // Who comes while others queue does not overtake them.
        if self.queued.load(Ordering::Relaxed) == 0 {
            match self.rate_limiter.reserve(&self.profile, &self.limits, cost).await? {
                Reservation::Booked(booking) => return Ok(booking),
                Reservation::Wait { wait, reason: WaitReason::Failed } => {
                    return Err(NoTurn::Later { wait, reason: WaitReason::Failed });
                }
                Reservation::Wait { wait, reason } => self.waiting.waits(wait, reason),
            }
        }
        let _queued = Queued::new(&self.queued);
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Ok(_head)) = tokio::time::timeout(left, self.heads.acquire()).await else {
            return Err(NoTurn::Later { wait: LATER, reason: WaitReason::Rate });
        };
        loop {
            let freed = self.freed.notified();
            match self.rate_limiter.reserve(&self.profile, &self.limits, cost).await? {
                Reservation::Booked(booking) => return Ok(booking),
                Reservation::Wait { wait, reason: WaitReason::Concurrency } => {
                    let wait = jittered(wait);
                    if Instant::now() + wait > deadline {
                        return Err(NoTurn::Later { wait: LATER, reason: WaitReason::Concurrency });
                    }
                    let _ = tokio::time::timeout(wait, freed).await;
                }
                Reservation::Wait { wait, reason } => self.pause(wait, reason, deadline).await?,
            }
        }
    }

    /// Waits, where that is worth it. While a teacher fails nobody waits: the prompts of other teachers are waiting, too.
    async fn pause(&self, wait: Duration, reason: WaitReason, deadline: Instant) -> Result<(), NoTurn> {
        self.waiting.waits(wait, reason);
        if reason == WaitReason::Failed || Instant::now() + wait > deadline {
            return Err(NoTurn::Later { wait, reason });
        }
        self.until_closed(tokio::time::sleep(jittered(wait))).await
    }
}

/// A caller in the queue; it leaves when dropped.
struct Queued<'turns>(&'turns AtomicUsize);

impl<'turns> Queued<'turns> {
    fn new(queued: &'turns AtomicUsize) -> Self {
        queued.fetch_add(1, Ordering::Relaxed);
        Self(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call that may be made now. Dropped without an end it is settled as what is known: not sent, or with an unknown end.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
    on_drop: Option<CallOutcome>,
}

impl Turn {
    fn new(turns: &Arc<Turns>, number: u64) -> Self {
        lock(&turns.bookings).insert(number);
        Self { turns: Arc::clone(turns), number, on_drop: Some(CallOutcome::NotSent) }
    }

    /// The call is being sent.
    pub(crate) fn sent(&mut self) {
        self.on_drop = Some(CallOutcome::Unknown);
    }

    /// How the call ended.
    pub(crate) async fn settle(mut self, outcome: CallOutcome, seen: &[SeenLimit]) {
        self.on_drop = Some(outcome);
        lock(&self.turns.bookings).remove(&self.number);
        settle(&self.turns, self.number, outcome, seen).await;
        self.on_drop = None;
    }

    /// The same without waiting for its end, which takes nothing from the next call: the limits are told in the order in
    /// which their connection is given to it, and so know of the free place before that call asks for it.
    pub(crate) async fn settle_behind(self, outcome: CallOutcome, seen: Vec<SeenLimit>) {
        let turns = Arc::clone(&self.turns);
        let mut settling = Box::pin(async move { self.settle(outcome, &seen).await });
        if futures::poll!(&mut settling).is_pending() {
            turns.freed.notify_one();
            tokio::spawn(settling);
        }
    }

    /// The booking was returned already.
    fn returned(mut self) {
        self.on_drop = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.turns.bookings).remove(&self.number);
        if let (Some(outcome), Ok(runtime)) = (self.on_drop, Handle::try_current()) {
            let (turns, number) = (Arc::clone(&self.turns), self.number);
            runtime.spawn(async move { settle(&turns, number, outcome, &[]).await });
        }
    }
}

async fn settle(turns: &Turns, number: u64, outcome: CallOutcome, seen: &[SeenLimit]) {
    if let Err(error) = turns.rate_limiter.settle(&turns.profile, number, outcome, seen).await {
        tracing::warn!(%error, "a call cannot be settled with the shared limits");
    }
    turns.freed.notify_one();
}

/// A little later, so that not everyone comes in the same instant; never earlier.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + 0.05 * rand::random::<f64>())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
