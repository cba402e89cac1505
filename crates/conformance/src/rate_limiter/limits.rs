//! Requests and tokens: booked, settled, learned from headers.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use super::{COST, PROFILE, between, booked, made, requests, tokens, used, waits};
use crate::fixtures::at_once;
use crate::harness::RateLimiterHarness;
use domain::Fault;
use domain::ports::{
    CallCost, CallOutcome, Dimension, RateLimitError, RateLimits, Reservation, SeenLimit, WaitReason,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn without_limits_calls_start_at_once(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let mut numbers = BTreeSet::new();
    for tokens in [0, 1, 1_000_000, u64::from(u32::MAX)] {
        for _call in 0..25 {
            let cost = CallCost { tokens_in: tokens, tokens_out: 0 };
            let booking = booked(rate_limiter.as_ref(), &RateLimits::default(), cost).await;
            assert_eq!(booking.start_in, Duration::ZERO);
            numbers.insert(booking.number);
            rate_limiter.settle(PROFILE, booking.number, used(tokens, 0), &[]).await.unwrap();
        }
    }
    assert_eq!(numbers.len(), 100, "every booking has a number of its own");
}

pub async fn a_second_starts_at_once_and_the_rest_is_spaced(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    // Ten a second.
    let mut starts = Vec::new();
    for _call in 0..30 {
        starts.push(made(rate_limiter.as_ref(), &requests(600), used(10, 90)).await);
    }
    between(starts[8], 0, 0);
    between(starts[19], 1_000, 1_100);
    between(starts[29], 2_000, 2_150);
    assert!(starts.is_sorted(), "who books first starts first: {starts:?}");
}

pub async fn no_minute_holds_more_than_the_limit(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    for limit in [2, 7, 60, 61, 600] {
        let profile = format!("limit-{limit}");
        let (began, mut starts) = (Instant::now(), Vec::new());
        loop {
            match rate_limiter.reserve(&profile, &requests(limit), COST).await.unwrap() {
                Reservation::Booked(booking) => {
                    starts.push(began.elapsed() + booking.start_in);
                    rate_limiter.settle(&profile, booking.number, used(10, 90), &[]).await.unwrap();
                }
                Reservation::Wait { reason: WaitReason::Rate, .. } => break,
                other => panic!("{other:?}"),
            }
        }
        let most = starts
            .iter()
            .map(|from| starts.iter().filter(|start| (*from..*from + MINUTE).contains(start)).count())
            .max()
            .unwrap();
        assert!(most as u64 <= limit, "{most} in a minute under {limit}");
        assert!(most as u64 + 1 >= limit * 97 / 100, "{most} in a minute are too few under {limit}");
    }
}

pub async fn tokens_of_each_direction_have_their_own_limit(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let none = RateLimits::default();
    for (profile, limits, cost) in [
        ("together", tokens(600), CallCost { tokens_in: 5, tokens_out: 5 }),
        (
            "in",
            RateLimits { tokens_in_per_minute: Some(600), ..none },
            CallCost { tokens_in: 10, tokens_out: 500 },
        ),
        (
            "out",
            RateLimits { tokens_out_per_minute: Some(600), ..none },
            CallCost { tokens_in: 500, tokens_out: 10 },
        ),
    ] {
        let mut starts = Vec::new();
        for _call in 0..4 {
            let Reservation::Booked(booking) = rate_limiter.reserve(profile, &limits, cost).await.unwrap()
            else {
                panic!("{profile}: a call of ten tokens a second is booked");
            };
            starts.push(booking.start_in);
        }
        between(starts[0], 0, 0);
        between(starts[1], 1_000, 1_050);
        between(starts[3], 3_000, 3_100);
    }
}

pub async fn the_scarcer_limit_decides(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    // A call every two seconds by its tokens, every second by its request.
    let both = RateLimits { tokens_per_minute: Some(3_000), ..requests(60) };
    for second in 0..4 {
        let start = made(rate_limiter.as_ref(), &both, used(10, 90)).await;
        between(start, 2_000 * second, 2_050 * second);
    }
    // A call of fewer tokens waits for what the others took.
    let small = booked(rate_limiter.as_ref(), &both, CallCost { tokens_in: 1, tokens_out: 0 }).await;
    between(small.start_in, 7_000, 8_200);
}

pub async fn unused_tokens_are_returned_and_others_taken(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let limits = tokens(6_000);
    let check = async |outcome: CallOutcome, least_ms: u64, most_ms: u64| {
        // 1,000 tokens are ten seconds.
        let first =
            booked(rate_limiter.as_ref(), &limits, CallCost { tokens_in: 500, tokens_out: 500 }).await;
        rate_limiter.settle(PROFILE, first.number, outcome, &[]).await.unwrap();
        let next = booked(rate_limiter.as_ref(), &limits, CallCost { tokens_in: 500, tokens_out: 500 }).await;
        between(next.start_in.saturating_sub(first.start_in), least_ms, most_ms);
        rate_limiter.settle(PROFILE, next.number, CallOutcome::NotSent, &[]).await.unwrap();
    };
    check(used(500, 500), 10_000, 10_100).await;
    check(used(100, 100), 2_000, 2_100).await;
    check(CallOutcome::Unknown, 10_000, 10_100).await;
    check(CallOutcome::NotSent, 0, 100).await;
    check(used(1_000, 1_000), 20_000, 20_300).await;
}

pub async fn a_call_that_was_sent_stays_counted(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let failed = CallOutcome::Failed { wait: None, overloaded: false };
    for (place, outcome) in [failed, used(0, 0), CallOutcome::NotSent, used(10, 90)].into_iter().enumerate() {
        let start = made(rate_limiter.as_ref(), &requests(60), outcome).await;
        let counted = [0, 1, 2, 2][place];
        between(start, counted * 1_000, counted * 1_020);
    }
}

pub async fn settling_twice_or_what_was_never_booked_does_nothing(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    rate_limiter.settle(PROFILE, 7, CallOutcome::NotSent, &[]).await.unwrap();
    let booking = booked(rate_limiter.as_ref(), &requests(60), COST).await;
    for number in [booking.number.wrapping_add(1_000), booking.number, booking.number, booking.number] {
        rate_limiter.settle(PROFILE, number, used(10, 90), &[]).await.unwrap();
        rate_limiter.settle("other", number, CallOutcome::NotSent, &[]).await.unwrap();
    }
    rate_limiter.settle(PROFILE, booking.number, CallOutcome::NotSent, &[]).await.unwrap();
    let refused = CallOutcome::Refused { wait: Some(MINUTE) };
    rate_limiter.settle(PROFILE, booking.number, refused, &[]).await.unwrap();
    between(booked(rate_limiter.as_ref(), &requests(60), COST).await.start_in, 1_000, 1_020);
}

pub async fn a_start_that_is_far_away_is_not_booked(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    made(rate_limiter.as_ref(), &requests(1), used(10, 90)).await;
    for _call in 0..3 {
        between(waits(rate_limiter.as_ref(), &requests(1), WaitReason::Rate).await, 60_000, 60_400);
    }
}

pub async fn the_day_has_limits_of_its_own(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let check = |wait: Duration| assert!(wait > hours(23) && wait <= hours(25), "{wait:?} is no day");
    let limits = RateLimits { requests_per_day: Some(2), ..RateLimits::default() };
    made(rate_limiter.as_ref(), &limits, used(10, 90)).await;
    made(rate_limiter.as_ref(), &limits, CallOutcome::NotSent).await;
    made(rate_limiter.as_ref(), &limits, CallOutcome::Failed { wait: None, overloaded: false }).await;
    check(waits(rate_limiter.as_ref(), &limits, WaitReason::Day).await);
    let more = RateLimits { requests_per_day: None, tokens_per_day: Some(250), ..limits };
    // Ten tokens were used, of those that were booked.
    let rate_limiter = harness.rate_limiter();
    let mut tokens = 0;
    for _call in 0..30 {
        match rate_limiter.reserve("tokens", &more, COST).await.unwrap() {
            Reservation::Booked(booking) => {
                tokens += 50;
                rate_limiter.settle("tokens", booking.number, used(10, 40), &[]).await.unwrap();
            }
            Reservation::Wait { wait, reason: WaitReason::Day } => {
                check(wait);
                assert_eq!(tokens, 200, "a call of a hundred no longer fits");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("{tokens} tokens under a limit of 250 a day");
}

pub async fn what_no_limit_allows_never_fits(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let none = RateLimits::default();
    let cost = CallCost { tokens_in: 1_001, tokens_out: 1_002 };
    for (limits, needed) in [
        (tokens(2_002), 2_003),
        (RateLimits { tokens_in_per_minute: Some(1_000), ..none }, 1_001),
        (RateLimits { tokens_out_per_minute: Some(1_001), ..none }, 1_002),
        (RateLimits { tokens_per_day: Some(2_002), ..none }, 2_003),
    ] {
        match rate_limiter.reserve(PROFILE, &limits, cost).await {
            Err(error @ RateLimitError::NeverFits { tokens, .. }) => {
                assert_eq!((error.fault(), tokens), (Fault::Invalid, needed));
            }
            other => panic!("it can never be booked: {other:?}"),
        }
    }
    between(booked(rate_limiter.as_ref(), &tokens(2_003), cost).await.start_in, 0, 0);
}

pub async fn profiles_know_nothing_of_each_other(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    made(rate_limiter.as_ref(), &requests(1), used(10, 90)).await;
    let refused = CallOutcome::Refused { wait: Some(MINUTE) };
    made(rate_limiter.as_ref(), &RateLimits::default(), refused).await;
    let other = rate_limiter.reserve("other", &requests(1), COST).await.unwrap();
    assert!(matches!(other, Reservation::Booked(_)), "{other:?}");
}

pub async fn callers_together_stay_within_the_limits(harness: &dyn RateLimiterHarness) {
    let began = Instant::now();
    let mut starts = at_once(8, |_| {
        let rate_limiter = harness.rate_limiter();
        async move {
            let mut starts = Vec::new();
            for _call in 0..20 {
                let asked = began.elapsed();
                starts.push(asked + made(rate_limiter.as_ref(), &requests(1_200), used(10, 90)).await);
            }
            starts
        }
    })
    .await
    .concat();
    starts.sort();
    // Twenty a second after a burst of twenty.
    between(starts[159], 7_000, 7_300);
    let seconds = Duration::from_secs(1);
    let most = starts
        .iter()
        .map(|from| starts.iter().filter(|start| (*from..*from + seconds).contains(start)).count())
        .max()
        .unwrap();
    assert!(most <= 45, "{most} calls in a second under twenty a second and a burst of twenty");
}

pub async fn limits_of_headers_are_kept(harness: &dyn RateLimiterHarness) {
    let rate_limiter = harness.rate_limiter();
    let none = RateLimits::default();
    let see = async |seen: SeenLimit| {
        let booking = booked(rate_limiter.as_ref(), &none, COST).await;
        rate_limiter.settle(PROFILE, booking.number, used(10, 90), &[seen]).await.unwrap();
    };
    let seen = SeenLimit {
        dimension: Dimension::Requests,
        limit: Some(30),
        remaining: Some(29),
        reset: Some(Duration::from_secs(2)),
    };
    see(SeenLimit { limit: Some(5), reset: Some(Duration::from_secs(3_600)), ..seen }).await;
    see(seen).await;
    for place in 0..3 {
        let start = made(rate_limiter.as_ref(), &none, used(10, 90)).await;
        between(start, 2_000 * place, 2_050 * place);
    }
    // A limit of the profile that is less stays.
    between(made(rate_limiter.as_ref(), &requests(1_000), used(10, 90)).await, 6_000, 6_150);
    let nothing = SeenLimit { limit: None, remaining: Some(0), reset: Some(Duration::from_secs(2)), ..seen };
    let booking = booked(rate_limiter.as_ref(), &none, COST).await;
    rate_limiter.settle(PROFILE, booking.number, CallOutcome::NotSent, &[nothing]).await.unwrap();
    between(waits(rate_limiter.as_ref(), &none, WaitReason::Rate).await, 2_000, 2_000);
}
