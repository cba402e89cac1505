//! Specifications, rows, prompts and answers to test with, and jobs brought to the stage a test begins at.
//!
//! Every helper panics where the store refuses: a fixture that cannot be made is a failed test.

use crate::harness::{Store, StoreHarness};
use domain::budget::{CallBound, CallEnd, Usage};
use domain::completion::{FinishReason, Parsed};
use domain::ids::{CallId, CompletionKey, DatasetId, DistillationId, PromptId, RequestId, RunId};
use domain::metric::Accuracy;
use domain::ports::{CallGrant, CallRequest, Claim, PLAN_MAX, QueuedPrompt};
use domain::ports::{StoreError, StoreResult};
use domain::records::{
    Completion, Dataset, Distillation, Harvested, LeasedPrompt, LeasedRun, NewDistillation, NewPrompt, Run,
};
use domain::run::RunResult;
use domain::spec::{Budget, Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft};
use domain::state::{DistillationState, Purpose, Verdict};
use domain::{Example, Spec, Task};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

/// Tokens that a call of [`question`] reserves.
pub const TOKENS_RESERVED: u64 = 100;
/// Money that a call of [`question`] reserves.
pub const MONEY_RESERVED: u64 = 1_000;
/// Tokens of [`completion`], in and out.
pub const TOKENS_USED: (u64, u64) = (30, 12);
/// What [`completion`] cost.
pub const MONEY_USED: u64 = 450;
/// The most that a call of [`question`] can cost.
pub const BOUND: CallBound = CallBound { tokens: TOKENS_RESERVED, money_micros: MONEY_RESERVED };
/// What a call costs that brings [`completion`].
pub const USAGE: Usage =
    Usage { tokens_in: TOKENS_USED.0, tokens_out: TOKENS_USED.1, money_micros: MONEY_USED };
/// The name of every job whose name does not matter.
pub const NAME: &str = "sums";

/// A specification of that name that asks a teacher about sums.
pub fn spec(name: &str) -> Spec {
    let draft = Draft {
        name: name.to_owned(),
        task: Task::built_in("equation").unwrap(),
        teacher: TeacherDraft { profile: Some("local".to_owned()), ..TeacherDraft::default() },
        judging: JudgingDraft::default(),
        student: StudentDraft::default(),
        training: TrainingDraft::default(),
    };
    draft.resolve().unwrap()
}

/// The same with limits on what may be spent.
pub fn spec_within(budget: Budget) -> Spec {
    let mut spec = spec(NAME);
    spec.teacher.as_mut().unwrap().budget = budget;
    spec
}

/// The train row that stands at `index`, with its sum as label.
pub fn row(index: u64) -> Example {
    Example {
        key: Some(format!("row-{index}")),
        input: format!("What is {index} + 1?"),
        label: Some(format!("({index} + 1)")),
        ..Example::default()
    }
}

/// So many train rows.
pub fn rows(count: u64) -> Vec<Example> {
    (0..count).map(row).collect()
}

/// A committed dataset of these rows.
pub async fn dataset(store: &dyn Store, rows: Vec<Example>) -> Dataset {
    let fingerprint = RequestId::generate().to_string();
    committed(store, "numbers", rows, &fingerprint).await
}

/// A committed dataset with everything of the caller's choice.
pub async fn committed(store: &dyn Store, name: &str, rows: Vec<Example>, fingerprint: &str) -> Dataset {
    let staged = store.create_dataset(RequestId::generate(), name).await.unwrap();
    store.append_rows(staged.id, 0, rows).await.unwrap();
    store.commit_dataset(staged.id, fingerprint).await.unwrap()
}

/// A job that waits to be planned.
pub async fn job(store: &dyn Store, spec: Spec, dataset: DatasetId) -> Distillation {
    store.create_distillation(new_job(spec, dataset)).await.unwrap()
}

/// What [`job`] asks the store to make.
pub fn new_job(spec: Spec, dataset: DatasetId) -> NewDistillation {
    NewDistillation {
        id: DistillationId::generate(),
        request: RequestId::generate(),
        spec,
        dataset,
        traceparent: String::new(),
    }
}

/// The prompts of entries, in their order.
pub fn prompts_of(work: Vec<QueuedPrompt>) -> Vec<PromptId> {
    work.into_iter().map(|work| work.prompt).collect()
}

/// A key that no other question has.
pub fn key() -> CompletionKey {
    CompletionKey::of(&[RequestId::generate().to_string().as_bytes()])
}

/// A question about a row that was not asked about before.
pub fn question(row: u64, sample: u32) -> NewPrompt {
    NewPrompt {
        id: PromptId::generate(),
        row,
        sample,
        profile: 0,
        hinted: false,
        purpose: Purpose::Train,
        key: key(),
        bound: BOUND,
    }
}

/// The same question asked by another job, or about another row.
pub fn same_question(other: &NewPrompt, row: u64) -> NewPrompt {
    NewPrompt { key: other.key, ..question(row, other.sample) }
}

/// What a teacher says, for [`MONEY_USED`] and [`TOKENS_USED`].
pub fn completion(key: CompletionKey, text: &str) -> Completion {
    Completion {
        key,
        text: text.to_owned(),
        finish_reason: FinishReason::Stop,
        model: "small-1".to_owned(),
        tokens_in: TOKENS_USED.0,
        tokens_out: TOKENS_USED.1,
        money_micros: MONEY_USED,
        seconds: 0.25,
    }
}

/// The call that is made for a lease: always the same one.
pub fn call_of(leased: &LeasedPrompt) -> CallId {
    let text = format!("{:032x}", leased.prompt.id.as_uuid().as_u128() ^ u128::from(leased.prompt.attempt));
    text.parse().unwrap()
}

/// The request for [`call_of`].
pub fn call_request(leased: &LeasedPrompt) -> CallRequest {
    let (prompt, attempt) = (leased.prompt.id, leased.prompt.attempt);
    CallRequest { call: call_of(leased), prompt, attempt, bound: BOUND }
}

/// Reserves the calls of leases whose answers are not known; all of them fit.
pub async fn reserve(store: &dyn Store, leased: &[LeasedPrompt]) {
    let uncached = leased.iter().filter(|leased| leased.cached.is_none());
    let requests: Vec<CallRequest> = uncached.map(call_request).collect();
    let grants = store.reserve_calls(&requests).await.unwrap();
    assert_eq!(grants, vec![CallGrant::Granted; requests.len()]);
}

/// What a worker brings back for a lease; a completion that came with the lease is not paid for again. The call is the one
/// of [`call_of`], where it was reserved.
pub fn answer(leased: &LeasedPrompt) -> Harvested {
    let prompt = &leased.prompt;
    let text = format!("We add one. The answer is ({} + 1).", prompt.row);
    let (completion, cached) = match &leased.cached {
        Some(completion) => (completion.clone(), true),
        None => (completion(prompt.key, &text), false),
    };
    Harvested {
        prompt: prompt.id,
        attempt: prompt.attempt,
        completion,
        cached,
        calls: if cached { Vec::new() } else { vec![(call_of(leased), CallEnd::Charged(USAGE))] },
        parsed: Parsed {
            rationale: "We add one.".to_owned(),
            label: Some(format!("({} + 1)", prompt.row)),
            reason: None,
        },
        verdict: Verdict::Accepted,
        reason: None,
    }
}

/// A job that harvests, and what it asks.
#[derive(Debug, Clone)]
pub struct Harvest {
    /// The job.
    pub job: DistillationId,
    /// Its rows.
    pub dataset: DatasetId,
    /// Its prompts, in the order of planning.
    pub prompts: Vec<NewPrompt>,
}

impl Harvest {
    /// The ids of its prompts, in the order of planning.
    pub fn ids(&self) -> Vec<PromptId> {
        self.prompts.iter().map(|prompt| prompt.id).collect()
    }
}

/// A harvest of so many rows, one prompt each.
pub async fn harvest(store: &dyn Store, rows: u64) -> Harvest {
    harvest_of(store, spec(NAME), (0..rows).map(|row| question(row, 0)).collect()).await
}

/// A harvest under `spec` that asks `prompts`, over as many rows as they need.
pub async fn harvest_of(store: &dyn Store, spec: Spec, prompts: Vec<NewPrompt>) -> Harvest {
    let last = prompts.iter().map(|prompt| prompt.row).max().unwrap_or(0);
    let dataset = dataset(store, rows(last + 1)).await.id;
    let job = job(store, spec, dataset).await.id;
    for part in prompts.chunks(PLAN_MAX) {
        store.plan_prompts(job, part.to_vec()).await.unwrap();
    }
    if prompts.is_empty() {
        store.plan_prompts(job, Vec::new()).await.unwrap();
    }
    Harvest { job, dataset, prompts }
}

/// Leases these prompts, all of them free, and reserves their calls.
pub async fn lease(harness: &dyn StoreHarness, prompts: &[PromptId]) -> Vec<LeasedPrompt> {
    let outcome = harness.store().lease_prompts(prompts, "worker", harness.lease()).await.unwrap();
    assert_eq!(outcome.leased.len(), prompts.len(), "all are leased: {outcome:?}");
    reserve(harness.store().as_ref(), &outcome.leased).await;
    outcome.leased
}

/// Leases one prompt, which is free, and reserves its call.
pub async fn lease_one(harness: &dyn StoreHarness, prompt: PromptId) -> LeasedPrompt {
    lease(harness, &[prompt]).await.remove(0)
}

/// Leases and answers these prompts.
pub async fn answer_all(harness: &dyn StoreHarness, prompts: &[PromptId]) {
    let answers = lease(harness, prompts).await.iter().map(answer).collect();
    let outcome = harness.store().record_harvest(answers).await.unwrap();
    assert_eq!(outcome.stored, prompts, "all are written");
}

/// A job of one row that trains, with its run waiting for a trainer.
pub async fn training(store: &dyn Store, name: &str) -> Run {
    let job = harvest_of(store, spec(name), Vec::new()).await.job;
    store.start_training(job, "ledger").await.unwrap()
}

/// Trainers that may be lost at a run in a row, and harvesters at a job.
pub const LOST_MAX: u64 = 3;

/// A claim of so many jobs, whatever was lost at them.
pub fn claim(harvester: &str, lease: Duration, jobs_max: usize) -> Claim<'_> {
    Claim { harvester, lease, jobs_max, suspects_max: jobs_max, lost_max: LOST_MAX }
}

/// Leases the run that waits.
pub async fn lease_run(harness: &dyn StoreHarness, trainer: &str) -> LeasedRun {
    harness.store().lease_run(trainer, harness.lease(), LOST_MAX).await.unwrap().expect("a run waits")
}

/// What a trainer publishes.
pub fn student(run: RunId) -> RunResult {
    RunResult {
        path: format!("models/{run}"),
        manifest_sha256: "5a".repeat(32),
        parameters: 1_000_000,
        validation: Some(Accuracy::measure(20, 15, 20)),
        test: Some(Accuracy::measure(40, 29, 38)),
        train_seconds: 12.5,
        evaluate_seconds: 2.25,
    }
}

/// A job brought to `state` by the calls that bring one there. Its run, where it has one, is leased under fence 1.
pub async fn job_in(harness: &dyn StoreHarness, state: DistillationState) -> DistillationId {
    use DistillationState::{Cancelled, Evaluating, Failed, Paused, Queued, Succeeded, Training};
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let job = job(store.as_ref(), spec(NAME), dataset).await.id;
    if state != Queued {
        store.plan_prompts(job, vec![question(0, 0)]).await.unwrap();
    }
    if [Training, Evaluating, Succeeded, Failed].contains(&state) {
        let run = store.start_training(job, "ledger").await.unwrap().id;
        assert_eq!(lease_run(harness, "trainer").await.run.id, run, "no other run waits");
        match state {
            Evaluating => store.start_evaluating(run, 1).await.unwrap(),
            Failed => store.fail_run(run, 1, "the loss is not finite").await.unwrap(),
            Succeeded => drop(store.publish_run(run, 1, student(run), Default::default()).await.unwrap()),
            _ => {}
        }
    }
    match state {
        Cancelled => drop(store.cancel(job, "not wanted").await.unwrap()),
        Paused => drop(store.pause(job, "out of quota").await.unwrap()),
        _ => {}
    }
    assert_eq!(store.distillation(job).await.unwrap().state, state);
    job
}

/// Calls `act` from so many tasks in the same instant, and returns what they came to, in order of their index.
pub async fn at_once<T, F>(tasks: usize, act: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(tasks));
    let spawn = |index| {
        let (start, acting) = (Arc::clone(&start), act(index));
        tokio::spawn(async move {
            start.wait().await;
            acting.await
        })
    };
    let spawned: Vec<_> = (0..tasks).map(spawn).collect();
    let mut results = Vec::with_capacity(tasks);
    for task in spawned {
        results.push(task.await.unwrap());
    }
    results
}

/// The words of a conflict; anything else fails the test.
#[track_caller]
pub fn conflict<T: Debug>(result: StoreResult<T>) -> String {
    match result {
        Err(StoreError::Conflict(words)) => words,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// The words of an invalid call; anything else fails the test.
#[track_caller]
pub fn invalid<T: Debug>(result: StoreResult<T>) -> String {
    match result {
        Err(StoreError::Invalid(words)) => words,
        other => panic!("expected an invalid call, got {other:?}"),
    }
}

/// That a thing does not exist, and that the error names it.
#[track_caller]
pub fn not_found<T: Debug>(result: StoreResult<T>, name: impl ToString) {
    match result {
        Err(StoreError::NotFound { id, .. }) => assert_eq!(id, name.to_string(), "the error names it"),
        other => panic!("expected {} not to be found, got {other:?}", name.to_string()),
    }
}

/// Whether `words` hold `number` as a number of its own.
pub fn names_number(words: &str, number: u64) -> bool {
    words.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == number.to_string())
}

/// More than any lease, and no number that overflows a clock.
pub const LONG: Duration = Duration::from_secs(24 * 3600);
