//! From the caller's tensors to panels.

#![allow(
    clippy::indexing_slicing,
    reason = "places follow from the plan, and tensors were checked against the shape"
)]

use crate::draft::{Draft, Tensors};
use crate::lanes::bfloat16;
use crate::plan::{FeedForward, Linear, Plan};
use crate::shape::{Precision, Shape};
use crate::tile::PANEL;
use crate::{Error, Result};
use std::ops::Range;

/// The largest magnitude of an 8-bit weight.
const WEIGHT_MAX: f32 = 127.0;

/// Added to a small number and taken away again, it leaves the nearest whole number, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// Fills a draft from the caller's tensors.
pub(crate) struct Packer<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) plan: &'a Plan,
    pub(crate) tensors: &'a Tensors<'a>,
    pub(crate) draft: &'a mut Draft,
}

/// How padded places map to the places of a tensor: groups of `size` are padded to `padded`, and there are `total` places.
#[derive(Debug, Clone, Copy)]
struct Groups {
    size: usize,
    padded: usize,
    total: usize,
}

impl Groups {
    /// No padding but at the end.
    fn plain(total: usize) -> Self {
        Self { size: PANEL, padded: PANEL, total }
    }

    fn source(self, group: usize, place: usize) -> Option<usize> {
        let source = group * self.size + place;
        (place < self.size && source < self.total).then_some(source)
    }
}

/// The tensors of one product, `[rows, depth]` each, whose rows become columns: a group of the first, one of the second, ...
struct Sources {
    parts: Vec<Vec<f32>>,
    rows: Groups,
    depth: Groups,
    /// Multiplies the result.
    factor: f32,
}

impl Sources {
    /// The weights of one column.
    fn column(&self, column: usize) -> Option<&[f32]> {
        let (slot, place) = (column / self.rows.padded, column % self.rows.padded);
        let part = self.parts.get(slot % self.parts.len())?;
        let row = self.rows.source(slot / self.parts.len(), place)?;
        part.get(row * self.depth.total..(row + 1) * self.depth.total)
    }

    /// Places in a column and their padded places.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let depth = self.depth;
        (0..depth.total).map(move |source| (source, source / depth.size * depth.padded + source % depth.size))
    }
}

impl Packer<'_> {
    /// Fills everything.
    pub(crate) fn pack(&mut self) -> Result<()> {
        let plan = self.plan;
        for (index, layer) in plan.encoder.iter().enumerate() {
            let block = format!("encoder.block.{index}.layer");
            let attention = format!("{block}.0.SelfAttention");
            self.norm(&layer.attention_norm, &format!("{block}.0.layer_norm.weight"))?;
            self.heads(&layer.attention_input, &attention, &["q", "k", "v"])?;
            self.attention_output(&layer.attention_output, &attention)?;
            self.feed_forward(&layer.feed_forward, &format!("{block}.1"))?;
        }
        for (index, (layer, cross)) in plan.decoder.iter().zip(&plan.cross).enumerate() {
            let block = format!("decoder.block.{index}.layer");
            let attention = format!("{block}.0.SelfAttention");
            self.norm(&layer.attention_norm, &format!("{block}.0.layer_norm.weight"))?;
            self.heads(&layer.attention_input, &attention, &["q", "k", "v"])?;
            self.attention_output(&layer.attention_output, &attention)?;
            let attention = format!("{block}.1.EncDecAttention");
            self.norm(&layer.cross_norm, &format!("{block}.1.layer_norm.weight"))?;
            self.heads(&layer.cross_query, &attention, &["q"])?;
            self.heads(cross, &attention, &["k", "v"])?;
            self.attention_output(&layer.cross_output, &attention)?;
            self.feed_forward(&layer.feed_forward, &format!("{block}.2"))?;
        }
        self.norm(&plan.encoder_norm, "encoder.final_layer_norm.weight")?;
        self.norm(&plan.decoder_norm, "decoder.final_layer_norm.weight")?;
        self.bias(&plan.encoder_bias, "encoder")?;
        self.bias(&plan.decoder_bias, "decoder")?;
        self.tables()
    }

    /// Embeddings and the head.
    fn tables(&mut self) -> Result<()> {
        let (plan, shape) = (self.plan, self.shape);
        let (vocabulary, model) = (shape.vocab_size, shape.d_model);
        let shared = self.tensor("shared.weight", vocabulary, model)?;
        self.embedding(&plan.encoder_embedding, &shared);
        if shape.own_decoder_embedding {
            let own = self.tensor("decoder.embed_tokens.weight", vocabulary, model)?;
            self.embedding(&plan.decoder_embedding, &own);
        }
        let head = if shape.own_head { self.tensor("lm_head.weight", vocabulary, model)? } else { shared };
        let factor = if shape.scale_decoder_outputs { (model as f32).powf(-0.5) } else { 1.0 };
        let sources = Sources {
            parts: vec![head],
            rows: Groups::plain(vocabulary),
            depth: Groups::plain(model),
            factor,
        };
        self.linear(&plan.head, &sources);
        Ok(())
    }

    /// A tensor of `rows` times `columns` finite values.
    fn tensor(&self, name: &str, rows: usize, columns: usize) -> Result<Vec<f32>> {
        let values = (self.tensors)(name).ok_or_else(|| Error::MissingTensor(name.to_owned()))?;
        let expected = rows.saturating_mul(columns);
        if values.len() != expected {
            return Err(Error::Misshapen { name: name.to_owned(), found: values.len(), expected });
        }
        // Weights become bfloat16 or 8 bits: beyond bfloat16's range they would not stay finite.
        if values.iter().any(|value| value.is_nan() || value.abs() > 3.3e38) {
            return Err(Error::NotFinite(name.to_owned()));
        }
        Ok(values)
    }

    fn norm(&mut self, norm: &Range<usize>, name: &str) -> Result<()> {
        let values = self.tensor(name, self.shape.d_model, 1)?;
        copy(&mut self.draft.numbers.all_mut()[norm.clone()], &values);
        Ok(())
    }

    fn bias(&mut self, place: &Range<usize>, stack: &str) -> Result<()> {
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let values = self.tensor(&name, self.shape.relative_attention_num_buckets, self.shape.num_heads)?;
        copy(&mut self.draft.numbers.all_mut()[place.clone()], &values);
        Ok(())
    }

    fn embedding(&mut self, place: &Range<usize>, values: &[f32]) {
        let rows = values.chunks_exact(self.shape.d_model);
        let places = self.draft.embeddings.all_mut()[place.clone()].chunks_exact_mut(self.plan.widths.model);
        for (place, row) in places.zip(rows) {
            for (place, value) in place.iter_mut().zip(row) {
                *place = bfloat16(*value);
            }
        }
    }

    /// Queries, keys and values, head by head.
    fn heads(&mut self, linear: &Linear, attention: &str, parts: &[&str]) -> Result<()> {
        let (shape, widths) = (self.shape, self.plan.widths);
        let inner = shape.num_heads * shape.d_kv;
        let parts = parts
            .iter()
            .map(|part| self.tensor(&format!("{attention}.{part}.weight"), inner, shape.d_model))
            .collect::<Result<_>>()?;
        let rows = Groups { size: shape.d_kv, padded: widths.head, total: inner };
        self.linear(linear, &Sources { parts, rows, depth: Groups::plain(shape.d_model), factor: 1.0 });
        Ok(())
    }

    fn attention_output(&mut self, linear: &Linear, attention: &str) -> Result<()> {
        let (shape, widths) = (self.shape, self.plan.widths);
        let inner = shape.num_heads * shape.d_kv;
        let parts = vec![self.tensor(&format!("{attention}.o.weight"), shape.d_model, inner)?];
        let depth = Groups { size: shape.d_kv, padded: widths.head, total: inner };
        self.linear(linear, &Sources { parts, rows: Groups::plain(shape.d_model), depth, factor: 1.0 });
        Ok(())
    }

    fn feed_forward(&mut self, layer: &FeedForward, block: &str) -> Result<()> {
        let (model, wide) = (self.shape.d_model, self.shape.d_ff);
        self.norm(&layer.norm, &format!("{block}.layer_norm.weight"))?;
        let names: &[&str] = if self.shape.gated { &["wi_0", "wi_1"] } else { &["wi"] };
        let parts = names
            .iter()
            .map(|name| self.tensor(&format!("{block}.DenseReluDense.{name}.weight"), wide, model))
            .collect::<Result<_>>()?;
        let (rows, depth) = (Groups::plain(wide), Groups::plain(model));
        self.linear(&layer.input, &Sources { parts, rows, depth, factor: 1.0 });
        let parts = vec![self.tensor(&format!("{block}.DenseReluDense.wo.weight"), model, wide)?];
        let (rows, depth) = (Groups::plain(model), Groups::plain(wide));
        self.linear(&layer.output, &Sources { parts, rows, depth, factor: 1.0 });
        Ok(())
    }

    fn linear(&mut self, linear: &Linear, sources: &Sources) {
        let panels = &mut self.draft.panels.all_mut()[linear.panels.clone()];
        let scales = &mut self.draft.numbers.all_mut()[linear.scales.clone()];
        let sums = &mut self.draft.sums.all_mut()[linear.sums.clone()];
        for (column, scale) in scales.iter_mut().enumerate() {
            let Some(values) = sources.column(column) else { continue };
            let panel = column / PANEL * linear.panel_words();
            let panel = &mut panels[panel..panel + linear.panel_words()];
            let lane = column % PANEL;
            if linear.precision == Precision::Bfloat16 {
                *scale = sources.factor;
                for (source, place) in sources.places() {
                    let bits = u32::from(bfloat16(values[source])) << (16 * (place % 2));
                    panel[place / 2 * PANEL + lane] |= bits;
                }
                continue;
            }
            let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            if largest < f32::MIN_POSITIVE {
                continue;
            }
            let step = largest / WEIGHT_MAX;
            *scale = step * sources.factor;
            let mut sum = 0;
            for (source, place) in sources.places() {
                let weight = (values[source] / step + ROUNDER - ROUNDER) as i8;
                sum += i32::from(weight);
                panel[place / 4 * PANEL + lane] |= u32::from(weight as u8) << (8 * (place % 4));
            }
            sums[column] = sum;
        }
    }
}

fn copy(places: &mut [f32], values: &[f32]) {
    for (place, value) in places.iter_mut().zip(values) {
        *place = *value;
    }
}
