//! The records, the work list and the teacher's allowance, from the adapters that the configuration names: the one place
//! that chooses them.

use crate::config::{Config, ConfigError};
use anyhow::bail;
use domain::{Allowance, Queue, Store};
use embedded::{MemoryAllowance, MemoryQueue, SqliteStore};
use futures::FutureExt;
use futures::future::BoxFuture;
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the harvester works over.
pub(crate) struct Records {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) allowance: Arc<dyn Allowance>,
    close: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Flushes and closes the database, once nobody uses it any more.
    pub(crate) async fn close(self) {
        (self.close)().await;
    }
}

/// Opens SQLite and a work list in memory, or what `[database] url` names.
///
/// # Errors
/// The database cannot be reached, is in use, damaged, or of another version: what to do is said.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Records> {
    if !config.database.url.is_empty() {
        bail!("database.url: this program has no adapter for it: leave it empty for SQLite in data_dir");
    }
    let store = Arc::new(SqliteStore::open(&config.data_dir).await?);
    let closing = Arc::clone(&store);
    Ok(Records {
        store,
        queue: Arc::new(MemoryQueue::new(config.harvester.queue_capacity, lease(config))),
        allowance: Arc::new(MemoryAllowance::default()),
        close: Box::new(move || async move { closing.close().await }.boxed()),
    })
}

/// The operator's teachers, sharing the allowance of `records`.
///
/// # Errors
/// A profile that no teacher can be made of: a [`ConfigError`].
pub(crate) fn teachers(
    config: &Config,
    records: &Records,
) -> anyhow::Result<BTreeMap<String, teacher::Teacher>> {
    let opened = crate::teachers::open(&config.teachers, &records.allowance);
    Ok(opened.map_err(|error| ConfigError::new("configuration", format!("{error:#}")))?)
}

/// The harvester over `records`; it only answers where `workers` is 0.
pub(crate) fn harvester(
    config: &Config,
    workers: usize,
    records: &Records,
    teachers: BTreeMap<String, teacher::Teacher>,
) -> Harvester {
    let settings = Settings {
        lease: lease(config),
        failures_max: config.harvester.failures_max,
        outage_patience: Duration::from_secs(config.harvester.outage_seconds),
        workers,
        ..Settings::new(crate::roles::process_name("harvester"))
    };
    Harvester::new(settings, Arc::clone(&records.store), Arc::clone(&records.queue), teachers)
}

/// How long a prompt is leased.
fn lease(config: &Config) -> Duration {
    Duration::from_secs(config.harvester.lease_seconds.max(1))
}
