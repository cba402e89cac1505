//! A scripted teacher: an OpenAI-compatible server whose answers, delays and faults a test controls.

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// A request to the teacher.
#[derive(Debug, Clone)]
pub struct TeacherRequest {
    /// The prompt, or the last message of a chat.
    pub prompt: String,
    /// The number of earlier requests.
    pub before: usize,
    /// The number of earlier requests with this prompt.
    pub asked_before: usize,
    /// The number of the sample.
    pub sample: u64,
    /// The stop sequences that were sent.
    pub stop: Vec<String>,
    /// The trace that the request belongs to; empty for none.
    pub traceparent: String,
}

/// The teacher's response to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers in addition to the content type.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
    /// The delay before the response.
    pub delay: Duration,
    /// Whether the connection closes in the middle of the body.
    pub broken_off: bool,
}

impl Reply {
    /// A completion in the format of OpenAI's API.
    pub fn completion(text: &str) -> Self {
        let body = serde_json::json!({
            "id": "test", "object": "text_completion", "model": "test-teacher",
            "choices": [{"index": 0, "text": text, "message": {"role": "assistant", "content": text},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        });
        Self::status(200, &body.to_string())
    }

    /// A status with a body.
    pub fn status(status: u16, body: &str) -> Self {
        let (headers, delay) = (Vec::new(), Duration::ZERO);
        Self { status, headers, body: body.to_owned(), delay, broken_off: false }
    }

    /// With a delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With a connection that closes before the body ends.
    #[must_use]
    pub fn broken_off(mut self) -> Self {
        self.broken_off = true;
        self
    }

    /// No response for longer than any test runs.
    pub fn silence() -> Self {
        Self::status(200, "").after(Duration::from_secs(24 * 3600))
    }
}

/// Requests and responses so far.
#[derive(Debug, Default)]
struct RequestLog {
    counts: HashMap<String, usize>,
    requests: usize,
    answered: usize,
    at_once_max: usize,
    /// The times of the first request and the newest response.
    first: Option<Instant>,
    last: Option<Instant>,
    traceparents: Vec<String>,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct Teacher {
    url: String,
    log: Arc<Mutex<RequestLog>>,
    runtime: Option<tokio::runtime::Runtime>,
}

type Answer = dyn Fn(&TeacherRequest) -> Reply + Send + Sync;
type Body = BoxBody<Bytes, io::Error>;

impl Teacher {
    /// Serves on a free port of the loopback address.
    ///
    /// # Errors
    /// No free port.
    pub fn start(answer: impl Fn(&TeacherRequest) -> Reply + Send + Sync + 'static) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let log = Arc::new(Mutex::new(RequestLog::default()));
        runtime.spawn(serve(listener, Arc::new(answer), Arc::clone(&log)));
        Ok(Self { url, log, runtime: Some(runtime) })
    }

    /// The base URL of the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        lock(&self.log).requests
    }

    /// The number of complete responses.
    pub fn answered(&self) -> usize {
        lock(&self.log).answered
    }

    /// The traces of the requests, in order; empty for none.
    pub fn traceparents(&self) -> Vec<String> {
        lock(&self.log).traceparents.clone()
    }

    /// The largest number of concurrent requests.
    pub fn at_once_max(&self) -> usize {
        lock(&self.log).at_once_max
    }

    /// The time from the first request to the newest response.
    pub fn span(&self) -> Duration {
        let log = lock(&self.log);
        log.first.zip(log.last).map(|(first, last)| last.duration_since(first)).unwrap_or_default()
    }

    /// The number of requests of each prompt.
    pub fn counts(&self) -> HashMap<String, usize> {
        lock(&self.log).counts.clone()
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(log: &Mutex<RequestLog>) -> MutexGuard<'_, RequestLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, log: Arc<Mutex<RequestLog>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&answer), Arc::clone(&log)));
            // Tests kill clients on purpose.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answer>,
    log: Arc<Mutex<RequestLog>>,
) -> Result<Response<Body>, Infallible> {
    // It does not say which models it has, and nobody is asked a question by being asked for that.
    if request.method() == Method::GET {
        let mut response = Response::new(whole(String::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let traceparent = traceparent.unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = note(&log, &body, traceparent);
    let reply = answer(&asked);
    tokio::time::sleep(reply.delay).await;
    log_answer(&log);
    let mut response = Response::new(if reply.broken_off { half(&reply.body) } else { whole(reply.body) });
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn whole(body: String) -> Body {
    Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed()
}

fn half(body: &str) -> Body {
    let half = body.as_bytes().get(..body.len() / 2).unwrap_or_default().to_vec();
    let frames = [Ok(Frame::data(Bytes::from(half))), Err(io::ErrorKind::ConnectionAborted.into())];
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

fn log_answer(log: &Mutex<RequestLog>) {
    let mut log = lock(log);
    log.answered += 1;
    log.last = Some(Instant::now());
}

fn note(log: &Mutex<RequestLog>, body: &[u8], traceparent: String) -> TeacherRequest {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let prompt = prompt_of(&json);
    let mut log = lock(log);
    let count = log.counts.entry(prompt.clone()).or_default();
    let asked_before = *count;
    *count += 1;
    let before = log.requests;
    log.requests += 1;
    log.traceparents.push(traceparent.clone());
    log.first.get_or_insert_with(Instant::now);
    log.at_once_max = log.at_once_max.max(log.requests - log.answered);
    let sample = json.get("seed").and_then(Value::as_u64).unwrap_or_default();
    let stops = json.get("stop").and_then(Value::as_array).into_iter().flatten();
    let stop = stops.filter_map(|stop| stop.as_str().map(str::to_owned)).collect();
    TeacherRequest { prompt, before, asked_before, sample, stop, traceparent }
}

fn prompt_of(json: &Value) -> String {
    let chat = json
        .get("messages")
        .and_then(Value::as_array)
        .and_then(|messages| messages.last())
        .and_then(|message| message.get("content"));
    json.get("prompt").or(chat).and_then(Value::as_str).unwrap_or_default().to_owned()
}
