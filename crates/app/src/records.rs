//! The records, the queue and the teachers' rate limits, from the adapters that the configuration names: the one place
//! that chooses them.

use crate::config::{Address, Config, ConfigError};
use crate::migrated::Migrated;
use crate::{data_folder, process, secret};
use anyhow::Context;
use distributed::{PostgresSettings, PostgresStore, RedisQueue, RedisRateLimiter, RedisServer};
use domain::{Queue, RateLimiter, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use futures::FutureExt;
use futures::future::BoxFuture;
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the harvester works over.
pub(crate) struct Records {
    pub(crate) stores: Stores,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) rate_limiter: Arc<dyn RateLimiter>,
    close: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Flushes and closes the database, after its last use.
    pub(crate) async fn close(self) {
        (self.close)().await;
    }
}

/// Opens SQLite and a queue in memory, or what `[database] url` names.
///
/// # Errors
/// The database cannot be reached, is in use, damaged, or of another version: the error says what to do.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Records> {
    match database(config)? {
        Some(url) => cluster(config, &url).await,
        None => {
            data_folder::make(&config.data_dir)?;
            Ok(embedded(config, SqliteStore::open(&config.data_dir).await?))
        }
    }
}

/// The same to look things up only: SQLite is read also while another process works in the data folder.
///
/// # Errors
/// Those of [`open`].
pub(crate) async fn open_to_read(config: &Config) -> anyhow::Result<Records> {
    match database(config)? {
        Some(url) => cluster(config, &url).await,
        None => {
            data_folder::make(&config.data_dir)?;
            Ok(embedded(config, SqliteStore::open_to_read(&config.data_dir).await?))
        }
    }
}

/// Brings the database to this program's version.
///
/// # Errors
/// There is none, it cannot be reached, is in use or damaged, or was written by a newer program.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<Migrated> {
    if let Some(url) = database(config)? {
        let version = PostgresStore::migrate(&url).await?;
        return Ok(Migrated {
            version,
            place: format!("PostgreSQL at {}", PostgresStore::place(&url)?),
            folder: None,
        });
    }
    let folder = config.data_dir.display().to_string();
    let is_named = config.data_dir != Config::built_in()?.data_dir;
    if !is_named && !SqliteStore::is_in(&config.data_dir) {
        let words = format!(
            "is not given, and {folder} has no database: name one (or set DISTILLERY_DATABASE_URL), or name a data folder by \
             --data-dir; a new data folder needs no migration"
        );
        return Err(ConfigError::new("database.url", words).into());
    }
    data_folder::make(&config.data_dir)?;
    let store = SqliteStore::open(&config.data_dir).await.context("migrate")?;
    store.close().await;
    Ok(Migrated { version: SqliteStore::version(), place: folder.clone(), folder: Some(folder) })
}

fn embedded(config: &Config, store: SqliteStore) -> Records {
    let store = Arc::new(store);
    Records {
        stores: Stores::of(&store),
        queue: Arc::new(MemoryQueue::new(config.harvester.queue_capacity, lease(config))),
        rate_limiter: Arc::new(MemoryRateLimiter::default()),
        close: Box::new(move || async move { store.close().await }.boxed()),
    }
}

async fn cluster(config: &Config, url: &str) -> anyhow::Result<Records> {
    let redis = address(&config.redis.url, &config.redis.url_file).context("redis.url_file")?;
    let Some(redis) = redis else {
        let words = "is empty, and a database URL is given: services that run apart share their queue there";
        return Err(ConfigError::new("redis.url", words).into());
    };
    let settings =
        PostgresSettings { connections_max: config.database.connections_max, ..PostgresSettings::default() };
    let store = Arc::new(PostgresStore::open(url, settings).await.context("database.url")?);
    let server = RedisServer::connect(&redis, &config.redis.prefix).await.context("redis.url")?;
    Ok(Records {
        stores: Stores::of(&store),
        queue: Arc::new(RedisQueue::new(&server, config.harvester.queue_capacity, lease(config))),
        rate_limiter: Arc::new(RedisRateLimiter::new(&server)),
        close: Box::new(move || async move { store.close().await }.boxed()),
    })
}

/// Where the database is, without its password; `None` for SQLite, and where the address cannot be read.
pub(crate) fn place(config: &Config) -> Option<String> {
    let url = database(config).ok().flatten()?;
    PostgresStore::place(&url).ok().map(|place| format!("PostgreSQL at {place}"))
}

/// The database's URL; `None` for SQLite.
fn database(config: &Config) -> anyhow::Result<Option<String>> {
    address(&config.database.url, &config.database.url_file).context("database.url_file")
}

/// What the file holds, else the address itself; `None` where there is neither.
fn address(url: &Address, file: &Path) -> anyhow::Result<Option<String>> {
    let kept = secret::read("", file)?;
    let text = if kept.is_empty() { url.expose() } else { kept.expose() };
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The operator's teachers, sharing the rate limits of `records`.
///
/// # Errors
/// A profile that no teacher can be made of: a [`ConfigError`].
pub(crate) fn teachers(
    config: &Config,
    records: &Records,
) -> anyhow::Result<BTreeMap<String, teacher::Teacher>> {
    let opened = crate::teachers::open(&config.teachers, &records.rate_limiter);
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
        lost_trainers_max: config.harvester.lost_trainers_max.max(1),
        lost_harvesters_max: config.harvester.lost_harvesters_max.max(1),
        outage_patience: Duration::from_secs(config.harvester.outage_seconds),
        workers,
        ..Settings::new(process::name("harvester"))
    };
    Harvester::new(settings, records.stores.clone(), Arc::clone(&records.queue), teachers)
}

/// How long a prompt is leased.
fn lease(config: &Config) -> Duration {
    Duration::from_secs(config.harvester.lease_seconds.max(1))
}
