//! The metrics of this process as Prometheus reads them. Rooms count through a facade; nothing is kept before [`install`],
//! so a process that is not scraped pays nothing.

use domain::telemetry::{self, Kind, METRICS, Metric};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// What Prometheus calls this format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Ticks of a second in `/proc`: the kernel's promise to programs, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics of this process.
#[derive(Debug, Clone)]
pub(crate) struct Exposition(PrometheusHandle);

/// Keeps what is counted from now on, with the buckets and the words of the table. Only what is looked up after it is
/// kept. A second call finds the first.
///
/// # Errors
/// Something else keeps metrics already.
pub(crate) fn install(roles: String) -> anyhow::Result<Exposition> {
    static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    // Held over the look and the installation: servers of one process may start at once, and only one may install.
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = match &*installed {
        Some(handle) => handle.clone(),
        None => {
            let handle = buckets(PrometheusBuilder::new())?.install_recorder()?;
            METRICS.iter().for_each(describe);
            installed.insert(handle).clone()
        }
    };
    drop(installed);
    let version = env!("CARGO_PKG_VERSION");
    gauge!(telemetry::BUILD_INFO.name, "version" => version, "roles" => roles).set(1.0);
    Ok(Exposition(handle))
}

fn buckets(mut builder: PrometheusBuilder) -> anyhow::Result<PrometheusBuilder> {
    for metric in METRICS {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

fn describe(metric: &Metric) {
    let unit = unit(metric.name);
    match metric.kind {
        Kind::Counter => describe_counter!(metric.name, unit, metric.help),
        Kind::Gauge => describe_gauge!(metric.name, unit, metric.help),
        Kind::Histogram(_) => describe_histogram!(metric.name, unit, metric.help),
    }
}

/// What a name says that is counted.
fn unit(name: &str) -> Unit {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    match bare.rsplit('_').next() {
        Some("seconds") => Unit::Seconds,
        Some("bytes") => Unit::Bytes,
        _ => Unit::Count,
    }
}

impl Exposition {
    /// Everything, as it is now.
    pub(crate) fn render(&self) -> String {
        let mut text = self.0.render();
        process(&mut text);
        text
    }

    /// Observations are kept one by one until somebody looks or this is called; to be called every few seconds.
    pub(crate) fn tidy_up(&self) {
        self.0.run_upkeep();
    }
}

/// What the kernel says of this process. Processor time is a fraction, which no counter of the facade holds.
fn process(text: &mut String) {
    let values = [
        (telemetry::PROCESS_CPU, std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu(&stat))),
        (
            telemetry::PROCESS_MEMORY,
            std::fs::read_to_string("/proc/self/status").ok().and_then(|status| memory(&status)),
        ),
    ];
    for (metric, value) in values {
        let Some(value) = value else { continue };
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        let name = metric.name;
        // A text takes whatever is written to it.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n\n", metric.help);
    }
}

/// Seconds of processor time in `/proc/self/stat`: its fields 14 and 15, counted behind the name, which may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Bytes of resident memory in `/proc/self/status`.
fn memory(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_start_at_once_share_the_metrics() {
        let servers: Vec<_> =
            (0..8).map(|_| std::thread::spawn(|| install("trainer".to_owned()).map(|_| ()))).collect();
        for server in servers {
            server.join().unwrap().unwrap();
        }
    }

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 1 2";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(cpu("7 (a) S 1"), None);
        assert_eq!(memory("Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152.0));
        assert_eq!(memory("Name:\ta\n"), None);
        let mut text = String::new();
        process(&mut text);
        for metric in [telemetry::PROCESS_CPU, telemetry::PROCESS_MEMORY] {
            let value = text.lines().find_map(|line| line.strip_prefix(metric.name)).unwrap();
            assert!(value.trim().parse::<f64>().unwrap() >= 0.0, "{text}");
        }
    }

    #[test]
    fn a_unit_is_what_the_name_says() {
        assert_eq!(unit(telemetry::RPC_DURATION.name), Unit::Seconds);
        assert_eq!(unit(telemetry::PROCESS_CPU.name), Unit::Seconds);
        assert_eq!(unit(telemetry::PROCESS_MEMORY.name), Unit::Bytes);
        assert_eq!(unit(telemetry::QUEUE_ENTRIES.name), Unit::Count);
    }
}
