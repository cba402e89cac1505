//! The numbers of a model, before and after they are written.

use crate::Result;
use crate::memory::{Buffer, Frozen};
use crate::plan::Plan;

/// The caller's tensors by their Hugging Face name, row-major in float32.
pub type Tensors<'a> = dyn Fn(&str) -> Option<Vec<f32>> + 'a;

/// The numbers of a model, while they are written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) panels: Buffer<u32>,
    pub(crate) numbers: Buffer<f32>,
    pub(crate) sums: Buffer<i32>,
    pub(crate) embeddings: Buffer<u16>,
}

/// The numbers of a model.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) panels: Frozen<u32>,
    pub(crate) numbers: Frozen<f32>,
    pub(crate) sums: Frozen<i32>,
    pub(crate) embeddings: Frozen<u16>,
}

impl Draft {
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        Ok(Self {
            panels: Buffer::large(plan.totals.panels)?,
            numbers: Buffer::zeros(plan.totals.numbers)?,
            sums: Buffer::zeros(plan.totals.sums)?,
            embeddings: Buffer::zeros(plan.totals.embeddings)?,
        })
    }

    pub(crate) fn freeze(self) -> Memory {
        Memory {
            panels: self.panels.freeze(),
            numbers: self.numbers.freeze(),
            sums: self.sums.freeze(),
            embeddings: self.embeddings.freeze(),
        }
    }
}
