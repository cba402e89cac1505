//! How the operations of a pass are made: of the library's operators, one after another, or by kernels.

use crate::Result;
use crate::activation::activate;
use crate::config::FeedForwardKind;
use crate::loss::token_losses;
use crate::norm::norm;
use crate::score_bias::ScoreBias;
use kernels::Draw;
use std::cell::Cell;
use tch::{Kind, Tensor};

/// The operations of one pass that have a plain version and a fast one.
#[derive(Debug)]
pub(crate) struct Pass {
    rate: f64,
    /// Where numbers come from; `None` for the library's generator: seed that before the pass.
    draw: Option<Draw>,
    /// How often this pass has dropped: each time draws numbers of its own.
    place: Cell<u32>,
}

impl Pass {
    /// Plain, and without dropout.
    pub(crate) fn undropped() -> Self {
        Self::plain(0.0)
    }

    /// Of the library's operators; dropout is drawn from its generator.
    pub(crate) fn plain(rate: f64) -> Self {
        Self { rate, draw: None, place: Cell::new(0) }
    }

    /// By kernels; dropout is drawn by counter.
    pub(crate) fn fast(rate: f64, draw: Draw) -> Self {
        Self { rate, draw: Some(draw), place: Cell::new(draw.place) }
    }

    /// `x` with a share of its elements dropped.
    pub(crate) fn drop(&self, x: &Tensor) -> Result<Tensor> {
        match self.draw() {
            _ if self.rate <= 0.0 => Ok(x.shallow_clone()),
            None => Ok(x.f_dropout(self.rate, true)?),
            Some(draw) => Ok(kernels::dropout(x, None, self.rate, draw)?),
        }
    }

    /// `residual` plus `x` with a share of its elements dropped.
    pub(crate) fn drop_added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self.draw() {
            Some(draw) if self.rate > 0.0 => Ok(kernels::dropout(x, Some(residual), self.rate, draw)?),
            Some(_) | None => Ok(residual.f_add(&self.drop(x)?)?),
        }
    }

    /// `weight * x / sqrt(mean(x^2) + epsilon)`, in the number format of `x`.
    pub(crate) fn norm(&self, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
        if self.has_kernel(x) {
            return Ok(kernels::layer_norm(x, weight, epsilon)?);
        }
        Ok(norm(x, weight, epsilon, x.kind()))
    }

    /// `x` times the transpose of `weight`, in the number format of both.
    pub(crate) fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        if self.draw.is_some() && x.dim() == 2 {
            return Ok(kernels::linear(x, weight)?);
        }
        Ok(x.f_linear(weight, None::<&Tensor>)?)
    }

    /// The rows of `weight` that `ids` name.
    pub(crate) fn embedding(&self, weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
        if self.draw.is_some() && ids.dim() == 1 {
            return Ok(kernels::embedding(weight, ids)?);
        }
        Ok(Tensor::f_embedding(weight, ids, -1, false, false)?)
    }

    /// The softmax over keys of scores with what is added to them, in the scores' number format.
    pub(crate) fn attention_weights(&self, scores: &Tensor, bias: &ScoreBias) -> Result<Tensor> {
        if self.has_kernel(scores) {
            return Ok(kernels::attention_weights(scores, bias.position.as_ref(), bias.mask.as_ref())?);
        }
        let mut added = scores.to_kind(Kind::Float);
        for part in [&bias.position, &bias.mask].into_iter().flatten() {
            added = added.f_add(part)?;
        }
        Ok(added.f_softmax(-1, Kind::Float)?.to_kind(scores.kind()))
    }

    /// The loss of every target token, float32 `[tokens]`; `logits` is `[tokens, vocabulary]`, `labels` are none but tokens.
    pub(crate) fn token_losses(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        if self.has_kernel(logits) {
            return Ok(kernels::token_losses(logits, labels)?);
        }
        Ok(token_losses(&logits.to_kind(Kind::Float), labels))
    }

    /// What a feed-forward layer makes of its input projection.
    pub(crate) fn activate(&self, wide: &Tensor, kind: FeedForwardKind) -> Result<Tensor> {
        if kind == FeedForwardKind::GATED_GELU && self.has_kernel(wide) {
            return Ok(kernels::gate(wide)?);
        }
        Ok(activate(wide, kind))
    }

    fn has_kernel(&self, x: &Tensor) -> bool {
        self.draw.is_some() && x.device() == tch::Device::Cpu
    }

    fn draw(&self) -> Option<Draw> {
        let draw = self.draw?;
        let place = self.place.get();
        self.place.set(place + 1);
        Some(Draw { place, ..draw })
    }
}
