//! The shape of OpenAI's completions, for clients that speak it: `/v1/models` lists what is served here, `/v1/completions`
//! writes text from the prompt as given, which is `Generate`. A model is `name` or `name@version`; a prompt begins with
//! `predict: ` or `explain: ` where a label or a rationale is wanted. Temperature is 0 where the caller names none: students
//! are asked for their answer.

use super::answers::{EVENTS, json, stream, with_id};
use super::caller::Caller;
use super::failure::{self, Style};
use super::frames::Messages;
use super::reading::Read;
use domain::{Fault, Violation};
use futures::{Stream, StreamExt, TryStreamExt};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use wire::{Message, v1};

const GENERATE: &str = "/distillery.v1.InferenceService/Generate";
const MODELS: &str = "/distillery.v1.InferenceService/ListServedModels";
/// Most prompts of one request.
const PROMPTS_MAX: usize = 128;
/// Prompts of one request that are written at once.
const PROMPTS_AT_ONCE: usize = 16;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Models,
    Completions,
}

/// What a path of this shape asks; `None` for another path.
pub(super) fn find(verb: &Method, path: &str) -> Option<Asked> {
    match (verb, path) {
        (&Method::GET, "/v1/models") => Some(Asked::Models),
        (&Method::POST, "/v1/completions") => Some(Asked::Completions),
        _ => None,
    }
}

/// Answers a request of this shape.
pub(super) async fn answer<S>(asked: Asked, caller: Caller<S>, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (head, body) = request.into_parts();
    match asked {
        Asked::Models => models(caller, &head).await,
        Asked::Completions => completions(caller, head, body).await,
    }
}

async fn models<S>(caller: Caller<S>, head: &Parts) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let read: Read = Box::new(|_| Ok(vec![Vec::new()]));
    let (id, opened) = Messages::of(caller.call(MODELS, head, Body::empty(), read).await);
    let listed = async {
        let message = opened?.one().await?;
        let served = v1::ListServedModelsResponse::decode(message).map_err(unread)?;
        let entry = |model: v1::Answerer| {
            let id = format!("{}@{}", model.model, model.version);
            json!({"id": id, "object": "model", "created": 0, "owned_by": "distillery"})
        };
        let data: Vec<Value> = served.models.into_iter().map(entry).collect();
        Ok(json(StatusCode::OK, json!({"object": "list", "data": data}).to_string()))
    };
    with_id(listed.await.unwrap_or_else(failed), id)
}

fn failed(status: Status) -> Response<Body> {
    failure::response(&status, Style::OpenAi)
}

fn unread(error: impl std::fmt::Display) -> Status {
    wire::status(Fault::Internal, error.to_string())
}

#[derive(Deserialize)]
struct Completion {
    model: String,
    prompt: Prompts,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    stream: Option<bool>,
    // What would change the answer, and is not done.
    n: Option<u32>,
    best_of: Option<u32>,
    echo: Option<bool>,
    logprobs: Option<u32>,
    suffix: Option<String>,
    stop: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    One(String),
    Many(Vec<String>),
}

/// A request that was read: its messages, and how it is answered.
struct Job {
    model: String,
    requests: Vec<v1::GenerateRequest>,
    is_streamed: bool,
    id: String,
    created: u64,
}

impl Job {
    fn read(text: &[u8]) -> Result<Self, Vec<Violation>> {
        let wrong = |field: &str, words: &str| vec![Violation::new(field, words)];
        let asked: Completion = serde_json::from_slice(text)
            .map_err(|error| wrong("body", &format!("{error}: `prompt` is a text or a list of texts")))?;
        let refused = [
            ("n", asked.n.is_some_and(|n| n != 1)),
            ("best_of", asked.best_of.is_some_and(|best| best != 1)),
            ("echo", asked.echo == Some(true)),
            ("logprobs", asked.logprobs.is_some()),
            ("suffix", asked.suffix.is_some_and(|suffix| !suffix.is_empty())),
            ("stop", asked.stop.is_some_and(|stop| !stop.is_null() && stop != json!([]))),
        ];
        if let Some((field, _)) = refused.iter().find(|(_, is_set)| *is_set) {
            return Err(wrong(field, "is not supported here: leave it out"));
        }
        let prompts = match asked.prompt {
            Prompts::One(prompt) => vec![prompt],
            Prompts::Many(prompts) => prompts,
        };
        if !(1..=PROMPTS_MAX).contains(&prompts.len()) {
            return Err(wrong("prompt", &format!("has {} texts: send 1 to {PROMPTS_MAX}", prompts.len())));
        }
        let (model, version) = name_and_version(&asked.model)?;
        let request = |input: String| v1::GenerateRequest {
            model: model.clone(),
            version,
            input,
            tokens_max: asked.max_tokens.unwrap_or(0),
            temperature: asked.temperature.unwrap_or(0.0),
            top_p: asked.top_p.unwrap_or(0.0),
            seed: asked.seed.unwrap_or(0).cast_unsigned(),
            ..Default::default()
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self {
            requests: prompts.into_iter().map(request).collect(),
            model: asked.model,
            is_streamed: asked.stream == Some(true),
            id: format!("cmpl-{}", uuid::Uuid::new_v4().simple()),
            created,
        })
    }

    fn object(&self, choices: &[Value]) -> Value {
        json!({"id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": choices})
    }
}

fn name_and_version(model: &str) -> Result<(String, u64), Vec<Violation>> {
    let Some((name, version)) = model.rsplit_once('@') else { return Ok((model.to_owned(), 0)) };
    let words = "is not a name, or a name and a version such as reviews@1";
    let version = version.parse().map_err(|_| vec![Violation::new("model", words)])?;
    Ok((name.to_owned(), version))
}

fn choice(index: usize, text: &str, finish: Option<&str>) -> Value {
    json!({"index": index, "text": text, "finish_reason": finish, "logprobs": Value::Null})
}

async fn completions<S>(caller: Caller<S>, head: Parts, body: Body) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let job = Arc::new(OnceLock::new());
    let keep = Arc::clone(&job);
    // The first prompt's call reads the body; the others are called when that was let in.
    let read = move |text: &[u8]| {
        let read = Job::read(text).map_err(wire::invalid)?;
        let first = read.requests.first().map(Message::encode_to_vec).unwrap_or_default();
        let _ = keep.set(read);
        Ok(vec![first])
    };
    let (id, opened) = Messages::of(caller.clone().call(GENERATE, &head, body, Box::new(read)).await);
    let answered = async {
        let first = opened?;
        if job.get().is_none() {
            return Err(unread("a call was answered before it was read"));
        }
        let texts = Texts { caller, head, job };
        if texts.is_streamed() { texts.streamed(first).await } else { texts.whole(first).await }
    };
    with_id(answered.await.unwrap_or_else(failed), id)
}

/// The texts of a request.
struct Texts<S> {
    caller: Caller<S>,
    head: Parts,
    job: Arc<OnceLock<Job>>,
}

impl<S> Texts<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    fn is_streamed(&self) -> bool {
        self.job.get().is_some_and(|job| job.is_streamed)
    }

    /// The calls of the prompts behind the first, each when it is polled.
    fn others(&self) -> Vec<(usize, impl Future<Output = Result<Messages, Status>> + Send + use<S>)> {
        let requests = self.job.get().map(|job| job.requests.as_slice()).unwrap_or_default();
        let others = requests.iter().enumerate().skip(1).map(|(place, request)| {
            let (caller, head, message) = (self.caller.clone(), self.head.clone(), request.encode_to_vec());
            let called = async move {
                let read: Read = Box::new(move |_| Ok(vec![message]));
                Messages::of(caller.call(GENERATE, &head, Body::empty(), read).await).1
            };
            (place, called)
        });
        others.collect()
    }

    async fn whole(self, first: Messages) -> Result<Response<Body>, Status> {
        let others = futures::stream::iter(self.others());
        let others = others.map(|(_, called)| async move { text(called.await?).await });
        let mut texts = vec![text(first).await?];
        texts.extend(others.buffered(PROMPTS_AT_ONCE).try_collect::<Vec<String>>().await?);
        let choices: Vec<Value> =
            texts.iter().enumerate().map(|(place, text)| choice(place, text, Some("stop"))).collect();
        let object = self.job.get().map(|job| job.object(&choices)).unwrap_or_default();
        Ok(json(StatusCode::OK, object.to_string()))
    }

    /// Pieces as events, prompt by prompt. What fails before the first piece is told by the code of HTTP.
    async fn streamed(self, mut first: Messages) -> Result<Response<Body>, Status> {
        let begun = first.next().await?;
        let job = Arc::clone(&self.job);
        let first = pieces(Arc::clone(&job), 0, begun, first);
        let others = futures::stream::iter(self.others()).flat_map(move |(place, called)| {
            let job = Arc::clone(&job);
            let opened = async move {
                match called.await {
                    Ok(messages) => pieces(job, place, None, messages).left_stream(),
                    Err(status) => {
                        futures::stream::iter([event(&failure::body(&status, Style::OpenAi))]).right_stream()
                    }
                }
            };
            futures::stream::once(opened).flatten()
        });
        let end = futures::stream::iter([b"data: [DONE]\n\n".to_vec()]);
        Ok(stream(EVENTS, first.chain(others).chain(end)))
    }
}

async fn text(mut messages: Messages) -> Result<String, Status> {
    let mut text = String::new();
    while let Some(message) = messages.next().await? {
        text.push_str(&v1::GenerateResponse::decode(message).map_err(unread)?.text);
    }
    Ok(text)
}

fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// The pieces of one prompt as events; the last one says why it ends, or what failed.
fn pieces(
    job: Arc<OnceLock<Job>>,
    place: usize,
    begun: Option<bytes::Bytes>,
    messages: Messages,
) -> impl Stream<Item = Vec<u8>> + Send {
    let written = move |text: &str, finish: Option<&str>| {
        event(&job.get().map(|job| job.object(&[choice(place, text, finish)])).unwrap_or_default())
    };
    futures::stream::unfold(Some((messages, begun, written)), |state| async move {
        let (mut messages, begun, written) = state?;
        let next = match begun {
            Some(message) => Ok(Some(message)),
            None => messages.next().await,
        };
        let piece = next
            .and_then(|next| next.map(|next| v1::GenerateResponse::decode(next).map_err(unread)).transpose());
        match piece {
            Ok(Some(piece)) => Some((written(&piece.text, None), Some((messages, None, written)))),
            Ok(None) => Some((written("", Some("stop")), None)),
            Err(status) => Some((event(&failure::body(&status, Style::OpenAi)), None)),
        }
    })
}
