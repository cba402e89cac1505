//! `distillery predict`: labels and rationales from a student, one text or many rows.

use super::rows::mistakes;
use super::{print_json, print_line};
use crate::args::PredictArguments;
use crate::client::{self, Patience, failure};
use crate::exit::Usage;
use crate::target::{self, unless_interrupted};
use app::config::Config;
use app::student::{NoModel, Student};
use domain::Example;
use futures::{StreamExt, TryStreamExt};
use readers::{Format, Options, Source};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

/// Rows that are with the student at once; it makes batches of them.
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
    // The rows are read first: a mistake in them is told before a model is loaded.
    let rows = rows(&arguments)?;
    if let Some(url) = arguments.server.url() {
        let (model, version) = client::name_and_version(&arguments.model)?;
        let asked =
            Asked { channel: target::connect(&config.client, url, &arguments.server).await?, model, version };
        return unless_interrupted(&shutdown, answer_all(&asked, rows, &arguments)).await;
    }
    let opened = Student::open(config, &arguments.model).await;
    let student = opened.map_err(|error| match error.downcast_ref::<NoModel>() {
        Some(absent) => Usage(format!("--model: {absent}")).into(),
        None => error,
    })?;
    // The one student there needs no name.
    let asked = Asked { channel: student.channel.clone(), model: String::new(), version: 0 };
    let answered = unless_interrupted(&shutdown, answer_all(&asked, rows, &arguments)).await;
    student.close();
    answered
}

/// Which student is asked, and where.
#[derive(Clone)]
struct Asked {
    channel: Channel,
    model: String,
    version: u64,
}

fn rows(arguments: &PredictArguments) -> anyhow::Result<Vec<Example>> {
    if let Some(file) = &arguments.file {
        let format = Format::of(file).ok_or_else(|| {
            Usage(format!("{}: its ending names no format: use .jsonl, .csv or .parquet", file.display()))
        })?;
        let source = Source { path: file.clone(), format, split: None };
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
async fn answer_all(asked: &Asked, rows: Vec<Example>, arguments: &PredictArguments) -> anyhow::Result<()> {
    let (explain, count) = (arguments.explain, rows.len());
    let answers =
        futures::stream::iter(rows).map(|row| answer(asked.clone(), row, explain)).buffered(ROWS_AT_ONCE);
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

/// One row's answer. A server that is crowded, or on its way down, is asked again.
async fn answer(asked: Asked, row: Example, explain: bool) -> anyhow::Result<Prediction> {
    let mut patience = Patience::default();
    loop {
        let lost = match ask(&asked, row.clone(), explain).await {
            Ok(prediction) => return Ok(prediction),
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

async fn ask(asked: &Asked, row: Example, explain: bool) -> Result<Prediction, tonic::Status> {
    let mut client = InferenceServiceClient::new(asked.channel.clone())
        .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(wire::MESSAGE_BYTES_MAX);
    let (model, version) = (asked.model.clone(), asked.version);
    let example = Some(v1::Example::from(row.clone()));
    let (label, probabilities, rationale) = if explain {
        let request = v1::PredictAndExplainRequest { model, version, example, tokens_max: 0 };
        let answer = client.predict_and_explain(request).await?.into_inner();
        (answer.label, answer.probabilities, Some(answer.rationale))
    } else {
        let answer = client.predict(v1::PredictRequest { model, version, example }).await?.into_inner();
        (answer.label, answer.probabilities, None)
    };
    Ok(Prediction {
        label: Some(label),
        rationale,
        probabilities: probabilities
            .into_iter()
            .map(|entry| (entry.label, entry.probability.into()))
            .collect(),
        ..Prediction::of(row)
    })
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
