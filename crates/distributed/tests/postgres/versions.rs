//! Migrating, and opening only what was migrated.

use crate::database::empty;
use conformance::fixtures::{NAME, spec};
use distributed::{OpenError, PostgresSettings, PostgresStore};
use domain::ids::{DistillationId, ModelId, RunId};
use domain::metric::Accuracy;
use domain::ports::PageRequest;
use domain::rows::to_json;
use domain::run::{RunPlan, RunResult};
use domain::state::RunState;
use domain::{Fault, RunStore};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::Path;
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

/// The newest migration of version 0.1.0.
const VERSION_0_1_0: i64 = 3;

/// A database as version 0.1.0 migrated it.
async fn of_0_1_0() -> String {
    let url = empty().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut migrator = Migrator::new(Path::new("../../migrations/postgres")).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= VERSION_0_1_0);
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_0_1_0_are_the_final_runs_of_their_jobs() {
    let url = of_0_1_0().await;
    let test = Accuracy::measure(40, 29, 38);
    let (job, run, model) = (DistillationId::generate(), RunId::generate(), ModelId::generate());
    let (spec_json, test_json) = (to_json(&spec(NAME)).unwrap(), to_json(&test).unwrap());
    let dump = format!(
        "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, run_id, model_id,
             ledger_fingerprint, train_seconds, evaluate_seconds, created_at, updated_at)
         VALUES ('{job}', '{job}', 'sums', '{job}', $json${spec_json}$json$, 'succeeded', '{run}', '{model}',
             'ledger', 12.5, 2.25, 1, 1);
         INSERT INTO runs (id, distillation_id, state, fence, step, resume_path, created_at)
         VALUES ('{run}', '{job}', 'succeeded', 3, 100, 'resume/100', 1);
         INSERT INTO metrics (run_id, step, name, value) VALUES ('{run}', 100, 'loss_label', 0.25);
         INSERT INTO models (id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, test,
             created_at)
         VALUES ('{model}', 'sums', 1, '{job}', '{run}', 'runs/model', '5a', 1000, $json${test_json}$json$, 1)"
    );
    execute(&url, &dump).await;
    PostgresStore::migrate(&url).await.unwrap();
    let store = PostgresStore::open(&url, settings()).await.unwrap();
    let found = store.run(run).await.unwrap();
    assert_eq!(
        (found.distillation, found.state, found.fence, found.step),
        (job, RunState::Succeeded, 3, 100)
    );
    assert_eq!((found.resume_path.as_str(), found.ledger_fingerprint.as_str()), ("resume/100", "ledger"));
    assert_eq!(found.plan, RunPlan::of_job(&spec(NAME)));
    let result = RunResult {
        path: "runs/model".to_owned(),
        manifest_sha256: "5a".to_owned(),
        parameters: 1_000,
        validation: None,
        test: Some(test),
        train_seconds: 12.5,
        evaluate_seconds: 2.25,
    };
    assert_eq!(found.result, Some(result));
    assert_eq!(store.metrics(run, None, 10).await.unwrap().len(), 1, "its curve is kept");
    let runs = store.list_runs(job, &PageRequest { size: 10, cursor: None }).await.unwrap().items;
    assert_eq!(runs, [found]);
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
