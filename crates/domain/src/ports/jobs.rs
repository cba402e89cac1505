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
    /// Notes why a harvesting job's teacher answers nothing at present; empty where it does. A job in another state is left as
    /// it is.
    async fn note_obstacle(&self, distillation: DistillationId, obstacle: &str) -> StoreResult<()>;
    /// Events after `after`, in order.
    async fn events(&self, distillation: DistillationId, after: u64, limit: usize)
    -> StoreResult<Vec<Event>>;
    /// Appends an event and returns its sequence number. Numbers in it that are not finite are invalid.
    async fn append_event(&self, distillation: DistillationId, kind: EventKind) -> StoreResult<u64>;
}
