//! What each job asks about at present, as far as this process knows it. Another process begins anew, and finds the same.

use domain::ids::DistillationId;
use domain::share::Share;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Jobs kept at once; when it is full, all are forgotten, and found again.
const JOBS_MAX: usize = 256;

/// What a job asks about at present.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// The share of its train rows.
    pub(crate) share: Share,
    /// These rows; `None` for all.
    pub(crate) rows: Option<Arc<HashSet<u64>>>,
    /// Whether a probe follows when all of them are done; otherwise the harvest ends.
    pub(crate) is_probed: bool,
}

impl Stage {
    /// A job that asks about every row.
    pub(crate) fn whole() -> Self {
        Self { share: Share::All, rows: None, is_probed: false }
    }
}

/// The stages by job, as far as this process knows them.
#[derive(Debug, Default)]
pub(crate) struct Stages(Mutex<HashMap<DistillationId, Stage>>);

impl Stages {
    pub(crate) fn get(&self, job: DistillationId) -> Option<Stage> {
        self.known().get(&job).cloned()
    }

    pub(crate) fn set(&self, job: DistillationId, stage: Stage) {
        let mut known = self.known();
        if known.len() >= JOBS_MAX {
            known.clear();
        }
        known.insert(job, stage);
    }

    pub(crate) fn forget(&self, job: DistillationId) {
        self.known().remove(&job);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DistillationId, Stage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
