//! What a caller is told of a call that is refused: every mistake of all parts of it at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

use conformance::fixtures;
use domain::ids::RequestId;
use domain::{Queue, Stores, Violation};
use embedded::{MemoryQueue, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tonic::service::Routes;
use wire::v1;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::runs_service_client::RunsServiceClient;

/// A harvester over an empty store.
async fn services() -> (Routes, Arc<SqliteStore>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
    let harvester = Harvester::new(Settings::new("test"), Stores::of(&store), queue, BTreeMap::new());
    (harvester.routes(), store, folder)
}

fn check(refused: &tonic::Status, expected: &[&str]) {
    let found = wire::violations_of(refused);
    let fields: Vec<&str> = found.iter().map(|Violation { field, .. }| field.as_str()).collect();
    assert_eq!(fields, expected, "{refused:?}");
}

/// A specification with a mistake in the message itself, one of each kind in its values, and one that only the operator's
/// configuration shows.
fn spec() -> v1::DistillationSpec {
    let mut spec = v1::DistillationSpec::from(fixtures::spec(fixtures::NAME));
    spec.name = "../up".to_owned();
    spec.teacher = Some(v1::TeacherSpec { profile: "nobody".to_owned(), ..Default::default() });
    spec.judging = Some(v1::JudgingSpec { label: 99, ..Default::default() });
    spec.student = Some(v1::StudentSpec { base: "absent".to_owned(), ..Default::default() });
    spec.training = Some(v1::TrainingSpec { alpha: Some(2.0), schedule: 99, ..Default::default() });
    spec
}

#[tokio::test]
async fn a_job_s_mistakes_are_named_together() {
    let (routes, _store, _folder) = services().await;
    let mut jobs = DistillationsServiceClient::new(routes);
    let (spec, dataset_id) = (Some(spec()), "nonsense".to_owned());
    let submit =
        v1::SubmitDistillationRequest { request_id: "none".to_owned(), spec: spec.clone(), dataset_id };
    let refused = jobs.submit_distillation(submit).await.unwrap_err();
    let of_spec = ["name", "training.alpha", "teacher.profile", "student.base"];
    let of_message = ["judging.label", "training.schedule", "dataset_id"];
    check(&refused, &[&["request_id"], &of_message[..], &of_spec[..]].concat());
    let dataset_id = RequestId::generate().to_string();
    let estimate = v1::EstimateDistillationRequest { spec, dataset_id, probe_rows: 0 };
    let refused = jobs.estimate_distillation(estimate).await.unwrap_err();
    check(&refused, &[&of_message[..2], &of_spec[..], &of_message[2..]].concat());
    let submit = v1::SubmitDistillationRequest::default();
    let refused = jobs.submit_distillation(submit).await.unwrap_err();
    check(&refused, &["request_id", "spec", "dataset_id"]);
}

#[tokio::test]
async fn a_run_s_mistakes_are_named_together() {
    let (routes, store, _folder) = services().await;
    let dataset = fixtures::dataset(store.as_ref(), (0..4).map(fixtures::row).collect()).await;
    let job = fixtures::job(store.as_ref(), fixtures::spec(fixtures::NAME), dataset.id).await;
    let mut runs = RunsServiceClient::new(routes);
    let plan = v1::RunPlan {
        purpose: 99,
        rows: Some(v1::RunRows { fraction: Some(7.0), seed: None }),
        training: Some(v1::TrainingSpec { alpha: Some(2.0), schedule: 99, ..Default::default() }),
        ..Default::default()
    };
    let distillation_id = job.id.to_string();
    let create =
        v1::CreateRunRequest { request_id: "none".to_owned(), distillation_id, plan: Some(plan.clone()) };
    let refused = runs.create_run(create).await.unwrap_err();
    check(&refused, &["purpose", "training.schedule", "request_id", "rows.fraction", "training.alpha"]);
    let create =
        v1::CreateRunRequest { distillation_id: "none".to_owned(), plan: Some(plan), ..Default::default() };
    let refused = runs.create_run(create).await.unwrap_err();
    check(&refused, &["purpose", "training.schedule", "request_id", "distillation_id"]);
}
