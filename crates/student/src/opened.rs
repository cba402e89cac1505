//! A checkpoint folder as a student that answers.

use crate::packed::Packed;
use crate::{Ask, Codec, Limits, Predictor, Prompt, Serving, Session, StudentError, Tokenizer};
use checkpoints::Provenance;
use domain::Task;
use domain::objective::Objective;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use t5::{Compute, Config, Model, Strategy, Weights};
use tch::Device;

/// What is asked once when a student is opened.
const WARM_UP: &str = "predict: ";

/// A student from a folder.
#[derive(Debug)]
pub struct Student {
    codec: Codec,
    /// Tensors belong to one thread at a time.
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
enum Loaded {
    Reference {
        model: Model,
        weights: Weights,
        compute: Compute,
    },
    /// The master weights are dropped.
    Packed(Packed),
}

impl Student {
    /// Opens a folder and makes one pass, so that the first question is answered as fast as the later ones. Task, objective,
    /// limits, number format and the form in which it is served on processors are those of the folder's provenance; a checkpoint
    /// without one generates, in float32.
    ///
    /// # Errors
    /// The folder does not hold a whole student: what is missing or wrong is named.
    pub fn open(folder: &Path, device: Device) -> Result<Self, StudentError> {
        let provenance = Provenance::read(folder)?;
        let (tokenizer, config) = described(folder)?;
        let (codec, compute, serving) = match provenance {
            Some(provenance) => {
                let serving = Serving::of(&provenance.serving).on(device);
                let training = &provenance.spec.training;
                let compute =
                    if provenance.precision == "bfloat16" { Compute::BFloat16 } else { Compute::Float32 };
                let limits = Limits::of(training, provenance.label_tokens_max);
                (Codec::new(provenance.spec.task, training.objective, limits, tokenizer)?, compute, serving)
            }
            None => {
                let task = Task::built_in("generate").ok_or_else(|| {
                    StudentError::Internal("there is no built-in task `generate`".to_owned())
                })?;
                let codec = Codec::new(task, Objective::StepByStep, Limits::default(), tokenizer)?;
                (codec, Compute::Float32, Serving::Reference)
            }
        };
        let loaded = match serving {
            Serving::Reference => {
                let model = Model::load(folder, device)?;
                let weights = model.weights(compute)?;
                Loaded::Reference { model, weights, compute }
            }
            packed => Loaded::Packed(match Packed::load(folder, &config, packed)? {
                Some(loaded) => loaded,
                None => Packed::new(&Model::load(folder, device)?, packed)?,
            }),
        };
        let student = Self { codec, loaded: Mutex::new(loaded) };
        student.warm_up()?;
        Ok(student)
    }

    /// What is asked of it, and how its answers are read.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Calls `ask` with the predictor, which one thread uses at a time.
    pub fn with<R>(&self, ask: impl FnOnce(&Predictor<'_>) -> R) -> R {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&match &*loaded {
            Loaded::Reference { model, weights, compute } => {
                Predictor::new(&self.codec, model, weights, *compute)
            }
            Loaded::Packed(packed) => Predictor::packed(&self.codec, packed),
        })
    }

    fn warm_up(&self) -> Result<(), StudentError> {
        let ids = self.codec.tokenizer.encode(WARM_UP)?;
        let prompt = Prompt { ids, ask: Ask::Text { strategy: Strategy::Greedy, tokens_max: 1 } };
        let mut session = Session::default();
        session.join(0, prompt);
        self.with(|predictor| predictor.step(&mut session, &mut |_, _| ControlFlow::Break(())))
    }
}

/// Opens the model and the tokenizer of a checkpoint folder, and checks that they belong together.
///
/// # Errors
/// What is missing or wrong is named.
pub fn open_checkpoint(folder: &Path, device: Device) -> Result<(Tokenizer, Model), StudentError> {
    // First what is read at once.
    let (tokenizer, _) = described(folder)?;
    Ok((tokenizer, Model::load(folder, device)?))
}

/// What a checkpoint folder says without its weights.
fn described(folder: &Path) -> Result<(Tokenizer, Config), StudentError> {
    checkpoints::check_folder(folder)?;
    let config = Config::load(folder)?;
    Ok((Tokenizer::open(folder, &config)?, config))
}
