//! Lines of the log, with the trace that they belong to: in every line for collectors, in those about trouble for people.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields of lines for people, without what a terminal acts on: they quote teachers and files.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        let text = domain::visible::line(&text);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}

/// A format whose lines name their trace.
pub(super) struct WithTrace<F> {
    inner: F,
    is_json: bool,
}

impl<F> WithTrace<F> {
    /// Lines for people.
    pub(super) fn text(inner: F) -> Self {
        Self { inner, is_json: false }
    }

    /// One JSON object a line.
    pub(super) fn json(inner: F) -> Self {
        Self { inner, is_json: true }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let trace = Context::current();
        let trace = trace.span().span_context().clone();
        let is_trouble = *event.metadata().level() <= Level::WARN;
        if !trace.is_valid() || !(self.is_json || is_trouble) {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let (trace, span) = (trace.trace_id(), trace.span_id());
        match line.strip_prefix('{').filter(|_| self.is_json) {
            Some(rest) => write!(writer, "{{\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",{rest}"),
            None => writeln!(writer, "{} trace_id={trace}", line.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` writes, within a trace of its own for what it does in a span.
    fn lines(is_json: bool, log: impl FnOnce()) -> Vec<String> {
        let (sink, provider) = (Sink::default(), SdkTracerProvider::builder().build());
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let logged = match is_json {
            true => layer
                .json()
                .map_event_format(WithTrace::json)
                .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
                .boxed(),
            false => layer.map_event_format(WithTrace::text).fmt_fields(fields()).boxed(),
        };
        let traced = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(traced).with(logged), log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_of_a_span_name_their_trace() {
        let log = || {
            tracing::info!("outside");
            tracing::info_span!("work", job = 7).in_scope(|| {
                tracing::info!(count = 3, "within");
                tracing::error!("trouble");
            });
        };
        let json: Vec<serde_json::Value> =
            lines(true, log).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(json.len(), 3);
        assert_eq!(json[0].get("trace_id"), None, "{json:?}");
        for line in &json[1..] {
            let id = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            assert_eq!((id("trace_id").len(), id("span_id").len()), (32, 16), "{line}");
            assert_eq!(line["span"]["job"], 7, "{line}");
            assert_eq!(id("trace_id"), json[1]["trace_id"], "one trace");
        }
        assert_eq!(json[1]["fields"]["count"], 3);
        let text = lines(false, log);
        assert!(!text[0].contains("trace_id") && !text[1].contains("trace_id"), "{text:?}");
        assert!(text[2].contains("trouble trace_id="), "{text:?}");
    }

    #[test]
    fn no_line_holds_what_a_terminal_acts_on() {
        let answer = "\u{1b}[31mred\u{7}\0\r\nover\u{202e}\u{9b}2J";
        let log = || {
            tracing::info_span!("work", job = %answer).in_scope(|| {
                tracing::warn!(reason = %answer, "the teacher says {answer}");
                tracing::info!(error = &io::Error::other(answer) as &dyn std::error::Error, "failed");
            });
        };
        for line in lines(false, log) {
            assert!(
                !line.chars().any(|character| character.is_control() || character == '\u{202e}'),
                "{line:?}"
            );
            assert!(line.contains("\\u{1b}[31mred\\u{7}\\u{0}\\r\\nover\\u{202e}\\u{9b}2J"), "{line}");
        }
    }
}
