//! The end of a run: the best weights, measured once on the test rows, published with their provenance.

use crate::TrainError;
use crate::evaluate;
use crate::link::Link;
use crate::meters::Checkpoint;
use crate::student::Student;
use crate::training::measured;
use checkpoints::{Checkpoints, Provenance, StartedFrom};
use domain::Split;
use domain::records::LeasedRun;
use domain::spec::Start;
use std::time::Instant;
use t5::Compute;
use wire::v1;

/// Larger models are written in several files.
const SHARD_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Measures and publishes the student; returns the model's name and version.
pub(crate) fn publish(
    mut student: Student,
    leased: &LeasedRun,
    link: &mut Link,
    checkpoints: &Checkpoints,
) -> Result<String, TrainError> {
    let began = Instant::now();
    link.start_evaluating()?;
    let selected = match student.progress.best.take() {
        Some(best) => {
            student.model.set_trainable(false);
            student.model.copy_from(&best.weights)?;
            best.step
        }
        None => student.progress.step,
    };
    let validation = measured(evaluate::measure(&student, &student.validation, link)?);
    let test = link.examples(Split::Test)?;
    let test = measured(evaluate::measure(&student, &test, link)?);
    if let Some(accuracy) = test {
        link.report(Some((selected, Split::Test, accuracy)))?;
    }
    let provenance = Provenance {
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_from: match &student.spec.start {
            Start::Scratch { .. } => StartedFrom::Scratch,
            Start::Base { name } => StartedFrom::Base { name: name.clone() },
        },
        spec: student.spec.clone(),
        dataset_fingerprint: leased.dataset.fingerprint.clone(),
        ledger_fingerprint: leased.ledger_fingerprint.clone(),
        steps: student.progress.step,
        selected_step: selected,
        precision: if student.compute == Compute::BFloat16 { "bfloat16" } else { "float32" }.to_owned(),
        threads: student.threads,
        parameters: u64::try_from(student.model.parameter_count()).unwrap_or_default(),
        validation,
        test,
    };
    let path = Checkpoints::run_path(link.run_id(), link.fence(), student.progress.step, "model");
    let manifest_sha256 = Checkpoint::Model.written(|| -> Result<String, TrainError> {
        let staged = checkpoints.stage()?;
        student.model.save(staged.path(), SHARD_BYTES_MAX)?;
        student.tokenizer.save(staged.path())?;
        provenance.write(staged.path())?;
        Ok(checkpoints.publish(staged, &path)?)
    })?;
    let model = link.publish(v1::PublishRunRequest {
        run_id: link.run_id().to_owned(),
        fence: link.fence(),
        path,
        manifest_sha256,
        parameters: provenance.parameters,
        validation: validation.map(Into::into),
        test: test.map(Into::into),
        train_seconds: student.progress.train_seconds,
        evaluate_seconds: began.elapsed().as_secs_f64(),
    })?;
    // The student is published: what its run would resume from is no use any more, nor what killed trainers left.
    checkpoints.prune_run(link.run_id(), &model.path)?;
    Ok(format!("{}@{}", model.name, model.version))
}
