//! A private OpenTelemetry collector: it receives spans over OTLP/gRPC and stores them.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A received span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Trace id, in hex.
    pub trace: String,
    /// Span id, in hex.
    pub id: String,
    /// Parent's span id, empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// The service name of the process that sent it.
    pub service: String,
    /// Start, in nanoseconds.
    pub began: u64,
    /// End, in nanoseconds.
    pub ended: u64,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Messages of its events.
    pub events: Vec<String>,
    /// Linked spans, as trace and span id.
    pub links: Vec<(String, String)>,
    /// Whether its status is an error.
    pub is_error: bool,
}

/// The collector; it stops when dropped.
#[derive(Debug)]
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    /// Serves on a free port of the loopback address.
    ///
    /// # Errors
    /// No free port.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let spans = Arc::default();
        let service = TraceServiceServer::new(Taker(Arc::clone(&spans)));
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            // It stops with its runtime.
            let _ = Server::builder().add_service(service).serve_with_incoming(incoming).await;
        });
        Ok(Self { url, spans, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All received spans, by start.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| span.began);
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Taker(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let taken = request.into_inner().resource_spans.into_iter().flat_map(spans_of);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

fn spans_of(sent: ResourceSpans) -> Vec<Span> {
    let resource = attributes(sent.resource.unwrap_or_default().attributes);
    let service = resource.get("service.name").cloned().unwrap_or_default();
    let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans
        .map(|span| Span {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            service: service.clone(),
            began: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            // 2 is STATUS_CODE_ERROR.
            is_error: span.status.is_some_and(|status| status.code == 2),
        })
        .collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Spans as an indented tree; spans without a known parent are roots.
pub fn tree(spans: &[Span]) -> String {
    let mut text = String::new();
    let is_known = |id: &str| spans.iter().any(|span| span.id == id);
    for span in spans.iter().filter(|span| !is_known(&span.parent)) {
        branch(spans, span, 0, &mut text);
    }
    text
}

fn branch(spans: &[Span], span: &Span, depth: usize, text: &mut String) {
    let milliseconds = span.ended.saturating_sub(span.began) as f64 / 1e6;
    let about =
        ["rpc.method", "distillery.command", "distillery.kind", "distillery.task", "distillery.verdict"];
    let about: Vec<&str> =
        about.iter().filter_map(|key| span.attributes.get(*key)).map(String::as_str).collect();
    let (indent, name, service) = ("  ".repeat(depth), &span.name, &span.service);
    let _ = writeln!(text, "{indent}{name} {} [{service}] {milliseconds:.1} ms", about.join(" "));
    for child in spans.iter().filter(|child| child.parent == span.id) {
        branch(spans, child, depth + 1, text);
    }
}
