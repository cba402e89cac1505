//! The limits of teachers in memory, for one process.

use crate::pacer::{Pacer, Reserved, microseconds};
use async_trait::async_trait;
use domain::ports::{
    Booking, CallCost, CallOutcome, Pace, RateLimitError, RateLimiter, RateLimits, Reservation, SeenLimit,
    WaitReason,
};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The limits of one process's teachers.
#[derive(Debug)]
pub struct MemoryRateLimiter {
    began: Instant,
    profiles: Mutex<HashMap<String, Pacer>>,
}

impl Default for MemoryRateLimiter {
    fn default() -> Self {
        Self { began: Instant::now(), profiles: Mutex::default() }
    }
}

impl MemoryRateLimiter {
    fn profiles(&self) -> MutexGuard<'_, HashMap<String, Pacer>> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        microseconds(self.began.elapsed())
    }
}

fn duration(microseconds: i64) -> Duration {
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
}

/// A random number in [0, 1).
fn jitter() -> f64 {
    (Uuid::new_v4().as_u64_pair().1 & 0xFFFF_FFFF) as f64 / 4_294_967_296.0
}

#[async_trait]
impl RateLimiter for MemoryRateLimiter {
    async fn reserve(
        &self,
        profile: &str,
        limits: &RateLimits,
        cost: CallCost,
    ) -> Result<Reservation, RateLimitError> {
        limits.check(cost)?;
        let mut profiles = self.profiles();
        let now = self.now();
        Ok(match profiles.entry(profile.to_owned()).or_default().reserve(now, limits, cost) {
            Reserved::At(number, start) => {
                Reservation::Booked(Booking { number, start_in: duration(start - now) })
            }
            Reserved::After(wait, reason) => Reservation::Wait { wait: duration(wait), reason },
        })
    }

    async fn start(
        &self,
        profile: &str,
        booking: u64,
    ) -> Result<Option<(Duration, WaitReason)>, RateLimitError> {
        let mut profiles = self.profiles();
        let now = self.now();
        let waits = profiles.get_mut(profile).and_then(|pacer| pacer.start(now, booking));
        Ok(waits.map(|(wait, reason)| (duration(wait), reason)))
    }

    async fn settle(
        &self,
        profile: &str,
        booking: u64,
        outcome: CallOutcome,
        seen: &[SeenLimit],
    ) -> Result<(), RateLimitError> {
        let mut profiles = self.profiles();
        let now = self.now();
        if let Some(pacer) = profiles.get_mut(profile) {
            pacer.settle(now, booking, outcome, seen, jitter());
        }
        Ok(())
    }

    async fn renew(&self, profile: &str, bookings: &[u64]) -> Result<(), RateLimitError> {
        let mut profiles = self.profiles();
        let now = self.now();
        if let Some(pacer) = profiles.get_mut(profile) {
            pacer.renew(now, bookings);
        }
        Ok(())
    }

    async fn pace(&self, profile: &str) -> Result<Pace, RateLimitError> {
        let mut profiles = self.profiles();
        let now = self.now();
        let pacer = profiles.entry(profile.to_owned()).or_default();
        Ok(Pace {
            factor: pacer.factor(now),
            ceiling: pacer.ceiling() as u64,
            in_flight: pacer.in_flight(now) as u64,
            held: duration(pacer.held_until() - now),
            answered_ago: pacer.answered_at().map(|at| duration(now - at)),
        })
    }
}
