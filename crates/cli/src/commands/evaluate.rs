//! `distillery evaluate`: a student on labelled rows.

use crate::answers::{self, Opened, rows_of};
use crate::args::{ColumnArguments, EvaluateArguments, ServerArguments};
use crate::client::student::Wanted;
use crate::exit::Usage;
use crate::measured::Measured;
use crate::target::unless_interrupted;
use crate::terminal::{print_json, print_lines};
use app::config::Config;
use domain::Example;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Evaluate`].
pub(crate) async fn evaluate(
    config: Config,
    arguments: EvaluateArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let rows = labelled(&arguments.file, &arguments.columns)?;
    let measured =
        unless_interrupted(&shutdown, Box::pin(measure(config, &arguments.model, &arguments.server, rows)))
            .await?;
    if !arguments.json {
        return print_lines(&measured.lines());
    }
    print_json(&measured.json("model", &arguments.model))
}

/// The rows of a file that have a label.
pub(crate) fn labelled(file: &Path, columns: &ColumnArguments) -> anyhow::Result<Vec<Example>> {
    let rows: Vec<Example> = rows_of(file, columns)?.into_iter().filter(|row| row.label.is_some()).collect();
    if rows.is_empty() {
        return Err(Usage(format!("{}: no row has a label to measure against", file.display())).into());
    }
    Ok(rows)
}

/// What a student says of rows, next to their labels.
pub(crate) async fn measure(
    config: Config,
    model: &str,
    server: &ServerArguments,
    rows: Vec<Example>,
) -> anyhow::Result<Measured> {
    let opened = Box::pin(Opened::open(config, model, server)).await?;
    let mut measured = Measured::default();
    let answered = answers::each(&opened.student, rows, Wanted::default(), |answered| {
        measured.add(&answered);
        Ok(())
    })
    .await;
    opened.close();
    answered.map(|()| measured)
}
