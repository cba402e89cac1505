//! The memory of a pass.

use crate::Result;
use crate::memory::Buffer;
use crate::model::Model;
use crate::shape::Precision;
use crate::tile::{ROWS, STRIDE};

/// Up to so many rows, every worker prepares all activations: that is cheaper than to meet.
pub(crate) const OWN_ROWS_MAX: usize = 4;

/// A product's inputs as its tiles read them.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `[rows, depth]`; for 16 bits, the high bytes of all rows and then the low ones.
    pub(crate) bytes: Buffer<u8>,
    /// `[rows, depth]`.
    pub(crate) floats: Buffer<f32>,
    /// `[rows]`.
    pub(crate) scales: Buffer<f32>,
    /// Rows that there is room for.
    pub(crate) rows: usize,
}

/// What one worker writes alone.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) sums: Buffer<i32>,
    pub(crate) values: Buffer<f32>,
    /// One row.
    pub(crate) row: Buffer<f32>,
    /// Of attention.
    pub(crate) scores: Buffer<f32>,
    /// Of attention over whole rows: `[length][head]`.
    pub(crate) attended: Buffer<f32>,
    /// Logits of a segment: `[rows][segment]`.
    pub(crate) segment: Buffer<f32>,
}

/// The memory of a pass. It grows to the largest pass and stays.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The residual stream, `[rows, model]`.
    pub(crate) states: Buffer<f32>,
    /// Queries, keys and values, `[rows, 3 * heads * head]`.
    pub(crate) projected: Buffer<f32>,
    /// `[rows, inner]`; the padding stays zero.
    pub(crate) attended: Buffer<f32>,
    /// `[rows, wide]`.
    pub(crate) wide: Buffer<f32>,
    pub(crate) activations: Vec<Activations>,
    pub(crate) scratch: Vec<Scratch>,
}

impl Workspace {
    /// Makes room for a pass of `rows` rows on `workers` workers.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn ensure(&mut self, model: &Model, rows: usize, workers: usize) -> Result<()> {
        let widths = model.plan.widths;
        let rows = rows.next_multiple_of(ROWS);
        let depth = widths.model.max(widths.inner).max(widths.wide);
        let precisions = model.precisions;
        let floats = [
            precisions.attention_input,
            precisions.attention_output,
            precisions.feed_forward_input,
            precisions.feed_forward_output,
            precisions.head,
        ]
        .contains(&Precision::Bfloat16);
        self.states.ensure(rows.saturating_mul(widths.model))?;
        self.projected.ensure(rows.saturating_mul(3 * model.shape.num_heads * widths.head))?;
        self.attended.ensure(rows.saturating_mul(widths.inner))?;
        self.wide.ensure(rows.saturating_mul(widths.wide))?;
        self.activations.resize_with(workers, Activations::default);
        self.scratch.resize_with(workers, Scratch::default);
        for (index, activations) in self.activations.iter_mut().enumerate() {
            // The first one is shared; the others hold what a worker prepares for itself.
            let rows = if index == 0 { rows } else { rows.min(OWN_ROWS_MAX.next_multiple_of(ROWS)) };
            activations.bytes.ensure(2 * rows.saturating_mul(depth))?;
            activations.scales.ensure(rows)?;
            activations.floats.ensure(if floats { rows.saturating_mul(depth) } else { 0 })?;
            activations.rows = activations.rows.max(rows);
        }
        for scratch in &mut self.scratch {
            scratch.sums.ensure(2 * ROWS * STRIDE)?;
            scratch.values.ensure(ROWS * STRIDE)?;
            scratch.row.ensure(depth)?;
        }
        Ok(())
    }
}
