//! Spans on their way to a collector: gathered in bounded batches, sent over OTLP by a runtime of their own, so that they
//! neither wait for the services nor end with them.

use crate::config::{ConfigError, TelemetrySection};
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// How long one batch may be on its way, and the last ones at the end together.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// How long to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How often batches are sent that are not full.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Spans that wait to be sent at most; more are dropped.
const WAITING_MAX: usize = 16_384;
/// Spans of one batch.
const BATCH: usize = 1_024;

/// The traces of this process.
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
    /// Sends; `None` without a collector.
    runtime: Option<Runtime>,
}

/// Traces that go to `endpoint`, where there is one.
///
/// # Errors
/// The endpoint cannot be used.
pub(super) fn open(
    section: &TelemetrySection,
    endpoint: Option<Uri>,
    name: &str,
) -> Result<Traces, ConfigError> {
    let name = if section.service_name.is_empty() { name } else { &section.service_name };
    let resource = Resource::builder()
        .with_service_name(name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(section.sample_ratio)));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_resource(resource);
    let Some(endpoint) = endpoint else {
        return Ok(Traces { provider: provider.build(), runtime: None });
    };
    let unusable = |error: &dyn std::fmt::Display| {
        ConfigError::new("telemetry.otlp_endpoint", format!("{endpoint}: cannot be used: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(|error| unusable(&error))?;
    let exporter = {
        let _within = runtime.enter();
        let channel = channel(&endpoint).map_err(|error| unusable(&error))?;
        let builder = opentelemetry_otlp::SpanExporter::builder().with_tonic();
        builder.with_channel(channel).with_timeout(SEND_WITHIN).build().map_err(|error| unusable(&error))?
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(WAITING_MAX)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    let reported =
        Reported { inner: exporter, endpoint: endpoint.to_string(), is_failing: AtomicBool::new(false) };
    let processor = BatchSpanProcessor::builder(reported).with_batch_config(batches).build();
    Ok(Traces { provider: provider.with_span_processor(processor).build(), runtime: Some(runtime) })
}

/// A channel to a collector, which connects when it is first used.
fn channel(endpoint: &Uri) -> Result<Channel, tonic::transport::Error> {
    let mut channel = Endpoint::from(endpoint.clone()).timeout(SEND_WITHIN).connect_timeout(CONNECT_WITHIN);
    if endpoint.scheme_str() == Some("https") {
        // Every TLS client of this process speaks through one provider; a second installation finds the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        channel = channel.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(channel.connect_lazy())
}

impl Traces {
    pub(super) fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }

    /// Sends what waits, for a bounded time.
    pub(super) fn close(self) {
        // A failure was reported when it happened.
        let _ = self.provider.shutdown_with_timeout(SEND_WITHIN);
        if let Some(runtime) = self.runtime {
            runtime.shutdown_background();
        }
    }
}

/// An exporter that says when the collector is away, once, and when it is back.
#[derive(Debug)]
struct Reported<E> {
    inner: E,
    endpoint: String,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.inner.export(batch).await;
        let endpoint = &self.endpoint;
        match (&sent, self.is_failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(
                    endpoint,
                    error = words(error),
                    "spans are lost: the collector does not take them"
                );
            }
            (Ok(()), true) => tracing::warn!(endpoint, "the collector takes spans again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

fn words(error: &OTelSdkError) -> String {
    error.to_string()
}
