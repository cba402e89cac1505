//! The admin port: metrics for Prometheus, and probes. Plain HTTP, apart from the ingress, so that an orchestrator needs
//! neither a token nor a certificate; it tells nothing of a row, a prompt or a secret.

use crate::config::AdminSection;
use crate::exposition::{CONTENT_TYPE, Exposition};
use anyhow::Context;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE as TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to say what it wants, and rest between two questions.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may last: a slow reader does not keep its connection.
const CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Most bytes of a request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long to wait when no connection can be accepted, for example without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
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
    pub(crate) async fn serve(self, exposition: Exposition, readiness: watch::Receiver<Readiness>) {
        let closing = CancellationToken::new();
        let _closes = closing.clone().drop_guard();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tidying = tokio::time::interval(TIDY_EVERY);
        loop {
            let accepted = tokio::select! {
                _ = tidying.tick() => {
                    exposition.tidy_up();
                    continue;
                }
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((place, stream)) = accepted else { continue };
            let (exposition, readiness, closing) = (exposition.clone(), readiness.clone(), closing.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(CONNECTION_AGE) => {}
                    () = speak(stream, exposition, readiness) => {}
                }
                drop(place);
            });
        }
    }
}

/// The next connection with its place; `None` where none can be accepted for a moment.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::sync::OwnedSemaphorePermit, TcpStream)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((place, stream)),
        Err(error) => {
            tracing::warn!(%error, "a connection to the admin port cannot be accepted");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

async fn speak(stream: TcpStream, exposition: Exposition, readiness: watch::Receiver<Readiness>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &exposition, *readiness.borrow());
        async move { Ok::<_, Infallible>(response) }
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

fn answer(
    method: &Method,
    path: &str,
    exposition: &Exposition,
    readiness: Readiness,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            let mut metrics = plain(StatusCode::OK, exposition.render());
            metrics.headers_mut().insert(TYPE, HeaderValue::from_static(CONTENT_TYPE));
            metrics
        }
        "/healthz" => plain(StatusCode::OK, "alive\n"),
        "/readyz" => match readiness {
            Readiness::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Readiness::Ready => plain(StatusCode::OK, "ready\n"),
            Readiness::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
