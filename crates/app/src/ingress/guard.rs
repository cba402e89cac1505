//! The layer before all services: every call gets an id, is let in or refused, has a place among the calls at once, and
//! an end at its deadline.

use super::access::{self, Lasts, Method, Needs};
use super::incoming::{Incoming, RETRY_AFTER, Room, Taken};
use super::outgoing::{Outgoing, late};
use super::tokens::Guests;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::Span;

/// The header of a request's id, in and out.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// The longest id that is taken from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Most bytes of a call that needs no token, and the longest time that it may take to come: whatever anybody sends costs next
/// to nothing.
const PROBE_BYTES_MAX: usize = 4 * 1024;
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// Cancelled when the connection that a request came by is asked to end; accept loops put it on their requests.
#[derive(Debug, Clone)]
pub(super) struct Closing(pub(super) CancellationToken);

/// What all calls share.
#[derive(Debug)]
pub(super) struct Guard {
    guests: Guests,
    /// Places of callers, and of workers: a crowd of watchers does not cost a trainer its lease.
    callers: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    calls_max: usize,
    room: Room,
}

impl Guard {
    pub(super) fn new(guests: Guests, calls_max: usize, messages_bytes_max: usize) -> Self {
        let places = || Arc::new(Semaphore::new(calls_max.clamp(1, Semaphore::MAX_PERMITS)));
        let room = Room::new(messages_bytes_max);
        Self { guests, callers: places(), workers: places(), calls_max, room }
    }

    /// What messages share.
    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }

    /// Whether everybody is let in.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.guests, Guests::Everybody)
    }

    /// The same services, guarded.
    pub(super) fn before<S>(self, inner: S) -> Guarded<S> {
        Guarded { guard: Arc::new(self), inner }
    }

    /// Lets a call in, or says why not.
    fn admit(&self, request: &Request<Body>) -> Result<Pass, Status> {
        let method = access::find(request.uri().path());
        let needs = method.map_or(Needs::Token, |method| method.needs);
        let caller = self.guests.admit(request.headers().get(header::AUTHORIZATION), needs)?;
        Span::current().record("caller", caller);
        let Some(method) = method else {
            return Err(Status::unimplemented("there is no such method here"));
        };
        let deadline = deadline(request.headers())?;
        let closing = request.extensions().get::<Closing>().map(|closing| closing.0.clone());
        Ok(Pass {
            deadline,
            closing: closing.filter(|_| method.lasts == Lasts::UntilLeft),
            place: self.place(method)?,
            is_probe: method.needs == Needs::Nothing,
            room: self.room.clone(),
        })
    }

    fn place(&self, method: &Method) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let places = match method.needs {
            // A probe is answered however busy the server is.
            Needs::Nothing => return Ok(None),
            Needs::Work => &self.workers,
            Needs::Token | Needs::Read | Needs::Submit | Needs::Operate => &self.callers,
        };
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_| self.crowded())
    }

    fn crowded(&self) -> Status {
        let words = format!(
            "{} calls are answered already, which is the limit: try again in a second",
            self.calls_max
        );
        wire::busy(words, RETRY_AFTER)
    }
}

/// The caller's deadline as a point in time.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(value) = headers.get(wire::TIMEOUT_HEADER) else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(wire::timeout_of);
    let timeout = timeout.ok_or_else(|| {
        Status::invalid_argument(
            "grpc-timeout is not a number of up to eight digits and one of H, M, S, m, u, n",
        )
    })?;
    Ok(Instant::now().checked_add(timeout))
}

/// What a call that was let in carries.
struct Pass {
    deadline: Option<Instant>,
    closing: Option<CancellationToken>,
    place: Option<OwnedSemaphorePermit>,
    is_probe: bool,
    room: Room,
}

impl Pass {
    /// Answers by `inner`, until the deadline.
    async fn answer<S>(self, mut inner: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let taken = Taken::default();
        let room = (self.room, taken.clone());
        let called = async {
            let request = match self.is_probe {
                true => whole(request).await,
                false => Ok(request.map(|body| Body::new(Incoming::new(body, room)))),
            };
            match request {
                Ok(request) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        };
        let answered = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, called).await,
            None => Ok(called.await),
        };
        match answered {
            Ok(Ok(response)) => {
                let held = (self.place, taken);
                unread(response).map(|body| Body::new(Outgoing::new(body, self.deadline, self.closing, held)))
            }
            Ok(Err(never)) => match never {},
            Err(_) => late().into_http(),
        }
    }
}

/// A request with all of its body, which is one short message. Services would set aside as much as a message says that it is
/// long, and wait for it.
async fn whole(request: Request<Body>) -> Result<Request<Body>, Status> {
    let (head, body) = request.into_parts();
    let collected = Limited::new(body, PROBE_BYTES_MAX).collect();
    match tokio::time::timeout(PROBE_WITHIN, collected).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::new(Full::new(body.to_bytes())))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Status::out_of_range(format!("this call takes a message of at most {PROBE_BYTES_MAX} bytes")))
        }
        Ok(Err(error)) => Err(Status::invalid_argument(format!("the message cannot be read: {error}"))),
        Err(_) => Err(Status::deadline_exceeded("the message did not come in time")),
    }
}

/// An internal error that is not one of ours was found by the library that reads messages: frames that are none, no message where
/// one belongs, or bytes that are none of its kind. That is the caller's mistake, and no alert counts it.
fn unread(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Internal && status.message() != wire::INTERNAL => {
            Status::invalid_argument(format!("the message cannot be read: {}", status.message())).into_http()
        }
        _ => response,
    }
}

/// The id of a request: the caller's where it sent a plain one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(plain).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// Services behind the guard.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    guard: Arc<Guard>,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was ready is used; its clone waits for its own turn.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let guard = Arc::clone(&self.guard);
        let id = request_id(request.headers());
        Span::current().record("request_id", id.to_str().unwrap_or_default());
        async move {
            let mut response = match guard.admit(&request) {
                Ok(pass) => pass.answer(inner, request).await,
                Err(status) => {
                    tracing::info!(code = ?status.code(), reason = status.message(), "refused");
                    status.into_http()
                }
            };
            response.headers_mut().insert(REQUEST_ID, id);
            Ok(response)
        }
        .boxed()
    }
}
