//! What is asked, found again and asked again, counted at a teacher of this test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use bytes::Bytes;
use conformance::fixtures;
use domain::ids::{CompletionKey, DistillationId, RequestId};
use domain::ports::{
    CallCost, CallOutcome, LedgerFilter, Pace, RateLimitError, RateLimits, Reservation, SeenLimit, WaitReason,
};
use domain::records::{LedgerEntry, NewPrompt};
use domain::state::{DistillationState, PromptState};
use domain::{JobStore, PromptStore, Queue, RateLimiter, Stores};
use embedded::{MemoryQueue, MemoryRateLimiter, SqliteStore};
use harvester::{Harvester, Settings};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use teacher::{Profile, Provider, Teacher};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::rationales_service_client::RationalesServiceClient;

const ROWS: u64 = 6;
const NOTHING: [u64; 0] = [];
/// How long a test waits at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What the server does at the moment.
#[derive(Clone, Default)]
struct Served {
    /// The model in its list, and in its answers; none for a server that does not tell.
    model: Option<&'static str>,
    /// It is loading its model, and answers nothing until it was called so often.
    loading: u32,
    /// Rows that it answers in prose, without an answer.
    prose: Vec<u64>,
    /// The rows that it was asked about, in any order.
    asked: Vec<u64>,
}

/// A teacher of one model at a time.
struct Server {
    url: String,
    served: Arc<Mutex<Served>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served::default()));
        let shared = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, served }
    }

    fn set(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().unwrap());
    }

    /// The rows that it was asked about since it was looked at, in order.
    fn asked(&self) -> Vec<u64> {
        let mut asked = std::mem::take(&mut self.served.lock().unwrap().asked);
        asked.sort_unstable();
        asked
    }
}

async fn answer(
    request: Request<Incoming>,
    served: Arc<Mutex<Served>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let respond = |status: StatusCode, body: serde_json::Value| {
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        Ok(response)
    };
    {
        let mut served = served.lock().unwrap();
        if served.loading > 0 {
            served.loading -= 1;
            return respond(
                StatusCode::SERVICE_UNAVAILABLE,
                serde_json::json!({"error": {"message": "Loading model"}}),
            );
        }
    }
    if request.method() == Method::GET {
        let model = served.lock().unwrap().model;
        return match model {
            Some(model) => respond(
                StatusCode::OK,
                serde_json::json!({"object": "list", "data": [{"id": model, "object": "model"}]}),
            ),
            None => respond(StatusCode::NOT_FOUND, serde_json::json!({"error": {"message": "no such path"}})),
        };
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let row = row_of(&body);
    let mut served = served.lock().unwrap();
    served.asked.push(row);
    let text = if served.prose.contains(&row) {
        "It depends on what you call a sum.".to_owned()
    } else {
        format!("We add one. The answer is ({row} + 1).")
    };
    let model = served.model.unwrap_or("default");
    respond(
        StatusCode::OK,
        serde_json::json!({
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }),
    )
}

/// The row that a prompt asks about: the last question in it.
fn row_of(body: &str) -> u64 {
    let question = body.rsplit("What is ").next().unwrap();
    question.split(' ').next().unwrap().parse().unwrap()
}

/// A store, and harvests in it.
struct Bench {
    store: Arc<SqliteStore>,
    _folder: TempDir,
}

impl Bench {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        Self { store, _folder: folder }
    }

    fn harvester(&self, profile: Profile) -> Harvester {
        // Another test of this process may have been faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let teacher = Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap();
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(1_000, Duration::from_secs(30)));
        let teachers = BTreeMap::from([("local".to_owned(), teacher)]);
        Harvester::new(Settings::new("test"), Stores::of(&self.store), queue, teachers)
    }

    async fn submit(&self) -> DistillationId {
        let dataset = fixtures::dataset(self.store.as_ref(), fixtures::rows(ROWS)).await;
        fixtures::job(self.store.as_ref(), fixtures::spec(fixtures::NAME), dataset.id).await.id
    }

    /// Harvests until the job trains or pauses; returns which.
    async fn harvest(&self, profile: &Profile, job: DistillationId) -> DistillationState {
        let harvester = self.harvester(profile.clone());
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        let running = tokio::spawn(async move { harvester.run(end).await });
        let began = Instant::now();
        let state = loop {
            let found = self.store.distillation(job).await.unwrap();
            if matches!(found.state, DistillationState::Training | DistillationState::Paused) {
                break found.state;
            }
            assert!(began.elapsed() < WAIT_MAX, "{found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        shutdown.cancel();
        running.await.unwrap();
        state
    }

    /// A new job over the same rows, harvested to its end.
    async fn new_job(&self, profile: &Profile) -> DistillationId {
        let job = self.submit().await;
        assert_eq!(self.harvest(profile, job).await, DistillationState::Training);
        job
    }

    async fn entries(&self, job: DistillationId) -> Vec<LedgerEntry> {
        self.store.ledger(job, &LedgerFilter::default(), 1_000).await.unwrap()
    }

    async fn forget(
        &self,
        profile: &Profile,
        job: DistillationId,
        reasons: Vec<v1::Reason>,
    ) -> v1::ForgetRationalesResponse {
        let request = v1::ForgetRationalesRequest {
            request_id: RequestId::generate().to_string(),
            distillation_id: job.to_string(),
            reasons: reasons.into_iter().map(Into::into).collect(),
            ..Default::default()
        };
        let mut client = RationalesServiceClient::new(self.harvester(profile.clone()).routes());
        client.forget_rationales(request).await.unwrap().into_inner()
    }
}

fn profile(server: &Server) -> Profile {
    Profile::new("local", Provider::OpenAiChat, &server.url, "default")
}

fn all() -> Vec<u64> {
    (0..ROWS).collect()
}

#[tokio::test]
async fn another_model_behind_the_same_profile_is_asked() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    server.set(|served| served.model = Some("small-1"));
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), all());
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), NOTHING, "the same model: from the store");
    server.set(|served| served.model = Some("small-2"));
    let job = bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), all());
    assert!(bench.entries(job).await.iter().all(|entry| entry.model == "small-2"));
    // Under another profile's name, with another name for the model, at another address: the same model.
    let elsewhere = Server::start().await;
    elsewhere.set(|served| served.model = Some("small-1"));
    let renamed = Profile { name: "other".into(), model: "alias".into(), ..profile(&elsewhere) };
    bench.new_job(&renamed).await;
    assert_eq!(elsewhere.asked(), NOTHING);
}

#[tokio::test]
async fn where_no_server_names_its_model_the_host_or_the_operator_does() {
    let (bench, server, elsewhere) = (Bench::open().await, Server::start().await, Server::start().await);
    bench.new_job(&profile(&server)).await;
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), all());
    bench.new_job(&profile(&elsewhere)).await;
    assert_eq!(elsewhere.asked(), all(), "another host may have another model");
    let stated = |server: &Server, identity: &str| Profile { identity: identity.into(), ..profile(server) };
    bench.new_job(&stated(&server, "mine")).await;
    assert_eq!(server.asked(), all());
    bench.new_job(&stated(&elsewhere, "mine")).await;
    assert_eq!(elsewhere.asked(), NOTHING, "the operator says that it is the same");
    bench.new_job(&stated(&server, "another")).await;
    assert_eq!(server.asked(), all());
    // A server that names its model now, and did not then.
    server.set(|served| served.model = Some("small-1"));
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), NOTHING, "what was paid for is kept: nothing says that it was another model");
}

#[tokio::test]
async fn a_server_that_loads_its_model_is_not_paid_again() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    server.set(|served| served.model = Some("small-1"));
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), all());
    // The first call of a new process asks who answers, and the prompts are planned without that.
    server.set(|served| served.loading = 1);
    let job = bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), NOTHING, "answered, under the name that the server tells now");
    assert_eq!(bench.entries(job).await.len(), all().len());
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), NOTHING);
}

#[tokio::test]
async fn what_the_profile_changes_in_a_request_is_asked_anew() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    let mut changed = profile(&server);
    bench.new_job(&changed).await;
    assert_eq!(server.asked(), all());
    changed.parameters.body.insert("min_p".into(), 0.05.into());
    bench.new_job(&changed).await;
    assert_eq!(server.asked(), all());
    bench.new_job(&changed).await;
    bench.new_job(&profile(&server)).await;
    assert_eq!(server.asked(), NOTHING);
}

/// Moves what a job was answered to the addresses of 0.1.0, as its database has them, in a store of its own.
async fn as_of_0_1_0(bench: &Bench, job: DistillationId, model: &str) -> Bench {
    let old = Bench::open().await;
    let dataset = fixtures::dataset(old.store.as_ref(), fixtures::rows(ROWS)).await;
    let before = fixtures::job(old.store.as_ref(), fixtures::spec(fixtures::NAME), dataset.id).await.id;
    let spec = fixtures::spec(fixtures::NAME);
    let renderer = teacher::Renderer::new(&spec.task).unwrap();
    let mut imported = Vec::new();
    for entry in bench.entries(job).await {
        let rendered = renderer.render(&fixtures::row(entry.row), None).unwrap();
        let teacher = spec.teacher.as_ref().unwrap();
        let sampling = serde_json::json!({
            "temperature": teacher.temperature, "top_p": teacher.top_p, "tokens_max": teacher.tokens_max,
            "stop": spec.task.stop, "sample": entry.sample,
        });
        let key = CompletionKey::of(&[
            b"local",
            b"default",
            rendered.instruction.as_bytes(),
            rendered.prompt.as_bytes(),
            sampling.to_string().as_bytes(),
        ]);
        let prompt = NewPrompt { key, ..fixtures::question(entry.row, entry.sample) };
        let completion = domain::records::Completion {
            model: model.to_owned(),
            ..fixtures::completion(key, &entry.completion)
        };
        imported.push((
            prompt.clone(),
            domain::records::Harvested {
                prompt: prompt.id,
                attempt: 0,
                completion,
                cached: true,
                calls: Vec::new(),
                parsed: entry.parsed,
                verdict: entry.verdict,
                reason: entry.reason,
            },
        ));
    }
    old.store.record_imported(before, imported).await.unwrap();
    old.store.cancel(before, "").await.unwrap();
    old
}

#[tokio::test]
async fn answers_of_0_1_0_are_found_where_they_are_this_models() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    let job = bench.new_job(&profile(&server)).await;
    server.asked();
    for (recorded, served, asked) in [
        ("small-1", Some("small-1"), false),
        ("small-1", Some("small-2"), true),
        ("small-1", None, false),
        ("default", Some("small-1"), false),
    ] {
        let old = as_of_0_1_0(&bench, job, recorded).await;
        server.set(|now| now.model = served);
        old.new_job(&profile(&server)).await;
        let expected = if asked { all() } else { Vec::new() };
        assert_eq!(server.asked(), expected, "{recorded} under 0.1.0, {served:?} now");
        let other = Profile { name: "local".into(), model: "another".into(), ..profile(&server) };
        old.new_job(&Profile { identity: "new".into(), ..other }).await;
        assert_eq!(server.asked(), all(), "another model that is asked for");
    }
}

#[tokio::test]
async fn forgotten_answers_are_asked_again_and_no_others() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    server.set(|served| {
        served.model = Some("small-1");
        served.prose = vec![1, 4];
    });
    let profile = profile(&server);
    let first = bench.new_job(&profile).await;
    assert_eq!(server.asked(), all());
    let before = bench.entries(first).await;
    server.set(|served| served.prose.clear());
    bench.new_job(&profile).await;
    assert_eq!(server.asked(), NOTHING, "a repaired teacher is not asked by itself");
    let forgotten = bench.forget(&profile, first, vec![v1::Reason::NoAnswer]).await;
    assert_eq!((forgotten.forgotten, forgotten.asked_again, forgotten.harvests), (2, 0, false));
    let second = bench.new_job(&profile).await;
    assert_eq!(server.asked(), [1, 4]);
    assert!(bench.entries(second).await.iter().all(|entry| entry.reason.is_none()));
    assert_eq!(bench.entries(first).await, before, "the old job's ledger stays as it is");
    bench.new_job(&profile).await;
    assert_eq!(server.asked(), NOTHING);
}

#[tokio::test]
async fn a_job_that_paused_over_bad_answers_asks_again_and_goes_on() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    server.set(|served| served.prose = all());
    let profile = profile(&server);
    let job = bench.submit().await;
    assert_eq!(bench.harvest(&profile, job).await, DistillationState::Paused);
    assert!(!server.asked().is_empty());
    server.set(|served| served.prose.clear());
    let forgotten = bench.forget(&profile, job, vec![v1::Reason::NoAnswer]).await;
    assert!(forgotten.harvests && forgotten.asked_again > 0, "{forgotten:?}");
    bench.store.resume(job).await.unwrap();
    assert_eq!(bench.harvest(&profile, job).await, DistillationState::Training);
    assert_eq!(server.asked(), all());
    let progress = bench.store.harvest_progress(job).await.unwrap();
    assert_eq!(progress.in_state(PromptState::Answered), ROWS);
    assert!(bench.entries(job).await.iter().all(|entry| entry.reason.is_none()));
}

/// The address of a server that takes every call and answers none.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    url
}

#[tokio::test]
async fn a_teacher_that_does_not_answer_holds_up_no_other_job() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    let away = Profile::new("away", Provider::OpenAiChat, &silent().await, "default");
    let teacher = |profile| Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let teachers =
        BTreeMap::from([("away".to_owned(), teacher(away)), ("local".to_owned(), teacher(profile(&server)))]);
    let dataset = fixtures::dataset(bench.store.as_ref(), fixtures::rows(ROWS)).await;
    for _job in 0..40 {
        let mut spec = fixtures::spec(fixtures::NAME);
        spec.teacher.as_mut().unwrap().profiles = Some(vec!["away".to_owned()]);
        fixtures::job(bench.store.as_ref(), spec, dataset.id).await;
    }
    let job = fixtures::job(bench.store.as_ref(), fixtures::spec(fixtures::NAME), dataset.id).await.id;
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(1_000, Duration::from_secs(30)));
    let harvester = Harvester::new(Settings::new("test"), Stores::of(&bench.store), queue, teachers);
    let running = tokio::spawn(async move { harvester.run(CancellationToken::new()).await });
    let done = async {
        while bench.store.distillation(job).await.unwrap().state != DistillationState::Training {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Each of the others asks its teacher for five seconds which model it has.
    tokio::time::timeout(Duration::from_secs(15), done).await.expect("it waits for the other jobs' teacher");
    running.abort();
}

/// Limits that break down whenever a call is to be made.
struct Broken;

#[async_trait::async_trait]
impl RateLimiter for Broken {
    async fn reserve(&self, _: &str, _: &RateLimits, _: CallCost) -> Result<Reservation, RateLimitError> {
        panic!("for a test");
    }

    async fn start(&self, _: &str, _: u64) -> Result<Option<(Duration, WaitReason)>, RateLimitError> {
        Ok(None)
    }

    async fn settle(&self, _: &str, _: u64, _: CallOutcome, _: &[SeenLimit]) -> Result<(), RateLimitError> {
        Ok(())
    }

    async fn renew(&self, _: &str, _: &[u64]) -> Result<(), RateLimitError> {
        Ok(())
    }

    async fn pace(&self, profile: &str) -> Result<Pace, RateLimitError> {
        MemoryRateLimiter::default().pace(profile).await
    }
}

#[tokio::test]
async fn a_panic_while_asking_pauses_the_job_and_no_other() {
    let (bench, server) = (Bench::open().await, Server::start().await);
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Another model: what the third job is answered is not the others' answer.
    let broken = Profile { name: "broken".into(), identity: "broken".into(), ..profile(&server) };
    let teachers = BTreeMap::from([
        ("broken".to_owned(), Teacher::new(broken, Arc::new(Broken)).unwrap()),
        ("local".to_owned(), Teacher::new(profile(&server), Arc::new(MemoryRateLimiter::default())).unwrap()),
    ]);
    let dataset = fixtures::dataset(bench.store.as_ref(), fixtures::rows(ROWS)).await;
    let mut jobs = Vec::new();
    for (profile, rows_per_call) in [("broken", 1), ("broken", 4), ("local", 1)] {
        let mut spec = fixtures::spec(fixtures::NAME);
        let teacher = spec.teacher.as_mut().unwrap();
        (teacher.profiles, teacher.rows_per_call) = (Some(vec![profile.to_owned()]), rows_per_call);
        jobs.push(fixtures::job(bench.store.as_ref(), spec, dataset.id).await.id);
    }
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(1_000, Duration::from_secs(30)));
    let harvester = Harvester::new(Settings::new("test"), Stores::of(&bench.store), queue, teachers);
    let (shutdown, began) = (CancellationToken::new(), Instant::now());
    let end = shutdown.clone();
    let running = tokio::spawn(async move { harvester.run(end).await });
    let wanted = [DistillationState::Paused, DistillationState::Paused, DistillationState::Training];
    for (job, wanted) in jobs.iter().zip(wanted) {
        loop {
            let found = bench.store.distillation(*job).await.unwrap();
            if found.state == wanted {
                let is_told = found.reason.contains("for a test");
                assert_eq!(is_told, wanted == DistillationState::Paused, "{found:?}");
                break;
            }
            assert!(began.elapsed() < WAIT_MAX, "{found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    shutdown.cancel();
    tokio::time::timeout(WAIT_MAX, running).await.expect("it waits for what nobody asks").unwrap();
}
