//! Dropout, as a pass draws it.

use crate::Result;
use kernels::Draw;
use std::cell::Cell;
use tch::Tensor;

/// The dropout of one pass.
#[derive(Debug)]
pub(crate) struct Dropout {
    rate: f64,
    /// Where numbers come from; `None` for the library's generator: seed that before the pass.
    draw: Option<Draw>,
    /// How often this pass has dropped: each time draws numbers of its own.
    place: Cell<u32>,
}

impl Dropout {
    /// No dropout.
    pub(crate) fn none() -> Self {
        Self::by_library(0.0)
    }

    /// Drawn from the library's generator: the plain version.
    pub(crate) fn by_library(rate: f64) -> Self {
        Self { rate, draw: None, place: Cell::new(0) }
    }

    /// Drawn by counter.
    pub(crate) fn counted(rate: f64, draw: Draw) -> Self {
        Self { rate, draw: Some(draw), place: Cell::new(draw.place) }
    }

    /// `x` with a share of its elements dropped.
    pub(crate) fn of(&self, x: &Tensor) -> Result<Tensor> {
        match self.draw() {
            _ if self.rate <= 0.0 => Ok(x.shallow_clone()),
            None => Ok(x.f_dropout(self.rate, true)?),
            Some(draw) => Ok(kernels::dropout(x, None, self.rate, draw)?),
        }
    }

    /// `residual` plus `x` with a share of its elements dropped.
    pub(crate) fn added(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self.draw() {
            Some(draw) if self.rate > 0.0 => Ok(kernels::dropout(x, Some(residual), self.rate, draw)?),
            Some(_) | None => Ok(residual.f_add(&self.of(x)?)?),
        }
    }

    fn draw(&self) -> Option<Draw> {
        let draw = self.draw?;
        let place = self.place.get();
        self.place.set(place + 1);
        Some(Draw { place, ..draw })
    }
}
