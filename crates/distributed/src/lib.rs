//! The adapters of a cluster: records in PostgreSQL, the queue and the teachers' shared rate limits in Redis.
//!
//! # Invariants
//!
//! - No transport and no tensor is imported.
//! - Every method of the store is one transaction on the database's clock; locks are taken in one order.
//! - What Redis holds may be lost at any instant.
//! - What a job may do next is decided by `domain`.
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use distributed::{PostgresSettings, PostgresStore, RedisServer};
//!
//! PostgresStore::migrate("postgres://user@host/distillery").await?;
//! let store = PostgresStore::open("postgres://user@host/distillery", PostgresSettings::default()).await?;
//! let redis = RedisServer::connect("redis://host:6379", "distillery").await?;
//! # Ok(())
//! # }
//! ```

mod accounts;
mod batches;
mod calls;
mod columns;
mod datasets;
mod failure;
mod forgotten;
mod jobs;
mod leases;
mod ledger;
mod models;
mod prompts;
mod queue;
mod rate_limiter;
mod redis_server;
mod row;
mod runs;
mod store;

/// The database that statements are checked against, where there is one (see sqlx.toml). sqlx reads the
/// variable unseen by cargo; named here, a change of it recompiles this crate.
const _: Option<&str> = option_env!("DISTILLERY_SQLX_POSTGRES_URL");

pub use queue::RedisQueue;
pub use rate_limiter::RedisRateLimiter;
pub use redis_server::{RedisError, RedisServer};
pub use store::{OpenError, PostgresSettings, PostgresStore};
