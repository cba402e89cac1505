//! The context of a trace as it goes from call to call, and the client's span around each call. A call outside of a trace
//! begins none: what polls is not traced.

use bytes::Bytes;
use domain::Traceparent;
use domain::telemetry::span;
use domain::trace::HEADER;
use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use opentelemetry::Context as TraceContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The context that calls made now carry on; `None` outside of a trace.
pub fn current() -> Option<Traceparent> {
    traceparent(&TraceContext::current())
}

/// The context of what happens within `span`; `None` where it belongs to no trace.
pub fn of(span: &Span) -> Option<Traceparent> {
    traceparent(&span.context())
}

fn traceparent(context: &TraceContext) -> Option<Traceparent> {
    let named = context.span().span_context().clone();
    named.is_valid().then(|| Traceparent {
        trace: named.trace_id().to_bytes(),
        span: named.span_id().to_bytes(),
        is_sampled: named.is_sampled(),
    })
}

/// The same as the records keep it: empty outside of a trace.
pub fn current_text() -> String {
    current().map_or_else(String::new, |context| context.to_string())
}

/// Puts a span that was not entered yet below the one that `traceparent` names; a text that names none changes nothing.
pub fn adopt(span: &Span, traceparent: &str) {
    if let Ok(parent) = traceparent.parse() {
        // Refused where no trace is kept: then there is nothing to put below.
        let _ = span.set_parent(TraceContext::new().with_remote_span_context(named(parent)));
    }
}

/// Links a span to the one that `traceparent` names; a text that names none changes nothing.
pub fn link(span: &Span, traceparent: &str) {
    if let Ok(other) = traceparent.parse() {
        span.add_link(named(other));
    }
}

fn named(context: Traceparent) -> SpanContext {
    let flags = if context.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    SpanContext::new(trace, span, flags, true, TraceState::default())
}

/// The context in the headers of a call.
pub fn in_headers(headers: &HeaderMap) -> Option<Traceparent> {
    headers.get(HEADER)?.to_str().ok()?.parse().ok()
}

/// The service and the method of a path such as `/package.Service/Method`.
pub fn service_and_method(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or((path, ""))
}

/// A transport whose calls have a span each, where they belong to a trace.
#[derive(Debug, Clone)]
pub struct Traced<S>(pub S);

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if current().is_none() {
            return Either::Left(self.0.call(request));
        }
        let (service, method) = service_and_method(request.uri().path());
        let span = tracing::info_span!(
            span::CLIENT,
            otel.kind = "client",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let context = of(&span).and_then(|context| HeaderValue::from_str(&context.to_string()).ok());
        if let Some(context) = context {
            request.headers_mut().insert(HEADER, context);
        }
        let called = span.in_scope(|| self.0.call(request)).instrument(span.clone());
        let answered = async move {
            match called.await {
                Ok(response) => {
                    let ending = span.clone();
                    Ok(until_end(response, span, move |code| {
                        // A caller that stops reading a stream has no error.
                        ended(&ending, code, !matches!(code, Code::Ok | Code::Cancelled));
                    }))
                }
                Err(error) => {
                    ended(&span, Code::Unavailable, true);
                    Err(error)
                }
            }
        };
        Either::Right(answered.boxed())
    }
}

/// Writes into a call's span how it ended.
pub fn ended(span: &Span, code: Code, is_error: bool) {
    span.record("rpc.grpc.status_code", i32::from(code));
    if is_error {
        span.record("otel.status_code", "ERROR");
    }
}

/// `response`, whose body continues within `span`; `end` receives the code of the call when it is over:
/// [`Code::Cancelled`] where the caller left before its end.
pub fn until_end(
    response: Response<Body>,
    span: Span,
    end: impl FnOnce(Code) + Send + 'static,
) -> Response<Body> {
    // An answer without a body has its status among the headers.
    if let Some(code) = code_in(response.headers()) {
        span.in_scope(|| end(code));
        return response;
    }
    response.map(|inner| Body::new(Ending { inner, span, end: Some(Box::new(end)) }))
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(value.as_bytes()))
}

/// The body of an answer whose end is reported.
struct Ending {
    inner: Body,
    span: Span,
    end: Option<Box<dyn FnOnce(Code) + Send>>,
}

impl Ending {
    fn over(&mut self, code: Code) {
        if let Some(end) = self.end.take() {
            self.span.in_scope(|| end(code));
            // Holding the body any longer does not prolong the call.
            self.span = Span::none();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.over(Code::Cancelled);
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let span = this.span.clone();
        let polled = span.in_scope(|| Pin::new(&mut this.inner).poll_frame(context));
        drop(span);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.over(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Poll::Ready(Some(Err(status))) => this.over(status.code()),
            Poll::Ready(None) => this.over(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
