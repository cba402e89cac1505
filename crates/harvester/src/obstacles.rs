//! Why a teacher answers nothing: noted with the jobs that wait for it, and, where that lasts, the reason they pause.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use domain::ids::DistillationId;
use domain::ports::StoreError;
use domain::state::DistillationState;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use teacher::{Obstacle, ObstacleKind};
use tokio_util::sync::CancellationToken;

/// How often teachers are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For how long a job is looked at after this process has last asked for it.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// A teacher that has answered nothing for as long pauses its jobs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A job that this process asks for.
struct Asked {
    seen: Instant,
    noted: String,
}

/// Looks at the teachers of the jobs that `asking` names, until `stopped`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    asking: impl Fn() -> Vec<DistillationId> + Send,
    stopped: CancellationToken,
) {
    let mut asked: HashMap<DistillationId, Asked> = HashMap::new();
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let now = Instant::now();
        for job in asking() {
            asked.entry(job).or_insert_with(|| Asked { seen: now, noted: String::new() }).seen = now;
        }
        let mut ended = Vec::new();
        for (job, state) in &mut asked {
            match look(&shared, *job, state).await {
                Ok(true) if now.duration_since(state.seen) < REMEMBERED => {}
                Ok(_) => ended.push(*job),
                Err(error) => {
                    tracing::warn!(%error, distillation = %job, "a teacher's obstacle cannot be noted")
                }
            }
        }
        for job in ended {
            asked.remove(&job);
        }
    }
}

/// Looks at one job's teachers. Returns whether it still harvests.
async fn look(shared: &Shared, id: DistillationId, asked: &mut Asked) -> Result<bool, HarvestError> {
    let state = match shared.stores.jobs.distillation(id).await {
        Ok(job) => job.state,
        Err(StoreError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if state != DistillationState::Harvesting {
        return Ok(false);
    }
    let job = shared.jobs.get(id).await?;
    let found = obstacle(&job).await;
    let words =
        found.as_ref().map_or_else(String::new, |(name, obstacle)| format!("teacher `{name}` {obstacle}"));
    if words != asked.noted {
        shared.stores.jobs.note_obstacle(id, &words).await?;
        asked.noted.clone_from(&words);
    }
    if found.is_some_and(|(_, obstacle)| lasts(&obstacle)) {
        let reason = format!("{words}: check the teacher and its limits, then resume");
        shared.pause(id, &reason).await?;
        shared.changed.notify_waiters();
        return Ok(false);
    }
    Ok(true)
}

/// The first of a job's teachers that answers nothing, and why.
async fn obstacle(job: &PreparedJob) -> Option<(String, Obstacle)> {
    for teacher in &job.teachers {
        if let Some(obstacle) = teacher.obstacle().await {
            return Some((teacher.profile().name.clone(), obstacle));
        }
    }
    None
}

/// Whether a person has to look. A limit of the profile passes by itself, and so do calls that take long.
fn lasts(obstacle: &Obstacle) -> bool {
    let is_theirs = matches!(obstacle.kind, ObstacleKind::Refused | ObstacleKind::Failed);
    is_theirs && obstacle.since.elapsed() >= SILENCE_MAX
}
