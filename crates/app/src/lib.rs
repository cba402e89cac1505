//! Configuration, telemetry, signals and the composition root: the only place that names adapters.
//!
//! `local` puts the roles together for one machine; `roles` starts each of them, or says that this build lacks it.

mod admin;
pub mod base;
mod checkpoint_store;
pub mod client;
pub mod config;
mod exposition;
pub mod ingress;
#[cfg(feature = "harvester")]
pub mod local;
#[cfg(not(feature = "harvester"))]
#[path = "unavailable.rs"]
pub mod local;
mod models;
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
    // What still runs was told to stop and did not; waiting longer would hang the command.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}
