//! Logging and tracing: `tracing` to standard error and, over OTLP, to a collector. Log lines name the trace that they
//! belong to.

mod export;
mod lines;
mod panics;

use crate::config::{Config, ConfigError, LogFormat};
use domain::telemetry::span;
use lines::{WithTrace, fields};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::future::Future;
use std::io::IsTerminal;
use tracing::subscriber::Interest;
use tracing::{Instrument, Metadata, Span, Subscriber};
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable by which a script hands its trace to the programs that it starts.
const TRACEPARENT: &str = "TRACEPARENT";
/// The variable by which a user asks for no colours.
const NO_COLOR: &str = "NO_COLOR";

/// What is watched of this process; to be ended by [`Telemetry::block_on`], so that the last spans arrive.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<export::Traces>,
    /// The trace that this process was started in.
    parent: Option<String>,
}

/// Starts logging, and tracing where it is wanted, for the whole process. In traces it is called `name`, unless the
/// configuration says otherwise.
///
/// # Errors
/// A filter, an address or a share that cannot be read.
pub fn start(config: &Config, name: &str) -> Result<Telemetry, ConfigError> {
    let level = &config.log.level;
    let filter = EnvFilter::try_new(level).map_err(|_| {
        let words = format!("`{level}` is not a filter such as `info` or `warn,harvester=debug`");
        ConfigError::new("log.level", words)
    })?;
    let endpoint = config.telemetry.endpoint()?;
    let parent = parent();
    // Without a collector, ids are still given where somebody asks for them: a collector of logs, or who started this.
    let is_wanted = endpoint.is_some() || parent.is_some() || config.log.format == LogFormat::Json;
    let traces = match is_wanted {
        true => Some(export::open(&config.telemetry, endpoint, name)?),
        false => None,
    };
    install(config.log.format, filter, traces.as_ref().map(export::Traces::provider));
    panics::log();
    Ok(Telemetry { traces, parent })
}

/// Spans of the table go to the collector, whatever is logged; nothing else does.
#[allow(
    clippy::disallowed_methods,
    reason = "the log goes to standard error, its fields made fit for a terminal"
)]
fn install(format: LogFormat, filter: EnvFilter, provider: Option<&SdkTracerProvider>) {
    let traced = provider.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("distillery"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(spans())
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain());
    let logged = match format {
        LogFormat::Text => lines.map_event_format(WithTrace::text).fmt_fields(fields()).boxed(),
        LogFormat::Json => {
            lines.json().map_event_format(WithTrace::json).fmt_fields(JsonFields::new()).boxed()
        }
    };
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(traced).with(logged.with_filter(filter)).try_init();
}

/// Lets the spans of the table through. It is asked at every span anew: what `tracing::enabled!` leaves behind on a thread,
/// as sqlx uses it, would else decide on the next span of that thread.
fn spans<S: Subscriber>() -> impl Filter<S> {
    fn is_ours(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && span::SPANS.contains(&metadata.name())
    }
    dynamic_filter_fn(|metadata, _: &Context<'_, S>| is_ours(metadata))
        .with_callsite_filter(|metadata| match is_ours(metadata) {
            true => Interest::sometimes(),
            false => Interest::never(),
        })
        .with_max_level_hint(LevelFilter::INFO)
}

/// Whether the environment asks for no colours: <https://no-color.org>.
#[allow(clippy::disallowed_methods, reason = "this is where the environment is read")]
fn is_plain() -> bool {
    std::env::var_os(NO_COLOR).is_some_and(|value| !value.is_empty())
}

/// The trace that this process was started in, where its environment names one.
#[allow(clippy::disallowed_methods, reason = "this is where the environment is read")]
fn parent() -> Option<String> {
    let text = std::env::var(TRACEPARENT).ok()?;
    text.parse::<domain::Traceparent>().ok().map(|parent| parent.to_string())
}

impl Telemetry {
    /// Runs `work` on a runtime of its own, to its end, then sends what is still to be sent. A `command` has a span, in
    /// the trace that this process was started in; what serves has none, because it lasts.
    ///
    /// # Errors
    /// Those of `work`, and a runtime that cannot be started.
    pub fn block_on<T>(
        self,
        command: Option<&'static str>,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let span = match command.filter(|_| self.traces.is_some()) {
            Some(command) => self.command(command),
            None => Span::none(),
        };
        let result = crate::block_on(work.instrument(span.clone()));
        if result.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        drop(span);
        if let Some(traces) = self.traces {
            traces.close();
        }
        result
    }

    fn command(&self, command: &'static str) -> Span {
        let span = tracing::info_span!(
            span::COMMAND,
            distillery.command = command,
            otel.status_code = tracing::field::Empty
        );
        if let Some(parent) = &self.parent {
            wire::trace::adopt(&span, parent);
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_the_table_is_traced_whatever_was_asked_before_it() {
        let provider = SdkTracerProvider::builder().build();
        let traced = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_filter(spans());
        let logged = tracing_subscriber::fmt::layer()
            .with_writer(std::io::sink)
            .with_filter(EnvFilter::try_new("info").unwrap());
        let subscriber = tracing_subscriber::registry().with(traced).with(logged);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                // As sqlx does before each statement.
                assert!(tracing::enabled!(tracing::Level::WARN));
                let ours = tracing::info_span!(span::WRITE);
                assert!(wire::trace::of(&ours).is_some());
                let foreign = tracing::info_span!("foreign");
                assert_eq!(wire::trace::of(&foreign), None, "it is in the log alone");
                let within = ours.in_scope(|| foreign.in_scope(wire::trace::current)).unwrap();
                assert_eq!(Some(within), wire::trace::of(&ours), "what is not traced does not cut the trace");
            }
        });
    }
}
