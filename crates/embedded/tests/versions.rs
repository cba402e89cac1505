//! Data folders that earlier versions of this program wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use conformance::fixtures::{NAME, spec};
use domain::ids::{DistillationId, ModelId, RunId};
use domain::metric::Accuracy;
use domain::ports::PageRequest;
use domain::rows::to_json;
use domain::run::{RunPlan, RunResult};
use domain::state::{DistillationState, RunState};
use domain::{JobStore, ModelStore, RunStore};
use embedded::SqliteStore;
use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::path::Path;

/// The newest migration of version 0.1.0.
const VERSION_0_1_0: i64 = 3;

/// A database as version 0.1.0 migrated it.
async fn of_0_1_0(folder: &Path) -> SqliteConnection {
    let path = folder.join("distillery.db");
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let mut migrator = Migrator::new(Path::new("../../migrations/sqlite")).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= VERSION_0_1_0);
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    connection
}

/// A job whose run is in this state; with a model where the run succeeded.
async fn insert_job(old: &mut SqliteConnection, state: RunState, test: &Accuracy) -> (DistillationId, RunId) {
    let (job, run, model) = (DistillationId::generate(), RunId::generate(), ModelId::generate());
    let done = state == RunState::Succeeded;
    let job_state = match state {
        RunState::Succeeded => DistillationState::Succeeded,
        RunState::Failed => DistillationState::Failed,
        _ => DistillationState::Training,
    };
    sqlx::query(
        "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, run_id, model_id,
             ledger_fingerprint, train_seconds, evaluate_seconds, created_at, updated_at)
         VALUES (?1, ?1, 'sums', ?1, ?2, ?3, ?4, ?5, 'ledger', ?6, ?7, 1, 1)",
    )
    .bind(job.as_uuid())
    .bind(to_json(&spec(NAME)).unwrap())
    .bind(job_state.as_str())
    .bind(run.as_uuid())
    .bind(done.then(|| model.as_uuid()))
    .bind(if done { 12.5 } else { 0.0 })
    .bind(if done { 2.25 } else { 0.0 })
    .execute(&mut *old)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO runs (id, distillation_id, state, fence, step, resume_path, created_at)
         VALUES (?1, ?2, ?3, 3, 100, 'resume/100', 1)",
    )
    .bind(run.as_uuid())
    .bind(job.as_uuid())
    .bind(state.as_str())
    .execute(&mut *old)
    .await
    .unwrap();
    sqlx::query("INSERT INTO metrics (run_id, step, name, value) VALUES (?, 100, 'loss_label', 0.25)")
        .bind(run.as_uuid())
        .execute(&mut *old)
        .await
        .unwrap();
    if done {
        sqlx::query(
            "INSERT INTO models (id, name, version, distillation_id, run_id, path, manifest_sha256, parameters,
                 test, created_at)
             VALUES (?, 'sums', 1, ?, ?, 'runs/model', '5a', 1000, ?, 1)",
        )
        .bind(model.as_uuid())
        .bind(job.as_uuid())
        .bind(run.as_uuid())
        .bind(to_json(test).unwrap())
        .execute(&mut *old)
        .await
        .unwrap();
    }
    (job, run)
}

#[tokio::test]
async fn the_runs_of_0_1_0_are_the_final_runs_of_their_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = of_0_1_0(folder.path()).await;
    let test = Accuracy::measure(40, 29, 38);
    let mut expected = Vec::new();
    for state in [RunState::Succeeded, RunState::Pending, RunState::Failed] {
        let (job, run) = insert_job(&mut old, state, &test).await;
        expected.push((job, run, state));
    }
    old.close().await.unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    for (job, id, state) in expected {
        let run = store.run(id).await.unwrap();
        assert_eq!((run.distillation, run.state, run.fence, run.step), (job, state, 3, 100));
        assert_eq!((run.resume_path.as_str(), run.ledger_fingerprint.as_str()), ("resume/100", "ledger"));
        assert_eq!(run.plan, RunPlan::of_job(&spec(NAME)));
        let result = RunResult {
            path: "runs/model".to_owned(),
            manifest_sha256: "5a".to_owned(),
            parameters: 1_000,
            validation: None,
            test: Some(test),
            train_seconds: 12.5,
            evaluate_seconds: 2.25,
        };
        assert_eq!(run.result, (state == RunState::Succeeded).then_some(result));
        assert_eq!(store.metrics(id, None, 10).await.unwrap().len(), 1, "its curve is kept");
        assert_eq!(store.distillation(job).await.unwrap().run, Some(id));
        let runs = store.list_runs(job, &PageRequest { size: 10, cursor: None }).await.unwrap().items;
        assert_eq!(runs, [run]);
    }
    assert_eq!(store.find_model(NAME, None).await.unwrap().unwrap().version, 1);
}
