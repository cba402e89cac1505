//! The suite of the port of work: [`domain::Queue`].

pub mod work;

/// One test for each case, on the queue that `$open().await` opens: a [`QueueHarness`](crate::harness::QueueHarness).
#[macro_export]
macro_rules! queue_suite {
    ($open:path) => {
        $crate::queue_cases!([$crate::tests_of] [queue $open]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! queue_cases {
    ([$($then:tt)+] [$($argument:tt)*]) => {
        $($then)+! { [$($argument)*]
            work {
                work_comes_back_in_order_and_whole
                an_empty_queue_gives_nothing
                a_delivered_entry_is_hidden_until_its_visibility_ends
                an_acknowledged_entry_is_gone
                an_extended_entry_stays_with_its_consumer
                a_postponed_entry_comes_after_its_delay
                an_entry_postponed_by_nothing_comes_at_once
                what_no_entry_names_is_missing
                a_prompt_that_is_published_twice_has_one_entry
                the_bound_holds_until_entries_are_acknowledged
                depth_counts_what_waits_and_what_is_delivered
                a_waiting_consumer_wakes_when_work_is_published
                a_waiting_consumer_wakes_when_an_entry_is_due
                every_waiting_consumer_gets_its_share
                consumers_share_nothing
                publishers_never_exceed_the_bound_nor_lose_anything
            }
        }
    };
}

/// Every case of the suite, as an adapter's report lists it.
pub const CASES: &[&str] = queue_cases!([crate::names_of] []);
