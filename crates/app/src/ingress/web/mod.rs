//! HTTP beside gRPC, at the same port: what is no gRPC becomes a call of gRPC, passes the same guard, meters and services, and
//! its answer becomes JSON. `reading` turns bodies into messages once a call is let in, `caller` calls, `frames` takes answers apart, `answers`
//! and `failure` write them; `transcoded` is the API as its definitions say, `open_inference` the protocol of that name over REST,
//! `openai` the shape of OpenAI's completions, `origin` keeps web pages out where no token does.
//!
//! Invariant: nothing is checked here that the guard checks; a body is read only after its call was let in.

mod answers;
mod caller;
mod failure;
mod frames;
mod open_inference;
mod openai;
mod origin;
mod reading;
mod transcoded;

use super::incoming::Room;
use answers::{json, plain};
use bytes::Bytes;
use caller::Caller;
use failure::Style;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode, Version};
pub(super) use origin::Origin;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::Service;
use transcode::{Api, Found};

/// What the body of a request of gRPC is.
const GRPC: &[u8] = caller::GRPC.as_bytes();
/// Where the document of the API is.
const DOCUMENT: &str = "/openapi.json";

/// What all requests share.
pub(super) struct Shared {
    api: Arc<Api>,
    document: Bytes,
    room: Room,
    origin: Origin,
}

impl Shared {
    /// The API of the services of these names.
    ///
    /// # Errors
    /// The definitions say something else than paths.
    pub(super) fn new(services: &[&str], room: Room, origin: Origin) -> anyhow::Result<Self> {
        let api = Api::new(wire::DESCRIPTORS)?;
        let document =
            transcode::openapi(&api, env!("CARGO_PKG_VERSION"), |service| services.contains(&service));
        Ok(Self { api: Arc::new(api), document: serde_json::to_vec(&document)?.into(), room, origin })
    }
}

/// Services of gRPC that are called over plain HTTP, too.
#[derive(Clone)]
pub(super) struct Web<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Web<S> {
    pub(super) fn new(shared: Shared, inner: S) -> Self {
        Self { shared: Arc::new(shared), inner }
    }
}

impl<S> Service<Request<Body>> for Web<S>
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
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let kind = request.headers().get(CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC)) {
            if request.version() >= Version::HTTP_2 {
                return inner.call(request).boxed();
            }
            let words = "gRPC needs HTTP/2: call by a client of gRPC, or send JSON (GET /openapi.json)\n";
            return futures::future::ready(Ok(plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, words))).boxed();
        }
        let shared = Arc::clone(&self.shared);
        async move { Ok(answer(&shared, inner, request).await) }.boxed()
    }
}

/// Answers a request that is no gRPC.
async fn answer<S>(shared: &Arc<Shared>, inner: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (verb, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Err(status) = shared.origin.check(&request) {
        return failure::response(&status, Style::Status);
    }
    if path == DOCUMENT {
        return match verb {
            Method::GET | Method::HEAD => json(StatusCode::OK, shared.document.clone()),
            _ => failure::otherwise(&["GET"]),
        };
    }
    let caller = Caller::new(inner, shared.room.clone());
    if let Some(asked) = open_inference::find(&verb, &path) {
        return open_inference::answer(asked, caller, request).await;
    }
    if let Some(asked) = openai::find(&verb, &path) {
        return openai::answer(asked, caller, request).await;
    }
    match shared.api.find(verb.as_str(), &path) {
        Found::Call(_) => transcoded::answer(&shared.api, caller, request).await,
        Found::Otherwise(verbs) => failure::otherwise(&verbs),
        // The guard says who may know that there is nothing.
        Found::Nothing => {
            let (head, _) = request.into_parts();
            let called = caller.call(&path, &head, Body::empty(), Box::new(|_| Ok(Vec::new()))).await;
            failure::nothing(called, &path)
        }
    }
}
