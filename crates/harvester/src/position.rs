//! Where the planning of each job stands, as this process remembers it. Another process begins anew, and finds the same.

use domain::ids::DistillationId;
use domain::share::Share;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Positions kept at once; when it is full, all are forgotten, and found again.
const POSITIONS_MAX: usize = 1_024;

/// Where the planning of a job stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    /// The first train row that is not done, and how many train rows stand before it.
    pub(crate) train: (u64, u32),
    /// The share of the train rows that this is a place in.
    pub(crate) share: Option<Share>,
    /// The rows that measure the teacher are planned.
    pub(crate) is_measured: bool,
    /// The smoke gate is behind it.
    pub(crate) is_past_gate: bool,
    /// Prompts that were done when its rows were looked at last.
    pub(crate) done: u64,
    /// Prompts that were done when it was looked at last: fewer than before where answers were forgotten.
    pub(crate) seen: u64,
    /// Until then nothing is looked for, unless something wakes it.
    rests_until: Option<Instant>,
    /// How many prompts waited to go into a batch, and since when that has not changed.
    pending: Option<(u64, Instant)>,
}

/// The positions by job.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<HashMap<DistillationId, Position>>);

impl Positions {
    pub(crate) fn get(&self, job: DistillationId) -> Position {
        self.known().get(&job).copied().unwrap_or_default()
    }

    pub(crate) fn set(&self, job: DistillationId, position: Position) {
        let mut known = self.known();
        if known.len() >= POSITIONS_MAX {
            known.clear();
        }
        known.insert(job, position);
    }

    pub(crate) fn forget(&self, job: DistillationId) {
        self.known().remove(&job);
    }

    /// Whether it is time to look at a job again.
    pub(crate) fn is_due(&self, job: DistillationId) -> bool {
        self.get(job).rests_until.is_none_or(|until| until <= Instant::now())
    }

    /// Lets a job rest for a while.
    pub(crate) fn rest(&self, job: DistillationId, wait: Duration) {
        self.set(job, Position { rests_until: Instant::now().checked_add(wait), ..self.get(job) });
    }

    /// Something happened to a job: it is looked at again at once.
    pub(crate) fn wake(&self, job: DistillationId) {
        if let Some(position) = self.known().get_mut(&job) {
            position.rests_until = None;
        }
    }

    /// Whether as many prompts as now have waited for a time of `least`; then that time begins anew.
    pub(crate) fn is_steady(&self, job: DistillationId, pending: u64, least: Duration) -> bool {
        let (position, now) = (self.get(job), Instant::now());
        let since = position.pending.filter(|(count, _)| *count == pending).map(|(_, since)| since);
        let is_steady = since.is_some_and(|since| since.elapsed() >= least);
        let since = since.filter(|_| !is_steady).unwrap_or(now);
        self.set(job, Position { pending: Some((pending, since)), ..position });
        is_steady
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DistillationId, Position>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
