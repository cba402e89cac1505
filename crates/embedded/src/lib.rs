//! The adapters of one machine: records in SQLite, the queue and the rate limits in memory.
//!
//! # Invariants
//!
//! - No transport and no tensor is imported.
//! - One connection writes; one process holds the data folder.
//! - Every statement is checked when it is compiled; what a job may do next is decided by `domain`.
//! - A committed write survives the end of the process at any instant.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let store = embedded::SqliteStore::open(folder.path()).await?;
//! // The folder belongs to this process until the store is closed.
//! assert!(embedded::SqliteStore::open(folder.path()).await.is_err());
//! store.close().await;
//! # Ok(())
//! # }
//! ```

mod batches;
mod calls;
mod clock;
mod datasets;
mod forgotten;
mod jobs;
mod models;
mod pacer;
mod prompts;
mod queue;
mod rate_limiter;
mod row;
mod runs;
mod store;

/// The database that statements are checked against, where there is one (see sqlx.toml). sqlx reads the
/// variable unseen by cargo; named here, a change of it recompiles this crate.
const _: Option<&str> = option_env!("DISTILLERY_SQLITE_URL");

pub use clock::Clock;
pub use queue::MemoryQueue;
pub use rate_limiter::MemoryRateLimiter;
pub use store::{OpenError, SqliteStore};
