//! What a model looks like, and how exactly each kind of product is computed.

use crate::{Error, Result};

/// Largest width or count: beyond it a description is damaged, not a model.
const WIDTH_MAX: usize = 1 << 24;
/// Most summands of an integer product: 255 * 128 * 65,536 still fits 32 bits.
const DEPTH_MAX: usize = 1 << 16;
/// Most blocks of a stack.
const LAYERS_MAX: usize = 1 << 10;
/// Most values of one table (an embedding or the weights of a product).
const TABLE_MAX: usize = 1 << 36;

/// An activation function of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`: v1.0.
    Relu,
    /// GELU by the error function.
    Gelu,
    /// GELU in its tanh form: v1.1 and Flan.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
}

/// A T5's shape, in plain numbers. Fields are named as in a checkpoint's `config.json` where it has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one attention head.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Encoder blocks.
    pub num_layers: usize,
    /// Decoder blocks.
    pub num_decoder_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Buckets of the relative position bias.
    pub relative_attention_num_buckets: usize,
    /// Distance beyond which all positions share a bucket.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the norm.
    pub layer_norm_epsilon: f64,
    /// What the first projection of the feed-forward layer goes through.
    pub activation: Activation,
    /// Whether a second projection gates it.
    pub gated: bool,
    /// Whether the decoder reads an embedding of its own (`decoder.embed_tokens.weight`).
    pub own_decoder_embedding: bool,
    /// Whether the output projection is a weight of its own (`lm_head.weight`); else it is `shared.weight`.
    pub own_head: bool,
    /// Whether the decoder's output is scaled by d_model^-0.5 before the output projection: v1.0.
    pub scale_decoder_outputs: bool,
    /// The id that the decoder starts with.
    pub decoder_start_token_id: u32,
    /// The id that ends a sequence.
    pub eos_token_id: u32,
}

/// How one kind of product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Weights of 8 bits a column's scale, activations of 8 bits a row's scale, integer sums.
    #[default]
    Int8,
    /// Weights of 8 bits, activations of 16 bits, integer sums: twice the arithmetic, the same memory. For products whose
    /// activations have outliers.
    Int8Wide,
    /// Weights in bfloat16, activations and sums in float32: twice the memory.
    Bfloat16,
}

/// How each kind of product is computed, in the encoder and the decoder alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Precisions {
    /// Queries, keys and values.
    pub attention_input: Precision,
    /// The projection of what was attended.
    pub attention_output: Precision,
    /// `wi`, or `wi_0` and `wi_1`.
    pub feed_forward_input: Precision,
    /// `wo`: its activations are known for outliers.
    pub feed_forward_output: Precision,
    /// The output projection.
    pub head: Precision,
}

impl Precisions {
    /// Every product in the same precision.
    pub fn all(precision: Precision) -> Self {
        Self {
            attention_input: precision,
            attention_output: precision,
            feed_forward_input: precision,
            feed_forward_output: precision,
            head: precision,
        }
    }
}

/// The shape's widths as they are stored: padded so that every tile is whole. Padding is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Widths {
    /// The residual stream, a multiple of 64.
    pub(crate) model: usize,
    /// One head, a multiple of 16.
    pub(crate) head: usize,
    /// All heads, a multiple of 64.
    pub(crate) inner: usize,
    /// The feed-forward layer, a multiple of 64.
    pub(crate) wide: usize,
    /// The vocabulary, a multiple of 16.
    pub(crate) vocabulary: usize,
}

impl Shape {
    /// The padded widths.
    ///
    /// # Errors
    /// A field lies outside what the engine computes: the field is named.
    pub(crate) fn widths(&self) -> Result<Widths> {
        self.check_counts()?;
        let wrong = |field, message: String| Err(Error::Shape { field, message });
        let head = self.d_kv.next_multiple_of(16);
        let inner = head.saturating_mul(self.num_heads).next_multiple_of(64);
        let widths = Widths {
            model: self.d_model.next_multiple_of(64),
            head,
            inner,
            wide: self.d_ff.next_multiple_of(64),
            vocabulary: self.vocab_size.next_multiple_of(16),
        };
        for (field, depth) in [("d_model", widths.model), ("num_heads", inner), ("d_ff", widths.wide)] {
            if depth > DEPTH_MAX {
                return wrong(field, format!("makes products of {depth} summands: at most {DEPTH_MAX}"));
            }
        }
        if widths.vocabulary.saturating_mul(widths.model) > TABLE_MAX {
            return wrong("vocab_size", "makes an embedding too large to hold".to_owned());
        }
        Ok(widths)
    }

    fn check_counts(&self) -> Result<()> {
        let wrong = |field, message: String| Err(Error::Shape { field, message });
        for (field, value, most) in [
            ("d_model", self.d_model, WIDTH_MAX),
            ("d_kv", self.d_kv, WIDTH_MAX),
            ("d_ff", self.d_ff, WIDTH_MAX),
            ("num_layers", self.num_layers, LAYERS_MAX),
            ("num_decoder_layers", self.num_decoder_layers, LAYERS_MAX),
            ("num_heads", self.num_heads, WIDTH_MAX),
            ("vocab_size", self.vocab_size, WIDTH_MAX),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets, WIDTH_MAX),
            ("relative_attention_max_distance", self.relative_attention_max_distance, WIDTH_MAX),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(field, format!("is {value}: it must be a whole number from 1 to {most}"));
            }
        }
        let (buckets, farthest) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets < 4 {
            return wrong("relative_attention_num_buckets", format!("is {buckets}: at least 4"));
        }
        if farthest <= buckets / 2 {
            let message = format!("is {farthest}: it must lie beyond {} distances", buckets / 2);
            return wrong("relative_attention_max_distance", message);
        }
        if !(0.0..1.0).contains(&self.layer_norm_epsilon) {
            let message = format!("is {}: it must lie between 0 and 1", self.layer_norm_epsilon);
            return wrong("layer_norm_epsilon", message);
        }
        for (field, id) in
            [("decoder_start_token_id", self.decoder_start_token_id), ("eos_token_id", self.eos_token_id)]
        {
            if id as usize >= self.vocab_size {
                return wrong(field, format!("is {id}, and the vocabulary ends at {}", self.vocab_size - 1));
            }
        }
        Ok(())
    }
}
