//! The relay publishes what the outbox holds; the reconciler publishes again whatever the work list has lost.

use crate::{HarvestError, Shared};
use domain::ids::PromptId;
use domain::queue::{QueueError, Work};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Entries of one batch.
const BATCH: usize = 500;
/// How often lost entries are looked for.
const RECONCILE_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    // The first look is at once: a process that was killed left leases and an empty work list.
    let mut reconciled: Option<Instant> = None;
    while shared.idle(&shutdown).await {
        if let Err(error) = publish(&shared).await {
            tracing::warn!(%error, "prompts cannot be published");
        }
        if reconciled.is_none_or(|last| last.elapsed() >= RECONCILE_EVERY) {
            reconciled = Some(Instant::now());
            if let Err(error) = reconcile(&shared).await {
                tracing::warn!(%error, "lost prompts cannot be looked for");
            }
        }
    }
}

async fn publish(shared: &Shared) -> Result<(), HarvestError> {
    loop {
        let prompts = shared.store.outbox(BATCH).await?;
        if prompts.is_empty() || !publish_batch(shared, &prompts).await? {
            return Ok(());
        }
    }
}

/// Publishes as many as fit, in order. Says whether all did.
async fn publish_batch(shared: &Shared, prompts: &[PromptId]) -> Result<bool, HarvestError> {
    let work: Vec<Work> =
        prompts.iter().map(|prompt| Work { prompt: *prompt, traceparent: String::new() }).collect();
    let fitted = match shared.queue.publish(&work).await {
        Ok(fitted) => fitted,
        Err(QueueError::Full { .. }) => 0,
        Err(error) => return Err(error.into()),
    };
    let published = prompts.get(..fitted).unwrap_or(prompts);
    shared.store.mark_published(published).await?;
    Ok(fitted == prompts.len())
}

async fn reconcile(shared: &Shared) -> Result<(), HarvestError> {
    let mut after = None;
    loop {
        let prompts = shared.store.unfinished_prompts(after, BATCH).await?;
        let Some(last) = prompts.last() else { return Ok(()) };
        after = Some(*last);
        let missing = shared.queue.missing(&prompts).await?;
        if !missing.is_empty() && !publish_batch(shared, &missing).await? {
            return Ok(());
        }
    }
}
