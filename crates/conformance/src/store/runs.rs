//! The final run of a job: leased, fenced, reported on, published.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    LOST_MAX, NAME, conflict, invalid, job_in, lease_run, names_number, not_found, spec, student, training,
};
use crate::harness::{Store, StoreHarness};
use domain::event::EventKind;
use domain::ids::{DistillationId, RunId};
use domain::lifecycle::RunInstruction;
use domain::ports::{BATCH_MAX, PageRequest, StoreResult};
use domain::records::{MetricPoint, Model, Run};
use domain::run::RunPlan;
use domain::state::{DistillationState, RunState};
use std::time::Duration;

use DistillationState::{Cancelled, Evaluating, Failed, Harvesting, Paused, Queued, Succeeded, Training};

pub(super) async fn state(store: &dyn Store, job: DistillationId) -> DistillationState {
    store.distillation(job).await.unwrap().state
}

async fn last_event(store: &dyn Store, job: DistillationId) -> EventKind {
    store.events(job, 0, 1_000).await.unwrap().pop().unwrap().kind
}

fn moved(from: DistillationState, to: DistillationState, reason: &str) -> EventKind {
    EventKind::StateChanged { from: Some(from), to, reason: reason.to_owned() }
}

fn point(step: u64, name: &str, value: f64) -> MetricPoint {
    MetricPoint { step, name: name.to_owned(), value }
}

pub(super) async fn free_run(harness: &dyn StoreHarness) -> Option<RunId> {
    harness.store().lease_run("other", harness.lease(), LOST_MAX).await.unwrap().map(|leased| leased.run.id)
}

pub async fn training_starts_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, Harvesting).await;
    let run = store.start_training(job, "ledger-1").await.unwrap();
    let expected = Run {
        id: run.id,
        distillation: job,
        state: RunState::Pending,
        fence: 0,
        trainer: String::new(),
        step: 0,
        resume_path: String::new(),
        reason: String::new(),
        created_at: run.created_at,
        plan: RunPlan::of_job(&spec(NAME)),
        ledger_fingerprint: "ledger-1".to_owned(),
        result: None,
    };
    assert_eq!(run, expected);
    let record = store.distillation(job).await.unwrap();
    assert_eq!((record.state, record.run), (Training, Some(run.id)));
    assert_eq!(last_event(store.as_ref(), job).await, moved(Harvesting, Training, ""));
    let events = store.events(job, 0, 100).await.unwrap().len();
    assert_eq!(store.start_training(job, "ledger-2").await.unwrap(), run, "the same run");
    let leased = lease_run(harness, "trainer").await;
    assert_eq!(leased.run.ledger_fingerprint, "ledger-1", "of the first call");
    assert_eq!(store.start_training(job, "ledger-1").await.unwrap().id, run.id);
    assert_eq!(store.events(job, 0, 100).await.unwrap().len(), events, "nothing happened twice");
}

pub async fn only_a_harvesting_job_starts_to_train(harness: &dyn StoreHarness) {
    let store = harness.store();
    for before in [Queued, Cancelled, Paused] {
        let job = job_in(harness, before).await;
        let words = conflict(store.start_training(job, "ledger").await);
        assert!(words.contains(before.as_str()), "{before}: {words}");
        let record = store.distillation(job).await.unwrap();
        assert_eq!((record.state, record.run), (before, None));
    }
    assert_eq!(free_run(harness).await, None, "no run was made");
}

pub async fn a_leased_run_brings_what_a_trainer_needs(harness: &dyn StoreHarness) {
    let store = harness.store();
    assert_eq!(free_run(harness).await, None, "there is none");
    let run = training(store.as_ref(), "sums").await;
    let leased = lease_run(harness, "trainer-1").await;
    let expected = Run { state: RunState::Leased, fence: 1, trainer: "trainer-1".to_owned(), ..run.clone() };
    assert_eq!(leased.run, expected);
    assert_eq!(store.run(run.id).await.unwrap(), expected);
    let job = store.distillation(run.distillation).await.unwrap();
    assert_eq!(leased.spec, job.spec);
    assert_eq!(leased.dataset, store.dataset(job.dataset).await.unwrap());
    assert_eq!(leased.run.ledger_fingerprint, "ledger");
}

pub async fn the_oldest_run_is_leased_first(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut runs = Vec::new();
    for _run in 0..3 {
        runs.push(training(store.as_ref(), NAME).await.id);
        harness.advance(Duration::from_millis(5)).await;
    }
    for run in &runs {
        assert_eq!(free_run(harness).await, Some(*run));
    }
    assert_eq!(free_run(harness).await, None, "all are leased");
    harness.outlive().await;
    for run in &runs {
        assert_eq!(free_run(harness).await, Some(*run), "leases that ran out");
        assert_eq!(store.run(*run).await.unwrap().fence, 2, "the fence grows by one");
    }
}

pub async fn a_report_prolongs_the_lease_and_writes_numbers(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    lease_run(harness, "trainer").await;
    for step in 1..=3 {
        harness.advance(harness.lease() / 2 + Duration::from_millis(1)).await;
        let metrics = vec![point(step, "loss_label", 1.0 / step as f64)];
        let instruction = store.report_run(run, 1, step, metrics, harness.lease()).await.unwrap();
        assert_eq!(instruction, RunInstruction::Continue);
        assert_eq!(free_run(harness).await, None, "kept alive at step {step}");
    }
    assert_eq!(store.run(run).await.unwrap().step, 3);
    assert_eq!(store.metrics(run, None, 10).await.unwrap().len(), 3);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, Some(run), "and given away when it is silent");
}

/// What a trainer says under `fence`; each is refused, and changes nothing.
pub(super) async fn check_refused(store: &dyn Store, run: RunId, fence: u64, why: &str) {
    let before = store.run(run).await.unwrap();
    let job = store.distillation(before.distillation).await.unwrap();
    let events = store.events(job.id, 0, 1_000).await.unwrap();
    let metrics = vec![point(99, "loss_label", 9.0)];
    let refusals: Vec<(&str, StoreResult<String>)> = vec![
        (
            "report",
            store
                .report_run(run, fence, 99, metrics, Duration::from_secs(60))
                .await
                .map(|told| format!("{told:?}")),
        ),
        (
            "resume point",
            store.save_resume_point(run, fence, 99, "stale").await.map(|orphan| format!("{orphan:?}")),
        ),
        ("evaluate", store.start_evaluating(run, fence).await.map(|()| String::new())),
        (
            "publish",
            store
                .publish_run(run, fence, student(run), Default::default())
                .await
                .map(|model| format!("{model:?}")),
        ),
        ("fail", store.fail_run(run, fence, "stale").await.map(|()| String::new())),
        ("release", store.release_run(run, fence).await.map(|()| String::new())),
    ];
    for (call, refused) in refusals {
        assert!(matches!(refused, Err(domain::ports::StoreError::Conflict(_))), "{call} {why}: {refused:?}");
    }
    assert_eq!(store.run(run).await.unwrap(), before, "{why}");
    assert_eq!(store.distillation(job.id).await.unwrap(), job, "{why}");
    assert_eq!(store.events(job.id, 0, 1_000).await.unwrap(), events, "{why}");
    let metrics = store.metrics(run, None, 100).await.unwrap();
    assert!(metrics.iter().all(|point| point.step < 99), "{why}: {metrics:?}");
    let models = store.list_models(None, &PageRequest { size: 10, cursor: None }).await.unwrap();
    assert_eq!(models.items, [], "{why}: nothing is published");
}

pub async fn a_lost_lease_changes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    check_refused(store.as_ref(), run, 0, "before any lease").await;
    lease_run(harness, "first").await;
    check_refused(store.as_ref(), run, 0, "before the lease").await;
    check_refused(store.as_ref(), run, 2, "of a lease to come").await;
    store.report_run(run, 1, 3, vec![point(3, "loss_label", 0.5)], harness.lease()).await.unwrap();
    harness.outlive().await;
    lease_run(harness, "second").await;
    check_refused(store.as_ref(), run, 1, "after another took it").await;
    let words = conflict(store.release_run(run, 1).await);
    assert!(names_number(&words, 1), "the fence is named: {words}");
    store.release_run(run, 2).await.unwrap();
    check_refused(store.as_ref(), run, 2, "after it was handed back").await;
    lease_run(harness, "third").await;
    store.fail_run(run, 3, "not finite").await.unwrap();
    check_refused(store.as_ref(), run, 3, "after it failed").await;
}

pub async fn a_cancelled_run_publishes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    lease_run(harness, "trainer").await;
    store.cancel(run.distillation, "not wanted").await.unwrap();
    assert_eq!(store.run(run.id).await.unwrap().state, RunState::Cancelled);
    conflict(store.publish_run(run.id, 1, student(run.id), Default::default()).await);
    conflict(store.save_resume_point(run.id, 1, 1, "late").await);
    conflict(store.start_evaluating(run.id, 1).await);
    conflict(store.fail_run(run.id, 1, "late").await);
    conflict(store.release_run(run.id, 1).await);
    conflict(store.report_run(run.id, 0, 1, Vec::new(), harness.lease()).await);
    assert_eq!(store.find_model(NAME, None).await.unwrap(), None);
    assert_eq!(state(store.as_ref(), run.distillation).await, Cancelled);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, None, "it is not trained any more");
}

pub async fn a_paused_jobs_run_waits(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (first, second) = (training(store.as_ref(), NAME).await, training(store.as_ref(), NAME).await);
    store.pause(first.distillation, "").await.unwrap();
    assert_eq!(free_run(harness).await, Some(second.id), "the next one is not held up");
    assert_eq!(free_run(harness).await, None);
    store.resume(first.distillation).await.unwrap();
    assert_eq!(free_run(harness).await, Some(first.id));
}

pub async fn the_newest_resume_point_orphans_the_one_before(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    lease_run(harness, "first").await;
    assert_eq!(store.save_resume_point(run, 1, 100, "resume/100").await.unwrap(), None);
    let orphan = store.save_resume_point(run, 1, 200, "resume/200").await.unwrap();
    assert_eq!(orphan.as_deref(), Some("resume/100"));
    let again = store.save_resume_point(run, 1, 200, "resume/200").await.unwrap();
    assert_eq!(again, None, "what it points at is no orphan");
    harness.outlive().await;
    let leased = lease_run(harness, "second").await.run;
    assert_eq!(
        (leased.step, leased.resume_path.as_str()),
        (200, "resume/200"),
        "the next one continues there"
    );
    let orphan = store.save_resume_point(run, 2, 300, "resume/300").await.unwrap();
    assert_eq!(orphan.as_deref(), Some("resume/200"));
    assert_eq!(store.run(run).await.unwrap().resume_path, "resume/300");
}

pub async fn evaluation_starts_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    lease_run(harness, "trainer").await;
    store.start_evaluating(run.id, 1).await.unwrap();
    assert_eq!(state(store.as_ref(), run.distillation).await, Evaluating);
    assert_eq!(last_event(store.as_ref(), run.distillation).await, moved(Training, Evaluating, ""));
    let events = store.events(run.distillation, 0, 100).await.unwrap();
    store.start_evaluating(run.id, 1).await.unwrap();
    assert_eq!(store.events(run.distillation, 0, 100).await.unwrap(), events);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, Some(run.id), "a trainer that died in its evaluation is replaced");
}

pub async fn a_publication_ends_run_and_job_and_can_be_repeated(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    lease_run(harness, "trainer").await;
    store.start_evaluating(run.id, 1).await.unwrap();
    let new = student(run.id);
    let model = store.publish_run(run.id, 1, new.clone(), Default::default()).await.unwrap().unwrap();
    let expected = Model {
        id: model.id,
        name: NAME.to_owned(),
        version: 1,
        distillation: run.distillation,
        run: run.id,
        path: new.path.clone(),
        manifest_sha256: new.manifest_sha256.clone(),
        parameters: new.parameters,
        validation: new.validation,
        test: new.test,
        created_at: model.created_at,
        traceparent: String::new(),
    };
    assert_eq!(model, expected);
    let job = store.distillation(run.distillation).await.unwrap();
    assert_eq!((job.state, job.model), (Succeeded, Some(model.id)));
    assert_eq!((job.seconds.train, job.seconds.evaluate), (12.5, 2.25));
    let ended = store.run(run.id).await.unwrap();
    assert_eq!((ended.state, ended.trainer.as_str()), (RunState::Succeeded, ""));
    assert_eq!(ended.result, Some(new.clone()), "the run keeps what it came to");
    let events = store.events(job.id, 0, 100).await.unwrap();
    let published = EventKind::Published { model: model.id, name: NAME.to_owned(), version: 1 };
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind.clone()).collect();
    assert!(kinds.ends_with(&[published, moved(Evaluating, Succeeded, "")]), "{kinds:?}");
    assert_eq!(
        store.publish_run(run.id, 1, new, Default::default()).await.unwrap().unwrap(),
        model,
        "the answer was lost"
    );
    assert_eq!(store.events(job.id, 0, 100).await.unwrap(), events);
    let models = store.list_models(None, &PageRequest { size: 10, cursor: None }).await.unwrap();
    assert_eq!(models.items, [model], "one model");
    conflict(store.publish_run(run.id, 0, student(run.id), Default::default()).await);
    harness.outlive().await;
    assert_eq!(free_run(harness).await, None);
}

pub async fn a_student_without_accuracies_is_published(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    lease_run(harness, "trainer").await;
    let new = domain::run::RunResult { validation: None, test: None, ..student(run) };
    let model = store.publish_run(run, 1, new, Default::default()).await.unwrap().unwrap();
    assert_eq!((model.validation, model.test), (None, None));
    assert_eq!(store.model(model.id).await.unwrap(), model);
}

pub async fn versions_count_up_by_name(harness: &dyn StoreHarness) {
    let store = harness.store();
    for (name, version) in [("sums", 1), ("words", 1), ("sums", 2), ("sums", 3), ("words", 2)] {
        let run = training(store.as_ref(), name).await.id;
        lease_run(harness, "trainer").await;
        let model = store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap();
        assert_eq!((model.name.as_str(), model.version), (name, version));
    }
}

pub async fn a_failed_run_can_be_resumed(harness: &dyn StoreHarness) {
    let store = harness.store();
    for evaluating in [false, true] {
        let run = training(store.as_ref(), NAME).await;
        lease_run(harness, "trainer").await;
        store.save_resume_point(run.id, 1, 100, "resume/100").await.unwrap();
        if evaluating {
            store.start_evaluating(run.id, 1).await.unwrap();
        }
        store.fail_run(run.id, 1, "the disk is full").await.unwrap();
        let failed = store.run(run.id).await.unwrap();
        assert_eq!((failed.state, failed.reason.as_str()), (RunState::Failed, "the disk is full"));
        let job = store.distillation(run.distillation).await.unwrap();
        assert_eq!((job.state, job.reason.as_str()), (Failed, "the disk is full"));
        harness.outlive().await;
        assert_eq!(free_run(harness).await, None, "a failed run waits for a person");
        let job = store.resume(run.distillation).await.unwrap();
        assert_eq!((job.state, job.reason.as_str()), (Training, ""), "its evaluation begins anew");
        let pending = store.run(run.id).await.unwrap();
        assert_eq!((pending.state, pending.reason.as_str()), (RunState::Pending, ""));
        let leased = lease_run(harness, "other").await.run;
        assert_eq!((leased.id, leased.fence), (run.id, 2));
        assert_eq!((leased.step, leased.resume_path.as_str()), (100, "resume/100"), "nothing is lost");
        store.publish_run(run.id, 2, student(run.id), Default::default()).await.unwrap().unwrap();
    }
}

/// A run at which trainers are lost one after the other fails, and holds up no other; each step forward begins the count anew.
pub async fn a_run_that_loses_its_trainers_fails(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    let (job, run) = (run.distillation, run.id);
    let lease = || async { store.lease_run("trainer", harness.lease(), LOST_MAX).await.unwrap() };
    for step in [0, 0, 3, 3, 2] {
        let leased = lease().await.unwrap();
        assert_eq!(leased.run.id, run, "at step {step}");
        store.report_run(run, leased.run.fence, step, vec![], harness.lease()).await.unwrap();
        harness.outlive().await;
    }
    // The third in a row since step 3: the run fails, and its job with it.
    assert!(lease().await.is_none());
    let failed = store.run(run).await.unwrap();
    assert_eq!(failed.state, RunState::Failed);
    assert!(failed.reason.starts_with("3 trainers in a row were lost"), "{}", failed.reason);
    assert!(failed.reason.contains("behind step 3"), "{}", failed.reason);
    assert_eq!(state(store.as_ref(), job).await, Failed);
    // Resumed, it has its chances again; a lease that is handed back is not a lost one.
    store.resume(job).await.unwrap();
    for _ in 0..4 {
        let leased = lease().await.unwrap();
        store.release_run(run, leased.run.fence).await.unwrap();
    }
    for _ in 0..2 {
        assert!(lease().await.is_some());
        harness.outlive().await;
    }
    assert!(lease().await.is_some());
    assert_eq!(state(store.as_ref(), job).await, Training);
}

pub async fn a_released_run_is_free_at_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    lease_run(harness, "first").await;
    store.save_resume_point(run.id, 1, 100, "resume/100").await.unwrap();
    store.release_run(run.id, 1).await.unwrap();
    let free = store.run(run.id).await.unwrap();
    assert_eq!((free.state, free.trainer.as_str(), free.step), (RunState::Pending, "", 100));
    assert_eq!(state(store.as_ref(), run.distillation).await, Training);
    let leased = lease_run(harness, "second").await.run;
    assert_eq!((leased.id, leased.fence, leased.resume_path.as_str()), (run.id, 2, "resume/100"));
}

pub async fn metrics_are_in_order_of_step_and_filtered_by_name(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    let other = training(store.as_ref(), NAME).await.id;
    for leased in [run, other] {
        assert_eq!(free_run(harness).await, Some(leased));
    }
    let first = vec![point(20, "loss_label", 0.5), point(20, "accuracy", 0.1 + 0.2)];
    let earlier = vec![point(10, "loss_label", 1e300), point(10, "accuracy", -0.0)];
    store.report_run(run, 1, 20, first, harness.lease()).await.unwrap();
    store.report_run(run, 1, 20, earlier, harness.lease()).await.unwrap();
    store.report_run(other, 1, 1, vec![point(1, "loss_label", 7.0)], harness.lease()).await.unwrap();
    // A step that is trained again after a crash writes its numbers again.
    store.report_run(run, 1, 20, vec![point(20, "loss_label", 0.25)], harness.lease()).await.unwrap();
    let (low, high) = (point(10, "loss_label", 1e300), point(20, "loss_label", 0.25));
    assert_eq!(store.metrics(run, Some("loss_label"), 100).await.unwrap(), [low.clone(), high]);
    assert_eq!(store.metrics(run, Some("loss_label"), 1).await.unwrap(), [low], "the limit cuts the end");
    assert_eq!(store.metrics(run, Some("loss"), 100).await.unwrap(), [], "a name is matched whole");
    let all = store.metrics(run, None, 100).await.unwrap();
    let steps: Vec<u64> = all.iter().map(|point| point.step).collect();
    assert_eq!(steps, [10, 10, 20, 20], "{all:?}");
    assert!(all.contains(&point(20, "accuracy", 0.1 + 0.2)), "to the last bit: {all:?}");
}

pub async fn a_whole_learning_curve_is_read_at_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await.id;
    lease_run(harness, "trainer").await;
    let count = BATCH_MAX as u64 + 200;
    for from in [0, 600] {
        let points = (from..from + 600).map(|step| point(step, "loss_label", step as f64)).collect();
        store.report_run(run, 1, from + 600, points, harness.lease()).await.unwrap();
    }
    let curve = store.metrics(run, None, 100_000).await.unwrap();
    assert!(curve.iter().map(|point| point.step).eq(0..count), "{} points", curve.len());
}

pub async fn numbers_that_are_not_finite_do_no_damage(harness: &dyn StoreHarness) {
    let store = harness.store();
    let run = training(store.as_ref(), NAME).await;
    lease_run(harness, "trainer").await;
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bad = vec![point(1, "loss_label", 0.5), point(1, "loss_rationale", value)];
        invalid(store.report_run(run.id, 1, 1, bad, harness.lease()).await);
        assert_eq!(store.metrics(run.id, None, 10).await.unwrap(), [], "{value}: nothing is written");
        let metrics = vec![("loss_label".to_owned(), value)];
        let kind = EventKind::TrainingProgress { run: run.id, step: 1, steps: 10, metrics };
        invalid(store.append_event(run.distillation, kind).await);
        assert_eq!(store.events(run.distillation, 0, 10).await.unwrap().len(), 3, "{value}: all can be read");
    }
    let good = vec![point(1, "loss_label", 0.5)];
    let instruction = store.report_run(run.id, 1, 1, good, harness.lease()).await.unwrap();
    assert_eq!(instruction, RunInstruction::Continue);
}

pub async fn unknown_runs_are_not_found(harness: &dyn StoreHarness) {
    let store = harness.store();
    let unknown = RunId::generate();
    not_found(store.run(unknown).await, unknown);
    not_found(store.save_resume_point(unknown, 1, 1, "path").await, unknown);
    not_found(store.start_evaluating(unknown, 1).await, unknown);
    not_found(store.publish_run(unknown, 1, student(unknown), Default::default()).await, unknown);
    not_found(store.fail_run(unknown, 1, "").await, unknown);
    not_found(store.release_run(unknown, 1).await, unknown);
}
