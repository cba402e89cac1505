//! A teacher of the tests' own: an OpenAI-compatible server whose every answer, delay and fault is exact.

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

/// One request, as the teacher hears it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The prompt; a chat's last message.
    pub prompt: String,
    /// How many requests came before.
    pub before: usize,
    /// How often this prompt was asked before.
    pub asked_before: usize,
    /// The number of the sample.
    pub sample: u64,
    /// The trace that the call says it belongs to; empty for none.
    pub traceparent: String,
}

/// What the teacher does with one request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers beside the content type.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as it is sent.
    pub body: String,
    /// Waits so long first.
    pub delay: Duration,
    /// Ends the connection in the middle of the body.
    pub broken_off: bool,
}

impl Reply {
    /// A completion as OpenAI's API gives it.
    pub fn completion(text: &str) -> Self {
        let body = serde_json::json!({
            "id": "test", "object": "text_completion", "model": "test-teacher",
            "choices": [{"index": 0, "text": text, "message": {"role": "assistant", "content": text},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        });
        Self::status(200, &body.to_string())
    }

    /// A bare status with a body.
    pub fn status(status: u16, body: &str) -> Self {
        let (headers, delay) = (Vec::new(), Duration::ZERO);
        Self { status, headers, body: body.to_owned(), delay, broken_off: false }
    }

    /// The same, later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, with a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The same, with a connection that ends before the body does.
    #[must_use]
    pub fn broken_off(mut self) -> Self {
        self.broken_off = true;
        self
    }

    /// Nothing, for longer than any test runs.
    pub fn silence() -> Self {
        Self::status(200, "").after(Duration::from_secs(24 * 3600))
    }
}

/// What was asked and answered so far.
#[derive(Debug, Default)]
struct Book {
    counts: HashMap<String, usize>,
    requests: usize,
    answered: usize,
    traceparents: Vec<String>,
}

/// The server; it ends with this value.
#[derive(Debug)]
pub struct Teacher {
    url: String,
    book: Arc<Mutex<Book>>,
    runtime: Option<tokio::runtime::Runtime>,
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;
type Body = BoxBody<Bytes, io::Error>;

impl Teacher {
    /// Serves on a free port of the loopback address.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let book = Arc::new(Mutex::new(Book::default()));
        runtime.spawn(serve(listener, Arc::new(answer), Arc::clone(&book)));
        Ok(Self { url, book, runtime: Some(runtime) })
    }

    /// The API's base.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        lock(&self.book).requests
    }

    /// Requests that were answered in full.
    pub fn answered(&self) -> usize {
        lock(&self.book).answered
    }

    /// The traces that the calls said they belong to, in order; empty for none.
    pub fn traceparents(&self) -> Vec<String> {
        lock(&self.book).traceparents.clone()
    }

    /// How often each prompt was asked.
    pub fn counts(&self) -> HashMap<String, usize> {
        lock(&self.book).counts.clone()
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, book: Arc<Mutex<Book>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (answer, book) = (Arc::clone(&answer), Arc::clone(&book));
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&answer), Arc::clone(&book)));
            // A client that was killed is what these tests are about.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answer>,
    book: Arc<Mutex<Book>>,
) -> Result<Response<Body>, Infallible> {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let traceparent = traceparent.unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = note(&book, &body, traceparent);
    let reply = answer(&asked);
    tokio::time::sleep(reply.delay).await;
    lock(&book).answered += 1;
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

fn note(book: &Mutex<Book>, body: &[u8], traceparent: String) -> Asked {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let prompt = prompt_of(&json);
    let mut book = lock(book);
    let count = book.counts.entry(prompt.clone()).or_default();
    let asked_before = *count;
    *count += 1;
    let before = book.requests;
    book.requests += 1;
    book.traceparents.push(traceparent.clone());
    let sample = json.get("seed").and_then(Value::as_u64).unwrap_or_default();
    Asked { prompt, before, asked_before, sample, traceparent }
}

fn prompt_of(json: &Value) -> String {
    let chat = json
        .get("messages")
        .and_then(Value::as_array)
        .and_then(|messages| messages.last())
        .and_then(|message| message.get("content"));
    json.get("prompt").or(chat).and_then(Value::as_str).unwrap_or_default().to_owned()
}
