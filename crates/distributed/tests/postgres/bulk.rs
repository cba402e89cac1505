//! Many writers of the same rows in different orders.

use crate::database::Database;
use conformance::fixtures::{
    NAME, answer, at_once, harvest_of, lease, question, reserve, same_question, spec,
};
use conformance::harness::{Store, StoreHarness};
use domain::ids::{DistillationId, PromptId};
use domain::ports::AttemptFailure;
use domain::records::{MetricPoint, NewPrompt, VerdictUpdate};
use domain::state::{PromptState, Verdict};
use sqlx::{Connection, PgConnection};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

const JOBS: usize = 3;
const ROWS: usize = 60;
const WORKERS: usize = 6;
const BEATERS: usize = 2;
const ROUNDS: usize = 12;

/// What the server counted of transactions that waited for each other. It counts when a connection ends.
async fn deadlocks(database: &Database) -> i64 {
    database.store.close().await;
    database.pool.close().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// Several jobs of so many prompts each, all asking the same questions. Ids grow as rows and places fall, so that an
/// order by id is not by chance that of an index or of the table.
async fn jobs(store: &dyn Store, count: usize, rows: usize) -> (Vec<DistillationId>, Vec<PromptId>) {
    let first: Vec<NewPrompt> = (0..rows as u64).rev().map(|row| question(row, 0)).collect();
    let (mut jobs, mut ids) = (Vec::new(), Vec::new());
    for job in 0..count {
        let mut prompts = match job {
            0 => first.clone(),
            _ => first.iter().map(|prompt| same_question(prompt, prompt.row)).collect(),
        };
        prompts.reverse();
        let harvest = harvest_of(store, spec(NAME), prompts).await;
        jobs.push(harvest.job);
        ids.extend(harvest.ids());
    }
    (jobs, ids)
}

/// The same prompts in an order of the worker's own, those of all jobs mixed.
fn shuffled(ids: &[PromptId], worker: usize, round: usize) -> Vec<PromptId> {
    let count = ids.len();
    let stride = [7, 11, 13, 17, 19, 23][worker % 6];
    let mut mixed: Vec<PromptId> = (0..count).map(|place| ids[(place * stride + round) % count]).collect();
    if worker % 2 == 1 {
        mixed.reverse();
    }
    mixed
}

/// Leases, keeps alive, fails and answers whatever it gets, in its own order.
async fn work(store: Arc<dyn Store>, ids: Vec<PromptId>, worker: usize, lease: Duration) {
    for round in 0..ROUNDS {
        for chunk in shuffled(&ids, worker, round).chunks(45) {
            let outcome = store.lease_prompts(chunk, &format!("worker-{worker}"), lease).await.unwrap();
            let mut leased = outcome.leased;
            leased.reverse();
            let beats: Vec<_> =
                leased.iter().map(|leased| (leased.prompt.id, leased.prompt.attempt)).collect();
            assert_eq!(store.heartbeat_prompts(&beats, lease).await.unwrap(), []);
            store.mark_published(chunk).await.unwrap();
            // Early rounds give half of it back; the last one answers everything.
            let failed = if round + 1 < ROUNDS { leased.split_off(leased.len() / 2) } else { Vec::new() };
            for leased in failed {
                let prompt = leased.prompt;
                store.record_failure(prompt.id, prompt.attempt, AttemptFailure::Delayed).await.unwrap();
            }
            reserve(store.as_ref(), &leased).await;
            let stale = store.record_harvest(leased.iter().map(answer).collect()).await.unwrap().stale;
            assert_eq!(stale, []);
        }
    }
}

/// Keeps alive what it may not even hold, as a worker does that knows nothing of a lost lease.
async fn beat(store: Arc<dyn Store>, ids: Vec<PromptId>, worker: usize, lease: Duration) {
    for round in 0..4 * ROUNDS {
        let beats: Vec<_> = shuffled(&ids, worker, round).into_iter().map(|id| (id, 1)).collect();
        store.heartbeat_prompts(&beats, lease).await.unwrap();
    }
}

/// Judges answered prompts of a job again and again, in turning orders.
async fn judge(store: Arc<dyn Store>, job: DistillationId) {
    for round in 0..2 * ROUNDS {
        let answered = store.prompts_in_state(job, PromptState::Answered, None, 1_000).await.unwrap();
        let mut verdicts: Vec<VerdictUpdate> = answered
            .iter()
            .map(|prompt| VerdictUpdate {
                prompt: prompt.id,
                verdict: Verdict::Accepted,
                reason: None,
                weight: 1.0,
            })
            .collect();
        if round % 2 == 1 {
            verdicts.reverse();
        }
        store.record_verdicts(job, verdicts).await.unwrap();
        store.resume(job).await.unwrap();
        store.harvest_progress(job).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bulk_writes_in_every_order_never_wait_for_each_other() {
    let database = Database::open().await;
    let store = database.store();
    let (jobs, ids) = jobs(store.as_ref(), JOBS, ROWS).await;
    at_once(WORKERS + JOBS + BEATERS, |task| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (store, ids, lease) = (database.store(), ids.clone(), database.lease());
        match task.checked_sub(WORKERS) {
            None => Box::pin(work(store, ids, task, lease)),
            Some(place) if place < JOBS => Box::pin(judge(store, jobs[place])),
            Some(place) => Box::pin(beat(store, ids, place, lease)),
        }
    })
    .await;
    // What a worker was refused while another had it is left for a last round.
    work(database.store(), ids.clone(), 0, database.lease()).await;
    let mut calls = 0;
    for job in &jobs {
        let progress = store.harvest_progress(*job).await.unwrap();
        assert_eq!(progress.in_state(PromptState::Answered), ROWS as u64, "{progress:?}");
        assert_eq!(progress.calls + progress.cache_hits, ROWS as u64, "each answer is counted once");
        assert_eq!(progress.calls_paid_twice, 0);
        calls += progress.calls;
    }
    assert_eq!(calls, ROWS as u64, "one question of three jobs is asked once");
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM calls").fetch_one(&database.pool).await.unwrap();
    assert_eq!(open, 0, "every call was ended");
    assert_eq!(deadlocks(&database).await, 0, "no transaction was aborted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_are_deleted_while_their_workers_write() {
    let database = Database::open().await;
    let store = database.store();
    let (jobs, ids) = jobs(store.as_ref(), 20, ROWS).await;
    let lease = database.lease();
    at_once(WORKERS + BEATERS + 1, |task| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (store, ids, jobs) = (database.store(), ids.clone(), jobs.clone());
        if task < WORKERS {
            return Box::pin(async move {
                for round in 0..2 {
                    for chunk in shuffled(&ids, task, round).chunks(30) {
                        let leased = store.lease_prompts(chunk, "worker", lease).await.unwrap().leased;
                        let beats: Vec<_> =
                            leased.iter().map(|leased| (leased.prompt.id, leased.prompt.attempt)).collect();
                        store.heartbeat_prompts(&beats, lease).await.unwrap();
                        store.mark_published(chunk).await.unwrap();
                        store.record_harvest(leased.iter().map(answer).collect()).await.unwrap();
                    }
                }
            });
        }
        if task < WORKERS + BEATERS {
            return Box::pin(beat(store, ids, task, lease));
        }
        Box::pin(async move {
            for job in &jobs[1..] {
                store.cancel(*job, "").await.unwrap();
                store.delete_distillation(*job).await.unwrap();
            }
        })
    })
    .await;
    let left = store.harvest_progress(jobs[0]).await.unwrap();
    assert_eq!(left.total(), ROWS as u64);
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn late_answers_to_the_same_questions_are_written_in_every_order() {
    let database = Database::open().await;
    let store = database.store();
    let rows = 400;
    for _round in 0..4 {
        let (_, ids) = jobs(store.as_ref(), JOBS, rows).await;
        let mut answers = Vec::new();
        for ids in ids.chunks(rows) {
            answers.push(lease(&database, ids).await.iter().map(answer).collect::<Vec<_>>());
            // This worker sends no heartbeat for a while, and the next job asks the same.
            database.outlive().await;
        }
        let written = at_once(JOBS, |job| {
            let store = database.store();
            let mut answers = answers[job].clone();
            answers.rotate_left(job * rows / JOBS);
            if job % 2 == 1 {
                answers.reverse();
            }
            async move { store.record_harvest(answers).await.unwrap().stored.len() }
        })
        .await;
        assert_eq!(written, [rows; JOBS]);
    }
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_reported_in_every_order_are_all_written() {
    let database = Database::open().await;
    let store = database.store();
    let run = conformance::fixtures::training(store.as_ref(), NAME).await.id;
    conformance::fixtures::lease_run(&database, "trainer").await;
    at_once(WORKERS, |task| {
        let (store, lease) = (database.store(), database.lease());
        async move {
            for _round in 0..4 {
                let mut points: Vec<MetricPoint> = (0..300)
                    .map(|step| MetricPoint { step, name: "loss_label".to_owned(), value: task as f64 })
                    .collect();
                // Twice in one report, and in both directions.
                points.extend(points.clone());
                if task % 2 == 1 {
                    points.reverse();
                }
                store.report_run(run, 1, 300, points, lease).await.unwrap();
            }
        }
    })
    .await;
    let curve = store.metrics(run, None, 1_000).await.unwrap();
    assert!(curve.iter().map(|point| point.step).eq(0..300), "{} points", curve.len());
    assert_eq!(deadlocks(&database).await, 0);
}
