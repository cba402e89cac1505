//! The suite of the port of rate limits: [`RateLimiter`].

pub mod limits;
pub mod pauses;
pub mod sharing;

use domain::RateLimiter;
use domain::ports::{Booking, CallCost, CallOutcome, RateLimits, Reservation, WaitReason};
use std::time::Duration;

/// How far a time may be off: rounding, a busy machine, and two clocks.
const SLACK: Duration = Duration::from_millis(300);
const PROFILE: &str = "local";
const COST: CallCost = CallCost { tokens_in: 10, tokens_out: 90 };

fn requests(limit: u64) -> RateLimits {
    RateLimits { requests_per_minute: Some(limit), ..RateLimits::default() }
}

fn tokens(limit: u64) -> RateLimits {
    RateLimits { tokens_per_minute: Some(limit), ..RateLimits::default() }
}

fn used(tokens_in: u64, tokens_out: u64) -> CallOutcome {
    CallOutcome::Answered { used: CallCost { tokens_in, tokens_out }, took: Duration::from_millis(100) }
}

async fn booked(rate_limiter: &dyn RateLimiter, limits: &RateLimits, cost: CallCost) -> Booking {
    match rate_limiter.reserve(PROFILE, limits, cost).await.unwrap() {
        Reservation::Booked(booking) => booking,
        Reservation::Wait { wait, reason } => {
            panic!("a call can be booked, not after {wait:?} for {reason:?}")
        }
    }
}

async fn waits(rate_limiter: &dyn RateLimiter, limits: &RateLimits, expected: WaitReason) -> Duration {
    match rate_limiter.reserve(PROFILE, limits, COST).await.unwrap() {
        Reservation::Wait { wait, reason } if reason == expected => wait,
        other => panic!("a call waits for {expected:?}, and there is {other:?}"),
    }
}

/// Books a call and settles it at once: when it would have started.
async fn made(rate_limiter: &dyn RateLimiter, limits: &RateLimits, outcome: CallOutcome) -> Duration {
    let booking = booked(rate_limiter, limits, COST).await;
    rate_limiter.settle(PROFILE, booking.number, outcome, &[]).await.unwrap();
    booking.start_in
}

/// That `found` is between the two, give or take what a busy machine adds.
#[track_caller]
fn between(found: Duration, least_ms: u64, most_ms: u64) {
    let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
    assert!(found + SLACK >= least && found <= most + SLACK, "{found:?} is not in {least:?}..={most:?}");
}

/// One test for each case, on the rate limiter that `$open().await` opens: a
/// [`RateLimiterHarness`](crate::harness::RateLimiterHarness).
#[macro_export]
macro_rules! rate_limiter_suite {
    ($open:path) => {
        $crate::rate_limiter_cases!([$crate::tests_of] [rate_limiter $open]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! rate_limiter_cases {
    ([$($then:tt)+] [$($argument:tt)*]) => {
        $($then)+! { [$($argument)*]
            limits {
                without_limits_calls_start_at_once
                a_second_starts_at_once_and_the_rest_is_spaced
                no_minute_holds_more_than_the_limit
                tokens_of_each_direction_have_their_own_limit
                the_scarcer_limit_decides
                unused_tokens_are_returned_and_others_taken
                a_call_that_was_sent_stays_counted
                settling_twice_or_what_was_never_booked_does_nothing
                a_start_that_is_far_away_is_not_booked
                the_day_has_limits_of_its_own
                what_no_limit_allows_never_fits
                profiles_know_nothing_of_each_other
                callers_together_stay_within_the_limits
                limits_of_headers_are_kept
            }
            pauses {
                a_refusal_makes_everybody_wait_and_one_call_probes
                a_burst_of_refusals_cuts_once
                a_probe_that_is_not_refused_soon_is_taken
                refusals_in_a_row_wait_longer
                a_refusal_shows_the_real_limit
                early_refusals_show_it_when_the_probe_is_refused_too
                five_failures_in_a_row_pause
                a_failure_with_a_wait_is_waited_for
                a_booked_call_does_not_start_into_a_pause
            }
            sharing {
                calls_in_flight_are_bounded
                the_ceiling_grows_until_the_first_refusal
                bookings_that_nobody_renews_come_back
                the_last_answer_is_known
            }
        }
    };
}

/// Every case of the suite, as an adapter's report lists it.
pub const CASES: &[&str] = rate_limiter_cases!([crate::names_of] []);
