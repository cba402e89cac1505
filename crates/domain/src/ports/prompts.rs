//! The port of prompts and the ledger.

use super::error::{StoreError, StoreResult};
use super::queue::QueuedPrompt;
use crate::ids::{CompletionKey, DistillationId, PromptId, RequestId};
use crate::records::{
    Completion, HarvestProgress, Harvested, LeasedPrompt, LedgerEntry, NewPrompt, Prompt, VerdictUpdate,
};
use crate::state::{PromptState, Reason, Verdict};
use async_trait::async_trait;
use std::time::Duration;

/// Which ledger entries are meant, in order of (row, sample). Verdicts and reasons are those that the store keeps: of the
/// job's own rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerFilter {
    /// Only with this verdict.
    pub verdict: Option<Verdict>,
    /// Only with one of these reasons; empty for all, also those without a reason.
    pub reasons: Vec<Reason>,
    /// Only answers of this model, as the ledger names it.
    pub model: Option<String>,
    /// Only after this row (exclusive): whole rows are returned, never a part of one.
    pub after_row: Option<u64>,
    /// Only before this row (exclusive).
    pub before_row: Option<u64>,
}

impl LedgerFilter {
    /// Whether an entry is meant.
    pub fn takes(&self, entry: &LedgerEntry) -> bool {
        self.verdict.is_none_or(|verdict| entry.verdict == verdict)
            && (self.reasons.is_empty() || entry.reason.is_some_and(|reason| self.reasons.contains(&reason)))
            && self.model.as_ref().is_none_or(|model| entry.model == *model)
            && self.after_row.is_none_or(|row| entry.row > row)
            && self.before_row.is_none_or(|row| entry.row < row)
    }
}

/// Where the answer to a question is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address that counts: the one that was looked up or, where that was forgotten, the last of those that follow.
    pub key: CompletionKey,
    /// The model that answered under it; `None` where nothing did.
    pub model: Option<String>,
}

/// What forgetting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForgetOutcome {
    /// Addresses that are forgotten by this call.
    pub forgotten: u64,
    /// Prompts of the job that are asked again under the addresses that follow.
    pub asked_again: u64,
    /// Whether the job itself asks again; otherwise the next job that asks the same does.
    pub harvests: bool,
}

/// What a failed attempt at a prompt was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptFailure {
    /// The teacher asked us to wait, or we are shutting down: back to pending, nothing counted.
    Delayed,
    /// The teacher failed on this prompt (an error that belongs to the prompt): counted; parked at `failures_max`.
    Teacher {
        /// The teacher's message.
        error: String,
        /// Failures after which the prompt is parked.
        failures_max: u32,
    },
    /// The budget has no room for another call: skipped.
    OutOfBudget,
}

/// What became of the leases that were asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeaseOutcome {
    /// Leased to the caller.
    pub leased: Vec<LeasedPrompt>,
    /// Nothing more to do for these: answered, parked, skipped, deleted, or their job no longer harvests. The caller
    /// acknowledges them.
    pub settled: Vec<PromptId>,
    /// Another live lease holds this prompt or its key: try later.
    pub busy: Vec<PromptId>,
    /// The job's budget has no room for another call of their bound: they are `skipped` now.
    pub out_of_budget: Vec<PromptId>,
}

/// What became of what a worker brought back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HarvestOutcome {
    /// Written.
    pub stored: Vec<PromptId>,
    /// The lease was lost: the completion is kept under its key, the prompt untouched.
    pub stale: Vec<PromptId>,
}

/// Most prompts that one call plans, and so one transaction writes.
pub const PLAN_MAX: usize = 1_000;

/// Refuses a plan of more than [`PLAN_MAX`] prompts.
///
/// # Errors
/// It is one.
pub fn check_plan(prompts: &[NewPrompt]) -> StoreResult<()> {
    if prompts.len() <= PLAN_MAX {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("a plan has {} prompts: the limit is {PLAN_MAX}", prompts.len())))
}

/// Prompts from their planning to their answer, and the ledger of the answers.
#[async_trait]
pub trait PromptStore: Send + Sync + 'static {
    /// Plans a stage of a harvest: writes the prompts (an already known (row, sample, hinted, purpose) is left as it is)
    /// with their outbox rows, and moves the job as [`lifecycle::plan`](crate::lifecycle::plan) says. A driver's claim
    /// outlasts it. More than [`PLAN_MAX`] prompts are invalid.
    async fn plan_prompts(&self, distillation: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()>;
    /// Numbers of a job's harvest.
    async fn harvest_progress(&self, distillation: DistillationId) -> StoreResult<HarvestProgress>;
    /// Prompts whose outbox rows wait to be published, oldest first, each with its job's trace context; they stay until
    /// [`mark_published`](Self::mark_published).
    async fn outbox(&self, limit: usize) -> StoreResult<Vec<QueuedPrompt>>;
    /// Removes outbox rows.
    async fn mark_published(&self, prompts: &[PromptId]) -> StoreResult<()>;
    /// Unfinished prompts of harvesting jobs without a live lease and without an outbox row, after `after` in order of
    /// id: what the reconciler looks for in the queue.
    async fn unfinished_prompts(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> StoreResult<Vec<QueuedPrompt>>;
    /// Leases each prompt to `worker`. A key that another live lease is asking is busy; so is a prompt that only the calls
    /// in flight keep out of the budget: it is skipped once the budget is exhausted. A lease reserves nothing: see
    /// [`CallStore`](super::CallStore).
    async fn lease_prompts(
        &self,
        prompts: &[PromptId],
        worker: &str,
        lease: Duration,
    ) -> StoreResult<LeaseOutcome>;
    /// Prolongs leases held under (prompt, attempt); returns those that were lost.
    async fn heartbeat_prompts(
        &self,
        leases: &[(PromptId, u32)],
        lease: Duration,
    ) -> StoreResult<Vec<PromptId>>;
    /// Writes completions under their keys (also those of lost leases), ends the calls that they came from, and writes
    /// ledger entries for the leases that still hold. Repeated after a lost reply it does nothing and reports `stored` again. An answer counts
    /// as paid twice only where another was paid for the same prompt.
    async fn record_harvest(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome>;
    /// Ends a lease without an answer. A lost lease does nothing. Returns the prompt's new
    /// state.
    async fn record_failure(
        &self,
        prompt: PromptId,
        attempt: u32,
        failure: AttemptFailure,
    ) -> StoreResult<PromptState>;
    /// One prompt.
    async fn prompt(&self, prompt: PromptId) -> StoreResult<Prompt>;
    /// Prompts of a job in one state, in order of (row, sample), after `after_row` (exclusive, whole rows).
    async fn prompts_in_state(
        &self,
        distillation: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<Prompt>>;
    /// Writes completions under their addresses, of questions that no prompt asked; a known address is left as it is.
    async fn keep_completions(&self, completions: Vec<Completion>) -> StoreResult<()>;
    /// A completion by its address.
    async fn completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>>;
    /// Where the answers to questions are, one for each key, in order: forgotten addresses lead to those that follow.
    async fn addresses(&self, keys: &[CompletionKey]) -> StoreResult<Vec<Address>>;
    /// Forgets the answers of the job's entries that `filter` takes: their addresses are followed by fresh ones
    /// ([`successor`](crate::fingerprint::successor)), and where [`lifecycle::forget`](crate::lifecycle::forget) says so their
    /// prompts are pending again under those, with their outbox rows. No completion is changed or removed. A repeated
    /// `request` forgets nothing more, and returns the outcome of the first as far as it still stands.
    async fn forget(
        &self,
        request: RequestId,
        distillation: DistillationId,
        filter: &LedgerFilter,
    ) -> StoreResult<ForgetOutcome>;
    /// Makes parked prompts pending again, with their outbox rows, their failures counted anew: those whose last failure
    /// contains `error` (empty for all), where [`lifecycle::retry_parked`](crate::lifecycle::retry_parked) allows it. Returns
    /// how many.
    async fn retry_parked(&self, distillation: DistillationId, error: &str) -> StoreResult<u64>;
    /// Writes a ledger entry for an answer that came with the data: the completion under its key, an answered prompt,
    /// its entry. A known (row, sample, purpose) is left as it is. Moves the job as planning does.
    async fn record_imported(
        &self,
        distillation: DistillationId,
        prompts: Vec<(NewPrompt, Harvested)>,
    ) -> StoreResult<()>;
    /// Ledger entries in order of (row, sample); at least one whole row where there is any, else up to `limit` entries.
    async fn ledger(
        &self,
        distillation: DistillationId,
        filter: &LedgerFilter,
        limit: usize,
    ) -> StoreResult<Vec<LedgerEntry>>;
    /// Writes final verdicts.
    async fn record_verdicts(
        &self,
        distillation: DistillationId,
        verdicts: Vec<VerdictUpdate>,
    ) -> StoreResult<()>;
}
