//! `distillery predict`: predict labels and rationales, for one text or many rows.

use crate::answers::{self, Answered, Opened, rows_of};
use crate::args::PredictArguments;
use crate::client::student::{Student, Wanted};
use crate::exit::{Usage, mistakes};
use crate::measured::Measured;
use crate::target::unless_interrupted;
use crate::terminal::{print_json, print_line, print_lines, say_lines};
use app::config::Config;
use domain::Example;
use readers::{Format, Options};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

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
    /// Where --route-below was given: the natural logarithm of the answer's probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_probability: Option<f64>,
    /// Where --route-below was given: whether the student is less sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    ask_teacher: Option<bool>,
    /// Each label's probability, where the task has a closed set.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    probabilities: serde_json::Map<String, serde_json::Value>,
}

impl Prediction {
    fn of(answered: Answered, is_routed: bool) -> Self {
        let Answered { row, answer } = answered;
        let (answer, error) = match answer {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        // Where the answer is written and not chosen, its last digits depend on the other rows of the batch.
        let log_probability = answer.as_ref().map(|answer| answer.log_probability).filter(|_| is_routed);
        let ask_teacher = answer.as_ref().map(|answer| answer.ask_teacher).filter(|_| is_routed);
        let (label, rationale, probabilities) = answer
            .map(|answer| (Some(answer.label), answer.rationale, answer.probabilities))
            .unwrap_or_default();
        Self {
            id: row.key,
            input: row.input,
            premise: row.premise,
            hypothesis: row.hypothesis,
            label,
            error,
            expected: row.label,
            rationale,
            log_probability,
            ask_teacher,
            probabilities: probabilities
                .into_iter()
                .map(|(label, probability)| (label, probability.into()))
                .collect(),
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
    let opened = Box::pin(Opened::open(config, &arguments.model, &arguments.server));
    let opened = unless_interrupted(&shutdown, opened).await?;
    let answered = unless_interrupted(&shutdown, answer_all(&opened.student, rows, &arguments)).await;
    opened.close();
    answered
}

fn rows(arguments: &PredictArguments) -> anyhow::Result<Vec<Example>> {
    if let Some(file) = &arguments.file {
        return rows_of(file, &arguments.columns);
    }
    if arguments.stdin.is_some() {
        let stream = Box::new(std::io::stdin());
        let options = Options { columns: arguments.columns.mapping()?, ..Options::default() };
        let rows = readers::rows_from("standard input", Format::Jsonl, stream, options);
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

/// Answers in the order of the rows, as they come. A row that cannot be answered fails alone, and is named at the end. Where
/// rows have labels, what the answers are worth follows.
async fn answer_all(
    student: &Student,
    rows: Vec<Example>,
    arguments: &PredictArguments,
) -> anyhow::Result<()> {
    let count = rows.len();
    let mut measured = Measured::default();
    let (mut number, mut refused, mut first) = (0_usize, 0_usize, None);
    let wanted = Wanted { explain: arguments.explain, route_below: arguments.route_below };
    answers::each(student, rows, wanted, |answered| {
        number += 1;
        measured.add(&answered);
        let prediction = Prediction::of(answered, arguments.route_below.is_some());
        if let Some(error) = &prediction.error {
            // There is one row: the message says it all.
            if count == 1 {
                return Err(Usage(error.clone()).into());
            }
            refused += 1;
            first.get_or_insert_with(|| format!("row {number}: {error}"));
        }
        show(&prediction, arguments.json)
    })
    .await?;
    if count > 1 && measured.rows() > 0 {
        let summary = measured.lines();
        if arguments.json { say_lines(&summary) } else { print_lines(&format!("\n{summary}"))? }
    }
    match first {
        Some(first) => Err(Usage(format!("{refused} of {count} rows were not answered: {first}")).into()),
        None => Ok(()),
    }
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
    if let (Some(true), Some(logarithm)) = (prediction.ask_teacher, prediction.log_probability) {
        print_line(&format!("  ask the teacher: the student is not sure (log-probability {logarithm:.4})"))?;
    }
    Ok(())
}
