//! A database for each test, on one server for all of them.

use async_trait::async_trait;
use conformance::harness::{Store, StoreHarness};
use distributed::{PostgresSettings, PostgresStore};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tests::postgres::Postgres;

/// The server that the tests share; it ends with their process.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start().unwrap());
static DATABASES: AtomicUsize = AtomicUsize::new(0);
/// Migrated databases that no test uses at the moment: making one takes longer than most tests.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A migrated database of the test's own, without records, and a store on it.
pub(crate) struct Database {
    pub(crate) store: Arc<PostgresStore>,
    /// A connection that tests look and meddle with.
    pub(crate) pool: PgPool,
    url: String,
    ahead_ms: AtomicI64,
}

impl Database {
    pub(crate) async fn open() -> Self {
        let free = FREE.lock().unwrap().pop();
        let url = match free {
            Some(url) => url,
            None => {
                let url = empty().await;
                PostgresStore::migrate(&url).await.unwrap();
                url
            }
        };
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&url).unwrap();
        let store = PostgresStore::open(&url, PostgresSettings::default()).await.unwrap();
        let database = Self { store: Arc::new(store), pool, url, ahead_ms: AtomicI64::new(0) };
        database
            .execute(
                "DO $$ DECLARE name text; BEGIN
                     FOR name IN SELECT tablename FROM pg_tables
                         WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'
                     LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
                 END $$",
            )
            .await;
        database.advance(Duration::ZERO).await;
        database
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Carries out statements of the test's own.
    pub(crate) async fn execute(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&self.pool).await.unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What a failed test left behind may be anything.
        if !std::thread::panicking() {
            FREE.lock().unwrap().push(self.url.clone());
        }
    }
}

/// The URL of a database that was never migrated.
pub(crate) async fn empty() -> String {
    let name = format!("case_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(&SERVER.url()).await.unwrap();
    let create = format!("CREATE DATABASE {name} TEMPLATE template0");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    SERVER.url_of(&name)
}

#[async_trait]
impl StoreHarness for Database {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// Moves the database's clock, which is a function of ours.
    async fn advance(&self, by: Duration) {
        let by = by.as_millis() as i64;
        let ahead = self.ahead_ms.fetch_add(by, Ordering::SeqCst) + by;
        self.execute(&format!(
            "CREATE OR REPLACE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql STABLE PARALLEL SAFE
             RETURN (extract(epoch FROM statement_timestamp()) * 1000)::bigint + {ahead}"
        ))
        .await;
    }
}
