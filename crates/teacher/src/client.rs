//! One HTTP call: the request, its timeouts, and the meaning of every kind of answer.

use crate::attempt::CallError;
use crate::context;
use crate::dialect;
use crate::error::TeacherError;
use crate::profile::Profile;
use crate::retry_after;
use crate::{Question, Reply, estimate_tokens};
use bytes::{Bytes, BytesMut};
use domain::budget::Usage;
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
/// The wait after a 429 without Retry-After.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);

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
    pub(crate) async fn ask(&self, question: &Question, call: CallId) -> Result<Reply, CallError> {
        let began = Instant::now();
        let mut request = self.http.post(&self.endpoint).json(&dialect::body(&self.profile, question));
        for (name, value) in dialect::headers(&self.profile) {
            request = request.header(name, value);
        }
        if let Some(context) = context::current() {
            request = request.header(domain::trace::HEADER, context.to_string());
        }
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        let status = response.status();
        let wait = response
            .headers()
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after::parse(value, SystemTime::now()));
        let body = self.read_body(response).await?;
        if status.is_success() {
            return self.read_reply(question, call, &body, began.elapsed()).map_err(CallError::Final);
        }
        Err(self.refusal(status, wait, &body))
    }

    async fn read_body(&self, response: reqwest::Response) -> Result<Bytes, CallError> {
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.transport(&error))?;
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(CallError::Final(self.malformed(format!(
                    "sent more than {BODY_BYTES_MAX} bytes for one answer: check that the profile's url leads to a teacher"
                ))));
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
        Ok(Reply {
            text: answered.text,
            finish_reason: answered.finish_reason,
            model: answered.model.unwrap_or_else(|| self.profile.model.clone()),
            call,
            usage: Usage {
                tokens_in,
                tokens_out,
                money_micros: self.profile.money_micros(tokens_in, tokens_out),
            },
            seconds: took.as_secs_f64(),
        })
    }

    fn refusal(&self, status: StatusCode, wait: Option<Duration>, body: &[u8]) -> CallError {
        let said = shown(body);
        let code = status.as_u16();
        if code == 429 && String::from_utf8_lossy(body).contains("insufficient_quota") {
            return CallError::Final(self.permanent(format!(
                "reports an exhausted quota (429 insufficient_quota): raise the quota, then resume: {said}"
            )));
        }
        match code {
            429 => CallError::Final(TeacherError::Wait {
                profile: self.profile.name.clone(),
                wait: wait.unwrap_or(WAIT_DEFAULT),
            }),
            401 | 403 => CallError::Final(self.permanent(format!(
                "rejects the key ({code}): check the profile's api_key_env or api_key_file, then resume: {said}"
            ))),
            404 | 405 => CallError::Final(self.permanent(format!(
                "has no such address or model `{}` ({code}): check the profile's url and model: {said}",
                self.profile.model
            ))),
            300..=399 => CallError::Final(
                self.permanent(format!("redirects ({code}): set the profile's url to the final address")),
            ),
            // Anthropic answers 529 when it is overloaded.
            408 | 500 | 502 | 503 | 504 | 529 => CallError::Retry {
                error: self.unavailable(format!("answered {code}: {said}")),
                wait,
            },
            _ => CallError::Final(self.malformed(format!("rejects the prompt ({code}): {said}"))),
        }
    }

    fn transport(&self, error: &reqwest::Error) -> CallError {
        let what = if error.is_connect() {
            "cannot be reached: check that it runs and that the profile's url is right".to_owned()
        } else if error.is_timeout() {
            format!(
                "timed out (idle {:?}, total {:?}): raise the profile's idle_seconds or total_seconds, or check the teacher",
                self.profile.idle_timeout, self.profile.total_timeout
            )
        } else {
            "closed the connection before its answer was complete".to_owned()
        };
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(" ({cause})"));
        CallError::Retry { error: self.unavailable(format!("{what}{cause}")), wait: None }
    }

    fn unavailable(&self, message: String) -> TeacherError {
        let (profile, url) = self.names();
        TeacherError::Unavailable { profile, url, message }
    }

    fn malformed(&self, message: String) -> TeacherError {
        let (profile, url) = self.names();
        TeacherError::Malformed { profile, url, message }
    }

    fn permanent(&self, message: String) -> TeacherError {
        let (profile, url) = self.names();
        TeacherError::Permanent { profile, url, message }
    }

    fn names(&self) -> (String, String) {
        (self.profile.name.clone(), self.endpoint.clone())
    }
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..4 * SHOWN_CHARACTERS).unwrap_or(body)).into_owned();
    let text: String =
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARACTERS).collect();
    if text.is_empty() { "(an empty body)".to_owned() } else { format!("`{text}`") }
}
