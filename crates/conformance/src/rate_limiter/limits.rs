//! Requests and tokens a minute: reserved, settled, held.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::at_once;
use crate::harness::RateLimiterHarness;
use domain::ports::{RateLimitError, RateLimits, Reservation};
use domain::{Fault, RateLimiter};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const NONE: RateLimits = RateLimits { requests_per_minute: None, tokens_per_minute: None };
/// How far a wait may be off: rounding, and the time between two clocks of one machine.
const SLACK: Duration = Duration::from_millis(200);

fn requests(limit: u64) -> RateLimits {
    RateLimits { requests_per_minute: Some(limit), ..NONE }
}

fn tokens(limit: u64) -> RateLimits {
    RateLimits { tokens_per_minute: Some(limit), ..NONE }
}

async fn granted(rate_limiter: &dyn RateLimiter, limits: RateLimits, tokens: u64) -> u64 {
    match rate_limiter.reserve("local", limits, tokens).await.unwrap() {
        Reservation::Granted(number) => number,
        Reservation::Wait(wait) => panic!("{tokens} tokens under {limits:?} are there, not after {wait:?}"),
    }
}

async fn wait(rate_limiter: &dyn RateLimiter, limits: RateLimits, tokens: u64) -> Duration {
    match rate_limiter.reserve("local", limits, tokens).await.unwrap() {
        Reservation::Wait(wait) => wait,
        Reservation::Granted(_) => panic!("{tokens} tokens under {limits:?} are granted, and are not there"),
    }
}

/// That `wait` is what an even refill takes, less what was refilled since `began`.
fn check_wait(wait: Duration, expected: Duration, began: Instant) {
    let least = expected.saturating_sub(began.elapsed() + SLACK);
    assert!(!wait.is_zero() && wait >= least, "{wait:?} is too short: {least:?} are needed at least");
    assert!(wait <= expected + SLACK, "{wait:?} is too long: {expected:?} are enough");
}

pub async fn without_limits_everything_is_granted(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let mut numbers = BTreeSet::new();
    for tokens in [0, 1, 1_000_000, u64::from(u32::MAX)] {
        for _call in 0..25 {
            numbers.insert(granted(rate_limiter.as_ref(), NONE, tokens).await);
        }
    }
    assert_eq!(numbers.len(), 100, "every reservation has a number of its own");
}

pub async fn requests_a_minute_are_granted_then_waited_for(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let began = Instant::now();
    for _call in 0..5 {
        granted(rate_limiter.as_ref(), requests(5), 1_000_000).await;
    }
    let first = wait(rate_limiter.as_ref(), requests(5), 1).await;
    check_wait(first, Duration::from_secs(12), began);
    let second = wait(rate_limiter.as_ref(), requests(5), 1).await;
    assert!(second <= first, "asking takes nothing away: {second:?} after {first:?}");
}

pub async fn tokens_a_minute_are_granted_then_waited_for(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let began = Instant::now();
    granted(rate_limiter.as_ref(), tokens(1_000), 400).await;
    granted(rate_limiter.as_ref(), tokens(1_000), 400).await;
    check_wait(wait(rate_limiter.as_ref(), tokens(1_000), 400).await, Duration::from_secs(12), began);
    check_wait(wait(rate_limiter.as_ref(), tokens(1_000), 1_000).await, Duration::from_secs(48), began);
    granted(rate_limiter.as_ref(), tokens(1_000), 200).await;
    check_wait(wait(rate_limiter.as_ref(), tokens(1_000), 1_000).await, Duration::from_secs(60), began);
}

pub async fn the_scarcer_limit_decides(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let both = RateLimits { requests_per_minute: Some(2), tokens_per_minute: Some(1_000) };
    let began = Instant::now();
    granted(rate_limiter.as_ref(), both, 900).await;
    check_wait(wait(rate_limiter.as_ref(), both, 600).await, Duration::from_secs(30), began);
    granted(rate_limiter.as_ref(), both, 100).await;
    // Half a minute for the next request; a minute for as many tokens.
    check_wait(wait(rate_limiter.as_ref(), both, 100).await, Duration::from_secs(30), began);
    check_wait(wait(rate_limiter.as_ref(), both, 1_000).await, Duration::from_secs(60), began);
}

pub async fn after_the_wait_it_is_granted(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    granted(rate_limiter.as_ref(), tokens(60_000), 60_000).await;
    let first = wait(rate_limiter.as_ref(), tokens(60_000), 700).await;
    harness.advance(first).await;
    granted(rate_limiter.as_ref(), tokens(60_000), 700).await;
    wait(rate_limiter.as_ref(), tokens(60_000), 30_000).await;
}

pub async fn what_was_not_used_is_returned(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let number = granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    rate_limiter.settle("local", number, 200).await.unwrap();
    granted(rate_limiter.as_ref(), tokens(1_000), 800).await;
    wait(rate_limiter.as_ref(), tokens(1_000), 400).await;
}

pub async fn what_was_used_beyond_is_taken(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let began = Instant::now();
    let number = granted(rate_limiter.as_ref(), tokens(1_000), 100).await;
    rate_limiter.settle("local", number, 1_500).await.unwrap();
    check_wait(wait(rate_limiter.as_ref(), tokens(1_000), 500).await, Duration::from_secs(60), began);
}

pub async fn settling_twice_does_nothing(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let number = granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    for used in [400, 400, 0, 100] {
        rate_limiter.settle("local", number, used).await.unwrap();
    }
    granted(rate_limiter.as_ref(), tokens(1_000), 600).await;
    wait(rate_limiter.as_ref(), tokens(1_000), 400).await;
}

pub async fn settling_what_was_never_reserved_does_nothing(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    rate_limiter.settle("local", 7, 0).await.unwrap();
    let number = granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    rate_limiter.settle("local", number.wrapping_add(1_000), 0).await.unwrap();
    rate_limiter.settle("other", number, 0).await.unwrap();
    wait(rate_limiter.as_ref(), tokens(1_000), 400).await;
}

pub async fn a_failed_call_returns_tokens_and_request(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let both = RateLimits { requests_per_minute: Some(1), tokens_per_minute: Some(1_000) };
    for _failure in 0..3 {
        let number = granted(rate_limiter.as_ref(), both, 1_000).await;
        rate_limiter.settle("local", number, 0).await.unwrap();
    }
    let number = granted(rate_limiter.as_ref(), both, 1_000).await;
    rate_limiter.settle("local", number, 1).await.unwrap();
    wait(rate_limiter.as_ref(), both, 1).await;
}

pub async fn the_bucket_holds_a_minute_and_no_more(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    // 100 tokens a second: what is taken is refilled before it is returned.
    let number = granted(rate_limiter.as_ref(), tokens(6_000), 100).await;
    harness.advance(Duration::from_millis(1_200)).await;
    granted(rate_limiter.as_ref(), tokens(6_000), 0).await;
    rate_limiter.settle("local", number, 0).await.unwrap();
    granted(rate_limiter.as_ref(), tokens(6_000), 6_000).await;
    let began = Instant::now();
    check_wait(wait(rate_limiter.as_ref(), tokens(6_000), 3_000).await, Duration::from_secs(30), began);
}

pub async fn a_hold_makes_everybody_wait(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let (second, began) = (Duration::from_secs(1), Instant::now());
    rate_limiter.hold("local", second).await.unwrap();
    check_wait(wait(rate_limiter.as_ref(), NONE, 1).await, second, began);
    check_wait(wait(rate_limiter.as_ref(), requests(1_000), 1).await, second, began);
    let other = rate_limiter.reserve("other", requests(1), 1).await.unwrap();
    assert!(matches!(other, Reservation::Granted(_)), "another profile continues: {other:?}");
    harness.advance(second + SLACK).await;
    granted(rate_limiter.as_ref(), NONE, 1).await;
}

pub async fn a_shorter_hold_ends_no_longer_one(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let began = Instant::now();
    let number = granted(rate_limiter.as_ref(), NONE, 1).await;
    rate_limiter.hold("local", Duration::from_secs(30)).await.unwrap();
    rate_limiter.hold("local", Duration::from_secs(1)).await.unwrap();
    rate_limiter.settle("local", number, 0).await.unwrap();
    check_wait(wait(rate_limiter.as_ref(), NONE, 1).await, Duration::from_secs(30), began);
}

pub async fn what_no_minute_allows_never_fits(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    match rate_limiter.reserve("local", tokens(1_000), 1_001).await {
        Err(error @ RateLimitError::NeverFits { tokens: 1_001, limit: 1_000 }) => {
            assert_eq!(error.fault(), Fault::Invalid);
        }
        other => panic!("it can never be granted: {other:?}"),
    }
    granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
}

pub async fn profiles_know_nothing_of_each_other(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let left = granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    let right = rate_limiter.reserve("right", tokens(1_000), 1_000).await.unwrap();
    assert!(matches!(right, Reservation::Granted(_)), "{right:?}");
    rate_limiter.settle("local", left, 0).await.unwrap();
    granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    let right = rate_limiter.reserve("right", tokens(1_000), 400).await.unwrap();
    assert!(matches!(right, Reservation::Wait(_)), "{right:?}");
}

/// How many of 80 reservations of 100 tokens are granted to callers at the same time.
async fn granted_together(
    harness: &dyn RateLimiterHarness,
    profile: &'static str,
    limits: RateLimits,
) -> usize {
    let granted = at_once(8, |_| {
        let rate_limiter = harness.rate_limiter();
        async move {
            let mut granted = Vec::new();
            for _call in 0..10 {
                let reservation = rate_limiter.reserve(profile, limits, 100).await.unwrap();
                granted.extend(match reservation {
                    Reservation::Granted(number) => Some(number),
                    Reservation::Wait(_) => None,
                });
            }
            granted
        }
    })
    .await
    .concat();
    assert_eq!(granted.iter().collect::<BTreeSet<_>>().len(), granted.len(), "a number is given once");
    granted.len()
}

pub async fn callers_together_stay_within_the_limits(harness: &dyn RateLimiterHarness) {
    for (profile, limits, expected) in [("left", tokens(3_000), 30), ("right", requests(40), 40)] {
        let began = Instant::now();
        let found = granted_together(harness, profile, limits).await;
        // What is refilled meanwhile is granted, too: less than one reservation a second.
        let refilled = began.elapsed().as_secs() as usize + 1;
        assert!((expected..=expected + refilled).contains(&found), "{found} under {limits:?}");
    }
}

pub async fn a_limit_that_is_new_begins_full(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    rate_limiter.hold("local", Duration::from_millis(10)).await.unwrap();
    harness.advance(SLACK).await;
    granted(rate_limiter.as_ref(), tokens(1_000), 1_000).await;
    let both = RateLimits { requests_per_minute: Some(2), tokens_per_minute: None };
    granted(rate_limiter.as_ref(), both, 5_000).await;
    granted(rate_limiter.as_ref(), both, 5_000).await;
    wait(rate_limiter.as_ref(), both, 5_000).await;
}
