//! The shared rate limits on a real Redis: the suite of their port, what several replicas share, and what only a server can
//! do to them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod server;

use distributed::RedisRateLimiter;
use domain::ports::{CallCost, CallOutcome, RateLimitError, RateLimits, Reservation, WaitReason};
use domain::{Fault, RateLimiter};
use server::{Prefix, connect, prefix, shared};
use std::time::{Duration, Instant};
use tests::redis::Redis;

conformance::rate_limiter_suite!(Prefix::open);

/// No fault of a server takes longer to be over.
const OVER_MAX: Duration = Duration::from_secs(20);
const COST: CallCost = CallCost { tokens_in: 10, tokens_out: 90 };
const ANSWERED: CallOutcome = CallOutcome::Answered { used: COST, took: Duration::from_millis(100) };

fn at_most(concurrency_max: u64) -> RateLimits {
    RateLimits { concurrency_max, ..RateLimits::default() }
}

fn requests(limit: u64) -> RateLimits {
    RateLimits { requests_per_minute: Some(limit), ..RateLimits::default() }
}

async fn booked(rate_limiter: &RedisRateLimiter, limits: &RateLimits) -> (u64, Duration) {
    match rate_limiter.reserve("local", limits, COST).await.unwrap() {
        Reservation::Booked(booking) => (booking.number, booking.start_in),
        other => panic!("a call can be booked: {other:?}"),
    }
}

async fn waits(rate_limiter: &RedisRateLimiter, limits: &RateLimits, expected: WaitReason) {
    let reserved = rate_limiter.reserve("local", limits, COST).await.unwrap();
    let waits = matches!(reserved, Reservation::Wait { reason, .. } if reason == expected);
    assert!(waits, "a call waits for {expected:?}: {reserved:?}");
}

async fn settle(rate_limiter: &RedisRateLimiter, number: u64, outcome: CallOutcome) {
    rate_limiter.settle("local", number, outcome, &[]).await.unwrap();
}

async fn replicas(prefix: &str) -> [RedisRateLimiter; 2] {
    [
        RedisRateLimiter::new(&connect(shared(), prefix).await),
        RedisRateLimiter::new(&connect(shared(), prefix).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_limits_and_clusters_do_not() {
    let [left, right] = replicas(&prefix()).await;
    let [other, _] = replicas(&prefix()).await;
    let limits = RateLimits { concurrency_max: 2, ..requests(60) };
    let (first, _) = booked(&left, &limits).await;
    let (_, start_in) = booked(&right, &limits).await;
    assert!(start_in > Duration::from_millis(700), "the next second's call: {start_in:?}");
    waits(&left, &limits, WaitReason::Concurrency).await;
    let (elsewhere, start_in) = booked(&other, &limits).await;
    assert_eq!(start_in, Duration::ZERO);
    // Whoever books settles; what it learns is everybody's.
    settle(&left, first, CallOutcome::Refused { wait: Some(Duration::from_secs(30)) }).await;
    waits(&right, &limits, WaitReason::Refused).await;
    settle(&other, elsewhere, ANSWERED).await;
    booked(&other, &limits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_everything_leaves_others_their_share() {
    let [left, right] = replicas(&prefix()).await;
    let limits = at_most(8);
    let mut lefts = Vec::new();
    for _call in 0..8 {
        lefts.push(booked(&left, &limits).await.0);
    }
    let mut rights = Vec::new();
    for _end in 0..4 {
        waits(&right, &limits, WaitReason::Concurrency).await;
        settle(&left, lefts.pop().unwrap(), ANSWERED).await;
        // The place is the other's, who waits.
        waits(&left, &limits, WaitReason::Concurrency).await;
        rights.push(booked(&right, &limits).await.0);
    }
    // Now both have half, and each keeps what it has.
    for _end in 0..4 {
        waits(&left, &limits, WaitReason::Concurrency).await;
        waits(&right, &limits, WaitReason::Concurrency).await;
        settle(&left, lefts.remove(0), ANSWERED).await;
        waits(&right, &limits, WaitReason::Concurrency).await;
        lefts.push(booked(&left, &limits).await.0);
    }
    // A replica that no longer waits leaves everything.
    tokio::time::sleep(Duration::from_millis(600)).await;
    for number in rights {
        settle(&right, number, ANSWERED).await;
        booked(&left, &limits).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_place_replicas_take_turns() {
    let prefix = prefix();
    let [left, right] = replicas(&prefix).await;
    let limits = at_most(1);
    let mut held = booked(&left, &limits).await.0;
    for _turn in 0..3 {
        waits(&right, &limits, WaitReason::Concurrency).await;
        settle(&left, held, ANSWERED).await;
        waits(&left, &limits, WaitReason::Concurrency).await;
        let turn = booked(&right, &limits).await.0;
        settle(&right, turn, ANSWERED).await;
        held = booked(&left, &limits).await.0;
    }
}

/// How many bookings the server remembers.
async fn remembered(redis: &Redis, prefix: &str) -> usize {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("*{prefix}}}:limits:booking:*");
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap();
    keys.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_was_settled() {
    let prefix = prefix();
    let [left, right] = replicas(&prefix).await;
    let mut numbers = Vec::new();
    for replica in [&left, &right, &left] {
        numbers.push((replica, booked(replica, &requests(6_000)).await.0));
    }
    assert_eq!(remembered(shared(), &prefix).await, 3);
    for (replica, number) in numbers {
        settle(replica, number, ANSWERED).await;
    }
    assert_eq!(remembered(shared(), &prefix).await, 0);
    assert_eq!(left.pace("local").await.unwrap().in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_flushall_limits_begin_anew_and_calls_in_flight_are_counted_again() {
    let redis = Redis::start().unwrap();
    let rate_limiter = RedisRateLimiter::new(&connect(&redis, "cluster").await);
    let limits = RateLimits { concurrency_max: 2, ..requests(60) };
    let numbers = [booked(&rate_limiter, &limits).await.0, booked(&rate_limiter, &limits).await.0];
    redis.flush_all().unwrap();
    rate_limiter.renew("local", &numbers).await.unwrap();
    waits(&rate_limiter, &limits, WaitReason::Concurrency).await;
    settle(&rate_limiter, numbers[0], ANSWERED).await;
    assert_eq!(rate_limiter.pace("local").await.unwrap().answered_ago, None, "its booking is not known");
    rate_limiter.renew("local", &[]).await.unwrap();
    let other = RedisRateLimiter::new(&connect(&redis, "other").await);
    assert_eq!(booked(&other, &limits).await.1, Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_calls_are_unavailable_and_then_go_on() {
    let redis = Redis::start().unwrap();
    let rate_limiter = RedisRateLimiter::new(&connect(&redis, "cluster").await);
    let (number, _) = booked(&rate_limiter, &at_most(8)).await;
    redis.kill().unwrap();
    for _call in 0..2 {
        let reserved = rate_limiter.reserve("local", &at_most(8), COST).await.unwrap_err();
        let settled = rate_limiter.settle("local", number, ANSWERED, &[]).await.unwrap_err();
        let renewed = rate_limiter.renew("local", &[number]).await.unwrap_err();
        for error in [reserved, settled, renewed] {
            assert_eq!(error.fault(), Fault::Unavailable, "{error}");
        }
    }
    redis.restart().unwrap();
    let began = Instant::now();
    loop {
        match rate_limiter.reserve("local", &at_most(8), COST).await {
            Ok(reservation) => {
                assert!(matches!(reservation, Reservation::Booked(_)), "{reservation:?}");
                break;
            }
            Err(RateLimitError::Unavailable(_)) if began.elapsed() < OVER_MAX => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
