//! Distillations: created, planned, moved, driven, and what happens to them in order.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    BOUND, LONG, LOST_MAX, NAME, answer, answer_all, call_of, claim, conflict, dataset, harvest, harvest_of,
    invalid, job, job_in, lease, lease_one, lease_run, new_job, not_found, prompts_of, question, rows, spec,
    student,
};
use crate::harness::{Store, StoreHarness};
use domain::Timestamp;
use domain::budget::{Amount, CallBound, CallEnd};
use domain::event::{Event, EventKind};
use domain::ids::{DatasetId, DistillationId, ModelId, RequestId, RunId};
use domain::lifecycle::RunInstruction;
use domain::metric::Accuracy;
use domain::ports::{AttemptFailure, Claim, DistillationFilter, LedgerFilter, PLAN_MAX, PageRequest};
use domain::records::{HarvestProgress, NewDistillation, NewPrompt, PhaseSeconds};
use domain::state::{DistillationState, PromptState, Purpose, Reason, Verdict};
use std::time::Duration;

use DistillationState::{Cancelled, Evaluating, Failed, Harvesting, Paused, Queued, Succeeded, Training};

async fn kinds(store: &dyn Store, job: DistillationId) -> Vec<EventKind> {
    let events = store.events(job, 0, 1_000).await.unwrap();
    for (event, sequence) in events.iter().zip(1..) {
        assert_eq!((event.distillation, event.sequence), (job, sequence), "no holes: {events:?}");
    }
    events.into_iter().map(|event| event.kind).collect()
}

fn moved(from: impl Into<Option<DistillationState>>, to: DistillationState, reason: &str) -> EventKind {
    EventKind::StateChanged { from: from.into(), to, reason: reason.to_owned() }
}

pub async fn a_repeated_request_makes_one_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let new = new_job(spec(NAME), dataset);
    let job = store.create_distillation(new.clone()).await.unwrap();
    assert_eq!((job.id, &job.spec, job.dataset, job.state), (new.id, &new.spec, dataset, Queued));
    assert_eq!((job.reason.as_str(), job.resume_state, job.run, job.model), ("", None, None, None));
    assert_eq!((job.teacher_accuracy, job.seconds), (None, PhaseSeconds::default()));
    assert_eq!(store.distillation(new.id).await.unwrap(), job);
    let again = NewDistillation { id: DistillationId::generate(), ..new.clone() };
    assert_eq!(store.create_distillation(again.clone()).await.unwrap(), job, "the first one is returned");
    not_found(store.distillation(again.id).await, again.id);
    assert_eq!(kinds(store.as_ref(), job.id).await, [moved(None, Queued, "")]);
    let other = NewDistillation { request: RequestId::generate(), ..again };
    assert_ne!(store.create_distillation(other).await.unwrap().id, job.id);
}

pub async fn a_job_needs_a_committed_dataset(harness: &dyn StoreHarness) {
    let store = harness.store();
    let unknown = DatasetId::generate();
    not_found(store.create_distillation(new_job(spec(NAME), unknown)).await, unknown);
    let staged = store.create_dataset(RequestId::generate(), "numbers").await.unwrap().id;
    let refused = new_job(spec(NAME), staged);
    conflict(store.create_distillation(refused.clone()).await);
    store.append_rows(staged, 0, rows(1)).await.unwrap();
    store.commit_dataset(staged, "aa").await.unwrap();
    let made = store.create_distillation(refused.clone()).await.unwrap();
    assert_eq!(made.id, refused.id, "a refused request may be repeated");
}

pub async fn planning_writes_prompts_with_their_outbox_and_moves_the_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let hinted = NewPrompt { hinted: true, ..question(1, 1) };
    let evaluated = NewPrompt { purpose: Purpose::Evaluate, ..question(1, 0) };
    let prompts = vec![question(2, 0), question(0, 0), hinted, evaluated];
    let harvest = harvest_of(store.as_ref(), spec(NAME), prompts).await;
    assert_eq!(store.distillation(harvest.job).await.unwrap().state, Harvesting);
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()), harvest.ids(), "in the order of planning");
    for planned in &harvest.prompts {
        let prompt = store.prompt(planned.id).await.unwrap();
        assert_eq!((prompt.id, prompt.distillation), (planned.id, harvest.job));
        assert_eq!((prompt.row, prompt.sample, prompt.hinted), (planned.row, planned.sample, planned.hinted));
        assert_eq!((prompt.purpose, prompt.key), (planned.purpose, planned.key));
        assert_eq!((prompt.state, prompt.attempt, prompt.failures), (PromptState::Pending, 0, 0));
        assert_eq!(prompt.error, "");
    }
    assert_eq!(
        kinds(store.as_ref(), harvest.job).await,
        [moved(None, Queued, ""), moved(Queued, Harvesting, "")]
    );
}

pub async fn planning_again_adds_only_what_is_new(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    answer_all(harness, &[harvest.prompts[0].id]).await;
    store.mark_published(&harvest.ids()).await.unwrap();
    let again: Vec<NewPrompt> = (0..2).map(|row| question(row, 0)).collect();
    let new = [
        NewPrompt { hinted: true, ..question(0, 0) },
        NewPrompt { purpose: Purpose::Evaluate, ..question(0, 0) },
        question(0, 1),
    ];
    let prompts: Vec<NewPrompt> = again.iter().chain(&new).cloned().collect();
    store.plan_prompts(harvest.job, prompts.clone()).await.unwrap();
    store.plan_prompts(harvest.job, prompts).await.unwrap();
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()), new.map(|prompt| prompt.id));
    for unknown in &again {
        not_found(store.prompt(unknown.id).await, unknown.id);
    }
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.total(), progress.in_state(PromptState::Answered)), (5, 1), "nothing is undone");
    assert_eq!(kinds(store.as_ref(), harvest.job).await.len(), 2, "it harvests already: no event");
}

pub async fn a_plan_that_fails_writes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(2)).await.id;
    let job = job(store.as_ref(), spec(NAME), dataset).await.id;
    let endless = NewPrompt { bound: CallBound { tokens: u64::MAX, ..BOUND }, ..question(1, 0) };
    invalid(store.plan_prompts(job, vec![question(0, 0), endless]).await);
    assert_eq!(store.distillation(job).await.unwrap().state, Queued);
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()), []);
    assert_eq!(store.harvest_progress(job).await.unwrap(), HarvestProgress::default());
    assert_eq!(kinds(store.as_ref(), job).await.len(), 1);
}

pub async fn one_call_plans_so_many_prompts_and_no_more(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let job = job(store.as_ref(), spec(NAME), dataset).await.id;
    let prompts = |count: u64| (0..count).map(|row| question(row, 0)).collect();
    invalid(store.plan_prompts(job, prompts(PLAN_MAX as u64 + 1)).await);
    assert_eq!(store.distillation(job).await.unwrap().state, Queued);
    store.plan_prompts(job, prompts(PLAN_MAX as u64)).await.unwrap();
    assert_eq!(store.harvest_progress(job).await.unwrap().total(), PLAN_MAX as u64);
}

pub async fn only_a_queued_or_harvesting_job_is_planned(harness: &dyn StoreHarness) {
    let store = harness.store();
    for state in [Training, Evaluating, Succeeded, Failed, Cancelled, Paused] {
        let job = job_in(harness, state).await;
        let before = store.harvest_progress(job).await.unwrap();
        let words = conflict(store.plan_prompts(job, vec![question(0, 9)]).await);
        assert!(words.contains(state.as_str()), "the conflict names the state {state}: {words}");
        assert_eq!(store.harvest_progress(job).await.unwrap(), before, "{state}");
    }
}

pub async fn a_move_is_dated_and_tells_what_happened(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Harvesting).await;
    let before = store.distillation(job).await.unwrap();
    harness.advance(Duration::from_secs(3)).await;
    let paused = store.pause(job, "no rows").await.unwrap();
    assert_eq!((paused.state, paused.reason.as_str()), (Paused, "no rows"));
    assert!(paused.updated_at >= before.updated_at, "{} and {}", paused.updated_at.0, before.updated_at.0);
    assert_eq!(paused.created_at, before.created_at);
    let words = conflict(store.pause(job, "again").await);
    assert!(words.contains("paused"), "the present state is named: {words}");
    assert_eq!(store.distillation(job).await.unwrap(), paused, "nothing is written");
    assert_eq!(
        kinds(store.as_ref(), job).await,
        [moved(None, Queued, ""), moved(Queued, Harvesting, ""), moved(Harvesting, Paused, "no rows")]
    );
}

/// What a call does to a job in each state, in the order of `DistillationState::ALL`: the state it is in afterwards, or
/// `None` where the call is a conflict.
type Outcomes = [Option<DistillationState>; 8];

const PAUSED: Outcomes = [Some(Paused), Some(Paused), Some(Paused), Some(Paused), None, None, None, None];
const RESUMED: Outcomes = [
    Some(Queued),
    Some(Harvesting),
    Some(Training),
    Some(Evaluating),
    None,
    Some(Training),
    None,
    Some(Harvesting),
];
const CANCELLED: Outcomes = [
    Some(Cancelled),
    Some(Cancelled),
    Some(Cancelled),
    Some(Cancelled),
    None,
    None,
    Some(Cancelled),
    Some(Cancelled),
];

async fn check_from_every_state(harness: &dyn StoreHarness, call: &str, outcomes: Outcomes) {
    let store = harness.store();
    for (state, outcome) in DistillationState::ALL.iter().zip(outcomes) {
        let job = job_in(harness, *state).await;
        let (before, events) = (store.distillation(job).await.unwrap(), kinds(store.as_ref(), job).await);
        let result = match call {
            "pause" => store.pause(job, "why").await,
            "resume" => store.resume(job).await,
            _ => store.cancel(job, "why").await,
        };
        let Some(outcome) = outcome else {
            let words = conflict(result);
            assert!(words.contains(state.as_str()), "{call} of {state}: {words}");
            assert_eq!(store.distillation(job).await.unwrap(), before, "{call} of {state}");
            assert_eq!(kinds(store.as_ref(), job).await, events, "{call} of {state}");
            continue;
        };
        let after = result.unwrap();
        assert_eq!(after, store.distillation(job).await.unwrap(), "{call} of {state}");
        assert_eq!(after.state, outcome, "{call} of {state}");
        let mut expected = events;
        if outcome == *state {
            assert_eq!(after, before, "{call} of {state} does nothing");
        } else {
            let reason = if call == "resume" { "" } else { "why" };
            assert_eq!(after.reason, reason, "{call} of {state}");
            assert_eq!(after.resume_state, (outcome == Paused).then_some(*state), "{call} of {state}");
            expected.push(moved(*state, outcome, reason));
        }
        assert_eq!(kinds(store.as_ref(), job).await, expected, "{call} of {state}");
    }
}

pub async fn pausing_from_every_state(harness: &dyn StoreHarness) {
    check_from_every_state(harness, "pause", PAUSED).await;
}

pub async fn resuming_from_every_state(harness: &dyn StoreHarness) {
    check_from_every_state(harness, "resume", RESUMED).await;
}

pub async fn cancelling_from_every_state(harness: &dyn StoreHarness) {
    check_from_every_state(harness, "cancel", CANCELLED).await;
}

pub async fn deleting_from_every_state(harness: &dyn StoreHarness) {
    let store = harness.store();
    for state in DistillationState::ALL {
        let job = job_in(harness, *state).await;
        if state.is_terminal() || *state == Paused {
            store.delete_distillation(job).await.unwrap();
            not_found(store.distillation(job).await, job);
            not_found(store.delete_distillation(job).await, job);
        } else {
            let words = conflict(store.delete_distillation(job).await);
            assert!(words.contains(state.as_str()), "{state}: {words}");
            assert_eq!(store.distillation(job).await.unwrap().state, *state);
        }
    }
}

pub async fn a_paused_job_goes_back_to_where_it_stopped(harness: &dyn StoreHarness) {
    let store = harness.store();
    for state in [Queued, Harvesting, Training, Evaluating] {
        let job = job_in(harness, state).await;
        let paused = store.pause(job, "the teacher is out of quota").await.unwrap();
        assert_eq!(
            (paused.reason.as_str(), paused.resume_state),
            ("the teacher is out of quota", Some(state))
        );
        conflict(store.pause(job, "again").await);
        let resumed = store.resume(job).await.unwrap();
        assert_eq!((resumed.state, resumed.reason.as_str(), resumed.resume_state), (state, "", None));
        let events = kinds(store.as_ref(), job).await;
        let last = [moved(state, Paused, "the teacher is out of quota"), moved(Paused, state, "")];
        assert!(events.ends_with(&last), "{state}: {events:?}");
    }
}

pub async fn resuming_gives_parked_prompts_another_chance(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 3).await;
    let (parked, answered) = (harvest.prompts[0].id, harvest.prompts[1].id);
    answer_all(harness, &[answered]).await;
    let failure = |failures_max| AttemptFailure::Teacher { error: "no JSON".to_owned(), failures_max };
    for failures in 1..=2 {
        let leased = lease(harness, &[parked]).await;
        store.record_failure(parked, leased[0].prompt.attempt, failure(2)).await.unwrap();
        assert_eq!(store.prompt(parked).await.unwrap().failures, failures);
    }
    assert_eq!(store.prompt(parked).await.unwrap().state, PromptState::Parked);
    store.mark_published(&harvest.ids()).await.unwrap();
    store.pause(harvest.job, "look at this").await.unwrap();
    store.resume(harvest.job).await.unwrap();
    assert_eq!(store.prompt(parked).await.unwrap().state, PromptState::Pending);
    assert_eq!(store.prompt(answered).await.unwrap().state, PromptState::Answered);
    assert!(
        prompts_of(store.unfinished_prompts(None, 10).await.unwrap()).contains(&parked),
        "the reconciler finds it"
    );
    let leased = lease(harness, &[parked]).await;
    assert_eq!(leased[0].prompt.attempt, 3, "attempts count on");
    let state = store.record_failure(parked, 3, failure(2)).await.unwrap();
    assert_eq!(state, PromptState::Pending, "its failures are counted anew");
}

pub async fn a_deleted_job_leaves_completions_and_models(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    answer_all(harness, &[harvest.prompts[0].id]).await;
    let run = store.start_training(harvest.job, "ledger").await.unwrap().id;
    lease_run(harness, "trainer").await;
    let model = store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap();
    store.delete_distillation(harvest.job).await.unwrap();
    for prompt in harvest.ids() {
        not_found(store.prompt(prompt).await, prompt);
    }
    assert_eq!(prompts_of(store.outbox(10).await.unwrap()), [], "nothing is left to publish");
    assert_eq!(prompts_of(store.unfinished_prompts(None, 10).await.unwrap()), []);
    assert_eq!(store.ledger(harvest.job, &LedgerFilter::default(), 10).await.unwrap(), []);
    assert_eq!(store.events(harvest.job, 0, 10).await.unwrap(), []);
    not_found(store.run(run).await, run);
    assert_eq!(store.metrics(run, None, 10).await.unwrap(), []);
    let kept = store.completion(harvest.prompts[0].key).await.unwrap();
    assert_eq!(kept.map(|completion| completion.key), Some(harvest.prompts[0].key), "it was paid for");
    assert_eq!(store.model(model.id).await.unwrap(), model);
    assert_eq!(store.find_model(NAME, None).await.unwrap(), Some(model));
    store.delete_dataset(harvest.dataset).await.unwrap();
}

pub async fn jobs_are_listed_by_state_and_name(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let mut jobs = Vec::new();
    for name in ["a", "b", "a", "b", "a"] {
        jobs.push(job(store.as_ref(), spec(name), dataset).await.id);
    }
    store.plan_prompts(jobs[1], Vec::new()).await.unwrap();
    store.plan_prompts(jobs[4], Vec::new()).await.unwrap();
    store.cancel(jobs[2], "").await.unwrap();
    for (states, name, expected) in [
        (vec![], None, vec![4, 3, 2, 1, 0]),
        (vec![Queued], None, vec![3, 0]),
        (vec![Harvesting, Cancelled], None, vec![4, 2, 1]),
        (vec![], Some("a"), vec![4, 2, 0]),
        (vec![Harvesting], Some("a"), vec![4]),
        (vec![Succeeded], None, vec![]),
        (vec![], Some("A"), vec![]),
    ] {
        let filter = DistillationFilter { states, name: name.map(str::to_owned) };
        for size in [1, 2, 100] {
            let (mut found, mut cursor) = (Vec::new(), None);
            for _page in 0..=jobs.len() {
                let page = store.list_distillations(&filter, &PageRequest { size, cursor }).await.unwrap();
                assert!(page.items.len() <= size);
                found.extend(page.items.iter().map(|job| jobs.iter().position(|id| *id == job.id).unwrap()));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!((cursor, &found), (None, &expected), "{filter:?} by {size}");
        }
    }
}

/// The jobs that a harvester claims, and how many were lost at each.
async fn claimed_with_lost(
    harness: &dyn StoreHarness,
    harvester: &str,
    limit: usize,
) -> Vec<(DistillationId, u64)> {
    let claimed =
        harness.store().claim_distillations(&claim(harvester, harness.lease(), limit)).await.unwrap();
    claimed.into_iter().map(|claimed| (claimed.job.id, claimed.lost_harvesters)).collect()
}

async fn claimed(harness: &dyn StoreHarness, harvester: &str, limit: usize) -> Vec<DistillationId> {
    claimed_with_lost(harness, harvester, limit).await.into_iter().map(|(job, _)| job).collect()
}

/// Loses a harvester that was at work at these jobs.
async fn lose_at(harness: &dyn StoreHarness, harvester: &str, jobs: &[DistillationId]) {
    harness.store().note_at_work(harvester, jobs, harness.lease()).await.unwrap();
    harness.outlive().await;
}

pub async fn a_claimed_job_has_one_driver(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (queued, harvesting) = (job_in(harness, Queued).await, job_in(harness, Harvesting).await);
    for other in [Training, Evaluating, Succeeded, Failed, Cancelled, Paused] {
        job_in(harness, other).await;
    }
    let mut first = claimed(harness, "left", 10).await;
    first.sort();
    assert_eq!(first, [queued, harvesting], "only what has to be driven");
    assert_eq!(claimed(harness, "right", 10).await, [], "another driver gets none of them");
    assert_eq!(claimed(harness, "left", 10).await.len(), 2, "its driver keeps them");
    harness.advance(harness.lease() / 2).await;
    claimed(harness, "left", 10).await;
    harness.advance(harness.lease() / 2 + Duration::from_millis(1)).await;
    assert_eq!(claimed(harness, "right", 10).await, [], "claiming again has prolonged it");
    harness.outlive().await;
    assert_eq!(claimed(harness, "right", 10).await.len(), 2, "a driver that is gone loses them");
    assert_eq!(claimed(harness, "left", 10).await, []);
    assert_eq!(store.distillation(queued).await.unwrap().state, Queued, "a claim moves nothing");
}

pub async fn a_claim_takes_the_oldest_jobs_first(harness: &dyn StoreHarness) {
    let mut jobs = Vec::new();
    for _job in 0..5 {
        jobs.push(job_in(harness, Queued).await);
        harness.advance(Duration::from_millis(5)).await;
    }
    assert_eq!(claimed(harness, "left", 2).await, jobs[..2]);
    assert_eq!(claimed(harness, "right", 2).await, jobs[2..4]);
    assert_eq!(claimed(harness, "third", 10).await, jobs[4..]);
}

pub async fn a_claim_outlasts_the_planning_of_its_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (planned, imported) = (job_in(harness, Queued).await, job_in(harness, Queued).await);
    assert_eq!(claimed(harness, "left", 10).await.len(), 2);
    store.plan_prompts(planned, vec![question(0, 0)]).await.unwrap();
    store.record_imported(imported, Vec::new()).await.unwrap();
    assert_eq!(claimed(harness, "right", 10).await, [], "a driver that is at work is not joined by another");
    store.pause(planned, "why").await.unwrap();
    assert_eq!(claimed(harness, "left", 10).await, [imported], "a paused job is not driven");
    store.resume(planned).await.unwrap();
    harness.outlive().await;
    let mut both = claimed(harness, "right", 10).await;
    both.sort();
    assert_eq!(both, [planned, imported]);
}

pub async fn a_job_that_loses_its_harvesters_pauses(harness: &dyn StoreHarness) {
    let store = harness.store();
    for state in [Queued, Harvesting] {
        let (job, beside) = (job_in(harness, state).await, job_in(harness, Harvesting).await);
        let lost_at = |found: &[(DistillationId, u64)], job| {
            found.iter().find(|(id, _)| *id == job).map(|(_, lost)| *lost)
        };
        for lost in 1..LOST_MAX {
            lose_at(harness, &format!("lost {lost}"), &[job]).await;
            let found = claimed_with_lost(harness, &format!("next {lost}"), 10).await;
            assert_eq!((lost_at(&found, job), lost_at(&found, beside)), (Some(lost), Some(0)));
        }
        lose_at(harness, "the last", &[job]).await;
        let found = claimed_with_lost(harness, "after", 10).await;
        assert_eq!((lost_at(&found, job), lost_at(&found, beside)), (None, Some(0)));
        let paused = store.distillation(job).await.unwrap();
        assert_eq!((paused.state, paused.resume_state), (Paused, Some(state)));
        assert!(paused.reason.starts_with("3 harvesters in a row were lost"), "{}", paused.reason);
        assert!(paused.reason.contains("`distillery resume` tries again"), "{}", paused.reason);
        assert_eq!(kinds(store.as_ref(), job).await.last(), Some(&moved(state, Paused, &paused.reason)));
        // Resumed, it has its chances again.
        store.resume(job).await.unwrap();
        harness.outlive().await;
        assert_eq!(lost_at(&claimed_with_lost(harness, "resumed", 10).await, job), Some(0));
        for ended in [job, beside] {
            store.cancel(ended, "").await.unwrap();
        }
    }
}

pub async fn a_harvester_that_is_not_lost_counts_against_no_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Harvesting).await;
    let lost = async |harvester: &str| claimed_with_lost(harness, harvester, 10).await;
    // One that goes on prolongs what it noted, one that ends takes it back, and nobody counts itself.
    store.note_at_work("one", &[job], harness.lease()).await.unwrap();
    harness.advance(harness.lease() / 2).await;
    store.note_at_work("one", &[job], harness.lease()).await.unwrap();
    harness.advance(harness.lease() / 2 + Duration::from_millis(1)).await;
    assert_eq!(lost("two").await, [(job, 0)], "it is prolonged");
    harness.outlive().await;
    assert_eq!(lost("one").await, [(job, 0)], "its own");
    store.note_at_work("one", &[], harness.lease()).await.unwrap();
    harness.outlive().await;
    assert_eq!(lost("two").await, [(job, 0)], "it was taken back");
    // A job that is gone is left out, and one that ended is nobody's work.
    let ended = job_in(harness, Failed).await;
    lose_at(harness, "three", &[DistillationId::generate(), ended]).await;
    for _ in 0..LOST_MAX {
        lose_at(harness, "three", &[ended]).await;
        assert_eq!(lost("two").await, [(job, 0)]);
    }
    assert_eq!(store.distillation(ended).await.unwrap().state, Failed);
    store.note_at_work("four", &[ended], harness.lease()).await.unwrap();
    store.delete_distillation(ended).await.unwrap();
    harness.outlive().await;
    assert_eq!(lost("two").await, [(job, 0)]);
}

pub async fn a_job_that_comes_further_begins_its_count_anew(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Queued).await;
    let lose = async |harvester: &str| {
        lose_at(harness, harvester, &[job]).await;
        claimed_with_lost(harness, "claims", 10).await
    };
    assert_eq!(lose("one").await, [(job, 1)]);
    assert_eq!(lose("two").await, [(job, 2)]);
    store.clear_lost_harvesters(job).await.unwrap();
    assert_eq!(lose("three").await, [(job, 1)]);
    assert_eq!(lose("four").await, [(job, 2)]);
    store.plan_prompts(job, vec![question(0, 0)]).await.unwrap();
    assert_eq!(lose("five").await, [(job, 1)], "it was moved");
    // Several that were lost at once count each.
    store.note_at_work("six", &[job], harness.lease()).await.unwrap();
    assert_eq!(lose("seven").await, []);
    assert_eq!(store.distillation(job).await.unwrap().state, Paused);
}

/// Whoever is lost with several jobs in hand leaves them all under suspicion: one after the other they are tried.
pub async fn suspects_are_driven_one_at_a_time(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (mut planned, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let harvest = harvest(store.as_ref(), 1).await;
        jobs.push(harvest.job);
        planned.push(harvest.ids());
        harness.advance(Duration::from_millis(5)).await;
    }
    lose_at(harness, "first", &jobs[..1]).await;
    assert_eq!(claimed(harness, "nobody", 10).await.len(), 4);
    lose_at(harness, "second", &jobs[..3]).await;
    let trying = async |harvester: &str, suspects_max: usize| {
        let claim = Claim { suspects_max, ..claim(harvester, harness.lease(), 10) };
        let claimed = store.claim_distillations(&claim).await.unwrap();
        claimed.into_iter().map(|claimed| (claimed.job.id, claimed.lost_harvesters)).collect::<Vec<_>>()
    };
    // Of two that are as suspect, the older one; and that again, for as long as it is driven.
    for _ in 0..2 {
        assert_eq!(trying("left", 1).await, [(jobs[1], 1), (jobs[3], 0)]);
        assert_eq!(trying("right", 1).await, [(jobs[2], 1)]);
    }
    assert_eq!(trying("third", 0).await, []);
    // The prompts of one that is suspect are its driver's.
    let leased = async |harvester: &str| {
        let mut leased = Vec::new();
        for (ids, place) in planned.iter().zip(0..) {
            let outcome = store.lease_prompts(ids, harvester, LONG).await.unwrap();
            assert_eq!(outcome.leased.len() + outcome.busy.len(), 1, "{outcome:?}");
            leased.extend(outcome.leased.iter().map(|_| place));
        }
        leased
    };
    assert_eq!(leased("right").await, [2, 3]);
    assert_eq!(leased("left").await, [1]);
    // One that comes further is not suspect any more, and makes room.
    store.clear_lost_harvesters(jobs[1]).await.unwrap();
    assert_eq!(trying("left", 1).await, [(jobs[0], 2), (jobs[1], 0), (jobs[3], 0)]);
    harness.outlive().await;
    assert_eq!(trying("alone", 2).await.len(), 4, "as many as the caller takes");
}

pub async fn the_teachers_result_is_written_with_its_event(harness: &dyn StoreHarness) {
    let store = harness.store();
    let accuracy = Accuracy::measure(40, 31, 39);
    for (measured, events) in [(Some(accuracy), 1), (None, 0)] {
        let job = job_in(harness, Harvesting).await;
        let before = kinds(store.as_ref(), job).await;
        store.record_teacher(job, measured, 12.5).await.unwrap();
        let record = store.distillation(job).await.unwrap();
        assert_eq!((record.teacher_accuracy, record.seconds.harvest), (measured, 12.5));
        let expected = vec![EventKind::TeacherMeasured { accuracy }; events];
        assert_eq!(kinds(store.as_ref(), job).await[before.len()..], expected);
    }
}

pub async fn events_are_numbered_and_come_back_whole(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, other) = (job_in(harness, Queued).await, job_in(harness, Queued).await);
    let (run, accuracy) = (RunId::generate(), Accuracy::measure(20, 11, 19));
    let appended = [
        EventKind::TrainingProgress {
            run,
            step: 10,
            steps: 2_000,
            metrics: vec![("loss_label".to_owned(), 0.1 + 0.2), ("loss_rationale".to_owned(), 1e-12)],
        },
        EventKind::Evaluated { run, step: 10, split: "validation".to_owned(), accuracy },
        EventKind::TeacherMeasured { accuracy },
        EventKind::Published { model: ModelId::generate(), name: "sums é".to_owned(), version: 3 },
        moved(Queued, Failed, "a \"quoted\" reason"),
    ];
    for (kind, sequence) in appended.iter().zip(2..) {
        assert_eq!(store.append_event(job, kind.clone()).await.unwrap(), sequence);
        assert_eq!(store.append_event(other, kind.clone()).await.unwrap(), sequence, "each job counts alone");
    }
    assert_eq!(kinds(store.as_ref(), job).await[1..], appended);
    for (after, limit, expected) in
        [(0, 100, 1..7), (0, 2, 1..3), (2, 3, 3..6), (5, 100, 6..7), (6, 100, 0..0), (99, 1, 0..0)]
    {
        let events: Vec<Event> = store.events(job, after, limit).await.unwrap();
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, expected.collect::<Vec<u64>>(), "after {after}, {limit} at most");
        assert!(events.iter().all(|event| event.at > Timestamp(0)), "each has its time: {events:?}");
    }
}

pub async fn progress_counts_prompts_and_the_verdicts_of_train_rows(harness: &dyn StoreHarness) {
    let store = harness.store();
    let evaluated = |row| NewPrompt { purpose: Purpose::Evaluate, ..question(row, 0) };
    let mut prompts: Vec<NewPrompt> = (0..6).map(|row| question(row, 0)).collect();
    prompts.extend([evaluated(0), evaluated(1)]);
    let harvest = harvest_of(store.as_ref(), spec(NAME), prompts).await;
    let ids = harvest.ids();
    assert_eq!(
        store.harvest_progress(harvest.job).await.unwrap(),
        HarvestProgress { prompts: [8, 0, 0, 0, 0], ..HarvestProgress::default() }
    );
    let leased = lease(harness, &[ids[0], ids[1], ids[2], ids[6], ids[3]]).await;
    let mut answers: Vec<_> = leased[..4].iter().map(answer).collect();
    for (place, verdict, reason) in [
        (1, Verdict::Rejected, Some(Reason::Disagrees)),
        (2, Verdict::Unjudged, None),
        (3, Verdict::Rejected, Some(Reason::NoAnswer)),
    ] {
        answers[place].verdict = verdict;
        answers[place].reason = reason;
    }
    store.record_harvest(answers).await.unwrap();
    let parked = lease_one(harness, ids[4]).await;
    store.end_calls(&[(call_of(&parked), CallEnd::Refused)]).await.unwrap();
    let parked = parked.prompt.attempt;
    let failure = AttemptFailure::Teacher { error: "no".to_owned(), failures_max: 1 };
    store.record_failure(ids[4], parked, failure).await.unwrap();
    let mut reasons = [0; 8];
    reasons[Reason::ALL.iter().position(|reason| *reason == Reason::Disagrees).unwrap()] = 1;
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    let expected = HarvestProgress {
        prompts: [2, 1, 4, 1, 0],
        verdicts: [1, 1, 1],
        reasons,
        calls: 4,
        cache_hits: 0,
        calls_paid_twice: 0,
        tokens_in: 4 * 30,
        tokens_out: 4 * 12,
        money_micros: 4 * 450,
        open: Amount::of(BOUND),
        in_doubt: Amount::default(),
        expected: 0,
        obstacle: String::new(),
    };
    assert_eq!(progress, expected, "the evaluated row's verdict is not counted");
}

pub async fn an_obstacle_is_that_of_a_harvesting_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Harvesting).await;
    let noted = async || store.harvest_progress(job).await.unwrap().obstacle;
    assert_eq!(noted().await, "");
    for words in ["teacher `local` refuses calls (429)", "teacher `local` refuses calls (429)", ""] {
        store.note_obstacle(job, words).await.unwrap();
        assert_eq!(noted().await, words);
    }
    store.note_obstacle(job, "away").await.unwrap();
    store.pause(job, "wait").await.unwrap();
    assert_eq!(noted().await, "", "a paused job waits for a person");
    store.note_obstacle(job, "gone").await.unwrap();
    store.resume(job).await.unwrap();
    assert_eq!(noted().await, "away", "as it was");
    store.note_obstacle(DistillationId::generate(), "nobody").await.unwrap();
}

pub async fn unknown_jobs_are_not_found(harness: &dyn StoreHarness) {
    let store = harness.store();
    let unknown = DistillationId::generate();
    not_found(store.distillation(unknown).await, unknown);
    not_found(store.plan_prompts(unknown, Vec::new()).await, unknown);
    not_found(store.pause(unknown, "").await, unknown);
    not_found(store.resume(unknown).await, unknown);
    not_found(store.cancel(unknown, "").await, unknown);
    not_found(store.delete_distillation(unknown).await, unknown);
    not_found(store.record_teacher(unknown, None, 0.0).await, unknown);
    not_found(store.append_event(unknown, moved(None, Queued, "")).await, unknown);
    not_found(store.harvest_progress(unknown).await, unknown);
    not_found(store.record_imported(unknown, Vec::new()).await, unknown);
    not_found(store.start_training(unknown, "ledger").await, unknown);
}

pub async fn a_cancelled_or_deleted_job_stops_its_trainer(harness: &dyn StoreHarness) {
    let store = harness.store();
    for state in [Training, Evaluating] {
        let job = job_in(harness, state).await;
        let run = store.distillation(job).await.unwrap().run.unwrap();
        let instruction = store.report_run(run, 1, 5, Vec::new(), LONG).await.unwrap();
        assert_eq!(instruction, RunInstruction::Continue);
        store.cancel(job, "not wanted").await.unwrap();
        for _report in 0..2 {
            let instruction = store.report_run(run, 1, 6, Vec::new(), LONG).await.unwrap();
            assert_eq!(instruction, RunInstruction::Cancel, "{state}");
        }
        store.delete_distillation(job).await.unwrap();
        match store.report_run(run, 1, 7, Vec::new(), LONG).await {
            Ok(RunInstruction::Cancel) => {}
            other => not_found(other, run),
        }
    }
}
