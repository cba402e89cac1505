//! How the operations of a pass are made: of the library's operators, one after another, or by kernels.

use crate::Result;
use crate::activation::activate;
use crate::config::FeedForwardKind;
use crate::norm::norm;
use kernels::Draw;
use std::cell::Cell;
use tch::Tensor;

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
