//! The end of a run: the best weights, opened as they will be served, measured once on the validation and test rows, and
//! published with their predictions and their provenance.

use crate::TrainError;
use crate::evaluate;
use crate::link::Link;
use crate::meters::Checkpoint;
use crate::state::TrainState;
use checkpoints::{CheckpointError, Checkpoints, Predictions, Provenance, RunOrigin, StartedFrom};
use domain::Split;
use domain::metric::Accuracy;
use domain::objective::TrainingExample;
use domain::records::LeasedRun;
use domain::run::RunResult;
use domain::spec::Start;
use std::path::Path;
use std::time::Instant;
use student::Student;
use t5::Compute;

/// Larger models are written in several files.
const SHARD_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

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
    let staged = Checkpoint::Model.written(|| -> Result<_, TrainError> {
        let staged = checkpoints.stage()?;
        state.model.save(staged.path(), SHARD_BYTES_MAX)?;
        state.codec.tokenizer.save(staged.path())?;
        provenance.write(staged.path())?;
        Ok(staged)
    })?;
    let validation = std::mem::take(&mut state.validation);
    // Two models of the largest size need not fit into memory.
    drop(state);
    let student = Student::open(staged.path(), device)?;
    provenance.validation = measure(&student, Split::Validation, &validation, staged.path(), link)?;
    let test = link.examples(Split::Test)?;
    provenance.test = measure(&student, Split::Test, &test, staged.path(), link)?;
    drop(student);
    if let Some(accuracy) = provenance.test {
        link.report(Some((selected, Split::Test, accuracy)))?;
    }
    provenance.write(staged.path())?;
    let manifest_sha256 = checkpoints.publish(staged, &path)?;
    let model = link.publish(RunResult {
        path: path.clone(),
        manifest_sha256,
        parameters: provenance.parameters,
        validation: provenance.validation,
        test: provenance.test,
        train_seconds,
        evaluate_seconds: began.elapsed().as_secs_f64(),
    })?;
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
        precision: if state.compute == Compute::BFloat16 { "bfloat16" } else { "float32" }.to_owned(),
        threads: state.threads,
        parameters: u64::try_from(state.model.parameter_count()).unwrap_or_default(),
        label_tokens_max: state.label_tokens_max,
        validation: None,
        test: None,
    }
}

/// Writes what the student says to the rows into `folder`; returns the accuracy of the file. `None` where no row has a gold
/// label.
fn measure(
    student: &Student,
    split: Split,
    examples: &[TrainingExample],
    folder: &Path,
    link: &mut Link,
) -> Result<Option<Accuracy>, TrainError> {
    student
        .with(|predictor| {
            evaluate::predict(student.codec(), predictor, split, examples, &mut || link.beat())
        })?
        .write(folder)?;
    let written = Predictions::read(folder, split)?;
    let absent =
        || CheckpointError::Damaged { path: folder.to_owned(), missing: format!("predictions of {split}") };
    Ok(written.ok_or_else(absent)?.accuracy())
}
