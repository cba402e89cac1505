//! What a suite is run on: an adapter under test, and how time passes for it.

use async_trait::async_trait;
use domain::{
    BatchStore, CallStore, DatasetStore, JobStore, ModelStore, PromptStore, Queue, RateLimiter, RunStore,
};
use std::sync::Arc;
use std::time::Duration;

/// The ports of the records together: what an adapter of them implements, and what their suite calls.
pub trait Store:
    DatasetStore + JobStore + PromptStore + CallStore + BatchStore + RunStore + ModelStore
{
}

impl<Adapter: DatasetStore + JobStore + PromptStore + CallStore + BatchStore + RunStore + ModelStore> Store
    for Adapter
{
}

/// A store under test. Every case opens its own, empty one.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Lets `by` pass for every lease: moves the store's clock, or, where the clock is a database's own, brings every
    /// deadline in its tables nearer, or waits.
    async fn advance(&self, by: Duration);

    /// How long the leases of the suite are. A harness that really waits takes short ones.
    fn lease(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Lets every lease run out.
    async fn outlive(&self) {
        self.advance(self.lease() + Duration::from_millis(1)).await;
    }
}

/// The bound of every queue under test.
pub const CAPACITY: usize = 64;

/// The time of visibility of every queue under test: short enough to wait for, long enough that nothing runs out
/// between two calls.
pub const VISIBILITY: Duration = Duration::from_secs(1);

/// A queue under test, of [`CAPACITY`] and [`VISIBILITY`]. Every case opens its own, empty one.
#[async_trait]
pub trait QueueHarness: Send + Sync {
    /// The queue.
    fn queue(&self) -> Arc<dyn Queue>;

    /// Lets `by` pass on the queue's clock. By default it really passes.
    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

/// A rate limiter under test. Every case opens its own, unused one.
#[async_trait]
pub trait RateLimiterHarness: Send + Sync {
    /// The rate limiter.
    fn rate_limiter(&self) -> Arc<dyn RateLimiter>;

    /// Lets `by` pass on the rate limiter's clock. By default it really passes.
    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}
