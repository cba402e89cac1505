//! Configuration, telemetry, ingress, signals, and the composition root.
//!
//! `local` composes the services of one machine over the in-memory transport, `serve` those of a process of its own; each
//! role is a cargo feature, and a build without it says so when it is asked for.
//!
//! # Invariants
//!
//! - The only crate that names adapters and reads the environment.
//! - Off loopback a process refuses plain text and anonymous callers unless the configuration allows them explicitly.
//! - Shutdown is ordered: announce, close the ingress, finish calls, hand leases back, close the records.
//!
//! # Example
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use app::serve::{Roles, Serving};
//!
//! let config = app::config::Config::load_here(None)?;
//! app::block_on(async {
//!     let roles = Roles { harvester: true, ..Roles::default() };
//!     Serving::open(config, roles).await?.run(app::signals::shutdown()).await
//! })
//! # }
//! ```

pub mod admin;
pub mod base;
mod checkpoint_store;
pub mod client;
pub mod config;
mod data_folder;
pub mod doctor;
mod exposition;
pub mod ingress;
#[cfg(feature = "harvester")]
pub mod local;
#[cfg(not(feature = "harvester"))]
#[path = "unavailable.rs"]
pub mod local;
pub mod migrated;
mod models;
pub mod pages;
#[cfg(any(feature = "harvester", feature = "trainer"))]
mod process;
#[cfg(feature = "harvester")]
mod records;
mod roles;
mod secret;
pub mod serve;
pub mod signals;
pub mod student;
#[cfg(feature = "harvester")]
mod teachers;
pub mod telemetry;
pub mod test_answers;
mod this_machine;
pub mod toml_lines;
pub mod transport;

pub use checkpoints::{CheckpointError, Imported, import_checkpoint};

use anyhow::Context;
use std::future::Future;

/// Runs `work` on a runtime of its own, to its end.
///
/// # Errors
/// Those of `work`, and a runtime that cannot be started.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Every TLS client of this process speaks through one provider; a second installation finds the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let result = runtime.block_on(work);
    // Tasks that still run were asked to stop and did not; waiting longer would hang the command.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}
