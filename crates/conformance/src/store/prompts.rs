//! Prompts: published, leased, fenced, answered, failed.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    LONG, NAME, TOKENS_USED, answer, answer_all, completion, dataset, harvest, harvest_of, invalid, job_in,
    lease, lease_one, lease_run, new_job, not_found, prompts_of, question, row, rows, same_question, spec,
    student,
};
use crate::harness::StoreHarness;
use domain::Example;
use domain::completion::FinishReason;
use domain::ids::{DistillationId, PromptId};
use domain::ports::QueuedPrompt;
use domain::ports::{AttemptFailure, BATCH_MAX, HarvestOutcome, LeaseOutcome};
use domain::records::{Completion, NewDistillation, NewPrompt};
use domain::state::{DistillationState, PromptState};
use std::time::Duration;

async fn outcome(harness: &dyn StoreHarness, prompts: &[PromptId], worker: &str) -> LeaseOutcome {
    harness.store().lease_prompts(prompts, worker, harness.lease()).await.unwrap()
}

fn busy(prompts: &[PromptId]) -> LeaseOutcome {
    LeaseOutcome { busy: prompts.to_vec(), ..LeaseOutcome::default() }
}

fn settled(prompts: &[PromptId]) -> LeaseOutcome {
    LeaseOutcome { settled: prompts.to_vec(), ..LeaseOutcome::default() }
}

fn stored(prompts: &[PromptId]) -> HarvestOutcome {
    HarvestOutcome { stored: prompts.to_vec(), stale: Vec::new() }
}

fn stale(prompts: &[PromptId]) -> HarvestOutcome {
    HarvestOutcome { stored: Vec::new(), stale: prompts.to_vec() }
}

/// A failure that counts, and parks at the third.
fn failure() -> AttemptFailure {
    AttemptFailure::Teacher { error: "no JSON in the answer".to_owned(), failures_max: 3 }
}

pub async fn the_outbox_keeps_its_order_until_it_is_published(harness: &dyn StoreHarness) {
    let store = harness.store();
    assert_eq!(prompts_of(store.outbox(10).await.unwrap()), []);
    let (first, second) = (harvest(store.as_ref(), 4).await, harvest(store.as_ref(), 2).await);
    let all = [first.ids(), second.ids()].concat();
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()), all, "oldest first, over all jobs");
    assert_eq!(prompts_of(store.outbox(3).await.unwrap()), all[..3]);
    assert_eq!(prompts_of(store.outbox(3).await.unwrap()), all[..3], "reading removes nothing");
    store.mark_published(&[all[1], all[4]]).await.unwrap();
    store.mark_published(&[all[1], PromptId::generate()]).await.unwrap();
    store.mark_published(&[]).await.unwrap();
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()), [all[0], all[2], all[3], all[5]]);
    lease_one(harness, all[0]).await;
    assert_eq!(prompts_of(store.outbox(1).await.unwrap()), [all[0]], "a lease publishes nothing");
}

pub async fn the_trace_of_a_submit_goes_on_with_prompts_run_and_model(harness: &dyn StoreHarness) {
    let store = harness.store();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let new = NewDistillation {
        traceparent: traceparent.to_owned(),
        ..new_job(spec("traced"), dataset(store.as_ref(), rows(1)).await.id)
    };
    let job = store.create_distillation(new).await.unwrap();
    assert_eq!(job.traceparent, traceparent);
    assert_eq!(store.distillation(job.id).await.unwrap(), job);
    let planned = question(0, 0);
    store.plan_prompts(job.id, vec![planned.clone()]).await.unwrap();
    let work = [QueuedPrompt { prompt: planned.id, traceparent: traceparent.to_owned() }];
    assert_eq!(store.outbox(10).await.unwrap(), work);
    store.mark_published(&[planned.id]).await.unwrap();
    assert_eq!(
        store.unfinished_prompts(None, 10).await.unwrap(),
        work,
        "what the list lost is published again"
    );
    store.start_training(job.id, "ledger").await.unwrap();
    let leased = lease_run(harness, "trainer").await;
    assert_eq!(leased.traceparent, traceparent);
    store.start_evaluating(leased.run.id, leased.run.fence).await.unwrap();
    let model = store
        .publish_run(leased.run.id, leased.run.fence, student(leased.run.id), Default::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(model.traceparent, traceparent);
    assert_eq!(store.find_model("traced", None).await.unwrap(), Some(model));
}

pub async fn unfinished_prompts_have_no_live_lease(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 6).await;
    let mut ids = harvest.ids();
    assert_eq!(prompts_of(store.unfinished_prompts(None, 10).await.unwrap()), [], "the outbox has them all");
    store.mark_published(&ids[1..]).await.unwrap();
    answer_all(harness, &[ids[1]]).await;
    let leased = lease_one(harness, ids[2]).await.prompt;
    let parked = lease_one(harness, ids[3]).await.prompt;
    let once = AttemptFailure::Teacher { error: "no".to_owned(), failures_max: 1 };
    store.record_failure(parked.id, parked.attempt, once).await.unwrap();
    assert_eq!(
        prompts_of(store.unfinished_prompts(None, 10).await.unwrap()),
        ids[4..],
        "neither done nor leased"
    );
    harness.outlive().await;
    let unfinished = [leased.id, ids[4], ids[5]];
    assert_eq!(prompts_of(store.unfinished_prompts(None, 10).await.unwrap()), unfinished, "a lease ran out");
    assert_eq!(prompts_of(store.unfinished_prompts(None, 2).await.unwrap()), unfinished[..2]);
    assert_eq!(prompts_of(store.unfinished_prompts(Some(unfinished[0]), 10).await.unwrap()), unfinished[1..]);
    assert_eq!(prompts_of(store.unfinished_prompts(Some(unfinished[2]), 10).await.unwrap()), []);
    let between = ids.remove(3);
    assert_eq!(
        prompts_of(store.unfinished_prompts(Some(between), 10).await.unwrap()),
        unfinished[1..],
        "any id will do"
    );
    store.pause(harvest.job, "").await.unwrap();
    assert_eq!(
        prompts_of(store.unfinished_prompts(None, 10).await.unwrap()),
        [],
        "only harvesting jobs are looked at"
    );
}

pub async fn a_lease_hands_out_the_prompt_and_its_row(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 3).await;
    let leased = lease_one(harness, harvest.prompts[2].id).await;
    assert_eq!((leased.prompt.id, leased.prompt.distillation), (harvest.prompts[2].id, harvest.job));
    assert_eq!((leased.prompt.state, leased.prompt.attempt), (PromptState::Leased, 1));
    assert_eq!((&leased.example, &leased.cached), (&row(2), &None));
    assert_eq!(store.prompt(leased.prompt.id).await.unwrap(), leased.prompt);
    assert_eq!(store.prompt(harvest.prompts[0].id).await.unwrap().state, PromptState::Pending);
    assert_eq!(outcome(harness, &[], "worker").await, LeaseOutcome::default());
}

pub async fn a_leased_prompt_is_busy_until_its_lease_runs_out(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let id = harvest.prompts[0].id;
    lease_one(harness, id).await;
    assert_eq!(outcome(harness, &[id], "other").await, busy(&[id]));
    assert_eq!(outcome(harness, &[id], "worker").await, busy(&[id]), "also for the one that holds it");
    harness.advance(harness.lease() / 2).await;
    assert_eq!(outcome(harness, &[id], "other").await, busy(&[id]), "half of the lease is left");
    harness.outlive().await;
    let again = outcome(harness, &[id, harvest.prompts[1].id], "other").await;
    let attempts: Vec<u32> = again.leased.iter().map(|leased| leased.prompt.attempt).collect();
    assert_eq!(attempts, [2, 1], "{again:?}");
}

pub async fn what_needs_nothing_more_is_settled(harness: &dyn StoreHarness) {
    use DistillationState::{Cancelled, Evaluating, Failed, Paused, Succeeded, Training};
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let ids = harvest.ids();
    answer_all(harness, &ids[..1]).await;
    let parked = lease_one(harness, ids[1]).await.prompt;
    let once = AttemptFailure::Teacher { error: "no".to_owned(), failures_max: 1 };
    store.record_failure(parked.id, parked.attempt, once).await.unwrap();
    assert_eq!(outcome(harness, &ids, "worker").await, settled(&ids), "answered and parked");
    let unknown = PromptId::generate();
    assert_eq!(outcome(harness, &[unknown], "worker").await, settled(&[unknown]), "deleted");
    for state in [Training, Evaluating, Succeeded, Failed, Cancelled, Paused] {
        let job = job_in(harness, state).await;
        let pending = store.prompts_in_state(job, PromptState::Pending, None, 1).await.unwrap();
        let id = pending[0].id;
        assert_eq!(outcome(harness, &[id], "worker").await, settled(&[id]), "the job is {state}");
        assert_eq!(store.prompt(id).await.unwrap(), pending[0], "{state}: the prompt is untouched");
    }
}

pub async fn an_answered_question_is_never_asked_again(harness: &dyn StoreHarness) {
    let store = harness.store();
    let first = harvest(store.as_ref(), 1).await;
    let same = same_question(&first.prompts[0], 1);
    let second = harvest_of(store.as_ref(), spec("other"), vec![same]).await;
    let (left, right) = (first.prompts[0].id, second.prompts[0].id);
    let leased = lease_one(harness, left).await;
    assert_eq!(outcome(harness, &[right], "other").await, busy(&[right]), "its key is being asked");
    assert_eq!(store.prompt(right).await.unwrap().attempt, 0, "a busy prompt is untouched");
    let harvested = answer(&leased);
    store.record_harvest(vec![harvested.clone()]).await.unwrap();
    let served = lease_one(harness, right).await;
    assert_eq!(served.cached.as_ref(), Some(&harvested.completion), "from the store, in another job");
    assert_eq!(served.example, row(1), "with its own row");
    assert_eq!(store.record_harvest(vec![answer(&served)]).await.unwrap(), stored(&[right]));
    for (job, calls, cache_hits) in [(first.job, 1, 0), (second.job, 0, 1)] {
        let progress = store.harvest_progress(job).await.unwrap();
        assert_eq!((progress.calls, progress.cache_hits, progress.calls_paid_twice), (calls, cache_hits, 0));
        assert_eq!(progress.tokens_in, calls * TOKENS_USED.0, "a hit of the cache is free");
    }
}

pub async fn one_key_is_asked_once_at_a_time(harness: &dyn StoreHarness) {
    let store = harness.store();
    let first = question(0, 0);
    let prompts = vec![first.clone(), same_question(&first, 1), question(2, 0)];
    let ids = harvest_of(store.as_ref(), spec(NAME), prompts).await.ids();
    let together = outcome(harness, &[ids[0], ids[1], ids[2], ids[2]], "worker").await;
    let leased: Vec<PromptId> = together.leased.iter().map(|leased| leased.prompt.id).collect();
    assert_eq!((leased, together.busy), (vec![ids[0], ids[2]], vec![ids[1], ids[2]]), "in one call, too");
    harness.outlive().await;
    let after = outcome(harness, &[ids[1]], "other").await;
    assert_eq!(after.leased.len(), 1, "a lease that ran out holds no key: {after:?}");
    assert_eq!(outcome(harness, &[ids[0]], "worker").await, busy(&[ids[0]]), "and the other one has it now");
    let given_back = store.record_failure(ids[1], 1, AttemptFailure::Delayed).await.unwrap();
    assert_eq!(given_back, PromptState::Pending);
    assert_eq!(lease_one(harness, ids[0]).await.prompt.attempt, 2, "a lease that ended holds no key");
}

pub async fn a_heartbeat_prolongs_and_names_what_was_lost(harness: &dyn StoreHarness) {
    let store = harness.store();
    let ids = harvest(store.as_ref(), 5).await.ids();
    lease(harness, &ids[..4]).await;
    harness.outlive().await;
    lease(harness, &ids[1..2]).await;
    answer_all(harness, &ids[2..3]).await;
    store.record_failure(ids[3], 1, AttemptFailure::Delayed).await.unwrap();
    lease_one(harness, ids[0]).await;
    let unknown = PromptId::generate();
    let beats = [(ids[0], 2), (ids[1], 1), (ids[1], 2), (ids[2], 2), (ids[3], 1), (ids[4], 0), (unknown, 1)];
    let lost = store.heartbeat_prompts(&beats, harness.lease()).await.unwrap();
    assert_eq!(lost, [ids[1], ids[2], ids[3], ids[4], unknown]);
    for _beat in 0..3 {
        harness.advance(harness.lease() / 2).await;
        assert_eq!(store.heartbeat_prompts(&beats[..1], harness.lease()).await.unwrap(), []);
    }
    assert_eq!(outcome(harness, &ids[..1], "other").await, busy(&ids[..1]), "it was kept alive");
    assert_eq!(outcome(harness, &ids[1..2], "other").await.leased.len(), 1, "its neighbour was not");
    assert_eq!(store.heartbeat_prompts(&[], harness.lease()).await.unwrap(), []);
}

pub async fn an_answer_under_a_lost_lease_is_kept_and_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let ids = harvest(store.as_ref(), 2).await.ids();
    let late = lease(harness, &ids).await;
    harness.outlive().await;
    lease_one(harness, ids[0]).await;
    let held = store.prompt(ids[0]).await.unwrap();
    let answers = late.iter().map(answer).collect();
    let written = store.record_harvest(answers).await.unwrap();
    assert_eq!(written.stale, [ids[0]], "another holds it now");
    assert_eq!(written.stored, [ids[1]], "no other worker has taken this one");
    assert_eq!(store.prompt(ids[0]).await.unwrap(), held, "the prompt is untouched");
    let kept = store.completion(held.key).await.unwrap();
    assert_eq!(kept.as_ref(), Some(&answer(&late[0]).completion), "the answer was paid for");
    assert_eq!(store.prompt(ids[1]).await.unwrap().state, PromptState::Answered);
}

pub async fn answers_that_are_paid_for_twice_are_counted(harness: &dyn StoreHarness) {
    let store = harness.store();
    for late_first in [true, false] {
        let harvest = harvest(store.as_ref(), 1).await;
        let id = harvest.prompts[0].id;
        let late = answer(&lease_one(harness, id).await);
        harness.outlive().await;
        let held = answer(&lease_one(harness, id).await);
        let (first, second) = if late_first { (late, held) } else { (held, late) };
        store.record_harvest(vec![first]).await.unwrap();
        store.record_harvest(vec![second]).await.unwrap();
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!((progress.calls, progress.calls_paid_twice), (2, 1), "the late one first: {late_first}");
        assert_eq!((progress.tokens_in, progress.money_micros), (2 * 30, 2 * 450), "both were paid");
        assert_eq!(progress.in_state(PromptState::Answered), 1);
    }
}

pub async fn a_late_answer_that_spares_a_call_is_not_paid_twice(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 1).await;
    let id = harvest.prompts[0].id;
    let late = answer(&lease_one(harness, id).await);
    store.record_failure(id, 1, AttemptFailure::Delayed).await.unwrap();
    assert_eq!(store.record_harvest(vec![late.clone()]).await.unwrap(), stale(&[id]));
    let served = lease_one(harness, id).await;
    assert_eq!(served.cached, Some(late.completion));
    store.record_harvest(vec![answer(&served)]).await.unwrap();
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.cache_hits, progress.calls_paid_twice), (1, 1, 0));
}

pub async fn a_repeated_record_counts_nothing_twice(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let ids = harvest.ids();
    let answers: Vec<_> = lease(harness, &ids).await.iter().map(answer).collect();
    assert_eq!(store.record_harvest(answers.clone()).await.unwrap(), stored(&ids));
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.calls_paid_twice), (2, 0));
    assert_eq!(store.record_harvest(answers).await.unwrap(), stored(&ids), "the first reply was lost");
    assert_eq!(store.harvest_progress(harvest.job).await.unwrap(), progress);
}

pub async fn a_hit_of_the_cache_is_counted_where_it_is_written(harness: &dyn StoreHarness) {
    let store = harness.store();
    let known = harvest(store.as_ref(), 1).await;
    answer_all(harness, &known.ids()).await;
    let same = vec![same_question(&known.prompts[0], 0)];
    let harvest = harvest_of(store.as_ref(), spec(NAME), same).await;
    let late = answer(&lease_one(harness, harvest.prompts[0].id).await);
    harness.outlive().await;
    let held = answer(&lease_one(harness, harvest.prompts[0].id).await);
    assert_eq!(store.record_harvest(vec![late]).await.unwrap(), stale(&harvest.ids()));
    assert_eq!(store.record_harvest(vec![held]).await.unwrap(), stored(&harvest.ids()));
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.cache_hits, progress.calls_paid_twice), (0, 1, 0));
}

pub async fn a_record_that_fails_writes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let mut answers: Vec<_> = lease(harness, &harvest.ids()).await.iter().map(answer).collect();
    answers[1].completion.tokens_in = u64::MAX;
    let before = store.harvest_progress(harvest.job).await.unwrap();
    invalid(store.record_harvest(answers).await);
    assert_eq!(store.harvest_progress(harvest.job).await.unwrap(), before);
    assert_eq!(store.completion(harvest.prompts[0].key).await.unwrap(), None, "all or nothing");
}

pub async fn answers_of_paused_and_deleted_jobs_are_kept(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (paused, deleted) = (harvest(store.as_ref(), 1).await, harvest(store.as_ref(), 1).await);
    let ids = [paused.prompts[0].id, deleted.prompts[0].id];
    let answers: Vec<_> = lease(harness, &ids).await.iter().map(answer).collect();
    store.pause(paused.job, "").await.unwrap();
    store.cancel(deleted.job, "").await.unwrap();
    store.delete_distillation(deleted.job).await.unwrap();
    let written = store.record_harvest(answers.clone()).await.unwrap();
    assert_eq!((written.stored, written.stale), (vec![ids[0]], vec![ids[1]]));
    for answer in answers {
        let kept = store.completion(answer.completion.key).await.unwrap();
        assert_eq!(kept, Some(answer.completion));
    }
}

pub async fn completions_keep_every_word_and_the_first_one_stays(harness: &dyn StoreHarness) {
    let store = harness.store();
    let finishes = [FinishReason::Stop, FinishReason::Length, FinishReason::ContentFilter];
    let ids = harvest(store.as_ref(), 3).await.ids();
    for (leased, finish_reason) in lease(harness, &ids).await.iter().zip(finishes) {
        let completion = Completion {
            key: leased.prompt.key,
            text: "We add.\n\u{1F980} So «it» is \\0 'quoted'".to_owned(),
            finish_reason,
            model: "palm-540b".to_owned(),
            tokens_in: 1 << 40,
            tokens_out: 3,
            money_micros: 5,
            seconds: 0.1 + 0.2,
        };
        let answer = domain::records::Harvested { completion: completion.clone(), ..answer(leased) };
        store.record_harvest(vec![answer.clone()]).await.unwrap();
        let other = Completion { text: "something else".to_owned(), ..completion.clone() };
        store.record_harvest(vec![domain::records::Harvested { completion: other, ..answer }]).await.unwrap();
        assert_eq!(store.completion(completion.key).await.unwrap(), Some(completion));
    }
    assert_eq!(store.completion(crate::fixtures::key()).await.unwrap(), None);
}

pub async fn an_answer_that_no_prompt_asked_for_is_kept(harness: &dyn StoreHarness) {
    let store = harness.store();
    let known = question(0, 0);
    let kept = completion(known.key, "We add one. The answer is (0 + 1).");
    for text in [kept.text.as_str(), "something else"] {
        let completions = vec![Completion { text: text.to_owned(), ..kept.clone() }];
        store.keep_completions(completions).await.unwrap();
        assert_eq!(store.completion(known.key).await.unwrap().as_ref(), Some(&kept), "the first one stays");
    }
    store.keep_completions(Vec::new()).await.unwrap();
    let harvest = harvest_of(store.as_ref(), spec(NAME), vec![known]).await;
    assert_eq!(lease_one(harness, harvest.prompts[0].id).await.cached, Some(kept), "it is not asked again");
}

pub async fn a_delayed_prompt_is_free_again_and_nothing_is_counted(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = harvest(store.as_ref(), 1).await.prompts[0].id;
    for attempt in 1..=5 {
        assert_eq!(lease_one(harness, id).await.prompt.attempt, attempt);
        let state = store.record_failure(id, attempt, AttemptFailure::Delayed).await.unwrap();
        assert_eq!(state, PromptState::Pending);
        let prompt = store.prompt(id).await.unwrap();
        assert_eq!((prompt.failures, prompt.error.as_str()), (0, ""));
    }
}

pub async fn failures_of_the_teacher_park_a_prompt_and_no_other(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let (id, other) = (harvest.prompts[0].id, harvest.prompts[1].id);
    for (failures, state) in [(1, PromptState::Pending), (2, PromptState::Pending), (3, PromptState::Parked)]
    {
        let attempt = lease_one(harness, id).await.prompt.attempt;
        assert_eq!(store.record_failure(id, attempt, failure()).await.unwrap(), state);
        let prompt = store.prompt(id).await.unwrap();
        assert_eq!((prompt.state, prompt.failures), (state, failures));
        assert_eq!(prompt.error, "no JSON in the answer");
        if state == PromptState::Pending {
            let attempt = lease_one(harness, id).await.prompt.attempt;
            store.record_failure(id, attempt, AttemptFailure::Delayed).await.unwrap();
            assert_eq!(store.prompt(id).await.unwrap().failures, failures, "a delay counts nothing");
        }
    }
    assert_eq!(outcome(harness, &[id], "worker").await, settled(&[id]));
    answer_all(harness, &[other]).await;
}

pub async fn a_failure_under_a_lost_lease_does_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 3).await;
    let ids = harvest.ids();
    lease(harness, &ids[..2]).await;
    harness.outlive().await;
    lease_one(harness, ids[0]).await;
    answer_all(harness, &ids[1..2]).await;
    for (id, attempt, state) in [
        (ids[0], 1, PromptState::Leased),
        (ids[0], 3, PromptState::Leased),
        (ids[1], 1, PromptState::Answered),
        (ids[1], 2, PromptState::Answered),
        (ids[2], 0, PromptState::Pending),
    ] {
        let before = store.prompt(id).await.unwrap();
        for failure in [failure(), AttemptFailure::Delayed] {
            assert_eq!(store.record_failure(id, attempt, failure).await.unwrap(), state, "as it is");
        }
        assert_eq!(store.prompt(id).await.unwrap(), before, "attempt {attempt} of {state}");
    }
    let unknown = PromptId::generate();
    not_found(store.record_failure(unknown, 1, failure()).await, unknown);
    not_found(store.prompt(unknown).await, unknown);
}

pub async fn prompts_are_paged_by_whole_rows(harness: &dyn StoreHarness) {
    let store = harness.store();
    // Rows 0, 2, 4 and 6 with three samples each, planned in no order; the last sample is the hinted one.
    let mut prompts: Vec<NewPrompt> = [4, 0, 6, 2]
        .into_iter()
        .flat_map(|row| [2, 0, 1].map(|sample| NewPrompt { hinted: sample == 2, ..question(row, sample) }))
        .collect();
    prompts.rotate_left(4);
    let harvest = harvest_of(store.as_ref(), spec(NAME), prompts).await;
    harvest_of(store.as_ref(), spec(NAME), vec![question(0, 0)]).await;
    for (after_row, limit, expected) in [
        (None, 100, vec![0, 2, 4, 6]),
        (None, 1, vec![0]),
        (None, 3, vec![0]),
        (None, 5, vec![0]),
        (None, 6, vec![0, 2]),
        (Some(0), 100, vec![2, 4, 6]),
        (Some(1), 7, vec![2, 4]),
        (Some(4), 2, vec![6]),
        (Some(6), 2, vec![]),
    ] {
        let page = store.prompts_in_state(harvest.job, PromptState::Pending, after_row, limit).await.unwrap();
        let found: Vec<(u64, u32)> = page.iter().map(|prompt| (prompt.row, prompt.sample)).collect();
        let expected: Vec<(u64, u32)> =
            expected.into_iter().flat_map(|row| [0, 1, 2].map(|sample| (row, sample))).collect();
        assert_eq!(found, expected, "after {after_row:?}, {limit} at most");
    }
    let answered = harvest.prompts.iter().find(|prompt| prompt.row == 0).unwrap().id;
    answer_all(harness, &[answered]).await;
    let count =
        async |state| store.prompts_in_state(harvest.job, state, None, BATCH_MAX).await.unwrap().len();
    assert_eq!((count(PromptState::Pending).await, count(PromptState::Answered).await), (11, 1));
    assert_eq!((count(PromptState::Leased).await, count(PromptState::Parked).await), (0, 0));
}

pub async fn unknown_jobs_have_no_prompts(harness: &dyn StoreHarness) {
    let store = harness.store();
    harvest(store.as_ref(), 1).await;
    let unknown = DistillationId::generate();
    for state in PromptState::ALL {
        assert_eq!(store.prompts_in_state(unknown, *state, None, 10).await.unwrap(), []);
    }
}

pub async fn a_lease_can_be_long(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = harvest(store.as_ref(), 1).await.prompts[0].id;
    let leased = store.lease_prompts(&[id], "worker", LONG).await.unwrap();
    assert_eq!(leased.leased.len(), 1);
    harness.outlive().await;
    assert_eq!(outcome(harness, &[id], "other").await, busy(&[id]));
    harness.advance(LONG + Duration::from_millis(1)).await;
    assert_eq!(outcome(harness, &[id], "other").await.leased.len(), 1);
}

pub async fn two_hundred_answers_are_written_at_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 200).await;
    let leased = lease(harness, &harvest.ids()).await;
    let examples: Vec<Example> = leased.iter().map(|leased| leased.example.clone()).collect();
    assert_eq!(examples, (0..200).map(row).collect::<Vec<_>>(), "each with its own row, in order");
    let answers = leased.iter().map(answer).collect();
    assert_eq!(store.record_harvest(answers).await.unwrap(), stored(&harvest.ids()));
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.done(), progress.calls, progress.verdicts), (200, 200, [0, 200, 0]));
    for prompt in [&harvest.prompts[0], &harvest.prompts[199]] {
        let text = format!("We add one. The answer is ({} + 1).", prompt.row);
        let kept = store.completion(prompt.key).await.unwrap();
        assert_eq!(kept, Some(completion(prompt.key, &text)));
    }
}
