//! One optimiser step: a batch goes through the model in parts, its gradients are summed, clipped and applied.

use crate::TrainError;
use crate::batches::{LossTerm, WeightedRow, micro_batches, padded, tensors, weighted_rows};
use crate::data::TokenizedExample;
use crate::optimizer::AdamW;
use crate::out_of_memory::catch_out_of_memory;
use crate::schedule::learning_rate;
use domain::spec::TrainingSpec;
use t5::{ForwardOptions, Model};
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
/// to L_rationale is returned.
pub type Pass<'a> = dyn FnMut(&[WeightedRow<'_>]) -> Result<[Tensor; 2], TrainError> + 'a;

/// The pass of a model.
pub fn pass(
    model: &Model,
    options: ForwardOptions,
) -> impl FnMut(&[WeightedRow<'_>]) -> Result<[Tensor; 2], TrainError> {
    move |part| {
        let rows: Vec<(&[i64], &[i64])> =
            part.iter().map(|share| (share.row.source.as_slice(), share.row.target.as_slice())).collect();
        let batch = tensors(&rows);
        let logits = model.forward(&batch, &options)?;
        // `[rows]`: the sum of each row's token losses.
        let losses =
            t5::token_losses(&logits, &batch.labels).sum_dim_intlist(&[-1_i64][..], false, Kind::Float);
        let weighed = |of: &dyn Fn(&WeightedRow<'_>) -> f64| {
            let factors: Vec<f32> = part.iter().map(|share| of(share) as f32).collect();
            &losses * Tensor::from_slice(&factors).to_device(losses.device())
        };
        let own = |term: LossTerm| {
            let counted = weighed(&|share| if share.term == term { share.own } else { 0.0 });
            counted.detach().sum(Kind::Double).to_device(tch::Device::Cpu)
        };
        let sums = [own(LossTerm::Label), own(LossTerm::Rationale)];
        weighed(&|share| share.factor).sum(Kind::Float).f_backward()?;
        Ok(sums)
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
        // The library's generator cannot be saved: it is set anew at every step, so that dropout is the same after a resume.
        tch::manual_seed((training.seed ^ (step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as i64);
        optimizer.zero_gradients();
        let micro_batches = micro_batches(weighted_rows.clone(), *tokens_max as usize);
        match catch_out_of_memory(|| accumulate(&micro_batches, pass))? {
            Some(sums) => break sums,
            None => *tokens_max = smaller(&micro_batches, step)?,
        }
    };
    let not_finite = |what| TrainError::NotFinite { step, what, rows: rows_of(items) };
    if !label.is_finite() || !rationale.is_finite() {
        return Err(not_finite("loss"));
    }
    let gradient_norm = optimizer.gradient_norm();
    if !gradient_norm.is_finite() {
        return Err(not_finite("gradient"));
    }
    let scale = (training.clip_norm / (gradient_norm + 1e-6)).min(1.0);
    optimizer.step(learning_rate(training, step), scale);
    Ok(Losses { label: labels.then_some(label), rationale: rationales.then_some(rationale), gradient_norm })
}

/// Every part forward and backward; the two losses of the whole batch.
fn accumulate(micro_batches: &[Vec<WeightedRow<'_>>], pass: &mut Pass<'_>) -> Result<[f64; 2], TrainError> {
    let mut sums = [Tensor::from(0.0_f64), Tensor::from(0.0_f64)];
    for part in micro_batches {
        for (sum, own) in sums.iter_mut().zip(pass(part)?) {
            *sum = &*sum + own;
        }
    }
    Ok(sums.map(|sum| f64::try_from(sum).unwrap_or(f64::NAN)))
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
