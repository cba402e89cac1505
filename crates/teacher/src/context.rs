//! The trace context that is sent to the teacher's server.

use domain::Traceparent;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

/// The context of the present span; `None` outside of a trace.
pub(crate) fn current() -> Option<Traceparent> {
    let context = Context::current();
    let named = context.span().span_context().clone();
    named.is_valid().then(|| Traceparent {
        trace: named.trace_id().to_bytes(),
        span: named.span_id().to_bytes(),
        is_sampled: named.is_sampled(),
    })
}
