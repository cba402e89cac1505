//! Budgets: hard limits on prompts, tokens and money, reserved before each call.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    MONEY_USED, TOKENS_RESERVED, TOKENS_USED, answer, answer_all, harvest, harvest_of, lease, lease_one,
    question, same_question, spec_within,
};
use crate::harness::StoreHarness;
use domain::ids::PromptId;
use domain::ports::{AttemptFailure, LeaseOutcome};
use domain::records::{LeasedPrompt, NewPrompt};
use domain::spec::Budget;
use domain::state::PromptState;

const UNLIMITED: Budget = Budget { prompts: None, tokens: None, money_micros: None };
/// Tokens of one answer.
const USED: u64 = TOKENS_USED.0 + TOKENS_USED.1;

fn prompts(limit: u64) -> Budget {
    Budget { prompts: Some(limit), ..UNLIMITED }
}

fn tokens(limit: u64) -> Budget {
    Budget { tokens: Some(limit), ..UNLIMITED }
}

fn money(limit: u64) -> Budget {
    Budget { money_micros: Some(limit), ..UNLIMITED }
}

fn questions(rows: u64) -> Vec<NewPrompt> {
    (0..rows).map(|row| question(row, 0)).collect()
}

async fn outcome(harness: &dyn StoreHarness, prompts: &[PromptId]) -> LeaseOutcome {
    harness.store().lease_prompts(prompts, "worker", harness.lease()).await.unwrap()
}

fn ids(leased: &[LeasedPrompt]) -> Vec<PromptId> {
    leased.iter().map(|leased| leased.prompt.id).collect()
}

pub async fn what_is_used_up_skips_the_rest(harness: &dyn StoreHarness) {
    let store = harness.store();
    for (budget, answered) in [
        (UNLIMITED, 8),
        (prompts(0), 0),
        (prompts(3), 3),
        (prompts(8), 8),
        // Another call is made only where its whole reservation still fits.
        (tokens(TOKENS_RESERVED - 1), 0),
        (tokens(TOKENS_RESERVED), 1),
        (tokens(3 * USED + TOKENS_RESERVED), 4),
        (tokens(3 * USED + TOKENS_RESERVED - 1), 3),
        // The price of a call is known afterwards: the one that reaches the limit is the last.
        (money(0), 0),
        (money(1), 1),
        (money(2 * MONEY_USED), 2),
        (money(2 * MONEY_USED + 1), 3),
        (Budget { prompts: Some(5), tokens: Some(TOKENS_RESERVED + USED), money_micros: Some(1_000_000) }, 2),
    ] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(8)).await;
        let all = harvest.ids();
        for (id, place) in all.iter().zip(0..) {
            let outcome = outcome(harness, &[*id]).await;
            if place < answered {
                assert_eq!(ids(&outcome.leased), [*id], "prompt {place} under {budget:?}");
                store.record_harvest(outcome.leased.iter().map(answer).collect()).await.unwrap();
            } else {
                assert_eq!(outcome.out_of_budget, [*id], "prompt {place} under {budget:?}: {outcome:?}");
                assert_eq!(store.prompt(*id).await.unwrap().state, PromptState::Skipped);
            }
        }
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!(progress.calls, answered, "{budget:?}");
        assert_eq!(progress.in_state(PromptState::Skipped), 8 - answered, "{budget:?}");
        assert_eq!(progress.done(), progress.total(), "the job continues with what it has");
        if let Some(skipped) = all.get(answered as usize..).filter(|skipped| !skipped.is_empty()) {
            assert_eq!(outcome(harness, skipped).await.settled, skipped, "skipped is settled");
        }
    }
}

pub async fn calls_at_the_same_time_stay_within_the_limit(harness: &dyn StoreHarness) {
    let store = harness.store();
    for budget in [prompts(3), tokens(3 * TOKENS_RESERVED + TOKENS_RESERVED / 2)] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(6)).await;
        let first = outcome(harness, &harvest.ids()).await;
        assert_eq!(ids(&first.leased), harvest.ids()[..3], "{budget:?}");
    }
}

/// What is reserved may come back: the others wait, and are skipped only when the budget is really used up.
pub async fn what_is_only_reserved_makes_the_others_wait(harness: &dyn StoreHarness) {
    let store = harness.store();
    for budget in [prompts(2), tokens(TOKENS_RESERVED + USED)] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(3)).await;
        let all = harvest.ids();
        let in_flight = if budget.prompts.is_some() { 2 } else { 1 };
        let first = outcome(harness, &all).await;
        assert_eq!(ids(&first.leased), all[..in_flight], "{budget:?}");
        assert_eq!(first.busy, all[in_flight..], "{budget:?}: nothing is used yet: {first:?}");
        store.record_harvest(first.leased.iter().map(answer).collect()).await.unwrap();
        answer_all(harness, &all[in_flight..2]).await;
        assert_eq!(outcome(harness, &all[2..]).await.out_of_budget, all[2..], "{budget:?}: now it is");
    }
}

pub async fn a_failed_call_returns_its_reservation(harness: &dyn StoreHarness) {
    let store = harness.store();
    let counted = AttemptFailure::Teacher { error: "no".to_owned(), failures_max: 1 };
    for budget in [prompts(1), tokens(TOKENS_RESERVED)] {
        for failure in [AttemptFailure::Delayed, counted.clone()] {
            let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(2)).await;
            let all = harvest.ids();
            lease(harness, &all[..1]).await;
            assert_eq!(outcome(harness, &all[1..]).await.leased, [], "{budget:?} is reserved");
            store.record_failure(all[0], 1, failure.clone()).await.unwrap();
            store.record_failure(all[0], 1, failure.clone()).await.unwrap();
            let again = outcome(harness, &all[1..]).await;
            assert_eq!(ids(&again.leased), all[1..], "{budget:?} after {failure:?}: {again:?}");
            store.record_harvest(again.leased.iter().map(answer).collect()).await.unwrap();
            if failure == AttemptFailure::Delayed {
                assert_eq!(outcome(harness, &all[..1]).await.out_of_budget, all[..1], "and only once");
            }
        }
    }
}

pub async fn a_lease_that_ran_out_returns_its_reservation_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let first = question(0, 0);
    let other = harvest_of(store.as_ref(), spec_within(UNLIMITED), vec![same_question(&first, 0)]).await;
    let questions = vec![first, question(1, 0), question(2, 0)];
    let harvest = harvest_of(store.as_ref(), spec_within(prompts(1)), questions).await;
    let all = harvest.ids();
    lease_one(harness, all[0]).await;
    harness.outlive().await;
    // Another job asks the same now, so that the prompt cannot be leased again, however often it is tried.
    lease_one(harness, other.prompts[0].id).await;
    for _try in 0..3 {
        assert_eq!(outcome(harness, &all[..1]).await.busy, all[..1]);
    }
    let leased = outcome(harness, &all[1..]).await.leased;
    assert!(leased.len() <= 1, "one call is allowed, and {} are made", leased.len());
}

pub async fn an_expired_lease_takes_no_second_reservation(harness: &dyn StoreHarness) {
    let store = harness.store();
    for budget in [prompts(1), tokens(TOKENS_RESERVED)] {
        let id = harvest_of(store.as_ref(), spec_within(budget), questions(1)).await.prompts[0].id;
        for attempt in 1..=4 {
            assert_eq!(lease_one(harness, id).await.prompt.attempt, attempt, "{budget:?}");
            harness.outlive().await;
        }
    }
}

pub async fn an_answer_settles_its_reservation(harness: &dyn StoreHarness) {
    let store = harness.store();
    // Room for two reservations, and for the third once the first two have used less.
    let budget = tokens(2 * TOKENS_RESERVED);
    let all = harvest_of(store.as_ref(), spec_within(budget), questions(4)).await.ids();
    answer_all(harness, &all[..2]).await;
    answer_all(harness, &all[2..3]).await;
    assert_eq!(outcome(harness, &all[3..]).await.out_of_budget, all[3..], "126 of 200 are used");
}

pub async fn a_stale_answer_is_spent_from_the_budget(harness: &dyn StoreHarness) {
    let store = harness.store();
    let all = harvest_of(store.as_ref(), spec_within(prompts(2)), questions(2)).await.ids();
    let late = answer(&lease_one(harness, all[0]).await);
    harness.outlive().await;
    let held = answer(&lease_one(harness, all[0]).await);
    store.record_harvest(vec![late, held]).await.unwrap();
    assert_eq!(outcome(harness, &all[1..]).await.out_of_budget, all[1..], "two calls were made");
}

pub async fn an_answer_from_the_store_is_free(harness: &dyn StoreHarness) {
    let store = harness.store();
    let known = harvest(store.as_ref(), 3).await;
    answer_all(harness, &known.ids()).await;
    for budget in [prompts(0), tokens(0), money(0)] {
        let same = known.prompts.iter().map(|prompt| same_question(prompt, prompt.row)).collect();
        let harvest = harvest_of(store.as_ref(), spec_within(budget), same).await;
        answer_all(harness, &harvest.ids()).await;
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!((progress.calls, progress.cache_hits, progress.money_micros), (0, 3, 0), "{budget:?}");
        assert_eq!((progress.tokens_in, progress.tokens_out), (0, 0));
    }
}

pub async fn each_job_has_its_own_budget(harness: &dyn StoreHarness) {
    let store = harness.store();
    let left = harvest_of(store.as_ref(), spec_within(prompts(1)), questions(2)).await.ids();
    let right = harvest_of(store.as_ref(), spec_within(prompts(1)), questions(2)).await.ids();
    answer_all(harness, &left[..1]).await;
    answer_all(harness, &right[..1]).await;
    assert_eq!(outcome(harness, &left[1..]).await.out_of_budget, left[1..]);
    assert_eq!(outcome(harness, &right[1..]).await.out_of_budget, right[1..]);
}
