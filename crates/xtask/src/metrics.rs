//! `cargo xtask metrics [--check]`: the reference of metrics and spans, written from the table that the code uses.

use anyhow::{Context, bail};
use domain::telemetry::span::SPANS;
use domain::telemetry::{Kind, METRICS, Metric, Owner};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Where it lies.
const OUT: &str = "deploy/METRICS.md";

const HEAD: &str = "\
# Metrics and spans

Written by `cargo xtask metrics` from `crates/domain/src/telemetry.rs`; do not edit it. Every process that serves answers
Prometheus at `/metrics` of its admin port (`[admin] listen`). Series stand at zero from the start, where the values of
their labels are known beforehand. No label holds a job, a prompt or a row: what concerns one job is read from the database.
";

/// Writes the document, or checks that it is what the table says.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let check = match arguments.next().as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("metrics takes --check or nothing, not `{other}`"),
    };
    let path = crate::repository::root()?.join(OUT);
    if check {
        return check_fresh(&document(METRICS, SPANS), &path);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, document(METRICS, SPANS)).with_context(|| path.display().to_string())
}

fn check_fresh(wanted: &str, path: &Path) -> anyhow::Result<()> {
    let present = fs::read_to_string(path).with_context(|| format!("{} is missing", path.display()))?;
    if present != wanted {
        bail!("{} is stale: run `cargo xtask metrics` and commit what it writes", path.display());
    }
    Ok(())
}

fn document(metrics: &[Metric], spans: &[&str]) -> String {
    let mut text = HEAD.to_owned();
    let owners = [
        (Owner::Process, "Every process"),
        (Owner::Harvester, "Harvester"),
        (Owner::Trainer, "Trainer"),
        (Owner::Inference, "Inference"),
    ];
    for (owner, title) in owners {
        let _ = write!(
            text,
            "\n## {title}\n\n| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n"
        );
        for metric in metrics.iter().filter(|metric| metric.owner == owner) {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels) = (metric.name, kind(metric.kind), labels.join(", "));
            let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} |", metric.help);
        }
    }
    text.push_str("\n## Bounds of histograms\n\n| metric | bounds |\n| --- | --- |\n");
    for metric in metrics {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            let _ = writeln!(text, "| `{}` | {} |", metric.name, bounds.join(" "));
        }
    }
    text.push_str("\n## Spans\n\n");
    for span in spans {
        let _ = writeln!(text, "- `{span}`");
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_what_the_table_says() {
        check_fresh(&document(METRICS, SPANS), &crate::repository::root().unwrap().join(OUT)).unwrap();
    }

    #[test]
    fn a_metric_that_is_documented_nowhere_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("METRICS.md");
        let (_, fewer) = METRICS.split_last().unwrap();
        fs::write(&path, document(fewer, SPANS)).unwrap();
        let error = check_fresh(&document(METRICS, SPANS), &path).unwrap_err().to_string();
        assert!(error.contains("is stale: run `cargo xtask metrics`"), "{error}");
        check_fresh(&document(fewer, SPANS), &path).unwrap();
    }
}
