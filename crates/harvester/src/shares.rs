//! Jobs that ask until rationales stop helping: which share of the rows may be asked about, and the probes that decide it.
//!
//! Where such a job stands follows from its probes, which are runs in the store: after a crash, or in another replica, the same
//! share is asked about and no probe is trained twice. What is kept in this process is a cache.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use crate::stage::Stage;
use crate::{judging, probes, runs};
use domain::event::EventKind;
use domain::ports::BATCH_MAX;
use domain::records::{HarvestProgress, Run};
use domain::run::{Outcomes, RunPlan};
use domain::share::{PROBES_MAX, Share};
use domain::spec::TeacherSpec;
use domain::state::{PromptState, RunState};
use domain::until::{self, Decision};
use std::sync::Arc;

/// What a job asks about; `None` while a probe is trained. A budget that is used up ends the asking with what there is.
///
/// # Errors
/// A probe failed, or measured nothing: what to do.
pub(crate) async fn stage(
    shared: &Shared,
    job: &PreparedJob,
    progress: &HarvestProgress,
) -> Result<Option<Stage>, HarvestError> {
    let stops_early = job.spec.teacher.as_ref().is_some_and(TeacherSpec::stops_early);
    if !stops_early || progress.in_state(PromptState::Skipped) > 0 {
        return Ok(Some(Stage::whole()));
    }
    if let Some(stage) = shared.stages.get(job.id) {
        return Ok(Some(stage));
    }
    let Some((share, is_probed)) = decided(shared, job).await? else { return Ok(None) };
    let rows = match share {
        Share::All => None,
        share => Some(Arc::new(probes::rows(shared, job.id, job.dataset, &job.spec, share).await?)),
    };
    let stage = Stage { share, rows, is_probed };
    shared.stages.set(job.id, stage.clone());
    Ok(Some(stage))
}

/// The share that the probes say, and whether it is probed in turn; `None` while one of them is trained.
async fn decided(shared: &Shared, job: &PreparedJob) -> Result<Option<(Share, bool)>, HarvestError> {
    let probes = probes::of(shared, job.id).await?;
    let mut measured = Vec::new();
    for run in &probes {
        match run.state {
            RunState::Succeeded => measured.push(outcomes(shared, run).await?),
            RunState::Pending | RunState::Leased => return Ok(None),
            RunState::Failed | RunState::Cancelled => return Err(failed(run)),
        }
    }
    let Some(decision) = until::decide(&measured) else { return Ok(Some((Share::None, true))) };
    if let Some(last) = probes.last() {
        note(shared, job, last, &decision).await?;
    }
    Ok(Some(match decision.next {
        Ok(share) => (share, share != Share::All),
        Err(_) => (probes.last().and_then(|run| run.plan.share).unwrap_or(Share::All), false),
    }))
}

async fn outcomes(shared: &Shared, run: &Run) -> Result<Outcomes, HarvestError> {
    let outcomes = shared.stores.runs.outcomes(run.id).await?.validation;
    if outcomes.rows() > 0 {
        return Ok(outcomes);
    }
    let words = "measured no validation row, so that nothing can show whether rationales help: give the dataset validation \
                 rows with labels, or leave `teacher.until` out and submit again: what was answered is not asked again";
    Err(HarvestError::Stuck(format!("{} {words}", named(run))))
}

fn failed(run: &Run) -> HarvestError {
    HarvestError::Stuck(format!(
        "{} ended without a result ({} {}): repair what it names and resume, which trains it again; or leave \
         `teacher.until` out and submit again: what was answered is not asked again",
        named(run),
        run.state,
        run.reason
    ))
}

/// What a probe is called.
fn named(run: &Run) -> String {
    let share = run.plan.share.unwrap_or(Share::All);
    format!("probe {} of at most {PROBES_MAX}, {}, run {},", share.place() + 1, share.words(), run.id)
}

/// Appends what was decided to the events of the job, once.
async fn note(
    shared: &Shared,
    job: &PreparedJob,
    run: &Run,
    decision: &Decision,
) -> Result<(), HarvestError> {
    let accuracy = run.result.as_ref().and_then(|result| result.validation);
    let (Some(share), Some(accuracy)) = (run.plan.share, accuracy) else { return Ok(()) };
    let events = shared.stores.jobs.events(job.id, 0, BATCH_MAX).await?;
    let is_noted =
        |kind: &EventKind| matches!(kind, EventKind::Probed { run: noted, .. } if *noted == run.id);
    if events.iter().any(|event| is_noted(&event.kind)) {
        return Ok(());
    }
    let event = EventKind::Probed {
        run: run.id,
        share,
        accuracy,
        gain: decision.gain,
        next: decision.next.ok(),
        end: decision.next.err(),
    };
    shared.stores.jobs.append_event(job.id, event).await?;
    tracing::info!(distillation = %job.id, ?share, ?decision, accuracy = accuracy.value(), "a probe is measured");
    Ok(())
}

/// Makes the probe over a share whose rows are done: the rationales that it reads stay as they are.
pub(crate) async fn probe(shared: &Shared, job: &Arc<PreparedJob>, share: Share) -> Result<(), HarvestError> {
    let _at_work = shared.at_work.at(job.id).await?;
    if share != Share::None && judging::judge(shared, job).await?.accepted == 0 {
        return Err(HarvestError::Stuck(judging::explain_nothing(shared, job).await?));
    }
    runs::create_probe(shared, job.id, RunPlan::probe(&job.spec, share), share).await?;
    shared.stages.forget(job.id);
    Ok(())
}
