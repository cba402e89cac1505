//! Further runs over one ledger: created, leased, fenced, published, next to the final run of their job.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use super::runs::{check_refused, free_run, state};
use crate::fixtures::{NAME, conflict, job_in, lease_run, not_found, spec, student, training};
use crate::harness::{Store, StoreHarness};
use domain::event::EventKind;
use domain::ids::{DistillationId, RequestId, RunId};
use domain::ports::PageRequest;
use domain::records::{NewRun, Run};
use domain::run::{Outcomes, RunOutcomes, RunPlan, RunPurpose};
use domain::share::Share;
use domain::spec::{Judging, LabelSource};
use domain::state::{DistillationState, RunState};
use domain::subset::Subset;
use std::time::Duration;

use DistillationState::{Cancelled, Evaluating, Failed, Harvesting, Paused, Queued, Succeeded, Training};

/// Every purpose but the final one, with settings that differ from those of [`spec`].
fn plans() -> [RunPlan; 2] {
    let cell = RunPurpose::Cell { study: "curve".to_owned(), cell: "rows-0.25".to_owned() };
    [RunPurpose::Probe, cell].map(|purpose| {
        let mut spec = spec(NAME);
        spec.judging = Judging {
            label: LabelSource::Gold,
            agree: false,
            hint: domain::spec::Hint::Off,
            vote: false,
            vote_confidence: 1.0,
        };
        (spec.training.seed, spec.training.steps) = (u64::MAX, 7);
        RunPlan::new(purpose, Subset::new(0.25, u64::MAX - 1).unwrap(), &spec)
    })
}

fn new_run(job: DistillationId, plan: RunPlan) -> NewRun {
    NewRun {
        id: RunId::generate(),
        request: RequestId::generate(),
        distillation: job,
        plan,
        ledger_fingerprint: "accepted".to_owned(),
    }
}

async fn further(store: &dyn Store, job: DistillationId) -> Run {
    let [probe, _] = plans();
    store.create_run(new_run(job, probe)).await.unwrap()
}

async fn listed(store: &dyn Store, job: DistillationId) -> Vec<Run> {
    store.list_runs(job, &PageRequest { size: 100, cursor: None }).await.unwrap().items
}

/// All that a job is and all that happened to it.
async fn life(store: &dyn Store, job: DistillationId) -> String {
    let events = store.events(job, 0, 1_000).await.unwrap();
    let models = store.list_models(None, &PageRequest { size: 100, cursor: None }).await.unwrap();
    format!("{:?} {events:?} {models:?}", store.distillation(job).await.unwrap())
}

pub async fn a_ledger_takes_many_runs(harness: &dyn StoreHarness) {
    let store = harness.store();
    for before in [Training, Evaluating, Succeeded, Failed] {
        let job = job_in(harness, before).await;
        let unchanged = life(store.as_ref(), job).await;
        let fin = store.distillation(job).await.unwrap().run.unwrap();
        for plan in plans() {
            let new = new_run(job, plan.clone());
            let run = store.create_run(new.clone()).await.unwrap();
            let expected = Run {
                id: new.id,
                distillation: job,
                state: RunState::Pending,
                fence: 0,
                trainer: String::new(),
                step: 0,
                resume_path: String::new(),
                reason: String::new(),
                created_at: run.created_at,
                plan,
                ledger_fingerprint: "accepted".to_owned(),
                result: None,
            };
            assert_eq!(run, expected, "{before}");
            assert_eq!(store.run(run.id).await.unwrap(), expected, "{before}");
        }
        let purposes: Vec<(bool, RunId)> = listed(store.as_ref(), job)
            .await
            .iter()
            .map(|run| (run.plan.purpose.is_final(), run.id))
            .collect();
        assert_eq!(purposes.iter().filter(|(is_final, _)| *is_final).collect::<Vec<_>>(), [&(true, fin)]);
        assert_eq!(purposes.len(), 3, "{before}");
        assert_eq!(life(store.as_ref(), job).await, unchanged, "{before}: the job is as it was");
        store.cancel(job, "").await.map(drop).unwrap_or(());
        while free_run(harness).await.is_some() {}
    }
}

pub async fn a_repeated_request_makes_one_run(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let [probe, cell] = plans();
    let new = new_run(job, probe);
    let run = store.create_run(new.clone()).await.unwrap();
    let again = NewRun { id: RunId::generate(), plan: cell, ..new };
    assert_eq!(store.create_run(again).await.unwrap(), run, "what the first call made");
    assert_eq!(listed(store.as_ref(), job).await.len(), 2);
}

pub async fn a_further_run_is_leased_with_its_own_settings(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let run = further(store.as_ref(), job).await;
    harness.advance(Duration::from_millis(5)).await;
    let newer = training(store.as_ref(), NAME).await.id;
    let leased = lease_run(harness, "trainer").await;
    assert_eq!((leased.run.id, leased.run.fence), (run.id, 1), "the oldest first, whatever its purpose");
    assert_eq!(leased.run.plan, run.plan);
    let record = store.distillation(job).await.unwrap();
    assert_eq!(leased.spec, run.plan.spec(&record.spec));
    assert_eq!((leased.spec.training.steps, leased.spec.judging.agree), (7, false), "not those of the job");
    assert_eq!(leased.spec.task, record.spec.task);
    assert_eq!(leased.dataset, store.dataset(record.dataset).await.unwrap());
    assert_eq!(free_run(harness).await, Some(newer));
    assert_eq!(free_run(harness).await, None);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, Some(run.id), "a lease that ran out");
}

pub async fn a_further_run_ends_without_its_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    for before in [Training, Succeeded] {
        let job = job_in(harness, before).await;
        let run = further(store.as_ref(), job).await.id;
        let unchanged = life(store.as_ref(), job).await;
        assert_eq!(free_run(harness).await, Some(run));
        store.start_evaluating(run, 1).await.unwrap();
        let result = student(run);
        for call in ["the first", "one whose reply was lost"] {
            assert_eq!(
                store.publish_run(run, 1, result.clone(), Default::default()).await.unwrap(),
                None,
                "{call}: no model"
            );
        }
        let ended = store.run(run).await.unwrap();
        assert_eq!((ended.state, ended.trainer.as_str()), (RunState::Succeeded, ""));
        assert_eq!(ended.result, Some(result));
        assert_eq!(life(store.as_ref(), job).await, unchanged, "{before}: the job is as it was");
        assert_eq!(store.find_model(NAME, Some(2)).await.unwrap(), None, "no version of the job's model");
        store.delete_distillation(job).await.map(drop).unwrap_or(());
        store.cancel(job, "").await.map(drop).unwrap_or(());
    }
}

pub async fn a_further_run_that_fails_leaves_its_job(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let run = further(store.as_ref(), job).await.id;
    let unchanged = life(store.as_ref(), job).await;
    lease_run(harness, "trainer").await;
    store.fail_run(run, 1, "the loss is not finite").await.unwrap();
    let failed = store.run(run).await.unwrap();
    assert_eq!((failed.state, failed.reason.as_str()), (RunState::Failed, "the loss is not finite"));
    assert_eq!(life(store.as_ref(), job).await, unchanged);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, None, "it is not trained again");
}

pub async fn a_lost_lease_of_a_further_run_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Failed).await;
    let run = further(store.as_ref(), job).await.id;
    check_refused(store.as_ref(), run, 0, "before any lease").await;
    lease_run(harness, "first").await;
    harness.outlive().await;
    lease_run(harness, "second").await;
    check_refused(store.as_ref(), run, 1, "after another took it").await;
    store.release_run(run, 2).await.unwrap();
    check_refused(store.as_ref(), run, 2, "after it was handed back").await;
    assert_eq!(free_run(harness).await, Some(run), "and is free at once");
}

pub async fn further_runs_go_on_while_their_job_is_paused(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = training(store.as_ref(), NAME).await.distillation;
    let run = further(store.as_ref(), job).await.id;
    store.pause(job, "out of quota").await.unwrap();
    assert_eq!(free_run(harness).await, Some(run), "it asks no teacher");
    assert_eq!(free_run(harness).await, None, "the final run waits");
    assert_eq!(state(store.as_ref(), job).await, Paused);
}

pub async fn a_cancelled_job_ends_its_further_runs(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = training(store.as_ref(), NAME).await.distillation;
    let (leased, waiting) = (further(store.as_ref(), job).await.id, further(store.as_ref(), job).await.id);
    let done = [free_run(harness).await, free_run(harness).await];
    assert!(done.contains(&Some(leased)), "{done:?}");
    store.cancel(job, "not wanted").await.unwrap();
    for run in [leased, waiting] {
        assert_eq!(store.run(run).await.unwrap().state, RunState::Cancelled);
    }
    harness.outlive().await;
    assert_eq!(free_run(harness).await, None);
}

pub async fn a_ledger_that_still_grows_takes_no_run(harness: &dyn StoreHarness) {
    let store = harness.store();
    let [probe, _] = plans();
    for before in [Queued, Harvesting, Paused, Cancelled] {
        let job = job_in(harness, before).await;
        let words = conflict(store.create_run(new_run(job, probe.clone())).await);
        assert!(words.contains("its harvest is not over"), "{before}: {words}");
        assert_eq!(listed(store.as_ref(), job).await, []);
    }
    let unknown = DistillationId::generate();
    not_found(store.create_run(new_run(unknown, probe)).await, unknown);
    assert_eq!(free_run(harness).await, None);
}

pub async fn a_harvest_is_probed_over_a_share_of_its_rows(harness: &dyn StoreHarness) {
    let store = harness.store();
    let plan = RunPlan::probe(&spec(NAME), Share::Eighth);
    for before in [Queued, Training, Succeeded, Paused, Cancelled] {
        let job = job_in(harness, before).await;
        let words = conflict(store.create_run(new_run(job, plan.clone())).await);
        assert!(words.contains("it does not harvest"), "{before}: {words}");
        store.cancel(job, "").await.map(drop).unwrap_or(());
        while free_run(harness).await.is_some() {}
    }
    let job = job_in(harness, Harvesting).await;
    let unchanged = store.distillation(job).await.unwrap();
    let events = store.events(job, 0, 1_000).await.unwrap().len();
    let new = new_run(job, plan.clone());
    for call in ["the first", "one whose reply was lost"] {
        let run = store.create_run(NewRun { id: new.id, ..new.clone() }).await.unwrap();
        assert_eq!((run.id, run.plan), (new.id, plan.clone()), "{call}");
    }
    let since = store.events(job, events as u64, 1_000).await.unwrap();
    let kinds: Vec<EventKind> = since.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Probing { run: new.id, share: Share::Eighth }], "said once");
    assert_eq!(
        store.outcomes(new.id).await.unwrap(),
        RunOutcomes::default(),
        "nothing before it is published"
    );
    let leased = lease_run(harness, "trainer").await;
    assert_eq!((leased.run.id, leased.run.plan), (new.id, plan), "while its job harvests");
    let validation = Outcomes { right: vec![1, 1 << 40], wrong: vec![2] };
    let outcomes = RunOutcomes { validation, needed: vec![0, 7] };
    let result = student(new.id);
    conflict(store.publish_run(new.id, 0, result.clone(), outcomes.clone()).await);
    assert_eq!(store.outcomes(new.id).await.unwrap(), RunOutcomes::default(), "a lost lease writes nothing");
    assert_eq!(store.publish_run(new.id, 1, result.clone(), outcomes.clone()).await.unwrap(), None);
    let later = store.publish_run(new.id, 1, result, RunOutcomes::default()).await.unwrap();
    assert_eq!((later, store.outcomes(new.id).await.unwrap()), (None, outcomes), "the first call counts");
    assert_eq!(store.distillation(job).await.unwrap(), unchanged, "the job goes on harvesting");
    let unknown = RunId::generate();
    not_found(store.outcomes(unknown).await, unknown);
}

pub async fn a_dataset_stays_while_a_further_run_waits(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let dataset = store.distillation(job).await.unwrap().dataset;
    let run = further(store.as_ref(), job).await.id;
    conflict(store.delete_dataset(dataset).await);
    lease_run(harness, "trainer").await;
    conflict(store.delete_dataset(dataset).await);
    store.publish_run(run, 1, student(run), Default::default()).await.unwrap();
    store.delete_dataset(dataset).await.unwrap();
    let [probe, _] = plans();
    let words = conflict(store.create_run(new_run(job, probe)).await);
    assert!(words.contains("was deleted"), "{words}");
}

pub async fn a_deleted_job_names_the_runs_that_no_model_came_from(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let (done, waiting) = (further(store.as_ref(), job).await.id, further(store.as_ref(), job).await.id);
    harness.advance(Duration::from_millis(5)).await;
    assert_eq!(free_run(harness).await, Some(done));
    store.publish_run(done, 1, student(done), Default::default()).await.unwrap();
    let fin = store.distillation(job).await.unwrap().run.unwrap();
    let orphaned = store.delete_distillation(job).await.unwrap();
    assert_eq!(orphaned, [done, waiting], "not that of the model");
    for run in [fin, done, waiting] {
        not_found(store.run(run).await, run);
    }
}

pub async fn runs_are_listed_newest_first(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Succeeded).await;
    let mut expected = vec![store.distillation(job).await.unwrap().run.unwrap()];
    for _run in 0..4 {
        harness.advance(Duration::from_millis(5)).await;
        expected.insert(0, further(store.as_ref(), job).await.id);
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.list_runs(job, &PageRequest { size: 2, cursor }).await.unwrap();
        found.extend(page.items.iter().map(|run| run.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
}
