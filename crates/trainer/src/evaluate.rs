//! Measuring a student: what it answers, against what is right. The answers are those of the one predictor, which serves it
//! as well.

use crate::TrainError;
use crate::link::Link;
use crate::state::TrainState;
use checkpoints::{EXPLAINED_ROWS, Prediction, Predictions};
use domain::Split;
use domain::label::{self, Comparison};
use domain::metric::Accuracy;
use domain::objective::TrainingExample;
use std::collections::HashMap;
use student::{Answer, Codec, Predictor, StudentError};

/// What the student says to the rows of a split that have a label to be measured against: gold, and the teacher's for held-out
/// train rows where the student learns the teacher's. `pause` is called between passes; an error of it
/// ends the measurement.
///
/// # Errors
/// The student's, or `pause`'s.
pub fn predict(
    codec: &Codec,
    predictor: &Predictor<'_>,
    split: Split,
    examples: &[TrainingExample],
    pause: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<Predictions, TrainError> {
    let labelled: Vec<(u64, &str, &domain::Example)> = examples
        .iter()
        .filter_map(|example| Some((example.row.index, example.target.as_deref()?, &example.row.example)))
        .collect();
    let rows: Vec<&domain::Example> = labelled.iter().map(|(_, _, example)| *example).collect();
    let answers = predictor.answers(&rows, pause)?;
    let mut unwritable = 0;
    let mut predictions = Vec::with_capacity(labelled.len());
    for ((row, gold, _), answer) in labelled.into_iter().zip(answers) {
        unwritable += u64::from(!codec.can_write(gold)?);
        predictions.push(prediction(codec.task.metric, row, gold, answer));
    }
    warn(split, &predictions, unwritable);
    Ok(Predictions::new(split, predictor.precision(), unwritable, predictions))
}

/// Adds to the first rows of `predictions` how the student explains them, where that is a question of its own: a rationale that is
/// written with the label is there already. Rows that it cannot explain keep none.
///
/// # Errors
/// The student's, or `pause`'s.
pub fn explain(
    codec: &Codec,
    predictor: &Predictor<'_>,
    examples: &[TrainingExample],
    predictions: &mut Predictions,
    pause: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    if !codec.objective.explains_separately() {
        return Ok(());
    }
    let by_row: HashMap<u64, &domain::Example> =
        examples.iter().map(|example| (example.row.index, &example.row.example)).collect();
    let explained = &mut predictions.rows.iter_mut().take(EXPLAINED_ROWS);
    let (mut rows, mut slots) = (Vec::new(), Vec::new());
    for prediction in explained {
        if let Some(example) = by_row.get(&prediction.row) {
            rows.push(*example);
            slots.push(&mut prediction.rationale);
        }
    }
    for (slot, rationale) in slots.into_iter().zip(predictor.rationales(&rows, pause)?) {
        *slot = rationale.ok();
    }
    Ok(())
}

fn prediction(metric: Comparison, row: u64, gold: &str, answer: Result<Answer, StudentError>) -> Prediction {
    let unanswered = Prediction {
        row,
        answer: String::new(),
        label: String::new(),
        gold: gold.to_owned(),
        correct: false,
        parsed: false,
        probability: None,
        log_probability: None,
        tokens: 0,
        milliseconds: 0.0,
        rationale: None,
        error: None,
    };
    match answer {
        Ok(answer) => Prediction {
            correct: label::same(metric, &answer.label, gold),
            parsed: !answer.label.is_empty(),
            probability: answer.probability(),
            answer: answer.text,
            label: answer.label,
            log_probability: Some(answer.log_probability),
            tokens: answer.tokens as u64,
            milliseconds: answer.took.as_secs_f64() * 1e3,
            rationale: answer.rationale,
            ..unanswered
        },
        Err(error) => Prediction { error: Some(error.to_string()), ..unanswered },
    }
}

fn warn(split: Split, predictions: &[Prediction], unwritable: u64) {
    let rows = predictions.len();
    let mut refused = predictions.iter().filter_map(|row| row.error.as_deref().map(|error| (row.row, error)));
    if let Some((row, error)) = refused.next() {
        let count = refused.count() + 1;
        tracing::warn!(%split, row, "{count} of {rows} rows have no answer and count as wrong, the first because {error}");
    }
    if unwritable > 0 {
        tracing::warn!(
            %split,
            "{unwritable} of {rows} gold labels hold characters that the tokenizer does not know (<unk>): the student cannot \
             write them"
        );
    }
}

/// The accuracy over the validation rows that are measured while training; `None` where there are none.
pub(crate) fn validate(state: &TrainState, link: &mut Link) -> Result<Option<Accuracy>, TrainError> {
    if state.sampled.is_empty() {
        return Ok(None);
    }
    let weights = tch::no_grad(|| state.model.weights(state.compute))?;
    let predictor = Predictor::new(&state.codec, &state.model, &weights, state.compute);
    let predictions =
        predict(&state.codec, &predictor, Split::Validation, &state.sampled, &mut || link.beat())?;
    Ok(predictions.accuracy())
}
