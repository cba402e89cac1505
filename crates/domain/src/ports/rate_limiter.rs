//! The port of a teacher's limits: requests and tokens a minute and a day, calls in flight, and when a teacher that refuses
//! or fails is asked again; shared by everyone who asks that teacher.
//!
//! A call is booked before it is made: [`RateLimiter::reserve`] answers when it may start, so that callers sleep and do not
//! poll. What happened is told by [`RateLimiter::settle`], and shapes what follows. The rules and their figures are in
//! [`pacing`](crate::pacing).

use crate::fault::Fault;
use async_trait::async_trait;
use std::time::Duration;

/// What can go wrong in a rate limiter.
#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    /// It does not answer.
    #[error("the shared rate limits are unavailable: {0}")]
    Unavailable(String),
    /// One call asks for more than a whole limit.
    #[error("one call needs {tokens} and the profile's {limit_name} is {limit}: raise it or ask for less")]
    NeverFits {
        /// What the call needs.
        tokens: u64,
        /// The limit's key in a profile.
        limit_name: &'static str,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out together.
    pub tokens_per_minute: Option<u64>,
    /// Tokens of prompts a minute.
    pub tokens_in_per_minute: Option<u64>,
    /// Tokens of completions a minute.
    pub tokens_out_per_minute: Option<u64>,
    /// Requests in any 24 hours.
    pub requests_per_day: Option<u64>,
    /// Tokens in any 24 hours, in and out together.
    pub tokens_per_day: Option<u64>,
    /// Most calls in flight at once, over all replicas.
    pub concurrency_max: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            tokens_in_per_minute: None,
            tokens_out_per_minute: None,
            requests_per_day: None,
            tokens_per_day: None,
            concurrency_max: 1_024,
        }
    }
}

impl RateLimits {
    /// The limits a minute, in the order of [`CallCost::by_dimension`].
    pub fn by_dimension(&self) -> [Option<u64>; 4] {
        [
            self.requests_per_minute,
            self.tokens_per_minute,
            self.tokens_in_per_minute,
            self.tokens_out_per_minute,
        ]
    }

    /// That no limit is less than one call of this cost.
    ///
    /// # Errors
    /// The call could never start.
    pub fn check(&self, cost: CallCost) -> Result<(), RateLimitError> {
        let together = cost.tokens();
        for (limit_name, tokens, limit) in [
            ("tokens_per_minute", together, self.tokens_per_minute),
            ("tokens_in_per_minute", cost.tokens_in, self.tokens_in_per_minute),
            ("tokens_out_per_minute", cost.tokens_out, self.tokens_out_per_minute),
            ("tokens_per_day", together, self.tokens_per_day),
        ] {
            if let Some(limit) = limit.filter(|limit| tokens > *limit) {
                return Err(RateLimitError::NeverFits { tokens, limit_name, limit });
            }
        }
        Ok(())
    }
}

/// What one call counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCost {
    /// Tokens of the prompt.
    pub tokens_in: u64,
    /// Tokens of the completion; before the call, the most it may have.
    pub tokens_out: u64,
}

impl CallCost {
    /// Tokens in and out together.
    pub fn tokens(self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }

    /// One request, tokens together, tokens in, tokens out.
    pub fn by_dimension(self) -> [u64; 4] {
        [1, self.tokens(), self.tokens_in, self.tokens_out]
    }
}

/// A call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booking {
    /// Its number, to start and settle it by.
    pub number: u64,
    /// When it starts: not before.
    pub start_in: Duration,
}

/// Why a call cannot be booked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitReason {
    /// Limits a minute: its start is too far away to be booked.
    Rate,
    /// Limits a day.
    Day,
    /// As many calls are in flight as the teacher bears.
    Concurrency,
    /// The teacher refused calls (429), and is not asked until the wait is over.
    Refused,
    /// The teacher failed several times in a row, and is not asked until the wait is over.
    Failed,
    /// One call finds out whether the teacher answers again.
    Probe,
}

impl WaitReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Rate, Self::Day, Self::Concurrency, Self::Refused, Self::Failed, Self::Probe];

    /// Its name, in metrics and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Day => "day",
            Self::Concurrency => "concurrency",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Probe => "probe",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// What a reservation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// The call is booked; start it then, and settle it whatever becomes of it.
    Booked(Booking),
    /// Ask again after this long.
    Wait {
        /// How long.
        wait: Duration,
        /// Why.
        reason: WaitReason,
    },
}

/// A limit that a server told in the headers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenLimit {
    /// Of what, as a place in [`CallCost::by_dimension`].
    pub dimension: Dimension,
    /// The limit.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// When it is whole again.
    pub reset: Option<Duration>,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Tokens in and out together.
    Tokens,
    /// Tokens of prompts.
    TokensIn,
    /// Tokens of completions.
    TokensOut,
}

impl Dimension {
    /// Its place in [`CallCost::by_dimension`].
    pub fn place(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Tokens => 1,
            Self::TokensIn => 2,
            Self::TokensOut => 3,
        }
    }
}

/// How a booked call ended, as far as limits are concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CallOutcome {
    /// It was not sent: everything that was booked is returned.
    NotSent,
    /// It was sent, and nobody waited for its end: everything stays counted.
    Unknown,
    /// The server answered, whatever the answer is worth.
    Answered {
        /// What it used.
        used: CallCost,
        /// How long it took.
        took: Duration,
    },
    /// The server refused it for now (429). It stays counted as a request: a server may count it, too.
    Refused {
        /// How long the server asked to wait.
        wait: Option<Duration>,
    },
    /// The server failed, or was not reached.
    Failed {
        /// How long the server asked to wait.
        wait: Option<Duration>,
        /// Whether it said that it has too much to do.
        overloaded: bool,
    },
}

/// How a profile is paced at present.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// The part of the limits a minute that is used, as refusals taught: 1 is all of them.
    pub factor: f64,
    /// Most calls in flight at once at present.
    pub ceiling: u64,
    /// Calls booked or in flight, over all replicas.
    pub in_flight: u64,
    /// How long nothing is asked because of refusals or failures.
    pub held: Duration,
    /// How long ago a call of any replica was answered; `None` where none was, as far as is known.
    pub answered_ago: Option<Duration>,
}

/// The shared limits of teachers, by profile name.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Books one call, of at most `cost`, at the earliest start that every limit allows.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    async fn reserve(
        &self,
        profile: &str,
        limits: &RateLimits,
        cost: CallCost,
    ) -> Result<Reservation, RateLimitError>;
    /// Right before a booked call is sent, where its start was not at once: `Some` where it must not be sent because the
    /// teacher has refused or failed meanwhile; the booking is then returned, and can be asked for again after this long.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    async fn start(
        &self,
        profile: &str,
        booking: u64,
    ) -> Result<Option<(Duration, WaitReason)>, RateLimitError>;
    /// How a booked call ended. Unused tokens are returned, or what was used beyond is taken. Settling twice does nothing.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    async fn settle(
        &self,
        profile: &str,
        booking: u64,
        outcome: CallOutcome,
        seen: &[SeenLimit],
    ) -> Result<(), RateLimitError>;
    /// Says that these bookings, which are all that this caller has, are still in use. Bookings that are not renewed within
    /// [`PERMIT_MAX`](crate::pacing::PERMIT_MAX) no longer count as in flight: their caller is gone.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    async fn renew(&self, profile: &str, bookings: &[u64]) -> Result<(), RateLimitError>;
    /// How the profile is paced at present.
    ///
    /// # Errors
    /// See [`RateLimitError`].
    async fn pace(&self, profile: &str) -> Result<Pace, RateLimitError>;
}
