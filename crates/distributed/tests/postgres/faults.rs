//! What goes wrong with a server, and what a teacher can say.

use crate::database::Database;
use conformance::fixtures::{
    NAME, answer, claim, dataset, harvest, invalid, job_in, lease, lease_one, lease_run, rows, spec, student,
    training,
};
use conformance::harness::StoreHarness;
use distributed::{PostgresSettings, PostgresStore};
use domain::event::EventKind;
use domain::ids::{DistillationId, RequestId};
use domain::metric::Accuracy;
use domain::ports::{AttemptFailure, LedgerFilter, StoreError};
use domain::state::{DistillationState, PromptState};
use domain::{DatasetStore, Example, Fault, JobStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::postgres::Postgres;

/// No fault of a server takes longer to be over.
const OVER_MAX: Duration = Duration::from_secs(20);

fn measured() -> EventKind {
    EventKind::TeacherMeasured { accuracy: Accuracy::measure(4, 3, 4) }
}

/// Calls until the server is back; anything but `Unavailable` before that fails the test.
async fn until_available<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let began = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(StoreError::Unavailable(_)) if began.elapsed() < OVER_MAX => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server of the test's own, a store on it that gives up soon, and a job that harvests.
async fn alone() -> (Postgres, Arc<PostgresStore>, DistillationId) {
    let server = Postgres::start().unwrap();
    PostgresStore::migrate(&server.url()).await.unwrap();
    let settings =
        PostgresSettings { connect_max: Duration::from_millis(300), ..PostgresSettings::default() };
    let store = Arc::new(PostgresStore::open(&server.url(), settings).await.unwrap());
    let job = harvest(store.as_ref(), 3).await.job;
    (server, store, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_calls_are_unavailable_and_then_go_on() {
    let (server, store, job) = alone().await;
    let before = store.distillation(job).await.unwrap();
    for crash in [true, false] {
        if crash {
            server.kill().unwrap()
        } else {
            server.stop().unwrap()
        }
        for _call in 0..2 {
            let began = Instant::now();
            let read = store.distillation(job).await.unwrap_err();
            let written = store.append_event(job, measured()).await.unwrap_err();
            assert_eq!((read.fault(), written.fault()), (Fault::Unavailable, Fault::Unavailable));
            assert!(began.elapsed() < OVER_MAX, "a call ends, whatever the server does");
        }
        server.restart().unwrap();
        let after = until_available(|| store.distillation(job)).await;
        assert_eq!(after, before, "what was committed is there");
        until_available(|| store.append_event(job, measured())).await;
    }
    assert_eq!(store.events(job, 0, 10).await.unwrap().len(), 4, "two at first, and one after each fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_writes_leaves_no_hole_and_loses_nothing() {
    let (server, store, job) = alone().await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while acknowledged.len() < 30 {
                    acknowledged.push(until_available(|| store.append_event(job, measured())).await);
                }
                acknowledged
            })
        })
        .collect();
    for _crash in 0..2 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        server.kill().unwrap();
        server.restart().unwrap();
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    acknowledged.sort_unstable();
    acknowledged.dedup();
    assert_eq!(acknowledged.len(), 120, "no number is given twice");
    let events = store.events(job, 0, 1_000).await.unwrap();
    let written: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(written.iter().copied().eq(1..=written.len() as u64), "{written:?}");
    assert!(acknowledged.iter().all(|number| written.contains(number)), "what was acknowledged is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_released_ends_in_unavailable() {
    let database = Database::open().await;
    let lock_max = Duration::from_millis(200);
    let settings = PostgresSettings { lock_max, ..PostgresSettings::default() };
    let store = PostgresStore::open(database.url(), settings).await.unwrap();
    let job = job_in(&database, DistillationState::Harvesting).await;
    let mut holder = database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM distillations FOR UPDATE").execute(&mut *holder).await.unwrap();
    let error = store.append_event(job, measured()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unavailable, "{error}");
    assert!(error.to_string().contains("lock timeout"), "{error}");
    assert_eq!(store.distillation(job).await.unwrap().id, job, "reading waits for no lock");
    holder.rollback().await.unwrap();
    assert_eq!(store.append_event(job, measured()).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_ends_in_unavailable() {
    let database = Database::open().await;
    let job = job_in(&database, DistillationState::Harvesting).await;
    meddle(&database, "PERFORM pg_sleep(3);").await;
    for settings in [
        PostgresSettings { statement_max: Duration::from_millis(200), ..PostgresSettings::default() },
        PostgresSettings { call_max: Duration::from_millis(200), ..PostgresSettings::default() },
    ] {
        let store = PostgresStore::open(database.url(), settings.clone()).await.unwrap();
        let began = Instant::now();
        let error = store.append_event(job, measured()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unavailable, "{settings:?}: {error}");
        assert!(began.elapsed() < OVER_MAX, "{settings:?}: {:?}", began.elapsed());
    }
    assert!(tries(&database).await >= 2, "both came to the statement");
    assert_eq!(database.store().append_event(job, measured()).await.unwrap(), 3, "nothing was written");
}

/// Has every new event do `body` first, which counts itself in the sequence `tries`.
async fn meddle(database: &Database, body: &str) {
    database
        .execute(&format!(
            "CREATE SEQUENCE IF NOT EXISTS tries;
             CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql
                 AS $$ DECLARE try bigint := nextval('tries'); BEGIN {body} RETURN NEW; END $$;
             CREATE OR REPLACE TRIGGER meddling BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION meddle();"
        ))
        .await;
}

/// Ends the meddling and returns how often it happened.
async fn tries(database: &Database) -> i64 {
    let tries = sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&database.pool).await.unwrap();
    database.execute("DROP TRIGGER meddling ON events; DROP FUNCTION meddle; DROP SEQUENCE tries").await;
    tries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_collided_is_tried_again_and_not_for_ever() {
    let database = Database::open().await;
    let store = database.store();
    let job = job_in(&database, DistillationState::Harvesting).await;
    for code in ["40001", "40P01"] {
        let events = store.events(job, 0, 100).await.unwrap().len() as u64;
        meddle(&database, &format!("IF try < 4 THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF;"))
            .await;
        assert_eq!(store.append_event(job, measured()).await.unwrap(), events + 1, "{code}");
        assert_eq!(tries(&database).await, 4, "{code}");
        assert_eq!(store.events(job, 0, 100).await.unwrap().len() as u64, events + 1, "once");
        meddle(&database, &format!("RAISE EXCEPTION USING ERRCODE = '{code}';")).await;
        let error = store.append_event(job, measured()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unavailable, "{code}: {error}");
        assert!((3..20).contains(&tries(&database).await), "a bounded number of tries");
    }
    meddle(&database, "RAISE EXCEPTION 'this is damage';").await;
    let error = store.append_event(job, measured()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Internal, "{error}");
    assert_eq!(tries(&database).await, 1, "damage does not go away");
}

/// Text that Postgres refuses, and as it is kept.
const GARBAGE: &str = "one\0two\0\u{1}\u{1F980}";
const KEPT: &str = "one\u{FFFD}two\u{FFFD}\u{1}\u{1F980}";

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_a_teacher_is_an_answer_like_any_other() {
    let database = Database::open().await;
    let store = database.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let leased = store.lease_prompts(&harvest.ids(), GARBAGE, database.lease()).await.unwrap().leased;
    let failure = AttemptFailure::Teacher { error: GARBAGE.to_owned(), failures_max: 1 };
    let state = store.record_failure(leased[1].prompt.id, 1, failure).await.unwrap();
    assert_eq!(state, PromptState::Parked);
    assert_eq!(store.prompt(leased[1].prompt.id).await.unwrap().error, KEPT);
    let mut answered = answer(&leased[0]);
    answered.completion.text = GARBAGE.to_owned();
    answered.completion.model = GARBAGE.to_owned();
    answered.parsed.rationale = GARBAGE.to_owned();
    answered.parsed.label = Some(GARBAGE.to_owned());
    let stored = store.record_harvest(vec![answered]).await.unwrap().stored;
    assert_eq!(stored, [leased[0].prompt.id], "it wedges nothing");
    let entry = store.ledger(harvest.job, &LedgerFilter::default(), 1).await.unwrap().remove(0);
    assert_eq!((entry.completion.as_str(), entry.model.as_str()), (KEPT, KEPT));
    assert_eq!((entry.parsed.rationale.as_str(), entry.parsed.label.as_deref()), (KEPT, Some(KEPT)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_may_hold_what_postgres_refuses() {
    let database = Database::open().await;
    let store = database.store();
    let whole = Example {
        key: Some(GARBAGE.to_owned()),
        input: GARBAGE.to_owned(),
        label: Some(GARBAGE.to_owned()),
        ..Example::default()
    };
    let staged = store.create_dataset(RequestId::generate(), GARBAGE).await.unwrap();
    assert_eq!(staged.name, KEPT);
    store.append_rows(staged.id, 0, vec![whole.clone()]).await.unwrap();
    invalid(store.append_rows(staged.id, 1, vec![whole.clone()]).await);
    store.commit_dataset(staged.id, GARBAGE).await.unwrap();
    assert_eq!(store.find_dataset(GARBAGE).await.unwrap().map(|found| found.id), Some(staged.id));
    assert!(store.find_dataset_by_fingerprint(GARBAGE).await.unwrap().is_some());
    let kept = store.rows(staged.id, None, 0, 1).await.unwrap().remove(0);
    assert_eq!(kept.example, whole, "a row is kept to the letter");
    let job = job_in(&database, DistillationState::Harvesting).await;
    assert_eq!(store.pause(job, GARBAGE).await.unwrap().reason, KEPT);
    let told = store.events(job, 2, 1).await.unwrap().remove(0).kind;
    let EventKind::StateChanged { reason, .. } = told else { panic!("{told:?}") };
    assert_eq!(reason, GARBAGE, "an event is kept to the letter");
    assert_eq!(store.claim_distillations(&claim(GARBAGE, database.lease(), 9)).await.unwrap(), []);
    let run = training(store.as_ref(), NAME).await.id;
    assert_eq!(lease_run(&database, GARBAGE).await.run.trainer, KEPT);
    store.save_resume_point(run, 1, 1, GARBAGE).await.unwrap();
    let point = domain::records::MetricPoint { step: 1, name: GARBAGE.to_owned(), value: 0.5 };
    store.report_run(run, 1, 1, vec![point], database.lease()).await.unwrap();
    assert_eq!(store.metrics(run, Some(GARBAGE), 9).await.unwrap().len(), 1);
    let new = domain::run::RunResult { path: GARBAGE.to_owned(), ..student(run) };
    assert_eq!(store.publish_run(run, 1, new, Default::default()).await.unwrap().unwrap().path, KEPT);
    assert_eq!(store.find_model(GARBAGE, None).await.unwrap(), None);
    assert_eq!(store.register_base_model(GARBAGE, "aa").await.unwrap().name, KEPT);
    assert!(store.base_model(GARBAGE).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_a_deleted_model_is_not_given_again() {
    let database = Database::open().await;
    let store = database.store();
    for version in 1..=3 {
        let run = training(store.as_ref(), NAME).await.id;
        lease_run(&database, "trainer").await;
        let model = store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap();
        assert_eq!(model.version, version);
        store.delete_model(model.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_takes_longer_than_other_statements_may() {
    let database = Database::open().await;
    let job = job_in(&database, DistillationState::Paused).await;
    let unread = dataset(database.store().as_ref(), rows(1)).await.id;
    let settings = PostgresSettings { statement_max: Duration::from_secs(1), ..PostgresSettings::default() };
    let store = PostgresStore::open(database.url(), settings).await.unwrap();
    database
        .execute(
            "CREATE OR REPLACE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN OLD; END $$;
             CREATE TRIGGER lingering BEFORE DELETE ON events FOR EACH STATEMENT EXECUTE FUNCTION linger();
             CREATE TRIGGER lingering BEFORE DELETE ON examples FOR EACH STATEMENT EXECUTE FUNCTION linger();",
        )
        .await;
    store.delete_distillation(job).await.unwrap();
    store.delete_dataset(unread).await.unwrap();
    database.execute("DROP FUNCTION linger CASCADE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_passes_over_no_job_whose_workers_are_busy() {
    let database = Database::open().await;
    let store = database.store();
    let harvest = harvest(store.as_ref(), 1).await;
    lease_one(&database, harvest.prompts[0].id).await;
    let mut worker = database.pool.begin().await.unwrap();
    sqlx::query("UPDATE distillations SET calls = calls").execute(&mut *worker).await.unwrap();
    let claimed = store.claim_distillations(&claim("driver", database.lease(), 9)).await.unwrap();
    assert_eq!(claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [harvest.job]);
    worker.rollback().await.unwrap();
    assert_eq!(spec(NAME), claimed[0].job.spec);
    assert_eq!(lease(&database, &[]).await, []);
}
