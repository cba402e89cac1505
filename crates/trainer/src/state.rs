//! Opening a run: its data, its tokenizer, its model; fresh, or where an earlier trainer stopped.

use crate::data::{self, TokenizedExample};
use crate::link::Link;
use crate::optimizer::AdamW;
use crate::resume::{self, ResumeState};
use crate::{Settings, TrainError};
use checkpoints::Checkpoints;
use domain::metric::SplitMix;
use domain::objective::{Objective, TrainingExample};
use domain::records::LeasedRun;
use domain::run::{RunPlan, RunPurpose};
use domain::spec::{Precision, Spec, Start, StudentSize};
use domain::{Split, shuffle};
use std::path::PathBuf;
use student::{Codec, Limits, Tokenizer};
use t5::{Compute, Model, Weights};
use tch::Device;

/// Validation rows that are measured while training; the final measurement takes all.
const VALIDATION_ROWS_MAX: usize = 500;
/// The vocabulary of the model is a multiple of this: matrix products are faster so.
const VOCABULARY_MULTIPLE: i64 = 64;
/// Room for a label beyond the longest one that the student has seen.
const LABEL_MARGIN: usize = 8;

/// Everything that the loop works on.
pub(crate) struct TrainState {
    /// What was asked for.
    pub spec: Spec,
    /// How the student is asked, and its tokenizer.
    pub codec: Codec,
    /// Most tokens of a label, where the student writes labels alone.
    pub label_tokens_max: Option<u32>,
    /// The weights.
    pub model: Model,
    /// The weights as passes read them.
    pub weights: Weights,
    /// The optimiser, which owns the weights' numbers.
    pub optimizer: AdamW,
    /// Train rows as ids.
    pub items: Vec<TokenizedExample>,
    /// Every validation row.
    pub validation: Vec<TrainingExample>,
    /// Those that are measured while training, in an order of their own.
    pub sampled: Vec<TrainingExample>,
    /// How far it has come.
    pub progress: ResumeState,
    /// The number format of the passes.
    pub compute: Compute,
    /// Threads of the tensor library.
    pub threads: u32,
}

impl TrainState {
    pub(crate) fn open(
        settings: &Settings,
        checkpoints: &Checkpoints,
        leased: &LeasedRun,
        link: &mut Link,
    ) -> Result<Self, TrainError> {
        let spec = leased.spec.clone();
        let train = link.examples(Split::Train)?;
        let validation = link.examples(Split::Validation)?;
        let (mut train, validation) = data::hold_out(&spec, leased.run.plan.rows.seed, train, validation);
        let device = if settings.use_cuda { t5::device::select() } else { Device::Cpu };
        let resumed = resume::folder(checkpoints, &leased.run.resume_path)?;
        let progress =
            resumed.as_deref().map_or_else(|| Ok(ResumeState::default()), resume::read_progress)?;
        let threads = if progress.threads > 0 { progress.threads } else { threads(settings) };
        tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
        link.beat()?;
        let (tokenizer, model) = match (&resumed, &spec.start) {
            (Some(folder), _) => student::open_checkpoint(folder, device)?,
            (None, Start::Base { name }) => {
                student::open_checkpoint(&checkpoints.fetch(&format!("base/{name}"), None)?, device)?
            }
            (None, Start::Scratch { size, vocabulary }) => {
                let tokenizer = Tokenizer::train(corpus(&leased.run.plan, &spec, &train), *vocabulary)?;
                let model = fresh(&spec, &tokenizer, *size, device)?;
                (tokenizer, model)
            }
        };
        // After the tokenizer has seen the rows: it is the same one, whosever the rationales are.
        shuffle::apply(&spec.training, &mut train);
        Self::arrange(spec, tokenizer, model, train, validation, progress, threads, resumed)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one value, each made just above")]
    fn arrange(
        spec: Spec,
        tokenizer: Tokenizer,
        mut model: Model,
        train: Vec<TrainingExample>,
        validation: Vec<TrainingExample>,
        mut progress: ResumeState,
        threads: u32,
        resumed: Option<PathBuf>,
    ) -> Result<Self, TrainError> {
        let items = data::encode(&spec, &tokenizer, &train)?;
        let label_tokens_max = label_tokens_max(&spec, &items);
        let limits = Limits::of(&spec.training, label_tokens_max);
        let codec = Codec::new(spec.task.clone(), spec.training.objective, limits, tokenizer)?;
        let compute = compute(&spec, &progress, model.device());
        let (flat, weights) = model.flatten(compute)?;
        let from_scratch = matches!(spec.start, Start::Scratch { .. });
        let mut optimizer = AdamW::new(flat, spec.training.weight_decay, from_scratch);
        if let Some(folder) = &resumed {
            optimizer.load(&folder.join(resume::MOMENTS), progress.step)?;
            progress.best = resume::read_best(folder)?.or(progress.best);
        }
        progress.threads = threads;
        if progress.batch_tokens_max == 0 {
            progress.batch_tokens_max = spec.training.batch_tokens_max;
        }
        progress.bfloat16 = Some(compute == Compute::BFloat16);
        tracing::info!(device = ?model.device(), ?compute, threads, rows = items.len(), step = progress.step, "training");
        let mut order: Vec<usize> = (0..validation.len()).collect();
        SplitMix::new(spec.training.seed).shuffle(&mut order);
        order.truncate(VALIDATION_ROWS_MAX);
        order.sort_unstable();
        let sampled = order.into_iter().filter_map(|place| validation.get(place).cloned()).collect();
        Ok(Self {
            spec,
            codec,
            label_tokens_max,
            model,
            weights,
            optimizer,
            items,
            validation,
            sampled,
            progress,
            compute,
            threads,
        })
    }

    /// Writes the state that the run resumes from, in place of the one before.
    pub(crate) fn save(&self, link: &mut Link, checkpoints: &Checkpoints) -> Result<(), TrainError> {
        let parts = resume::Parts {
            model: &self.model,
            tokenizer: &self.codec.tokenizer,
            optimizer: &self.optimizer,
            progress: &self.progress,
        };
        resume::save(&parts, link, checkpoints)
    }

    /// The specification's dropout, else the checkpoint's.
    pub(crate) fn dropout(&self) -> f64 {
        self.spec.training.dropout.unwrap_or(self.model.config().dropout_rate)
    }
}

/// Where the student writes labels alone, it stops a little behind the longest one that it trains on: what it would write
/// beyond is not a label.
fn label_tokens_max(spec: &Spec, items: &[TokenizedExample]) -> Option<u32> {
    let longest = items.iter().flat_map(|item| &item.labels).map(|row| row.target.len()).max();
    longest
        .filter(|_| spec.training.objective.writes_label_alone())
        .and_then(|tokens| u32::try_from(tokens + LABEL_MARGIN).ok())
}

fn threads(settings: &Settings) -> u32 {
    if settings.threads > 0 {
        return settings.threads;
    }
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// A resumed run keeps the format it began with, on whatever machine it is resumed.
fn compute(spec: &Spec, progress: &ResumeState, device: Device) -> Compute {
    let bfloat16 = match (progress.bfloat16, spec.training.precision) {
        (Some(bfloat16), _) => bfloat16,
        (None, Precision::Float32) => false,
        (None, Precision::Bfloat16) => true,
        (None, Precision::Auto) => t5::device::multiplies_bfloat16_fast(device),
    };
    if bfloat16 { Compute::BFloat16 } else { Compute::Float32 }
}

/// What the train rows say, for a tokenizer that is trained on it. In a cell of a study this is all that any of its arms could
/// learn from these rows, so that cells which differ in their objective have one tokenizer.
fn corpus(plan: &RunPlan, spec: &Spec, train: &[TrainingExample]) -> Vec<String> {
    let objectives = match plan.purpose {
        RunPurpose::Cell { .. } => Objective::ALL,
        RunPurpose::Final | RunPurpose::Probe => std::slice::from_ref(&spec.training.objective),
    };
    let mut corpus = Vec::new();
    for example in train {
        for objective in objectives {
            let texts = objective.compose(&spec.task, example);
            for text in texts.labels.into_iter().chain(texts.rationales) {
                corpus.push(text.source);
                corpus.push(text.target);
            }
        }
    }
    corpus
}

/// Fresh weights over a tokenizer.
fn fresh(spec: &Spec, tokenizer: &Tokenizer, size: StudentSize, device: Device) -> Result<Model, TrainError> {
    let size = match size {
        StudentSize::Tiny => t5::Size::Tiny,
        StudentSize::Mini => t5::Size::Mini,
        StudentSize::Small => t5::Size::Small,
        StudentSize::Base => t5::Size::Base,
        StudentSize::Large => t5::Size::Large,
    };
    let rows = (tokenizer.vocabulary() + VOCABULARY_MULTIPLE - 1) / VOCABULARY_MULTIPLE * VOCABULARY_MULTIPLE;
    let seed = i64::from_le_bytes(spec.training.seed.to_le_bytes());
    Ok(Model::from_scratch(size.config(rows), seed, device)?)
}
