//! Jobs that ask until rationales stop helping: what is asked, counted at a teacher of this test, while a trainer of this test
//! publishes students of planted accuracies through the services.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot be set up has failed"
)]

use bytes::Bytes;
use conformance::fixtures;
use domain::event::EventKind;
use domain::ids::{DistillationId, RunId};
use domain::judge::Fingerprint;
use domain::metric::{Accuracy, SplitMix};
use domain::objective::{Objective, TrainingExample};
use domain::records::{LeasedRun, Run};
use domain::run::{Outcomes, RunOutcomes, RunPlan, RunResult};
use domain::share::{End, Share};
use domain::spec::{Select, TeacherSpec, Until};
use domain::state::DistillationState;
use domain::{Example, JobStore, PromptStore, Queue, Split, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Teacher};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::v1;
use wire::v1::runs_service_client::RunsServiceClient;

const TRAIN_ROWS: u64 = 400;
const VALIDATION_ROWS: u64 = 2_000;
/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The rows that the teacher's server was asked about, in the order of asking.
type Asked = Arc<Mutex<Vec<u64>>>;

/// A teacher that answers every question; right, or in prose.
async fn serve(is_prose: bool) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Asked::default();
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&counted), is_prose));
                let connection = TokioIo::new(stream);
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(connection, service).await;
            });
        }
    });
    (url, asked)
}

async fn answer(
    request: Request<Incoming>,
    asked: Asked,
    is_prose: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    if request.method() == Method::GET {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let row: u64 = body.rsplit("What is ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    asked.lock().unwrap().push(row);
    let text = match is_prose {
        true => "It depends on what you call a sum.".to_owned(),
        false => format!("We add one. The answer is ({row} + 1)."),
    };
    let answer = serde_json::json!({
        "model": "small-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    });
    *response.body_mut() = Full::new(Bytes::from(answer.to_string()));
    Ok(response)
}

/// Accuracies of the students that learn from rationales for no row, an eighth, a quarter, half and all of them.
type Curve = [f64; 5];

/// Which validation rows a student of that accuracy gets right: some rows are easier than others, and one in two hundred turns
/// out differently from student to student.
fn outcomes(curve: &Curve, share: Share) -> Outcomes {
    let accuracy = curve[share.place()];
    let mut luck = SplitMix::new(share.place() as u64 + 1);
    let mut difficulty = SplitMix::new(77);
    Outcomes::of((0..VALIDATION_ROWS).map(|row| {
        let is_right = difficulty.next_f64() < accuracy;
        let is_odd = luck.next_f64() < 0.005;
        (TRAIN_ROWS + row, is_right != is_odd)
    }))
}

/// A job in a store, its teacher, and the harvester that works on it.
struct Bench {
    store: Arc<SqliteStore>,
    url: String,
    asked: Asked,
    job: DistillationId,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    runs: RunsServiceClient<Routes>,
    _folder: TempDir,
}

impl Bench {
    async fn open(is_prose: bool, change: impl FnOnce(&mut TeacherSpec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        let (url, asked) = serve(is_prose).await;
        let rows = (0..TRAIN_ROWS + VALIDATION_ROWS).map(|row| {
            let split = if row < TRAIN_ROWS { Split::Train } else { Split::Validation };
            Example { split, ..fixtures::row(row) }
        });
        let dataset = fixtures::dataset(store.as_ref(), rows.collect()).await;
        let mut spec = fixtures::spec(fixtures::NAME);
        let teacher = spec.teacher.as_mut().unwrap();
        (teacher.until, teacher.evaluate) = (Until::NoGain, false);
        change(teacher);
        assert_eq!(spec.violations(), []);
        let job = fixtures::job(store.as_ref(), spec, dataset.id).await.id;
        let harvester = harvester(&store, &url);
        let runs = RunsServiceClient::new(harvester.routes());
        let running = Some(start(harvester));
        Self { store, url, asked, job, running, runs, _folder: folder }
    }

    /// The harvester ends, with all that it had in memory, and another one begins.
    async fn restart(&mut self) {
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.cancel();
            running.await.unwrap();
        }
        let harvester = harvester(&self.store, &self.url);
        self.runs = RunsServiceClient::new(harvester.routes());
        self.running = Some(start(harvester));
    }

    /// Waits until a run waits for a trainer, and leases it, or until the job is past its harvest or paused.
    async fn lease(&mut self) -> Option<LeasedRun> {
        let began = Instant::now();
        loop {
            let request = wire::lease_request("trainer", Duration::from_secs(600));
            if let Some(leased) = self.runs.lease_run(request).await.unwrap().into_inner().leased {
                return Some(LeasedRun::try_from(leased).unwrap());
            }
            let job = self.store.distillation(self.job).await.unwrap();
            if job.state == DistillationState::Paused {
                return None;
            }
            assert!(began.elapsed() < WAIT_MAX, "{job:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The next probe; `None` where the final run has come, or the job has paused.
    async fn probe(&mut self) -> Option<LeasedRun> {
        self.lease().await.filter(|leased| leased.run.plan.share.is_some())
    }

    async fn publish(&mut self, run: &Run, outcomes: RunOutcomes) {
        let (right, rows) = (outcomes.validation.right.len() as u64, outcomes.validation.rows() as u64);
        let result = RunResult {
            path: format!("runs/{}", run.id),
            manifest_sha256: "00".into(),
            parameters: 1,
            validation: Some(Accuracy::measure(rows, right, rows)),
            test: None,
            train_seconds: 1.0,
            evaluate_seconds: 1.0,
        };
        let request = v1::PublishRunRequest {
            run_id: run.id.to_string(),
            fence: run.fence,
            result: Some(result.into()),
            outcomes: Some(outcomes.into()),
        };
        self.runs.publish_run(request).await.unwrap();
    }

    async fn read(&mut self, run: RunId) -> Vec<TrainingExample> {
        let split = v1::Split::from(Split::Train).into();
        let request = v1::StreamExamplesRequest { run_id: run.to_string(), split, from_index: 0 };
        let mut chunks = self.runs.stream_examples(request).await.unwrap().into_inner();
        let mut examples = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            examples.extend(chunk.examples.into_iter().map(|example| example.try_into().unwrap()));
        }
        examples
    }

    /// The rows that the teacher was asked about, each once.
    fn asked(&self) -> BTreeSet<u64> {
        let asked = self.asked.lock().unwrap().clone();
        let rows: BTreeSet<u64> = asked.iter().copied().collect();
        assert_eq!(rows.len(), asked.len(), "nothing is asked twice: {asked:?}");
        rows
    }

    /// Every decision so far.
    async fn decided(&self) -> Vec<(Share, Option<Share>, Option<End>)> {
        let events = self.store.events(self.job, 0, 1_000).await.unwrap();
        let decided = events.into_iter().filter_map(|event| match event.kind {
            EventKind::Probed { share, next, end, .. } => Some((share, next, end)),
            _ => None,
        });
        decided.collect()
    }
}

fn harvester(store: &Arc<SqliteStore>, url: &str) -> Harvester {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let profile = Profile::new("local", Provider::OpenAiChat, url, "default");
    let teacher = Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap();
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(1_000, Duration::from_secs(30)));
    let settings = Settings { lease: Duration::from_secs(2), ..Settings::new("test") };
    Harvester::new(settings, Stores::of(store), queue, BTreeMap::from([("local".to_owned(), teacher)]))
}

fn start(harvester: Harvester) -> (CancellationToken, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    (shutdown, tokio::spawn(async move { harvester.run(end).await }))
}

fn fingerprint(examples: &[TrainingExample]) -> String {
    let mut fingerprint = Fingerprint::default();
    examples.iter().for_each(|example| fingerprint.add(example));
    fingerprint.finish()
}

/// Harvests a job whose students have the accuracies of a curve; the harvester is replaced by
/// another one while each probe is trained. Returns
/// the share of rows that the teacher was asked about.
async fn check(
    name: &str,
    curve: Curve,
    select: Select,
    decisions: &[(Share, Option<Share>, Option<End>)],
) -> f64 {
    let mut bench = Bench::open(false, |teacher| teacher.select = select).await;
    let mut read = Vec::new();
    while let Some(leased) = bench.probe().await {
        let share = leased.run.plan.share.unwrap();
        bench.restart().await;
        let examples = bench.read(leased.run.id).await;
        let explained: BTreeSet<u64> = examples
            .iter()
            .filter(|example| !example.rationales.is_empty())
            .map(|example| example.row.index)
            .collect();
        assert_eq!(explained, bench.asked(), "{name}, {share}: it reads what was asked");
        let expected = TRAIN_ROWS * u64::from(share.eighths()) / 8;
        assert!(
            (expected..expected + 3).contains(&(explained.len() as u64)),
            "{name}, {share}: {}",
            explained.len()
        );
        assert!(
            examples.iter().all(|example| example.target.is_some()) && examples.len() as u64 == TRAIN_ROWS
        );
        let objective = leased.spec.training.objective;
        assert_eq!(objective == Objective::Standard, share == Share::None, "{name}, {share}");
        assert_eq!(leased.run.ledger_fingerprint, fingerprint(&examples));
        let needed = examples.iter().map(|example| example.row.index).filter(|row| row % 10 == 1).collect();
        read.push((leased.run.id, examples));
        bench.publish(&leased.run, RunOutcomes { validation: outcomes(&curve, share), needed }).await;
    }
    let job = bench.store.distillation(bench.job).await.unwrap();
    assert_eq!(job.state, DistillationState::Training, "{name}: {}", job.reason);
    assert_eq!(bench.decided().await, decisions, "{name}");
    for (run, examples) in read {
        assert_eq!(bench.read(run).await, examples, "{name}: what a probe reads stays as it is");
    }
    bench.asked().len() as f64 / TRAIN_ROWS as f64
}

/// Three teachers: calls saved and accuracy lost, next to what asking everything gives.
#[tokio::test(flavor = "multi_thread")]
async fn asking_ends_where_rationales_stop_helping() {
    use Share::{All, Eighth, Half, None as Without, Quarter};
    let begun = [(Without, Some(Eighth), None), (Eighth, Some(Quarter), None)];
    let with = |rest: &[(Share, Option<Share>, Option<End>)]| [&begun, rest].concat();
    let helped = [(Quarter, Some(Half), None)];
    let cases: [(&str, Curve, Share, Vec<_>); 4] = [
        (
            "helps up to a quarter",
            [0.50, 0.58, 0.64, 0.642, 0.643],
            Half,
            with(&[helped[0], (Half, None, Some(End::Flat))]),
        ),
        (
            "never helps",
            [0.50, 0.49, 0.495, 0.49, 0.495],
            Eighth,
            vec![begun[0], (Eighth, None, Some(End::NoBetter))],
        ),
        (
            "helps to the end",
            [0.50, 0.55, 0.60, 0.65, 0.70],
            All,
            with(&[helped[0], (Half, Some(All), None)]),
        ),
        (
            "helps at once, and then no more",
            [0.50, 0.60, 0.601, 0.60, 0.60],
            Quarter,
            with(&[(Quarter, None, Some(End::Flat))]),
        ),
    ];
    for (name, curve, share, decisions) in cases {
        let asked = check(name, curve, Select::Stratified, &decisions).await;
        let (saved, lost) = (1.0 - asked, curve[All.place()] - curve[share.place()]);
        println!("{name}: {:.1}% of the calls saved, {:.1} points lost", saved * 100.0, lost * 100.0);
        assert!((asked - f64::from(share.eighths()) / 8.0).abs() < 0.01, "{name}: asked {asked}");
        assert!(lost < 0.01, "{name}: lost {lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_what_is_asked_are_rows_that_the_probe_got_wrong() {
    let mut bench = Bench::open(false, |teacher| teacher.select = Select::Needed).await;
    let none = bench.probe().await.unwrap();
    let needed: Vec<u64> = (0..TRAIN_ROWS).filter(|row| row % 8 == 1).collect();
    let curve = [0.5, 0.6, 0.7, 0.8, 0.9];
    let published = RunOutcomes { validation: outcomes(&curve, Share::None), needed };
    bench.publish(&none.run, published).await;
    let eighth = bench.probe().await.unwrap();
    assert_eq!(eighth.run.plan.share, Some(Share::Eighth));
    let asked = bench.asked();
    let needed = asked.iter().filter(|row| *row % 8 == 1).count();
    assert_eq!(asked.len(), 50);
    assert!((25..35).contains(&needed), "{needed} of 50 are needed: half of them, and what the rest holds");
    let [without, eighth, quarter, half, all] =
        [Share::None, Share::Eighth, Share::Quarter, Share::Half, Share::All];
    let helped = [(without, eighth), (eighth, quarter), (quarter, half), (half, all)];
    let decisions = helped.map(|(share, next)| (share, Some(next), None));
    assert_eq!(check("needed", [0.5, 0.55, 0.6, 0.65, 0.7], Select::Needed, &decisions).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_pauses_the_job_and_is_trained_again() {
    let mut bench = Bench::open(false, |_| ()).await;
    let none = bench.probe().await.unwrap().run;
    let reason = "out of memory".to_owned();
    bench
        .runs
        .fail_run(v1::FailRunRequest { run_id: none.id.to_string(), fence: none.fence, reason })
        .await
        .unwrap();
    assert!(bench.lease().await.is_none());
    let job = bench.store.distillation(bench.job).await.unwrap();
    let said = job.reason;
    assert!(said.contains("probe 1 of at most 4") && said.contains("out of memory"), "{said}");
    assert_eq!(bench.asked().len(), 0);
    bench.store.resume(bench.job).await.unwrap();
    let again = bench.probe().await.unwrap().run;
    assert_eq!((again.id, again.fence), (none.id, 2), "the same probe");
    let nothing = RunOutcomes::default();
    bench.publish(&again, nothing).await;
    assert!(bench.lease().await.is_none(), "a probe that measured nothing decides nothing");
    let said = bench.store.distillation(bench.job).await.unwrap().reason;
    assert!(said.contains("measured no validation row"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_ends_the_harvest_without_further_probes() {
    let curve = [0.5, 0.6, 0.7, 0.8, 0.9];
    let mut bench = Bench::open(false, |teacher| teacher.budget.prompts = Some(70)).await;
    let mut probes = 0;
    while let Some(leased) = bench.probe().await {
        probes += 1;
        let share = leased.run.plan.share.unwrap();
        let validation = outcomes(&curve, share);
        bench.publish(&leased.run, RunOutcomes { validation, needed: Vec::new() }).await;
    }
    assert_eq!((probes, bench.asked().len()), (2, 70), "an eighth of the rows is 50");
    assert_eq!(bench.store.distillation(bench.job).await.unwrap().state, DistillationState::Training);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smoke_gate_comes_before_the_first_share() {
    let mut bench = Bench::open(true, |_| ()).await;
    let none = bench.probe().await.unwrap().run;
    let validation = outcomes(&[0.5; 5], Share::None);
    bench.publish(&none, RunOutcomes { validation, needed: Vec::new() }).await;
    assert!(bench.probe().await.is_none());
    let job = bench.store.distillation(bench.job).await.unwrap();
    assert!(job.reason.starts_with("smoke gate: 0 of 16 answers"), "{}", job.reason);
    assert_eq!(bench.asked().len(), 16);
    bench.store.resume(bench.job).await.unwrap();
    assert!(bench.probe().await.is_none(), "nothing is accepted");
    let job = bench.store.distillation(bench.job).await.unwrap();
    assert!(job.reason.contains("no rationale was accepted"), "{}", job.reason);
    assert_eq!(bench.asked().len(), 50, "the share, and no more");
    assert_eq!(bench.store.harvest_progress(bench.job).await.unwrap().total(), 50);
    assert_eq!(RunPlan::probe(&job.spec, Share::None).training.steps, 500, "a quarter of 2,000");
}
