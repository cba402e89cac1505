//! Cross-entropy, in float32.

use crate::IGNORED;
use tch::{Reduction, Tensor};

/// The loss of every target token, `[batch, target]`; 0 where the label is -100.
pub fn token_losses(logits: &Tensor, labels: &Tensor) -> Tensor {
    let vocabulary = logits.size().last().copied().unwrap_or(0);
    logits
        .reshape([-1, vocabulary])
        .cross_entropy_loss(
            &labels.to_device(logits.device()).reshape([-1]),
            None::<&Tensor>,
            Reduction::None,
            IGNORED,
            0.0,
        )
        .reshape(labels.size())
}

/// The mean over all target tokens, as `transformers` computes it.
pub fn mean_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let count = labels.ne(IGNORED).sum(tch::Kind::Int64).clamp_min(1).to_device(logits.device());
    token_losses(logits, labels).sum(tch::Kind::Float) / count
}
