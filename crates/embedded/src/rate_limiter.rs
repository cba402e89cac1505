//! Rate limits in memory: token buckets that refill evenly over the minute.

use async_trait::async_trait;
use domain::ports::{RateLimitError, RateLimiter, RateLimits, Reservation};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const MINUTE: f64 = 60.0;

/// The rate limits of one process.
#[derive(Debug, Default)]
pub struct MemoryRateLimiter {
    profiles: Mutex<HashMap<String, ProfileBuckets>>,
}

#[derive(Debug)]
struct ProfileBuckets {
    requests: f64,
    tokens: f64,
    refilled_at: Instant,
    held_until: Instant,
    limits: RateLimits,
    next: u64,
    reserved: HashMap<u64, u64>,
}

impl ProfileBuckets {
    fn new(limits: RateLimits, now: Instant) -> Self {
        Self {
            requests: limits.requests_per_minute.unwrap_or(0) as f64,
            tokens: limits.tokens_per_minute.unwrap_or(0) as f64,
            refilled_at: now,
            held_until: now,
            limits,
            next: 0,
            reserved: HashMap::new(),
        }
    }

    fn refill(&mut self, limits: RateLimits, now: Instant) {
        let share = now.duration_since(self.refilled_at).as_secs_f64() / MINUTE;
        self.refilled_at = now;
        let before = std::mem::replace(&mut self.limits, limits);
        // A limit that is new begins full.
        let fill = |level: f64, before: Option<u64>, limit: Option<u64>| {
            let limit = limit.unwrap_or(0) as f64;
            if before.is_none() { limit } else { (level + share * limit).min(limit) }
        };
        self.requests = fill(self.requests, before.requests_per_minute, limits.requests_per_minute);
        self.tokens = fill(self.tokens, before.tokens_per_minute, limits.tokens_per_minute);
    }

    /// How long until `wanted` is there; zero where it is.
    fn wait(level: f64, wanted: f64, limit: Option<u64>) -> Duration {
        match limit {
            Some(limit) if level < wanted => {
                Duration::from_secs_f64((wanted - level) / limit.max(1) as f64 * MINUTE + 0.001)
            }
            _ => Duration::ZERO,
        }
    }
}

impl MemoryRateLimiter {
    fn profiles(&self) -> MutexGuard<'_, HashMap<String, ProfileBuckets>> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RateLimiter for MemoryRateLimiter {
    async fn reserve(
        &self,
        profile: &str,
        limits: RateLimits,
        tokens: u64,
    ) -> Result<Reservation, RateLimitError> {
        if let Some(limit) = limits.tokens_per_minute.filter(|limit| tokens > *limit) {
            return Err(RateLimitError::NeverFits { tokens, limit });
        }
        let now = Instant::now();
        let mut profiles = self.profiles();
        let profile = profiles.entry(profile.to_owned()).or_insert_with(|| ProfileBuckets::new(limits, now));
        profile.refill(limits, now);
        let held = profile.held_until.saturating_duration_since(now);
        let wait = held
            .max(ProfileBuckets::wait(profile.requests, 1.0, limits.requests_per_minute))
            .max(ProfileBuckets::wait(profile.tokens, tokens as f64, limits.tokens_per_minute));
        if !wait.is_zero() {
            return Ok(Reservation::Wait(wait));
        }
        profile.requests -= 1.0;
        profile.tokens -= tokens as f64;
        let number = profile.next;
        profile.next += 1;
        profile.reserved.insert(number, tokens);
        Ok(Reservation::Granted(number))
    }

    async fn settle(&self, profile: &str, reservation: u64, tokens: u64) -> Result<(), RateLimitError> {
        let mut profiles = self.profiles();
        if let Some(profile) = profiles.get_mut(profile)
            && let Some(reserved) = profile.reserved.remove(&reservation)
        {
            profile.tokens += reserved as f64 - tokens as f64;
            if tokens == 0 {
                profile.requests += 1.0;
            }
        }
        Ok(())
    }

    async fn hold(&self, profile: &str, wait: Duration) -> Result<(), RateLimitError> {
        let now = Instant::now();
        let mut profiles = self.profiles();
        let new = || ProfileBuckets::new(RateLimits::default(), now);
        let profile = profiles.entry(profile.to_owned()).or_insert_with(new);
        profile.held_until = profile.held_until.max(now + wait);
        Ok(())
    }
}
