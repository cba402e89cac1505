//! Resume state: weights, moments, step, the best weights so far; whole or not at all.

use crate::TrainError;
use crate::link::Link;
use crate::meters::Checkpoint;
use crate::optimizer::AdamW;
use checkpoints::{CheckpointError, Checkpoints, stored};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use student::Tokenizer;
use t5::Model;
use tch::Tensor;

/// The optimiser's moments.
pub(crate) const MOMENTS: &str = "moments.safetensors";
const BEST: &str = "best.safetensors";
const PROGRESS: &str = "progress.json";
/// The format of the progress that is written; see [`stored`].
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ResumeState {
    /// Optimiser steps done.
    pub step: u64,
    /// Threads of the tensor library, so that sums are made in the same order again; 0 before the first step.
    #[serde(default)]
    pub threads: u32,
    /// The number format, once chosen.
    #[serde(default)]
    pub bfloat16: Option<bool>,
    /// Most padded tokens of one pass: the specification's, or fewer once memory ran out; 0 before the first step.
    #[serde(default)]
    pub batch_tokens_max: u32,
    /// The best validation so far.
    #[serde(default)]
    pub best: Option<BestCheckpoint>,
    /// Validations since then.
    #[serde(default)]
    pub evaluations_without_better: u32,
    /// Whether patience ran out.
    #[serde(default)]
    pub stopped_early: bool,
    /// Seconds of training, all leases together.
    #[serde(default)]
    pub train_seconds: f64,
}

/// The best weights so far.
#[derive(Debug, Serialize, Deserialize)]
pub struct BestCheckpoint {
    /// After which step.
    pub step: u64,
    /// Validation rows answered right.
    pub correct: u64,
    /// The weights, by name; stored in a file of their own.
    #[serde(skip)]
    pub weights: Vec<(String, Tensor)>,
}

/// The folder of the resume state at `path`, whole; `None` where there is none yet, and where it was deleted: then the
/// training begins anew.
pub(crate) fn folder(checkpoints: &Checkpoints, path: &str) -> Result<Option<PathBuf>, TrainError> {
    if path.is_empty() {
        return Ok(None);
    }
    let folder = checkpoints.folder(path)?;
    if !folder.exists() {
        tracing::warn!(folder = %folder.display(), "the resume state is gone: the training begins anew");
        return Ok(None);
    }
    checkpoints.fetch(path, None).map(Some).map_err(|error| TrainError::Resume { error, folder })
}

/// Reads how far a run came.
pub(crate) fn read_progress(folder: &Path) -> Result<ResumeState, TrainError> {
    let path = folder.join(PROGRESS);
    let bytes = std::fs::read(&path).map_err(|source| CheckpointError::io(&path, source))?;
    Ok(stored::read(FORMAT, &bytes).map_err(|message| CheckpointError::Json { path, message })?)
}

/// Reads the best weights, where there are any.
pub(crate) fn read_best(folder: &Path) -> Result<Option<BestCheckpoint>, TrainError> {
    let Some(best) = read_progress(folder)?.best else { return Ok(None) };
    let weights = t5::checkpoint::load_tensors(&folder.join(BEST))?;
    Ok(Some(BestCheckpoint { weights, ..best }))
}

/// What a resume state consists of.
pub(crate) struct Parts<'a> {
    pub(crate) model: &'a Model,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) optimizer: &'a AdamW,
    pub(crate) progress: &'a ResumeState,
}

/// Writes the resume state, points the run at it, and removes the one before.
pub(crate) fn save(parts: &Parts<'_>, link: &mut Link, checkpoints: &Checkpoints) -> Result<(), TrainError> {
    let path = Checkpoint::Resume.written(|| write(parts, link, checkpoints))?;
    if let Some(orphan) = link.save_resume_point(parts.progress.step, &path)? {
        checkpoints.delete(&orphan)?;
    }
    Ok(())
}

/// Writes the resume state; returns its path in the store.
fn write(parts: &Parts<'_>, link: &Link, checkpoints: &Checkpoints) -> Result<String, TrainError> {
    let staged = checkpoints.stage()?;
    let folder = staged.path();
    parts.model.save(folder, u64::MAX)?;
    parts.tokenizer.save(folder)?;
    parts.optimizer.save(&folder.join(MOMENTS))?;
    if let Some(best) = &parts.progress.best {
        t5::checkpoint::save_tensors(&folder.join(BEST), &best.weights)?;
    }
    let path = folder.join(PROGRESS);
    let text = stored::write(FORMAT, parts.progress)
        .map_err(|message| CheckpointError::Json { path: path.clone(), message })?;
    std::fs::write(&path, text).map_err(|source| CheckpointError::io(&path, source))?;
    let path = Checkpoints::run_path(link.run_id(), link.fence(), parts.progress.step, "resume");
    checkpoints.publish(staged, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(u64, f64), &str>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(PROGRESS), text).unwrap();
        match (read_progress(folder.path()), expected) {
            (Ok(progress), Ok(expected)) => assert_eq!((progress.step, progress.train_seconds), expected),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (read, expected) => panic!("{read:?}, wanted {expected:?}"),
        }
    }

    #[test]
    fn progress_of_other_versions_is_read() {
        let stored = include_str!("../../../tests/compat/0.1.0/progress.json");
        check(stored, Ok((10, 10.42146356)));
        check(&stored.replace("\"threads\"", "\"planted\""), Ok((10, 10.42146356)));
        check(&stored.replace("\"train_seconds\"", "\"planted\""), Ok((10, 0.0)));
        check(&stored.replacen('{', "{\"format\": 7, ", 1), Err("of a newer version"));
        check(&stored.replace("\"step\": 10", "\"planted\": 10"), Err("missing field `step`"));
    }
}
