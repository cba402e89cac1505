//! Where a student comes from: `distillery.json` and the model card next to its weights.

use crate::{CheckpointError, stored};
use domain::metric::Accuracy;
use domain::run::{RunPlan, RunPurpose};
use domain::spec::{Spec, TeacherSource};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The provenance's name.
pub const PROVENANCE: &str = "distillery.json";
/// The format that is written; see [`stored`].
const FORMAT: u32 = 1;

/// Everything that made a student, and all that serving it needs apart from the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of this program.
    #[serde(default)]
    pub code_version: String,
    /// What was asked for, whole: the task among it.
    pub spec: Spec,
    /// sha256 over the dataset's rows.
    #[serde(default)]
    pub dataset_fingerprint: String,
    /// sha256 over the accepted rationales.
    #[serde(default)]
    pub ledger_fingerprint: String,
    /// The run that trained it. Its rules are those of `spec`.
    #[serde(default)]
    pub run: RunOrigin,
    /// What the weights were before training.
    #[serde(default)]
    pub started_from: StartedFrom,
    /// Optimiser steps made.
    #[serde(default)]
    pub steps: u64,
    /// The step whose weights these are.
    #[serde(default)]
    pub selected_step: u64,
    /// float32 or bfloat16.
    #[serde(default)]
    pub precision: String,
    /// In which form it is served on processors, as it was measured when it was published; empty for the form that it was trained
    /// in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serving: String,
    /// Threads of the tensor library.
    #[serde(default)]
    pub threads: u32,
    /// How many parameters there are.
    #[serde(default)]
    pub parameters: u64,
    /// Most tokens of a label, where the objective writes labels alone: a little more than the longest one that it trained
    /// on. `None` for `training.target_tokens_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_tokens_max: Option<u32>,
    /// On the validation rows.
    #[serde(default)]
    pub validation: Option<Accuracy>,
    /// On the test rows.
    #[serde(default)]
    pub test: Option<Accuracy>,
}

/// Which run trained a student, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOrigin {
    /// `final`, `probe` or `cell`.
    pub purpose: String,
    /// The study that a cell belongs to; empty for other purposes.
    pub study: String,
    /// The cell's name; empty for other purposes.
    pub cell: String,
    /// The fraction of the train rows.
    pub rows_fraction: f64,
    /// The split seed.
    pub rows_seed: u64,
    /// The share of the train rows whose rationales it read, of a probe of a harvest; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<domain::share::Share>,
}

/// A student of a version that knew one run a job: its final one, over every row.
impl Default for RunOrigin {
    fn default() -> Self {
        let purpose = RunPurpose::Final.name().to_owned();
        Self {
            purpose,
            study: String::new(),
            cell: String::new(),
            rows_fraction: 1.0,
            rows_seed: 0,
            share: None,
        }
    }
}

impl RunOrigin {
    /// The origin of a student that a run of this plan trains.
    pub fn of(plan: &RunPlan) -> Self {
        let (study, cell) = plan.purpose.study_and_cell();
        Self {
            purpose: plan.purpose.name().to_owned(),
            study: study.to_owned(),
            cell: cell.to_owned(),
            rows_fraction: plan.rows.fraction(),
            rows_seed: plan.rows.seed,
            share: plan.share,
        }
    }
}

/// What the weights were before training.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedFrom {
    /// Fresh weights.
    #[default]
    Scratch,
    /// A base checkpoint.
    Base {
        /// Its name.
        name: String,
    },
}

impl Provenance {
    /// Reads it from a student's folder; `None` where there is none (a checkpoint of other origin).
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(PROVENANCE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::io(&path, source)),
        };
        stored::read(FORMAT, &bytes).map(Some).map_err(|message| CheckpointError::Json { path, message })
    }

    /// Writes it into a student's folder, with the model card.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let path = folder.join(PROVENANCE);
        let text = stored::write(FORMAT, self)
            .map_err(|message| CheckpointError::Json { path: path.clone(), message })?;
        std::fs::write(&path, text).map_err(|source| CheckpointError::io(&path, source))?;
        let card = folder.join("README.md");
        std::fs::write(&card, model_card(self)).map_err(|source| CheckpointError::io(&card, source))
    }
}

/// The model card, in Markdown.
pub fn model_card(provenance: &Provenance) -> String {
    let spec = &provenance.spec;
    let teacher = match spec.teacher.as_ref().map(|teacher| &teacher.source) {
        Some(TeacherSource::Profile(name)) => format!("the teacher profile `{name}`"),
        Some(TeacherSource::Imported) => "rationales that came with the data".to_owned(),
        None => "labels alone".to_owned(),
    };
    let accuracy = |accuracy: Option<Accuracy>| match accuracy {
        Some(accuracy) => format!(
            "{:.1}% of {} rows (95% interval {:.1}% to {:.1}%)",
            accuracy.value() * 100.0,
            accuracy.rows,
            accuracy.low * 100.0,
            accuracy.high * 100.0
        ),
        None => "not measured".to_owned(),
    };
    let start = match &provenance.started_from {
        StartedFrom::Scratch => "fresh weights".to_owned(),
        StartedFrom::Base { name } => format!("the base checkpoint `{name}`"),
    };
    format!(
        "# {name}\n\nA T5 student of {parameters} parameters for the task `{task}`, trained from {start} with the objective \
         `{objective}` on {teacher} (Hsieh et al., Distilling Step-by-Step, 2023).\n\n\
         | measured on | accuracy |\n| --- | --- |\n| validation | {validation} |\n| test | {test} |\n\n\
         The student reads `predict: ` and the input, and writes the label; it reads `explain: ` and the input, and writes \
         a rationale. Weights of step {selected} of {steps}. Dataset {dataset}, ledger {ledger}; everything else stands in \
         {PROVENANCE}.\n",
        name = spec.name,
        parameters = provenance.parameters,
        task = spec.task.name,
        objective = spec.training.objective,
        validation = accuracy(provenance.validation),
        test = accuracy(provenance.test),
        selected = provenance.selected_step,
        steps = provenance.steps,
        dataset = provenance.dataset_fingerprint.get(..12).unwrap_or(&provenance.dataset_fingerprint),
        ledger = provenance.ledger_fingerprint.get(..12).unwrap_or(&provenance.ledger_fingerprint),
    )
}
