//! A job whose template takes as long as a template may: the services and the other jobs do not wait for it.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::ids::DistillationId;
use domain::state::DistillationState;
use domain::{JobStore, PromptStore, Queue, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Teacher};
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::distillations_service_client::DistillationsServiceClient;

const ROWS: u64 = 40;
/// Near the limit of one rendering's work.
const SLOW: &str =
    "{% for a in range(90) %}{% for b in range(90) %}{{ b }}{% endfor %}{% endfor %}{{ example.input }}";
/// The longest that a call may wait, on a machine that has other things to do.
const WAIT_MAX: Duration = Duration::from_millis(400);
/// The longest that the test takes.
const TEST_MAX: Duration = Duration::from_secs(30);

async fn submit(store: &SqliteStore, template: Option<&str>) -> DistillationId {
    let dataset = fixtures::dataset(store, fixtures::rows(ROWS)).await;
    let mut spec = fixtures::spec(fixtures::NAME);
    let teacher = spec.teacher.as_mut().unwrap();
    // The gate would plan a few rows only.
    teacher.smoke_rows = 0;
    if let Some(template) = template {
        spec.task.template = template.to_owned();
        (teacher.samples, teacher.temperature) = (64, 0.7);
    }
    fixtures::job(store, spec, dataset.id).await.id
}

/// The right answer to the last question of a prompt.
fn answer(prompt: &str) -> tests::teacher::Reply {
    let row = prompt.rsplit("What is ").next().unwrap().split(' ').next().unwrap();
    tests::teacher::Reply::completion(&format!("We add one. The answer is ({row} + 1)."))
}

#[test]
fn slow_templates_hold_up_neither_callers_nor_other_jobs() {
    let server = tests::teacher::Teacher::start(|asked| answer(&asked.prompt)).unwrap();
    // One thread for everything that waits, so that whatever keeps it shows.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(server.url()));
}

async fn check(url: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    let profile = Profile::new("local", Provider::OpenAiChat, url, "default");
    let teacher = Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap();
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(10_000, Duration::from_secs(30)));
    let harvester = Harvester::new(
        Settings::new("test"),
        Stores::of(&store),
        queue,
        BTreeMap::from([("local".to_owned(), teacher)]),
    );
    let slow = submit(&store, Some(SLOW)).await;
    let quick = submit(&store, None).await;
    let mut client = DistillationsServiceClient::new(harvester.routes());
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    let running = tokio::spawn(async move { harvester.run(end).await });
    let (began, mut longest, mut calls) = (Instant::now(), Duration::ZERO, 0);
    let has_planned = async || store.harvest_progress(slow).await.unwrap().total() > 0;
    let mut was_planning = false;
    while store.distillation(quick).await.unwrap().state != DistillationState::Training
        || !has_planned().await
    {
        if began.elapsed() > TEST_MAX {
            panic!("{:?} {:?}", store.distillation(slow).await, store.distillation(quick).await);
        }
        was_planning |= !has_planned().await;
        // What keeps the thread shows in the sleep as well as in the call.
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.list_distillations(v1::ListDistillationsRequest::default()).await.unwrap();
        longest = longest.max(asked.elapsed());
        calls += 1;
    }
    println!("the longest of {calls} calls took {longest:?}");
    assert!(was_planning && calls > 20, "{calls} calls");
    assert!(longest < WAIT_MAX, "a call waited {longest:?}, of {calls}");
    shutdown.cancel();
    running.await.unwrap();
}
