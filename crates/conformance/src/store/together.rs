//! What many callers do in the same instant.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    LOST_MAX, MONEY_RESERVED, NAME, TOKENS_RESERVED, answer, at_once, call_of, call_request, claim, dataset,
    harvest, harvest_of, job_in, lease, lease_run, new_job, prompts_of, question, reserve, rows,
    same_question, spec, spec_within, student, training,
};
use crate::harness::StoreHarness;
use domain::budget::CallEnd;
use domain::event::EventKind;
use domain::ids::{DatasetId, DistillationId, PromptId, RequestId, RunId};
use domain::metric::Accuracy;
use domain::ports::{AttemptFailure, CallGrant, CallRequest, LedgerFilter, PageRequest};
use domain::records::Harvested;
use domain::spec::Budget;
use domain::state::{DistillationState, PromptState};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Callers at the same time.
const CALLERS: usize = 8;

fn once<T: Ord + Copy>(found: &[Vec<T>]) -> BTreeSet<T> {
    let all: Vec<T> = found.iter().flatten().copied().collect();
    let set: BTreeSet<T> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len(), "two callers got the same");
    set
}

pub async fn workers_never_share_a_prompt(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 40).await;
    let leased = at_once(CALLERS, |worker| {
        let (store, lease) = (harness.store(), harness.lease());
        let mut ids = harvest.ids();
        ids.rotate_left(worker * 5);
        async move {
            let mut leased: Vec<PromptId> = Vec::new();
            for chunk in ids.chunks(7) {
                let outcome = store.lease_prompts(chunk, &format!("worker-{worker}"), lease).await.unwrap();
                assert_eq!(outcome.leased.len() + outcome.busy.len(), chunk.len(), "{outcome:?}");
                leased.extend(outcome.leased.iter().map(|leased| leased.prompt.id));
            }
            leased
        }
    })
    .await;
    assert_eq!(once(&leased), harvest.ids().into_iter().collect(), "and none is left over");
    for id in harvest.ids() {
        assert_eq!(store.prompt(id).await.unwrap().attempt, 1);
    }
}

pub async fn one_question_of_many_jobs_is_asked_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let first = question(0, 0);
    let mut ids = Vec::new();
    for _job in 0..CALLERS {
        let prompts = vec![same_question(&first, 0)];
        ids.push(harvest_of(store.as_ref(), spec(NAME), prompts).await.prompts[0].id);
    }
    let leased = at_once(CALLERS, |worker| {
        let (store, lease, id) = (harness.store(), harness.lease(), ids[worker]);
        async move { store.lease_prompts(&[id], "worker", lease).await.unwrap().leased }
    })
    .await;
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    assert_eq!(leased.len(), 1, "one job asks, the others wait for its answer");
    store.record_harvest(vec![answer(&leased[0])]).await.unwrap();
    let others: Vec<PromptId> = ids.into_iter().filter(|id| *id != leased[0].prompt.id).collect();
    let served = lease(harness, &others).await;
    assert!(served.iter().all(|leased| leased.cached.is_some()), "{served:?}");
}

pub async fn a_budget_holds_against_many_workers(harness: &dyn StoreHarness) {
    let store = harness.store();
    let limits = [
        Budget { prompts: Some(10), ..Budget::default() },
        Budget { tokens: Some(10 * TOKENS_RESERVED), ..Budget::default() },
        Budget { money_micros: Some(10 * MONEY_RESERVED), ..Budget::default() },
    ];
    for budget in limits {
        let prompts = (0..24).map(|row| question(row, 0)).collect();
        let harvest = harvest_of(store.as_ref(), spec_within(budget), prompts).await;
        let leased = at_once(CALLERS, |worker| {
            let (store, lease) = (harness.store(), harness.lease());
            let ids: Vec<PromptId> = harvest.ids()[worker * 3..worker * 3 + 3].to_vec();
            async move {
                let leased = store.lease_prompts(&ids, "worker", lease).await.unwrap().leased;
                let requests: Vec<CallRequest> = leased.iter().map(call_request).collect();
                let grants = store.reserve_calls(&requests).await.unwrap();
                let granted = requests.iter().zip(grants).filter(|(_, grant)| *grant == CallGrant::Granted);
                granted.map(|(request, _)| request.prompt).collect::<Vec<_>>()
            }
        })
        .await;
        assert_eq!(once(&leased).len(), 10, "{budget:?}");
    }
}

pub async fn answers_at_the_same_time_are_all_written(harness: &dyn StoreHarness) {
    let store = harness.store();
    let harvest = harvest(store.as_ref(), 48).await;
    let answers: Vec<Harvested> = lease(harness, &harvest.ids()).await.iter().map(answer).collect();
    let answers = Arc::new(answers);
    let stored = at_once(CALLERS, |worker| {
        let (store, answers) = (harness.store(), Arc::clone(&answers));
        async move {
            let mut stored = Vec::new();
            for chunk in answers[worker * 6..worker * 6 + 6].chunks(2) {
                let written = store.record_harvest(chunk.to_vec()).await.unwrap();
                assert_eq!(written.stale, [], "every lease holds");
                stored.extend(written.stored);
            }
            stored
        }
    })
    .await;
    assert_eq!(once(&stored).len(), 48);
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.calls_paid_twice), (48, 0), "no count is lost");
    assert_eq!((progress.tokens_in, progress.money_micros), (48 * 30, 48 * 450));
    assert_eq!(progress.in_state(PromptState::Answered), 48);
    let ledger = store.ledger(harvest.job, &LedgerFilter::default(), 1_000).await.unwrap();
    assert_eq!(ledger.len(), 48);
}

/// A call that is being made belongs to a prompt that is leased, whenever one looks.
pub async fn progress_is_of_one_moment(harness: &dyn StoreHarness) {
    const ROUNDS: u64 = 40;
    let store = harness.store();
    let harvest = harvest(store.as_ref(), ROUNDS).await;
    let (job, ids) = (harvest.job, harvest.ids());
    at_once(CALLERS, |caller| {
        let (store, lease, ids) = (harness.store(), harness.lease(), ids.clone());
        async move {
            if caller == 0 {
                for id in ids {
                    let leased = store.lease_prompts(&[id], "worker", lease).await.unwrap().leased;
                    reserve(store.as_ref(), &leased).await;
                    store.record_harvest(vec![answer(&leased[0])]).await.unwrap();
                }
                return;
            }
            loop {
                let progress = store.harvest_progress(job).await.unwrap();
                let leased = progress.in_state(PromptState::Leased);
                assert!(progress.open.calls <= leased, "{progress:?}");
                assert!(progress.calls <= progress.in_state(PromptState::Answered), "{progress:?}");
                if progress.calls == ROUNDS {
                    return;
                }
            }
        }
    })
    .await;
}

pub async fn failures_and_answers_race_without_loss(harness: &dyn StoreHarness) {
    let store = harness.store();
    let budget = Budget { prompts: Some(16), ..Budget::default() };
    let prompts = (0..16).map(|row| question(row, 0)).collect();
    let harvest = harvest_of(store.as_ref(), spec_within(budget), prompts).await;
    at_once(CALLERS, |worker| {
        let (store, lease) = (harness.store(), harness.lease());
        let ids: Vec<PromptId> = harvest.ids()[worker * 2..worker * 2 + 2].to_vec();
        async move {
            let leased = store.lease_prompts(&ids, "worker", lease).await.unwrap().leased;
            reserve(store.as_ref(), &leased).await;
            store.end_calls(&[(call_of(&leased[0]), CallEnd::Refused)]).await.unwrap();
            store.record_failure(ids[0], 1, AttemptFailure::Delayed).await.unwrap();
            store.record_harvest(vec![answer(&leased[1])]).await.unwrap();
        }
    })
    .await;
    let again: Vec<PromptId> = harvest.ids().into_iter().step_by(2).collect();
    let answers = lease(harness, &again).await.iter().map(answer).collect();
    store.record_harvest(answers).await.unwrap();
    let progress = store.harvest_progress(harvest.job).await.unwrap();
    assert_eq!((progress.calls, progress.prompts), (16, [0, 0, 16, 0, 0]), "every reservation came back");
}

pub async fn events_have_no_holes_under_many_writers(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, DistillationState::Queued).await;
    let numbers = at_once(CALLERS, |writer| {
        let store = harness.store();
        async move {
            let mut numbers = Vec::new();
            for round in 0..5 {
                let accuracy = Accuracy::measure(100, writer as u64, round);
                let kind = EventKind::TeacherMeasured { accuracy };
                numbers.push(store.append_event(job, kind).await.unwrap());
            }
            assert!(numbers.is_sorted(), "{numbers:?}");
            numbers
        }
    })
    .await;
    assert_eq!(once(&numbers), (2..=41).collect());
    let events = store.events(job, 0, 1_000).await.unwrap();
    assert!(events.iter().map(|event| event.sequence).eq(1..=41), "{events:?}");
}

pub async fn a_transition_is_made_by_one_caller(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, DistillationState::Harvesting).await;
    let paused = at_once(CALLERS, |caller| {
        let store = harness.store();
        async move { store.pause(job, &format!("caller {caller}")).await.is_ok() }
    })
    .await;
    assert_eq!(paused.iter().filter(|paused| **paused).count(), 1, "{paused:?}");
    assert_eq!(store.events(job, 0, 10).await.unwrap().len(), 3, "one event");
    let resumed = at_once(CALLERS, |_| {
        let store = harness.store();
        async move { store.resume(job).await.unwrap().state }
    })
    .await;
    assert_eq!(resumed, [DistillationState::Harvesting; CALLERS]);
    assert_eq!(store.events(job, 0, 10).await.unwrap().len(), 4);
}

pub async fn drivers_never_share_a_job(harness: &dyn StoreHarness) {
    let mut jobs = BTreeSet::new();
    for _job in 0..12 {
        jobs.insert(job_in(harness, DistillationState::Queued).await);
    }
    let claimed = at_once(CALLERS, |driver| {
        let (store, lease) = (harness.store(), harness.lease());
        async move {
            let jobs =
                store.claim_distillations(&claim(&format!("driver-{driver}"), lease, 4)).await.unwrap();
            jobs.into_iter().map(|claimed| claimed.job.id).collect::<Vec<DistillationId>>()
        }
    })
    .await;
    assert!(once(&claimed).is_subset(&jobs));
    let rest = harness.store().claim_distillations(&claim("late", harness.lease(), 100)).await.unwrap();
    let rest: BTreeSet<DistillationId> = rest.into_iter().map(|claimed| claimed.job.id).collect();
    assert_eq!(once(&claimed).union(&rest).count(), 12, "each has one driver");
    assert!(once(&claimed).is_disjoint(&rest));
}

pub async fn trainers_never_share_a_run(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut runs = BTreeSet::new();
    for _run in 0..CALLERS - 2 {
        runs.insert(training(store.as_ref(), NAME).await.id);
    }
    for fence in 1..=2 {
        let leased = at_once(CALLERS, |trainer| {
            let (store, lease) = (harness.store(), harness.lease());
            async move {
                let mut runs: Vec<RunId> = Vec::new();
                // A caller that was passed over in the crowd asks again, as a trainer does.
                while let Some(leased) =
                    store.lease_run(&format!("trainer-{trainer}"), lease, LOST_MAX).await.unwrap()
                {
                    assert_eq!(leased.run.fence, fence);
                    runs.push(leased.run.id);
                }
                runs
            }
        })
        .await;
        assert_eq!(once(&leased), runs, "every run has one trainer");
        harness.outlive().await;
    }
}

pub async fn a_repeated_request_is_one_thing_for_many_callers(harness: &dyn StoreHarness) {
    let request = RequestId::generate();
    let made = at_once(CALLERS, |_| {
        let store = harness.store();
        async move { store.create_dataset(request, "numbers").await.unwrap().id }
    })
    .await;
    assert_eq!(made.iter().collect::<BTreeSet<&DatasetId>>().len(), 1, "{made:?}");
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let made = at_once(CALLERS, |_| {
        let store = harness.store();
        let new = domain::records::NewDistillation { request, ..new_job(spec(NAME), dataset) };
        async move { store.create_distillation(new).await.unwrap().id }
    })
    .await;
    assert_eq!(made.iter().collect::<BTreeSet<&DistillationId>>().len(), 1, "{made:?}");
}

pub async fn a_chunk_sent_by_many_is_appended_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let id = store.create_dataset(RequestId::generate(), "numbers").await.unwrap().id;
    let ends = at_once(CALLERS, |_| {
        let store = harness.store();
        async move { store.append_rows(id, 0, rows(20)).await.unwrap() }
    })
    .await;
    assert_eq!(ends, [20; CALLERS]);
    assert_eq!(store.dataset(id).await.unwrap().rows, 20);
    let found = store.rows(id, None, 0, 100).await.unwrap();
    assert_eq!(found.into_iter().map(|row| row.example).collect::<Vec<_>>(), rows(20));
}

pub async fn training_is_started_once_by_many(harness: &dyn StoreHarness) {
    let store = harness.store();
    let job = job_in(harness, DistillationState::Harvesting).await;
    let runs = at_once(CALLERS, |_| {
        let store = harness.store();
        async move { store.start_training(job, "ledger").await.unwrap().id }
    })
    .await;
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 1, "{runs:?}");
    assert_eq!(store.events(job, 0, 10).await.unwrap().len(), 3, "one transition");
}

pub async fn publications_of_one_name_count_up(harness: &dyn StoreHarness) {
    let store = harness.store();
    let mut runs = Vec::new();
    for _run in 0..CALLERS {
        runs.push(training(store.as_ref(), NAME).await.id);
        lease_run(harness, "trainer").await;
    }
    let versions =
        at_once(CALLERS, |trainer| {
            let (store, run) = (harness.store(), runs[trainer]);
            async move {
                store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap().version
            }
        })
        .await;
    let versions: BTreeSet<u64> = versions.into_iter().collect();
    assert_eq!(versions, (1..=CALLERS as u64).collect());
    let again =
        at_once(CALLERS, |_| {
            let (store, run) = (harness.store(), runs[0]);
            async move {
                store.publish_run(run, 1, student(run), Default::default()).await.unwrap().unwrap().version
            }
        })
        .await;
    assert_eq!(again.iter().collect::<BTreeSet<_>>().len(), 1, "one run, one model: {again:?}");
    let models = store.list_models(Some(NAME), &PageRequest { size: 100, cursor: None }).await.unwrap();
    assert_eq!(models.items.len(), CALLERS);
}

pub async fn prompts_planned_by_many_are_planned_once(harness: &dyn StoreHarness) {
    let store = harness.store();
    let dataset = dataset(store.as_ref(), rows(10)).await.id;
    let job = crate::fixtures::job(store.as_ref(), spec(NAME), dataset).await.id;
    at_once(CALLERS, |_| {
        let store = harness.store();
        let prompts = (0..10).map(|row| question(row, 0)).collect();
        async move { store.plan_prompts(job, prompts).await.unwrap() }
    })
    .await;
    assert_eq!(store.harvest_progress(job).await.unwrap().total(), 10);
    assert_eq!(prompts_of(store.outbox(100).await.unwrap()).len(), 10);
    assert_eq!(store.events(job, 0, 10).await.unwrap().len(), 2, "and the job moved once");
}
