//! The port of batches: prompts that are asked together, through the batch API of a provider.
//!
//! A line of a batch is a call, reserved like any other, and made under a lease that lasts as long as the batch does. What
//! a crash leaves behind is found in the records: a batch goes on from its state, in whatever process claims it.

use super::error::StoreResult;
use super::prompts::AttemptFailure;
use crate::budget::CallEnd;
use crate::example::Example;
use crate::ids::{BatchId, CallId, DistillationId, PromptId};
use crate::records::{Batch, Prompt};
use async_trait::async_trait;
use std::time::Duration;

/// How long a prompt is leased to a batch: longer than any provider works on one. The batch ends it.
pub const BATCH_LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// A batch to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// The id it will have, unless the job prepares one already.
    pub id: BatchId,
    /// Its job.
    pub distillation: DistillationId,
    /// Which of the job's profiles it asks, by its place.
    pub profile: u32,
    /// Most lines of it.
    pub lines_max: u64,
}

/// What became of prompts that were to be asked in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchFill {
    /// The batch that was filled; `None` where nothing went into one.
    pub batch: Option<Batch>,
    /// How many of the prompts are lines of it now.
    pub taken: usize,
    /// Those whose answers are known: a worker settles them, nothing is to be asked.
    pub answered: Vec<PromptId>,
    /// Those that found no room in the batch.
    pub left: Vec<PromptId>,
    /// How many were skipped, because the budget is used up.
    pub out_of_budget: usize,
}

/// A line of a batch whose end is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLine {
    /// Its call.
    pub call: CallId,
    /// The prompt that it asks, with the attempt of the call.
    pub prompt: Prompt,
    /// The row it asks about.
    pub example: Example,
}

/// How a line ended that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineEnd {
    /// Its call.
    pub call: CallId,
    /// How the call ended.
    pub end: CallEnd,
    /// The prompt that it asked.
    pub prompt: PromptId,
    /// The attempt of the call.
    pub attempt: u32,
    /// What that means for the prompt.
    pub failure: AttemptFailure,
}

/// Batches, from their first line to their end.
#[async_trait]
pub trait BatchStore: Send + Sync + 'static {
    /// Makes pending prompts of a harvesting job lines of the batch that the job prepares for this profile, or of a new one: in
    /// order, as many as it and the budget have room for, each with its call reserved at the prompt's bound. A prompt that
    /// another lease is asking, or that only calls in flight keep out of the budget, stays pending.
    async fn fill_batch(&self, into: &NewBatch, prompts: &[PromptId]) -> StoreResult<BatchFill>;
    /// Makes the batches that the job prepares ready to be submitted.
    async fn seal_batches(&self, distillation: DistillationId) -> StoreResult<()>;
    /// Leases up to `limit` batches that are sealed, have not ended, and whose time has come, so that any replica may work on
    /// them and no two do.
    async fn claim_batches(&self, worker: &str, lease: Duration, limit: usize) -> StoreResult<Vec<Batch>>;
    /// Prolongs the lease of a batch. Returns whether it still holds.
    async fn renew_batch(&self, batch: BatchId, worker: &str, lease: Duration) -> StoreResult<bool>;
    /// Ends the lease of a batch, and lets nobody claim it before `wait` is over.
    async fn postpone_batch(&self, batch: BatchId, worker: &str, wait: Duration) -> StoreResult<()>;
    /// Notes that a ready batch is being submitted. Returns whether this call did: whoever gets `true` may submit it.
    async fn begin_submission(&self, batch: BatchId, submission: u32) -> StoreResult<bool>;
    /// Writes under which name the provider has a batch that is being submitted.
    async fn record_submission(&self, batch: BatchId, submission: u32, name: &str) -> StoreResult<()>;
    /// Makes a batch ready again that the provider has not, or will not work on: under a new number, after `wait`.
    async fn reset_submission(&self, batch: BatchId, submission: u32, wait: Duration) -> StoreResult<()>;
    /// Moves the lines from `from` on into a batch of their own, `into`, ready like this one.
    async fn split_batch(&self, batch: BatchId, from: CallId, into: BatchId) -> StoreResult<()>;
    /// Lines whose end is not known, after `after` in order of their calls.
    async fn batch_lines(
        &self,
        batch: BatchId,
        after: Option<CallId>,
        limit: usize,
    ) -> StoreResult<Vec<BatchLine>>;
    /// Those of these calls that are lines of the batch whose end is not known.
    async fn find_lines(&self, batch: BatchId, calls: &[CallId]) -> StoreResult<Vec<BatchLine>>;
    /// Ends lines without an answer: their calls, and the leases of their prompts as far as they hold. Repeated it does nothing.
    /// (Answers are written by [`record_harvest`](super::PromptStore::record_harvest).)
    async fn end_lines(&self, ended: &[LineEnd]) -> StoreResult<()>;
    /// Ends a batch; `note` says why where that is not plain. Lines whose end is not known stay in doubt, and their prompts are
    /// pending again.
    async fn end_batch(&self, batch: BatchId, note: &str) -> StoreResult<()>;
    /// The batches of a job, oldest first.
    async fn batches(&self, distillation: DistillationId) -> StoreResult<Vec<Batch>>;
}
