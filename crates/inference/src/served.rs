//! A student that is served: weights, tokenizer, and what its provenance says of its task.

use crate::InferenceError;
use checkpoints::Provenance;
use domain::objective::{self, Objective, PREFIX_PREDICT};
use domain::spec::Spec;
use domain::task::LabelSet;
use domain::{Example, Task};
use std::path::Path;
use std::sync::Mutex;
use t5::{Compute, Model, Weights};
use tch::Device;
use tokenizers::Tokenizer;

/// Limits of a checkpoint that does not say its own.
const INPUT_TOKENS: usize = 1024;
const TARGET_TOKENS: usize = 256;
/// The end of a sequence.
const END: i64 = 1;

/// What the engine computes with.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) weights: Weights,
    pub(crate) compute: Compute,
}

/// A student by name and version.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) version: u64,
    /// W3C trace context of the job that made it; empty for none.
    pub(crate) traceparent: String,
    pub(crate) task: Task,
    pub(crate) objective: Objective,
    pub(crate) input_tokens_max: usize,
    pub(crate) target_tokens_max: usize,
    tokenizer: Tokenizer,
    /// Used by the engine's thread alone; the lock is never waited for.
    pub(crate) loaded: Mutex<Loaded>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Served")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Served {
    /// Opens a folder, and makes one pass so that the first caller does not pay for it.
    pub(crate) fn open(
        name: &str,
        version: u64,
        folder: &Path,
        device: Device,
    ) -> Result<Self, InferenceError> {
        let wrong = |error: &dyn std::fmt::Display| InferenceError::Model(error.to_string());
        let provenance = Provenance::read(folder).map_err(|error| wrong(&error))?;
        let model = Model::load(folder, device)?;
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| InferenceError::Model(format!("{}: {error}", path.display())))?;
        let highest = tokenizer.get_vocab(true).into_values().max().map_or(0, i64::from);
        if highest >= model.config().vocab_size {
            return Err(InferenceError::Model(format!(
                "{}: has the id {highest}, and the model's vocabulary ends at {}: it belongs to another model",
                path.display(),
                model.config().vocab_size - 1
            )));
        }
        let bfloat16 = match provenance.as_ref() {
            Some(provenance) => provenance.precision == "bfloat16",
            None => false,
        };
        let compute = if bfloat16 { Compute::BFloat16 } else { Compute::Float32 };
        let weights = model.weights(compute)?;
        let spec: Option<Spec> = provenance.map(|provenance| provenance.spec);
        let training = spec.as_ref().map(|spec| &spec.training);
        let served = Self {
            name: name.to_owned(),
            version,
            traceparent: String::new(),
            objective: training.map_or(Objective::StepByStep, |training| training.objective),
            input_tokens_max: training.map_or(INPUT_TOKENS, |training| training.input_tokens_max as usize),
            target_tokens_max: training.map_or(TARGET_TOKENS, |training| training.target_tokens_max as usize),
            task: spec
                .map(|spec| spec.task)
                .or_else(|| Task::built_in("generate"))
                .ok_or_else(|| InferenceError::Internal("there is no built-in task `generate`".to_owned()))?,
            tokenizer,
            loaded: Mutex::new(Loaded { model, weights, compute }),
        };
        served.warm_up()?;
        Ok(served)
    }

    fn warm_up(&self) -> Result<(), InferenceError> {
        let ids = self.encode(PREFIX_PREDICT)?;
        let batch = crate::engine::tensors(&[&ids]);
        let loaded = self.loaded.lock().map_err(|error| InferenceError::Internal(error.to_string()))?;
        let encoded = loaded.model.encode(&loaded.weights, &batch.0, &batch.1)?;
        let mut state = loaded.model.start(&loaded.weights, &encoded);
        let start = loaded.model.config().decoder_start_token_id;
        loaded.model.step(&loaded.weights, &mut state, &[start]).map(drop)?;
        Ok(())
    }

    /// Whether labels are chosen from a set: the task has one, and the objective writes a label and nothing else.
    pub(crate) fn has_label_set(&self) -> bool {
        self.objective.writes_label_alone() && !matches!(self.task.labels, LabelSet::Open)
    }

    /// Ids of what the student reads to label `example`.
    pub(crate) fn predict_ids(&self, example: &Example) -> Result<Vec<i64>, InferenceError> {
        self.encode(&objective::predict_source(&self.task, example))
    }

    /// Ids of what the student reads to explain `example`.
    pub(crate) fn explain_ids(&self, example: &Example) -> Result<Vec<i64>, InferenceError> {
        self.encode(&objective::explain_source(&self.task, example))
    }

    /// Ids of a text, ended.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<i64>, InferenceError> {
        let encoding =
            self.tokenizer.encode(text, true).map_err(|error| InferenceError::Internal(error.to_string()))?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        if ids.last() != Some(&END) {
            ids.push(END);
        }
        if ids.len() > self.input_tokens_max {
            return Err(InferenceError::TooLong { tokens: ids.len(), limit: self.input_tokens_max });
        }
        Ok(ids)
    }

    /// The ids of a label, without the end.
    pub(crate) fn label_ids(&self, label: &str) -> Result<Vec<i64>, InferenceError> {
        let mut ids = self.encode(label)?;
        ids.pop();
        Ok(ids)
    }

    /// Ids as text; what cannot be read is left out.
    pub(crate) fn decode(&self, ids: &[i64]) -> String {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.tokenizer.decode(&ids, true).unwrap_or_default()
    }
}
