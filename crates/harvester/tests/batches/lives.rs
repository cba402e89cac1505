//! Processes that harvest, one after another, over the same records; each is a runtime of its own, which is dropped where
//! it is killed.

use crate::provider::Standin;
use conformance::fixtures;
use distributed::{PostgresSettings, PostgresStore};
use domain::ids::{BatchId, DistillationId, PromptId, RequestId};
use domain::ports::NewBatch;
use domain::records::{Distillation, HarvestProgress, NewDistillation, NewPrompt};
use domain::spec::Budget;
use domain::state::DistillationState;
use domain::{Queue, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use teacher::{Prices, Profile, Teacher};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::v1;
use wire::v1::distillations_service_client::DistillationsServiceClient;

/// How long a test waits at most.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(900);
/// Rows of one append.
const CHUNK: u64 = 1_000;

/// Where the records are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Folder(PathBuf),
    Postgres(String),
}

/// A job to be made.
pub(crate) struct Job {
    pub(crate) rows: u64,
    pub(crate) smoke_rows: u32,
    pub(crate) calls: Option<u64>,
}

impl Job {
    pub(crate) fn of(rows: u64) -> Self {
        Self { rows, smoke_rows: 16, calls: None }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    State(DistillationState),
}

impl Place {
    /// A database that was brought to this version.
    pub(crate) fn migrated(url: &str) -> Self {
        runtime().block_on(PostgresStore::migrate(url)).unwrap();
        Self::Postgres(url.to_owned())
    }

    /// What a process leaves behind that is killed between the last line of a batch and its seal, with so many rows planned.
    pub(crate) fn fill_unsealed(&self, job: DistillationId, rows: u64) {
        runtime().block_on(async {
            let stores = self.open().await;
            let prompts: Vec<NewPrompt> = (0..rows).map(|row| fixtures::question(row, 0)).collect();
            let ids: Vec<PromptId> = prompts.iter().map(|prompt| prompt.id).collect();
            stores.prompts.plan_prompts(job, prompts).await.unwrap();
            let into = NewBatch { id: BatchId::generate(), distillation: job, profile: 0, lines_max: rows };
            let filled = stores.batches.fill_batch(&into, &ids).await.unwrap();
            assert_eq!(filled.taken, ids.len());
        });
    }

    async fn open(&self) -> Stores {
        match self {
            Self::Folder(folder) => {
                // The process before may not have let go yet.
                let began = Instant::now();
                loop {
                    match SqliteStore::open(folder).await {
                        Ok(store) => return Stores::of(&Arc::new(store)),
                        Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
                    }
                }
            }
            Self::Postgres(url) => {
                let settings = PostgresSettings { connections_max: 8, ..PostgresSettings::default() };
                Stores::of(&Arc::new(PostgresStore::open(url, settings).await.unwrap()))
            }
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A process that harvests.
pub(crate) struct Process {
    runtime: Runtime,
    stores: Stores,
    routes: Routes,
    shutdown: CancellationToken,
}

impl Process {
    /// Opens the records, and begins to work.
    pub(crate) fn start(place: &Place, standin: &Standin) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = runtime();
        let (stores, shutdown) = (runtime.block_on(place.open()), CancellationToken::new());
        let guard = runtime.enter();
        let profile = Profile {
            batch: true,
            prices: Prices { in_per_million: 1.0, out_per_million: 2.0, ..Prices::default() },
            total_timeout: Duration::from_secs(2),
            ..Profile::new("local", standin.shape(), &standin.url, "small")
        };
        let teacher = Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap();
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(10_000, Duration::from_secs(30)));
        let settings = Settings {
            batch_poll: Duration::from_millis(20),
            lease: Duration::from_secs(1),
            // They are killed faster than the job comes further, by the test and not by the job.
            lost_harvesters_max: 100,
            ..Settings::new(RequestId::generate().to_string())
        };
        let teachers = BTreeMap::from([("local".to_owned(), teacher)]);
        let harvester = Harvester::new(settings, stores.clone(), queue, teachers);
        let (routes, token) = (harvester.routes(), shutdown.clone());
        runtime.spawn(async move { harvester.run(token).await });
        drop(guard);
        Self { runtime, stores, routes, shutdown }
    }

    /// Makes a job and ends.
    pub(crate) fn make(self, job: Job) -> DistillationId {
        self.act(async move |stores, _| {
            let request = RequestId::generate();
            let dataset = stores.datasets.create_dataset(request, "numbers").await.unwrap().id;
            let mut from = 0;
            while from < job.rows {
                let to = (from + CHUNK).min(job.rows);
                stores
                    .datasets
                    .append_rows(dataset, from, (from..to).map(fixtures::row).collect())
                    .await
                    .unwrap();
                from = to;
            }
            stores.datasets.commit_dataset(dataset, &request.to_string()).await.unwrap();
            let mut spec = fixtures::spec(fixtures::NAME);
            let teacher = spec.teacher.as_mut().unwrap();
            (teacher.batch, teacher.smoke_rows) = (true, job.smoke_rows);
            teacher.budget = Budget { prompts: job.calls, ..Budget::default() };
            let (id, traceparent) = (DistillationId::generate(), String::new());
            let new = NewDistillation { id, request, spec, dataset, traceparent };
            stores.jobs.create_distillation(new).await.unwrap().id
        })
    }

    /// Does something with the records while the process works, and ends in order.
    pub(crate) fn act<T>(self, act: impl AsyncFnOnce(Stores, &Self) -> T) -> T {
        let done = self.runtime.block_on(act(self.stores.clone(), &self));
        self.shutdown.cancel();
        self.end(Duration::from_secs(5));
        done
    }

    /// What the API tells of a job.
    pub(crate) async fn told(&self, job: DistillationId) -> v1::GetDistillationResponse {
        let request = v1::GetDistillationRequest { distillation_id: job.to_string() };
        let mut client = DistillationsServiceClient::new(self.routes.clone());
        client.get_distillation(request).await.unwrap().into_inner()
    }

    /// Is killed after a while.
    pub(crate) fn kill_after(self, after: Duration) {
        std::thread::sleep(after);
        self.end(Duration::from_secs(5));
    }

    /// Is killed a moment after it has made so many requests, or after `longest`.
    pub(crate) fn kill_behind(self, standin: &Standin, requests: u64, moment: Duration, longest: Duration) {
        let (began, last) = (Instant::now(), standin.requests() + requests);
        while standin.requests() < last && began.elapsed() < longest {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill_after(moment);
    }

    /// Works until a job is where it is wanted.
    pub(crate) fn run(self, job: DistillationId, wanted: Wanted) -> (Distillation, HarvestProgress) {
        self.act(async move |stores, _| {
            let began = Instant::now();
            loop {
                let record = stores.jobs.distillation(job).await.unwrap();
                let Wanted::State(state) = wanted;
                if record.state == state {
                    // What has nothing left to collect ends a moment later.
                    while stores
                        .batches
                        .batches(job)
                        .await
                        .unwrap()
                        .iter()
                        .any(|batch| batch.state.as_str() != "ended")
                    {
                        assert!(began.elapsed() < WAIT_MAX);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    return (record, stores.prompts.harvest_progress(job).await.unwrap());
                }
                let batches = stores.batches.batches(job).await.unwrap();
                assert!(record.state != DistillationState::Paused, "{record:?} {batches:?}");
                assert!(began.elapsed() < WAIT_MAX, "{record:?} {batches:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn end(self, wait: Duration) {
        drop((self.stores, self.routes));
        self.runtime.shutdown_timeout(wait);
    }
}

/// Megabytes of memory that this program has now.
pub(crate) fn resident_megabytes() -> u64 {
    status("VmRSS:")
}

/// Megabytes of memory that this program has had at most.
pub(crate) fn peak_megabytes() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1_024
}
