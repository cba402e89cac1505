//! The encoder's pass over the tokens of several rows, without padding between them.
#![allow(unsafe_code, reason = "workers take disjoint parts of the pass's buffers")]

use crate::attend::{Sequence, attend_sequence, put_key, put_value};
use crate::cache::Cache;
use crate::pass::{Pass, Sink, Source};
use crate::plan::EncoderLayer;
use crate::position::Bias;
use std::ops::Range;

/// A row of the pass: where its tokens lie, and where its keys and values go.
pub(crate) struct Row {
    pub(crate) tokens: Range<usize>,
    pub(crate) cross: Cache,
}

/// The operands of an encoder pass.
pub(crate) struct EncoderPass<'a> {
    pub(crate) pass: Pass<'a>,
    pub(crate) ids: &'a [u32],
    pub(crate) rows: &'a [Row],
    pub(crate) bias: &'a Bias,
}

impl EncoderPass<'_> {
    /// Fills every row's cross-attention cache.
    pub(crate) fn run(&self) {
        let (pass, plan) = (&self.pass, &self.pass.model.plan);
        pass.embed(&plan.encoder_embedding, self.ids);
        for layer in &plan.encoder {
            self.attention(layer);
            pass.feed_forward(&layer.feed_forward);
        }
        self.cross();
    }

    fn attention(&self, layer: &EncoderLayer) {
        let (pass, linear) = (&self.pass, &layer.attention_input);
        let activations = pass.prepare(linear, Source::States, Some(&layer.attention_norm));
        let (rows, panels) = pass.region(linear);
        pass.multiply(linear, activations, rows, panels, Sink::Projected);
        pass.worker.barrier();
        self.each_head(|row, head| self.attend(row, head));
        pass.worker.barrier();
        pass.add_product(&layer.attention_output, Source::Attended);
    }

    /// Calls `work` for this worker's share of rows and heads.
    fn each_head(&self, work: impl Fn(&Row, usize)) {
        let heads = self.pass.model.shape.num_heads;
        let worker = self.pass.worker;
        for (index, row) in self.rows.iter().enumerate() {
            for head in 0..heads {
                if (index * heads + head) % worker.count == worker.index {
                    work(row, head);
                }
            }
        }
    }

    fn attend(&self, row: &Row, head: usize) {
        let pass = &self.pass;
        let widths = pass.model.plan.widths;
        let (width, length) = (widths.head, row.tokens.len());
        let stride = 3 * pass.model.shape.num_heads * width;
        let scratch = pass.scratch();
        // SAFETY: projections are only read between these barriers, and the scratch is this worker's own.
        let (projected, scores, attended) = unsafe {
            (
                pass.space.projected.part(row.tokens.start * stride..row.tokens.end * stride),
                scratch.scores.part_mut(0..Sequence::scratch(length, width)),
                scratch.attended.part_mut(0..length * width),
            )
        };
        let sequence = Sequence {
            projected,
            stride,
            offset: head * 3 * width,
            head: width,
            length,
            bias: self.bias.head(head),
            centre: self.bias.centre(),
        };
        attend_sequence(pass.vectors, &sequence, scores, attended);
        for (token, values) in row.tokens.clone().zip(attended.chunks_exact(width)) {
            let start = token * widths.inner + head * width;
            // SAFETY: the head of this row is this worker's.
            unsafe { pass.space.attended.part_mut(start..start + width) }.copy_from_slice(values);
        }
    }

    /// Keys and values that the decoder's blocks read.
    fn cross(&self) {
        let (pass, plan) = (&self.pass, &self.pass.model.plan);
        let width = plan.widths.head;
        let stride = 2 * pass.model.shape.num_heads * width;
        let Some(first) = plan.cross.first() else { return };
        // All of them read the same activations in the same form.
        let activations = pass.prepare(first, Source::States, Some(&plan.encoder_norm));
        for (block, linear) in plan.cross.iter().enumerate() {
            let (rows, panels) = pass.region(linear);
            pass.multiply(linear, activations, rows, panels, Sink::Projected);
            pass.worker.barrier();
            self.each_head(|row, head| {
                let (keys, values) = row.cross.places(block, head);
                // SAFETY: this row's head is this worker's, and nobody reads the cache before the pass ends.
                let (keys, values) =
                    unsafe { (row.cross.words.part_mut(keys), row.cross.words.part_mut(values)) };
                for (position, token) in row.tokens.clone().enumerate() {
                    let start = token * stride + head * 2 * width;
                    // SAFETY: projections are only read between these barriers.
                    let both = unsafe { pass.space.projected.part(start..start + 2 * width) };
                    let (key, value) = both.split_at(width);
                    put_key(keys, position, key);
                    put_value(values, position, value);
                }
            });
            pass.worker.barrier();
        }
    }
}
