//! A key prefix for each test, on one server for all of them.

use async_trait::async_trait;
use conformance::harness::RateLimiterHarness;
use conformance::harness::{CAPACITY, QueueHarness, VISIBILITY};
use distributed::{RedisQueue, RedisRateLimiter, RedisServer};
use domain::{Queue, RateLimiter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use tests::redis::Redis;

/// The server that the tests share; it ends with their process.
static SERVER: LazyLock<Redis> = LazyLock::new(|| Redis::start().unwrap());
static PREFIXES: AtomicUsize = AtomicUsize::new(0);

/// The server that the tests share, for those who look into it.
pub(crate) fn shared() -> &'static Redis {
    &SERVER
}

/// A prefix that no other test has.
pub(crate) fn prefix() -> String {
    format!("case-{}", PREFIXES.fetch_add(1, Ordering::Relaxed))
}

/// A part of the server of the test's own, with a queue and an rate_limiter in it.
pub(crate) struct Prefix {
    queue: Arc<RedisQueue>,
    rate_limiter: Arc<RedisRateLimiter>,
}

impl Prefix {
    pub(crate) async fn open() -> Self {
        let server = connect(shared(), &prefix()).await;
        let queue = Arc::new(RedisQueue::new(&server, CAPACITY, VISIBILITY));
        let rate_limiter = Arc::new(RedisRateLimiter::new(&server));
        Self { queue, rate_limiter }
    }
}

/// A connection to a server, with a part of it.
pub(crate) async fn connect(redis: &Redis, prefix: &str) -> RedisServer {
    RedisServer::connect(&redis.url(), prefix).await.unwrap()
}

#[async_trait]
impl QueueHarness for Prefix {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue) as Arc<dyn Queue>
    }
}

#[async_trait]
impl RateLimiterHarness for Prefix {
    fn rate_limiter(&self) -> Arc<dyn RateLimiter> {
        Arc::clone(&self.rate_limiter) as Arc<dyn RateLimiter>
    }
}
