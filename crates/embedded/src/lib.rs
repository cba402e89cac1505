//! Everything on one machine: records in SQLite, the work list and the allowance in memory.
//!
//! Invariants: embedded names no transport and no tensor; one connection writes, one process holds the folder.

mod allowance;
mod datasets;
mod distillations;
mod models;
mod prompts;
mod queue;
mod row;
mod runs;
mod store;

pub use allowance::MemoryAllowance;
pub use queue::MemoryQueue;
pub use store::{Clock, OpenError, SqliteStore};
