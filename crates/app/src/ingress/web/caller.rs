//! A call of HTTP as one of gRPC: the same headers (token, deadline, id, trace), other messages.

use super::super::incoming::Room;
use super::reading::{Read, Reading};
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use std::convert::Infallible;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// What the body of a request of gRPC is.
pub(super) const GRPC: &str = "application/grpc";

/// The services, as a request calls them.
#[derive(Clone)]
pub(super) struct Caller<S> {
    inner: S,
    room: Room,
}

impl<S> Caller<S> {
    pub(super) fn new(inner: S, room: Room) -> Self {
        Self { inner, room }
    }
}

impl<S> Caller<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Calls the method at `path`, as the request with this `head` does; `read` makes messages of its body once it is let in.
    pub(super) async fn call(self, path: &str, head: &Parts, body: Body, read: Read) -> Response<Body> {
        let body = Body::new(Reading::new(body, &head.headers, read, self.room.clone()));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        let Ok(uri) = path.parse() else {
            return tonic::Status::unimplemented("there is no such path here").into_http();
        };
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers.clone();
        // Those of this connection end here, and messages go uncompressed inside this process.
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, ACCEPT, EXPECT, CONNECTION] {
            request.headers_mut().remove(name);
        }
        for name in ["grpc-encoding", "grpc-accept-encoding"] {
            request.headers_mut().remove(name);
        }
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        *request.extensions_mut() = head.extensions.clone();
        match self.inner.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
