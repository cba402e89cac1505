//! Many writers of the same rows in different orders.

use crate::database::Database;
use conformance::fixtures::{NAME, answer, at_once, harvest_of, question, same_question, spec};
use conformance::store::StoreHarness;
use domain::Store;
use domain::ids::{DistillationId, PromptId};
use domain::records::{MetricPoint, NewPrompt, VerdictUpdate};
use domain::state::{PromptState, Verdict};
use domain::store::AttemptFailure;
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;

const JOBS: usize = 3;
const ROWS: usize = 60;
const WORKERS: usize = 6;
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

/// Prompts of several jobs, many of which ask the same question.
async fn jobs(store: &dyn Store) -> (Vec<DistillationId>, Vec<PromptId>) {
    let first: Vec<NewPrompt> = (0..ROWS as u64).map(|row| question(row, 0)).collect();
    let (mut jobs, mut ids) = (Vec::new(), Vec::new());
    for job in 0..JOBS {
        let prompts = match job {
            0 => first.clone(),
            _ => first.iter().map(|prompt| same_question(prompt, prompt.row)).collect(),
        };
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
            let stale = store.record_harvest(leased.iter().map(answer).collect()).await.unwrap().stale;
            assert_eq!(stale, []);
        }
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
    let (jobs, ids) = jobs(store.as_ref()).await;
    at_once(WORKERS + JOBS, |task| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let store = database.store();
        match task.checked_sub(WORKERS) {
            None => Box::pin(work(store, ids.clone(), task, database.lease())),
            Some(place) => Box::pin(judge(store, jobs[place])),
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
    let reserved: Vec<(i64, i64)> =
        sqlx::query_as("SELECT prompts_reserved, tokens_reserved FROM distillations")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    assert_eq!(reserved, [(0, 0); JOBS], "every reservation came back");
    assert_eq!(deadlocks(&database).await, 0, "nobody had to be sacrificed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_are_deleted_while_their_workers_write() {
    let database = Database::open().await;
    let store = database.store();
    let (jobs, ids) = jobs(store.as_ref()).await;
    let lease = database.lease();
    at_once(WORKERS + 1, |task| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let (store, ids, jobs) = (database.store(), ids.clone(), jobs.clone());
        if task < WORKERS {
            return Box::pin(async move {
                for round in 0..ROUNDS / 2 {
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
        Box::pin(async move {
            for job in &jobs[1..] {
                tokio::time::sleep(Duration::from_millis(30)).await;
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
