//! Opening the database, and the one way to write to it.

use crate::clock::{Clock, ForwardClock};
use crate::row::internal;
use domain::Fault;
use domain::ports::{StoreError, StoreResult};
use fs4::FileExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool, Transaction};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

/// The database's name in the data folder.
const DATABASE: &str = "distillery.db";
/// The lock's name in the data folder.
const LOCK: &str = "lock";
/// How long a reader waits for a checkpoint of the write-ahead log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// How often, and how long in between, a lock that another process holds is tried.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Longest name of a lock's holder, in bytes.
const HOLDER_BYTES_MAX: u64 = 32;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works in it.
    #[error("{} is in use by {}: wait for it, end it, or use another --data-dir", folder.display(), named(*process))]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The process, where the lock tells.
        process: Option<u32>,
    },
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer version of this program: use that version, or another --data-dir", .0.display())]
    Newer(PathBuf),
    /// It is damaged, or no database at all.
    #[error("{}: {message}: restore it from a copy, or use another --data-dir", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What happened.
        message: String,
    },
}

impl OpenError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::InUse { .. } | Self::Newer(_) => Fault::Conflict,
            Self::Io { .. } | Self::Database { .. } => Fault::Unavailable,
        }
    }
}

fn named(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |process| format!("process {process}"))
}

/// Takes the lock of a data folder, and says in it whose it is. A process that is just ending, or one that is just being
/// started by its holder, has it for a moment longer.
async fn hold(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut lock =
        File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
    for tries in 0..=LOCK_TRIES {
        if FileExt::try_lock(&lock).is_ok() {
            // A lock without a name holds as well.
            let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
            return Ok(lock);
        }
        if tries < LOCK_TRIES {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
    let mut holder = String::new();
    // A holder that names itself otherwise is one all the same.
    let read = Read::take(&lock, HOLDER_BYTES_MAX).read_to_string(&mut holder);
    let process = read.ok().and_then(|_| holder.trim().parse().ok());
    Err(OpenError::InUse { folder: folder.to_owned(), process })
}

/// The records of one machine. A committed write survives the process's end at any instant; after a loss of power the
/// newest commits may be missing, and the database is whole.
pub struct SqliteStore {
    /// `None` once the store is closed, and where it is only read.
    writer: Mutex<Option<SqliteConnection>>,
    /// How the writer is opened again.
    options: SqliteConnectOptions,
    readers: SqlitePool,
    clock: ForwardClock,
    /// Held for as long as the store lives; `None` where it is only read.
    _lock: Option<File>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the data folder, made where it is absent, and brings its database to this program's version.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with_clock(folder, system_clock()).await
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with_clock(folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock = hold(folder).await?;
        let path = folder.join(DATABASE);
        let database = |error: sqlx::Error| damaged(&path, &error);
        let options = options(&path).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(database)?;
        MIGRATIONS.run_direct(None, &mut writer, false).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => OpenError::Newer(path.clone()),
            other => OpenError::Database { path: path.clone(), message: other.to_string() },
        })?;
        end_leases(&mut writer).await.map_err(database)?;
        let readers = readers(&path).await.map_err(database)?;
        let (writer, clock) = (Mutex::new(Some(writer)), ForwardClock::new(clock));
        Ok(Self { writer, options, readers, clock, _lock: Some(lock) })
    }

    /// Opens the data folder to read it, also while another process works in it. Where its database is absent or of an older
    /// version, the folder is [opened](Self::open) as a whole first.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_to_read(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(DATABASE);
        if Self::is_in(folder) {
            let readers = readers(&path).await.map_err(|error| damaged(&path, &error))?;
            let version = version_of(&readers).await.map_err(|error| damaged(&path, &error))?;
            if version > Some(Self::version()) {
                return Err(OpenError::Newer(path));
            }
            if version == Some(Self::version()) {
                let (writer, clock) = (Mutex::new(None), ForwardClock::new(system_clock()));
                return Ok(Self { writer, options: options(&path), readers, clock, _lock: None });
            }
            readers.close().await;
        }
        Self::open(folder).await
    }

    /// Whether there is a database in this folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(DATABASE).exists()
    }

    /// The database's version: the number of the newest migration.
    pub fn version() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Ends every connection; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the database is not closed in order: the next one to open it mends that");
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(crate) async fn write(&self) -> StoreResult<WriteConnection<'_>> {
        let mut connection = MutexGuard::try_map(self.writer.lock().await, Option::as_mut)
            .map_err(|_| StoreError::Unavailable("the store is closed, or only read".to_owned()))?;
        // SQLite itself ends a transaction that a full disk broke off, and its connection may still count it as open. The
        // one before may also be ending at this moment: whoever asks the connection waits for that.
        if connection.is_in_transaction()
            && (connection.ping().await.is_err() || connection.is_in_transaction())
        {
            tracing::warn!("a write broke off and left its connection unusable: it is opened again");
            *connection = SqliteConnection::connect_with(&self.options).await.map_err(internal)?;
        }
        Ok(WriteConnection { connection })
    }
}

fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
}

/// In the journal mode that the database has: to set it is to write, which a copy that was restored in another would refuse.
async fn readers(path: &Path) -> sqlx::Result<SqlitePool> {
    SqlitePoolOptions::new().max_connections(READERS).connect_with(options(path).read_only(true)).await
}

/// The number of the newest migration that a database has had; `None` where it has had none.
async fn version_of(readers: &SqlitePool) -> sqlx::Result<Option<i64>> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    if sqlx::query_scalar::<_, i64>(table).fetch_one(readers).await? == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(readers).await
}

fn damaged(path: &Path, error: &sqlx::Error) -> OpenError {
    OpenError::Database { path: path.to_owned(), message: error.to_string() }
}

/// The lock proves that no other process works here: the holders of leases have ended, and no caller need wait for them.
async fn end_leases(writer: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query!("UPDATE distillations SET driver_until = 0 WHERE driver_until > 0")
        .execute(&mut *writer)
        .await?;
    sqlx::query!("UPDATE at_work SET lease_until = 0").execute(&mut *writer).await?;
    // A batch holds its prompts as long as the provider works on it.
    sqlx::query!(
        "UPDATE prompts SET lease_until = 0 WHERE state = 'leased' AND NOT EXISTS (
             SELECT 1 FROM calls WHERE calls.prompt_id = prompts.id AND batch_id IS NOT NULL
                 AND calls.attempt = prompts.attempt)"
    )
    .execute(&mut *writer)
    .await?;
    // Nor for a time that lies ahead of a clock that was set back since.
    sqlx::query!("UPDATE batches SET lease_until = 0, next_at = 0 WHERE state <> 'ended'")
        .execute(&mut *writer)
        .await?;
    sqlx::query!("UPDATE runs SET lease_until = 0 WHERE state = 'leased'").execute(&mut *writer).await?;
    Ok(())
}

/// The one connection that writes, for as long as a method needs it.
pub(crate) struct WriteConnection<'a> {
    connection: MappedMutexGuard<'a, SqliteConnection>,
}

impl WriteConnection<'_> {
    /// A transaction that holds the database's write lock from its beginning: it never fails half-way because another connection writes.
    pub(crate) async fn begin(&mut self) -> StoreResult<Transaction<'_, Sqlite>> {
        self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ModelStore;

    /// A database that may not grow refuses a write as a full disk does, and ends its transaction.
    #[tokio::test]
    async fn writes_go_on_when_a_full_disk_has_space_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let long = "x".repeat(100_000);
        let limit = async |pages: u32| {
            let mut writer = store.write().await.unwrap();
            let pragma = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::query(pragma).execute(&mut *writer.connection).await.unwrap();
        };
        for name in ["first", "second", "third"] {
            for _ in 0..2 {
                limit(1).await;
                let full = store.register_base_model(name, &long).await;
                assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
            }
            limit(1_000_000).await;
            store.register_base_model(name, &long).await.unwrap();
        }
    }
}
