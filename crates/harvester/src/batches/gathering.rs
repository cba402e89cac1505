//! What waits to be asked becomes lines of batches.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use domain::ids::{BatchId, PromptId};
use domain::ports::{BATCH_MAX, NewBatch, QueueError, QueuedPrompt};
use domain::records::HarvestProgress;
use domain::state::PromptState;
use std::collections::BTreeMap;
use teacher::Teacher;

/// Gathers what waits of a job into batches, as few as hold it, once nothing more is to be planned. While batches are out, what
/// came back from them without an answer waits until no more does for a while, so that it goes out together.
pub(crate) async fn gather(
    shared: &Shared,
    job: &PreparedJob,
    progress: &HarvestProgress,
) -> Result<(), HarvestError> {
    let pending = progress.in_state(PromptState::Pending);
    let is_out = progress.open.calls > 0;
    if pending == 0 {
        // Whoever gathered before may have been killed between the last line and the seal: nobody else would set it.
        if is_out {
            shared.stores.batches.seal_batches(job.id).await?;
        }
        return Ok(());
    }
    if is_out && !shared.positions.is_steady(job.id, pending, shared.settings.batch_poll) {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page =
            shared.stores.prompts.prompts_in_state(job.id, PromptState::Pending, after, BATCH_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.row);
        let mut waiting: BTreeMap<u32, Vec<PromptId>> = BTreeMap::new();
        for prompt in page {
            waiting.entry(prompt.profile).or_default().push(prompt.id);
        }
        for (profile, prompts) in waiting {
            fill(shared, job, profile, prompts).await?;
        }
    }
    shared.stores.batches.seal_batches(job.id).await?;
    shared.changed.notify_waiters();
    Ok(())
}

/// Fills the job's batch for a profile, and the next one where that is full.
async fn fill(
    shared: &Shared,
    job: &PreparedJob,
    profile: u32,
    mut prompts: Vec<PromptId>,
) -> Result<(), HarvestError> {
    let Some(teacher) = job.teacher(profile).and_then(Teacher::batches) else {
        return Err(HarvestError::Stuck(
            "the profile of this job has no batch API here: write `batch = true` into it, then resume"
                .to_owned(),
        ));
    };
    let lines_max = teacher.limits().lines_max;
    loop {
        let into = NewBatch { id: BatchId::generate(), distillation: job.id, profile, lines_max };
        let filled = shared.stores.batches.fill_batch(&into, &prompts).await?;
        answer(shared, job, &filled.answered).await?;
        if filled.left.is_empty() {
            return Ok(());
        }
        shared.stores.batches.seal_batches(job.id).await?;
        prompts = filled.left;
    }
}

/// Publishes prompts whose answers are known: workers settle them.
async fn answer(shared: &Shared, job: &PreparedJob, prompts: &[PromptId]) -> Result<(), HarvestError> {
    let work: Vec<QueuedPrompt> = prompts
        .iter()
        .map(|prompt| QueuedPrompt { prompt: *prompt, traceparent: job.traceparent.clone() })
        .collect();
    match shared.queue.publish(&work).await {
        // What does not fit is found again at the next look.
        Ok(_) | Err(QueueError::Full { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
