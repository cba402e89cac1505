//! Opening the database, and how every method of the port is carried out: a bounded number of tries, each one
//! transaction, within a bounded time.

use crate::failure::{Retries, TransactionError, TransactionResult};
use domain::Fault;
use domain::ports::{StoreError, StoreResult};
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres, Transaction};
use std::time::Duration;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgres");

/// A transaction on a connection of the pool.
pub(crate) type Tx = Transaction<'static, Postgres>;

/// How the database is used. Everything is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Connections of this process at most.
    pub connections_max: u32,
    /// The longest wait for a connection, also while the server is away.
    pub connect_max: Duration,
    /// The server gives up a statement after this.
    pub statement_max: Duration,
    /// The server gives up waiting for another transaction after this.
    pub lock_max: Duration,
    /// A call ends after this, whatever became of the server.
    pub call_max: Duration,
    /// The same for the deletion of a job or a dataset, whose rows may be millions.
    pub deletion_max: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            connections_max: 16,
            connect_max: Duration::from_secs(5),
            statement_max: Duration::from_secs(30),
            lock_max: Duration::from_secs(10),
            call_max: Duration::from_secs(60),
            deletion_max: Duration::from_secs(600),
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error(
        "the database's URL cannot be read ({0}): it looks like postgres://user:password@host:5432/database"
    )]
    Url(String),
    /// It does not answer, or refuses us.
    #[error("the database at {place} cannot be reached: {message}")]
    Unavailable {
        /// Host, port and name.
        place: String,
        /// What happened.
        message: String,
    },
    /// It has no records yet, or those of an older program.
    #[error(
        "the database at {place} has version {found}, and this program needs {needed}: run `distillery migrate`"
    )]
    Older {
        /// Host, port and name.
        place: String,
        /// Its version; 0 where it is empty.
        found: i64,
        /// This program's.
        needed: i64,
    },
    /// A newer program has migrated it.
    #[error(
        "the database at {place} has version {found}, and this program knows {needed}: use a newer version of it"
    )]
    Newer {
        /// Host, port and name.
        place: String,
        /// Its version.
        found: i64,
        /// This program's.
        needed: i64,
    },
    /// A migration failed, or is not the one that was applied.
    #[error("the database at {place} cannot be migrated: {message}")]
    Migration {
        /// Host, port and name.
        place: String,
        /// What happened.
        message: String,
    },
}

impl OpenError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url(_) => Fault::Invalid,
            Self::Unavailable { .. } => Fault::Unavailable,
            Self::Older { .. } | Self::Newer { .. } => Fault::Conflict,
            Self::Migration { .. } => Fault::Internal,
        }
    }
}

/// The records of a cluster. Clones of the process, and any number of replicas, share them.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    settings: PostgresSettings,
}

impl PostgresStore {
    /// Brings the database to this program's version, and returns that. Several may do it at the same time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn migrate(url: &str) -> Result<i64, OpenError> {
        let (options, place) = options(url)?;
        let mut connection = options.connect().await.map_err(unavailable(&place))?;
        let done = MIGRATIONS.run_direct(None, &mut connection, false).await;
        let found = version(&mut connection).await.map_err(unavailable(&place))?;
        let needed = Self::version();
        done.map_err(|error| match error {
            MigrateError::VersionMissing(_) if found > needed => {
                OpenError::Newer { place: place.clone(), found, needed }
            }
            other => OpenError::Migration { place: place.clone(), message: other.to_string() },
        })?;
        // A connection that does not close in order is closed by the server.
        let _ = connection.close().await;
        Ok(needed)
    }

    /// Where a database is: host, port and name, without user and password.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn place(url: &str) -> Result<String, OpenError> {
        Ok(options(url)?.1)
    }

    /// Opens a database of exactly this program's version; it changes nothing there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &str, settings: PostgresSettings) -> Result<Self, OpenError> {
        let (options, place) = options(url)?;
        let limit = |limit: Duration| limit.as_millis().to_string();
        let options = options.options([
            ("statement_timeout", limit(settings.statement_max)),
            ("lock_timeout", limit(settings.lock_max)),
            ("idle_in_transaction_session_timeout", limit(settings.call_max)),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(settings.connect_max)
            .connect_with(options)
            .await
            .map_err(unavailable(&place))?;
        let mut connection = pool.acquire().await.map_err(unavailable(&place))?;
        let found = version(&mut connection).await.map_err(unavailable(&place))?;
        let needed = Self::version();
        match found.cmp(&needed) {
            std::cmp::Ordering::Less => Err(OpenError::Older { place, found, needed }),
            std::cmp::Ordering::Greater => Err(OpenError::Newer { place, found, needed }),
            std::cmp::Ordering::Equal => Ok(Self { pool, settings }),
        }
    }

    /// The version of the records that this program reads and writes: the number of the newest migration.
    pub fn version() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Ends every connection, once the calls under way have ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Carries out a method of a port: makes the attempt, again where it collided with another transaction.
    pub(crate) async fn call<T, Trying>(&self, attempt: impl Fn() -> Trying + Send) -> StoreResult<T>
    where
        Trying: Future<Output = TransactionResult<T>> + Send,
    {
        tried(self.settings.call_max, attempt).await
    }

    /// The same for a deletion.
    pub(crate) async fn call_deletion<T, Trying>(&self, attempt: impl Fn() -> Trying + Send) -> StoreResult<T>
    where
        Trying: Future<Output = TransactionResult<T>> + Send,
    {
        tried(self.settings.deletion_max, attempt).await
    }

    /// Where single statements are carried out.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction that writes.
    pub(crate) async fn begin(&self) -> TransactionResult<Tx> {
        Ok(self.pool.begin().await?)
    }

    /// A transaction that writes, and may take as long as a deletion takes.
    pub(crate) async fn begin_deletion(&self) -> TransactionResult<Tx> {
        let mut tx = self.pool.begin().await?;
        let limit = self.settings.deletion_max.as_millis().to_string();
        sqlx::query_scalar!("SELECT set_config('statement_timeout', $1, true)", limit)
            .fetch_one(&mut *tx)
            .await?;
        Ok(tx)
    }

    /// A transaction that reads one state of everything.
    pub(crate) async fn begin_reading(&self) -> TransactionResult<Tx> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }
}

fn options(url: &str) -> Result<(PgConnectOptions, String), OpenError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Url("it does not begin with postgres://".to_owned()));
    }
    let options: PgConnectOptions =
        url.parse().map_err(|error: sqlx::Error| OpenError::Url(error.to_string()))?;
    // The password is in the URL: an error names the rest.
    let database = options.get_database().unwrap_or_default();
    let place = format!("{}:{}/{database}", options.get_host(), options.get_port());
    Ok((options.application_name("distillery"), place))
}

fn unavailable(place: &str) -> impl Fn(sqlx::Error) -> OpenError {
    let place = place.to_owned();
    move |error| {
        let message = match &error {
            sqlx::Error::PoolTimedOut => {
                "it answered no connection in time: is PostgreSQL running there, may this host connect, and is the user's \
                 password right (database.url, DISTILLERY_DATABASE_URL)?"
                    .to_owned()
            }
            sqlx::Error::Io(error) => {
                format!("{error}: is PostgreSQL running there (database.url, DISTILLERY_DATABASE_URL)?")
            }
            other => other.to_string(),
        };
        OpenError::Unavailable { place: place.clone(), message }
    }
}

/// The newest migration that was applied; 0 where there was none.
async fn version(connection: &mut PgConnection) -> sqlx::Result<i64> {
    // The table is sqlx's own, and absent from a database that was never migrated.
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !migrated {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

/// A bounded number of tries, each within its time.
async fn tried<T, Trying>(limit: Duration, attempt: impl Fn() -> Trying + Send) -> StoreResult<T>
where
    Trying: Future<Output = TransactionResult<T>> + Send,
{
    let mut tries = Retries::default();
    loop {
        // Boxed: the methods' states are large, and the port boxes them anyway.
        let failure = match tokio::time::timeout(limit, Box::pin(attempt())).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let words = format!("the call did not end within {limit:?}");
                TransactionError::Refused(StoreError::Unavailable(words))
            }
        };
        tries.again(failure).await?;
    }
}
