//! One HTTP call: the request, its timeouts, and the meaning of every kind of answer.

use crate::context;
use crate::dialect;
use crate::error::{Failure, TeacherError};
use crate::headers::{self, RateLimitHeaders};
use crate::profile::{Profile, shown_url};
use crate::{Question, Reply, Tokens, estimate_tokens};
use bytes::{Bytes, BytesMut};
use domain::budget::{CallEnd, Usage};
use domain::completion::FinishReason;
use domain::ids::CallId;
use futures::StreamExt;
use http::StatusCode;
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime};

/// Largest answer that is read, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many characters of a server's body a message quotes.
const SHOWN_CHARACTERS: usize = 160;
/// The wait of a 429 that names none: whoever retries decides.
const WAIT_UNKNOWN: Duration = Duration::ZERO;

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

/// The client of one profile.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    profile: Profile,
    endpoint: String,
}

impl Client {
    pub(crate) fn new(profile: Profile) -> Result<Self, TeacherError> {
        let endpoint = dialect::endpoint(&profile);
        let invalid = |message: String| {
            TeacherError::Invalid(format!("teacher `{}`: url `{}`: {message}", profile.name, profile.url))
        };
        let url = reqwest::Url::parse(&endpoint).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("must begin with http:// or https://".to_owned()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(profile.connect_timeout)
            .read_timeout(profile.idle_timeout)
            .timeout(profile.total_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { http, profile, endpoint })
    }

    /// Makes one call.
    pub(crate) async fn ask(&self, question: &Question, call: CallId) -> CallReport {
        let began = Instant::now();
        let mut request = self.http.post(&self.endpoint).json(&dialect::body(&self.profile, question));
        for (name, value) in dialect::headers(&self.profile) {
            request = request.header(name, value);
        }
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
        let outcome = self.read(response, wait, question, call, began).await;
        CallReport { outcome, limits, overloaded }
    }

    async fn read(
        &self,
        response: reqwest::Response,
        wait: Option<Duration>,
        question: &Question,
        call: CallId,
        began: Instant,
    ) -> Result<Reply, TeacherError> {
        let status = response.status();
        let body = self.read_body(response).await?;
        if status.is_success() {
            return self.read_reply(question, call, &body, began.elapsed());
        }
        Err(self.refusal(status, wait, &body))
    }

    async fn read_body(&self, response: reqwest::Response) -> Result<Bytes, TeacherError> {
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.transport(&error))?;
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(self.malformed(format!(
                    "sent more than {BODY_BYTES_MAX} bytes for one answer: check that the profile's url leads to a teacher"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn read_reply(
        &self,
        question: &Question,
        call: CallId,
        body: &[u8],
        took: Duration,
    ) -> Result<Reply, TeacherError> {
        let answer: Value = serde_json::from_slice(body).map_err(|error| {
            self.malformed(format!(
                "sent a body that is not JSON ({error}): check the profile's url: {}",
                shown(body)
            ))
        })?;
        let answered = dialect::read(self.profile.provider, &answer).map_err(|missing| {
            self.malformed(format!(
                "sent an answer without `{missing}`: check the profile's provider: {}",
                shown(body)
            ))
        })?;
        if answered.text.is_empty() && answered.finish_reason == FinishReason::Stop {
            return Err(self.malformed("sent an answer without text".to_owned()));
        }
        let tokens_in = answered.tokens_in.unwrap_or_else(|| estimate_tokens(&question.prompt));
        let tokens_out = answered.tokens_out.unwrap_or_else(|| estimate_tokens(&answered.text));
        let tokens = Tokens { tokens_in, tokens_out, ..Tokens::default() };
        Ok(Reply {
            text: answered.text,
            thoughts: String::new(),
            finish_reason: answered.finish_reason,
            model: answered.model.unwrap_or_else(|| self.profile.model.clone()),
            call,
            usage: Usage { tokens_in, tokens_out, money_micros: self.profile.money_micros(&tokens) },
            seconds: took.as_secs_f64(),
        })
    }

    fn refusal(&self, status: StatusCode, wait: Option<Duration>, body: &[u8]) -> TeacherError {
        let said = shown(body);
        let code = status.as_u16();
        let refused = |message: String| self.failure(message, CallEnd::Refused);
        if code == 429 && String::from_utf8_lossy(body).contains("insufficient_quota") {
            return TeacherError::Permanent(refused(format!(
                "reports an exhausted quota (429 insufficient_quota): raise the quota, then resume: {said}"
            )));
        }
        match code {
            429 => TeacherError::Wait {
                failure: refused(format!("asks to wait (429): {said}")),
                wait: wait.unwrap_or(WAIT_UNKNOWN),
            },
            401 | 403 => TeacherError::Permanent(refused(format!(
                "rejects the key ({code}): check the profile's api_key_env or api_key_file, then resume: {said}"
            ))),
            404 | 405 => TeacherError::Permanent(refused(format!(
                "has no such address or model `{}` ({code}): check the profile's url and model: {said}",
                self.profile.model
            ))),
            300..=399 => TeacherError::Permanent(refused(format!(
                "redirects ({code}): set the profile's url to the final address"
            ))),
            408 | 500..=599 => TeacherError::Unavailable {
                failure: self.failure(format!("answered {code}: {said}"), CallEnd::Failed),
                wait,
            },
            _ => TeacherError::Malformed(refused(format!("rejects the prompt ({code}): {said}"))),
        }
    }

    fn transport(&self, error: &reqwest::Error) -> TeacherError {
        let (what, end) = if error.is_connect() {
            let what = "cannot be reached: check that it runs and that the profile's url is right".to_owned();
            (what, CallEnd::Refused)
        } else if error.is_timeout() {
            let what = format!(
                "timed out (idle {:?}, total {:?}): raise the profile's idle_seconds or total_seconds, or check the teacher",
                self.profile.idle_timeout, self.profile.total_timeout
            );
            (what, CallEnd::InDoubt)
        } else {
            ("closed the connection before its answer was complete".to_owned(), CallEnd::InDoubt)
        };
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(" ({cause})"));
        TeacherError::Unavailable { failure: self.failure(format!("{what}{cause}"), end), wait: None }
    }

    fn malformed(&self, message: String) -> TeacherError {
        TeacherError::Malformed(self.failure(message, CallEnd::Charged(Usage::default())))
    }

    fn failure(&self, message: String, end: CallEnd) -> Failure {
        Failure { profile: self.profile.name.clone(), url: shown_url(&self.endpoint), message, end }
    }
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4 * SHOWN_CHARACTERS).unwrap_or(body)).into_owned();
    let text: String =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARACTERS).collect();
    if text.is_empty() { "(an empty body)".to_owned() } else { format!("`{text}`") }
}
