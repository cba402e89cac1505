//! Where everything lies in a packed model. The plan follows from the shape and the precisions alone.

use crate::shape::{Precision, Precisions, Shape, Widths};
use crate::tile::PANEL;
use crate::{Error, Result};
use std::ops::Range;

/// A product's weights: where they lie, and their padded size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linear {
    /// In the panels: words of four bytes.
    pub(crate) panels: Range<usize>,
    /// Padded to a multiple of 16.
    pub(crate) columns: usize,
    /// Padded to a multiple of 64.
    pub(crate) depth: usize,
    /// In the numbers: one scale a column.
    pub(crate) scales: Range<usize>,
    /// In the sums: that of each column's weights, 8-bit weights only.
    pub(crate) sums: Range<usize>,
    pub(crate) precision: Precision,
}

impl Linear {
    /// Panels of 16 columns.
    pub(crate) fn panel_count(&self) -> usize {
        self.columns / PANEL
    }

    /// Words of one panel.
    pub(crate) fn panel_words(&self) -> usize {
        panel_words(self.depth, self.precision)
    }
}

fn panel_words(depth: usize, precision: Precision) -> usize {
    match precision {
        Precision::Int8 | Precision::Int8Wide => depth * PANEL / 4,
        Precision::Bfloat16 => depth * PANEL / 2,
    }
}

/// A norm's weights in the numbers, `[model]`.
pub(crate) type Norm = Range<usize>;

/// One block of the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncoderLayer {
    pub(crate) attention_norm: Norm,
    /// Columns `[heads][query, key, value][head]`.
    pub(crate) attention_input: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) feed_forward: FeedForward,
}

/// The feed-forward layer with its norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedForward {
    pub(crate) norm: Norm,
    /// Where it is gated, 16 columns of `wi_0`, then 16 of `wi_1`, and so on.
    pub(crate) input: Linear,
    pub(crate) output: Linear,
}

/// One block of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecoderLayer {
    pub(crate) attention_norm: Norm,
    /// Columns `[heads][query, key, value][head]`.
    pub(crate) attention_input: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) cross_norm: Norm,
    /// Columns `[heads][head]`.
    pub(crate) cross_query: Linear,
    pub(crate) cross_output: Linear,
    pub(crate) feed_forward: FeedForward,
}

/// Lengths of the four memories of a packed model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Words of panels.
    pub(crate) panels: usize,
    /// float32 numbers: scales, norms, position bias.
    pub(crate) numbers: usize,
    /// int32 sums of columns.
    pub(crate) sums: usize,
    /// bfloat16 numbers of embeddings.
    pub(crate) embeddings: usize,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) widths: Widths,
    pub(crate) encoder: Vec<EncoderLayer>,
    /// Keys and values that each decoder block reads of the encoder's output: columns `[heads][key, value][head]`.
    pub(crate) cross: Vec<Linear>,
    pub(crate) decoder: Vec<DecoderLayer>,
    pub(crate) encoder_norm: Norm,
    pub(crate) decoder_norm: Norm,
    /// `[buckets, heads]`.
    pub(crate) encoder_bias: Range<usize>,
    /// `[buckets, heads]`.
    pub(crate) decoder_bias: Range<usize>,
    pub(crate) head: Linear,
    /// `[vocabulary, model]`.
    pub(crate) encoder_embedding: Range<usize>,
    /// `[vocabulary, model]`: the encoder's, or its own.
    pub(crate) decoder_embedding: Range<usize>,
    pub(crate) totals: Totals,
}

struct Planner<'a> {
    widths: Widths,
    heads: usize,
    gated: bool,
    precisions: &'a Precisions,
    totals: Totals,
}

fn take(total: &mut usize, length: Option<usize>) -> Result<Range<usize>> {
    let start = *total;
    let end = length.and_then(|length| start.checked_add(length)).filter(|end| *end < 1 << 40);
    let end = end.ok_or_else(|| Error::Shape {
        field: "d_model",
        message: "makes a model too large to hold".to_owned(),
    })?;
    *total = end;
    Ok(start..end)
}

impl Planner<'_> {
    fn linear(&mut self, columns: usize, depth: usize, precision: Precision) -> Result<Linear> {
        let words = panel_words(depth, precision).checked_mul(columns / PANEL);
        let sums = if precision == Precision::Bfloat16 { 0 } else { columns };
        Ok(Linear {
            panels: take(&mut self.totals.panels, words)?,
            columns,
            depth,
            scales: take(&mut self.totals.numbers, Some(columns))?,
            sums: take(&mut self.totals.sums, Some(sums))?,
            precision,
        })
    }

    fn numbers(&mut self, length: Option<usize>) -> Result<Range<usize>> {
        take(&mut self.totals.numbers, length)
    }

    fn norm(&mut self) -> Result<Norm> {
        self.numbers(Some(self.widths.model))
    }

    /// Queries, keys or values: `parts` times all heads.
    fn projection(&mut self, parts: usize) -> Result<Linear> {
        let columns = parts * self.heads * self.widths.head;
        self.linear(columns, self.widths.model, self.precisions.attention_input)
    }

    fn attention_output(&mut self) -> Result<Linear> {
        self.linear(self.widths.model, self.widths.inner, self.precisions.attention_output)
    }

    fn feed_forward(&mut self) -> Result<FeedForward> {
        let parts = if self.gated { 2 } else { 1 };
        Ok(FeedForward {
            norm: self.norm()?,
            input: self.linear(
                parts * self.widths.wide,
                self.widths.model,
                self.precisions.feed_forward_input,
            )?,
            output: self.linear(self.widths.model, self.widths.wide, self.precisions.feed_forward_output)?,
        })
    }

    fn encoder_layer(&mut self) -> Result<EncoderLayer> {
        Ok(EncoderLayer {
            attention_norm: self.norm()?,
            attention_input: self.projection(3)?,
            attention_output: self.attention_output()?,
            feed_forward: self.feed_forward()?,
        })
    }

    fn decoder_layer(&mut self) -> Result<DecoderLayer> {
        Ok(DecoderLayer {
            attention_norm: self.norm()?,
            attention_input: self.projection(3)?,
            attention_output: self.attention_output()?,
            cross_norm: self.norm()?,
            cross_query: self.projection(1)?,
            cross_output: self.attention_output()?,
            feed_forward: self.feed_forward()?,
        })
    }
}

impl Plan {
    /// The plan of a model.
    ///
    /// # Errors
    /// A field of the shape lies outside what the engine computes: it is named.
    pub(crate) fn new(shape: &Shape, precisions: &Precisions) -> Result<Self> {
        let widths = shape.widths()?;
        let mut planner = Planner {
            widths,
            heads: shape.num_heads,
            gated: shape.gated,
            precisions,
            totals: Totals::default(),
        };
        let encoder = (0..shape.num_layers).map(|_| planner.encoder_layer()).collect::<Result<Vec<_>>>()?;
        let cross =
            (0..shape.num_decoder_layers).map(|_| planner.projection(2)).collect::<Result<Vec<_>>>()?;
        let decoder =
            (0..shape.num_decoder_layers).map(|_| planner.decoder_layer()).collect::<Result<Vec<_>>>()?;
        let head = planner.linear(widths.vocabulary, widths.model, precisions.head)?;
        let (encoder_norm, decoder_norm) = (planner.norm()?, planner.norm()?);
        let table = shape.relative_attention_num_buckets.checked_mul(shape.num_heads);
        let (encoder_bias, decoder_bias) = (planner.numbers(table)?, planner.numbers(table)?);
        let embedding = shape.vocab_size.checked_mul(widths.model);
        let encoder_embedding = take(&mut planner.totals.embeddings, embedding)?;
        let decoder_embedding = if shape.own_decoder_embedding {
            take(&mut planner.totals.embeddings, embedding)?
        } else {
            encoder_embedding.clone()
        };
        let totals = planner.totals;
        Ok(Self {
            widths,
            encoder,
            cross,
            decoder,
            encoder_norm,
            decoder_norm,
            encoder_bias,
            decoder_bias,
            head,
            encoder_embedding,
            decoder_embedding,
            totals,
        })
    }
}
