//! The store on a real PostgreSQL: the suite of its port, and what only a server can do to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod bulk;
mod database;
mod faults;
mod versions;

conformance::store_suite!(database::Database::open);
