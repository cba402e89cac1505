//! `distillery predict`: predict labels and rationales, for one text or many rows.

use crate::args::PredictArguments;
use crate::client::call::{Patience, failure};
use crate::client::models::name_and_version;
use crate::client::student::Student;
use crate::exit::{Usage, mistakes};
use crate::target::{self, unless_interrupted};
use crate::terminal::{print_json, print_line};
use crate::upload::format_of;
use app::config::Config;
use app::student::NoModel;
use domain::Example;
use futures::{StreamExt, TryStreamExt};
use readers::{Format, Options, Source};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// Rows sent to the student at once; it batches them.
const ROWS_AT_ONCE: usize = 64;

/// One row's answer, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Prediction {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    input: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    premise: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypothesis: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// Why there is no label.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The gold label, where the row has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rationale: Option<String>,
    /// Each label's probability, where the task has a closed set.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    probabilities: serde_json::Map<String, serde_json::Value>,
}

impl Prediction {
    /// A row without an answer.
    fn of(row: Example) -> Self {
        Self {
            id: row.key,
            input: row.input,
            premise: row.premise,
            hypothesis: row.hypothesis,
            label: None,
            error: None,
            expected: row.label,
            rationale: None,
            probabilities: serde_json::Map::new(),
        }
    }
}

/// See [`crate::args::Verb::Predict`].
pub(crate) async fn predict(
    config: Config,
    arguments: PredictArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // The rows are read first: a mistake in them is reported before a model is loaded.
    let rows = rows(&arguments)?;
    if let Some(url) = arguments.server.url() {
        let (model, version) = name_and_version(&arguments.model)?;
        let channel = target::connect(&config.client, url, &arguments.server).await?;
        let student = Student { channel, model, version };
        return unless_interrupted(&shutdown, answer_all(&student, rows, &arguments)).await;
    }
    let opened = app::student::Student::open(config, &arguments.model).await;
    let opened = opened.map_err(|error| match error.downcast_ref::<NoModel>() {
        Some(absent) => Usage(format!("--model: {absent}")).into(),
        None => error,
    })?;
    // The only student needs no name.
    let student = Student { channel: opened.channel.clone(), model: String::new(), version: 0 };
    let answered = unless_interrupted(&shutdown, answer_all(&student, rows, &arguments)).await;
    opened.close();
    answered
}

fn rows(arguments: &PredictArguments) -> anyhow::Result<Vec<Example>> {
    if let Some(file) = &arguments.file {
        let source = Source { path: file.clone(), format: format_of(file)?, split: None };
        return readers::rows(vec![source], Options::default()).collect::<Result<_, _>>().map_err(mistakes);
    }
    if arguments.stdin.is_some() {
        let stream = Box::new(std::io::stdin());
        let rows = readers::rows_from("standard input", Format::Jsonl, stream, Options::default());
        return rows.collect::<Result<_, _>>().map_err(mistakes);
    }
    let example = Example {
        input: arguments.input.clone().unwrap_or_default(),
        choices: arguments.choice.clone(),
        premise: arguments.premise.clone(),
        hypothesis: arguments.hypothesis.clone(),
        ..Example::default()
    };
    let violations = example.violations();
    match violations.first() {
        None => Ok(vec![example]),
        // The one option whose name is not its field's.
        Some(violation) => Err(Usage(format!("--{violation}").replacen("--choices", "--choice", 1)).into()),
    }
}

/// Answers in the order of the rows, as they come. A row that cannot be answered fails alone, and is named at the end.
async fn answer_all(
    student: &Student,
    rows: Vec<Example>,
    arguments: &PredictArguments,
) -> anyhow::Result<()> {
    let (explain, count) = (arguments.explain, rows.len());
    let answers =
        futures::stream::iter(rows).map(|row| answer(student.clone(), row, explain)).buffered(ROWS_AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    let (mut number, mut refused, mut first) = (0_usize, 0_usize, None);
    while let Some(prediction) = answers.try_next().await? {
        number += 1;
        if let Some(error) = &prediction.error {
            // There is one row: the message says it all.
            if count == 1 {
                return Err(Usage(error.clone()).into());
            }
            refused += 1;
            first.get_or_insert_with(|| format!("row {number}: {error}"));
        }
        show(&prediction, arguments.json)?;
    }
    match first {
        Some(first) => Err(Usage(format!("{refused} of {count} rows were not answered: {first}")).into()),
        None => Ok(()),
    }
}

/// One row's answer, with retries where the server is overloaded or shutting down.
async fn answer(student: Student, row: Example, explain: bool) -> anyhow::Result<Prediction> {
    let mut patience = Patience::default();
    loop {
        let lost = match student.predict(row.clone(), explain).await {
            Ok(answer) => {
                return Ok(Prediction {
                    label: Some(answer.label),
                    rationale: answer.rationale,
                    probabilities: answer
                        .probabilities
                        .into_iter()
                        .map(|(label, probability)| (label, probability.into()))
                        .collect(),
                    ..Prediction::of(row)
                });
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(Usage(format!("--model: {}", status.message())).into());
            }
            Err(status) if is_of_one_row(&status) => {
                return Ok(Prediction { error: Some(status.message().to_owned()), ..Prediction::of(row) });
            }
            Err(status) => status,
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// Whether a status concerns the row and not the server.
fn is_of_one_row(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition)
}

fn show(prediction: &Prediction, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(prediction);
    }
    let pair = [prediction.premise.as_deref(), prediction.hypothesis.as_deref()];
    for text in
        pair.into_iter().flatten().chain((!prediction.input.is_empty()).then_some(prediction.input.as_str()))
    {
        print_line(text)?;
    }
    let expected =
        prediction.expected.as_ref().map_or_else(String::new, |label| format!("   (expected {label})"));
    match (&prediction.label, &prediction.error) {
        (Some(label), _) => print_line(&format!("  label: {label}{expected}"))?,
        (None, error) => print_line(&format!("  error: {}", error.as_deref().unwrap_or("no answer")))?,
    }
    if let Some(rationale) = &prediction.rationale {
        print_line(&format!("  rationale: {rationale}"))?;
    }
    Ok(())
}
