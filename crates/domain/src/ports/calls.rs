//! The port of calls: what is reserved before each request to a teacher, and how it ended.

use super::error::StoreResult;
use crate::budget::{CallBound, CallEnd};
use crate::ids::{CallId, PromptId};
use async_trait::async_trait;

/// A call that a worker is about to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRequest {
    /// The id it will have.
    pub call: CallId,
    /// The prompt it asks.
    pub prompt: PromptId,
    /// The lease it is made under.
    pub attempt: u32,
    /// The most it can cost.
    pub bound: CallBound,
}

/// What became of a request to make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallGrant {
    /// It is reserved: make it now.
    Granted,
    /// Other calls hold what is left of the budget, and may give some of it back: try later.
    Later,
    /// The budget is used up.
    Exhausted,
    /// The lease was lost, or the job no longer harvests: do not make it.
    LeaseLost,
}

/// Calls of teachers and what they cost, against the budgets of jobs.
#[async_trait]
pub trait CallStore: Send + Sync + 'static {
    /// Reserves each call at its bound, in order. The same call again is granted again.
    async fn reserve_calls(&self, requests: &[CallRequest]) -> StoreResult<Vec<CallGrant>>;
    /// Ends calls, also under lost leases: what they cost is spent, and the rest of their bounds is given back. A call in
    /// doubt stays reserved until it is ended in another way. Ending one twice does nothing.
    async fn end_calls(&self, ended: &[(CallId, CallEnd)]) -> StoreResult<()>;
}
