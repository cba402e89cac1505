//! Jobs at which a harvester was lost, while this process works at them: one after the other, so that the next loss tells which of
//! them it was.

use domain::ids::DistillationId;
use domain::ports::ClaimedJob;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The suspects by job.
#[derive(Debug, Default)]
pub(crate) struct Trials(Mutex<HashMap<DistillationId, Trial>>);

/// One job on trial.
#[derive(Debug)]
struct Trial {
    since: Instant,
    /// Its prompts, and those that were done, at the first look.
    stood_at: Option<(u64, u64)>,
}

impl Trials {
    /// How many suspects may be worked at: one, and those under which this process has lived for `patience`, for they may wait
    /// for long.
    pub(crate) fn room(&self, patience: Duration) -> usize {
        let outlived = self.known().values().filter(|trial| trial.since.elapsed() >= patience).count();
        outlived.saturating_add(1)
    }

    /// Keeps those that are claimed, and begins with those that are new.
    pub(crate) fn keep(&self, claimed: &[ClaimedJob]) {
        let mut known = self.known();
        let suspects = claimed.iter().filter(|claimed| claimed.lost_harvesters > 0);
        let mut kept = HashMap::new();
        for id in suspects.map(|claimed| claimed.job.id) {
            let trial = known.remove(&id).unwrap_or(Trial { since: Instant::now(), stood_at: None });
            kept.insert(id, trial);
        }
        *known = kept;
    }

    /// Whether a job is on trial here.
    pub(crate) fn is_tried(&self, job: DistillationId) -> bool {
        self.known().contains_key(&job)
    }

    /// Whether a job stands elsewhere than at the first look.
    pub(crate) fn moved(&self, job: DistillationId, stands_at: (u64, u64)) -> bool {
        let mut known = self.known();
        known.get_mut(&job).is_some_and(|trial| *trial.stood_at.get_or_insert(stands_at) != stands_at)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DistillationId, Trial>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_suspect_is_tried_at_a_time_and_one_more_whenever_this_process_outlives_one() {
        let (trials, first, second) =
            (Trials::default(), DistillationId::generate(), DistillationId::generate());
        let hour = Duration::from_secs(3_600);
        assert_eq!(trials.room(hour), 1);
        trials.known().insert(first, Trial { since: Instant::now(), stood_at: None });
        assert_eq!((trials.room(hour), trials.room(Duration::ZERO)), (1, 2));
        assert!(!trials.moved(first, (4, 0)), "the first look");
        assert!(!trials.moved(first, (4, 0)), "it stands still");
        assert!(trials.moved(first, (4, 1)), "a prompt is answered");
        assert!(!trials.moved(second, (4, 1)), "it is not on trial");
        assert!(trials.is_tried(first) && !trials.is_tried(second));
        trials.keep(&[]);
        assert_eq!(trials.room(Duration::ZERO), 1, "nobody is on trial any more");
    }
}
