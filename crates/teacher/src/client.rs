//! One HTTP call: the request, its timeouts, and its answer as its dialect reads it.

use crate::context;
use crate::dialect::{self, Counts, Meaning, Reading, Received, Words};
use crate::error::{Failure, TeacherError};
use crate::headers::{self, RateLimitHeaders};
use crate::profile::{Prices, Profile, shown_url};
use crate::redact::Secrets;
use crate::{Question, Reply, Tokens, estimate_tokens};
use bytes::{Bytes, BytesMut};
use domain::budget::{CallEnd, Usage};
use domain::completion::FinishReason;
use domain::ids::CallId;
use futures::StreamExt;
use http::HeaderMap;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Method, RequestBuilder, Url};
use serde_json::Value;
use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// Largest answer that is read, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much of a server's text is looked at for a quotation.
const QUOTED_BYTES_MAX: usize = 16 * 1024;
/// How many characters of a server's text a message quotes.
const SHOWN_CHARACTERS: usize = 160;
/// The wait of a 429 that names none: whoever retries decides.
const WAIT_UNKNOWN: Duration = Duration::ZERO;
/// Longest wait that a server is believed.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest time to ask which models a server has.
const MODELS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long that name is used: a process that serves for months sees that another model is behind the profile.
const MODELS_KEPT: Duration = Duration::from_secs(10);
/// Longest name of a model.
const MODEL_CHARACTERS: usize = 512;

/// What one call came to.
#[derive(Debug)]
pub(crate) struct CallReport {
    /// The answer, or why there is none; classified once, here.
    pub(crate) outcome: Result<Reply, TeacherError>,
    /// What the answer's headers tell of limits.
    pub(crate) limits: RateLimitHeaders,
    /// Whether the server said that it has too much to do: 503, and 529 of Anthropic's.
    pub(crate) overloaded: bool,
}

/// What a server said of its model.
#[derive(Debug)]
struct Named {
    at: Instant,
    model: Option<String>,
}

/// The server did not answer.
struct Away;

/// The client of one profile. Its address may hold a key: it does not print.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    profile: Profile,
    endpoint: Url,
    headers: HeaderMap,
    /// What no text of the server's may repeat.
    secrets: Secrets,
    /// The proxy that stands between, without its user and password. As everywhere, it also stands before loopback addresses
    /// unless NO_PROXY names them.
    proxy: Option<String>,
    served_model: Arc<Mutex<Option<Named>>>,
    /// Whether it was said that thoughts take the room of the answers.
    warned_of_thoughts: Arc<AtomicBool>,
}

impl Client {
    pub(crate) fn new(profile: Profile) -> Result<Self, TeacherError> {
        let secrets = Secrets::of(&profile);
        let invalid =
            |what: &str| TeacherError::Invalid(format!("teacher `{}`: {}", profile.name, secrets.cut(what)));
        let endpoint = dialect::endpoint(&profile)
            .map_err(|error| invalid(&format!("url `{}`: {error}", shown_url(&profile.url))))?;
        let headers = dialect::headers(&profile).map_err(|error| invalid(&error))?;
        dialect::check(&profile).map_err(|error| invalid(&error))?;
        let http = reqwest::Client::builder()
            .connect_timeout(profile.connect_timeout)
            .read_timeout(profile.idle_timeout)
            .timeout(profile.total_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| invalid(&error.to_string()))?;
        // The same rules by which the client below chooses its proxy.
        let proxy = proxy_of(&Matcher::from_env(), &endpoint);
        let (served_model, warned_of_thoughts) = Default::default();
        Ok(Self { http, profile, endpoint, headers, secrets, proxy, served_model, warned_of_thoughts })
    }

    /// Makes one call.
    pub(crate) async fn ask(&self, question: &Question, call: CallId) -> CallReport {
        let began = Instant::now();
        let body = dialect::request(&self.profile, question);
        let mut request = self.http.post(self.endpoint.clone()).headers(self.headers.clone()).json(&body);
        if let Some(context) = context::current() {
            request = request.header(domain::trace::HEADER, context.to_string());
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let (outcome, limits) = (Err(self.transport(&error)), RateLimitHeaders::default());
                return CallReport { outcome, limits, overloaded: false };
            }
        };
        let now = SystemTime::now();
        let limits = RateLimitHeaders::read(response.headers(), now);
        let wait = headers::retry_after(response.headers(), now).or_else(|| limits.used_up_for());
        let overloaded = matches!(response.status().as_u16(), 503 | 529);
        let outcome = self.read(response, &body, (wait, now), question).await;
        let outcome = outcome.map(|reply| Reply { call, seconds: began.elapsed().as_secs_f64(), ..reply });
        CallReport { outcome, limits, overloaded }
    }

    /// The same client at other prices.
    pub(crate) fn with_prices(&self, prices: Prices) -> Self {
        let mut client = self.clone();
        client.profile.prices = prices;
        client
    }

    /// The profile that is asked.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// A request to this server beside the questions.
    pub(crate) fn request(&self, method: Method, address: Url) -> RequestBuilder {
        self.http.request(method, address).headers(self.headers.clone())
    }

    /// A request without the key, to an address that the server named.
    pub(crate) fn bare_request(&self, method: Method, address: Url) -> RequestBuilder {
        self.http.request(method, address)
    }

    /// Sends such a request; the answer is one of success, and not read yet.
    ///
    /// # Errors
    /// As of a question.
    pub(crate) async fn response(&self, request: RequestBuilder) -> Result<reqwest::Response, TeacherError> {
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Sends such a request, and reads the JSON that answers it.
    ///
    /// # Errors
    /// As of a question.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, TeacherError> {
        let response = self.response(request).await?;
        self.read_json(response).await
    }

    /// The same; where what is asked for does not exist, the status that says so.
    ///
    /// # Errors
    /// As of a question.
    pub(crate) async fn json_or_status(
        &self,
        request: RequestBuilder,
    ) -> Result<Result<Value, u16>, TeacherError> {
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        match response.status().as_u16() {
            status @ (404 | 405 | 410 | 501) => Ok(Err(status)),
            _ if response.status().is_success() => Ok(Ok(self.read_json(response).await?)),
            _ => Err(self.refusal(response).await),
        }
    }

    async fn read_json(&self, response: reqwest::Response) -> Result<Value, TeacherError> {
        let body = match self.body(response).await {
            Ok(body) => body,
            Err(BodyError::Transport(error)) => return Err(self.transport(&error)),
            Err(BodyError::TooLong) => {
                return Err(self.malformed("sent an answer that is too long", &Value::Null));
            }
        };
        serde_json::from_slice(&body).map_err(|error| {
            let said = Value::String(String::from_utf8_lossy(&body).into_owned());
            self.malformed(&format!("sent a body that is not JSON ({error}): check the profile's url"), &said)
        })
    }

    /// What an answer that is none of success means.
    async fn refusal(&self, response: reqwest::Response) -> TeacherError {
        let now = SystemTime::now();
        let limits = RateLimitHeaders::read(response.headers(), now);
        let wait = headers::retry_after(response.headers(), now).or_else(|| limits.used_up_for());
        let status = response.status();
        let body = self.body(response).await.unwrap_or_default();
        let received =
            Received { status: status.as_u16(), content_type: "application/json", body: &body, wait, now };
        let nothing = Question::default();
        match self.conclude(dialect::read(self.profile.provider, &Value::Null, &received), wait, &nothing) {
            Err(error) => error,
            // Refused for what it says; no prompt is to blame.
            Ok(reply) => {
                let words = Words { what: format!("answered with status {status}"), said: reply.text };
                TeacherError::WrongRequest {
                    failure: self.failure(&words, CallEnd::Refused),
                    parameter: None,
                }
            }
        }
    }

    /// An answer that is none of a question, and cannot be read.
    pub(crate) fn malformed(&self, what: &str, answer: &Value) -> TeacherError {
        let said = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        TeacherError::Malformed(self.failure(&Words { what: what.to_owned(), said }, CallEnd::InDoubt))
    }

    /// The model that the server names itself, where it tells: the one entry of its list of models, or the one that the
    /// profile names, with what else it says of it. Asked once in a while; a server that does not answer is asked again
    /// next time, and goes by its last name until then.
    pub(crate) async fn served_model(&self) -> Option<String> {
        let address = dialect::models_address(&self.profile)?;
        let mut named = self.served_model.lock().await;
        if let Some(known) = named.as_ref().filter(|known| known.at.elapsed() < MODELS_KEPT) {
            return known.model.clone();
        }
        if let Ok(model) = self.ask_model(address).await {
            *named = Some(Named { at: Instant::now(), model });
        }
        named.as_ref().and_then(|known| known.model.clone())
    }

    /// Asks for the list of models.
    async fn ask_model(&self, address: Url) -> Result<Option<String>, Away> {
        let request = self.http.get(address).headers(self.headers.clone()).timeout(MODELS_TIMEOUT);
        let response = request.send().await.map_err(|_| Away)?;
        let status = response.status();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Away);
        }
        let body = self.body(response).await.map_err(|_| Away)?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(served(&list, &self.profile.model))
    }

    async fn read(
        &self,
        response: reqwest::Response,
        request: &Value,
        (wait, now): (Option<Duration>, SystemTime),
        question: &Question,
    ) -> Result<Reply, TeacherError> {
        let status = response.status();
        let text = |name| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (content_type, encoding) =
            (text(http::header::CONTENT_TYPE), text(http::header::CONTENT_ENCODING));
        let body = match self.body(response).await {
            Ok(body) => body,
            // What the status says stands, whatever became of the body.
            Err(_) if !status.is_success() => Bytes::new(),
            Err(BodyError::TooLong) => {
                return Err(self.unreadable(question, format!(
                    "sent more than {BODY_BYTES_MAX} bytes for one answer: check that the profile's url leads to a teacher"
                )));
            }
            Err(BodyError::Transport(error)) if is_garbled(&error) => {
                return Err(self.unreadable(question, format!(
                    "sent a body that cannot be decompressed{}: check what stands between it and this program",
                    causes(&error)
                )));
            }
            Err(BodyError::Transport(error)) => return Err(self.transport(&error)),
        };
        if status.is_success() && !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            return Err(self.unreadable(
                question,
                format!("sent a body with `content-encoding: {encoding}`, which was not asked for: check what stands \
                         between it and this program"),
            ));
        }
        let received =
            Received { status: status.as_u16(), content_type: &content_type, body: &body, wait, now };
        self.conclude(dialect::read(self.profile.provider, request, &received), wait, question)
    }

    /// What a reading means to those who asked.
    pub(crate) fn conclude(
        &self,
        reading: Reading,
        wait: Option<Duration>,
        question: &Question,
    ) -> Result<Reply, TeacherError> {
        let usage = |text: &str| self.usage(&reading, question, text);
        let is_counted = reading.counts.tokens_in.is_some() || reading.counts.tokens_out.is_some();
        let end = |words: &Words, uncharged: CallEnd| {
            if is_counted || reading.answered { CallEnd::Charged(usage(&words.said)) } else { uncharged }
        };
        let failure = |words: &Words, uncharged| self.failure(words, end(words, uncharged));
        Err(match &reading.meaning {
            Meaning::Answered { text, thoughts, finish_reason } => {
                if *finish_reason == FinishReason::Length && text.is_empty() {
                    self.warn_of_thoughts(reading.counts.thoughts, thoughts, question);
                }
                // Pieces of a stream are put together by now.
                let cut = |text: &str| self.secrets.cut_answer(text).into_owned();
                return Ok(Reply {
                    text: cut(text),
                    thoughts: cut(thoughts),
                    finish_reason: *finish_reason,
                    model: reading.model.clone().unwrap_or_else(|| self.profile.model.clone()),
                    call: CallId::generate(),
                    usage: usage(&format!("{text}{thoughts}")),
                    seconds: 0.0,
                });
            }
            Meaning::Wait { words, wait } => TeacherError::Wait {
                failure: failure(words, CallEnd::Refused),
                wait: wait.unwrap_or(WAIT_UNKNOWN).min(WAIT_MAX),
            },
            Meaning::Unavailable(words) => {
                TeacherError::Unavailable { failure: failure(words, CallEnd::Failed), wait, is_held: false }
            }
            Meaning::WrongRequest { words, parameter } => TeacherError::WrongRequest {
                failure: failure(words, CallEnd::Refused),
                parameter: parameter.as_ref().map(|parameter| self.secrets.cut(parameter).into_owned()),
            },
            Meaning::Malformed(words) => TeacherError::Malformed(failure(words, CallEnd::Failed)),
            Meaning::Permanent(words) => TeacherError::Permanent(failure(words, CallEnd::Refused)),
        })
    }

    /// What a call cost: as the server counts, else as the texts suggest.
    fn usage(&self, reading: &Reading, question: &Question, text: &str) -> Usage {
        let counts = reading.counts;
        let prompt = estimate_tokens(&question.prompt).saturating_add(estimate_tokens(&question.instruction));
        let most_out = u64::from(self.profile.tokens_sent(question));
        let estimated_out = if reading.answered { estimate_tokens(text).min(most_out) } else { 0 };
        let tokens = Tokens {
            tokens_in: counts.tokens_in.unwrap_or(prompt),
            cached: counts.cached,
            written: counts.written,
            tokens_out: counts.tokens_out.unwrap_or(estimated_out),
        };
        let (tokens_in, tokens_out) = (tokens.tokens_in, tokens.tokens_out);
        Usage { tokens_in, tokens_out, money_micros: self.profile.money_micros(&tokens) }
    }

    fn warn_of_thoughts(&self, counted: u64, thoughts: &str, question: &Question) {
        let thought = counted > 0 || !thoughts.is_empty();
        if thought && !self.warned_of_thoughts.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                teacher = %self.profile.name,
                "thinking took all the room of an answer ({} tokens): switch it off (`thinking`, `body`), give it room \
                 (`thinking_tokens_max`), or raise teacher.tokens_max",
                self.profile.tokens_sent(question)
            );
        }
    }

    /// An answer that came, and was paid, but cannot be read at all.
    fn unreadable(&self, question: &Question, what: String) -> TeacherError {
        let words = Words { what, said: String::new() };
        let reading = Reading {
            meaning: Meaning::Malformed(words.clone()),
            counts: Counts::default(),
            model: None,
            answered: true,
        };
        // Nothing is known of its length: it may have been the longest.
        let tokens_in = self.usage(&reading, question, "").tokens_in;
        let tokens_out = u64::from(self.profile.tokens_sent(question));
        let tokens = Tokens { tokens_in, tokens_out, ..Tokens::default() };
        let usage = Usage { tokens_in, tokens_out, money_micros: self.profile.money_micros(&tokens) };
        TeacherError::Malformed(self.failure(&words, CallEnd::Charged(usage)))
    }

    pub(crate) fn transport(&self, error: &reqwest::Error) -> TeacherError {
        let (what, end) = if error.is_connect() {
            (self.unreachable(), CallEnd::Refused)
        } else if error.is_timeout() {
            let what = format!(
                "timed out (idle {:?}, total {:?}): raise the profile's idle_seconds or total_seconds, or check the teacher",
                self.profile.idle_timeout, self.profile.total_timeout
            );
            (what, CallEnd::InDoubt)
        } else {
            ("closed the connection before its answer was complete".to_owned(), CallEnd::InDoubt)
        };
        let words = Words { what: format!("{what}{}", causes(error)), said: String::new() };
        TeacherError::Unavailable { failure: self.failure(&words, end), wait: None, is_held: false }
    }

    /// The body of an answer, without what the server repeats of our secrets: every text of a server's comes through here, or
    /// through [`Client::line`].
    async fn body(&self, response: reqwest::Response) -> Result<Bytes, BodyError> {
        let is_success = response.status().is_success();
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(BodyError::Transport)?;
            if body.len().saturating_add(chunk.len()) > BODY_BYTES_MAX {
                return Err(BodyError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body);
        let cut = match if is_success { self.secrets.cut_answer(&text) } else { self.secrets.cut(&text) } {
            Cow::Owned(cut) => Some(cut),
            Cow::Borrowed(_) => None,
        };
        Ok(cut.map_or_else(|| body.freeze(), Bytes::from))
    }

    /// The same for a line of a file of answers.
    pub(crate) fn line(&self, line: Bytes) -> Bytes {
        let cut = match self.secrets.cut_answer(&String::from_utf8_lossy(&line)) {
            Cow::Owned(cut) => Some(cut),
            Cow::Borrowed(_) => None,
        };
        cut.map_or(line, Bytes::from)
    }

    fn unreachable(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!(
                "cannot be reached through the proxy {proxy}, which HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names: check the proxy, \
                 or write the teacher's host into NO_PROXY"
            ),
            None => "cannot be reached: check that it runs and that the profile's url is right".to_owned(),
        }
    }

    fn failure(&self, words: &Words, end: CallEnd) -> Box<Failure> {
        let what = self.secrets.cut(&words.what);
        let message = match quoted(&self.secrets, &words.said) {
            Some(said) => format!("{what}: `{said}`"),
            None => what.into_owned(),
        };
        let url = shown_url(self.endpoint.as_str());
        Box::new(Failure { profile: self.profile.name.clone(), url, message, end })
    }
}

/// Why a body is not whole.
enum BodyError {
    TooLong,
    Transport(reqwest::Error),
}

/// Whether a body holds what cannot be decompressed, rather than ending early.
fn is_garbled(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(here) = cause {
        let kind = here.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)) {
            return true;
        }
        cause = here.source();
    }
    false
}

/// The causes below an error, which unlike itself name no address.
fn causes(error: &reqwest::Error) -> String {
    error.source().map_or_else(String::new, |cause| format!(" ({cause})"))
}

/// The proxy for `endpoint`, without its user and password.
fn proxy_of(proxies: &Matcher, endpoint: &Url) -> Option<String> {
    let uri = endpoint.as_str().parse().ok()?;
    let proxy = proxies.intercept(&uri)?;
    Some(shown_url(proxy.uri().to_string().trim_end_matches('/')))
}

/// The beginning of a server's text on one line, for a message; `None` where there is none.
fn quoted(secrets: &Secrets, said: &str) -> Option<String> {
    let said = secrets.cut(said.get(..said.floor_char_boundary(QUOTED_BYTES_MAX)).unwrap_or_default());
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    let line: String = line.chars().take(SHOWN_CHARACTERS).map(shown).collect();
    (!line.is_empty()).then_some(line)
}

/// Which model a list of models says is served under the name `model`.
fn served(list: &Value, model: &str) -> Option<String> {
    let models = list.get("data").and_then(Value::as_array)?;
    let text = |entry: &Value, key: &str| {
        entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let entry = match models.as_slice() {
        // A server of one model answers with it, whatever it is asked for.
        [only] => only,
        _ => models.iter().find(|entry| text(entry, "id").as_deref() == Some(model))?,
    };
    // vLLM's `root` is the model behind an alias; llama.cpp describes the file behind one in `meta`.
    let mut name = text(entry, "root").or_else(|| text(entry, "id"))?;
    for key in ["n_params", "n_vocab", "size"] {
        if let Some(number) = entry.pointer("/meta").and_then(|meta| meta.get(key)).and_then(Value::as_u64) {
            name.push_str(&format!(" {key}={number}"));
        }
    }
    Some(name.chars().take(MODEL_CHARACTERS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Provider;

    /// Serves one list of models for each name, and is away after that.
    fn lists(names: &'static [&'static str]) -> String {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for name in names {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let body = format!("{{\"data\": [{{\"id\": \"{name}\"}}]}}");
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn another_model_behind_the_profile_is_seen_after_a_while() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = lists(&["qwen", "llama"]);
        let client = Client::new(Profile::new("test", Provider::OpenAiChat, &url, "default")).unwrap();
        let later = async || {
            let mut named = client.served_model.lock().await;
            let named = named.as_mut().unwrap();
            named.at = named.at.checked_sub(MODELS_KEPT).unwrap();
        };
        for expected in ["qwen", "qwen"] {
            assert_eq!(client.served_model().await.as_deref(), Some(expected));
        }
        later().await;
        assert_eq!(client.served_model().await.as_deref(), Some("llama"));
        later().await;
        assert_eq!(client.served_model().await.as_deref(), Some("llama"), "its last name, while it is away");
    }

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let check = |proxies: Matcher, url: &str, expected: Option<&str>| {
            assert_eq!(proxy_of(&proxies, &url.parse().unwrap()).as_deref(), expected, "{url}");
        };
        let both =
            || Matcher::builder().http("http://me:s3cret@127.0.0.1:9").https("http://gate:3128").no("inner");
        check(both().build(), "http://127.0.0.1:8089/v1", Some("http://127.0.0.1:9"));
        check(both().build(), "https://api.example.com/v1", Some("http://gate:3128"));
        check(both().build(), "http://inner/v1", None);
        check(Matcher::builder().build(), "http://127.0.0.1:8089/v1", None);

        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client =
            Client::new(Profile::new("test", Provider::OpenAiChat, "http://127.0.0.1:9/v1", "small"))
                .unwrap();
        client.proxy = Some("http://gate:3128".to_owned());
        let message = client.unreachable();
        assert!(
            message.contains("through the proxy http://gate:3128") && message.contains("NO_PROXY"),
            "{message}"
        );
    }
}
