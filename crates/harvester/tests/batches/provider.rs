//! A provider with a batch API, in the shape of OpenAI's, Anthropic's or Gemini's: results out of order, errors of its own,
//! an expiry with a part of the output, and connections that end when they are least wanted. It lives as long as the test,
//! whatever becomes of those who ask it, and keeps the bill.

use bytes::Bytes;
use domain::metric::SplitMix;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use teacher::Provider;
use tokio::net::TcpListener;

/// Tokens of every question and of every answer.
pub(crate) const TOKENS: (u64, u64) = (100, 20);

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Of so many lines, one fails by the server's fault when it is asked first.
    pub(crate) error_every: u64,
    /// This batch expires when three of five lines are answered.
    pub(crate) expires: Option<usize>,
    /// The connection ends after these batches are created, before that is answered.
    pub(crate) lost_replies: &'static [usize],
    /// Attempts to create a batch that fail without one.
    pub(crate) failed_creates: &'static [usize],
    /// How long a batch is worked on.
    pub(crate) takes: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        let takes = Duration::from_millis(40);
        Self { error_every: 20, expires: None, lost_replies: &[], failed_creates: &[], takes }
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Failed,
    Unasked,
}

struct Batch {
    name: String,
    mark: String,
    lines: Vec<(String, u64)>,
    made: Instant,
    /// Once it is over: what became of each line, in the order of the results.
    done: Option<Vec<(String, u64, Fate)>>,
    is_cancelled: bool,
    place: usize,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<(String, u64)>>,
    batches: Vec<Batch>,
    creates: usize,
    /// How often each row was asked, failures included.
    asked: BTreeMap<u64, u64>,
    /// How often each row was answered, and billed.
    billed: BTreeMap<u64, u64>,
    cancels: usize,
    requests: u64,
}

/// The provider.
#[derive(Clone)]
pub(crate) struct Standin {
    shape: Provider,
    faults: Faults,
    state: Arc<Mutex<State>>,
    pub(crate) url: String,
}

impl Standin {
    /// Serves on a runtime of its own.
    pub(crate) fn start(shape: Provider, faults: Faults) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let state: Arc<Mutex<State>> = Arc::default();
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let standin = Self { shape, faults, state: served, url: format!("http://{address}/v1") };
                sender.send(standin.clone()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let standin = standin.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let standin = standin.clone();
                            async move { standin.serve(request).await }
                        });
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
        receiver.recv().unwrap()
    }

    /// Whose API it has.
    pub(crate) fn shape(&self) -> Provider {
        self.shape
    }

    /// How often each row was billed.
    pub(crate) fn billed(&self) -> BTreeMap<u64, u64> {
        self.state.lock().unwrap().billed.clone()
    }

    /// Batches that were created, and how often one was cancelled.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.batches.len(), state.cancels)
    }

    /// Requests so far, of whatever kind.
    pub(crate) fn requests(&self) -> u64 {
        self.state.lock().unwrap().requests
    }

    /// Calls that were made, failures of the server included.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().unwrap().asked.values().sum()
    }

    /// The most lines of a batch.
    pub(crate) fn lines_max(&self) -> usize {
        let state = self.state.lock().unwrap();
        let length = |batch: &Batch| batch.done.as_ref().map_or(batch.lines.len(), Vec::len);
        state.batches.iter().map(length).max().unwrap_or(0)
    }

    /// Marks that two batches have.
    pub(crate) fn marked_twice(&self) -> usize {
        let state = self.state.lock().unwrap();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for batch in state.batches.iter().filter(|batch| !batch.mark.is_empty()) {
            *seen.entry(&batch.mark).or_default() += 1;
        }
        seen.values().filter(|count| **count > 1).count()
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (method, uri, headers) =
            (request.method().clone(), request.uri().clone(), request.headers().clone());
        let path = uri.path().to_owned();
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        self.state.lock().unwrap().requests += 1;
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answer = match self.shape {
            Provider::OpenAiChat | Provider::OpenAiCompletions => {
                self.openai(&method, &segments[1..], uri.query().unwrap_or_default(), &body)
            }
            Provider::Anthropic => {
                self.anthropic(&method, &segments[1..], uri.query().unwrap_or_default(), &body)
            }
            Provider::Gemini => {
                if headers.contains_key("x-goog-upload-protocol") {
                    let place = format!("{}/put/1", self.url);
                    return Ok(Response::builder()
                        .header("x-goog-upload-url", place)
                        .body(Full::default())
                        .unwrap());
                }
                self.gemini(&method, &segments, uri.query().unwrap_or_default(), &body)
            }
        };
        match answer {
            // The connection ends without an answer.
            None => Err(std::io::Error::other("gone")),
            Some((status, body)) => {
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(response)
            }
        }
    }

    /// Makes a batch of lines; `None` where the reply is lost.
    fn create(&self, mark: &str, lines: Vec<(String, u64)>) -> Option<Result<String, ()>> {
        let mut state = self.state.lock().unwrap();
        state.creates += 1;
        if self.faults.failed_creates.contains(&state.creates) {
            return Some(Err(()));
        }
        let place = state.batches.len() + 1;
        let name = match self.shape {
            Provider::Gemini => format!("batches/b{place}"),
            _ => format!("batch_{place}"),
        };
        let (made, mark) = (Instant::now(), mark.to_owned());
        state.batches.push(Batch {
            name: name.clone(),
            mark,
            lines,
            made,
            done: None,
            is_cancelled: false,
            place,
        });
        if self.faults.lost_replies.contains(&place) { None } else { Some(Ok(name)) }
    }

    /// Works on what is due: asks the lines of batches, in an order of its own, and bills the answers.
    fn work(&self) {
        let mut state = self.state.lock().unwrap();
        let State { batches, asked, billed, .. } = &mut *state;
        for batch in batches.iter_mut().filter(|batch| batch.done.is_none()) {
            if batch.made.elapsed() < self.faults.takes && !batch.is_cancelled {
                continue;
            }
            let mut random = SplitMix::new(batch.place as u64);
            let mut lines = std::mem::take(&mut batch.lines);
            for place in (1..lines.len()).rev() {
                lines.swap(place, random.below(place as u64 + 1) as usize);
            }
            let is_cut = self.faults.expires == Some(batch.place) || batch.is_cancelled;
            let answered = if is_cut { lines.len() * 3 / 5 } else { lines.len() };
            let done = lines.into_iter().enumerate().map(|(place, (id, row))| {
                if place >= answered {
                    return (id, row, Fate::Unasked);
                }
                let before = asked.entry(row).or_default();
                *before += 1;
                if *before == 1 && self.faults.error_every > 0 && row % self.faults.error_every == 3 {
                    return (id, row, Fate::Failed);
                }
                *billed.entry(row).or_default() += 1;
                (id, row, Fate::Answered)
            });
            batch.done = Some(done.collect());
        }
    }

    /// What is found of a batch: its name, how it ended, its counts of answers, failures and others, and its lines.
    fn look<T>(&self, name: &str, read: impl FnOnce(&Batch) -> T) -> Option<T> {
        self.work();
        self.state.lock().unwrap().batches.iter().find(|batch| batch.name == name).map(read)
    }

    fn cancel(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.cancels += 1;
        if let Some(batch) = state.batches.iter_mut().find(|batch| batch.name == name) {
            batch.is_cancelled = true;
        }
    }

    fn openai(&self, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Option<(u16, Bytes)> {
        let batch = |batch: &Batch| {
            let end = if self.faults.expires == Some(batch.place) { "expired" } else { "completed" };
            let end = if batch.is_cancelled { "cancelled" } else { end };
            let (answered, failed, _) = tally(batch);
            let created =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let mut found = json!({"id": batch.name, "object": "batch", "created_at": created,
                "metadata": {"distillery": batch.mark}, "status": "in_progress"});
            if batch.done.is_some() {
                found["status"] = json!(end);
                found["output_file_id"] = json!(format!("{}-output", batch.name));
                found["error_file_id"] = json!(format!("{}-error", batch.name));
                found["request_counts"] =
                    json!({"total": answered + failed, "completed": answered, "failed": failed});
            }
            found
        };
        match (method, path) {
            (&Method::POST, ["files"]) => {
                let lines = lines(body, "custom_id", "/body");
                let mut state = self.state.lock().unwrap();
                let id = format!("file-{}", state.files.len());
                state.files.insert(id.clone(), lines);
                ok(json!({"id": id, "object": "file"}))
            }
            (&Method::POST, ["batches"]) => {
                let asked: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(asked["endpoint"], "/v1/chat/completions");
                let mark = asked["metadata"]["distillery"].as_str().unwrap();
                let file = asked["input_file_id"].as_str().unwrap();
                let lines = self.state.lock().unwrap().files.get(file).cloned().unwrap();
                match self.create(mark, lines)? {
                    Ok(name) => ok(json!({"id": name, "status": "validating"})),
                    Err(()) => Some((500, Bytes::from_static(b"{\"error\":{\"message\":\"try later\"}}"))),
                }
            }
            (&Method::GET, ["batches"]) => {
                self.work();
                let state = self.state.lock().unwrap();
                let (page, has_more) = page(&state.batches, query, "after");
                ok(
                    json!({"data": page.iter().map(|found| batch(found)).collect::<Vec<_>>(), "has_more": has_more}),
                )
            }
            (&Method::GET, ["batches", name]) => ok(self.look(name, batch)?),
            (&Method::POST, ["batches", name, "cancel"]) => {
                self.cancel(name);
                ok(json!({"id": name, "status": "cancelling"}))
            }
            (&Method::GET, ["files", file, "content"]) => {
                let (name, kind) = file.rsplit_once('-').unwrap();
                let text = self.look(name, |batch| {
                    let done = batch.done.as_ref().unwrap();
                    let is_output = kind == "output";
                    let of_kind = done.iter().filter(|(.., fate)| (*fate == Fate::Answered) == is_output);
                    let mut text: String = of_kind.map(|line| openai_line(line) + "\n").collect();
                    if is_output {
                        text = with_noise(text, "{\"custom_id\":\"01890a5d-ac96-774b-bcce-b302099a8057\",\"response\":{\"status_code\":200,\"body\":{}}}");
                    }
                    text
                })?;
                Some((200, text.into()))
            }
            _ => Some((404, Bytes::from_static(b"{}"))),
        }
    }

    fn anthropic(&self, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Option<(u16, Bytes)> {
        let batch = |batch: &Batch| {
            let (answered, failed, unasked) = tally(batch);
            let (status, processing) = match &batch.done {
                Some(_) => ("ended", 0),
                None => ("in_progress", batch.lines.len()),
            };
            let kind = if batch.is_cancelled { "canceled" } else { "expired" };
            let mut counts = json!({"processing": processing, "succeeded": answered, "errored": failed,
                "canceled": 0, "expired": 0});
            counts[kind] = json!(unasked);
            json!({"id": batch.name, "type": "message_batch", "processing_status": status,
                "created_at": "2999-01-01T00:00:00Z", "request_counts": counts})
        };
        match (method, path) {
            (&Method::POST, ["messages", "batches"]) => {
                let asked: Value = serde_json::from_slice(body).unwrap();
                let requests = asked["requests"].as_array().unwrap();
                let lines = requests.iter().map(|line| read_line(line, "custom_id", "/params")).collect();
                match self.create("", lines)? {
                    Ok(name) => ok(json!({"id": name, "processing_status": "in_progress"})),
                    Err(()) => Some((
                        500,
                        Bytes::from_static(
                            b"{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"later\"}}",
                        ),
                    )),
                }
            }
            (&Method::GET, ["messages", "batches"]) => {
                self.work();
                let state = self.state.lock().unwrap();
                let (page, has_more) = page(&state.batches, query, "after_id");
                let last = page.last().map(|batch| batch.name.clone());
                let data: Vec<Value> = page.iter().map(|found| batch(found)).collect();
                ok(json!({"data": data, "has_more": has_more, "last_id": last}))
            }
            (&Method::GET, ["messages", "batches", name]) => ok(self.look(name, batch)?),
            (&Method::POST, ["messages", "batches", name, "cancel"]) => {
                self.cancel(name);
                ok(json!({"id": name, "processing_status": "canceling"}))
            }
            (&Method::GET, ["messages", "batches", name, "results"]) => {
                let text = self.look(name, |batch| {
                    let kind = if batch.is_cancelled { "canceled" } else { "expired" };
                    let done = batch.done.as_ref().unwrap();
                    done.iter().map(|line| anthropic_line(line, kind) + "\n").collect::<String>()
                })?;
                Some((200, text.into()))
            }
            _ => Some((404, Bytes::from_static(b"{}"))),
        }
    }

    fn gemini(&self, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Option<(u16, Bytes)> {
        let batch = |batch: &Batch| {
            let (answered, failed, _) = tally(batch);
            let state = match &batch.done {
                None => "BATCH_STATE_RUNNING",
                Some(_) if batch.is_cancelled => "BATCH_STATE_CANCELLED",
                Some(_) if self.faults.expires == Some(batch.place) => "BATCH_STATE_EXPIRED",
                Some(_) => "BATCH_STATE_SUCCEEDED",
            };
            let stats = json!({"successfulRequestCount": answered.to_string(), "failedRequestCount": failed.to_string()});
            let mut found = json!({"name": batch.name, "metadata": {"displayName": batch.mark, "state": state,
                "createTime": "2999-01-01T00:00:00Z", "batchStats": stats}});
            if batch.done.is_some() {
                found["done"] = json!(true);
                found["response"] =
                    json!({"responsesFile": format!("files/{}", batch.name.replace('/', "-"))});
            }
            found
        };
        match (method, path) {
            (&Method::POST, ["v1", "put", "1"]) => {
                let lines = lines(body, "key", "/request");
                let mut state = self.state.lock().unwrap();
                let id = format!("files/f{}", state.files.len());
                state.files.insert(id.clone(), lines);
                ok(json!({"file": {"name": id}}))
            }
            (&Method::POST, ["v1", "models", "small:batchGenerateContent"]) => {
                let asked: Value = serde_json::from_slice(body).unwrap();
                let mark = asked["batch"]["display_name"].as_str().unwrap();
                let file = asked["batch"]["input_config"]["file_name"].as_str().unwrap();
                let lines = self.state.lock().unwrap().files.get(file).cloned().unwrap();
                match self.create(mark, lines)? {
                    Ok(name) => ok(json!({"name": name, "metadata": {"state": "BATCH_STATE_PENDING"}})),
                    Err(()) => {
                        Some((503, Bytes::from_static(b"{\"error\":{\"code\":503,\"message\":\"later\"}}")))
                    }
                }
            }
            (&Method::GET, ["v1", "batches"]) => {
                self.work();
                let state = self.state.lock().unwrap();
                let (page, has_more) = page(&state.batches, query, "pageToken");
                let next = page.last().filter(|_| has_more).map(|batch| batch.name.clone());
                let data: Vec<Value> = page.iter().map(|found| batch(found)).collect();
                ok(json!({"operations": data, "nextPageToken": next}))
            }
            (&Method::POST, ["v1", "batches", act]) => {
                self.cancel(&format!("batches/{}", act.strip_suffix(":cancel").unwrap()));
                ok(json!({}))
            }
            (&Method::GET, ["v1", "batches", name]) => ok(self.look(&format!("batches/{name}"), batch)?),
            (&Method::GET, ["download", "v1", "files", file]) => {
                let name = file.strip_suffix(":download").unwrap().replace('-', "/");
                let text = self.look(&name, |batch| {
                    let done = batch.done.as_ref().unwrap();
                    let asked = done.iter().filter(|(.., fate)| *fate != Fate::Unasked);
                    with_noise(
                        asked.map(|line| gemini_line(line) + "\n").collect(),
                        "{\"key\":\"request-1\"}",
                    )
                })?;
                Some((200, text.into()))
            }
            _ => Some((404, Bytes::from_static(b"{}"))),
        }
    }
}

fn ok(value: Value) -> Option<(u16, Bytes)> {
    Some((200, value.to_string().into()))
}

/// Answers, failures and lines that were not asked.
fn tally(batch: &Batch) -> (usize, usize, usize) {
    let count = |fate| batch.done.iter().flatten().filter(|(.., found)| *found == fate).count();
    (count(Fate::Answered), count(Fate::Failed), count(Fate::Unasked))
}

/// Two batches of a list, newest first.
fn page<'a>(batches: &'a [Batch], query: &str, cursor: &str) -> (Vec<&'a Batch>, bool) {
    let after = query.split('&').find_map(|pair| pair.strip_prefix(cursor)?.strip_prefix('='));
    let after = after.map(|name| name.replace("%2F", "/"));
    let newest: Vec<&Batch> = batches.iter().rev().collect();
    let from = after.map_or(0, |name| newest.iter().position(|batch| batch.name == name).unwrap() + 1);
    let to = (from + 2).min(newest.len());
    (newest[from..to].to_vec(), to < newest.len())
}

/// The lines of an upload, whatever stands around them.
fn lines(body: &[u8], key: &str, place: &str) -> Vec<(String, u64)> {
    let text = std::str::from_utf8(body).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| read_line(&serde_json::from_str(line).unwrap(), key, place)).collect()
}

/// A line's name, and the row that it asks about.
fn read_line(line: &Value, key: &str, place: &str) -> (String, u64) {
    let body = line.pointer(place).unwrap().to_string();
    let asked = body.rsplit_once("What is ").unwrap().1;
    let row = asked.split(' ').next().unwrap().parse().unwrap();
    (line[key].as_str().unwrap().to_owned(), row)
}

/// A text with its first line twice, a line of somebody else's, and one that is no JSON.
fn with_noise(text: String, foreign: &str) -> String {
    let first = text.lines().next().unwrap_or_default().to_owned();
    format!("{text}{first}\n{foreign}\nnot JSON\n")
}

fn words(row: u64) -> String {
    format!("We add one to {row}. The answer is ({row} + 1).")
}

fn openai_line((id, row, fate): &(String, u64, Fate)) -> String {
    let line = match fate {
        Fate::Answered => json!({"custom_id": id, "error": null, "response": {"status_code": 200, "body": {
            "model": "small-1", "choices": [{"message": {"content": words(*row)}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": TOKENS.0, "completion_tokens": TOKENS.1}}}}),
        Fate::Failed => json!({"custom_id": id, "error": null, "response": {"status_code": 500,
            "body": {"error": {"message": "The server had an error", "type": "server_error"}}}}),
        Fate::Unasked => json!({"custom_id": id, "response": null,
            "error": {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}}),
    };
    line.to_string()
}

fn anthropic_line((id, row, fate): &(String, u64, Fate), unasked: &str) -> String {
    let result = match fate {
        Fate::Answered => {
            json!({"type": "succeeded", "message": {"model": "small-1", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": words(*row)}],
            "usage": {"input_tokens": TOKENS.0, "output_tokens": TOKENS.1}}})
        }
        Fate::Failed => json!({"type": "errored", "error": {"type": "error",
            "error": {"type": "api_error", "message": "Internal server error"}}}),
        Fate::Unasked => json!({"type": unasked}),
    };
    json!({"custom_id": id, "result": result}).to_string()
}

fn gemini_line((id, row, fate): &(String, u64, Fate)) -> String {
    let line = match fate {
        Fate::Answered => json!({"key": id, "response": {"modelVersion": "small-1",
            "candidates": [{"content": {"parts": [{"text": words(*row)}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": TOKENS.0, "candidatesTokenCount": TOKENS.1}}}),
        Fate::Failed => json!({"key": id, "error": {"code": 13, "message": "Internal error"}}),
        Fate::Unasked => json!({"key": id}),
    };
    line.to_string()
}
