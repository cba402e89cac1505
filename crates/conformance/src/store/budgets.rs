//! Budgets: hard limits on calls, tokens and money. Every call is reserved at the most it can cost before it is made.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    MONEY_RESERVED, MONEY_USED, TOKENS_RESERVED, TOKENS_USED, USAGE, answer, answer_all, at_once, call_of,
    call_request, harvest, harvest_of, lease, lease_one, question, reserve, same_question, spec_within,
};
use crate::harness::{Store, StoreHarness};
use domain::budget::{Amount, CallBound, CallEnd, Usage};
use domain::ids::{CallId, PromptId};
use domain::metric::SplitMix;
use domain::ports::{AttemptFailure, CallGrant, CallRequest, LeaseOutcome};
use domain::records::{HarvestProgress, LeasedPrompt, NewPrompt};
use domain::spec::Budget;
use domain::state::PromptState;
use std::sync::Arc;
use std::time::Duration;

const UNLIMITED: Budget = Budget { prompts: None, tokens: None, money_micros: None };
/// Tokens of one answer.
const USED: u64 = TOKENS_USED.0 + TOKENS_USED.1;
/// One call at its bound.
const ONE: Amount = Amount { calls: 1, tokens: TOKENS_RESERVED, money_micros: MONEY_RESERVED };

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

/// Another call under the lease of [`call_request`].
fn another(leased: &LeasedPrompt) -> CallRequest {
    CallRequest { call: CallId::generate(), ..call_request(leased) }
}

fn spent(progress: &HarvestProgress) -> Amount {
    Amount {
        calls: progress.calls,
        tokens: progress.tokens_in + progress.tokens_out,
        money_micros: progress.money_micros,
    }
}

pub async fn what_is_used_up_skips_the_rest(harness: &dyn StoreHarness) {
    let store = harness.store();
    for (budget, answered) in [
        (UNLIMITED, 8),
        (prompts(0), 0),
        (prompts(3), 3),
        (prompts(8), 8),
        // Another call is made only where the most it can cost still fits.
        (tokens(TOKENS_RESERVED - 1), 0),
        (tokens(TOKENS_RESERVED), 1),
        (tokens(3 * USED + TOKENS_RESERVED), 4),
        (tokens(3 * USED + TOKENS_RESERVED - 1), 3),
        (money(0), 0),
        (money(MONEY_RESERVED - 1), 0),
        (money(MONEY_RESERVED), 1),
        (money(2 * MONEY_USED + MONEY_RESERVED), 3),
        (money(2 * MONEY_USED + MONEY_RESERVED - 1), 2),
        (Budget { prompts: Some(5), tokens: Some(TOKENS_RESERVED + USED), money_micros: Some(1_000_000) }, 2),
    ] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(8)).await;
        let all = harvest.ids();
        for (id, place) in all.iter().zip(0..) {
            let outcome = outcome(harness, &[*id]).await;
            if place < answered {
                assert_eq!(ids(&outcome.leased), [*id], "prompt {place} under {budget:?}");
                reserve(store.as_ref(), &outcome.leased).await;
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

pub async fn no_more_is_leased_at_once_than_may_be_called(harness: &dyn StoreHarness) {
    let store = harness.store();
    for budget in [prompts(3), tokens(3 * TOKENS_RESERVED + 50), money(4 * MONEY_RESERVED - 1)] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(6)).await;
        let first = outcome(harness, &harvest.ids()).await;
        assert_eq!(ids(&first.leased), harvest.ids()[..3], "{budget:?}");
        assert_eq!(first.busy, harvest.ids()[3..], "nothing is used yet");
    }
}

/// A lease reserves nothing: calls are reserved when they are made, and as many as the budget allows.
pub async fn more_leases_than_budget_make_no_more_calls(harness: &dyn StoreHarness) {
    let store = harness.store();
    for budget in [prompts(3), tokens(3 * TOKENS_RESERVED), money(3 * MONEY_RESERVED)] {
        let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(6)).await;
        let mut leased = outcome(harness, &harvest.ids()[..3]).await.leased;
        leased.extend(outcome(harness, &harvest.ids()[3..]).await.leased);
        assert_eq!(leased.len(), 6, "{budget:?}");
        let requests: Vec<CallRequest> = leased.iter().map(call_request).collect();
        let (granted, later) = (CallGrant::Granted, CallGrant::Later);
        let expected = [granted, granted, granted, later, later, later];
        assert_eq!(store.reserve_calls(&requests).await.unwrap(), expected, "{budget:?}");
        assert_eq!(store.reserve_calls(&requests[..3]).await.unwrap(), expected[..3], "repeated");
        let most = Usage { tokens_in: TOKENS_RESERVED, tokens_out: 0, money_micros: MONEY_RESERVED };
        let ended: Vec<_> =
            leased[..3].iter().map(|leased| (call_of(leased), CallEnd::Charged(most))).collect();
        store.end_calls(&ended).await.unwrap();
        let exhausted = [CallGrant::Exhausted; 3];
        assert_eq!(store.reserve_calls(&requests[3..]).await.unwrap(), exhausted, "{budget:?}");
        let prompt = &leased[3].prompt;
        let skipped =
            store.record_failure(prompt.id, prompt.attempt, AttemptFailure::OutOfBudget).await.unwrap();
        assert_eq!(skipped, PromptState::Skipped);
    }
}

pub async fn each_end_of_a_call_has_its_price(harness: &dyn StoreHarness) {
    let store = harness.store();
    let nothing = Amount::default();
    for (end, spent_by_end, in_doubt) in [
        (CallEnd::Charged(USAGE), Amount { calls: 1, tokens: USED, money_micros: MONEY_USED }, nothing),
        (CallEnd::Failed, Amount { calls: 1, tokens: 0, money_micros: 0 }, nothing),
        (CallEnd::Refused, nothing, nothing),
        (CallEnd::InDoubt, nothing, ONE),
    ] {
        let harvest = harvest_of(store.as_ref(), spec_within(prompts(1)), questions(2)).await;
        let leased = lease_one(harness, harvest.ids()[0]).await;
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!((progress.open, progress.in_doubt, spent(&progress)), (ONE, nothing, nothing));
        for _repeated in 0..2 {
            store.end_calls(&[(call_of(&leased), end)]).await.unwrap();
        }
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!((progress.open, progress.in_doubt, spent(&progress)), (nothing, in_doubt, spent_by_end));
        let next = if end == CallEnd::Refused { CallGrant::Granted } else { CallGrant::Exhausted };
        assert_eq!(store.reserve_calls(&[another(&leased)]).await.unwrap(), [next], "{end:?}");
    }
    store.end_calls(&[(CallId::generate(), CallEnd::Failed)]).await.unwrap();
}

/// Nobody reports the end of a call whose worker is gone: it may have been paid for.
pub async fn a_call_of_a_lost_lease_is_in_doubt_until_its_answer_turns_up(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest_of(store.as_ref(), spec_within(prompts(2)), questions(2)).await;
    let all = harvest.ids();
    let late = lease_one(harness, all[0]).await;
    harness.outlive().await;
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!(
        (progress.open, progress.in_doubt),
        (Amount::default(), ONE),
        "it is seen as soon as it is so"
    );
    let held = lease_one(harness, all[0]).await;
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.open, progress.in_doubt, progress.calls), (ONE, ONE, 0));
    assert_eq!(store.reserve_calls(&[another(&held)]).await.unwrap(), [CallGrant::Later]);
    assert_eq!(store.reserve_calls(&[another(&late)]).await.unwrap(), [CallGrant::LeaseLost]);
    assert_eq!(outcome(harness, &all[1..]).await.busy, all[1..], "two calls may have been made");
    let written = store.record_harvest(vec![answer(&late)]).await.unwrap();
    assert_eq!(written.stale, all[..1]);
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.open, progress.in_doubt, progress.calls), (ONE, Amount::default(), 1));
    assert_eq!(progress.tokens_in + progress.tokens_out, USED);
}

/// A job that is paused, ended or gone makes no call any more.
pub async fn a_job_that_does_not_harvest_makes_no_call(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 2).await;
    let leased = lease(harness, &harvest.ids()).await;
    store.pause(harvest.job, "wait").await.unwrap();
    assert_eq!(store.reserve_calls(&[another(&leased[0])]).await.unwrap(), [CallGrant::LeaseLost]);
    store.resume(harvest.job).await.unwrap();
    assert_eq!(store.reserve_calls(&[another(&leased[0])]).await.unwrap(), [CallGrant::Granted]);
    store.pause(harvest.job, "wait").await.unwrap();
    store.record_harvest(vec![answer(&leased[0])]).await.unwrap();
    assert_eq!(store.harvest_progress(harvest.job).await.unwrap().calls, 1, "what was made is spent");
    store.cancel(harvest.job, "").await.unwrap();
    assert_eq!(store.reserve_calls(&[another(&leased[1])]).await.unwrap(), [CallGrant::LeaseLost]);
    store.delete_distillation(harvest.job).await.unwrap();
    assert_eq!(store.reserve_calls(&[another(&leased[1])]).await.unwrap(), [CallGrant::LeaseLost]);
    store.end_calls(&[(call_of(&leased[1]), CallEnd::Failed)]).await.unwrap();
    assert_eq!(store.reserve_calls(&[]).await.unwrap(), []);
}

pub async fn a_prompt_may_take_several_calls(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest_of(store.as_ref(), spec_within(prompts(3)), questions(2)).await;
    let leased = lease_one(harness, harvest.ids()[0]).await;
    let (failed, cut) = (another(&leased), another(&leased));
    for (request, end) in [(failed, CallEnd::Failed), (cut, CallEnd::Charged(USAGE))] {
        assert_eq!(store.reserve_calls(&[request]).await.unwrap(), [CallGrant::Granted]);
        store.end_calls(&[(request.call, end)]).await.unwrap();
    }
    store.record_harvest(vec![answer(&leased)]).await.unwrap();
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.tokens_in), (3, 2 * TOKENS_USED.0));
    assert_eq!(outcome(harness, &harvest.ids()[1..]).await.out_of_budget, harvest.ids()[1..]);
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

/// Histories of [`random_histories_stay_within_the_budget`], and steps of each.
const HISTORIES: u64 = 1_000;
const STEPS: u64 = 14;
/// Histories at once.
const AT_ONCE: u64 = 8;

/// A teacher's server and the workers that ask it, as one seed has them behave.
struct History {
    store: Arc<dyn Store>,
    random: SplitMix,
    budget: Budget,
    prompts: Vec<PromptId>,
    leases: Vec<LeasedPrompt>,
    /// What the server saw.
    server: Amount,
    /// Ends that workers have not reported yet.
    unreported: Vec<(CallId, CallEnd)>,
    /// What was reported.
    reported: Amount,
}

impl History {
    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.random.below(from.len() as u64) as usize).cloned()
    }

    /// Takes a lease; every other one runs out at once.
    async fn lease(&mut self) {
        let Some(prompt) = self.pick(&self.prompts.clone()) else { return };
        let lease = if self.random.below(2) == 0 { Duration::ZERO } else { Duration::from_secs(60) };
        let outcome = self.store.lease_prompts(&[prompt], "worker", lease).await.unwrap();
        self.leases.extend(outcome.leased);
    }

    /// Makes a call under some lease, lost or not, where it is granted.
    async fn call(&mut self) {
        let Some(leased) = self.pick(&self.leases.clone()) else { return };
        let bound = CallBound { tokens: 1 + self.random.below(100), money_micros: self.random.below(100) };
        let request = CallRequest { call: CallId::generate(), bound, ..call_request(&leased) };
        let grant = self.store.reserve_calls(&[request]).await.unwrap();
        if grant != [CallGrant::Granted] {
            return;
        }
        let usage = Usage {
            tokens_in: self.random.below(bound.tokens + 1) / 2,
            tokens_out: self.random.below(bound.tokens + 1) / 2,
            money_micros: self.random.below(bound.money_micros + 1),
        };
        let cost = |usage: Usage| Amount {
            calls: 1,
            tokens: usage.tokens_in + usage.tokens_out,
            money_micros: usage.money_micros,
        };
        let end = match self.random.below(4) {
            0 => CallEnd::Refused,
            1 => CallEnd::Failed,
            _ => CallEnd::Charged(usage),
        };
        let seen = match end {
            CallEnd::Refused | CallEnd::InDoubt => Amount::default(),
            CallEnd::Failed => cost(Usage::default()),
            CallEnd::Charged(usage) => cost(usage),
        };
        self.server = self.server.plus(seen);
        assert!(self.server.fits(&self.budget), "the server saw {:?} of {:?}", self.server, self.budget);
        match self.random.below(4) {
            // The worker is killed.
            0 => {}
            // It is cut off, and may learn the end later.
            1 => {
                self.store.end_calls(&[(request.call, CallEnd::InDoubt)]).await.unwrap();
                self.unreported.push((request.call, end));
            }
            2 => self.unreported.push((request.call, end)),
            _ => self.report(request.call, end).await,
        }
    }

    async fn report(&mut self, call: CallId, end: CallEnd) {
        for _repeated in 0..=self.random.below(2) {
            self.store.end_calls(&[(call, end)]).await.unwrap();
        }
        self.reported = self.reported.plus(match end {
            CallEnd::Charged(usage) => Amount {
                calls: 1,
                tokens: usage.tokens_in + usage.tokens_out,
                money_micros: usage.money_micros,
            },
            CallEnd::Failed => Amount { calls: 1, ..Amount::default() },
            CallEnd::Refused | CallEnd::InDoubt => Amount::default(),
        });
    }

    async fn end_of_a_lease(&mut self) {
        let Some(leased) = self.pick(&self.leases.clone()) else { return };
        let (id, attempt) = (leased.prompt.id, leased.prompt.attempt);
        self.store.record_failure(id, attempt, AttemptFailure::Delayed).await.unwrap();
    }

    async fn step(&mut self) {
        match self.random.below(8) {
            0..3 => self.lease().await,
            3..6 => self.call().await,
            6 => self.end_of_a_lease().await,
            _ => {
                if let Some((call, end)) = self.unreported.pop() {
                    self.report(call, end).await;
                }
            }
        }
    }
}

async fn history(store: Arc<dyn Store>, seed: u64) {
    let mut random = SplitMix::new(seed);
    let limit = |random: &mut SplitMix, most: u64| (random.below(2) == 0).then(|| random.below(most));
    let budget = Budget {
        prompts: Some(random.below(6)),
        tokens: limit(&mut random, 300),
        money_micros: limit(&mut random, 300),
    };
    let harvest = harvest_of(store.as_ref(), spec_within(budget), questions(3)).await;
    let mut history = History {
        store: Arc::clone(&store),
        random,
        budget,
        prompts: harvest.ids(),
        leases: Vec::new(),
        server: Amount::default(),
        unreported: Vec::new(),
        reported: Amount::default(),
    };
    for _step in 0..STEPS {
        history.step().await;
    }
    while let Some((call, end)) = history.unreported.pop() {
        history.report(call, end).await;
    }
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!(
        spent(&progress),
        history.reported,
        "seed {seed}: what was reported is spent, and nothing else"
    );
    let most = spent(&progress).plus(progress.in_doubt).plus(progress.open);
    assert!(most.fits(&budget), "seed {seed}: {most:?} of {budget:?}");
    let server = history.server;
    let seen = server.calls <= most.calls && server.tokens <= most.tokens;
    assert!(
        seen && server.money_micros <= most.money_micros,
        "seed {seed}: the server saw {server:?}, not {most:?}"
    );
}

/// Reserve, settle, refuse, crash and expire in every order: what the server sees is within the budget, always.
pub async fn random_histories_stay_within_the_budget(harness: &dyn StoreHarness) {
    at_once(AT_ONCE as usize, |task| {
        let store = harness.store();
        async move {
            for seed in (task as u64..HISTORIES).step_by(AT_ONCE as usize) {
                history(Arc::clone(&store), seed).await;
            }
        }
    })
    .await;
}
