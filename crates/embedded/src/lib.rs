//! Everything on one machine: records in SQLite, the queue and the rate limits in memory.
//!
//! Invariants: embedded names no transport and no tensor; one connection writes, one process holds the folder.

mod datasets;
mod jobs;
mod models;
mod prompts;
mod queue;
mod rate_limiter;
mod row;
mod runs;
mod store;

/// The database that statements are checked against, where there is one (see sqlx.toml). sqlx reads the
/// variable unseen by cargo; named here, a change of it recompiles this crate.
const _: Option<&str> = option_env!("DISTILLERY_SQLITE_URL");

pub use queue::MemoryQueue;
pub use rate_limiter::MemoryRateLimiter;
pub use store::{Clock, OpenError, SqliteStore};
