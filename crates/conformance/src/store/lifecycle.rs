//! Lifecycle: what each path through a job's states appends to its events, from the first to the last.
#![allow(missing_docs, reason = "a case's name is what it checks")]

use crate::fixtures::{
    NAME, conflict, dataset, harvest, invalid, job, lease_one, lease_run, new_job, question, rows, spec,
    spec_within, student,
};
use crate::harness::{Store, StoreHarness};
use domain::event::EventKind;
use domain::ids::{DistillationId, RunId};
use domain::metric::Accuracy;
use domain::spec::Budget;

/// One call.
#[derive(Debug, Clone, Copy)]
enum Step {
    Plan,
    Import,
    Measure,
    Train,
    Lease,
    Evaluate,
    Publish,
    Fail,
    Release,
    Pause,
    Resume,
    Cancel,
    /// The step is a conflict.
    Refused(&'static Step),
}
use Step::{
    Cancel, Evaluate, Fail, Import, Lease, Measure, Pause, Plan, Publish, Refused, Release, Resume, Train,
};

/// A path, and the events that it appends after `queued`.
type Path = (&'static [Step], &'static [&'static str]);

const HARVESTED: &str = "queued > harvesting";
const TRAINED: &str = "harvesting > training";

const PATHS: &[Path] = &[
    (
        &[Plan, Plan, Measure, Train, Train, Lease, Evaluate, Evaluate, Publish, Publish, Refused(&Cancel)],
        &[
            HARVESTED,
            "teacher 31 of 40",
            TRAINED,
            "training > evaluating",
            "published sums",
            "evaluating > succeeded",
        ],
    ),
    (&[Import, Import, Train], &[HARVESTED, TRAINED]),
    // A trainer need not report its evaluation.
    (&[Plan, Train, Lease, Publish], &[HARVESTED, TRAINED, "published sums", "training > succeeded"]),
    (&[Plan, Train, Lease, Release, Lease, Release], &[HARVESTED, TRAINED]),
    (
        &[Plan, Train, Lease, Fail, Refused(&Fail), Resume, Lease, Publish],
        &[
            HARVESTED,
            TRAINED,
            "training > failed: the disk is full",
            "failed > training",
            "published sums",
            "training > succeeded",
        ],
    ),
    (
        &[Plan, Train, Lease, Evaluate, Fail, Refused(&Pause), Resume],
        &[
            HARVESTED,
            TRAINED,
            "training > evaluating",
            "evaluating > failed: the disk is full",
            "failed > training",
        ],
    ),
    // What a trainer reports of a paused job.
    (
        &[Plan, Train, Lease, Pause, Evaluate, Resume],
        &[HARVESTED, TRAINED, "training > paused: out of quota", "paused > training"],
    ),
    (
        &[Plan, Train, Lease, Pause, Fail, Resume],
        &[
            HARVESTED,
            TRAINED,
            "training > paused: out of quota",
            "paused > failed: the disk is full",
            "failed > training",
        ],
    ),
    (
        &[Plan, Train, Lease, Evaluate, Pause, Fail, Resume],
        &[
            HARVESTED,
            TRAINED,
            "training > evaluating",
            "evaluating > paused: out of quota",
            "paused > failed: the disk is full",
            "failed > training",
        ],
    ),
    (
        &[Plan, Train, Lease, Evaluate, Pause, Publish],
        &[
            HARVESTED,
            TRAINED,
            "training > evaluating",
            "evaluating > paused: out of quota",
            "published sums",
            "paused > succeeded",
        ],
    ),
    (
        &[Pause, Refused(&Plan), Refused(&Train), Resume, Plan, Pause, Refused(&Pause), Resume, Resume],
        &[
            "queued > paused: out of quota",
            "paused > queued",
            HARVESTED,
            "harvesting > paused: out of quota",
            "paused > harvesting",
        ],
    ),
    (&[Cancel, Cancel, Refused(&Plan), Refused(&Resume)], &["queued > cancelled: not wanted"]),
    (
        &[Plan, Train, Lease, Cancel, Refused(&Evaluate), Refused(&Publish), Refused(&Fail)],
        &[HARVESTED, TRAINED, "training > cancelled: not wanted"],
    ),
    (
        &[Plan, Train, Lease, Evaluate, Pause, Cancel, Refused(&Publish)],
        &[
            HARVESTED,
            TRAINED,
            "training > evaluating",
            "evaluating > paused: out of quota",
            "paused > cancelled: not wanted",
        ],
    ),
    (
        &[Plan, Train, Lease, Fail, Refused(&Cancel)],
        &[HARVESTED, TRAINED, "training > failed: the disk is full"],
    ),
];

fn show(kind: &EventKind) -> String {
    match kind {
        EventKind::StateChanged { from, to, reason } => {
            let from = from.map_or_else(String::new, |from| format!("{from} > "));
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("{from}{to}{reason}")
        }
        EventKind::TeacherMeasured { accuracy } => {
            format!("teacher {} of {}", accuracy.correct, accuracy.rows)
        }
        EventKind::Published { name, .. } => format!("published {name}"),
        other => format!("{other:?}"),
    }
}

async fn own_run(store: &dyn Store, job: DistillationId) -> (RunId, u64) {
    let run = store.distillation(job).await.unwrap().run.expect("it has a run");
    (run, store.run(run).await.unwrap().fence)
}

async fn take(harness: &dyn StoreHarness, job: DistillationId, step: Step) -> domain::ports::StoreResult<()> {
    let store = harness.store();
    match step {
        Plan => store.plan_prompts(job, vec![question(0, 0)]).await,
        Import => store.record_imported(job, Vec::new()).await,
        Measure => store.record_teacher(job, Some(Accuracy::measure(40, 31, 39)), 1.0).await,
        Train => store.start_training(job, "ledger").await.map(drop),
        Lease => {
            lease_run(harness, "trainer").await;
            Ok(())
        }
        Pause => store.pause(job, "out of quota").await.map(drop),
        Resume => store.resume(job).await.map(drop),
        Cancel => store.cancel(job, "not wanted").await.map(drop),
        Evaluate | Publish | Fail | Release => {
            let (run, fence) = own_run(store.as_ref(), job).await;
            match step {
                Evaluate => store.start_evaluating(run, fence).await,
                Publish => store.publish_run(run, fence, student(run), Default::default()).await.map(drop),
                Fail => store.fail_run(run, fence, "the disk is full").await,
                _ => store.release_run(run, fence).await,
            }
        }
        Refused(step) => {
            conflict(Box::pin(take(harness, job, *step)).await);
            Ok(())
        }
    }
}

pub async fn every_path_appends_its_events(harness: &dyn StoreHarness) {
    let store = harness.store();
    for (steps, expected) in PATHS {
        let dataset = dataset(store.as_ref(), rows(1)).await.id;
        let job = job(store.as_ref(), spec(NAME), dataset).await.id;
        for step in *steps {
            take(harness, job, *step).await.unwrap_or_else(|error| panic!("{step:?} of {steps:?}: {error}"));
        }
        let events = store.events(job, 0, 1_000).await.unwrap();
        let shown: Vec<String> = events.iter().map(|event| show(&event.kind)).collect();
        let expected: Vec<&str> = std::iter::once("queued").chain(expected.iter().copied()).collect();
        assert_eq!(shown, expected, "{steps:?}");
        let numbered: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbered, (1..=expected.len() as u64).collect::<Vec<_>>(), "{steps:?}");
        // The next path leases no run of this one.
        let _ended = store.cancel(job, "").await;
    }
}

/// A number that no database counts up to is named by its field, and what is asked of other jobs goes through.
pub async fn a_budget_that_cannot_be_counted_is_refused(harness: &dyn StoreHarness) {
    let store = harness.store();
    let other = harvest(store.as_ref(), 1).await;
    let dataset = dataset(store.as_ref(), rows(1)).await.id;
    let (fits, too_large) = (Some(i64::MAX.unsigned_abs()), Some(1 << 63));
    let none = Budget::default();
    for (field, budget) in [
        ("teacher.budget.prompts", Budget { prompts: too_large, ..none }),
        ("teacher.budget.tokens", Budget { tokens: too_large, ..none }),
        ("teacher.budget.money_micros", Budget { money_micros: too_large, ..none }),
    ] {
        let words = invalid(store.create_distillation(new_job(spec_within(budget), dataset)).await);
        assert!(words.starts_with(field), "{field} is named: {words}");
        assert!(words.contains("leave it out for no limit"), "what to do: {words}");
    }
    let largest = Budget { prompts: fits, tokens: fits, money_micros: fits };
    let job = job(store.as_ref(), spec_within(largest), dataset).await.id;
    let asked = question(0, 0);
    store.plan_prompts(job, vec![asked.clone()]).await.unwrap();
    lease_one(harness, asked.id).await;
    lease_one(harness, other.prompts[0].id).await;
}
