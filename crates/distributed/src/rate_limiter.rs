//! Rate limits in Redis: token buckets that refill evenly over the minute by the server's clock, each operation one
//! script, so that ten replicas behave as one.

use crate::redis_server::RedisServer;
use async_trait::async_trait;
use domain::ports::{RateLimitError, RateLimiter, RateLimits, Reservation};
use redis::Script;
use std::sync::LazyLock;
use std::time::Duration;
use uuid::Uuid;

/// A reservation that is not settled by then belongs to a caller that is gone: it is forgotten, and counts as used.
const RESERVATION_MAX: Duration = Duration::from_secs(3_600);
/// A bucket that is not drawn from is full long before.
const BUCKET_MAX: Duration = Duration::from_secs(24 * 3_600);

static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/reserve.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/settle.lua")));
static HOLD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/hold.lua")));

/// The rate limits that the replicas of a cluster share.
#[derive(Debug, Clone)]
pub struct RedisRateLimiter {
    server: RedisServer,
    reservation_max: Duration,
}

impl RedisRateLimiter {
    /// The rate limits of a server.
    pub fn new(server: &RedisServer) -> Self {
        Self::with_reservation_max(server, RESERVATION_MAX)
    }

    /// The same where a reservation is forgotten after another time than an hour.
    pub fn with_reservation_max(server: &RedisServer, reservation_max: Duration) -> Self {
        Self { server: server.clone(), reservation_max }
    }

    fn bucket(&self, profile: &str) -> String {
        self.server.key(&format!("rate_limit:{profile}"))
    }

    fn reservation(&self, profile: &str, number: u64) -> String {
        self.server.key(&format!("reservation:{number}:{profile}"))
    }
}

fn unavailable(error: redis::RedisError) -> RateLimitError {
    RateLimitError::Unavailable(error.to_string())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or_else(String::new, |limit| limit.to_string())
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn reserve(
        &self,
        profile: &str,
        limits: RateLimits,
        tokens: u64,
    ) -> Result<Reservation, RateLimitError> {
        if let Some(limit) = limits.tokens_per_minute.filter(|limit| tokens > *limit) {
            return Err(RateLimitError::NeverFits { tokens, limit });
        }
        // Drawn here, and not counted there: a number is never given again, also not after Redis forgot everything.
        let number = Uuid::new_v4().as_u64_pair().1;
        let mut invocation = RESERVE.prepare_invoke();
        invocation.key(self.bucket(profile)).key(self.reservation(profile, number));
        invocation.arg(limit(limits.requests_per_minute)).arg(limit(limits.tokens_per_minute)).arg(tokens);
        invocation.arg(milliseconds(self.reservation_max)).arg(milliseconds(BUCKET_MAX));
        let wait: u64 = invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(match wait {
            0 => Reservation::Granted(number),
            wait => Reservation::Wait(Duration::from_millis(wait)),
        })
    }

    async fn settle(&self, profile: &str, reservation: u64, tokens: u64) -> Result<(), RateLimitError> {
        let mut invocation = SETTLE.prepare_invoke();
        invocation.key(self.bucket(profile)).key(self.reservation(profile, reservation)).arg(tokens);
        let _settled: i64 =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(())
    }

    async fn hold(&self, profile: &str, wait: Duration) -> Result<(), RateLimitError> {
        let mut invocation = HOLD.prepare_invoke();
        invocation.key(self.bucket(profile)).arg(milliseconds(wait)).arg(milliseconds(BUCKET_MAX));
        let _held: i64 = invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(())
    }
}
