//! Refusals and failures: who waits, for how long, and who finds out that it is over.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use super::{COST, PROFILE, between, booked, made, requests, used, waits};
use crate::harness::RateLimiterHarness;
use domain::RateLimiter;
use domain::ports::{CallOutcome, RateLimits, Reservation, WaitReason};
use std::time::Duration;

const FAILED: CallOutcome = CallOutcome::Failed { wait: None, overloaded: false };

fn none() -> RateLimits {
    RateLimits::default()
}

fn refused(milliseconds: u64) -> CallOutcome {
    CallOutcome::Refused { wait: Some(Duration::from_millis(milliseconds)) }
}

pub async fn a_refusal_makes_everybody_wait_and_one_call_probes(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    made(rate_limiter.as_ref(), &none(), refused(1_000)).await;
    let wait = waits(rate_limiter.as_ref(), &none(), WaitReason::Refused).await;
    between(wait, 1_000, 1_100);
    let other = rate_limiter.reserve("other", &none(), COST).await.unwrap();
    assert!(matches!(other, Reservation::Booked(_)), "another profile continues: {other:?}");
    harness.advance(wait + Duration::from_millis(20)).await;
    let probe = booked(rate_limiter.as_ref(), &none(), COST).await;
    waits(rate_limiter.as_ref(), &none(), WaitReason::Probe).await;
    // A probe that was not sent leaves its place to another.
    rate_limiter.settle(PROFILE, probe.number, CallOutcome::NotSent, &[]).await.unwrap();
    let probe = booked(rate_limiter.as_ref(), &none(), COST).await;
    waits(rate_limiter.as_ref(), &none(), WaitReason::Probe).await;
    rate_limiter.settle(PROFILE, probe.number, used(10, 90), &[]).await.unwrap();
    for _call in 0..5 {
        booked(rate_limiter.as_ref(), &none(), COST).await;
    }
}

async fn ceiling(rate_limiter: &dyn RateLimiter) -> u64 {
    rate_limiter.pace(PROFILE).await.unwrap().ceiling
}

pub async fn a_burst_of_refusals_cuts_once(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = RateLimits { concurrency_max: 16, ..none() };
    let mut bookings = Vec::new();
    for _call in 0..4 {
        bookings.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
    }
    for (place, number) in bookings.into_iter().enumerate() {
        // The last one asks for the longest wait, and gets it.
        let wait = 100 + 100 * place as u64;
        rate_limiter.settle(PROFILE, number, refused(wait), &[]).await.unwrap();
    }
    assert_eq!(ceiling(rate_limiter.as_ref()).await, 12, "three quarters of sixteen, once");
    let wait = waits(rate_limiter.as_ref(), &limits, WaitReason::Refused).await;
    harness.advance(wait + Duration::from_millis(20)).await;
    made(rate_limiter.as_ref(), &limits, refused(100)).await;
    assert_eq!(ceiling(rate_limiter.as_ref()).await, 9, "a new burst");
}

pub async fn a_probe_that_is_not_refused_soon_is_taken(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    made(rate_limiter.as_ref(), &none(), refused(50)).await;
    harness.advance(Duration::from_millis(100)).await;
    booked(rate_limiter.as_ref(), &none(), COST).await;
    waits(rate_limiter.as_ref(), &none(), WaitReason::Probe).await;
    harness.advance(Duration::from_millis(2_100)).await;
    booked(rate_limiter.as_ref(), &none(), COST).await;
    booked(rate_limiter.as_ref(), &none(), COST).await;
    // Failures are told apart from answers by their end alone.
    for _failure in 0..5 {
        made(rate_limiter.as_ref(), &none(), FAILED).await;
    }
    let wait = waits(rate_limiter.as_ref(), &none(), WaitReason::Failed).await;
    harness.advance(wait + Duration::from_millis(20)).await;
    booked(rate_limiter.as_ref(), &none(), COST).await;
    harness.advance(Duration::from_millis(2_100)).await;
    waits(rate_limiter.as_ref(), &none(), WaitReason::Probe).await;
}

pub async fn refusals_in_a_row_wait_longer(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    made(rate_limiter.as_ref(), &none(), CallOutcome::Refused { wait: None }).await;
    let first = waits(rate_limiter.as_ref(), &none(), WaitReason::Refused).await;
    between(first, 2_000, 2_200);
    harness.advance(first + Duration::from_millis(20)).await;
    made(rate_limiter.as_ref(), &none(), refused(100)).await;
    let second = waits(rate_limiter.as_ref(), &none(), WaitReason::Refused).await;
    between(second, 4_000, 4_400);
    harness.advance(second + Duration::from_millis(20)).await;
    made(rate_limiter.as_ref(), &none(), used(10, 90)).await;
    made(rate_limiter.as_ref(), &none(), CallOutcome::Refused { wait: None }).await;
    between(waits(rate_limiter.as_ref(), &none(), WaitReason::Refused).await, 2_000, 2_200);
}

async fn factor(rate_limiter: &dyn RateLimiter) -> f64 {
    rate_limiter.pace(PROFILE).await.unwrap().factor
}

pub async fn a_refusal_shows_the_real_limit(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    assert_eq!(factor(rate_limiter.as_ref()).await, 1.0);
    // Half of what a minute allows, within the half of a minute that it takes.
    for _call in 0..300 {
        made(rate_limiter.as_ref(), &requests(600), used(10, 90)).await;
    }
    let last = booked(rate_limiter.as_ref(), &requests(600), COST).await;
    rate_limiter.settle(PROFILE, last.number, refused(100), &[]).await.unwrap();
    let found = factor(rate_limiter.as_ref()).await;
    assert!((0.46..=0.49).contains(&found), "a half less a twentieth of it, not {found}");
}

pub async fn early_refusals_show_it_when_the_probe_is_refused_too(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    for _call in 0..20 {
        made(rate_limiter.as_ref(), &requests(1_200), used(10, 90)).await;
    }
    let last = booked(rate_limiter.as_ref(), &requests(1_200), COST).await;
    rate_limiter.settle(PROFILE, last.number, refused(100), &[]).await.unwrap();
    assert_eq!(factor(rate_limiter.as_ref()).await, 1.0, "it may have been too many calls at once");
    let wait = waits(rate_limiter.as_ref(), &requests(1_200), WaitReason::Refused).await;
    harness.advance(wait + Duration::from_millis(20)).await;
    made(rate_limiter.as_ref(), &requests(1_200), refused(100)).await;
    let found = factor(rate_limiter.as_ref()).await;
    assert!((0.014..=0.019).contains(&found), "about twenty of 1,200, not {found}");
}

pub async fn five_failures_in_a_row_pause(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    for outcome in [FAILED, FAILED, FAILED, FAILED, used(10, 90), FAILED, FAILED, FAILED, FAILED] {
        made(rate_limiter.as_ref(), &none(), outcome).await;
    }
    made(rate_limiter.as_ref(), &none(), FAILED).await;
    let first = waits(rate_limiter.as_ref(), &none(), WaitReason::Failed).await;
    between(first, 250, 1_000);
    harness.advance(first + Duration::from_millis(20)).await;
    let probe = booked(rate_limiter.as_ref(), &none(), COST).await;
    waits(rate_limiter.as_ref(), &none(), WaitReason::Probe).await;
    rate_limiter.settle(PROFILE, probe.number, FAILED, &[]).await.unwrap();
    let second = waits(rate_limiter.as_ref(), &none(), WaitReason::Failed).await;
    between(second, 250, 2_000);
    harness.advance(second + Duration::from_millis(20)).await;
    made(rate_limiter.as_ref(), &none(), used(10, 90)).await;
    for _failure in 0..4 {
        made(rate_limiter.as_ref(), &none(), FAILED).await;
    }
    booked(rate_limiter.as_ref(), &none(), COST).await;
}

pub async fn a_failure_with_a_wait_is_waited_for(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let wait = Some(Duration::from_secs(3));
    made(rate_limiter.as_ref(), &none(), CallOutcome::Failed { wait, overloaded: true }).await;
    between(waits(rate_limiter.as_ref(), &none(), WaitReason::Failed).await, 3_000, 3_300);
    assert_eq!(ceiling(rate_limiter.as_ref()).await, 48, "three quarters of the first ceiling");
}

pub async fn a_booked_call_does_not_start_into_a_pause(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = requests(60);
    let first = booked(rate_limiter.as_ref(), &limits, COST).await;
    let second = booked(rate_limiter.as_ref(), &limits, COST).await;
    assert_eq!(rate_limiter.start(PROFILE, first.number).await.unwrap(), None);
    rate_limiter.settle(PROFILE, first.number, refused(1_500), &[]).await.unwrap();
    let (wait, reason) = rate_limiter.start(PROFILE, second.number).await.unwrap().unwrap();
    assert_eq!(reason, WaitReason::Refused);
    between(wait, 1_500, 1_650);
    assert_eq!(rate_limiter.pace(PROFILE).await.unwrap().in_flight, 0, "the booking was returned");
    harness.advance(wait + Duration::from_millis(20)).await;
    let probe = booked(rate_limiter.as_ref(), &limits, COST).await;
    assert_eq!(rate_limiter.start(PROFILE, probe.number).await.unwrap(), None, "the probe itself starts");
}
