//! `distillery compare`: two students on the same labelled rows.

use super::evaluate::{labelled, measure};
use crate::args::CompareArguments;
use crate::measured::Measured;
use crate::report::{grouped, interval, percent};
use crate::target::unless_interrupted;
use crate::terminal::{print_json, print_line, print_lines, table_text};
use app::config::Config;
use domain::paired::{Difference, Pairs};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Compare`].
pub(crate) async fn compare(
    config: Config,
    arguments: CompareArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let rows = labelled(&arguments.file, &arguments.columns)?;
    let measured = async {
        let first =
            Box::pin(measure(config.clone(), &arguments.model, &arguments.server, rows.clone())).await?;
        let second = Box::pin(measure(config, &arguments.other, &arguments.server, rows)).await?;
        Ok([first, second])
    };
    let [first, second] = unless_interrupted(&shutdown, Box::pin(measured)).await?;
    let pairs: Pairs = first.rights.iter().copied().zip(second.rights.iter().copied()).collect();
    let difference = pairs.difference();
    let finding = difference.finding(arguments.margin / 100.0);
    if arguments.json {
        return print_json(&json!({
            "model": first.json("name", &arguments.model), "other": second.json("name", &arguments.other),
            "file": arguments.file.display().to_string(), "pairs": pairs, "difference": difference,
            "margin": arguments.margin / 100.0, "finding": finding,
        }));
    }
    let row = |name: &str, measured: &Measured| {
        let accuracy = measured.accuracy();
        vec![name.to_owned(), percent(accuracy.value()), interval(accuracy), grouped(accuracy.rows)]
    };
    let table = vec![row(&arguments.model, &first), row(&arguments.other, &second)];
    print_lines(&table_text(&["", "accuracy", "95% interval", "rows"], table))?;
    print_line(&format!("difference {}", words(&difference)))?;
    print_line(&format!(
        "only the first is right on {} rows, only the second on {}",
        grouped(pairs.first),
        grouped(pairs.second)
    ))?;
    print_line(&format!("{}: {finding} (margin {} points)", arguments.model, arguments.margin))
}

/// A difference in points, with its interval and p-value.
fn words(difference: &Difference) -> String {
    let points = |share: f64| format!("{:+.1}", share * 100.0);
    format!(
        "{} points (95% interval {} to {}, p = {:.3})",
        points(difference.value),
        points(difference.low),
        points(difference.high),
        difference.p_value,
    )
}
