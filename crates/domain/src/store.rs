//! The port of records: the truth of the system. Two adapters, one suite (`conformance::store`).
//!
//! Every method is one transaction. Time is the store's own clock. Methods that create take a [`RequestId`]: the same
//! id again returns what the first call made. Leases carry a fencing number (`attempt`, `fence`); a write under an old
//! number changes nothing and says so.

use crate::event::{Event, EventKind};
use crate::example::Row;
use crate::example::{Example, Split};
use crate::fault::Fault;
use crate::ids::{CompletionKey, DatasetId, DistillationId, ModelId, PromptId, RequestId, RunId};
use crate::metric::Accuracy;
use crate::objective::TrainingExample;
use crate::queue::Work;
use crate::records::{
    BaseModel, Completion, Dataset, Distillation, HarvestProgress, Harvested, LeasedPrompt, LeasedRun,
    LedgerEntry, MetricPoint, Model, NewDistillation, NewModel, NewPrompt, Prompt, RowCounts, Run,
    VerdictUpdate,
};
use crate::state::{DistillationState, PromptState, Verdict};
use async_trait::async_trait;
use std::time::Duration;

/// Most rows or entries of one page or one batch.
pub const BATCH_MAX: usize = 1_000;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The thing does not exist.
    #[error("there is no {what} {id}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The thing is in a state that forbids the call, or the lease was lost.
    #[error("{0}")]
    Conflict(String),
    /// The call is wrong whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// The database does not answer or is locked: try again.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Damage, or a mistake of ours.
    #[error("the database failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } => Fault::NotFound,
            Self::Conflict(_) => Fault::Conflict,
            Self::Invalid(_) => Fault::Invalid,
            Self::Unavailable(_) => Fault::Unavailable,
            Self::Internal(_) => Fault::Internal,
        }
    }

    /// There is no such thing.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}

/// The result of a store's method.
pub type StoreResult<T> = Result<T, StoreError>;

/// A page of a list: newest first. `next` is the cursor of the next page, an opaque text that only this store reads;
/// `None` at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The things.
    pub items: Vec<T>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// At most so many; clamped to 1..=[`BATCH_MAX`].
    pub size: usize,
    /// A cursor from the page before; a cursor that is not ours is [`StoreError::Invalid`].
    pub cursor: Option<String>,
}

/// Which distillations to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DistillationFilter {
    /// Only in these states; all where empty.
    pub states: Vec<DistillationState>,
    /// Only with this name.
    pub name: Option<String>,
}

/// Which ledger entries to list, in order of (row, sample).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerFilter {
    /// Only with this verdict.
    pub verdict: Option<Verdict>,
    /// Only after this row (exclusive): whole rows are returned, never a part of one.
    pub after_row: Option<u64>,
}

/// What a failed attempt at a prompt was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptFailure {
    /// The teacher asked us to wait, or we are shutting down: back to pending, nothing counted.
    Delayed,
    /// The teacher failed on this prompt (an error that belongs to the prompt): counted; parked at `failures_max`.
    Teacher {
        /// What it said.
        error: String,
        /// Failures after which the prompt is parked.
        failures_max: u32,
    },
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
    /// The job's budget is used up: they are `skipped` now.
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

/// What a trainer is told when it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunInstruction {
    /// Go on.
    Continue,
    /// The job was cancelled or deleted: stop within a step.
    Cancel,
}

/// The records. See the module's words for what every method promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // Datasets: staged, appended to, committed; invisible to `find` and to distillations until then.

    /// Begins an upload.
    async fn create_dataset(&self, request: RequestId, name: &str) -> StoreResult<Dataset>;
    /// Appends `rows` at `offset`. Rows below the present end are ignored, so that a repeated chunk does nothing twice;
    /// an offset beyond the end is a conflict that names the end. Returns the new end. Duplicate `key`s are invalid and
    /// named with both row numbers.
    async fn append_rows(&self, dataset: DatasetId, offset: u64, rows: Vec<Example>) -> StoreResult<u64>;
    /// Makes it visible and immutable. Committing again with the same fingerprint does nothing.
    async fn commit_dataset(&self, dataset: DatasetId, fingerprint: &str) -> StoreResult<Dataset>;
    /// One dataset.
    async fn dataset(&self, dataset: DatasetId) -> StoreResult<Dataset>;
    /// The newest committed dataset of that name.
    async fn find_dataset(&self, name: &str) -> StoreResult<Option<Dataset>>;
    /// The newest committed dataset with that fingerprint.
    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> StoreResult<Option<Dataset>>;
    /// Committed datasets, newest first.
    async fn list_datasets(&self, page: &PageRequest) -> StoreResult<Page<Dataset>>;
    /// Deletes it; a conflict while a distillation that is not terminal reads it.
    async fn delete_dataset(&self, dataset: DatasetId) -> StoreResult<()>;
    /// Up to `limit` rows with index >= `from`, in order, of one split or of all.
    async fn rows(
        &self,
        dataset: DatasetId,
        split: Option<Split>,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<Row>>;
    /// Counts of one split.
    async fn row_counts(&self, dataset: DatasetId, split: Split) -> StoreResult<RowCounts>;

    // Distillations.

    /// Accepts a job in state `queued`. An unknown or staged dataset is not found or a conflict.
    async fn create_distillation(&self, new: NewDistillation) -> StoreResult<Distillation>;
    /// Plans a stage of its harvest: writes the prompts (an already known (row, sample, hinted, purpose) is left as it
    /// is) with their outbox rows and, where it is still queued, moves it to `harvesting`. One transaction. A driver's claim
    /// outlasts it.
    async fn plan_prompts(&self, distillation: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()>;
    /// One job.
    async fn distillation(&self, distillation: DistillationId) -> StoreResult<Distillation>;
    /// Jobs, newest first.
    async fn list_distillations(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> StoreResult<Page<Distillation>>;
    /// One guarded transition with its event: a conflict that names the present state where it is not one of `from`.
    async fn transition(
        &self,
        distillation: DistillationId,
        from: &[DistillationState],
        to: DistillationState,
        reason: &str,
    ) -> StoreResult<Distillation>;
    /// Pauses it with a reason, remembering the state to go back to.
    async fn pause(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation>;
    /// A paused or failed job goes back to the state it stopped in; its parked prompts become pending, its failed run
    /// pending. Resuming one that goes on already does nothing.
    async fn resume(&self, distillation: DistillationId) -> StoreResult<Distillation>;
    /// Ends it; its run is cancelled too. Cancelling a cancelled job does nothing; another terminal state is a conflict.
    async fn cancel(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation>;
    /// Deletes a terminal or paused job with its prompts, entries, events and metrics. Completions stay (they were paid
    /// for), and so do published models.
    async fn delete_distillation(&self, distillation: DistillationId) -> StoreResult<()>;
    /// Leases up to `limit` jobs in `queued` or `harvesting` to one driver, so that any replica may drive and no two do.
    async fn claim_distillations(
        &self,
        driver: &str,
        lease: Duration,
        limit: usize,
    ) -> StoreResult<Vec<Distillation>>;
    /// Writes the teacher's result and the seconds of the harvest, with its event.
    async fn record_teacher(
        &self,
        distillation: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> StoreResult<()>;
    /// Events after `after`, in order.
    async fn events(&self, distillation: DistillationId, after: u64, limit: usize)
    -> StoreResult<Vec<Event>>;
    /// Appends an event and returns its sequence number. Numbers in it that are not finite are invalid.
    async fn append_event(&self, distillation: DistillationId, kind: EventKind) -> StoreResult<u64>;
    /// Numbers of its harvest.
    async fn harvest_progress(&self, distillation: DistillationId) -> StoreResult<HarvestProgress>;

    // Prompts and the ledger.

    /// Prompts whose outbox rows wait to be published, oldest first, each with its job's trace context; they stay until
    /// [`Store::mark_published`].
    async fn outbox(&self, limit: usize) -> StoreResult<Vec<Work>>;
    /// Removes outbox rows.
    async fn mark_published(&self, prompts: &[PromptId]) -> StoreResult<()>;
    /// Unfinished prompts of harvesting jobs without a live lease and without an outbox row, after `after` in order of
    /// id: what the reconciler looks for in the queue.
    async fn unfinished_prompts(&self, after: Option<PromptId>, limit: usize) -> StoreResult<Vec<Work>>;
    /// Leases each prompt to `worker`, reserving its budget. A key that another live lease is asking is busy; so is a
    /// prompt that only the reservations of calls in flight keep out of the budget: it is skipped once the budget is spent.
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
    /// Writes completions under their keys (also those of lost leases), settles budgets, and writes ledger entries for
    /// the leases that still hold. Repeated after a lost reply it does nothing and says `stored` again. An answer counts
    /// as paid twice only where another was paid for the same prompt.
    async fn record_harvest(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome>;
    /// Ends a lease without an answer; the reservation is returned. A lost lease does nothing. Returns the prompt's new
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
    /// A completion by its address.
    async fn completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>>;
    /// Writes a ledger entry for an answer that came with the data: the completion under its key, an answered prompt,
    /// its entry. A known (row, sample, purpose) is left as it is. Moves a queued job to `harvesting`.
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

    // Runs.

    /// Moves a harvesting job to `training` and makes its run, pending. Doing it again returns the same run.
    async fn start_training(
        &self,
        distillation: DistillationId,
        ledger_fingerprint: &str,
    ) -> StoreResult<Run>;
    /// Leases the oldest run that is pending or whose lease ran out; its fence grows by one. `None` where there is none.
    async fn lease_run(&self, trainer: &str, lease: Duration) -> StoreResult<Option<LeasedRun>>;
    /// Prolongs the lease, writes numbers, and tells the trainer what to do. A lost lease is a conflict; numbers that are
    /// not finite are invalid.
    async fn report_run(
        &self,
        run: RunId,
        fence: u64,
        step: u64,
        metrics: Vec<MetricPoint>,
        lease: Duration,
    ) -> StoreResult<RunInstruction>;
    /// Points the run at its newest resume state; returns the path it pointed at before (an orphan now). Fenced.
    async fn save_resume_point(
        &self,
        run: RunId,
        fence: u64,
        step: u64,
        path: &str,
    ) -> StoreResult<Option<String>>;
    /// Moves the job from `training` to `evaluating`. Fenced; doing it again does nothing.
    async fn start_evaluating(&self, run: RunId, fence: u64) -> StoreResult<()>;
    /// The commit of a publication: the model with its next version, the run and the job `succeeded`, one transaction,
    /// guarded by the fence.
    async fn publish_run(&self, run: RunId, fence: u64, model: NewModel) -> StoreResult<Model>;
    /// Ends the run and the job as `failed` with a reason. Fenced.
    async fn fail_run(&self, run: RunId, fence: u64, reason: &str) -> StoreResult<()>;
    /// Hands the lease back: the run is pending again at once. Fenced.
    async fn release_run(&self, run: RunId, fence: u64) -> StoreResult<()>;
    /// One run.
    async fn run(&self, run: RunId) -> StoreResult<Run>;
    /// Rows of a job for training or evaluation with index >= `from`, in order, with their accepted rationales.
    async fn training_examples(
        &self,
        run: RunId,
        split: Split,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<TrainingExample>>;
    /// All numbers of a run in order of step; only `name`, where it is given.
    async fn metrics(&self, run: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>>;

    // Models.

    /// One model.
    async fn model(&self, model: ModelId) -> StoreResult<Model>;
    /// A model by name: this version, or the newest.
    async fn find_model(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>>;
    /// Models, newest first.
    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> StoreResult<Page<Model>>;
    /// Deletes the record and returns it, so that its folder can be collected.
    async fn delete_model(&self, model: ModelId) -> StoreResult<Model>;
    /// Registers a base model; the same name with the same manifest does nothing, with another one is a conflict.
    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> StoreResult<BaseModel>;
    /// A base model by name.
    async fn base_model(&self, name: &str) -> StoreResult<Option<BaseModel>>;
}
