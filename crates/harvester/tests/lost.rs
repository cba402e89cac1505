//! A job that ends the process of every harvester that works at it: it is set aside, and the job beside it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::ids::DistillationId;
use domain::ports::{
    CallCost, CallOutcome, Pace, RateLimitError, RateLimits, Reservation, SeenLimit, WaitReason,
};
use domain::state::DistillationState::{Paused, Training};
use domain::{JobStore, Queue, RateLimiter, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Teacher};
use tokio_util::sync::CancellationToken;

const ROWS: u64 = 6;
/// The variables that a harvester of these tests is started with: its data folder, and its teacher.
const FOLDER: &str = "LOST_FOLDER";
const TEACHER: &str = "LOST_TEACHER";
/// The profile of which nobody survives a call.
const DEADLY: &str = "deadly";
/// How long a harvester works at most.
const WORK_MAX: Duration = Duration::from_secs(60);

/// Limits that end the process whenever a call is to be made, as a stack that overflows or memory that runs out does.
struct Ends;

#[async_trait::async_trait]
impl RateLimiter for Ends {
    async fn reserve(&self, _: &str, _: &RateLimits, _: CallCost) -> Result<Reservation, RateLimitError> {
        std::process::abort()
    }

    async fn start(&self, _: &str, _: u64) -> Result<Option<(Duration, WaitReason)>, RateLimitError> {
        Ok(None)
    }

    async fn settle(&self, _: &str, _: u64, _: CallOutcome, _: &[SeenLimit]) -> Result<(), RateLimitError> {
        Ok(())
    }

    async fn renew(&self, _: &str, _: &[u64]) -> Result<(), RateLimitError> {
        Ok(())
    }

    async fn pace(&self, profile: &str) -> Result<Pace, RateLimitError> {
        MemoryRateLimiter::default().pace(profile).await
    }
}

/// A job of this profile over a few rows.
async fn submit(store: &SqliteStore, profile: &str) -> DistillationId {
    let dataset = fixtures::dataset(store, fixtures::rows(ROWS)).await;
    let mut spec = fixtures::spec(fixtures::NAME);
    spec.teacher.as_mut().unwrap().profiles = Some(vec![profile.to_owned()]);
    fixtures::job(store, spec, dataset.id).await.id
}

/// Starts a harvester over this folder, and waits for its end.
fn work(folder: &Path, teacher: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_harvester_of_its_own", "--ignored"])
        .env(FOLDER, folder)
        .env(TEACHER, teacher);
    command.output().unwrap().status
}

/// Works at the jobs of the folder until none of them is left.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of the tests below, which start it"]
#[allow(clippy::disallowed_methods, reason = "its caller tells it by the environment where it works")]
async fn a_harvester_of_its_own() {
    let (folder, url) = (std::env::var(FOLDER).unwrap(), std::env::var(TEACHER).unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Arc::new(SqliteStore::open(Path::new(&folder)).await.unwrap());
    let profile = |name: &str| {
        let identity = name.to_owned();
        Profile { identity, ..Profile::new(name, Provider::OpenAiChat, &url, "default") }
    };
    let teachers = BTreeMap::from([
        (DEADLY.to_owned(), Teacher::new(profile(DEADLY), Arc::new(Ends)).unwrap()),
        ("local".to_owned(), Teacher::new(profile("local"), Arc::new(MemoryRateLimiter::default())).unwrap()),
    ]);
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(1_000, Duration::from_secs(30)));
    // Unique per start, as every process's is.
    let name = format!("harvester-{}", std::process::id());
    let harvester = Harvester::new(Settings::new(name), Stores::of(&store), queue, teachers);
    let (shutdown, began) = (CancellationToken::new(), Instant::now());
    let end = shutdown.clone();
    let running = tokio::spawn(async move { harvester.run(end).await });
    loop {
        let jobs = store.list_distillations(&Default::default(), &page()).await.unwrap().items;
        if jobs.iter().all(|job| matches!(job.state, Paused | Training)) {
            break;
        }
        assert!(began.elapsed() < WORK_MAX, "{jobs:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    running.await.unwrap();
    store.close().await;
}

fn page() -> domain::ports::PageRequest {
    domain::ports::PageRequest { size: 100, cursor: None }
}

/// The right answer to the last question of a prompt.
fn answer(prompt: &str) -> tests::teacher::Reply {
    let row = prompt.rsplit("What is ").next().unwrap().split(' ').next().unwrap();
    tests::teacher::Reply::completion(&format!("We add one. The answer is ({row} + 1)."))
}

#[test]
fn a_job_that_ends_its_harvesters_is_set_aside_and_the_one_beside_it_is_not() {
    let teacher =
        tests::teacher::Teacher::start(|asked| answer(&asked.prompt).after(Duration::from_millis(50)))
            .unwrap();
    // Whichever is looked at first.
    for profiles in [[DEADLY, "local"], ["local", DEADLY]] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(profiles, teacher.url()));
    }
}

async fn check(profiles: [&str; 2], teacher: &str) {
    const LOST_MAX: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let jobs = [submit(&store, profiles[0]).await, submit(&store, profiles[1]).await];
    store.close().await;
    drop(store);
    let mut lost = 0;
    loop {
        let status = work(folder.path(), teacher);
        if status.success() {
            break;
        }
        lost += 1;
        assert_eq!(status.signal(), Some(6), "aborted: {status:?}");
        assert!(lost <= LOST_MAX, "{profiles:?}: it is worked at for ever");
    }
    let store = SqliteStore::open(folder.path()).await.unwrap();
    for (job, profile) in jobs.into_iter().zip(profiles) {
        let found = store.distillation(job).await.unwrap();
        let expected = if profile == DEADLY { Paused } else { Training };
        assert_eq!(found.state, expected, "{profile} of {profiles:?}: {}", found.reason);
        if profile == DEADLY {
            let words = "3 harvesters in a row were lost while they worked at it";
            assert!(found.reason.starts_with(words), "{}", found.reason);
            assert!(found.reason.contains("`distillery resume` tries again"), "{}", found.reason);
        }
    }
    assert_eq!(lost, LOST_MAX);
    // Resumed, it has its chances again.
    let deadly = if profiles[0] == DEADLY { jobs[0] } else { jobs[1] };
    assert_ne!(store.resume(deadly).await.unwrap().state, Paused);
    store.close().await;
    drop(store);
    assert_eq!((1..=LOST_MAX + 1).find(|_| work(folder.path(), teacher).success()), Some(LOST_MAX + 1));
}
