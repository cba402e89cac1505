//! The ledger: every completion with what was read in it and what became of it.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    NAME, answer, answer_all, completion, conflict, dataset, harvest, harvest_of, invalid, job, job_in,
    lease, prompts_of, question, rows, spec,
};
use crate::harness::{Store, StoreHarness};
use domain::completion::Parsed;
use domain::ids::{DistillationId, PromptId};
use domain::ports::LedgerFilter;
use domain::records::{Harvested, LedgerEntry, NewPrompt, VerdictUpdate};
use domain::state::{DistillationState, PromptState, Purpose, Reason, Verdict};

async fn entries(store: &dyn Store, job: DistillationId) -> Vec<LedgerEntry> {
    store.ledger(job, &LedgerFilter::default(), 1_000).await.unwrap()
}

/// An answer that came with the data.
fn imported(prompt: NewPrompt, text: &str) -> (NewPrompt, Harvested) {
    let harvested = Harvested {
        prompt: prompt.id,
        attempt: 0,
        completion: completion(prompt.key, text),
        cached: true,
        calls: Vec::new(),
        parsed: Parsed { rationale: text.to_owned(), label: Some("(0 + 1)".to_owned()), reason: None },
        verdict: Verdict::Accepted,
        reason: None,
    };
    (prompt, harvested)
}

pub async fn an_entry_holds_what_was_asked_said_and_read(harness: &dyn StoreHarness) {
    let store = harness.store();
    let prompts = vec![
        question(0, 0),
        NewPrompt { hinted: true, ..question(0, 1) },
        NewPrompt { purpose: Purpose::Evaluate, ..question(1, 0) },
        question(1, 1),
    ];
    let harvest = harvest_of(store.as_ref(), spec(NAME), prompts).await;
    let mut answers: Vec<Harvested> = lease(harness, &harvest.ids()[..3]).await.iter().map(answer).collect();
    answers[1].parsed = Parsed { rationale: "é\n".into(), label: None, reason: Some(Reason::Truncated) };
    (answers[1].verdict, answers[1].reason) = (Verdict::Rejected, Some(Reason::Truncated));
    (answers[2].verdict, answers[2].reason) = (Verdict::Unjudged, None);
    store.record_harvest(answers.clone()).await.unwrap();
    let expected: Vec<LedgerEntry> = harvest
        .prompts
        .iter()
        .zip(answers)
        .map(|(prompt, answer)| LedgerEntry {
            distillation: harvest.job,
            prompt: prompt.id,
            row: prompt.row,
            sample: prompt.sample,
            hinted: prompt.hinted,
            purpose: prompt.purpose,
            parsed: answer.parsed,
            verdict: answer.verdict,
            reason: answer.reason,
            weight: 1.0,
            completion: answer.completion.text,
            model: answer.completion.model,
        })
        .collect();
    assert_eq!(entries(store.as_ref(), harvest.job).await, expected, "the unanswered one is not there");
}

/// Rows 0 to 3 with three samples each; sample 1 of every row is rejected, and all of row 2.
async fn judged(harness: &dyn StoreHarness) -> DistillationId {
    let store = harness.store();
    let prompts = (0..4).flat_map(|row| [2, 0, 1].map(|sample| question(row, sample))).collect();
    let harvest = harvest_of(store.as_ref(), spec(NAME), prompts).await;
    let mut answers: Vec<Harvested> = lease(harness, &harvest.ids()).await.iter().map(answer).collect();
    for (answer, prompt) in answers.iter_mut().zip(&harvest.prompts) {
        if prompt.sample == 1 || prompt.row == 2 {
            (answer.verdict, answer.reason) = (Verdict::Rejected, Some(Reason::Disagrees));
        }
    }
    // Answers come in any order.
    answers.reverse();
    store.record_harvest(answers).await.unwrap();
    harvest.job
}

pub async fn the_ledger_is_paged_by_whole_rows(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = judged(harness).await;
    judged(harness).await;
    let of = |rows: &[u64], samples: &[u32]| -> Vec<(u64, u32)> {
        rows.iter().flat_map(|row| samples.iter().map(move |sample| (*row, *sample))).collect()
    };
    let rejected = [of(&[0, 1], &[1]), of(&[2], &[0, 1, 2]), of(&[3], &[1])].concat();
    let every: &[u32] = &[0, 1, 2];
    for (verdict, after_row, limit, expected) in [
        (None, None, 100, of(&[0, 1, 2, 3], every)),
        (None, None, 1, of(&[0], every)),
        (None, None, 3, of(&[0], every)),
        (None, None, 4, of(&[0], every)),
        (None, None, 8, of(&[0, 1], every)),
        (None, Some(1), 100, of(&[2, 3], every)),
        (None, Some(2), 2, of(&[3], every)),
        (None, Some(3), 2, vec![]),
        (Some(Verdict::Accepted), None, 100, of(&[0, 1, 3], &[0, 2])),
        (Some(Verdict::Accepted), None, 3, of(&[0], &[0, 2])),
        (Some(Verdict::Accepted), Some(1), 1, of(&[3], &[0, 2])),
        (Some(Verdict::Rejected), None, 100, rejected.clone()),
        (Some(Verdict::Rejected), None, 4, rejected[..2].to_vec()),
        (Some(Verdict::Rejected), Some(1), 1, rejected[2..5].to_vec()),
        (Some(Verdict::Unjudged), None, 100, vec![]),
    ] {
        let filter = LedgerFilter { verdict, after_row, ..LedgerFilter::default() };
        let page = store.ledger(job, &filter, limit).await.unwrap();
        let found: Vec<(u64, u32)> = page.iter().map(|entry| (entry.row, entry.sample)).collect();
        assert_eq!(found, expected, "{filter:?}, {limit} at most");
        assert!(page.iter().all(|entry| entry.distillation == job), "{page:?}");
    }
}

pub async fn final_verdicts_replace_the_provisional_ones(harness: &dyn StoreHarness) {
    let store = harness.store();
    let (job, other) = (judged(harness).await, judged(harness).await);
    let (before, untouched) = (entries(store.as_ref(), job).await, entries(store.as_ref(), other).await);
    let update = |entry: &LedgerEntry, verdict, reason, weight| VerdictUpdate {
        prompt: entry.prompt,
        verdict,
        reason,
        weight,
    };
    let verdicts = vec![
        update(&before[0], Verdict::Rejected, Some(Reason::Outvoted), 1.0),
        update(&before[1], Verdict::Accepted, None, 1.0 / 3.0),
        // Another job's entry, and one that is gone: both are left alone.
        update(&untouched[0], Verdict::Rejected, Some(Reason::NoMajority), 0.5),
        VerdictUpdate { prompt: PromptId::generate(), verdict: Verdict::Accepted, reason: None, weight: 1.0 },
    ];
    store.record_verdicts(job, verdicts.clone()).await.unwrap();
    store.record_verdicts(job, verdicts).await.unwrap();
    let mut expected = before.clone();
    (expected[0].verdict, expected[0].reason) = (Verdict::Rejected, Some(Reason::Outvoted));
    (expected[1].verdict, expected[1].reason, expected[1].weight) = (Verdict::Accepted, None, 1.0 / 3.0);
    assert_eq!(entries(store.as_ref(), job).await, expected);
    assert_eq!(entries(store.as_ref(), other).await, untouched);
    let progress = store.harvest_progress(job).await.unwrap();
    assert_eq!(progress.verdicts, [0, 6, 6], "6 were accepted, one less and one more");
    assert_eq!(progress.reasons.iter().sum::<u64>(), 6, "{:?}", progress.reasons);
}

pub async fn imported_answers_are_entries_that_cost_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(3)).await.id;
    let job = job(store.as_ref(), spec(NAME), dataset).await.id;
    let evaluated = NewPrompt { purpose: Purpose::Evaluate, ..question(2, 0) };
    let mut prompts = vec![
        imported(question(1, 0), "One."),
        imported(question(0, 0), "Zero."),
        imported(evaluated, "Two."),
    ];
    (prompts[1].1.verdict, prompts[1].1.reason) = (Verdict::Rejected, Some(Reason::Disagrees));
    store.record_imported(job, prompts.clone()).await.unwrap();
    assert_eq!(store.distillation(job).await.unwrap().state, DistillationState::Harvesting);
    let texts = async || -> Vec<(u64, String)> {
        entries(store.as_ref(), job).await.into_iter().map(|entry| (entry.row, entry.completion)).collect()
    };
    let expected = [(0, "Zero.".to_owned()), (1, "One.".to_owned()), (2, "Two.".to_owned())];
    assert_eq!(texts().await, expected);
    let progress = store.harvest_progress(job).await.unwrap();
    assert_eq!((progress.total(), progress.in_state(PromptState::Answered)), (3, 3));
    assert_eq!((progress.verdicts, progress.calls, progress.cache_hits), ([0, 1, 1], 0, 0));
    assert_eq!((progress.tokens_in, progress.tokens_out, progress.money_micros), (0, 0, 0));
    assert_eq!(prompts_of(store.outbox(10).await.unwrap()), [], "there is nothing to ask");
    let known = store.completion(prompts[0].0.key).await.unwrap();
    assert_eq!(known, Some(prompts[0].1.completion.clone()), "under its key");
    // Again, under other ids and with other words: what is known is left as it is.
    let again: Vec<_> = (0..2).map(|row| imported(question(row, 0), "Other.")).collect();
    store.record_imported(job, again).await.unwrap();
    store.record_imported(job, prompts.clone()).await.unwrap();
    assert_eq!(texts().await, expected);
    assert_eq!(store.harvest_progress(job).await.unwrap(), progress);
    let outvoted = VerdictUpdate {
        prompt: prompts[0].0.id,
        verdict: Verdict::Rejected,
        reason: Some(Reason::Outvoted),
        weight: 1.0,
    };
    store.record_verdicts(job, vec![outvoted]).await.unwrap();
    store.record_imported(job, prompts).await.unwrap();
    let judged = &entries(store.as_ref(), job).await[1];
    assert_eq!(judged.reason, Some(Reason::Outvoted), "a final verdict is not undone: {judged:?}");
    store.record_imported(job, vec![imported(question(0, 1), "More.")]).await.unwrap();
    assert_eq!(texts().await.len(), 4, "another sample is added");
    let events = store.events(job, 0, 10).await.unwrap();
    assert_eq!(events.len(), 2, "the job moved once: {events:?}");
}

pub async fn an_import_that_fails_writes_nothing(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(3)).await.id;
    let job = job(store.as_ref(), spec(NAME), dataset).await.id;
    let mut prompts = vec![imported(question(0, 0), "Zero."), imported(question(1, 0), "One.")];
    prompts[1].1.completion.money_micros = u64::MAX;
    invalid(store.record_imported(job, prompts.clone()).await);
    assert_eq!(entries(store.as_ref(), job).await, []);
    assert_eq!(store.completion(prompts[0].0.key).await.unwrap(), None);
    assert_eq!(store.distillation(job).await.unwrap().state, DistillationState::Queued);
}

pub async fn nothing_is_imported_into_a_job_that_does_not_harvest(harness: &dyn StoreHarness) {
    use DistillationState::{Cancelled, Evaluating, Failed, Paused, Succeeded, Training};
    let store = harness.store();
    for state in [Training, Evaluating, Succeeded, Failed, Cancelled, Paused] {
        let job = job_in(harness, state).await;
        conflict(store.record_imported(job, vec![imported(question(0, 1), "Zero.")]).await);
        assert_eq!(entries(store.as_ref(), job).await, [], "{state}");
    }
}

pub async fn what_is_not_answered_is_not_in_the_ledger(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 4).await;
    assert_eq!(entries(store.as_ref(), harvest.job).await, []);
    lease(harness, &harvest.ids()[..1]).await;
    answer_all(harness, &harvest.ids()[1..2]).await;
    let rows: Vec<u64> = entries(store.as_ref(), harvest.job).await.iter().map(|entry| entry.row).collect();
    assert_eq!(rows, [1]);
    assert_eq!(entries(store.as_ref(), DistillationId::generate()).await, []);
}
