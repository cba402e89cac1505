//! What goes into one message, and what is refused because it would not: streams, pages and texts, over a real store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use conformance::fixtures;
use domain::ids::{DistillationId, RequestId};
use domain::spec::TeacherSource;
use domain::state::DistillationState;
use domain::{Answer, Example, JobStore, PromptStore, Queue, RunStore, Split, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Teacher};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use wire::v1;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::v1::runs_service_client::RunsServiceClient;

/// Together they have more bytes than the largest message.
const ROWS: u64 = 200;
const INPUT_BYTES: usize = 40_000;
const RATIONALE_BYTES: usize = 60_000;
/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct Bench {
    store: Arc<SqliteStore>,
    harvester: Harvester,
    _folder: TempDir,
}

impl Bench {
    async fn open() -> Self {
        Self::of(BTreeMap::new()).await
    }

    async fn of(teachers: BTreeMap<String, Teacher>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(100, Duration::from_secs(30)));
        let harvester = Harvester::new(Settings::new("test"), Stores::of(&store), queue, teachers);
        Self { store, harvester, _folder: folder }
    }

    fn routes(&self) -> Routes {
        self.harvester.routes()
    }

    fn run(&self) -> Running {
        let (works, shutdown) = (self.harvester.clone(), CancellationToken::new());
        let end = shutdown.clone();
        Running { shutdown, task: tokio::spawn(async move { works.run(end).await }) }
    }

    /// A job whose answers came with long rows, past its harvest.
    async fn harvested(&self) -> DistillationId {
        let dataset = fixtures::dataset(self.store.as_ref(), (0..ROWS).map(long).collect()).await;
        let mut spec = fixtures::spec(fixtures::NAME);
        spec.teacher.as_mut().unwrap().source = TeacherSource::Imported;
        let job = fixtures::job(self.store.as_ref(), spec, dataset.id).await.id;
        let running = self.run();
        let began = Instant::now();
        loop {
            let found = self.store.distillation(job).await.unwrap();
            if found.state == DistillationState::Training {
                break;
            }
            assert!(began.elapsed() < WAIT_MAX, "{:?} {}", found.state, found.reason);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.end().await;
        job
    }
}

/// A harvester at work.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn long(index: u64) -> Example {
    let label = format!("({index} + 1)");
    let rationale = format!("Row {index}.{}", " So.".repeat(RATIONALE_BYTES / 4));
    Example {
        input: format!("What is {index} + 1?{}", " Say.".repeat(INPUT_BYTES / 5)),
        answers: vec![Answer::Rationale {
            teacher: "palm".into(),
            text: rationale,
            label: Some(label.clone()),
        }],
        label: Some(label),
        ..fixtures::row(index)
    }
}

/// Every message of a stream.
async fn all<M>(stream: Result<tonic::Response<Streaming<M>>, Status>) -> Vec<M> {
    let mut stream = stream.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

/// Any client reads them: these have the limit that gRPC has by default, 4 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn streams_and_pages_are_cut_by_bytes() {
    let bench = Bench::open().await;
    let job = bench.harvested().await;
    let every: Vec<u64> = (0..ROWS).collect();
    let record = bench.store.distillation(job).await.unwrap();

    let request = v1::StreamRowsRequest { dataset_id: record.dataset.to_string(), ..Default::default() };
    let chunks = all(DatasetsServiceClient::new(bench.routes()).stream_rows(request).await).await;
    let rows: Vec<u64> = chunks.iter().flat_map(|chunk| chunk.rows.iter().map(|row| row.index)).collect();
    assert_eq!(rows, every);

    let run_id = bench.store.run(record.run.unwrap()).await.unwrap().id.to_string();
    let split = v1::Split::Train.into();
    let request = v1::StreamExamplesRequest { run_id, split, from_index: 0 };
    let chunks = all(RunsServiceClient::new(bench.routes()).stream_examples(request).await).await;
    let examples = chunks.iter().flat_map(|chunk| &chunk.examples);
    let read: Vec<u64> = examples
        .map(|example| {
            assert!(example.rationales[0].text.len() > RATIONALE_BYTES);
            example.row.as_ref().unwrap().index
        })
        .collect();
    assert_eq!(read, every);

    let mut rationales = RationalesServiceClient::new(bench.routes());
    let request = v1::StreamRationalesRequest { distillation_id: job.to_string(), ..Default::default() };
    let chunks = all(rationales.stream_rationales(request).await).await;
    let streamed = chunks.iter().flat_map(|chunk| chunk.rationales.iter().map(|entry| entry.row));
    assert_eq!(streamed.collect::<Vec<_>>(), every);

    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = Some(v1::PageRequest { page_size: 1_000, page_token });
        let request =
            v1::ListRationalesRequest { distillation_id: job.to_string(), page, ..Default::default() };
        let found = rationales.list_rationales(request).await.unwrap().into_inner();
        listed.extend(found.rationales.iter().map(|entry| entry.row));
        if found.next_page_token.is_empty() {
            break;
        }
        page_token = found.next_page_token;
    }
    assert_eq!(listed, every);
}

#[tokio::test]
async fn a_page_of_jobs_is_cut_by_bytes() {
    let bench = Bench::open().await;
    let dataset = fixtures::dataset(bench.store.as_ref(), fixtures::rows(1)).await;
    let mut made = Vec::new();
    for _ in 0..20 {
        let mut spec = fixtures::spec(fixtures::NAME);
        spec.task.instruction = "Add. ".repeat(200_000);
        made.push(fixtures::job(bench.store.as_ref(), spec, dataset.id).await.id.to_string());
    }
    made.sort_unstable_by(|one, other| other.cmp(one));
    let mut jobs = DistillationsServiceClient::new(bench.routes());
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = Some(v1::PageRequest { page_size: 1_000, page_token });
        let request = v1::ListDistillationsRequest { page, ..Default::default() };
        let found = jobs.list_distillations(request).await.unwrap().into_inner();
        listed.extend(found.distillations.into_iter().map(|job| job.id));
        if found.next_page_token.is_empty() {
            break;
        }
        page_token = found.next_page_token;
    }
    listed.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(listed, made);
}

/// One transaction writes so many prompts of a wave, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_wave_of_many_prompts_is_planned_in_parts() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let teacher = Profile::new("local", Provider::OpenAiChat, "http://127.0.0.1:9/v1", "small");
    let teacher = Teacher::new(teacher, Arc::new(MemoryRateLimiter::default())).unwrap();
    let bench = Bench::of(BTreeMap::from([("local".to_owned(), teacher)])).await;
    let test = |index: u64| Example { split: Split::Test, ..fixtures::row(index) };
    let mut rows = fixtures::rows(4);
    rows.extend((4..2_504).map(test));
    let dataset = fixtures::dataset(bench.store.as_ref(), rows).await;
    let mut spec = fixtures::spec(fixtures::NAME);
    spec.teacher.as_mut().unwrap().evaluate_rows = 2_500;
    let job = fixtures::job(bench.store.as_ref(), spec, dataset.id).await.id;
    let running = bench.run();
    let began = Instant::now();
    while bench.store.harvest_progress(job).await.unwrap().total() < 2_504 {
        let found = bench.store.distillation(job).await.unwrap();
        assert!(found.state != DistillationState::Paused && began.elapsed() < WAIT_MAX, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.end().await;
    assert_eq!(bench.store.harvest_progress(job).await.unwrap().total(), 2_504);
}

/// The field that a call is refused for.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = wire::violations_of(&status);
    assert!(violations[0].message.contains("bytes"), "{violations:?}");
    violations[0].field.clone()
}

/// What is kept of a text is listed later: one that is too long would stand in the way of everything else.
#[tokio::test]
async fn a_text_that_is_too_long_is_refused_by_its_field() {
    let bench = Bench::open().await;
    let store = bench.store.as_ref();
    let text = || "x".repeat(9_000_000);
    let run = fixtures::training(store, fixtures::NAME).await;
    let leased = store.lease_run("trainer", fixtures::LONG, fixtures::LOST_MAX).await.unwrap().unwrap().run;
    let (run_id, fence) = (run.id.to_string(), leased.fence);
    let job = run.distillation.to_string();
    let routes = || bench.routes();

    let mut jobs = DistillationsServiceClient::new(routes());
    let request = v1::CancelDistillationRequest { distillation_id: job.clone(), reason: text() };
    assert_eq!(refused(jobs.cancel_distillation(request).await), "reason");
    let dataset = store.distillation(run.distillation).await.unwrap().dataset.to_string();
    let mut spec = fixtures::spec(fixtures::NAME);
    spec.task.instruction = text();
    let request = v1::SubmitDistillationRequest {
        request_id: RequestId::generate().to_string(),
        dataset_id: dataset.clone(),
        spec: Some(spec.clone().into()),
    };
    assert_eq!(refused(jobs.submit_distillation(request).await), "spec");
    let request = v1::EstimateDistillationRequest {
        dataset_id: dataset,
        spec: Some(spec.into()),
        ..Default::default()
    };
    assert_eq!(refused(jobs.estimate_distillation(request).await), "spec");

    let mut runs = RunsServiceClient::new(routes());
    let request = v1::LeaseRunRequest { trainer: text(), ..Default::default() };
    assert_eq!(refused(runs.lease_run(request).await), "trainer");
    let request = v1::FailRunRequest { run_id: run_id.clone(), fence, reason: text() };
    assert_eq!(refused(runs.fail_run(request).await), "reason");
    let request = v1::SaveResumePointRequest { run_id: run_id.clone(), fence, step: 1, path: text() };
    assert_eq!(refused(runs.save_resume_point(request).await), "path");
    let metrics = vec![v1::MetricPoint { step: 1, name: text(), value: 1.0 }];
    let lease = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request =
        v1::ReportRunRequest { run_id: run_id.clone(), fence, step: 1, metrics, lease, ..Default::default() };
    assert_eq!(refused(runs.report_run(request).await), "metrics[0].name");
    for (path, manifest_sha256, field) in
        [(text(), String::new(), "result.path"), ("models/x".into(), text(), "result.manifest_sha256")]
    {
        let result = Some(v1::RunResult { path, manifest_sha256, ..Default::default() });
        let request = v1::PublishRunRequest { run_id: run_id.clone(), fence, result, ..Default::default() };
        assert_eq!(refused(runs.publish_run(request).await), field);
    }

    let mut models = ModelsServiceClient::new(routes());
    let request = v1::RegisterBaseModelRequest { name: "t5-small".into(), manifest_sha256: text() };
    assert_eq!(refused(models.register_base_model(request).await), "manifest_sha256");

    // Nothing of it was kept.
    let request = v1::ListDistillationsRequest::default();
    assert_eq!(jobs.list_distillations(request).await.unwrap().into_inner().distillations.len(), 1);
    let found = store.run(run.id).await.unwrap();
    assert_eq!((found.reason.as_str(), found.resume_path.as_str()), ("", ""));
}

/// A row goes into a message with everything that came with it.
#[tokio::test]
async fn a_row_that_is_too_long_is_named_with_its_bytes_and_the_limit() {
    let bench = Bench::open().await;
    let mut datasets = DatasetsServiceClient::new(bench.routes());
    let request =
        v1::CreateDatasetRequest { request_id: RequestId::generate().to_string(), name: "rows".into() };
    let dataset_id = datasets.create_dataset(request).await.unwrap().into_inner().dataset.unwrap().id;
    let text = "x".repeat(60_000);
    let answer = || Answer::Rationale { teacher: "palm".into(), text: text.clone(), label: None };
    for (answers, refused) in [(16, false), (20, true)] {
        let long = Example { answers: vec![answer(); answers], ..fixtures::row(1) };
        let examples = vec![fixtures::row(0).into(), long.into()];
        let chunk = v1::UploadRowsRequest { dataset_id: dataset_id.clone(), offset: 0, examples };
        let sent = datasets.upload_rows(tokio_stream::iter([chunk])).await;
        assert_eq!(sent.is_err(), refused, "{answers} answers: {sent:?}");
        if let Err(status) = sent {
            let violation = wire::violations_of(&status).remove(0);
            assert_eq!(violation.field, "rows[1].answers");
            assert!(violation.message.contains("1200"), "its bytes: {}", violation.message);
            assert!(violation.message.contains("1048576"), "the limit: {}", violation.message);
        }
    }
    let teacher = "x".repeat(70_000);
    let long =
        Example { answers: vec![Answer::Completion { teacher, text: "One.".into() }], ..fixtures::row(2) };
    let chunk = v1::UploadRowsRequest { dataset_id, offset: 2, examples: vec![long.into()] };
    let status = datasets.upload_rows(tokio_stream::iter([chunk])).await.unwrap_err();
    assert_eq!(wire::violations_of(&status).remove(0).field, "rows[2].teacher");
}
