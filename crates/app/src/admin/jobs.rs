//! The page of jobs at the admin port: what is asked for, whether the reader may see it, and in what it is wrapped.
//!
//! It reads, through the API of this process, and changes nothing. A browser that shows it runs its one script and fetches from
//! nowhere else.

use super::calls;
use super::page::{self, Job};
use super::readers;
use crate::config::{Config, JobsReaders};
use crate::pages::{COLOURS, Curves, REPORTS, STYLE};
use bytes::Bytes;
use domain::ids::DistillationId;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use http_body_util::Full;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use wire::Channel;

/// Pages that are made at once: each asks the records, which have other work.
const PAGES_AT_ONCE: usize = 2;
/// How long a page may take, its wait for a turn included.
const PAGE_WITHIN: Duration = Duration::from_secs(10);
/// The longest report that is shown.
const REPORT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The longest name of a page of the list.
const TOKEN_BYTES_MAX: usize = 1_024;

/// A page of ours: its own style and script, its own server, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// A report: a file with its style inside, which runs nothing.
const REPORT_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                             frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The page of jobs of this process.
#[derive(Clone)]
pub(crate) struct Jobs {
    /// The API that is asked, once it is open.
    api: Arc<OnceLock<Channel>>,
    /// Whether this process will have one.
    has_jobs: bool,
    readers: JobsReaders,
    /// Where `distillery run` writes its reports, if jobs of this process are those of a data folder.
    reports: Option<PathBuf>,
    turns: Arc<Semaphore>,
}

type Answer = Response<Full<Bytes>>;

impl Jobs {
    /// As the configuration says; `has_jobs` where the records are this process's own.
    pub(crate) fn new(config: &Config, has_jobs: bool) -> Self {
        let is_in_folder = config.database.url.is_empty() && config.database.url_file.as_os_str().is_empty();
        Self {
            api: Arc::default(),
            has_jobs,
            readers: config.admin.jobs,
            reports: is_in_folder.then(|| config.data_dir.join(REPORTS)),
            turns: Arc::new(Semaphore::new(PAGES_AT_ONCE)),
        }
    }

    /// From now on, jobs are read over `api`.
    pub(crate) fn open(&self, api: Channel) {
        // A second call changes nothing.
        let _ = self.api.set(api);
    }

    /// The answer to a reader at `peer`; `None` where the path is none of these.
    pub(super) async fn answer(&self, uri: &Uri, headers: &HeaderMap, peer: SocketAddr) -> Option<Answer> {
        let asked = Asked::of(uri)?;
        if !self.has_jobs {
            let words = "this process has no jobs: ask the admin port of the harvester; here are /metrics, /healthz and /readyz\n";
            return Some(plain(StatusCode::NOT_FOUND, words));
        }
        if !readers::may_read(self.readers, peer, headers) {
            let words = "admin.jobs decides who may read the page of jobs: as it is set, readers on this machine (asked for as localhost, \
                         also through a forwarded port), or nobody\n";
            return Some(plain(StatusCode::FORBIDDEN, words));
        }
        let Some(api) = self.api.get() else {
            return Some(later("the records are not open yet: try again in a moment\n"));
        };
        let made = tokio::time::timeout(PAGE_WITHIN, async {
            let _turn = self.turns.acquire().await;
            self.make(api, asked, readers::is_here(peer)).await
        });
        Some(match made.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => refused(&status),
            Err(_) => later("the records took too long: try again in a moment\n"),
        })
    }

    async fn make(&self, api: &Channel, asked: Asked, is_here: bool) -> Result<Answer, Status> {
        Ok(match asked {
            Asked::Style => wrapped("text/css; charset=utf-8", style(), POLICY),
            Asked::Script => wrapped("text/javascript; charset=utf-8", include_str!("jobs.js"), POLICY),
            Asked::List(token) => {
                let (records, next) = calls::page(api, &token).await?;
                let mut jobs = Vec::with_capacity(records.len());
                for record in records {
                    match self.job(api, record.id).await {
                        Ok(job) => jobs.push(job),
                        // It was deleted meanwhile.
                        Err(status) if status.code() == Code::NotFound => {}
                        Err(status) => return Err(status),
                    }
                }
                wrapped(HTML, page::list(&jobs, &next, token.is_empty()), POLICY)
            }
            Asked::Job(id) => {
                let job = self.job(api, id).await?;
                let metrics = match job.found.job.run {
                    Some(run) => calls::metrics(api, run).await?,
                    None => Vec::new(),
                };
                let has_report = is_here && self.report(&job).await.is_some();
                wrapped(HTML, page::one(&job, &Curves::of(&metrics), has_report), POLICY)
            }
            // A report shows rows: readers elsewhere do not get it.
            Asked::Report(id) if is_here => {
                let job = self.job(api, id).await?;
                let absent = || Status::not_found("there is no report of this job");
                let path = self.report(&job).await.ok_or_else(absent)?;
                let report = tokio::fs::read(path).await.map_err(|_| absent())?;
                wrapped(HTML, report, REPORT_POLICY)
            }
            Asked::Report(_) => {
                plain(StatusCode::FORBIDDEN, "a report shows rows, to readers on its machine only\n")
            }
        })
    }

    async fn job(&self, api: &Channel, id: DistillationId) -> Result<Job, Status> {
        let found = calls::job(api, id).await?;
        let run = match found.job.run {
            Some(run) => Some(calls::run(api, run).await?),
            None => None,
        };
        Ok(Job { found, run })
    }

    /// Where the report of a job is, if there is one. Its name is that of a specification, which holds nothing that leads elsewhere.
    async fn report(&self, job: &Job) -> Option<PathBuf> {
        let name = &job.found.job.spec.name;
        let path = self.reports.as_ref()?.join(format!("{name}.html"));
        let is_plain =
            domain::spec::is_name(name) && path.file_name() == Path::new(&format!("{name}.html")).file_name();
        let file = tokio::fs::metadata(&path).await.ok()?;
        (is_plain && job.found.job.model.is_some() && file.is_file() && file.len() <= REPORT_BYTES_MAX)
            .then_some(path)
    }
}

/// What a reader asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// A page of the list; empty for the first.
    List(String),
    Job(DistillationId),
    Report(DistillationId),
    Style,
    Script,
}

impl Asked {
    fn of(uri: &Uri) -> Option<Self> {
        match uri.path() {
            "/" => Some(Self::List(token(uri.query().unwrap_or_default())?)),
            "/jobs.css" => Some(Self::Style),
            "/jobs.js" => Some(Self::Script),
            path => match path.strip_prefix("/jobs/") {
                Some(id) => Some(Self::Job(id.parse().ok()?)),
                None => Some(Self::Report(path.strip_prefix("/reports/")?.parse().ok()?)),
            },
        }
    }
}

/// The page that a query names; `None` for a query that is none.
fn token(query: &str) -> Option<String> {
    if query.is_empty() {
        return Some(String::new());
    }
    let written = query.strip_prefix("page=").filter(|written| written.len() <= TOKEN_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn style() -> String {
    [COLOURS, STYLE, include_str!("jobs.css")].concat()
}

/// A page with the headers that keep it to itself.
fn wrapped(content: &'static str, body: impl Into<Bytes>, policy: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers: [(HeaderName, &'static str); 7] = [
        (CONTENT_TYPE, content),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn plain(status: StatusCode, words: impl Into<Bytes>) -> Answer {
    let mut answer = wrapped(TEXT, words, POLICY);
    *answer.status_mut() = status;
    answer
}

fn later(words: &'static str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, words);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    answer
}

/// A status of the API as an answer of this port.
fn refused(status: &Status) -> Answer {
    match status.code() {
        Code::NotFound => plain(StatusCode::NOT_FOUND, format!("{}\n", status.message())),
        Code::InvalidArgument => plain(StatusCode::BAD_REQUEST, format!("{}\n", status.message())),
        code => {
            tracing::warn!(%code, message = status.message(), "the page of jobs cannot be made");
            later("the records do not answer: try again in a moment\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_strictly() {
        let id = "018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11";
        let check = |path: &str, wanted: Option<Asked>| {
            assert_eq!(Asked::of(&path.parse().unwrap()), wanted, "{path}");
        };
        check("/", Some(Asked::List(String::new())));
        check("/?page=a%2Fb-1", Some(Asked::List("a/b-1".to_owned())));
        check(&format!("/jobs/{id}"), Some(Asked::Job(id.parse().unwrap())));
        check(&format!("/reports/{id}"), Some(Asked::Report(id.parse().unwrap())));
        check("/jobs.css", Some(Asked::Style));
        check("/jobs.js", Some(Asked::Script));
        for none in [
            "/?page=%",
            "/?page=%f",
            "/?page=%zz",
            "/?page=%ff",
            "/?other=1",
            "/jobs/",
            "/jobs/x",
            "/jobs/../x",
        ] {
            check(none, None);
        }
        check(&format!("/reports/{id}.html"), None);
        check("/reports/..%2f..%2fetc%2fpasswd", None);
        check(&format!("/?page={}", "a".repeat(TOKEN_BYTES_MAX + 1)), None);
    }

    #[test]
    fn nothing_of_a_page_comes_from_elsewhere() {
        for text in [style().as_str(), include_str!("jobs.js"), POLICY, REPORT_POLICY] {
            assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("//cdn"), "{text}");
        }
        let answer = plain(StatusCode::OK, "x");
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    }
}
