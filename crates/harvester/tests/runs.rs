//! Runs over the ledger of a job whose answers came with the data: what each of them learns under its own settings.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::ids::{DistillationId, RequestId};
use domain::judge::{self, Fingerprint};
use domain::objective::TrainingExample;
use domain::ports::LedgerFilter;
use domain::records::LedgerEntry;
use domain::spec::TeacherSource;
use domain::state::DistillationState;
use domain::{Answer, DatasetStore, Example, JobStore, PromptStore, Queue, RunStore, Split, Stores};
use embedded::{MemoryQueue, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::v1;
use wire::v1::runs_service_client::RunsServiceClient;

const TRAIN_ROWS: u64 = 64;
/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Of three samples, the first two name the right label in even rows and a wrong one in odd rows; the third names the
/// other one.
fn answered(index: u64) -> Example {
    let label = |right: bool| if right { format!("({index} + 1)") } else { "(99 + 99)".to_owned() };
    let answers = [index.is_multiple_of(2), index.is_multiple_of(2), !index.is_multiple_of(2)]
        .map(|right| Answer::Rationale {
            teacher: "palm".into(),
            text: format!("Row {index}."),
            label: Some(label(right)),
        })
        .to_vec();
    let split = match index {
        TRAIN_ROWS => Split::Validation,
        index if index > TRAIN_ROWS => Split::Test,
        _ => Split::Train,
    };
    Example { answers, split, ..fixtures::row(index) }
}

/// A job that is past its harvest, and the service of its runs.
struct Ledger {
    store: Arc<SqliteStore>,
    runs: RunsServiceClient<Routes>,
    job: DistillationId,
    _folder: TempDir,
}

impl Ledger {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        let rows = (0..TRAIN_ROWS + 3).map(answered).collect();
        let dataset = fixtures::dataset(store.as_ref(), rows).await;
        let mut spec = fixtures::spec(fixtures::NAME);
        spec.teacher.as_mut().unwrap().source = TeacherSource::Imported;
        let job = fixtures::job(store.as_ref(), spec, dataset.id).await.id;
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
        let harvester = Harvester::new(Settings::new("test"), Stores::of(&store), queue, BTreeMap::new());
        let shutdown = CancellationToken::new();
        let (works, end) = (harvester.clone(), shutdown.clone());
        let running = tokio::spawn(async move { works.run(end).await });
        let began = Instant::now();
        while store.distillation(job).await.unwrap().state != DistillationState::Training {
            assert!(began.elapsed() < WAIT_MAX, "{:?}", store.distillation(job).await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
        running.await.unwrap();
        Self { store, runs: RunsServiceClient::new(harvester.routes()), job, _folder: folder }
    }

    async fn create(&self, plan: v1::RunPlan) -> Result<v1::Run, Vec<String>> {
        let request = v1::CreateRunRequest {
            request_id: RequestId::generate().to_string(),
            distillation_id: self.job.to_string(),
            plan: Some(plan),
        };
        match self.runs.clone().create_run(request).await {
            Ok(answer) => Ok(answer.into_inner().run.unwrap()),
            Err(status) => {
                Err(wire::violations_of(&status).into_iter().map(|violation| violation.field).collect())
            }
        }
    }

    async fn read(&self, run: &str, split: Split, from_index: u64) -> Vec<TrainingExample> {
        let split = v1::Split::from(split).into();
        let request = v1::StreamExamplesRequest { run_id: run.to_owned(), split, from_index };
        let mut chunks = self.runs.clone().stream_examples(request).await.unwrap().into_inner();
        let mut examples = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            examples.extend(chunk.examples.into_iter().map(|example| example.try_into().unwrap()));
        }
        examples
    }

    async fn entries(&self) -> Vec<LedgerEntry> {
        let (mut entries, mut filter) = (Vec::new(), LedgerFilter::default());
        loop {
            let page = self.store.ledger(self.job, &filter, 100).await.unwrap();
            let Some(last) = page.last() else { return entries };
            filter.after_row = Some(last.row);
            entries.extend(page);
        }
    }

    async fn final_run(&self) -> String {
        self.store.distillation(self.job).await.unwrap().run.unwrap().to_string()
    }
}

fn judged(agree: bool, vote: bool, label: v1::LabelSource) -> v1::RunPlan {
    let judging =
        v1::JudgingSpec { agree: Some(agree), vote: Some(vote), label: label.into(), ..Default::default() };
    v1::RunPlan { judging: Some(judging), ..Default::default() }
}

fn fraction(fraction: f64) -> v1::RunPlan {
    let rows = v1::RunRows { fraction: Some(fraction), seed: None };
    v1::RunPlan { rows: Some(rows), ..Default::default() }
}

fn fingerprint(examples: &[TrainingExample]) -> String {
    let mut fingerprint = Fingerprint::default();
    examples.iter().for_each(|example| fingerprint.add(example));
    fingerprint.finish()
}

/// What a run with that plan reads.
struct Case {
    plan: v1::RunPlan,
    /// The samples that it keeps of an even row.
    even: &'static [u32],
    /// Those of an odd row.
    odd: &'static [u32],
    /// The weight of each.
    weight: f64,
    /// What it learns of row 1.
    label: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_reads_the_rationales_that_its_own_rules_accept() {
    use v1::LabelSource::{Gold, Teacher};
    let ledger = Ledger::open().await;
    let case = |plan, even, odd, weight, label| Case { plan, even, odd, weight, label };
    let cases = [
        case(judged(true, false, Gold), &[0, 1], &[2], 1.0, "(1 + 1)"),
        case(judged(false, false, Gold), &[0, 1, 2], &[0, 1, 2], 1.0, "(1 + 1)"),
        case(judged(false, true, Gold), &[0, 1], &[0, 1], 0.5, "(1 + 1)"),
        case(judged(false, false, Teacher), &[0, 1, 2], &[0, 1, 2], 1.0, "(99 + 99)"),
    ];
    let mut fingerprints = BTreeSet::new();
    for Case { plan, even, odd, weight, label } in cases {
        let run = ledger.create(plan.clone()).await.unwrap();
        let examples = ledger.read(&run.id, Split::Train, 0).await;
        assert_eq!(examples.len() as u64, TRAIN_ROWS);
        for (example, samples) in examples.iter().zip([even, odd].into_iter().cycle()) {
            let kept: Vec<u32> = example.rationales.iter().map(|rationale| rationale.sample).collect();
            assert_eq!(kept, samples, "row {} of {plan:?}", example.row.index);
            assert!(example.rationales.iter().all(|rationale| rationale.weight == weight), "{plan:?}");
            assert_eq!(example.rationales[0].text, format!("Row {}.", example.row.index));
            assert_eq!(example.row.example.answers, [], "what came with a row is in the ledger");
        }
        assert_eq!(examples[1].target.as_deref(), Some(label), "{plan:?}");
        assert_eq!(run.ledger_fingerprint, fingerprint(&examples), "{plan:?}");
        fingerprints.insert(run.ledger_fingerprint);
        for split in [Split::Validation, Split::Test] {
            for example in ledger.read(&run.id, split, 0).await {
                let measured = (example.target.clone(), example.rationales.len());
                assert_eq!(measured, (example.row.example.label.clone(), 0), "measured by gold: {split}");
            }
        }
        let rest = ledger.read(&run.id, Split::Train, 61).await;
        assert_eq!(rest, examples[61..], "a stream begins where the trainer says");
    }
    assert_eq!(fingerprints.len(), 3, "rules that accept the same have the same fingerprint");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_final_run_reads_what_the_cached_verdicts_say() {
    let ledger = Ledger::open().await;
    let spec = ledger.store.distillation(ledger.job).await.unwrap().spec;
    let rows =
        ledger.store.rows(ledger.store.distillation(ledger.job).await.unwrap().dataset, None, 0, 1_000);
    let rows = rows.await.unwrap();
    let entries = ledger.entries().await;
    assert_eq!(entries.len() as u64, TRAIN_ROWS * 3 + 2, "two test rows measure the teacher");
    for row in &rows {
        let of_row: Vec<LedgerEntry> =
            entries.iter().filter(|entry| entry.row == row.index).cloned().collect();
        let gold = row.example.label.as_deref();
        for verdict in judge::judge_row(&spec.judging, spec.task.metric, gold, &of_row) {
            let cached = of_row.iter().find(|entry| entry.prompt == verdict.prompt).unwrap();
            let cached = (cached.verdict, cached.reason, cached.weight);
            assert_eq!(cached, (verdict.verdict, verdict.reason, verdict.weight), "row {}", row.index);
        }
    }
    let id = ledger.final_run().await;
    let examples = ledger.read(&id, Split::Train, 0).await;
    let run = ledger.store.run(id.parse().unwrap()).await.unwrap();
    assert_eq!(run.ledger_fingerprint, fingerprint(&examples));
    let same = ledger.create(v1::RunPlan::default()).await.unwrap();
    assert_eq!(same.ledger_fingerprint, run.ledger_fingerprint, "the same rules over the same rows");
    assert_eq!(ledger.read(&same.id, Split::Train, 0).await, examples);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_fraction_reads_some_of_the_rows_of_a_larger_one() {
    let ledger = Ledger::open().await;
    let mut before = BTreeSet::new();
    for (parts, expected) in [(0.125, 8), (0.25, 16), (0.5, 32), (1.0, 64)] {
        let run = ledger.create(fraction(parts)).await.unwrap();
        let examples = ledger.read(&run.id, Split::Train, 0).await;
        let rows: BTreeSet<u64> = examples.iter().map(|example| example.row.index).collect();
        assert_eq!(rows.len(), expected, "{parts}");
        assert!(before.is_subset(&rows), "{parts}: {before:?} {rows:?}");
        assert_eq!(run.ledger_fingerprint, fingerprint(&examples), "{parts}");
        assert_eq!(ledger.read(&run.id, Split::Test, 0).await.len(), 2, "all is measured");
        before = rows;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_is_refused_with_every_mistake() {
    let ledger = Ledger::open().await;
    let check = async |plan: v1::RunPlan, fields: &[&str]| {
        assert_eq!(ledger.create(plan.clone()).await.unwrap_err(), fields, "{plan:?}");
    };
    check(fraction(0.0), &["rows.fraction"]).await;
    check(v1::RunPlan { purpose: v1::RunPurpose::Final.into(), ..Default::default() }, &["purpose"]).await;
    check(v1::RunPlan { purpose: v1::RunPurpose::Cell.into(), ..Default::default() }, &["purpose"]).await;
    let training = Some(v1::TrainingSpec { batch_examples: Some(0), alpha: Some(2.0), ..Default::default() });
    check(v1::RunPlan { training, ..Default::default() }, &["training.alpha", "training.batch_examples"])
        .await;
    let student = Some(v1::StudentSpec { base: "unknown".to_owned(), ..Default::default() });
    check(v1::RunPlan { student, ..Default::default() }, &["student.base"]).await;
    check(judged(true, false, v1::LabelSource::Teacher), &["judging.agree"]).await;
    let request = v1::ListRunsRequest { distillation_id: ledger.job.to_string(), page: None };
    let runs = ledger.runs.clone().list_runs(request).await.unwrap().into_inner().runs;
    let ids: Vec<String> = runs.into_iter().map(|run| run.id).collect();
    assert_eq!(ids, [ledger.final_run().await], "none was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_final_run_appends_to_the_events_of_its_job() {
    let ledger = Ledger::open().await;
    let probe = ledger.create(v1::RunPlan::default()).await.unwrap().id;
    let mut runs = ledger.runs.clone();
    for (expected, appends) in [(ledger.final_run().await, true), (probe, false)] {
        let request = wire::lease_request("trainer", Duration::from_secs(60));
        let leased = runs.lease_run(request).await.unwrap().into_inner().leased.unwrap().run.unwrap();
        assert_eq!(leased.id, expected);
        let before = ledger.store.events(ledger.job, 0, 100).await.unwrap().len();
        let accuracy = domain::metric::Accuracy::measure(2, 1, 2);
        let request = v1::ReportRunRequest {
            run_id: leased.id.clone(),
            fence: leased.fence,
            step: 1,
            metrics: vec![v1::MetricPoint { step: 1, name: "loss_label".to_owned(), value: 0.5 }],
            lease: Some(wire::duration(Duration::from_secs(60))),
            evaluation: Some(v1::RunEvaluation {
                step: 1,
                split: v1::Split::Test.into(),
                accuracy: Some(accuracy.into()),
            }),
        };
        runs.report_run(request).await.unwrap();
        let after = ledger.store.events(ledger.job, 0, 100).await.unwrap().len();
        assert_eq!(after - before, if appends { 2 } else { 0 });
        let request = v1::ListMetricsRequest { run_id: leased.id, name: String::new() };
        let metrics = runs.list_metrics(request).await.unwrap().into_inner().metrics;
        assert_eq!(metrics.len(), 1, "its numbers are found by its id");
    }
}
