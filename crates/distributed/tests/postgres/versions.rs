//! Migrating, and opening only what was migrated.

use crate::database::empty;
use distributed::{OpenError, PostgresSettings, PostgresStore};
use domain::Fault;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;

fn settings() -> PostgresSettings {
    PostgresSettings { connect_max: Duration::from_millis(500), ..PostgresSettings::default() }
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
}

/// Every table, column, index and constraint, as text.
async fn schema(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
         WHERE table_schema = 'public'
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace
         ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_migrated_once_by_however_many() {
    let url = empty().await;
    let migrating: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { PostgresStore::migrate(&url).await.unwrap() })
        })
        .collect();
    for done in migrating {
        assert_eq!(done.await.unwrap(), PostgresStore::version());
    }
    let migrated = schema(&url).await;
    assert!(migrated.iter().any(|line| line.starts_with("prompts.rationale")), "{migrated:?}");
    assert_eq!(PostgresStore::migrate(&url).await.unwrap(), PostgresStore::version());
    assert_eq!(schema(&url).await, migrated, "again changes nothing");
    PostgresStore::open(&url, settings()).await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_left_alone() {
    let url = empty().await;
    let error = PostgresStore::open(&url, settings()).await.unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 0, .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Conflict);
    assert!(error.to_string().contains("run `distillery migrate`"), "{error}");
    assert_eq!(schema(&url).await, Vec::<String>::new(), "opening writes nothing");
}

#[tokio::test]
async fn a_newer_database_asks_for_a_newer_program() {
    let url = empty().await;
    PostgresStore::migrate(&url).await.unwrap();
    execute(
        &url,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .await;
    let opened = PostgresStore::open(&url, settings()).await.unwrap_err();
    let migrated = PostgresStore::migrate(&url).await.unwrap_err();
    for error in [opened, migrated] {
        assert!(matches!(error, OpenError::Newer { found: 9999, .. }), "{error:?}");
        assert!(error.to_string().contains("use a newer version"), "{error}");
    }
}

#[tokio::test]
async fn a_migration_that_was_changed_afterwards_is_refused() {
    let url = empty().await;
    PostgresStore::migrate(&url).await.unwrap();
    execute(&url, "UPDATE _sqlx_migrations SET checksum = 'other' WHERE version = 1").await;
    let error = PostgresStore::migrate(&url).await.unwrap_err();
    assert!(matches!(error, OpenError::Migration { .. }), "{error:?}");
    assert!(error.to_string().contains("cannot be migrated"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_says_where_and_keeps_the_password() {
    let nobody = "postgres://user:hush-hush@127.0.0.1:1/records";
    let stranger = empty().await.replace("distillery:", "distillery:hush-hush");
    let nowhere = empty().await.replace("case_", "absent_");
    for (url, place) in [(nobody, "127.0.0.1:1/records"), (&stranger, "/case_"), (&nowhere, "/absent_")] {
        let opened = PostgresStore::open(url, settings()).await.unwrap_err();
        let migrated = PostgresStore::migrate(url).await.unwrap_err();
        for error in [opened, migrated] {
            assert_eq!(error.fault(), Fault::Unavailable, "{error:?}");
            let words = format!("{error} {error:?}");
            assert!(words.contains(place) && !words.contains("hush"), "{words}");
        }
    }
    for url in ["", "records.db", "mysql://127.0.0.1/records", "postgres://127.0.0.1:port/records"] {
        let error = PostgresStore::open(url, settings()).await.unwrap_err();
        assert!(matches!(error, OpenError::Url(_)), "{url}: {error:?}");
    }
}
