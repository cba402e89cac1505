//! Calls as they are seen from outside: each is counted, timed, and has a span; in the trace of its caller, where the
//! caller sent its context. What polls by itself begins no trace: probes, and workers that look for work.

use super::access::{self, Lasts, Method, Needs};
use domain::telemetry::{self, span};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// What a path that is not served is called: callers make up as many as they like.
const UNKNOWN: &str = "unknown";

/// The series of the calls of one process.
#[derive(Clone)]
pub(super) struct Meters {
    in_flight: Gauge,
    methods: Arc<BTreeMap<&'static str, MethodMeters>>,
}

struct MethodMeters {
    service: &'static str,
    method: &'static str,
    duration: Histogram,
    ok: Counter,
}

impl MethodMeters {
    fn new(path: &'static str) -> Self {
        let (service, method) = wire::trace::service_and_method(path);
        Self { service, method, duration: duration(service, method), ok: requests(service, method, Code::Ok) }
    }
}

impl Meters {
    /// Every method of the services of these names, at zero.
    pub(super) fn new(services: &[&str]) -> Self {
        let served = |path: &str| services.contains(&wire::trace::service_and_method(path).0);
        let paths = access::METHODS.iter().map(|method| method.path).filter(|path| served(path));
        Self {
            in_flight: gauge!(telemetry::RPC_IN_FLIGHT.name),
            methods: Arc::new(paths.map(|path| (path, MethodMeters::new(path))).collect()),
        }
    }

    fn end(&self, path: &str, code: Code, began: Instant) {
        self.in_flight.decrement(1.0);
        let took = began.elapsed().as_secs_f64();
        match (self.methods.get(path), code) {
            (Some(method), Code::Ok) => {
                method.ok.increment(1);
                method.duration.record(took);
            }
            (Some(method), code) => {
                requests(method.service, method.method, code).increment(1);
                method.duration.record(took);
            }
            (None, code) => {
                requests(UNKNOWN, UNKNOWN, code).increment(1);
                duration(UNKNOWN, UNKNOWN).record(took);
            }
        }
    }
}

fn requests(service: &'static str, method: &'static str, code: Code) -> Counter {
    let code = wire::code_name(code);
    counter!(telemetry::RPC_REQUESTS.name, "service" => service, "method" => method, "code" => code)
}

fn duration(service: &'static str, method: &'static str) -> Histogram {
    histogram!(telemetry::RPC_DURATION.name, "service" => service, "method" => method)
}

/// Whether a call that ended so failed by our doing, not its caller's.
fn is_ours(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// Services whose calls are seen.
#[derive(Clone)]
pub(crate) struct Observed<S> {
    inner: S,
    /// `None` where calls come from this process itself.
    meters: Option<Meters>,
}

impl<S> Observed<S> {
    /// `inner`, whose calls come from outside.
    pub(super) fn counted(inner: S, meters: Meters) -> Self {
        Self { inner, meters: Some(meters) }
    }

    /// `inner`, whose calls come from this process: they continue their trace, and nothing else.
    pub(crate) fn traced(inner: S) -> Self {
        Self { inner, meters: None }
    }
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = call_span(&request, self.meters.is_some());
        if self.meters.is_none() && span.is_none() {
            return self.inner.call(request).boxed();
        }
        let seen = Seen::begin(&request, span.clone(), self.meters.clone());
        let answered = span.in_scope(|| self.inner.call(request)).instrument(span.clone());
        async move {
            let response = answered.await?;
            Ok(wire::trace::until_end(response, span, move |code| seen.end(code)))
        }
        .boxed()
    }
}

/// The span of a call: below its caller's where that sent its context; a trace of its own where a person asked; else one
/// for the log alone, which is none within this process.
fn call_span(request: &Request<Body>, is_from_outside: bool) -> Span {
    let path = request.uri().path();
    let context = wire::trace::in_headers(request.headers());
    let begins = is_from_outside && access::find(path).is_some_and(begins_trace);
    if context.is_none() && !begins {
        return match is_from_outside {
            true => tracing::info_span!("call", method = path, request_id = Empty, caller = Empty),
            false => Span::none(),
        };
    }
    let (service, method) = wire::trace::service_and_method(path);
    let span = tracing::info_span!(
        span::SERVER,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        otel.status_code = Empty,
        request_id = Empty,
        caller = Empty,
    );
    if let Some(context) = context {
        wire::trace::adopt(&span, &context.to_string());
    }
    span
}

/// Whether a call of this method that comes without a context begins a trace: what workers and probes ask for again and
/// again does not, nor does what lasts until its caller leaves.
fn begins_trace(method: &Method) -> bool {
    let is_polled = matches!(method.needs, Needs::Nothing | Needs::Work);
    method.lasts == Lasts::ForItsWork && !is_polled
}

/// A call from its headers to the end of its answer; one that is dropped before was cancelled.
struct Seen {
    meters: Option<Meters>,
    path: String,
    span: Span,
    began: Instant,
    code: Code,
}

impl Seen {
    fn begin(request: &Request<Body>, span: Span, meters: Option<Meters>) -> Self {
        if let Some(meters) = &meters {
            meters.in_flight.increment(1.0);
        }
        let path = request.uri().path().to_owned();
        Self { meters, path, span, began: Instant::now(), code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        wire::trace::ended(&self.span, self.code, is_ours(self.code));
        if let Some(meters) = &self.meters {
            meters.end(&self.path, self.code, self.began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_begin_traces_and_polls_do_not() {
        let check = |path: &str, wanted: bool| {
            assert_eq!(access::find(path).map(begins_trace), Some(wanted), "{path}");
        };
        check("/distillery.v1.DistillationsService/SubmitDistillation", true);
        check("/distillery.v1.InferenceService/Predict", true);
        check("/distillery.v1.RunsService/LeaseRun", false);
        check("/distillery.v1.ModelsService/WatchModels", false);
        check("/grpc.health.v1.Health/Check", false);
        check("/inference.GRPCInferenceService/ModelInfer", true);
    }
}
