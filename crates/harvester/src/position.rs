//! Where the planning of each job stands, as this process remembers it. Another process begins anew, and finds the same.

use domain::ids::DistillationId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Positions kept at once; when it is full, all are forgotten, and found again.
const POSITIONS_MAX: usize = 1_024;

/// Where the planning of a job stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    /// The first train row that is not done, and how many train rows stand before it.
    pub(crate) train: (u64, u32),
    /// The rows that measure the teacher are planned.
    pub(crate) is_measured: bool,
    /// The smoke gate is behind it.
    pub(crate) is_past_gate: bool,
    /// Prompts that were done when its rows were looked at last.
    pub(crate) done: u64,
    /// Prompts that were done when it was looked at last: fewer than before where answers were forgotten.
    pub(crate) seen: u64,
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

    fn known(&self) -> MutexGuard<'_, HashMap<DistillationId, Position>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
