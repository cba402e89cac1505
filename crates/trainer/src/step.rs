//! One optimiser step: a batch goes through the model in parts, its gradients are summed, clipped and applied.

use crate::TrainError;
use crate::batches::{LossTerm, WeightedRow, micro_batches, padded, weighted_rows};
use crate::data::TokenizedExample;
use crate::optimizer::AdamW;
use crate::out_of_memory::catch_out_of_memory;
use crate::schedule::learning_rate;
use domain::spec::TrainingSpec;
use kernels::Draw;
use t5::{Model, Weights};
use tch::{Kind, Tensor};

/// Losses of one step; `None` where no row counts in one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// L_label: a mean over the label tokens of the whole batch.
    pub label: Option<f64>,
    /// L_rationale: a mean over the rationale tokens of the whole batch.
    pub rationale: Option<f64>,
    /// Before it is clipped.
    pub gradient_norm: f64,
}

/// Takes a part of a batch forward and backward: its gradients are added to the weights', and what it adds to L_label and
/// to L_rationale is returned. Dropout draws its numbers from where the second argument says.
pub type Pass<'a> = dyn FnMut(&[WeightedRow<'_>], Draw) -> Result<[f64; 2], TrainError> + 'a;

/// The pass of a model over its flat weights.
pub fn pass(
    model: &Model,
    weights: &Weights,
    dropout: f64,
) -> impl FnMut(&[WeightedRow<'_>], Draw) -> Result<[f64; 2], TrainError> {
    move |part, draw| {
        let rows: Vec<t5::Pair<'_>> =
            part.iter().map(|share| (share.row.source.as_slice(), share.row.target.as_slice())).collect();
        // `[tokens]`, one row's after the other's.
        let losses = model.losses(weights, &rows, dropout, draw)?;
        let factors: Vec<f32> = part
            .iter()
            .flat_map(|share| std::iter::repeat_n(share.factor as f32, share.row.target.len()))
            .collect();
        losses.f_dot(&Tensor::from_slice(&factors).to_device(losses.device()))?.f_backward()?;
        let tokens = Vec::<f64>::try_from(losses.detach().to_kind(Kind::Double))?;
        let mut tokens = tokens.into_iter();
        let losses: Vec<f64> =
            part.iter().map(|share| tokens.by_ref().take(share.row.target.len()).sum()).collect();
        let own = |term: LossTerm| {
            let rows = part.iter().zip(&losses).filter(|(share, _)| share.term == term);
            rows.map(|(share, loss)| share.own * loss).sum()
        };
        Ok([own(LossTerm::Label), own(LossTerm::Rationale)])
    }
}

/// Step number `step` (from 0) over `items`, in parts of at most `tokens_max` padded tokens. Where memory runs out,
/// `tokens_max` is halved, for the steps to come as well, and the whole step is made again.
///
/// # Errors
/// The loss or its gradient is not a number; one row alone does not fit into memory; the pass's own.
pub fn optimise(
    training: &TrainingSpec,
    optimizer: &mut AdamW,
    items: &[&TokenizedExample],
    step: u64,
    tokens_max: &mut u32,
    pass: &mut Pass<'_>,
) -> Result<Losses, TrainError> {
    let alpha = training.objective.explains_separately().then_some(training.alpha);
    let weighted_rows = weighted_rows(items, alpha);
    let counts = |term: LossTerm| weighted_rows.iter().any(|share| share.term == term);
    let (labels, rationales) = (counts(LossTerm::Label), counts(LossTerm::Rationale));
    let [label, rationale] = loop {
        // What is drawn depends on the step alone, so that dropout is the same after a resume. The library's generator, from
        // which devices other than the CPU draw, cannot be saved: it is set anew at every step.
        let key = training.seed ^ (step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        tch::manual_seed(key as i64);
        optimizer.begin()?;
        let micro_batches = micro_batches(weighted_rows.clone(), *tokens_max as usize);
        match catch_out_of_memory(|| accumulate(optimizer, &micro_batches, key, pass))? {
            Some(sums) => break sums,
            None => *tokens_max = smaller(&micro_batches, step)?,
        }
    };
    let not_finite = |what| TrainError::NotFinite { step, what, rows: rows_of(items) };
    if !label.is_finite() || !rationale.is_finite() {
        return Err(not_finite("loss"));
    }
    let gradient_norm = optimizer.gradient_norm()?;
    if !gradient_norm.is_finite() {
        return Err(not_finite("gradient"));
    }
    let scale = (training.clip_norm / (gradient_norm + 1e-6)).min(1.0);
    optimizer.step(learning_rate(training, step), scale)?;
    Ok(Losses { label: labels.then_some(label), rationale: rationales.then_some(rationale), gradient_norm })
}

/// Every part forward and backward; the two losses of the whole batch.
fn accumulate(
    optimizer: &mut AdamW,
    micro_batches: &[Vec<WeightedRow<'_>>],
    key: u64,
    pass: &mut Pass<'_>,
) -> Result<[f64; 2], TrainError> {
    let mut sums = [0.0; 2];
    for (number, part) in (0_u32..).zip(micro_batches) {
        for (sum, own) in sums.iter_mut().zip(pass(part, Draw { key, place: 0, part: number })?) {
            *sum += own;
        }
        optimizer.collect()?;
    }
    Ok(sums)
}

/// Half of what the largest part took: the budget itself may have been far from reached.
fn smaller(micro_batches: &[Vec<WeightedRow<'_>>], step: u64) -> Result<u32, TrainError> {
    let tokens = micro_batches.iter().map(|part| padded(part)).max().unwrap_or(0);
    if micro_batches.iter().all(|part| part.len() <= 1) {
        return Err(TrainError::OutOfMemory { step, tokens });
    }
    let tokens_max = u32::try_from(tokens / 2).unwrap_or(u32::MAX).max(1);
    tracing::warn!(step, tokens, tokens_max, "out of memory: the step is made again in smaller parts");
    Ok(tokens_max)
}

fn rows_of(items: &[&TokenizedExample]) -> String {
    let rows: Vec<String> = items.iter().take(64).map(|item| item.row.to_string()).collect();
    rows.join(", ")
}
