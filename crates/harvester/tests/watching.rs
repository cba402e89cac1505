//! Watching jobs and models: what each watcher is told, and how many there may be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::event::EventKind;
use domain::ids::{DistillationId, ModelId};
use domain::{JobStore, Queue, Stores};
use embedded::{MemoryQueue, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use wire::v1;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;

/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// More than are kept for watchers.
const EVENTS: u64 = 450;

struct Watched {
    store: Arc<SqliteStore>,
    routes: Routes,
    job: DistillationId,
    _folder: TempDir,
}

impl Watched {
    async fn open(watchers_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        let dataset = fixtures::dataset(store.as_ref(), fixtures::rows(4)).await;
        let job = fixtures::job(store.as_ref(), fixtures::spec(fixtures::NAME), dataset.id).await.id;
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
        let settings = Settings { watchers_max, ..Settings::new("test") };
        let routes = Harvester::new(settings, Stores::of(&store), queue, BTreeMap::new()).routes();
        Self { store, routes, job, _folder: folder }
    }

    async fn watch(&self, after: u64) -> Result<Streaming<v1::WatchDistillationResponse>, Status> {
        let request =
            v1::WatchDistillationRequest { distillation_id: self.job.to_string(), after_sequence: after };
        let mut client = DistillationsServiceClient::new(self.routes.clone());
        Ok(client.watch_distillation(request).await?.into_inner())
    }

    /// Something that happens to the job.
    async fn happens(&self) -> u64 {
        let kind =
            EventKind::Published { model: ModelId::generate(), name: "student".to_owned(), version: 1 };
        self.store.append_event(self.job, kind).await.unwrap()
    }
}

/// The sequences of the events up to `last`; whether a snapshot stood before the first.
async fn sequences(watch: &mut Streaming<v1::WatchDistillationResponse>, last: u64) -> (Vec<u64>, bool) {
    let (mut found, mut begins_with_snapshot) = (Vec::new(), false);
    while found.last() != Some(&last) {
        let message = tokio::time::timeout(WAIT_MAX, watch.message()).await.expect("no event").unwrap();
        let message = message.expect("the watch ended");
        match wire::Watched::try_from((DistillationId::generate(), message)).unwrap().sequence() {
            0 => begins_with_snapshot |= found.is_empty(),
            sequence => found.push(sequence),
        }
    }
    (found, begins_with_snapshot)
}

async fn ends(mut watch: Streaming<v1::WatchDistillationResponse>) {
    let ending = async { while watch.message().await.unwrap().is_some() {} };
    tokio::time::timeout(WAIT_MAX, ending).await.expect("the watch does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_is_told_everything_in_order() {
    let watched = Watched::open(100).await;
    let mut last = 0;
    while last < EVENTS {
        last = watched.happens().await;
    }
    let from = |after: u64| (after + 1..=EVENTS).collect::<Vec<u64>>();
    let mut watches = Vec::new();
    for after in [0, 7, EVENTS - 200, EVENTS - 2] {
        let mut watch = watched.watch(after).await.unwrap();
        assert_eq!(sequences(&mut watch, EVENTS).await, (from(after), true), "after {after}");
        watches.push(watch);
    }
    // Who is further than anybody can be is told nothing, and takes nothing from others.
    let _lost = watched.watch(EVENTS + 1_000).await.unwrap();
    let next = watched.happens().await;
    for watch in &mut watches {
        assert_eq!(sequences(watch, next).await.0, [next]);
    }
    watched.store.pause(watched.job, "for a test").await.unwrap();
    for watch in watches {
        ends(watch).await;
    }
    // Who comes after it was resumed is not told that it is paused.
    for _round in 0..5 {
        ends(watched.watch(0).await.unwrap()).await;
        watched.store.resume(watched.job).await.unwrap();
        let mut watch = watched.watch(next).await.unwrap();
        let last = watched.happens().await;
        sequences(&mut watch, last).await;
        watched.store.pause(watched.job, "again").await.unwrap();
        ends(watch).await;
    }
    let mut gone = watched.watch(0).await.unwrap();
    while gone.message().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_beyond_the_limit_are_refused() {
    let watched = Watched::open(3).await;
    let mut watches = Vec::new();
    for _place in 0..3 {
        watches.push(watched.watch(0).await.unwrap());
    }
    let refused = watched.watch(0).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("3 callers watch already"), "{refused}");
    // The models have places of their own.
    let mut models = ModelsServiceClient::new(watched.routes.clone());
    let mut models = models.watch_models(v1::WatchModelsRequest {}).await.unwrap().into_inner();
    assert!(models.message().await.unwrap().unwrap().models.is_empty());
    watches.pop();
    let again = async {
        while watched.watch(0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, again).await.expect("the place was not given back");
}
