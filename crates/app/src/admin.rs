//! The admin port: metrics for Prometheus, probes, and a page of jobs for people. Plain HTTP, apart from the ingress, so that an
//! orchestrator needs neither a token nor a certificate; metrics and probes tell nothing of a row, a prompt or a secret, and the page
//! is for those alone whom `admin.jobs` names. Whoever connects is answered, however many others have connected and say nothing:
//! where all places are taken, the oldest connection ends.

mod calls;
mod jobs;
mod page;
mod readers;

pub(crate) use jobs::Jobs;

use crate::client::{self, Health};
use crate::config::AdminSection;
use crate::exposition::{CONTENT_TYPE, Exposition};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE as TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where it is asked whether the process serves.
const READY: &str = "/readyz";
/// Connections at once; for one more the oldest ends.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to say what it wants, and rest between two questions.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may last: a slow reader does not keep its connection.
const CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Most bytes of a request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long to wait when no connection can be accepted, for example without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a probe waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often observations are put into their buckets, without a scraper.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// What a probe sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not everything serves yet.
    Starting,
    /// Everything serves.
    Ready,
    /// Nothing serves any more.
    Draining,
}

/// A listener for those who watch.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Listens, as the configuration says; `None` where it names no address.
    ///
    /// # Errors
    /// The address is not one, or is taken.
    pub(crate) async fn open(section: &AdminSection) -> anyhow::Result<Option<Self>> {
        let Some(address) = section.address()? else { return Ok(None) };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("admin.listen: {address} cannot be listened at"))?;
        Ok(Some(Self { address: listener.local_addr()?, listener }))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for as long as it is polled; with it its connections end.
    pub(crate) async fn serve(
        self,
        exposition: Exposition,
        readiness: watch::Receiver<Readiness>,
        jobs: Jobs,
    ) {
        let served = Served { exposition, readiness, jobs };
        let closing = CancellationToken::new();
        let _closes = closing.clone().drop_guard();
        let mut places = Places::default();
        let mut tidying = tokio::time::interval(TIDY_EVERY);
        loop {
            let accepted = tokio::select! {
                _ = tidying.tick() => {
                    served.exposition.tidy_up();
                    continue;
                }
                accepted = accept(&self.listener) => accepted,
            };
            let Some((stream, peer)) = accepted else { continue };
            let place = places.take(&closing);
            let served = served.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = place.ends.cancelled() => {}
                    () = tokio::time::sleep(CONNECTION_AGE) => {}
                    () = speak(stream, peer, served) => {}
                }
            });
        }
    }
}

/// What is answered.
#[derive(Clone)]
struct Served {
    exposition: Exposition,
    readiness: watch::Receiver<Readiness>,
    jobs: Jobs,
}

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
struct Places(VecDeque<Weak<Place>>);

/// A connection's place, for as long as it is kept.
#[derive(Debug)]
struct Place {
    ends: CancellationToken,
}

impl Places {
    /// A place for one more; the oldest connection ends where all of them are taken.
    fn take(&mut self, closing: &CancellationToken) -> Arc<Place> {
        self.0.retain(|place| place.strong_count() > 0);
        while self.0.len() >= CONNECTIONS_MAX {
            if let Some(oldest) = self.0.pop_front().and_then(|place| place.upgrade()) {
                oldest.ends.cancel();
            }
        }
        let place = Arc::new(Place { ends: closing.child_token() });
        self.0.push_back(Arc::downgrade(&place));
        place
    }
}

/// The next connection; `None` where none can be accepted for a moment.
async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "a connection to the admin port cannot be accepted");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

/// Asks the admin port of this machine's process whether it serves, as a probe does.
///
/// # Errors
/// The configuration names no address; nobody answers there in time, or something else does.
pub async fn ask(section: &AdminSection) -> anyhow::Result<(SocketAddr, Health)> {
    let words = "admin.listen is empty: there is no admin port to ask; name its address, or ask the server by --server";
    let address = client::on_this_machine(section.address()?.context(words)?);
    let asked = tokio::time::timeout(ANSWER_WITHIN, status(address)).await;
    let status = asked
        .map_err(|_| anyhow!("there was no answer within {ANSWER_WITHIN:?}"))
        .flatten()
        .with_context(|| format!("the admin port at {address}"))?;
    match status {
        StatusCode::OK => Ok((address, Health::Serving)),
        StatusCode::SERVICE_UNAVAILABLE => Ok((address, Health::NotServing)),
        other => bail!("{address} answered {other} to {READY}: that is no admin port"),
    }
}

async fn status(address: SocketAddr) -> anyhow::Result<StatusCode> {
    let stream = TcpStream::connect(address).await.context("cannot be reached")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(READY).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answered = async { anyhow::Ok(sender.send_request(request).await?.status()) };
    tokio::select! {
        answered = answered => answered,
        ended = connection => bail!("the connection ended before an answer: {ended:?}"),
    }
}

async fn speak(stream: TcpStream, peer: SocketAddr, served: Served) {
    let service = service_fn(move |request: Request<Incoming>| {
        let served = served.clone();
        async move { Ok::<_, Infallible>(answer(&request, peer, &served).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin port broke");
    }
}

async fn answer(request: &Request<Incoming>, peer: SocketAddr, served: &Served) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut metrics = plain(StatusCode::OK, served.exposition.render());
            metrics.headers_mut().insert(TYPE, HeaderValue::from_static(CONTENT_TYPE));
            metrics
        }
        "/healthz" => plain(StatusCode::OK, "alive\n"),
        READY => match *served.readiness.borrow() {
            Readiness::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Readiness::Ready => plain(StatusCode::OK, "ready\n"),
            Readiness::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        _ => match served.jobs.answer(request.uri(), request.headers(), peer).await {
            Some(answered) => answered,
            None => plain(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
        },
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
