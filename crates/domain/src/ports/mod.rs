//! The ports: what the services need of a database, a queue and a rate limiter.
//!
//! The records have one port a subject ([`DatasetStore`], [`JobStore`], [`PromptStore`], [`CallStore`], [`BatchStore`], [`RunStore`], [`ModelStore`]), the
//! prompts to be asked have [`Queue`], the teachers' limits have [`RateLimiter`]. Each port has two adapters and one suite
//! (`conformance`), which both adapters pass.
//!
//! What every method of the records promises: it is one transaction, and its time is the store's own clock. A method that
//! creates takes a [`RequestId`](crate::ids::RequestId): the same id again returns what the first call made. Leases carry a
//! fencing number (`attempt`, `fence`); a write under an old number changes nothing and reports it. What a call does to a
//! job or a run is decided by [`lifecycle`](crate::lifecycle); an adapter only applies it.

mod batches;
mod calls;
mod datasets;
mod error;
mod jobs;
mod models;
mod page;
mod prompts;
mod queue;
mod rate_limiter;
mod runs;
mod stores;

pub use batches::{BATCH_LEASE, BatchFill, BatchLine, BatchStore, LineEnd, NewBatch};
pub use calls::{CallGrant, CallRequest, CallStore};
pub use datasets::DatasetStore;
pub use error::{StoreError, StoreResult};
pub use jobs::{Claim, ClaimedJob, DistillationFilter, JobStore};
pub use models::ModelStore;
pub use page::{BATCH_MAX, Page, PageRequest};
pub use prompts::{
    Address, AttemptFailure, ForgetOutcome, HarvestOutcome, LeaseOutcome, LedgerFilter, PLAN_MAX,
    PromptStore, check_plan,
};
pub use queue::{Delivery, Queue, QueueError, QueuedPrompt};
pub use rate_limiter::{
    Booking, CallCost, CallOutcome, Dimension, Pace, RateLimitError, RateLimiter, RateLimits, Reservation,
    SeenLimit, WaitReason,
};
pub use runs::RunStore;
pub use stores::Stores;
