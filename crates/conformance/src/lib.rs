//! The suites that every store, queue and rate limiter passes, their harnesses and fixtures.
//!
//! An adapter's test file names a way to open the adapter, and gets one test for each case:
//!
//! ```text
//! conformance::store_suite!(Sqlite::open);
//! ```
//!
//! A case is a function over a harness: the adapter under test, and how time passes for it. The promises that it checks are
//! those of the port's doc comments in `domain`; where a case and a doc comment differ, one is wrong.
//!
//! # Invariants
//!
//! - No adapter is imported.
//! - A suite that cannot reach its server fails; it never passes silently.
//! - Every case that is written is a test of every adapter.
//!
//! # Example
//!
//! A case is bounded, so that a hang is a failure:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! conformance::bounded(async { assert_eq!(2 + 2, 4) }).await;
//! # }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite is test code that lives in a library, so that several adapters can run it"
)]

pub mod fixtures;
pub mod harness;

pub mod queue;
pub mod rate_limiter;
pub mod store;

use std::time::Duration;

/// No case takes longer, whatever hangs: it fails instead.
pub const CASE_MAX: Duration = Duration::from_secs(60);

/// Runs a case to its end, or fails it after [`CASE_MAX`].
pub async fn bounded(case: impl Future<Output = ()>) {
    let case = Box::pin(case);
    assert!(tokio::time::timeout(CASE_MAX, case).await.is_ok(), "the case did not end within {CASE_MAX:?}");
}

/// That the test binary which calls this has a test for every one of `cases`, under its very name.
pub fn check_listed(cases: &[&str]) {
    let binary = std::env::current_exe().unwrap();
    let listing = std::process::Command::new(binary).arg("--list").output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let tests: Vec<&str> = listing.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let absent: Vec<&&str> = cases.iter().filter(|case| !tests.contains(case)).collect();
    assert!(absent.is_empty() && !cases.is_empty(), "cases without a test: {absent:?}; tests: {tests:?}");
}

/// One test for each case of a suite; the list of cases is the suite's own.
#[doc(hidden)]
#[macro_export]
macro_rules! tests_of {
    ([$suite:ident $open:path] $($group:ident { $($case:ident)+ })+) => {
        #[test]
        fn every_case_of_the_suite_is_a_test() {
            $crate::check_listed($crate::$suite::CASES);
        }
        $(
            mod $group {
                use super::*;
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                    async fn $case() {
                        $crate::bounded(async {
                            let harness = $open().await;
                            $crate::$suite::$group::$case(&harness).await;
                        })
                        .await;
                    }
                )+
            }
        )+
    };
}

/// The names of a suite's cases, as an adapter's report lists them.
#[doc(hidden)]
#[macro_export]
macro_rules! names_of {
    ([] $($group:ident { $($case:ident)+ })+) => {
        &[$($(concat!(stringify!($group), "::", stringify!($case))),+),+]
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Every `pub async fn` of a group's source is a case, and every case is in the list that the macro expands.
    fn check(names: &[&str], sources: &[(&str, &str)]) {
        let listed: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(listed.len(), names.len(), "a case is listed twice");
        let written = sources.iter().flat_map(|(group, source)| {
            source.lines().filter_map(move |line| {
                let name = line.strip_prefix("pub async fn ")?.split('(').next()?;
                Some(format!("{group}::{name}"))
            })
        });
        assert_eq!(written.collect::<BTreeSet<_>>(), listed, "left: written, right: listed");
    }

    #[test]
    fn every_case_that_is_written_is_listed() {
        check(
            crate::store::CASES,
            &[
                ("datasets", include_str!("store/datasets.rs")),
                ("jobs", include_str!("store/jobs.rs")),
                ("lifecycle", include_str!("store/lifecycle.rs")),
                ("prompts", include_str!("store/prompts.rs")),
                ("budgets", include_str!("store/budgets.rs")),
                ("batches", include_str!("store/batches.rs")),
                ("ledger", include_str!("store/ledger.rs")),
                ("forgetting", include_str!("store/forgetting.rs")),
                ("runs", include_str!("store/runs.rs")),
                ("further_runs", include_str!("store/further_runs.rs")),
                ("models", include_str!("store/models.rs")),
                ("together", include_str!("store/together.rs")),
            ],
        );
        check(crate::queue::CASES, &[("work", include_str!("queue/work.rs"))]);
        check(
            crate::rate_limiter::CASES,
            &[
                ("limits", include_str!("rate_limiter/limits.rs")),
                ("pauses", include_str!("rate_limiter/pauses.rs")),
                ("sharing", include_str!("rate_limiter/sharing.rs")),
            ],
        );
    }
}
