//! A teacher that is asked in batches.

use super::api::{Api, TRANSFER_TIMEOUT, before_path};
use super::grouping::{BatchAnswer, BatchLimits, BatchOutput, BatchStatus, Candidate, PAGE, Proof};
use super::results::Results;
use super::{anthropic, gemini, openai};
use crate::client::Client;
use crate::dialect::{self, Received};
use crate::error::TeacherError;
use crate::meters::Meters;
use crate::profile::{Prices, Profile, Provider};
use crate::{Question, Reply};
use bytes::Bytes;
use domain::budget::CallBound;
use domain::ids::CallId;
use futures::stream::BoxStream;
use reqwest::{Method, Url};
use serde_json::Value;
use std::io;
use std::time::{Duration, SystemTime};

/// Most pages of a list of batches that are read.
const PAGES_MAX: usize = 100;
/// How far the clocks of a provider may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// The lines of a batch as they are sent.
pub struct Payload {
    /// Bytes of them together, with what stands around them.
    pub length: u64,
    /// The bytes.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// What a batch is made of.
pub enum Input {
    /// A file that was uploaded, as the provider calls it.
    File(String),
    /// Its lines.
    Lines(Payload),
}

/// Which batches a provider has that may be one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// All of them.
    Candidates(Vec<Candidate>),
    /// It does not tell; why.
    Unknowable(String),
}

/// A teacher that is asked in batches, at their price. Cloning shares its connections.
#[derive(Clone)]
pub struct BatchTeacher {
    api: Api,
    meters: Meters,
}

impl std::fmt::Debug for BatchTeacher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BatchTeacher")
            .field("profile", self.api.client().profile())
            .finish_non_exhaustive()
    }
}

impl BatchTeacher {
    /// The teacher behind `client`, at the price of its batches; `None` where it has no batch API.
    pub(crate) fn new(client: &Client, meters: &Meters) -> Option<Self> {
        let profile = client.profile();
        let scaled = |price: f64| price * profile.price_batch_factor;
        let Prices { in_per_million, out_per_million, cached_per_million, written_per_million } =
            profile.prices;
        let prices = Prices {
            in_per_million: scaled(in_per_million),
            out_per_million: scaled(out_per_million),
            cached_per_million: cached_per_million.map(scaled),
            written_per_million: written_per_million.map(scaled),
        };
        profile.batch.then(|| Self { api: Api::new(client.with_prices(prices)), meters: meters.clone() })
    }

    /// The profile, with the prices of batches.
    pub fn profile(&self) -> &Profile {
        self.api.client().profile()
    }

    /// What one batch may hold.
    pub fn limits(&self) -> BatchLimits {
        match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => openai::LIMITS,
            Provider::Anthropic => anthropic::LIMITS,
            Provider::Gemini => gemini::LIMITS,
        }
    }

    /// The most that one line for `question` can cost.
    pub fn bound(&self, question: &Question) -> CallBound {
        self.profile().bound(question)
    }

    /// What stands before the first line.
    pub fn head(&self, mark: &str) -> Vec<u8> {
        match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => openai::head(mark),
            Provider::Anthropic => anthropic::HEAD.to_vec(),
            Provider::Gemini => Vec::new(),
        }
    }

    /// A line, with what stands between it and the one before.
    pub fn line(&self, call: CallId, question: &Question, is_first: bool) -> Vec<u8> {
        let body = dialect::request(self.profile(), question);
        let (line, between, after) = match self.api.provider() {
            Provider::OpenAiChat => (openai::line(call, openai::CHAT, body), "", "\n"),
            Provider::OpenAiCompletions => (openai::line(call, openai::COMPLETIONS, body), "", "\n"),
            Provider::Anthropic => (anthropic::line(call, body), if is_first { "" } else { "," }, ""),
            Provider::Gemini => (gemini::line(call, body), "", "\n"),
        };
        format!("{between}{line}{after}").into_bytes()
    }

    /// What stands behind the last line.
    pub fn tail(&self, mark: &str) -> Vec<u8> {
        match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => openai::tail(mark),
            Provider::Anthropic => anthropic::TAIL.to_vec(),
            Provider::Gemini => Vec::new(),
        }
    }

    /// Whether lines are uploaded as a file, before the batch is created: a short request then.
    pub fn uploads_first(&self) -> bool {
        match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions | Provider::Gemini => true,
            Provider::Anthropic => false,
        }
    }

    /// Uploads lines. Nothing is asked by that. Returns how the provider calls the file.
    ///
    /// # Errors
    /// The provider's, or that of the connection.
    pub async fn upload(&self, mark: &str, lines: Payload) -> Result<String, TeacherError> {
        let answer = match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => {
                let kind = format!("multipart/form-data; boundary={}", openai::boundary(mark));
                let request = self.api.client().request(Method::POST, self.api.address(&["files"])?);
                self.api.client().json(sent(request, &kind, lines)).await?
            }
            Provider::Gemini => self.upload_in_two_steps(mark, lines).await?,
            Provider::Anthropic => return Err(self.api.invalid("takes no files")),
        };
        let pointer = if self.api.provider() == Provider::Gemini { "/file/name" } else { "/id" };
        self.text(&answer, pointer)
    }

    /// Creates a batch: from here on it is asked and paid. Returns how the provider calls it.
    ///
    /// # Errors
    /// One that [ends](TeacherError::end) as refused says that there is no batch; after any other there may be one.
    pub async fn create(&self, mark: &str, input: Input) -> Result<String, TeacherError> {
        let (request, pointer) = match (self.api.provider(), input) {
            (provider @ (Provider::OpenAiChat | Provider::OpenAiCompletions), Input::File(file)) => {
                let endpoint =
                    if provider == Provider::OpenAiChat { openai::CHAT } else { openai::COMPLETIONS };
                let request = self.api.client().request(Method::POST, self.api.address(&["batches"])?);
                (request.json(&openai::create(&file, endpoint, mark)), "/id")
            }
            (Provider::Gemini, Input::File(file)) => {
                let address =
                    dialect::batch_endpoint(self.profile()).map_err(|error| self.api.invalid(&error))?;
                (self.api.client().request(Method::POST, address).json(&gemini::create(&file, mark)), "/name")
            }
            (Provider::Anthropic, Input::Lines(lines)) => {
                let request = self.api.client().request(Method::POST, self.api.address(&anthropic::PATH)?);
                (sent(request, "application/json", lines), "/id")
            }
            (Provider::Anthropic, Input::File(_)) => return Err(self.api.invalid("takes lines and no file")),
            (_, Input::Lines(_)) => return Err(self.api.invalid("takes a file and no lines")),
        };
        let answer = self.api.client().json(request.timeout(self.create_timeout())).await?;
        self.text(&answer, pointer)
    }

    /// The longest time that creating a batch takes; after it, one that was being created is there or never will be.
    pub fn create_timeout(&self) -> Duration {
        self.profile().total_timeout
    }

    /// Which batches of the last `age` may be the one that was marked with `mark` and has so many lines.
    ///
    /// # Errors
    /// The provider's, or that of the connection.
    pub async fn find(&self, mark: &str, lines: u64, age: Duration) -> Result<Listed, TeacherError> {
        let oldest =
            SystemTime::now().checked_sub(age.saturating_add(CLOCK_SKEW)).unwrap_or(SystemTime::UNIX_EPOCH);
        let (mut candidates, mut after) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let page = match self.api.client().json_or_status(self.list(after.as_deref())?).await? {
                Ok(page) => page,
                Err(status) => {
                    let words = format!("has no list of batches (status {status})");
                    return Ok(Listed::Unknowable(words));
                }
            };
            let page = match self.api.provider() {
                Provider::OpenAiChat | Provider::OpenAiCompletions => openai::page(&page, mark),
                Provider::Anthropic => anthropic::page(&page, lines),
                Provider::Gemini => gemini::page(&page, mark),
            };
            let Some(page) = page else {
                return Err(self.api.invalid("sent a list of batches that cannot be read"));
            };
            let is_old = page.oldest.is_some_and(|created| created < oldest);
            for mut candidate in page.candidates {
                if let (Proof::Lines, Some(output)) = (&candidate.proof, &candidate.output) {
                    candidate.proof = self.first_line(output).await?;
                }
                candidates.push(candidate);
            }
            after = page.next;
            if is_old || after.is_none() {
                return Ok(Listed::Candidates(candidates));
            }
        }
        Ok(Listed::Unknowable(format!("has more than {} batches in its list", PAGES_MAX * PAGE)))
    }

    /// How a batch stands.
    ///
    /// # Errors
    /// The provider's, or that of the connection.
    pub async fn status(&self, name: &str) -> Result<BatchStatus, TeacherError> {
        let request = self.api.client().request(Method::GET, self.api.batch_address(name, None)?);
        let answer = match self.api.client().json_or_status(request.timeout(self.create_timeout())).await? {
            Ok(answer) => answer,
            Err(status) => {
                return Ok(BatchStatus::Gone(format!("does not know the batch `{name}` (status {status})")));
            }
        };
        let status = match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => openai::status(&answer),
            Provider::Anthropic => anthropic::status(&answer),
            Provider::Gemini => gemini::status(&answer),
        };
        status.ok_or_else(|| self.api.malformed(&answer))
    }

    /// Asks the provider to stop working on a batch. What it has answered by then is paid, and can be read.
    ///
    /// # Errors
    /// The provider's, or that of the connection.
    pub async fn cancel(&self, name: &str) -> Result<(), TeacherError> {
        let request = self.api.client().request(Method::POST, self.api.batch_address(name, Some("cancel"))?);
        let kind = http::header::CONTENT_TYPE;
        self.api
            .client()
            .json(request.header(kind, "application/json").body("{}").timeout(self.create_timeout()))
            .await?;
        Ok(())
    }

    /// The lines that a batch brought, in the provider's order.
    pub fn results(&self, output: &BatchOutput) -> Results {
        Results::new(self.api.clone(), output.files.clone())
    }

    /// What a line of results says, whatever its bytes are.
    pub fn answer_of(&self, line: &[u8]) -> BatchAnswer {
        self.api.line(line)
    }

    /// What a line means as an answer to `question`.
    ///
    /// # Errors
    /// As of a call by itself.
    pub fn read(
        &self,
        call: CallId,
        status: u16,
        body: &[u8],
        question: &Question,
    ) -> Result<Reply, TeacherError> {
        let request = dialect::request(self.profile(), question);
        let received =
            Received { status, content_type: "application/json", body, wait: None, now: SystemTime::now() };
        let reading = dialect::read(self.api.provider(), &request, &received);
        let result = self.api.client().conclude(reading, None, question).map(|reply| Reply { call, ..reply });
        self.meters.read(&result);
        result
    }

    /// The line that a batch's results begin with.
    async fn first_line(&self, output: &BatchOutput) -> Result<Proof, TeacherError> {
        let first = self.results(output).next().await?;
        Ok(first.map_or(Proof::None, |answer| Proof::Line(answer.call)))
    }

    fn list(&self, after: Option<&str>) -> Result<reqwest::RequestBuilder, TeacherError> {
        let (mut address, limit, cursor) = match self.api.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => {
                (self.api.address(&["batches"])?, "limit", "after")
            }
            Provider::Anthropic => (self.api.address(&anthropic::PATH)?, "limit", "after_id"),
            Provider::Gemini => (self.api.address(&["batches"])?, "pageSize", "pageToken"),
        };
        address.query_pairs_mut().append_pair(limit, &PAGE.to_string());
        if let Some(after) = after {
            address.query_pairs_mut().append_pair(cursor, after);
        }
        Ok(self.api.client().request(Method::GET, address).timeout(self.create_timeout()))
    }

    /// Gemini's upload: the server names an address, which then takes the bytes without a key.
    async fn upload_in_two_steps(&self, mark: &str, lines: Payload) -> Result<Value, TeacherError> {
        let address = before_path("/upload", self.api.address(&["files"])?);
        let request = self.api.client().request(Method::POST, address.clone()).json(&gemini::file(mark));
        let begin = request
            .header("x-goog-upload-protocol", "resumable")
            .header("x-goog-upload-command", "start")
            .header("x-goog-upload-header-content-length", lines.length)
            .header("x-goog-upload-header-content-type", gemini::LINES);
        let begun = self.api.client().response(begin.timeout(self.create_timeout())).await?;
        let place = begun.headers().get("x-goog-upload-url").and_then(|value| value.to_str().ok());
        let place =
            place.and_then(|place| Url::parse(place).ok()).filter(|url| url.scheme() == address.scheme());
        let Some(place) = place else { return Err(self.api.invalid("named no address to upload a file to")) };
        let request = self
            .api
            .client()
            .bare_request(Method::POST, place)
            .header("x-goog-upload-offset", 0)
            .header("x-goog-upload-command", "upload, finalize");
        self.api.client().json(sent(request, gemini::LINES, lines)).await
    }

    fn text(&self, answer: &Value, pointer: &str) -> Result<String, TeacherError> {
        let text = answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| self.api.malformed(answer))
    }
}

/// A request with lines as its body.
fn sent(request: reqwest::RequestBuilder, kind: &str, lines: Payload) -> reqwest::RequestBuilder {
    request
        .header(http::header::CONTENT_TYPE, kind)
        .header(http::header::CONTENT_LENGTH, lines.length)
        .timeout(TRANSFER_TIMEOUT)
        .body(reqwest::Body::wrap_stream(lines.bytes))
}
