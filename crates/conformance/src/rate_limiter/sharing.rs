//! Calls in flight: how many at once, and what becomes of those whose caller is gone.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use super::{COST, PROFILE, booked, made, used, waits};
use crate::harness::RateLimiterHarness;
use domain::pacing::PERMIT_MAX;
use domain::ports::{CallOutcome, RateLimits, WaitReason};
use std::time::Duration;

fn at_most(concurrency_max: u64) -> RateLimits {
    RateLimits { concurrency_max, ..RateLimits::default() }
}

pub async fn calls_in_flight_are_bounded(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = at_most(3);
    let mut numbers = Vec::new();
    for _call in 0..3 {
        numbers.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
    }
    waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    let outcomes =
        [used(10, 90), CallOutcome::NotSent, CallOutcome::Failed { wait: None, overloaded: false }];
    for (number, outcome) in numbers.into_iter().zip(outcomes) {
        rate_limiter.settle(PROFILE, number, outcome, &[]).await.unwrap();
        booked(rate_limiter.as_ref(), &limits, COST).await;
        waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    }
    assert_eq!(rate_limiter.pace(PROFILE).await.unwrap().in_flight, 3);
}

pub async fn the_ceiling_grows_until_the_first_refusal(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = at_most(80);
    let ceiling = async || rate_limiter.pace(PROFILE).await.unwrap().ceiling;
    let mut numbers = Vec::new();
    for _call in 0..64 {
        numbers.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
    }
    waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    for answered in 1..=8 {
        let number = numbers.pop().unwrap();
        rate_limiter.settle(PROFILE, number, used(10, 90), &[]).await.unwrap();
        numbers.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
        numbers.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
        assert_eq!(ceiling().await, 64 + answered);
    }
    for _answer in 0..20 {
        let number = numbers.pop().unwrap();
        rate_limiter.settle(PROFILE, number, used(10, 90), &[]).await.unwrap();
        numbers.push(booked(rate_limiter.as_ref(), &limits, COST).await.number);
    }
    assert_eq!(ceiling().await, 80, "the profile's own");
    let busy = CallOutcome::Failed { wait: None, overloaded: true };
    rate_limiter.settle(PROFILE, numbers.pop().unwrap(), busy, &[]).await.unwrap();
    assert_eq!(ceiling().await, 60);
    for number in numbers.drain(..25) {
        assert_eq!(ceiling().await, 60, "it grows slowly now");
        rate_limiter.settle(PROFILE, number, used(10, 90), &[]).await.unwrap();
    }
    // A ceiling that is not reached does not grow.
    assert!(ceiling().await <= 61);
}

pub async fn bookings_that_nobody_renews_come_back(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = at_most(2);
    let kept = booked(rate_limiter.as_ref(), &limits, COST).await.number;
    let lost = booked(rate_limiter.as_ref(), &limits, COST).await.number;
    harness.advance(PERMIT_MAX / 2).await;
    rate_limiter.renew(PROFILE, &[kept]).await.unwrap();
    waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    harness.advance(PERMIT_MAX / 2 + Duration::from_millis(500)).await;
    booked(rate_limiter.as_ref(), &limits, COST).await;
    waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    // An end that comes late frees no place twice.
    rate_limiter.settle(PROFILE, lost, used(10, 90), &[]).await.unwrap();
    waits(rate_limiter.as_ref(), &limits, WaitReason::Concurrency).await;
    rate_limiter.settle(PROFILE, kept, used(10, 90), &[]).await.unwrap();
    booked(rate_limiter.as_ref(), &limits, COST).await;
}

pub async fn the_last_answer_is_known(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let answered_ago = async || rate_limiter.pace(PROFILE).await.unwrap().answered_ago;
    made(rate_limiter.as_ref(), &at_most(2), CallOutcome::Failed { wait: None, overloaded: false }).await;
    assert_eq!(answered_ago().await, None);
    made(rate_limiter.as_ref(), &at_most(2), used(10, 90)).await;
    harness.advance(Duration::from_millis(50)).await;
    let ago = answered_ago().await.unwrap();
    assert!(ago >= Duration::from_millis(50) && ago < Duration::from_secs(5), "{ago:?}");
}
