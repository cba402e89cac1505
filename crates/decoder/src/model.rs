//! A packed model.

use crate::Result;
use crate::draft::{Draft, Memory, Tensors};
use crate::pack::Packer;
use crate::plan::{Linear, Plan};
use crate::shape::{Precisions, Shape};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A T5 whose weights lie as the tiles read them. Read-only: engines share it.
#[derive(Debug)]
pub struct Model {
    pub(crate) shape: Shape,
    pub(crate) precisions: Precisions,
    pub(crate) plan: Plan,
    pub(crate) memory: Memory,
    /// Tells states of different models apart.
    pub(crate) id: u64,
}

impl Model {
    /// Packs the caller's weights. Tensors are asked for by their Hugging Face names, one after the other, so that the caller
    /// may read them from a file. The table that both stacks read is `shared.weight`.
    ///
    /// # Errors
    /// The shape is not one that the engine computes; a tensor is absent, has another number of values, or holds one that is
    /// not finite; there is no memory.
    pub fn pack(shape: &Shape, tensors: &Tensors<'_>, precisions: &Precisions) -> Result<Self> {
        let plan = Plan::new(shape, precisions)?;
        let mut draft = Draft::new(&plan)?;
        Packer { shape, plan: &plan, tensors, draft: &mut draft }.pack()?;
        Ok(Self::assemble(shape.clone(), *precisions, plan, draft))
    }

    pub(crate) fn assemble(shape: Shape, precisions: Precisions, plan: Plan, draft: Draft) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { shape, precisions, plan, memory: draft.freeze(), id }
    }

    /// The shape that it was packed with.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How its products are computed.
    pub fn precisions(&self) -> &Precisions {
        &self.precisions
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self) -> usize {
        let memory = &self.memory;
        size_of_val(&*memory.panels)
            + size_of_val(&*memory.numbers)
            + size_of_val(&*memory.sums)
            + size_of_val(&*memory.embeddings)
    }

    /// Bytes of weights that one decoder step reads.
    pub fn step_bytes(&self) -> usize {
        let layers = self.plan.decoder.iter().flat_map(|layer| {
            [
                &layer.attention_input,
                &layer.attention_output,
                &layer.cross_query,
                &layer.cross_output,
                &layer.feed_forward.input,
                &layer.feed_forward.output,
            ]
        });
        layers.chain([&self.plan.head]).map(|linear| linear.panels.len() * 4).sum()
    }

    /// Numbers in float32; none where the range is not the plan's.
    pub(crate) fn numbers(&self, range: &Range<usize>) -> &[f32] {
        self.memory.numbers.get(range.clone()).unwrap_or_default()
    }

    /// The sums of a product's columns.
    pub(crate) fn sums(&self, linear: &Linear) -> &[i32] {
        self.memory.sums.get(linear.sums.clone()).unwrap_or_default()
    }

    /// The words of some panels of a product.
    pub(crate) fn panel_words(&self, linear: &Linear, panels: Range<usize>) -> Range<usize> {
        let words = linear.panel_words();
        linear.panels.start + panels.start * words..linear.panels.start + panels.end * words
    }

    /// A row of an embedding, in bfloat16.
    pub(crate) fn embedding(&self, table: &Range<usize>, id: u32) -> &[u16] {
        let width = self.plan.widths.model;
        let start = table.start + id as usize * width;
        self.memory.embeddings.get(start..start + width).unwrap_or_default()
    }
}
