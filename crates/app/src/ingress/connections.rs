//! Accepting connections, and ending them: by their age, or when the server closes.

use super::guard::Closing;
use crate::config::ServerSection;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rand::Rng;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// How long a TLS handshake may take, and after it the preface that HTTP/2 begins with.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of that preface; no request of HTTP/1.1, which names its host, is shorter.
const PREFACE_BYTES: usize = 24;
/// How long a caller of HTTP/1.1 may take to say what it wants, and rest between two requests.
const REST: Duration = Duration::from_secs(60);
/// Most bytes of a request's head in HTTP/1.1, and of what is read ahead.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long an unanswered ping keeps a connection.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait when no connection can be accepted, for example without free file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Bytes that a caller may send on one stream, and on one connection, before it waits for the reader.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// How connections are kept.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    connections: usize,
    peer_connections: usize,
    calls: u32,
    age: Option<Duration>,
    keepalive: Duration,
    drain: Duration,
}

impl Limits {
    pub(super) fn of(section: &ServerSection) -> Self {
        Self {
            connections: section.connections_max.clamp(1, Semaphore::MAX_PERMITS),
            peer_connections: section.peer_connections_max.max(1),
            calls: section.connection_calls_max.max(1),
            age: (section.connection_age_seconds > 0)
                .then(|| Duration::from_secs(section.connection_age_seconds)),
            keepalive: Duration::from_secs(section.keepalive_seconds.max(1)),
            drain: Duration::from_secs(section.drain_seconds),
        }
    }

    /// An age that differs from connection to connection by up to a tenth, so that they do not all end at once.
    fn age(&self) -> Option<Duration> {
        self.age.map(|age| age.mul_f64(rand::rng().random_range(0.9..1.1)))
    }
}

/// Serves connections until `closing`; then accepts no more, and returns when those at hand have ended, which the drain
/// time bounds.
pub(super) async fn serve<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    service: S,
    closing: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let peers = Peers::default();
    while let Some((place, stream, peer)) = next(&listener, &places, &closing).await {
        let Some(counted) = peers.enter(peer, limits.peer_connections) else {
            tracing::info!(%peer, "a caller has server.peer_connections_max connections already");
            continue;
        };
        let (tls, limits, service, closing) = (tls.clone(), limits.clone(), service.clone(), closing.clone());
        connections.spawn(async move {
            open(stream, tls, &limits, service, closing).await;
            drop((counted, place));
        });
    }
    // Closed before the waiting, so that no caller connects to a server that will not answer.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection with its place; `None` when the server closes.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    closing: &CancellationToken,
) -> Option<(tokio::sync::OwnedSemaphorePermit, TcpStream, IpAddr)> {
    let accept = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((place, stream, peer.ip().to_canonical())),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accept => accepted,
        () = closing.cancelled() => None,
    }
}

/// Connections by the address they come from: no single one takes all the places.
#[derive(Debug, Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted until it is dropped.
#[derive(Debug)]
struct Counted {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection; `None` where there are `most` already.
    fn enter(&self, peer: IpAddr, most: usize) -> Option<Counted> {
        let mut counts = self.counts();
        let count = counts.entry(peer).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { peers: self.clone(), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// A stream that tells when a preface's worth of bytes has been read.
struct Heard<IO> {
    inner: IO,
    left: usize,
    preface: CancellationToken,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Heard<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if this.left > 0 && polled.is_ready() {
            this.left = this.left.saturating_sub(buffer.filled().len().saturating_sub(before));
            if this.left == 0 {
                this.preface.cancel();
            }
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Heard<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

async fn open<S>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    limits: &Limits,
    service: S,
    closing: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    // Small messages are not held back to be sent together.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(stream, limits, service, closing).await };
    tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => match shaken {
            Ok(Ok(stream)) => speak(stream, limits, service, closing.clone()).await,
            Ok(Err(error)) => tracing::info!(%error, "no TLS with a caller"),
            Err(_) => tracing::info!("a caller did not finish its TLS handshake"),
        },
        () = closing.cancelled() => {}
    }
}

async fn speak<IO, S>(stream: IO, limits: &Limits, service: S, closing: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let ending = CancellationToken::new();
    let mark = Closing(ending.clone());
    let marked = service.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(mark.clone());
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(REST).max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(PING_TIMEOUT);
    let preface = CancellationToken::new();
    let stream = Heard { inner: stream, left: PREFACE_BYTES, preface: preface.clone() };
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(marked)));
    // Pings find out who is gone only after the preface.
    let silent = async {
        if tokio::time::timeout(HANDSHAKE, preface.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let old = async {
        match limits.age() {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = silent => return tracing::info!("a caller connected and said nothing"),
        () = old => tracing::debug!("a connection is old enough"),
        () = closing.cancelled() => {}
    }
    ending.cancel();
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(limits.drain, connection).await {
        Ok(ended) => note(ended),
        Err(_) => tracing::warn!("calls did not finish in time, and are cut off"),
    }
}

/// A caller that leaves in the middle is not an error.
fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
