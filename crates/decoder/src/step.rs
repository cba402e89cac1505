//! The decoder's pass: one token of many rows, several of one, or a tree of tokens.
#![allow(unsafe_code, reason = "workers take disjoint parts of the pass's buffers and of the rows' caches")]

use crate::attend::{Cached, attend, put_key, put_value};
use crate::cache::Cache;
use crate::head::HeadPass;
use crate::pass::{Pass, Sink, Source};
use crate::plan::{DecoderLayer, Linear};
use crate::position::Bias;
use std::ops::Range;

/// Consecutive tokens of the pass that belong to one row.
///
/// They are worked through in order: each writes its key and value at its position, then reads all positions up to its own.
/// A position may be written again: in a tree's preorder, what stands below a position are a node's ancestors.
pub(crate) struct Span<'a> {
    /// The row's own keys and values.
    pub(crate) own: &'a Cache,
    /// Those of the encoder's output.
    pub(crate) cross: &'a Cache,
    /// Positions of the encoder's output.
    pub(crate) source: usize,
    /// In the pass.
    pub(crate) tokens: Range<usize>,
}

/// The operands of a decoder pass.
pub(crate) struct DecoderPass<'a> {
    pub(crate) pass: Pass<'a>,
    pub(crate) ids: &'a [u32],
    /// Of each token in its row.
    pub(crate) positions: &'a [usize],
    pub(crate) spans: &'a [Span<'a>],
    pub(crate) bias: &'a Bias,
    pub(crate) head: &'a HeadPass<'a>,
}

impl DecoderPass<'_> {
    /// Computes what the head needs of every token.
    pub(crate) fn run(&self) {
        let (pass, plan) = (&self.pass, &self.pass.model.plan);
        pass.embed(&plan.decoder_embedding, self.ids);
        for (block, layer) in plan.decoder.iter().enumerate() {
            self.attention(block, layer);
            self.cross_attention(block, layer);
            pass.feed_forward(&layer.feed_forward);
        }
        self.head.run(pass);
    }

    /// This worker's heads, and the panels that project them: `parts` a head.
    fn heads(&self, linear: &Linear) -> (Range<usize>, Range<usize>) {
        let heads = self.pass.worker.share(self.pass.model.shape.num_heads, 1);
        let panels = linear.panel_count() / self.pass.model.shape.num_heads;
        let panels = heads.start * panels..heads.end * panels;
        (heads, panels)
    }

    fn attention(&self, block: usize, layer: &DecoderLayer) {
        let (pass, linear) = (&self.pass, &layer.attention_input);
        let activations = pass.prepare(linear, Source::States, Some(&layer.attention_norm));
        let (heads, panels) = self.heads(linear);
        pass.multiply(linear, activations, 0..pass.rows, panels, Sink::Projected);
        for span in self.spans {
            for head in heads.clone() {
                self.attend(block, head, span);
            }
        }
        pass.worker.barrier();
        pass.add_product(&layer.attention_output, Source::Attended);
    }

    fn attend(&self, block: usize, head: usize, span: &Span<'_>) {
        let pass = &self.pass;
        let width = pass.model.plan.widths.head;
        let stride = 3 * pass.model.shape.num_heads * width;
        let (key_places, value_places) = span.own.places(block, head);
        for token in span.tokens.clone() {
            let position = self.positions.get(token).copied().unwrap_or(0);
            let start = token * stride + head * 3 * width;
            // SAFETY: this worker has projected this head, and only it touches the head's part of the cache.
            let (projected, keys, values) = unsafe {
                (
                    pass.space.projected.part(start..start + 3 * width),
                    span.own.words.part_mut(key_places.clone()),
                    span.own.words.part_mut(value_places.clone()),
                )
            };
            let (query, both) = projected.split_at(width);
            let (key, value) = both.split_at(width);
            put_key(keys, position, key);
            put_value(values, position, value);
            let bias = self.bias.head(head).get(self.bias.centre() - position..);
            self.look(token, head, &Cached { keys, values, length: position + 1, query, bias });
        }
    }

    /// One query's attention, into `attended`.
    fn look(&self, token: usize, head: usize, cached: &Cached<'_>) {
        let pass = &self.pass;
        let widths = pass.model.plan.widths;
        let start = token * widths.inner + head * widths.head;
        // SAFETY: the head is this worker's, and so is the scratch.
        let (scores, out) = unsafe {
            (
                pass.scratch().scores.part_mut(0..cached.length.next_multiple_of(16)),
                pass.space.attended.part_mut(start..start + widths.head),
            )
        };
        attend(pass.vectors, cached, scores, out);
    }

    fn cross_attention(&self, block: usize, layer: &DecoderLayer) {
        let (pass, linear) = (&self.pass, &layer.cross_query);
        let width = pass.model.plan.widths.head;
        let stride = pass.model.shape.num_heads * width;
        let activations = pass.prepare(linear, Source::States, Some(&layer.cross_norm));
        let (heads, panels) = self.heads(linear);
        pass.multiply(linear, activations, 0..pass.rows, panels, Sink::Projected);
        for span in self.spans {
            for head in heads.clone() {
                let (keys, values) = span.cross.places(block, head);
                // SAFETY: nobody writes the encoder's keys and values any more.
                let (keys, values) = unsafe { (span.cross.words.part(keys), span.cross.words.part(values)) };
                for token in span.tokens.clone() {
                    let start = token * stride + head * width;
                    // SAFETY: this worker has projected this head.
                    let query = unsafe { pass.space.projected.part(start..start + width) };
                    self.look(token, head, &Cached { keys, values, length: span.source, query, bias: None });
                }
            }
        }
        pass.worker.barrier();
        pass.add_product(&layer.cross_output, Source::Attended);
    }
}
