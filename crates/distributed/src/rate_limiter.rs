//! The limits of teachers in Redis: each operation one script, on the server's clock, so that ten replicas behave as one.
//!
//! Redis may lose everything. A profile then begins anew: at full rates, with the first ceiling, without a count of the day;
//! calls in flight are counted again when they are renewed.

use crate::redis_server::RedisServer;
use async_trait::async_trait;
use domain::pacing;
use domain::ports::{
    Booking, CallCost, CallOutcome, Pace, RateLimitError, RateLimiter, RateLimits, Reservation, SeenLimit,
    WaitReason,
};
use redis::{Script, ScriptInvocation};
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;
use uuid::Uuid;

/// A booking that is not settled by then belongs to a caller that is gone: it is forgotten, and counts as used.
const BOOKING_MAX: Duration = Duration::from_secs(3_600);
/// What nobody asks for a day is forgotten; by then every limit is whole.
const STATE_MAX: Duration = Duration::from_secs(26 * 3_600);

static RESERVE: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/reserve.lua")));
static START: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/start.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/settle.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/renew.lua")));
static PACE: LazyLock<Script> = LazyLock::new(|| script(include_str!("scripts/pace.lua")));

/// The limits that the replicas of a cluster share.
#[derive(Debug, Clone)]
pub struct RedisRateLimiter {
    server: RedisServer,
    /// The name of this replica; its permits are counted under it.
    replica: String,
}

impl RedisRateLimiter {
    /// The limits of a server, for one replica.
    pub fn new(server: &RedisServer) -> Self {
        Self { server: server.clone(), replica: Uuid::new_v4().simple().to_string() }
    }

    /// A script over one profile, and over one of its bookings where a number is given.
    fn invoke<'script>(
        &self,
        script: &'script Script,
        profile: &str,
        number: Option<u64>,
    ) -> ScriptInvocation<'script> {
        let mut invocation = script.prepare_invoke();
        for part in ["state", "permits", "replicas", "hours"] {
            invocation.key(self.server.key(&format!("limits:{part}:{profile}")));
        }
        let number = number.map_or_else(String::new, |number| number.to_string());
        invocation.key(self.server.key(&format!("limits:booking:{number}:{profile}")));
        invocation
    }

    fn permit(&self, number: u64) -> String {
        format!("{}:{number}", self.replica)
    }
}

/// A script with the figures of the rules and what all of them share before it.
fn script(text: &str) -> Script {
    let figures: [(&str, f64); 28] = [
        ("BOOKED_AHEAD_MAX_US", pacing::BOOKED_AHEAD_MAX_US as f64),
        ("PERMIT_MAX_US", pacing::PERMIT_MAX.as_micros() as f64),
        ("MINUTE_US", pacing::MINUTE_US),
        ("BURST_US", pacing::BURST_US),
        ("MARGIN", pacing::MARGIN),
        ("CEILING_FIRST", pacing::CEILING_FIRST),
        ("CEILING_CUT", pacing::CEILING_CUT),
        ("CEILING_ANSWERS", pacing::CEILING_ANSWERS),
        ("FAILURES_MAX", pacing::FAILURES_MAX),
        ("REFUSED_FIRST_US", pacing::REFUSED_FIRST_US),
        ("FAILED_FIRST_US", pacing::FAILED_FIRST_US),
        ("FAILED_LEAST_US", pacing::FAILED_LEAST_US),
        ("REFUSED_MAX_US", pacing::REFUSED_MAX_US),
        ("FAILED_MAX_US", pacing::FAILED_MAX_US),
        ("PROBE_TAKEN_US", pacing::PROBE_TAKEN_US as f64),
        ("JITTER", pacing::JITTER),
        ("PLAUSIBLE", pacing::PLAUSIBLE),
        ("FACTOR_CUT", pacing::FACTOR_CUT),
        ("FACTOR_LEAST", pacing::FACTOR_LEAST),
        ("FACTOR_BEGIN", pacing::FACTOR_BEGIN),
        ("FACTOR_PLATEAU_S", pacing::FACTOR_PLATEAU_S),
        ("SEEN_MAX_US", pacing::SEEN_MAX_US as f64),
        ("SEEN_RESET_MAX_US", pacing::SEEN_RESET_MAX_US as f64),
        ("NOTHING_LEFT_MAX_US", pacing::NOTHING_LEFT_MAX_US as f64),
        ("SLOWER", pacing::SLOWER),
        ("GAIN", pacing::GAIN),
        ("MEASURED_US", pacing::MEASURED_US as f64),
        ("BOOKING_MAX_MS", BOOKING_MAX.as_millis() as f64),
    ];
    let figures: String = figures.iter().map(|(name, value)| format!("{name} = {value}, ")).collect();
    let state_max = STATE_MAX.as_millis();
    let shared = include_str!("scripts/limits.lua");
    Script::new(&format!("local C = {{{figures}STATE_MAX_MS = {state_max}}}\n{shared}\n{text}"))
}

fn unavailable(error: redis::RedisError) -> RateLimitError {
    RateLimitError::Unavailable(error.to_string())
}

fn or_empty(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn microseconds(duration: Duration) -> u128 {
    duration.as_micros()
}

/// A wait and its reason, as scripts answer them.
fn wait(answer: &[i64]) -> Result<(Duration, WaitReason), RateLimitError> {
    let reason = |place: &i64| WaitReason::ALL.get(usize::try_from(*place).ok()?).copied();
    match (answer.get(1).and_then(|wait| u64::try_from(*wait).ok()), answer.get(2).and_then(reason)) {
        (Some(wait), Some(reason)) => Ok((Duration::from_micros(wait), reason)),
        _ => Err(RateLimitError::Unavailable("a script answered what is no wait".to_owned())),
    }
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn reserve(
        &self,
        profile: &str,
        limits: &RateLimits,
        cost: CallCost,
    ) -> Result<Reservation, RateLimitError> {
        limits.check(cost)?;
        // Drawn here, and not counted there: a number is never given again, also not after Redis forgot everything.
        let number = Uuid::new_v4().as_u64_pair().1;
        let mut invocation = self.invoke(&RESERVE, profile, Some(number));
        invocation.arg(self.permit(number));
        for limit in limits.by_dimension() {
            invocation.arg(or_empty(limit));
        }
        invocation.arg(or_empty(limits.requests_per_day)).arg(or_empty(limits.tokens_per_day));
        invocation.arg(limits.concurrency_max).arg(cost.tokens_in).arg(cost.tokens_out);
        let answer: Vec<i64> =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        if let [0, start_in] = answer.as_slice() {
            let start_in = Duration::from_micros(u64::try_from(*start_in).unwrap_or(0));
            return Ok(Reservation::Booked(Booking { number, start_in }));
        }
        let (wait, reason) = wait(&answer)?;
        Ok(Reservation::Wait { wait, reason })
    }

    async fn start(
        &self,
        profile: &str,
        booking: u64,
    ) -> Result<Option<(Duration, WaitReason)>, RateLimitError> {
        let mut invocation = self.invoke(&START, profile, Some(booking));
        invocation.arg(self.permit(booking));
        let answer: Vec<i64> =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        if answer == [0] { Ok(None) } else { wait(&answer).map(Some) }
    }

    async fn settle(
        &self,
        profile: &str,
        booking: u64,
        outcome: CallOutcome,
        seen: &[SeenLimit],
    ) -> Result<(), RateLimitError> {
        let (mut used, mut took, mut asked, mut busy) = (CallCost::default(), Duration::ZERO, None, false);
        let ended = match outcome {
            CallOutcome::NotSent => "not_sent",
            CallOutcome::Unknown => "unknown",
            CallOutcome::Answered { used: tokens, took: time } => {
                (used, took) = (tokens, time);
                "answered"
            }
            CallOutcome::Refused { wait } => {
                asked = wait;
                "refused"
            }
            CallOutcome::Failed { wait, overloaded } => {
                (asked, busy) = (wait, overloaded);
                "failed"
            }
        };
        let jitter = (Uuid::new_v4().as_u64_pair().1 & 0xFFFF_FFFF) as f64 / 4_294_967_296.0;
        let mut invocation = self.invoke(&SETTLE, profile, Some(booking));
        invocation.arg(self.permit(booking)).arg(ended).arg(used.tokens_in).arg(used.tokens_out);
        invocation.arg(took.as_secs_f64()).arg(or_empty(asked.map(microseconds)));
        invocation.arg(u8::from(busy)).arg(jitter);
        for seen in seen {
            invocation.arg(seen.dimension.place()).arg(or_empty(seen.limit)).arg(or_empty(seen.remaining));
            invocation.arg(or_empty(seen.reset.map(microseconds)));
        }
        let _settled: i64 =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(())
    }

    async fn renew(&self, profile: &str, bookings: &[u64]) -> Result<(), RateLimitError> {
        let mut invocation = self.invoke(&RENEW, profile, None);
        for booking in bookings {
            invocation.arg(self.permit(*booking));
        }
        let _renewed: i64 =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        Ok(())
    }

    async fn pace(&self, profile: &str) -> Result<Pace, RateLimitError> {
        let invocation = self.invoke(&PACE, profile, None);
        let answer: [i64; 5] =
            invocation.invoke_async(&mut self.server.connection()).await.map_err(unavailable)?;
        let [factor, ceiling, in_flight, held, answered] = answer.map(|value| u64::try_from(value).ok());
        Ok(Pace {
            factor: factor.unwrap_or(0) as f64 / 1e6,
            ceiling: ceiling.unwrap_or(0),
            in_flight: in_flight.unwrap_or(0),
            held: Duration::from_micros(held.unwrap_or(0)),
            answered_ago: answered.map(Duration::from_micros),
        })
    }
}
