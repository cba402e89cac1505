//! The end of a run: the best weights, opened as they will be served, measured once on the validation and test rows, and
//! published with their predictions and their provenance.

use crate::TrainError;
use crate::evaluate;
use crate::link::Link;
use crate::meters::Checkpoint;
use crate::state::TrainState;
use checkpoints::{CheckpointError, Checkpoints, Predictions, Provenance, RunOrigin, StartedFrom};
use domain::objective::TrainingExample;
use domain::records::LeasedRun;
use domain::run::{Outcomes, RunOutcomes, RunResult};
use domain::spec::Start;
use domain::subset;
use domain::{Example, Split};
use std::path::Path;
use std::time::Instant;
use student::{Serving, Student};
use t5::Compute;

/// Larger models are written in several files.
const SHARD_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Train rows at most that a probe answers to find those that it gets wrong.
const NEEDED_ROWS_MAX: u32 = 20_000;

/// Measures and publishes the student; returns the model's name and version, or the folder of a run that makes no model.
pub(crate) fn publish(
    mut state: TrainState,
    leased: &LeasedRun,
    link: &mut Link,
    checkpoints: &Checkpoints,
) -> Result<String, TrainError> {
    let began = Instant::now();
    link.start_evaluating()?;
    let selected = select(&mut state)?;
    let device = state.model.device();
    let mut provenance = provenance(&state, leased, selected);
    let path = Checkpoints::run_path(link.run_id(), link.fence(), state.progress.step, "model");
    let train_seconds = state.progress.train_seconds;
    let validation = std::mem::take(&mut state.validation);
    let serving = serving(&state, &validation, link)?;
    provenance.serving = serving.name().to_owned();
    let staged = Checkpoint::Model.written(|| -> Result<_, TrainError> {
        let staged = checkpoints.stage()?;
        state.model.save(staged.path(), SHARD_BYTES_MAX)?;
        state.codec.tokenizer.save(staged.path())?;
        serving.write_packed(&state.model, staged.path())?;
        provenance.write(staged.path())?;
        Ok(staged)
    })?;
    // Two models of the largest size need not fit into memory.
    drop(state);
    let student = Student::open(staged.path(), device)?;
    let measured = measure(&student, Split::Validation, &validation, staged.path(), link)?;
    provenance.validation = measured.accuracy();
    let outcomes = match leased.run.plan.share {
        // Nobody looks at the test rows to decide what is asked.
        Some(_) => Some(RunOutcomes {
            validation: bounded(measured.outcomes()),
            needed: needed(&student, leased, link)?,
        }),
        None => {
            let test = link.examples(Split::Test)?;
            provenance.test = measure(&student, Split::Test, &test, staged.path(), link)?.accuracy();
            None
        }
    };
    drop(student);
    if let Some(accuracy) = provenance.test {
        link.report(Some((selected, Split::Test, accuracy)))?;
    }
    provenance.write(staged.path())?;
    let manifest_sha256 = checkpoints.publish(staged, &path)?;
    let result = RunResult {
        path: path.clone(),
        manifest_sha256,
        parameters: provenance.parameters,
        validation: provenance.validation,
        test: provenance.test,
        train_seconds,
        evaluate_seconds: began.elapsed().as_secs_f64(),
    };
    let model = link.publish(result, outcomes)?;
    // The student is published: its run does not resume any more, and what killed trainers left is of no use.
    checkpoints.prune_run(link.run_id(), &path)?;
    Ok(model.map_or(path, |model| format!("{}@{}", model.name, model.version)))
}

/// Puts the best weights in place; returns the step that they are of.
fn select(state: &mut TrainState) -> Result<u64, TrainError> {
    let Some(best) = state.progress.best.take() else { return Ok(state.progress.step) };
    state.model.set_trainable(false);
    state.model.copy_from(&best.weights)?;
    Ok(best.step)
}

/// In which form the student is served: on processors, what agrees with the reference on validation rows.
fn serving(
    state: &TrainState,
    validation: &[TrainingExample],
    link: &mut Link,
) -> Result<Serving, TrainError> {
    let rows: Vec<&Example> = validation.iter().map(|example| &example.row.example).collect();
    Serving::measured(&state.codec, &state.model, state.compute, &rows, &mut || link.beat())
}

/// Where the student comes from; not measured yet.
fn provenance(state: &TrainState, leased: &LeasedRun, selected_step: u64) -> Provenance {
    Provenance {
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_from: match &state.spec.start {
            Start::Scratch { .. } => StartedFrom::Scratch,
            Start::Base { name } => StartedFrom::Base { name: name.clone() },
        },
        spec: state.spec.clone(),
        dataset_fingerprint: leased.dataset.fingerprint.clone(),
        ledger_fingerprint: leased.run.ledger_fingerprint.clone(),
        run: RunOrigin::of(&leased.run.plan),
        steps: state.progress.step,
        selected_step,
        serving: String::new(),
        precision: if state.compute == Compute::BFloat16 { "bfloat16" } else { "float32" }.to_owned(),
        threads: state.threads,
        parameters: u64::try_from(state.model.parameter_count()).unwrap_or_default(),
        label_tokens_max: state.label_tokens_max,
        validation: None,
        test: None,
    }
}

/// As many of the rows as a publication names, the first ones: all but in the largest data sets.
fn bounded(outcomes: Outcomes) -> Outcomes {
    let rows = outcomes.right.into_iter().map(|row| (row, true));
    let mut rows: Vec<(u64, bool)> = rows.chain(outcomes.wrong.into_iter().map(|row| (row, false))).collect();
    rows.sort_unstable();
    rows.truncate(RunOutcomes::ROWS_MAX);
    Outcomes::of(rows)
}

/// The train rows without a rationale that the student gets wrong, where the job asks about such rows: of at most
/// [`NEEDED_ROWS_MAX`], always the same ones.
fn needed(student: &Student, leased: &LeasedRun, link: &mut Link) -> Result<Vec<u64>, TrainError> {
    if !leased.run.plan.looks_for_needed(&leased.spec) {
        return Ok(Vec::new());
    }
    let mut examples = link.examples(Split::Train)?;
    examples.retain(|example| example.rationales.is_empty());
    let rows = examples.iter().map(|example| example.row.index).collect();
    let looked_at = subset::sample(rows, NEEDED_ROWS_MAX);
    examples.retain(|example| looked_at.contains(&example.row.index));
    let said = student.with(|predictor| {
        evaluate::predict(student.codec(), predictor, Split::Train, &examples, &mut || link.beat())
    })?;
    Ok(said.outcomes().wrong)
}

/// Writes what the student says to the rows into `folder`; returns what the file says, which has no accuracy where no row has a
/// gold label.
fn measure(
    student: &Student,
    split: Split,
    examples: &[TrainingExample],
    folder: &Path,
    link: &mut Link,
) -> Result<Predictions, TrainError> {
    let mut said = student.with(|predictor| {
        evaluate::predict(student.codec(), predictor, split, examples, &mut || link.beat())
    })?;
    if split == Split::Test {
        student.with(|predictor| {
            evaluate::explain(student.codec(), predictor, examples, &mut said, &mut || link.beat())
        })?;
    }
    said.write(folder)?;
    let written = Predictions::read(folder, split)?;
    let absent =
        || CheckpointError::Damaged { path: folder.to_owned(), missing: format!("predictions of {split}") };
    Ok(written.ok_or_else(absent)?)
}
