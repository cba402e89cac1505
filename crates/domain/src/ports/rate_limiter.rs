//! The port of a teacher's rate limits: requests and tokens a minute, shared by everyone who asks that teacher.

use crate::fault::Fault;
use async_trait::async_trait;
use std::time::Duration;

/// What can go wrong in a rate limiter.
#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    /// It does not answer.
    #[error("the shared rate limits are unavailable: {0}")]
    Unavailable(String),
    /// One call asks for more than a whole minute's limit.
    #[error(
        "one call needs {tokens} tokens and the profile allows {limit} a minute: raise the limit or ask for less"
    )]
    NeverFits {
        /// What the call needs.
        tokens: u64,
        /// The profile's limit.
        limit: u64,
    },
}

impl RateLimitError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unavailable(_) => Fault::Unavailable,
            Self::NeverFits { .. } => Fault::Invalid,
        }
    }
}

/// A profile's limits; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out together.
    pub tokens_per_minute: Option<u64>,
}

/// What a reservation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// Call now; settle with this number afterwards.
    Granted(u64),
    /// Ask again after this long.
    Wait(Duration),
}

/// The shared rate limits of teachers, by profile name. A token bucket that refills evenly over the minute.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Reserves one request and `tokens` tokens of `profile`.
    async fn reserve(
        &self,
        profile: &str,
        limits: RateLimits,
        tokens: u64,
    ) -> Result<Reservation, RateLimitError>;
    /// The call used `tokens`: the difference to what was reserved is returned or taken. `0` returns the whole reservation, as when
    /// the call failed. Settling twice does nothing.
    async fn settle(&self, profile: &str, reservation: u64, tokens: u64) -> Result<(), RateLimitError>;
    /// The server asked for a pause: every reservation of this profile waits until then.
    async fn hold(&self, profile: &str, wait: Duration) -> Result<(), RateLimitError>;
}
