//! The driver moves jobs from stage to stage. Any replica may drive; a lease in the store says which one does.

use crate::error::{HarvestError, guarded};
use crate::job::PreparedJob;
use crate::plan::Next;
use crate::shared::Shared;
use crate::{batches, judging, plan, shares};
use domain::ids::DistillationId;
use domain::ports::{Claim, ClaimedJob};
use domain::records::Distillation;
use domain::share::Share;
use domain::state::DistillationState;
use domain::telemetry::span;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Jobs that one driver moves at a time: the oldest, for as long as they are not done. More than wait for a teacher that is away.
const JOBS_MAX: usize = 128;
/// How often a job is looked at that waits for batches, unless one of them ends here.
const BATCHED_LOOK_EVERY: Duration = Duration::from_secs(5);

pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    // Each job on its own: one that waits for its teacher, or has much to plan, holds up no other. Claiming goes on meanwhile, and
    // keeps the leases.
    let (mut driven, mut at_work) = (JoinSet::new(), HashMap::new());
    // What was lost before is counted at once, before anything is asked.
    while !shutdown.is_cancelled() {
        while let Some(ended) = driven.try_join_next_with_id() {
            at_work.remove(&ended.map_or_else(|broken| broken.id(), |(task, ())| task));
        }
        let settings = &shared.settings;
        let claim = Claim {
            harvester: &settings.name,
            lease: settings.lease,
            jobs_max: JOBS_MAX,
            suspects_max: shared.trials.room(settings.lease),
            lost_max: settings.lost_harvesters_max,
        };
        match shared.stores.jobs.claim_distillations(&claim).await {
            Ok(jobs) => {
                shared.trials.keep(&jobs);
                for claimed in jobs {
                    let id = claimed.job.id;
                    if !at_work.values().any(|at_work| *at_work == id) {
                        at_work.insert(driven.spawn(drive(Arc::clone(&shared), claimed)).id(), id);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "jobs cannot be claimed"),
        }
        shared.idle(&shutdown).await;
    }
    while driven.join_next().await.is_some() {}
}

async fn drive(shared: Arc<Shared>, claimed: ClaimedJob) {
    let (id, is_suspect) = (claimed.job.id, claimed.lost_harvesters > 0);
    let work = async {
        look(&shared, &claimed).await?;
        advance(&shared, claimed.job).await
    };
    if let Err(error) = guarded(Box::pin(work)).await {
        handle_error(&shared, id, &error).await;
    }
    // A suspect that only waits, for leases of those that were lost, say, is not blamed for what another does meanwhile.
    if is_suspect && let Err(error) = shared.at_work.leave(id).await {
        tracing::warn!(%error, distillation = %id, "the mark of a job is taken back later");
    }
}

/// Ends the trial of a job at which harvesters were lost, and which has come further under this one.
async fn look(shared: &Shared, claimed: &ClaimedJob) -> Result<(), HarvestError> {
    if claimed.lost_harvesters == 0 {
        return Ok(());
    }
    let id = claimed.job.id;
    let progress = shared.stores.prompts.harvest_progress(id).await?;
    if shared.trials.moved(id, (progress.total(), progress.done())) {
        shared.acquit(id).await?;
    }
    Ok(())
}

/// Moves a job as far as it can go without waiting.
async fn advance(shared: &Shared, record: Distillation) -> Result<(), HarvestError> {
    let job = shared.jobs.get(record.id).await?;
    // An import is many writes, and a crash may have cut it short: what was written already stays as it is.
    if record.state == DistillationState::Queued || job.is_imported() {
        let span = tracing::info_span!(span::PLAN, distillery.job = %job.id);
        wire::trace::adopt(&span, &job.traceparent);
        plan::begin(shared, &job).instrument(span).await?;
    }
    if job.is_batched() && !shared.positions.is_due(job.id) {
        return Ok(());
    }
    let progress = shared.stores.prompts.harvest_progress(job.id).await?;
    let Some(stage) = shares::stage(shared, &job, &progress).await? else { return Ok(()) };
    if stage.share == Share::None {
        return shares::probe(shared, &job, stage.share).await;
    }
    match plan::extend(shared, &job, &progress, &stage).await? {
        Next::Planned => return Ok(()),
        Next::Waiting => {
            if job.is_batched() {
                batches::gather(shared, &job, &progress).await?;
                shared.positions.rest(job.id, shared.settings.batch_poll.min(BATCHED_LOOK_EVERY));
            }
            return Ok(());
        }
        Next::Done if stage.is_probed => return shares::probe(shared, &job, stage.share).await,
        Next::Done => {}
    }
    shared.positions.forget(job.id);
    shared.stages.forget(job.id);
    finish(shared, &job, &record).await
}

async fn finish(shared: &Shared, job: &Arc<PreparedJob>, record: &Distillation) -> Result<(), HarvestError> {
    let judged = judging::judge(shared, job).await?;
    if judged.accepted == 0 && job.spec.training.objective.needs_rationales() {
        return Err(HarvestError::Stuck(judging::explain_nothing(shared, job).await?));
    }
    let seconds = record.updated_at.elapsed().as_secs_f64();
    shared.stores.jobs.record_teacher(job.id, judged.teacher, seconds).await?;
    shared.stores.runs.start_training(job.id, &judged.fingerprint).await?;
    tracing::info!(distillation = %job.id, accepted = judged.accepted, "harvest finished");
    Ok(())
}

/// Transient failures are retried; anything else pauses the job for an operator.
async fn handle_error(shared: &Shared, id: DistillationId, error: &HarvestError) {
    use domain::Fault;
    match error.fault() {
        Fault::Unavailable | Fault::Overloaded => {
            tracing::warn!(%error, distillation = %id, "a job is retried");
        }
        // Another replica took it a step further in the meantime: it is not for this one to pause it there.
        Fault::Conflict if has_moved_on(shared, id).await => {
            tracing::info!(%error, distillation = %id, "a job has moved on");
        }
        Fault::NotFound | Fault::Conflict | Fault::Invalid | Fault::Denied | Fault::Internal => {
            if let Err(unwritten) = shared.pause(id, &error.to_string()).await {
                tracing::warn!(%error, %unwritten, distillation = %id, "a job failed and is not paused");
            }
        }
    }
}

async fn has_moved_on(shared: &Shared, id: DistillationId) -> bool {
    let found = shared.stores.jobs.distillation(id).await;
    found.is_ok_and(|job| !matches!(job.state, DistillationState::Queued | DistillationState::Harvesting))
}
