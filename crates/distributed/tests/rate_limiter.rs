//! The shared rate limits on a real Redis: the suite of their port, and what only a server can do to them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod server;

use distributed::RedisRateLimiter;
use domain::ports::{RateLimitError, RateLimits, Reservation};
use domain::{Fault, RateLimiter};
use server::{Prefix, connect, prefix, shared};
use std::time::{Duration, Instant};
use tests::redis::Redis;

conformance::rate_limiter_suite!(Prefix::open);

/// No fault of a server takes longer to be over.
const OVER_MAX: Duration = Duration::from_secs(20);

fn tokens(limit: u64) -> RateLimits {
    RateLimits { tokens_per_minute: Some(limit), ..RateLimits::default() }
}

async fn granted(rate_limiter: &RedisRateLimiter, limits: RateLimits, tokens: u64) -> u64 {
    match rate_limiter.reserve("local", limits, tokens).await.unwrap() {
        Reservation::Granted(number) => number,
        Reservation::Wait(wait) => panic!("{tokens} tokens are there, not after {wait:?}"),
    }
}

async fn waits(rate_limiter: &RedisRateLimiter, limits: RateLimits, tokens: u64) -> bool {
    matches!(rate_limiter.reserve("local", limits, tokens).await.unwrap(), Reservation::Wait(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_bucket_and_clusters_do_not() {
    let prefix = prefix();
    let left = RedisRateLimiter::new(&connect(shared(), &prefix).await);
    let right = RedisRateLimiter::new(&connect(shared(), &prefix).await);
    let other = RedisRateLimiter::new(&connect(shared(), &server::prefix()).await);
    let number = granted(&left, tokens(1_000), 1_000).await;
    assert!(waits(&right, tokens(1_000), 500).await);
    granted(&other, tokens(1_000), 1_000).await;
    right.settle("local", number, 0).await.unwrap();
    granted(&left, tokens(1_000), 1_000).await;
    right.hold("local", Duration::from_secs(30)).await.unwrap();
    assert!(waits(&left, RateLimits::default(), 1).await);
    assert!(!waits(&other, RateLimits::default(), 1).await);
}

/// How many reservations the server remembers.
async fn remembered(redis: &Redis, prefix: &str) -> usize {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("*{prefix}}}:reservation:*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    keys.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reservation_of_a_caller_that_is_gone_is_forgotten() {
    let prefix = prefix();
    let server = connect(shared(), &prefix).await;
    let rate_limiter = RedisRateLimiter::with_reservation_max(&server, Duration::from_millis(200));
    let number = granted(&rate_limiter, tokens(1_000), 600).await;
    assert_eq!(remembered(shared(), &prefix).await, 1);
    let began = Instant::now();
    while remembered(shared(), &prefix).await > 0 {
        assert!(began.elapsed() < OVER_MAX, "it is remembered for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rate_limiter.settle("local", number, 0).await.unwrap();
    assert!(waits(&rate_limiter, tokens(1_000), 900).await, "it counts as used");
    let settled = granted(&RedisRateLimiter::new(&server), tokens(1_000), 100).await;
    rate_limiter.settle("local", settled, 100).await.unwrap();
    assert_eq!(remembered(shared(), &prefix).await, 0, "nothing is left of what was settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_flushall_the_bucket_is_full_and_old_numbers_settle_nothing() {
    let redis = Redis::start().unwrap();
    let rate_limiter = RedisRateLimiter::new(&connect(&redis, "cluster").await);
    let number = granted(&rate_limiter, tokens(1_000), 1_000).await;
    redis.flush_all().unwrap();
    granted(&rate_limiter, tokens(1_000), 1_000).await;
    rate_limiter.settle("local", number, 0).await.unwrap();
    assert!(waits(&rate_limiter, tokens(1_000), 500).await, "what was reserved anew is not returned");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_calls_are_unavailable_and_then_go_on() {
    let redis = Redis::start().unwrap();
    let rate_limiter = RedisRateLimiter::new(&connect(&redis, "cluster").await);
    let number = granted(&rate_limiter, tokens(1_000), 1).await;
    redis.kill().unwrap();
    for _call in 0..2 {
        let reserved = rate_limiter.reserve("local", tokens(1_000), 1).await.unwrap_err();
        let settled = rate_limiter.settle("local", number, 1).await.unwrap_err();
        let held = rate_limiter.hold("local", Duration::from_secs(1)).await.unwrap_err();
        for error in [reserved, settled, held] {
            assert_eq!(error.fault(), Fault::Unavailable, "{error}");
        }
    }
    redis.restart().unwrap();
    let began = Instant::now();
    loop {
        match rate_limiter.reserve("local", tokens(1_000), 1).await {
            Ok(reservation) => {
                assert!(matches!(reservation, Reservation::Granted(_)), "{reservation:?}");
                break;
            }
            Err(RateLimitError::Unavailable(_)) if began.elapsed() < OVER_MAX => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
