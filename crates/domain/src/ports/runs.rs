//! The port of runs.

use super::error::StoreResult;
use super::page::{Page, PageRequest};
use crate::ids::{DistillationId, RunId};
use crate::lifecycle::RunInstruction;
use crate::records::{LeasedRun, MetricPoint, Model, NewRun, Run};
use crate::run::{RunOutcomes, RunResult};
use async_trait::async_trait;
use std::time::Duration;

/// Runs: started, leased, fenced, reported on, published.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Makes the job's final run, pending, and moves the job as [`lifecycle::start_training`](crate::lifecycle::start_training)
    /// says. Doing it again returns the same run. Where prompts of a harvesting job wait to be asked again, because their
    /// answers were forgotten in the meantime, it is unavailable.
    async fn start_training(
        &self,
        distillation: DistillationId,
        ledger_fingerprint: &str,
    ) -> StoreResult<Run>;
    /// Creates a run over the ledger of a job that [`lifecycle::create_run`](crate::lifecycle::create_run) allows, and appends
    /// what [`lifecycle::begun`](crate::lifecycle::begun) says. The same request again returns the same run.
    async fn create_run(&self, new: NewRun) -> StoreResult<Run>;
    /// Runs of a job, newest first.
    async fn list_runs(&self, distillation: DistillationId, page: &PageRequest) -> StoreResult<Page<Run>>;
    /// Leases the oldest run that is pending or whose lease ran out; its fence grows by one. `None` where there is none. A run whose
    /// lease ran out `lost_max` times in a row, without a step forward, ends as
    /// [`lifecycle::lose_run`](crate::lifecycle::lose_run) says.
    async fn lease_run(
        &self,
        trainer: &str,
        lease: Duration,
        lost_max: u64,
    ) -> StoreResult<Option<LeasedRun>>;
    /// Prolongs the lease, writes numbers, and returns what the trainer has to do. A lost lease is a conflict; numbers that
    /// are not finite are invalid.
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
    /// See [`lifecycle::start_evaluating`](crate::lifecycle::start_evaluating). Fenced; doing it again does nothing.
    async fn start_evaluating(&self, run: RunId, fence: u64) -> StoreResult<()>;
    /// The commit of a publication: the run's result and outcomes, of a final run the model with its next version, and what
    /// [`lifecycle::publish`](crate::lifecycle::publish) says of the run and the job, one transaction. Fenced; doing it
    /// again returns the same model.
    async fn publish_run(
        &self,
        run: RunId,
        fence: u64,
        result: RunResult,
        outcomes: RunOutcomes,
    ) -> StoreResult<Option<Model>>;
    /// Which rows a run got right, as it was published; empty for one that named none.
    async fn outcomes(&self, run: RunId) -> StoreResult<RunOutcomes>;
    /// See [`lifecycle::fail_run`](crate::lifecycle::fail_run). Fenced.
    async fn fail_run(&self, run: RunId, fence: u64, reason: &str) -> StoreResult<()>;
    /// See [`lifecycle::release_run`](crate::lifecycle::release_run). Fenced.
    async fn release_run(&self, run: RunId, fence: u64) -> StoreResult<()>;
    /// One run.
    async fn run(&self, run: RunId) -> StoreResult<Run>;
    /// All numbers of a run in order of step; only `name`, where it is given.
    async fn metrics(&self, run: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>>;
}
