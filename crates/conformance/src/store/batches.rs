//! Batches: calls that are made together, and live as long as their batch does.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    MONEY_RESERVED, MONEY_USED, TOKENS_RESERVED, USAGE, answer, at_once, completion, harvest_of, question,
    same_question, spec, spec_within,
};
use crate::harness::{Store, StoreHarness};
use domain::Spec;
use domain::budget::{Amount, CallEnd};
use domain::ids::{BatchId, CallId, DistillationId, PromptId};
use domain::ports::{AttemptFailure, BatchFill, BatchLine, LineEnd, NewBatch};
use domain::records::{Batch, Harvested, LeasedPrompt, NewPrompt};
use domain::spec::Budget;
use domain::state::{BatchState, PromptState};
use std::collections::BTreeSet;
use std::time::Duration;

const WORKER: &str = "worker";

fn batched(mut spec: Spec) -> Spec {
    spec.teacher.as_mut().unwrap().batch = true;
    spec
}

fn questions(rows: u64) -> Vec<NewPrompt> {
    (0..rows).map(|row| question(row, 0)).collect()
}

fn into(distillation: DistillationId, lines_max: u64) -> NewBatch {
    NewBatch { id: BatchId::generate(), distillation, profile: 0, lines_max }
}

async fn fill(store: &dyn Store, job: DistillationId, prompts: &[PromptId]) -> BatchFill {
    store.fill_batch(&into(job, 1_000), prompts).await.unwrap()
}

/// A job with so many prompts in one sealed batch.
async fn sealed(store: &dyn Store, rows: u64) -> (DistillationId, Vec<PromptId>, BatchId) {
    let harvest = harvest_of(store, batched(spec("batched")), questions(rows)).await;
    let filled = fill(store, harvest.job, &harvest.ids()).await;
    assert_eq!(filled.taken as u64, rows);
    store.seal_batches(harvest.job).await.unwrap();
    (harvest.job, harvest.ids(), filled.batch.unwrap().id)
}

async fn batch(store: &dyn Store, job: DistillationId, id: BatchId) -> Batch {
    store.batches(job).await.unwrap().into_iter().find(|batch| batch.id == id).unwrap()
}

async fn lines(store: &dyn Store, batch: BatchId) -> Vec<BatchLine> {
    store.batch_lines(batch, None, 1_000).await.unwrap()
}

fn failed(line: &BatchLine, end: CallEnd, failure: AttemptFailure) -> LineEnd {
    LineEnd { call: line.call, end, prompt: line.prompt.id, attempt: line.prompt.attempt, failure }
}

/// What a line brought.
fn answered(line: &BatchLine) -> Harvested {
    let leased = LeasedPrompt { prompt: line.prompt.clone(), example: line.example.clone(), cached: None };
    Harvested { calls: vec![(line.call, CallEnd::Charged(USAGE))], ..answer(&leased) }
}

fn bounds(calls: u64) -> Amount {
    Amount { calls, tokens: calls * TOKENS_RESERVED, money_micros: calls * MONEY_RESERVED }
}

pub async fn a_line_is_a_call_that_lives_as_long_as_its_batch(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, prompts, id) = sealed(store.as_ref(), 4).await;
    for _ in 0..3 {
        let progress = store.harvest_progress(job).await.unwrap();
        assert_eq!((progress.open, progress.in_doubt), (bounds(4), Amount::default()));
        assert_eq!(progress.in_state(PromptState::Leased), 4);
        harness.outlive().await;
    }
    assert_eq!(store.unfinished_prompts(None, 10).await.unwrap(), []);
    let lines = lines(store.as_ref(), id).await;
    let asked: Vec<PromptId> = lines.iter().map(|line| line.prompt.id).collect();
    assert_eq!(asked, prompts, "in order");
    assert!(lines.iter().all(|line| line.example.input.contains(&line.prompt.row.to_string())));
    let outcome = store.record_harvest(lines.iter().map(answered).collect()).await.unwrap();
    assert_eq!(outcome.stored, prompts);
    store.end_batch(id, "").await.unwrap();
    let progress = store.harvest_progress(job).await.unwrap();
    assert_eq!((progress.calls, progress.money_micros), (4, 4 * MONEY_USED));
    assert_eq!((progress.open, progress.in_doubt), Default::default());
    assert_eq!(progress.calls_paid_twice, 0);
}

pub async fn what_is_asked_in_batches_is_no_workers(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest_of(store.as_ref(), batched(spec("batched")), questions(2)).await;
    assert_eq!(store.outbox(10).await.unwrap(), []);
    assert_eq!(store.unfinished_prompts(None, 10).await.unwrap(), []);
    let outcome = store.lease_prompts(&harvest.ids(), WORKER, harness.lease()).await.unwrap();
    assert_eq!(outcome.settled, harvest.ids());
    // Nor is the other way round.
    let plain = harvest_of(store.as_ref(), spec("plain"), questions(2)).await;
    let filled = fill(store.as_ref(), plain.job, &plain.ids()).await;
    assert_eq!((filled.batch, filled.taken), (None, 0));
    let outcome = store.lease_prompts(&plain.ids(), WORKER, harness.lease()).await.unwrap();
    assert_eq!(outcome.leased.len(), 2);
}

pub async fn an_answered_question_is_no_line(harness: &dyn StoreHarness) {
    let store = harness.store();
    let known = question(1, 0);
    store.keep_completions(vec![completion(known.key, "The answer is (1 + 1).")]).await.unwrap();
    let prompts = vec![question(0, 0), known, question(2, 0)];
    let harvest = harvest_of(store.as_ref(), batched(spec("batched")), prompts).await;
    let [first, second, third] = harvest.ids()[..] else { panic!("three prompts") };
    let filled = fill(store.as_ref(), harvest.job, &harvest.ids()).await;
    assert_eq!((filled.taken, &filled.answered), (2, &vec![second]));
    let asked: Vec<PromptId> =
        lines(store.as_ref(), filled.batch.unwrap().id).await.iter().map(|line| line.prompt.id).collect();
    assert_eq!(asked, [first, third]);
    let outcome = store.lease_prompts(&[second], WORKER, harness.lease()).await.unwrap();
    assert!(outcome.leased.iter().all(|leased| leased.cached.is_some()) && outcome.leased.len() == 1);
    store.record_harvest(outcome.leased.iter().map(answer).collect()).await.unwrap();
    assert_eq!(store.harvest_progress(harvest.job).await.unwrap().cache_hits, 1);
}

pub async fn one_question_is_one_line_of_all_jobs(harness: &dyn StoreHarness) {
    let store = harness.store();
    let asked = question(0, 0);
    let first = harvest_of(store.as_ref(), batched(spec("first")), vec![asked.clone()]).await;
    assert_eq!(fill(store.as_ref(), first.job, &first.ids()).await.taken, 1);
    let other = vec![same_question(&asked, 0), question(1, 0)];
    let second = harvest_of(store.as_ref(), batched(spec("second")), other).await;
    let filled = fill(store.as_ref(), second.job, &second.ids()).await;
    assert_eq!((filled.taken, filled.answered.len()), (1, 0));
    assert_eq!(store.prompt(second.ids()[0]).await.unwrap().state, PromptState::Pending);
}

pub async fn a_batch_is_filled_up_to_its_lines(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest_of(store.as_ref(), batched(spec("batched")), questions(5)).await;
    let fill = async |prompts: &[PromptId]| store.fill_batch(&into(harvest.job, 3), prompts).await.unwrap();
    let first = fill(&harvest.ids()[..2]).await;
    let again = fill(&harvest.ids()[2..]).await;
    assert_eq!((first.taken, again.taken, again.left.as_slice()), (2, 1, &harvest.ids()[3..]));
    let prepared = again.batch.unwrap();
    assert_eq!(
        (prepared.id, prepared.lines, prepared.state),
        (first.batch.unwrap().id, 3, BatchState::Preparing)
    );
    assert_eq!(fill(&harvest.ids()[3..]).await.left, harvest.ids()[3..]);
    assert_eq!(store.claim_batches(WORKER, harness.lease(), 10).await.unwrap(), [], "it is not sealed");
    store.seal_batches(harvest.job).await.unwrap();
    let second = fill(&harvest.ids()[3..]).await.batch.unwrap();
    assert!(second.id != prepared.id && second.lines == 2);
    // What is in a batch goes into no other.
    let nothing = fill(&harvest.ids()).await;
    assert_eq!(nothing.taken, 0);
    store.seal_batches(harvest.job).await.unwrap();
    assert_eq!(store.batches(harvest.job).await.unwrap().len(), 2);
}

pub async fn a_batch_is_filled_within_the_budget(harness: &dyn StoreHarness) {
    let store = harness.store();
    for (budget, expected) in [
        (Budget { prompts: Some(3), ..Budget::default() }, 3),
        (Budget { tokens: Some(2 * TOKENS_RESERVED + 1), ..Budget::default() }, 2),
        (Budget { money_micros: Some(4 * MONEY_RESERVED), ..Budget::default() }, 4),
        (Budget { prompts: Some(0), ..Budget::default() }, 0),
    ] {
        let harvest = harvest_of(store.as_ref(), batched(spec_within(budget)), questions(5)).await;
        let filled = fill(store.as_ref(), harvest.job, &harvest.ids()).await;
        assert_eq!(filled.taken, expected, "{budget:?}");
        assert_eq!(filled.batch.is_some(), expected > 0, "{budget:?}");
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!(progress.open, bounds(expected as u64), "{budget:?}");
        // What is out may give some back; where nothing is, the rest is skipped.
        let left = if expected > 0 { PromptState::Pending } else { PromptState::Skipped };
        assert_eq!(progress.in_state(left), 5 - expected as u64, "{budget:?}");
        assert_eq!(filled.out_of_budget, if expected > 0 { 0 } else { 5 }, "{budget:?}");
    }
}

pub async fn a_batch_has_one_worker(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, _, id) = sealed(store.as_ref(), 1).await;
    let claim = async |worker: &str| {
        let claimed = store.claim_batches(worker, harness.lease(), 10).await.unwrap();
        claimed.into_iter().map(|batch| batch.id).collect::<Vec<BatchId>>()
    };
    assert_eq!(claim("first").await, [id]);
    assert_eq!(claim("first").await, [], "a process works on it once");
    assert_eq!(claim("second").await, []);
    assert!(store.renew_batch(id, "first", 2 * harness.lease()).await.unwrap());
    assert!(!store.renew_batch(id, "second", harness.lease()).await.unwrap());
    harness.outlive().await;
    assert_eq!(claim("second").await, []);
    harness.outlive().await;
    assert_eq!(claim("second").await, [id]);
    store.postpone_batch(id, "first", Duration::ZERO).await.unwrap();
    assert_eq!(claim("first").await, [], "the lease was lost");
    store.postpone_batch(id, "second", 2 * harness.lease()).await.unwrap();
    assert_eq!(claim("first").await, []);
    harness.outlive().await;
    harness.outlive().await;
    assert_eq!(claim("first").await, [id]);
    store.end_batch(id, "").await.unwrap();
    harness.outlive().await;
    assert_eq!(claim("first").await, []);
    assert_eq!(batch(store.as_ref(), job, id).await.state, BatchState::Ended);
}

pub async fn many_workers_share_no_batch(harness: &dyn StoreHarness) {
    let store = harness.store();
    for _ in 0..6 {
        sealed(store.as_ref(), 1).await;
    }
    let lease = harness.lease();
    let claimed = at_once(8, |index| {
        let store = harness.store();
        async move { store.claim_batches(&format!("worker {index}"), lease, 2).await.unwrap() }
    })
    .await;
    let ids: Vec<BatchId> = claimed.into_iter().flatten().map(|batch| batch.id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

pub async fn a_batch_is_submitted_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, _, id) = sealed(store.as_ref(), 1).await;
    let begun = at_once(6, |_| {
        let store = harness.store();
        async move { store.begin_submission(id, 0).await.unwrap() }
    })
    .await;
    assert_eq!(begun.iter().filter(|begun| **begun).count(), 1);
    harness.advance(Duration::from_millis(1_500)).await;
    let found = batch(store.as_ref(), job, id).await;
    assert_eq!((found.state, found.submission), (BatchState::Submitting, 0));
    assert!(found.in_state_ms >= 1_500, "{found:?}");
    store.record_submission(id, 1, "of another submission").await.unwrap();
    assert_eq!(batch(store.as_ref(), job, id).await.state, BatchState::Submitting);
    store.record_submission(id, 0, "batch_1").await.unwrap();
    let found = batch(store.as_ref(), job, id).await;
    assert_eq!((found.state, found.name.as_str()), (BatchState::Submitted, "batch_1"));
    assert!(!store.begin_submission(id, 0).await.unwrap());
    store.reset_submission(id, 0, Duration::ZERO).await.unwrap();
    store.reset_submission(id, 0, Duration::ZERO).await.unwrap();
    let found = batch(store.as_ref(), job, id).await;
    assert_eq!((found.state, found.submission, found.name.as_str()), (BatchState::Ready, 1, ""));
    assert!(!store.begin_submission(id, 0).await.unwrap());
    assert!(store.begin_submission(id, 1).await.unwrap());
}

pub async fn lines_are_found_and_paged(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (_, _, id) = sealed(store.as_ref(), 7).await;
    let (_, _, other) = sealed(store.as_ref(), 2).await;
    let all = lines(store.as_ref(), id).await;
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = store.batch_lines(id, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3);
        after = Some(last.call);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let foreign = lines(store.as_ref(), other).await[0].call;
    let wanted = [all[5].call, all[1].call, foreign, CallId::generate(), all[1].call];
    let found = store.find_lines(id, &wanted).await.unwrap();
    assert_eq!(found, [all[1].clone(), all[5].clone()]);
    store.record_harvest(vec![answered(&all[1])]).await.unwrap();
    assert_eq!(store.find_lines(id, &wanted).await.unwrap(), [all[5].clone()], "it is settled");
    assert_eq!(store.find_lines(id, &[]).await.unwrap(), []);
    assert_eq!(lines(store.as_ref(), id).await.len(), 6);
}

pub async fn a_line_without_an_answer_gives_its_prompt_back(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, prompts, id) = sealed(store.as_ref(), 4).await;
    let all = lines(store.as_ref(), id).await;
    let counted = |failures_max| AttemptFailure::Teacher { error: "no line".to_owned(), failures_max };
    let ended = [
        failed(&all[0], CallEnd::Refused, AttemptFailure::Delayed),
        failed(&all[1], CallEnd::Failed, counted(2)),
        failed(&all[2], CallEnd::Charged(USAGE), counted(1)),
        failed(&all[3], CallEnd::InDoubt, AttemptFailure::Delayed),
    ];
    for _ in 0..2 {
        store.end_lines(&ended).await.unwrap();
        let progress = store.harvest_progress(job).await.unwrap();
        assert_eq!((progress.calls, progress.money_micros), (2, MONEY_USED));
        assert_eq!((progress.open, progress.in_doubt), (Amount::default(), bounds(1)));
    }
    for (prompt, state, failures) in [
        (prompts[0], PromptState::Pending, 0),
        (prompts[1], PromptState::Pending, 1),
        (prompts[2], PromptState::Parked, 1),
        (prompts[3], PromptState::Pending, 0),
    ] {
        let found = store.prompt(prompt).await.unwrap();
        assert_eq!((found.state, found.failures), (state, failures), "{prompt}");
    }
    store.end_lines(&[]).await.unwrap();
    // They go into the next batch, under a new attempt: a late answer of the old one changes nothing.
    let filled = fill(store.as_ref(), job, &prompts).await;
    assert_eq!(filled.taken, 3);
    let late = store.record_harvest(vec![answered(&all[0])]).await.unwrap();
    assert_eq!(late.stale, [prompts[0]]);
}

pub async fn a_batch_that_is_too_long_is_split(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, _, id) = sealed(store.as_ref(), 5).await;
    let all = lines(store.as_ref(), id).await;
    let rest = BatchId::generate();
    store.split_batch(id, all[2].call, rest).await.unwrap();
    assert_eq!(lines(store.as_ref(), id).await, all[..2]);
    assert_eq!(lines(store.as_ref(), rest).await, all[2..]);
    let counts: BTreeSet<(BatchId, u64, BatchState)> = store
        .batches(job)
        .await
        .unwrap()
        .into_iter()
        .map(|batch| (batch.id, batch.lines, batch.state))
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    assert!(counts.contains(&(id, 2, BatchState::Ready)) && counts.contains(&(rest, 3, BatchState::Ready)));
    assert_eq!(store.harvest_progress(job).await.unwrap().open, bounds(5));
    // One that is being submitted stays whole.
    assert!(store.begin_submission(id, 0).await.unwrap());
    store.split_batch(id, all[1].call, BatchId::generate()).await.unwrap();
    assert_eq!(lines(store.as_ref(), id).await, all[..2]);
}

pub async fn lines_that_are_open_at_the_end_are_in_doubt(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, prompts, id) = sealed(store.as_ref(), 3).await;
    let all = lines(store.as_ref(), id).await;
    store.record_harvest(vec![answered(&all[0])]).await.unwrap();
    for _ in 0..2 {
        store.end_batch(id, "nobody knows it").await.unwrap();
        let progress = store.harvest_progress(job).await.unwrap();
        assert_eq!((progress.open, progress.in_doubt), (Amount::default(), bounds(2)));
    }
    assert_eq!(batch(store.as_ref(), job, id).await.note, "nobody knows it");
    assert_eq!(store.prompt(prompts[0]).await.unwrap().state, PromptState::Answered);
    assert_eq!(store.prompt(prompts[1]).await.unwrap().state, PromptState::Pending);
    // An end that comes late takes the doubt away.
    store.end_calls(&[(all[1].call, CallEnd::Refused)]).await.unwrap();
    assert_eq!(store.harvest_progress(job).await.unwrap().in_doubt, bounds(1));
}

pub async fn a_job_that_stops_keeps_its_batches_until_it_is_deleted(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, _, id) = sealed(store.as_ref(), 2).await;
    store.cancel(job, "not wanted").await.unwrap();
    assert_eq!(store.claim_batches(WORKER, harness.lease(), 10).await.unwrap().len(), 1, "it is collected");
    let all = lines(store.as_ref(), id).await;
    let outcome = store.record_harvest(all.iter().map(answered).collect()).await.unwrap();
    assert_eq!(outcome.stored.len(), 2, "what was paid for is kept");
    store.delete_distillation(job).await.unwrap();
    assert_eq!(store.batches(job).await.unwrap(), []);
    assert_eq!(lines(store.as_ref(), id).await, []);
    let nothing =
        fill(store.as_ref(), harvest_of(store.as_ref(), batched(spec("other")), vec![]).await.job, &[]).await;
    assert_eq!(nothing.batch, None);
}
