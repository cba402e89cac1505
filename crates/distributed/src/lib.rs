//! A cluster's adapters: records in Postgres, the queue and the teachers' shared rate limits in Redis.
//!
//! Invariants: distributed names no transport and no tensor; every method of the store is one transaction, and its time
//! is the database's; what Redis holds may be lost at any instant.

mod accounts;
mod columns;
mod datasets;
mod failure;
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
