//! Batches: the prompts of a job with `teacher.batch`, asked through the batch API of its provider.
//!
//! The driver gathers what waits into batches, whose calls are reserved in the same transaction; from then on a batch goes on
//! by itself, in whatever process claims it, from the state that the records hold. Before a batch is created at the provider
//! that is noted, so that a crash in between is seen: the batch is then looked for by its mark, and created again only where
//! the provider shows that it has none. Results are settled call by call: what was settled before is not there any more, so
//! that results can be read again from their beginning at any time.

mod collection;
mod gathering;
mod submission;
mod work;

pub(crate) use gathering::gather;

use crate::error::guarded;
use crate::shared::Shared;
use domain::ports::StoreResult;
use domain::records::{Batch, Distillation};
use domain::state::BatchState;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use work::BatchWork;

/// Batches that one process works on at once.
const AT_ONCE: usize = 4;

/// Most batches of a job that a caller is told of.
const TOLD_MAX: usize = 1_000;

/// The batches of a job, oldest first, the newest of them where there are many.
pub(crate) async fn of_job(shared: &Shared, job: &Distillation) -> StoreResult<Vec<Batch>> {
    if !job.spec.teacher.as_ref().is_some_and(|teacher| teacher.batch) {
        return Ok(Vec::new());
    }
    let mut batches = shared.stores.batches.batches(job.id).await?;
    let older = batches.len().saturating_sub(TOLD_MAX);
    Ok(batches.split_off(older))
}

/// What a job that is asked in batches waits for; empty where nothing is out.
pub(crate) fn waited_for(batches: &[Batch]) -> String {
    let out: Vec<&Batch> = batches.iter().filter(|batch| batch.state == BatchState::Submitted).collect();
    let lines: u64 = out.iter().map(|batch| batch.lines).sum();
    let minutes = out.iter().map(|batch| batch.in_state_ms / 60_000).max().unwrap_or(0);
    match out.len() {
        0 => String::new(),
        1 => format!("a batch of {lines} lines has been at the provider for {minutes} min"),
        count => {
            format!("{count} batches of {lines} lines are at the provider, the oldest for {minutes} min")
        }
    }
}

/// Works on batches until `shutdown`.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let working = TaskTracker::new();
    let look_every = shared.settings.batch_poll.min(Duration::from_secs(1));
    let mut looked: Option<Instant> = None;
    while shared.idle(&shutdown).await {
        let free = AT_ONCE.saturating_sub(working.len());
        if free == 0 || looked.is_some_and(|looked| looked.elapsed() < look_every) {
            continue;
        }
        looked = Some(Instant::now());
        let (name, lease) = (&shared.settings.name, shared.settings.lease);
        match shared.stores.batches.claim_batches(name, lease, free).await {
            Ok(batches) => {
                for batch in batches {
                    working.spawn(work(Arc::clone(&shared), batch, shutdown.clone()));
                }
            }
            Err(error) => tracing::warn!(%error, "batches cannot be claimed"),
        }
    }
    working.close();
    working.wait().await;
}

/// Works on one batch as far as it goes without waiting.
async fn work(shared: Arc<Shared>, batch: Batch, shutdown: CancellationToken) {
    let work = BatchWork { shared: &shared, batch: &batch, shutdown: &shutdown };
    let stepped = tokio::select! {
        stepped = guarded(work.step()) => stepped,
        () = work.beat() => return,
        // What only looks and reads can be done again by another process; what submits ends by itself.
        () = shutdown.cancelled(), if batch.state != BatchState::Ready => Ok(Duration::ZERO),
    };
    let wait = match stepped {
        Ok(wait) => wait,
        Err(error) => work.handle(&error).await,
    };
    if let Err(error) = shared.stores.batches.postpone_batch(batch.id, &shared.settings.name, wait).await {
        tracing::warn!(%error, batch = %batch.id, "a batch waits for the end of its lease");
    }
}
