//! Forgetting: answers that are asked for again on purpose, and nothing that is lost by it.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    Harvest, NAME, answer, answer_all, completion, conflict, harvest, harvest_of, job_in, key, lease,
    lease_one, not_found, prompts_of, question, rows, same_question, spec,
};
use crate::harness::{Store, StoreHarness};
use domain::fingerprint::successor;
use domain::ids::{CompletionKey, DistillationId, PromptId, RequestId};
use domain::ports::{
    Address, AttemptFailure, BATCH_MAX, ForgetOutcome, LedgerFilter, StoreError, StoreResult,
};
use domain::records::{Harvested, LedgerEntry, NewPrompt};
use domain::spec::TeacherSource;
use domain::state::{DistillationState, PromptState, Reason, Verdict};

async fn entries(store: &dyn Store, job: DistillationId) -> Vec<LedgerEntry> {
    store.ledger(job, &LedgerFilter::default(), 1_000).await.unwrap()
}

async fn forget(store: &dyn Store, job: DistillationId, filter: &LedgerFilter) -> StoreResult<ForgetOutcome> {
    store.forget(RequestId::generate(), job, filter).await
}

fn because(reasons: &[Reason]) -> LedgerFilter {
    LedgerFilter { reasons: reasons.to_vec(), ..LedgerFilter::default() }
}

/// Six rows: the odd ones are rejected, 1 and 5 because there is no answer and 3 because it disagrees; row 4 is answered
/// by another model, and row 0 is not answered at all.
async fn judged(harness: &dyn StoreHarness) -> Harvest {
    let harvest = harvest(harness.store().as_ref(), 6).await;
    let mut answers: Vec<Harvested> = lease(harness, &harvest.ids()[1..]).await.iter().map(answer).collect();
    for (answer, reason) in [(0, Reason::NoAnswer), (2, Reason::Disagrees), (4, Reason::NoAnswer)] {
        let answer = &mut answers[answer];
        (answer.verdict, answer.reason) = (Verdict::Rejected, Some(reason));
        answer.parsed.label = None;
    }
    answers[3].completion.model = "large-1".to_owned();
    harness.store().record_harvest(answers).await.unwrap();
    publish(harness.store().as_ref()).await;
    harvest
}

async fn publish(store: &dyn Store) {
    let waiting = prompts_of(store.outbox(1_000).await.unwrap());
    store.mark_published(&waiting).await.unwrap();
}

pub async fn the_ledger_and_forgetting_take_the_same_entries(harness: &dyn StoreHarness) {
    let store = harness.store();
    let filters = [
        LedgerFilter::default(),
        LedgerFilter { verdict: Some(Verdict::Rejected), ..LedgerFilter::default() },
        because(&[Reason::NoAnswer]),
        because(&[Reason::Disagrees, Reason::NoAnswer]),
        because(&[Reason::Truncated]),
        LedgerFilter { model: Some("large-1".to_owned()), ..LedgerFilter::default() },
        LedgerFilter { model: Some("large".to_owned()), ..LedgerFilter::default() },
        LedgerFilter { after_row: Some(1), before_row: Some(4), ..LedgerFilter::default() },
        LedgerFilter { before_row: Some(0), ..LedgerFilter::default() },
        LedgerFilter { after_row: Some(2), ..because(&[Reason::NoAnswer]) },
    ];
    for filter in filters {
        let harvest = judged(harness).await;
        let all = entries(store.as_ref(), harvest.job).await;
        let (taken, left): (Vec<LedgerEntry>, Vec<LedgerEntry>) =
            all.into_iter().partition(|entry| filter.takes(entry));
        assert_eq!(store.ledger(harvest.job, &filter, 1_000).await.unwrap(), taken, "{filter:?}");
        let outcome = forget(store.as_ref(), harvest.job, &filter).await.unwrap();
        let count = taken.len() as u64;
        let expected = ForgetOutcome { forgotten: count, asked_again: count, harvests: true };
        assert_eq!(outcome, expected, "{filter:?}");
        assert_eq!(entries(store.as_ref(), harvest.job).await, left, "{filter:?}");
        let again: Vec<PromptId> = taken.iter().map(|entry| entry.prompt).collect();
        assert_eq!(prompts_of(store.outbox(1_000).await.unwrap()), again, "{filter:?}");
        publish(store.as_ref()).await;
    }
}

pub async fn what_is_forgotten_is_asked_again_and_kept(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = judged(harness).await;
    let forgotten = &harvest.prompts[5];
    let before = store.completion(forgotten.key).await.unwrap();
    assert!(before.is_some());
    forget(store.as_ref(), harvest.job, &because(&[Reason::NoAnswer])).await.unwrap();
    let prompt = store.prompt(forgotten.id).await.unwrap();
    assert_eq!((prompt.state, prompt.key), (PromptState::Pending, successor(forgotten.key)));
    assert_eq!((prompt.failures, prompt.error.as_str(), prompt.attempt), (0, "", 1));
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!(progress.in_state(PromptState::Pending), 3, "with the one that was never asked");
    assert_eq!(progress.with_verdict(Verdict::Rejected), 1);
    let leased = lease_one(harness, forgotten.id).await;
    assert_eq!((leased.cached.is_some(), leased.prompt.attempt), (false, 2));
    let again = answer(&leased);
    store.record_harvest(vec![again.clone()]).await.unwrap();
    let entry = entries(store.as_ref(), harvest.job).await.into_iter().find(|entry| entry.row == 5).unwrap();
    assert_eq!((entry.verdict, entry.reason, entry.parsed), (Verdict::Accepted, None, again.parsed));
    assert_eq!(store.completion(forgotten.key).await.unwrap(), before, "it is marked, and not destroyed");
    assert!(store.completion(successor(forgotten.key)).await.unwrap().is_some());
}

async fn address(store: &dyn Store, asked: CompletionKey) -> Address {
    store.addresses(&[asked]).await.unwrap().remove(0)
}

pub async fn addresses_follow_what_was_forgotten(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = judged(harness).await;
    let (known, other, unknown) = (harvest.prompts[4].key, harvest.prompts[1].key, key());
    let at = |key, model: Option<&str>| Address { key, model: model.map(str::to_owned) };
    let keys = [unknown, known, other, known];
    let expected = [
        at(unknown, None),
        at(known, Some("large-1")),
        at(other, Some("small-1")),
        at(known, Some("large-1")),
    ];
    assert_eq!(store.addresses(&keys).await.unwrap(), expected);
    assert_eq!(store.addresses(&[]).await.unwrap(), []);
    let many: Vec<CompletionKey> = (0..BATCH_MAX + 2).map(|_| key()).chain([known]).collect();
    let found = store.addresses(&many).await.unwrap();
    assert!(found.iter().map(|address| address.key).eq(many.iter().copied()), "in their order");
    assert_eq!(found.last(), Some(&at(known, Some("large-1"))));

    store.cancel(harvest.job, "").await.unwrap();
    forget(store.as_ref(), harvest.job, &LedgerFilter::default()).await.unwrap();
    assert_eq!(address(store.as_ref(), known).await, at(successor(known), None));
    let next = NewPrompt { key: successor(known), ..question(0, 0) };
    let asked = harvest_of(store.as_ref(), spec(NAME), vec![next]).await;
    answer_all(harness, &asked.ids()).await;
    assert_eq!(address(store.as_ref(), known).await, at(successor(known), Some("small-1")));
    forget(store.as_ref(), asked.job, &LedgerFilter::default()).await.unwrap();
    let last = successor(successor(known));
    for asked in [known, successor(known), last] {
        assert_eq!(address(store.as_ref(), asked).await, at(last, None));
    }
}

pub async fn a_job_that_does_not_harvest_keeps_its_entries(harness: &dyn StoreHarness) {
    let store = harness.store();
    for end in ["train", "cancel", "pause in training"] {
        let harvest = judged(harness).await;
        match end {
            "cancel" => drop(store.cancel(harvest.job, "").await.unwrap()),
            _ => drop(store.start_training(harvest.job, "ledger").await.unwrap()),
        }
        if end == "pause in training" {
            store.pause(harvest.job, "").await.unwrap();
        }
        let before =
            (store.distillation(harvest.job).await.unwrap(), entries(store.as_ref(), harvest.job).await);
        let outcome = forget(store.as_ref(), harvest.job, &because(&[Reason::NoAnswer])).await.unwrap();
        assert_eq!(outcome, ForgetOutcome { forgotten: 2, asked_again: 0, harvests: false }, "{end}");
        let after =
            (store.distillation(harvest.job).await.unwrap(), entries(store.as_ref(), harvest.job).await);
        assert_eq!(after, before, "{end}");
        assert_eq!(store.outbox(10).await.unwrap(), [], "{end}");
        for (prompt, forgotten) in harvest.prompts.iter().zip([false, true, false, false, false, true]) {
            let expected = if forgotten { successor(prompt.key) } else { prompt.key };
            assert_eq!(address(store.as_ref(), prompt.key).await.key, expected, "{end}, row {}", prompt.row);
        }
    }
}

pub async fn a_job_that_is_paused_in_its_harvest_asks_again_when_it_resumes(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = judged(harness).await;
    store.pause(harvest.job, "most answers cannot be read").await.unwrap();
    let outcome = forget(store.as_ref(), harvest.job, &because(&[Reason::NoAnswer])).await.unwrap();
    assert_eq!(outcome, ForgetOutcome { forgotten: 2, asked_again: 2, harvests: true });
    assert_eq!(store.distillation(harvest.job).await.unwrap().state, DistillationState::Paused);
    let again = [harvest.prompts[1].id, harvest.prompts[5].id];
    let leased = store.lease_prompts(&again, "worker", harness.lease()).await.unwrap();
    assert_eq!(leased.settled, again, "nothing is asked of a paused job");
    store.resume(harvest.job).await.unwrap();
    let leased = lease(harness, &again).await;
    assert!(leased.iter().all(|leased| leased.cached.is_none()));
}

pub async fn a_repeated_request_forgets_nothing_more(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = judged(harness).await;
    let (request, filter) = (RequestId::generate(), because(&[Reason::NoAnswer]));
    let first = store.forget(request, harvest.job, &filter).await.unwrap();
    let again = [harvest.prompts[1].id, harvest.prompts[5].id];
    let mut answers: Vec<Harvested> = lease(harness, &again).await.iter().map(answer).collect();
    for answer in &mut answers {
        (answer.verdict, answer.reason) = (Verdict::Rejected, Some(Reason::NoAnswer));
    }
    store.record_harvest(answers).await.unwrap();
    let before = entries(store.as_ref(), harvest.job).await;
    assert_eq!(store.forget(request, harvest.job, &filter).await.unwrap(), first);
    assert_eq!(entries(store.as_ref(), harvest.job).await, before);
    let second = store.forget(RequestId::generate(), harvest.job, &filter).await.unwrap();
    assert_eq!(second, first, "another request forgets again");
    assert_eq!(store.prompt(again[0]).await.unwrap().key, successor(successor(harvest.prompts[1].key)));
}

pub async fn jobs_that_share_an_answer_forget_it_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (first, twin) = (question(0, 0), question(1, 0));
    let twin = NewPrompt { key: first.key, ..twin };
    let one = harvest_of(store.as_ref(), spec(NAME), vec![first.clone(), twin]).await;
    let other = harvest_of(store.as_ref(), spec(NAME), vec![same_question(&first, 0)]).await;
    for prompt in [one.ids(), other.ids()].concat() {
        answer_all(harness, &[prompt]).await;
    }
    let all = LedgerFilter::default();
    let outcome = forget(store.as_ref(), one.job, &all).await.unwrap();
    assert_eq!(outcome, ForgetOutcome { forgotten: 1, asked_again: 2, harvests: true });
    assert_eq!(entries(store.as_ref(), other.job).await.len(), 1, "it keeps its entry");
    // The first job's answer is a fresh one, and the second job may use it.
    answer_all(harness, &one.ids()[..1]).await;
    let outcome = forget(store.as_ref(), other.job, &all).await.unwrap();
    assert_eq!(outcome, ForgetOutcome { forgotten: 0, asked_again: 1, harvests: true });
    let leased = lease_one(harness, other.prompts[0].id).await;
    assert_eq!((leased.prompt.key, leased.cached.is_some()), (successor(first.key), true));
    // Prompts go to the last of several addresses.
    forget(store.as_ref(), one.job, &all).await.unwrap();
    let late = harvest_of(store.as_ref(), spec(NAME), vec![same_question(&first, 0)]).await;
    answer_all(harness, &late.ids()).await;
    forget(store.as_ref(), late.job, &all).await.unwrap();
    assert_eq!(store.prompt(late.prompts[0].id).await.unwrap().key, successor(successor(first.key)));
}

pub async fn an_answer_that_was_forgotten_does_not_come_back(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 1).await;
    let answers: Vec<Harvested> = lease(harness, &harvest.ids()).await.iter().map(answer).collect();
    store.record_harvest(answers.clone()).await.unwrap();
    forget(store.as_ref(), harvest.job, &LedgerFilter::default()).await.unwrap();
    // The worker did not hear that its answer was stored, and sends it again.
    let outcome = store.record_harvest(answers).await.unwrap();
    assert_eq!(outcome.stale, harvest.ids());
    assert_eq!(store.prompt(harvest.prompts[0].id).await.unwrap().state, PromptState::Pending);
    assert_eq!(entries(store.as_ref(), harvest.job).await, []);
}

pub async fn training_waits_for_what_is_asked_again(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    answer_all(harness, &harvest.ids()).await;
    let filter = LedgerFilter { before_row: Some(1), ..LedgerFilter::default() };
    forget(store.as_ref(), harvest.job, &filter).await.unwrap();
    let refused = store.start_training(harvest.job, "ledger").await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(words)) if words.contains('1')), "{refused:?}");
    assert_eq!(store.distillation(harvest.job).await.unwrap().state, DistillationState::Harvesting);
    answer_all(harness, &harvest.ids()[..1]).await;
    store.start_training(harvest.job, "ledger").await.unwrap();
}

pub async fn nothing_is_forgotten_that_nobody_can_be_asked_for(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut imported = spec(NAME);
    imported.teacher.as_mut().unwrap().source = TeacherSource::Imported;
    let harvest = harvest_of(store.as_ref(), imported, vec![question(0, 0)]).await;
    answer_all(harness, &harvest.ids()).await;
    let words = conflict(forget(store.as_ref(), harvest.job, &LedgerFilter::default()).await);
    assert!(words.contains("asks no teacher"), "{words}");
    assert_eq!(address(store.as_ref(), harvest.prompts[0].key).await.key, harvest.prompts[0].key);
    let unknown = DistillationId::generate();
    not_found(forget(store.as_ref(), unknown, &LedgerFilter::default()).await, unknown);
    not_found(store.retry_parked(unknown, "").await, unknown);
    let queued = job_in(harness, DistillationState::Queued).await;
    let outcome = forget(store.as_ref(), queued, &LedgerFilter::default()).await.unwrap();
    assert_eq!(outcome, ForgetOutcome::default());
}

pub async fn parked_prompts_are_retried_by_their_failure(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 4).await;
    for (leased, error) in
        lease(harness, &harvest.ids()).await.iter().zip(["100% broken", "no JSON", "100 broken", "no JSON"])
    {
        let failure = AttemptFailure::Teacher { error: error.to_owned(), failures_max: 1 };
        store.record_failure(leased.prompt.id, leased.prompt.attempt, failure).await.unwrap();
    }
    publish(store.as_ref()).await;
    for (error, expected) in
        [("no json", &[][..]), ("100%", &[0][..]), ("JSON", &[1, 3]), ("", &[2]), ("", &[])]
    {
        let retried = store.retry_parked(harvest.job, error).await.unwrap();
        assert_eq!(retried, expected.len() as u64, "{error:?}");
        let ids: Vec<PromptId> = expected.iter().map(|place: &usize| harvest.prompts[*place].id).collect();
        assert_eq!(prompts_of(store.outbox(10).await.unwrap()), ids, "{error:?}");
        publish(store.as_ref()).await;
        for id in ids {
            let prompt = store.prompt(id).await.unwrap();
            assert_eq!((prompt.state, prompt.failures), (PromptState::Pending, 0), "{error:?}");
        }
    }
    let over = job_in(harness, DistillationState::Training).await;
    assert!(conflict(store.retry_parked(over, "").await).contains("does not harvest"));
}

pub async fn a_whole_ledger_is_forgotten_at_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let count = BATCH_MAX as u64 + 10;
    let prompts: Vec<NewPrompt> = (0..count).map(|row| question(row, 0)).collect();
    let dataset = crate::fixtures::dataset(store.as_ref(), rows(1)).await.id;
    let job = crate::fixtures::job(store.as_ref(), spec(NAME), dataset).await.id;
    let imported = prompts.iter().map(|prompt| {
        let mut harvested = answer(&leased_of(prompt, job));
        harvested.completion = completion(prompt.key, "The answer is (1 + 1).");
        (prompt.clone(), harvested)
    });
    let imported: Vec<_> = imported.collect();
    for chunk in imported.chunks(BATCH_MAX) {
        store.record_imported(job, chunk.to_vec()).await.unwrap();
    }
    let outcome = forget(store.as_ref(), job, &LedgerFilter::default()).await.unwrap();
    assert_eq!(outcome, ForgetOutcome { forgotten: count, asked_again: count, harvests: true });
    assert_eq!(entries(store.as_ref(), job).await, []);
    let keys: Vec<CompletionKey> = prompts.iter().map(|prompt| prompt.key).collect();
    let moved = store.addresses(&keys).await.unwrap();
    assert!(moved.iter().zip(&keys).all(|(address, key)| address.key == successor(*key)));
}

/// A prompt as a worker holds it, for a job whose answers are written without one.
fn leased_of(prompt: &NewPrompt, job: DistillationId) -> domain::records::LeasedPrompt {
    let NewPrompt { id, row, sample, profile, hinted, purpose, key, .. } = *prompt;
    domain::records::LeasedPrompt {
        prompt: domain::records::Prompt {
            id,
            distillation: job,
            row,
            sample,
            profile,
            hinted,
            purpose,
            key,
            state: PromptState::Leased,
            attempt: 0,
            failures: 0,
            error: String::new(),
        },
        example: crate::fixtures::row(row),
        cached: None,
    }
}
