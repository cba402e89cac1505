//! The relay publishes what the outbox holds; the reconciler publishes again whatever the queue has lost.

use crate::error::HarvestError;
use crate::meters::{self, Publisher};
use crate::shared::Shared;
use domain::ids::PromptId;
use domain::ports::{QueueError, QueuedPrompt};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Entries of one batch.
const BATCH: usize = 500;
/// How often lost entries are looked for.
const RECONCILE_EVERY: Duration = Duration::from_secs(1);
/// A search is followed by this many times its own duration without one.
const RECONCILE_SHARE: u32 = 30;

pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    // The first look is at once: a process that was killed left leases and an empty queue.
    let mut reconciler = Reconciler::default();
    let mut bound = None;
    while shared.idle(&shutdown).await {
        if let Err(error) = publish(&shared, &mut bound).await {
            tracing::warn!(%error, "prompts cannot be published");
        }
        if let Err(error) = reconciler.look(&shared).await {
            tracing::warn!(%error, "lost prompts cannot be looked for");
        }
    }
}

/// When lost entries were last looked for, and how long that took.
#[derive(Default)]
struct Reconciler {
    looked: Option<Instant>,
    reconciled: Option<Instant>,
    took: Duration,
}

impl Reconciler {
    /// Reconciles where it is time to: often where that is quickly done, and where the list is empty, as it is when it was
    /// lost; else so seldom that it is a small part of what the records do.
    async fn look(&mut self, shared: &Shared) -> Result<(), HarvestError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < RECONCILE_EVERY) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let entries = shared.queue.depth().await?;
        meters::entries(entries);
        let rests = self.reconciled.is_some_and(|last| last.elapsed() < self.took * RECONCILE_SHARE);
        if rests && entries > 0 {
            return Ok(());
        }
        let began = Instant::now();
        let reconciled = reconcile(shared).await;
        self.took = began.elapsed();
        self.reconciled = Some(Instant::now());
        reconciled
    }
}

/// Publishes what fits. Once the list was full, and `bound` is its capacity, there is room for a batch, or for half of a
/// smaller list, before the outbox is read again: it is not read for the few entries that are done at any moment.
async fn publish(shared: &Shared, bound: &mut Option<usize>) -> Result<(), HarvestError> {
    if let Some(capacity) = *bound
        && shared.queue.depth().await? + BATCH.min(capacity.div_ceil(2)) > capacity
    {
        return Ok(());
    }
    *bound = None;
    loop {
        let work = shared.stores.prompts.outbox(BATCH).await?;
        if work.is_empty() || !publish_batch(shared, &work, Publisher::Relay, bound).await? {
            return Ok(());
        }
    }
}

/// Publishes as many as fit, in order. Returns whether all did; where the list is full, `bound` is set.
async fn publish_batch(
    shared: &Shared,
    work: &[QueuedPrompt],
    by: Publisher,
    bound: &mut Option<usize>,
) -> Result<bool, HarvestError> {
    let fitted = match shared.queue.publish(work).await {
        Ok(fitted) => fitted,
        Err(QueueError::Full { capacity }) => {
            *bound = Some(capacity);
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let published: Vec<PromptId> = work.iter().take(fitted).map(|work| work.prompt).collect();
    shared.stores.prompts.mark_published(&published).await?;
    meters::published(by, published.len());
    Ok(fitted == work.len())
}

async fn reconcile(shared: &Shared) -> Result<(), HarvestError> {
    let mut after = None;
    loop {
        let work = shared.stores.prompts.unfinished_prompts(after, BATCH).await?;
        let Some(last) = work.last() else { return Ok(()) };
        after = Some(last.prompt);
        let prompts: Vec<PromptId> = work.iter().map(|work| work.prompt).collect();
        let missing: HashSet<PromptId> = shared.queue.missing(&prompts).await?.into_iter().collect();
        let lost: Vec<QueuedPrompt> =
            work.into_iter().filter(|work| missing.contains(&work.prompt)).collect();
        if !lost.is_empty() && !publish_batch(shared, &lost, Publisher::Reconciler, &mut None).await? {
            return Ok(());
        }
    }
}
