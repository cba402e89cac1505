//! The suite of the port of rate limits: [`RateLimiter`](domain::RateLimiter).

pub mod limits;

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
                without_limits_everything_is_granted
                requests_a_minute_are_granted_then_waited_for
                tokens_a_minute_are_granted_then_waited_for
                the_scarcer_limit_decides
                after_the_wait_it_is_granted
                what_was_not_used_is_returned
                what_was_used_beyond_is_taken
                settling_twice_does_nothing
                settling_what_was_never_reserved_does_nothing
                a_failed_call_returns_tokens_and_request
                the_bucket_holds_a_minute_and_no_more
                a_hold_makes_everybody_wait
                a_shorter_hold_ends_no_longer_one
                what_no_minute_allows_never_fits
                profiles_know_nothing_of_each_other
                callers_together_stay_within_the_limits
                a_limit_that_is_new_begins_full
            }
        }
    };
}

/// Every case of the suite, as an adapter's report lists it.
pub const CASES: &[&str] = rate_limiter_cases!([crate::names_of] []);
