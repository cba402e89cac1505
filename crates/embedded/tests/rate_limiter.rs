//! The suite of the port of rate limits, in memory.

use conformance::harness::RateLimiterHarness;
use domain::RateLimiter;
use embedded::MemoryRateLimiter;
use std::sync::Arc;

struct InProcessLimiter(Arc<MemoryRateLimiter>);

impl InProcessLimiter {
    async fn open() -> Self {
        Self(Arc::new(MemoryRateLimiter::default()))
    }
}

impl RateLimiterHarness for InProcessLimiter {
    fn rate_limiter(&self) -> Arc<dyn RateLimiter> {
        Arc::clone(&self.0) as Arc<dyn RateLimiter>
    }
}

conformance::rate_limiter_suite!(InProcessLimiter::open);
