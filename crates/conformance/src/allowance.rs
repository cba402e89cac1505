//! The suite of the port of rate limits: [`domain::Allowance`].

use async_trait::async_trait;
use domain::Allowance;
use std::sync::Arc;
use std::time::Duration;

pub mod limits;

/// An allowance under test. Every case opens its own, unused, and shares it with nobody.
#[async_trait]
pub trait AllowanceHarness: Send + Sync {
    /// The allowance.
    fn allowance(&self) -> Arc<dyn Allowance>;

    /// Lets `by` pass on the allowance's clock. By default it really passes.
    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

/// One test for each case, on the allowance that `$open().await` opens: an [`AllowanceHarness`].
#[macro_export]
macro_rules! allowance_suite {
    ($open:path) => {
        $crate::allowance_cases!([$crate::tests_of] [allowance $open]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! allowance_cases {
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
pub const CASES: &[&str] = allowance_cases!([crate::names_of] []);
