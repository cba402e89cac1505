//! The port of distillations.

use super::error::StoreResult;
use super::page::{Page, PageRequest};
use crate::event::{Event, EventKind};
use crate::ids::{DistillationId, RunId};
use crate::metric::Accuracy;
use crate::records::{Distillation, NewDistillation};
use crate::state::DistillationState;
use async_trait::async_trait;
use std::time::Duration;

/// Which distillations to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DistillationFilter {
    /// Only in these states; all where empty.
    pub states: Vec<DistillationState>,
    /// Only with this name.
    pub name: Option<String>,
}

/// What a harvester claims of the jobs that have to be driven.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Its name, unique per start.
    pub harvester: &'a str,
    /// How long a claim holds that is not repeated.
    pub lease: Duration,
    /// Most jobs.
    pub jobs_max: usize,
    /// Most jobs among them at which a harvester was lost.
    pub suspects_max: usize,
    /// Harvesters in a row that may be lost at a job before it is paused.
    pub lost_max: u64,
}

/// A job that is driven by whoever claimed it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// The job.
    pub job: Distillation,
    /// Harvesters in a row that were lost at work at it.
    pub lost_harvesters: u64,
}

/// Distillations: accepted, claimed by a driver, moved from state to state, and what happened to them.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Accepts a job in state `queued`. An unknown dataset is not found, a staged one a conflict; a specification that no
    /// database can hold is invalid.
    async fn create_distillation(&self, new: NewDistillation) -> StoreResult<Distillation>;
    /// One job.
    async fn distillation(&self, distillation: DistillationId) -> StoreResult<Distillation>;
    /// Jobs, newest first.
    async fn list_distillations(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> StoreResult<Page<Distillation>>;
    /// See [`lifecycle::pause`](crate::lifecycle::pause).
    async fn pause(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation>;
    /// See [`lifecycle::resume`](crate::lifecycle::resume).
    async fn resume(&self, distillation: DistillationId) -> StoreResult<Distillation>;
    /// See [`lifecycle::cancel`](crate::lifecycle::cancel).
    async fn cancel(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation>;
    /// Deletes a job that [`lifecycle::delete`](crate::lifecycle::delete) allows to be deleted, with its prompts, entries,
    /// events, runs and metrics. Completions stay (they were paid for), and so do published models. Returns the runs that
    /// no model came from, so that their folders can be collected.
    async fn delete_distillation(&self, distillation: DistillationId) -> StoreResult<Vec<RunId>>;
    /// Leases jobs in `queued` or `harvesting` to one harvester, so that any replica may drive and no two do: the oldest, and of
    /// those at which a harvester was lost the least suspect. Such a job's prompts are leased to its driver alone.
    ///
    /// Before that, what other harvesters left behind that were [at work](Self::note_at_work) when they were lost is counted
    /// against those jobs: see [`lifecycle::lose_harvesters`](crate::lifecycle::lose_harvesters). Whatever moves a job to another
    /// state begins its count anew.
    async fn claim_distillations(&self, claim: &Claim<'_>) -> StoreResult<Vec<ClaimedJob>>;
    /// Notes the jobs that a harvester is at work at, which may end it, in place of those that it noted before. That holds for
    /// `lease`; jobs that are gone are left out.
    async fn note_at_work(
        &self,
        harvester: &str,
        jobs: &[DistillationId],
        lease: Duration,
    ) -> StoreResult<()>;
    /// Begins the count of the harvesters that were lost at a job anew: it has come further under one that was not.
    async fn clear_lost_harvesters(&self, distillation: DistillationId) -> StoreResult<()>;
    /// Writes the teacher's result and the seconds of the harvest, with its event.
    async fn record_teacher(
        &self,
        distillation: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> StoreResult<()>;
    /// Notes why a harvesting job's teacher answers nothing at present; empty where it does. A job in another state is left as
    /// it is.
    async fn note_obstacle(&self, distillation: DistillationId, obstacle: &str) -> StoreResult<()>;
    /// Events after `after`, in order.
    async fn events(&self, distillation: DistillationId, after: u64, limit: usize)
    -> StoreResult<Vec<Event>>;
    /// Appends an event and returns its sequence number. Numbers in it that are not finite are invalid.
    async fn append_event(&self, distillation: DistillationId, kind: EventKind) -> StoreResult<u64>;
}
