//! The job's rows as token ids.

use crate::TrainError;
use domain::metric::SplitMix;
use domain::objective::{Text, TrainingExample};
use domain::spec::Spec;
use std::cell::Cell;
use student::Tokenizer;

/// One row of a forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedRow {
    /// Token ids of what is read, ended.
    pub source: Vec<i64>,
    /// Token ids of what is written, ended.
    pub target: Vec<i64>,
    /// Its share in its loss.
    pub weight: f64,
}

/// An example's rows: labels and rationales.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedExample {
    /// The row's index in the dataset.
    pub row: u64,
    /// Under `predict: `.
    pub labels: Vec<TokenizedRow>,
    /// Under `explain: `.
    pub rationales: Vec<TokenizedRow>,
}

impl TokenizedExample {
    /// Tokens of its longest source: what it is sorted by.
    pub fn length(&self) -> usize {
        self.labels.iter().chain(&self.rationales).map(|row| row.source.len()).max().unwrap_or(0)
    }
}

/// Train rows and validation rows; where no validation row has a label, some train rows that have one are held out, always
/// the same for the same split seed, whatever fraction of the rows a run takes. What they are measured against is what they
/// would have taught: the teacher's label where the student learns the teacher's.
pub fn hold_out(
    spec: &Spec,
    split_seed: u64,
    train: Vec<TrainingExample>,
    validation: Vec<TrainingExample>,
) -> (Vec<TrainingExample>, Vec<TrainingExample>) {
    if validation.iter().any(|example| example.target.is_some()) || train.len() < 2 {
        return (train, validation);
    }
    let held = |example: &TrainingExample| {
        let mut generator = SplitMix::new(split_seed ^ example.row.index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        generator.next_f64() < spec.training.holdout_fraction && example.target.is_some()
    };
    let (mut held, mut train): (Vec<_>, Vec<_>) = train.into_iter().partition(held);
    // A handful of rows may leave one side empty.
    if train.is_empty() {
        train.extend(held.pop());
    }
    (train, held)
}

/// The train rows as token ids; rows that train nothing are left out.
///
/// # Errors
/// No row trains anything.
pub fn encode(
    spec: &Spec,
    tokenizer: &Tokenizer,
    examples: &[TrainingExample],
) -> Result<Vec<TokenizedExample>, TrainError> {
    let (input, target) = (spec.training.input_tokens_max as usize, spec.training.target_tokens_max as usize);
    let cut = [Cell::new(0_usize), Cell::new(0)];
    let fit = |text: &str, tokens_max: usize, cut: &Cell<usize>| {
        let (ids, is_cut) = tokenizer.encode_cut(text, tokens_max)?;
        cut.set(cut.get() + usize::from(is_cut));
        Ok::<_, TrainError>(ids)
    };
    let row = |text: &Text| -> Result<TokenizedRow, TrainError> {
        let [sources, targets] = &cut;
        Ok(TokenizedRow {
            source: fit(&text.source, input, sources)?,
            target: fit(&text.target, target, targets)?,
            weight: text.weight,
        })
    };
    let mut items = Vec::with_capacity(examples.len());
    for example in examples {
        let texts = spec.training.objective.compose(&spec.task, example);
        let labels = texts.labels.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let rationales = texts.rationales.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        if !labels.is_empty() || !rationales.is_empty() {
            items.push(TokenizedExample { row: example.row.index, labels, rationales });
        }
    }
    for (cut, setting) in cut.into_iter().zip(["input_tokens_max", "target_tokens_max"]) {
        if cut.get() > 0 {
            let texts = cut.get();
            tracing::warn!("{texts} texts are longer than `training.{setting}` and were cut at it: raise it");
        }
    }
    if items.is_empty() {
        return Err(TrainError::Data("no train row has a label or a rationale to learn".to_owned()));
    }
    Ok(items)
}
