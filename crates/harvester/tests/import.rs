//! A job whose answers come with the data, over a real store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::ports::LedgerFilter;
use domain::spec::TeacherSource;
use domain::state::DistillationState;
use domain::{Answer, Example, JobStore, PromptStore, Queue, Stores};
use embedded::{MemoryQueue, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ROWS: u64 = 30;
/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn answered(index: u64) -> Example {
    let text = format!(" We add one. The answer is ({index} + 1).\n\nQ: Another?");
    let answers = vec![Answer::Completion { teacher: "palm".into(), text }];
    Example { answers, ..fixtures::row(index) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_a_crash_cut_short_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
    let dataset = fixtures::dataset(store.as_ref(), (0..ROWS).map(answered).collect()).await;
    let mut spec = fixtures::spec(fixtures::NAME);
    spec.teacher.as_mut().unwrap().source = TeacherSource::Imported;
    let job = fixtures::job(store.as_ref(), spec, dataset.id).await;
    // What a process leaves that is killed between its first write and the others: a job that harvests, and no ledger.
    store.plan_prompts(job.id, Vec::new()).await.unwrap();

    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
    let harvester = Harvester::new(Settings::new("test"), Stores::of(&store), queue, BTreeMap::new());
    let shutdown = CancellationToken::new();
    let (works, end) = (harvester.clone(), shutdown.clone());
    let running = tokio::spawn(async move { works.run(end).await });
    let began = Instant::now();
    while store.distillation(job.id).await.unwrap().state != DistillationState::Training {
        assert!(began.elapsed() < WAIT_MAX, "{:?}", store.distillation(job.id).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    running.await.unwrap();
    let ledger = store.ledger(job.id, &LedgerFilter::default(), 1_000).await.unwrap();
    assert_eq!(ledger.len() as u64, ROWS);
    assert!(ledger.iter().all(|entry| entry.parsed.rationale == "We add one."), "{:?}", ledger.first());
}
