//! The data folder: who may open it, what is refused and how, and what is left when the process is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use conformance::fixtures::{self, NAME, harvest, question, row, rows, spec};
use domain::ids::{BatchId, DatasetId, DistillationId, RequestId};
use domain::ports::{BATCH_MAX, LedgerFilter, NewBatch, StoreError};
use domain::records::NewDistillation;
use domain::state::PromptState;
use domain::{BatchStore, DatasetStore, Fault, JobStore, ModelStore, PromptStore, RunStore};
use embedded::{Clock, OpenError, SqliteStore};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const DATABASE: &str = "distillery.db";

async fn refused(folder: &Path) -> OpenError {
    match SqliteStore::open(folder).await {
        Err(error) => error,
        Ok(_) => panic!("{} is opened", folder.display()),
    }
}

async fn execute(folder: &Path, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(folder.join(DATABASE));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_folder_has_one_holder_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("made/on/the/way");
    let store = SqliteStore::open(&nested).await.unwrap();
    let error = refused(&nested).await;
    let process = Some(std::process::id());
    let wanted = OpenError::InUse { folder: nested.clone(), process };
    assert_eq!(error.to_string(), wanted.to_string());
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert_eq!(error.fault(), Fault::Conflict);
    let words = error.to_string();
    assert!(
        words.contains("made/on/the/way") && words.contains("--data-dir"),
        "where, and what to do: {words}"
    );
    harvest(&store, 1).await;
    drop(store);
    SqliteStore::open(&nested).await.unwrap();
}

#[tokio::test]
async fn a_folder_is_read_beside_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let held = harvest(&store, 2).await;
    let reader = SqliteStore::open_to_read(folder.path()).await.unwrap();
    let seen = reader.distillation(held.job).await.unwrap();
    assert_eq!(seen.spec.name, store.distillation(held.job).await.unwrap().spec.name);
    // What is written later is seen, and nothing is written by the reader.
    store.cancel(held.job, "enough").await.unwrap();
    assert_eq!(reader.distillation(held.job).await.unwrap().reason, "enough");
    assert!(reader.cancel(held.job, "again").await.is_err());
    reader.close().await;
    store.close().await;
    drop(store);
    // Nobody holds it, and nobody does because of a reader.
    let reader = SqliteStore::open_to_read(folder.path()).await.unwrap();
    reader.distillation(held.job).await.unwrap();
    SqliteStore::open(folder.path()).await.unwrap();
    // An empty folder gets a database as ever; one of a newer program is refused.
    let empty = tempfile::tempdir().unwrap();
    drop(SqliteStore::open_to_read(empty.path()).await.unwrap());
    execute(empty.path(), "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 1").await;
    let refused = SqliteStore::open_to_read(empty.path()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer(_)), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = "this was somebody's diary\n".repeat(500);
    std::fs::write(folder.path().join(DATABASE), &garbage).unwrap();
    let error = refused(folder.path()).await;
    assert!(matches!(&error, OpenError::Database { path, .. } if path.ends_with(DATABASE)), "{error:?}");
    assert_eq!(error.fault(), Fault::Unavailable);
    assert!(error.to_string().contains("restore it from a copy"), "what to do: {error}");
    assert_eq!(std::fs::read_to_string(folder.path().join(DATABASE)).unwrap(), garbage);
}

#[tokio::test]
async fn a_newer_programs_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).await.unwrap());
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', 1, x'00', 1)";
    execute(folder.path(), newer).await;
    let error = refused(folder.path()).await;
    assert!(matches!(&error, OpenError::Newer(path) if path.ends_with(DATABASE)), "{error:?}");
    assert_eq!(error.fault(), Fault::Conflict);
    assert!(error.to_string().contains("newer version"), "{error}");
    execute(folder.path(), "DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    SqliteStore::open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_database_of_other_tables_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).await.unwrap());
    execute(folder.path(), "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
}

/// Permissions would not stop an administrator; these paths stop everybody.
#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let locked = folder.path().join("locked");
    std::fs::create_dir_all(locked.join("lock")).unwrap();
    for (path, named) in [
        (file.clone(), file.clone()),
        (file.join("inside"), file.join("inside")),
        (locked.clone(), locked.join("lock")),
    ] {
        let error = refused(&path).await;
        assert!(matches!(&error, OpenError::Io { path, .. } if *path == named), "{path:?}: {error:?}");
        assert_eq!(error.fault(), Fault::Unavailable);
        assert!(error.to_string().contains(&named.display().to_string()), "{error}");
    }
    let occupied = folder.path().join("occupied");
    std::fs::create_dir_all(occupied.join(DATABASE)).unwrap();
    let error = refused(&occupied).await;
    assert!(matches!(&error, OpenError::Database { path, .. } if path.ends_with(DATABASE)), "{error:?}");
}

#[tokio::test]
async fn a_new_database_has_the_newest_version() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).await.unwrap());
    let options = SqliteConnectOptions::new().filename(folder.path().join(DATABASE));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let version: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(version > 0);
    assert_eq!(version, SqliteStore::version());
}

/// Brings a store to a bit of everything and returns how it reads, as text.
async fn lived_in(store: &SqliteStore) -> (DistillationId, Vec<String>) {
    let harvest = harvest(store, 3).await;
    let ids = harvest.ids();
    let leased = store.lease_prompts(&ids[..2], "worker", fixtures::LONG).await.unwrap().leased;
    store.record_harvest(vec![fixtures::answer(&leased[0])]).await.unwrap();
    store.mark_published(&ids[..1]).await.unwrap();
    store.start_training(harvest.job, "ledger").await.unwrap();
    let run = store.lease_run("trainer", fixtures::LONG, fixtures::LOST_MAX).await.unwrap().unwrap().run.id;
    store.publish_run(run, 1, fixtures::student(run), Default::default()).await.unwrap();
    store.register_base_model("t5-small", "aa11").await.unwrap();
    (harvest.job, everything(store, harvest.job).await)
}

async fn everything(store: &SqliteStore, job: DistillationId) -> Vec<String> {
    let record = store.distillation(job).await.unwrap();
    let mut texts = vec![
        format!("{:?}", store.rows(record.dataset, None, 0, BATCH_MAX).await.unwrap()),
        format!("{:?}", store.events(job, 0, BATCH_MAX).await.unwrap()),
        format!("{:?}", store.harvest_progress(job).await.unwrap()),
        format!("{:?}", store.ledger(job, &LedgerFilter::default(), BATCH_MAX).await.unwrap()),
        format!("{:?}", store.outbox(BATCH_MAX).await.unwrap()),
        format!("{:?}", store.run(record.run.unwrap()).await.unwrap()),
        format!("{:?}", store.find_model(NAME, None).await.unwrap().unwrap()),
        format!("{:?}", store.base_model("t5-small").await.unwrap().unwrap()),
        format!("{record:?}"),
    ];
    for state in PromptState::ALL {
        texts.push(format!("{:?}", store.prompts_in_state(job, *state, None, BATCH_MAX).await.unwrap()));
    }
    texts
}

#[tokio::test]
async fn everything_survives_a_reopening() {
    for closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let (job, before) = lived_in(&store).await;
        if closed {
            store.close().await;
        }
        drop(store);
        let store = SqliteStore::open(folder.path()).await.unwrap();
        assert_eq!(everything(&store, job).await, before, "closed: {closed}");
    }
}

/// The holders of leases ended with the lock on the folder.
#[tokio::test]
async fn leases_end_with_the_process_that_gave_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).await.unwrap();
    let waiting = harvest(&store, 1).await;
    let run = fixtures::training(&store, NAME).await.id;
    for (process, attempt) in [("first", 1), ("second", 2), ("third", 3)] {
        let jobs = store.claim_distillations(&fixtures::claim(process, fixtures::LONG, 10)).await.unwrap();
        assert_eq!(jobs.len(), 1, "{process}");
        let prompts = store.lease_prompts(&waiting.ids(), process, fixtures::LONG).await.unwrap();
        assert_eq!(prompts.leased[0].prompt.attempt, attempt, "fenced against the one before");
        let leased = store.lease_run(process, fixtures::LONG, fixtures::LOST_MAX).await.unwrap().unwrap().run;
        assert_eq!((leased.id, leased.fence), (run, u64::from(attempt)));
        drop(store);
        store = SqliteStore::open(folder.path()).await.unwrap();
    }
}

const HOUR_MS: i64 = 3_600_000;

/// A clock that the test sets.
fn clock() -> (Arc<AtomicI64>, Clock) {
    let now = Arc::new(AtomicI64::new(1_767_225_600_000));
    let clock = Arc::clone(&now);
    (now, Arc::new(move || clock.load(Ordering::SeqCst)))
}

/// Leases run out, and times of things go up, whatever the machine's clock does.
#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_lease() {
    let folder = tempfile::tempdir().unwrap();
    let (now, clock) = clock();
    let store = SqliteStore::open_with_clock(folder.path(), clock).await.unwrap();
    let harvest = harvest(&store, 1).await;
    let lease = Duration::from_secs(60);
    for attempt in 1..=4 {
        let outcome = store.lease_prompts(&harvest.ids(), "worker", lease).await.unwrap();
        assert_eq!(outcome.leased.len(), 1, "attempt {attempt}: {outcome:?}");
        let before = store.create_dataset(RequestId::generate(), "before").await.unwrap().created_at;
        now.fetch_sub(HOUR_MS, Ordering::SeqCst);
        let after = store.create_dataset(RequestId::generate(), "after").await.unwrap().created_at;
        assert!(after >= before, "{} and then {}", before.0, after.0);
        now.fetch_add(30_000, Ordering::SeqCst);
        let outcome = store.lease_prompts(&harvest.ids(), "another", lease).await.unwrap();
        assert_eq!(outcome.busy, harvest.ids(), "after half of the lease");
        now.fetch_add(31_000, Ordering::SeqCst);
    }
    // Where the clock is right again, its time is taken.
    now.fetch_add(100 * HOUR_MS, Ordering::SeqCst);
    let right = store.create_dataset(RequestId::generate(), "right").await.unwrap().created_at;
    assert_eq!(right.0, now.load(Ordering::SeqCst));
}

/// What was to be done at a time that lies ahead of a clock that was set back is done at the next start.
#[tokio::test]
async fn a_start_with_an_earlier_clock_waits_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (now, clock) = clock();
    let mut store = SqliteStore::open_with_clock(folder.path(), Arc::clone(&clock)).await.unwrap();
    let mut batched = spec(NAME);
    batched.teacher.as_mut().unwrap().batch = true;
    let planned = fixtures::harvest_of(&store, batched, vec![question(0, 0)]).await;
    let into = NewBatch { id: BatchId::generate(), distillation: planned.job, profile: 0, lines_max: 10 };
    store.fill_batch(&into, &planned.ids()).await.unwrap();
    store.seal_batches(planned.job).await.unwrap();
    let waiting = harvest(&store, 1).await;
    for process in ["first", "second", "third"] {
        let batches = store.claim_batches(process, fixtures::LONG, 10).await.unwrap();
        assert_eq!(batches.len(), 1, "{process}");
        store.postpone_batch(into.id, process, fixtures::LONG).await.unwrap();
        assert_eq!(store.claim_batches(process, fixtures::LONG, 10).await.unwrap(), []);
        let jobs = store.claim_distillations(&fixtures::claim(process, fixtures::LONG, 10)).await.unwrap();
        assert_eq!(jobs.len(), 2, "{process}");
        let prompts = store.lease_prompts(&waiting.ids(), process, fixtures::LONG).await.unwrap();
        assert_eq!(prompts.leased.len(), 1, "{process}");
        drop(store);
        now.fetch_sub(1_000 * HOUR_MS, Ordering::SeqCst);
        store = SqliteStore::open_with_clock(folder.path(), Arc::clone(&clock)).await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_store_is_whole_in_its_one_file() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let (job, before) = lived_in(&store).await;
    store.close().await;
    std::fs::copy(folder.path().join(DATABASE), copy.path().join(DATABASE)).unwrap();
    let copied = SqliteStore::open(copy.path()).await.unwrap();
    assert_eq!(everything(&copied, job).await, before);
    let late = store.create_dataset(RequestId::generate(), "late").await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "a closed store writes nothing: {late:?}");
}

/// Rows or prompts of one transaction of the process that is killed.
const CHUNK: u64 = 20;
/// The file that marks the working folder of the process that is killed: it writes nowhere else.
const MARK: &str = "write-here";
/// The requests that its rounds repeat, so that each continues where the one before was killed.
const REQUESTS: [&str; 3] = [
    "01890a5d-ac96-774b-bcce-b302099a8057",
    "01890a5d-ac96-774b-bcce-b302099a8058",
    "01890a5d-ac96-774b-bcce-b302099a8059",
];

/// A dataset that grows, and a job whose plan grows.
async fn growing(store: &SqliteStore) -> (DatasetId, DistillationId) {
    let [grows, stays, job] = REQUESTS.map(|request| request.parse::<RequestId>().unwrap());
    let grows = store.create_dataset(grows, "grows").await.unwrap().id;
    let dataset = store.create_dataset(stays, "stays").await.unwrap().id;
    if store.dataset(dataset).await.unwrap().rows == 0 {
        store.append_rows(dataset, 0, rows(1)).await.unwrap();
    }
    store.commit_dataset(dataset, "aa").await.unwrap();
    let new = NewDistillation {
        id: DistillationId::generate(),
        request: job,
        spec: spec(NAME),
        dataset,
        traceparent: String::new(),
    };
    (grows, store.create_distillation(new).await.unwrap().id)
}

#[tokio::test]
#[ignore = "the process that `a_kill_at_any_instant_leaves_whole_transactions` starts and kills"]
async fn a_process_that_writes_until_it_is_killed() {
    assert!(Path::new(MARK).exists(), "it is started by another test, in a folder of its own");
    let store = SqliteStore::open(Path::new(".")).await.unwrap();
    let (dataset, job) = growing(&store).await;
    // An end, should its parent die before it kills.
    for _round in 0..10_000 {
        let end = store.dataset(dataset).await.unwrap().rows;
        store.append_rows(dataset, end, (end..end + CHUNK).map(row).collect()).await.unwrap();
        println!("rows {}", end + CHUNK);
        let planned = store.harvest_progress(job).await.unwrap().total();
        let prompts = (planned..planned + CHUNK).map(|row| question(row, 0)).collect();
        store.plan_prompts(job, prompts).await.unwrap();
        println!("prompts {}", planned + CHUNK);
    }
}

/// Starts the process that writes; its lines come through the channel.
fn writer(folder: &Path) -> (Child, mpsc::Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    (child, receiver)
}

/// The last number that the process reported under `name`.
fn reported(lines: &[String], name: &str) -> u64 {
    let numbers = lines.iter().filter_map(|line| line.split_once(name)?.1.trim().parse().ok());
    numbers.max().unwrap_or(0)
}

#[tokio::test]
async fn a_kill_at_any_instant_leaves_whole_transactions() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(MARK), "").unwrap();
    let mut published = 0;
    for round in 0..8_u64 {
        let (mut child, receiver) = writer(folder.path());
        let mut lines = Vec::new();
        while lines.iter().filter(|line: &&String| line.contains("prompts ")).count() < 2 + round as usize {
            lines.push(receiver.recv_timeout(Duration::from_secs(30)).expect("the process writes"));
        }
        let error = refused(folder.path()).await;
        assert!(matches!(error, OpenError::InUse { .. }), "another process has it: {error:?}");
        // Somewhere in one of the next transactions.
        std::thread::sleep(Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.extend(receiver.iter());

        let store = SqliteStore::open(folder.path()).await.unwrap();
        let (dataset, job) = growing(&store).await;
        let end = store.dataset(dataset).await.unwrap().rows;
        assert!(end >= reported(&lines, "rows "), "a committed write is never lost: {end}, {lines:?}");
        assert_eq!(end % CHUNK, 0, "a transaction is whole or not there");
        let mut from = 0;
        while from < end {
            let page = store.rows(dataset, None, from, BATCH_MAX).await.unwrap();
            assert!(!page.is_empty(), "the dataset says {end} rows, and has {from}");
            for found in page {
                assert_eq!((found.index, found.example), (from, row(from)), "rows without holes");
                from += 1;
            }
        }
        let planned = store.harvest_progress(job).await.unwrap().total();
        assert!(planned >= reported(&lines, "prompts "), "{planned}, {lines:?}");
        assert_eq!(planned % CHUNK, 0);
        loop {
            let work = store.outbox(BATCH_MAX).await.unwrap();
            let outbox: Vec<_> = work.into_iter().map(|work| work.prompt).collect();
            if outbox.is_empty() {
                break;
            }
            published += outbox.len() as u64;
            store.mark_published(&outbox).await.unwrap();
        }
        assert_eq!(published, planned, "every prompt came with its outbox row");
    }
}
