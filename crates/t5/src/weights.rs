//! Master weights as a pass uses them: cast, fused, and arranged by block.

use crate::Result;
use crate::attention::Attention;
use crate::config::Config;
use crate::feed_forward::FeedForward;
use crate::initialise::{DECODER_EMBEDDING, EMBEDDING, HEAD};
use crate::position_bias::Buckets;
use crate::stack::{Block, Stack};
use tch::Tensor;

/// The weights of one pass. Where the master weights require gradients, those of the pass reach them.
#[derive(Debug)]
pub struct Weights {
    /// What the encoder reads, `[vocab, d_model]`.
    pub(crate) encoder_embedding: Tensor,
    /// What the decoder reads, `[vocab, d_model]`.
    pub(crate) decoder_embedding: Tensor,
    pub(crate) encoder: Stack,
    pub(crate) decoder: Stack,
    /// `[vocab, d_model]`.
    pub(crate) head: Tensor,
    /// What the decoder's output is multiplied with before the head.
    pub(crate) head_scale: Option<f64>,
}

/// What a pass reads as one tensor.
#[derive(Debug)]
pub(crate) struct Part {
    /// The weights of which it consists, stacked along their first dimension.
    pub(crate) names: Vec<String>,
    /// Whether it is in the pass's number format; else in float32.
    pub(crate) cast: bool,
}

/// Where the parts of a pass come from.
pub(crate) struct WeightSource<'a> {
    pub(crate) config: &'a Config,
    pub(crate) find: &'a dyn Fn(&Part) -> Result<Tensor>,
}

impl WeightSource<'_> {
    pub(crate) fn weights(&self) -> Result<Weights> {
        let embedding = self.cast(EMBEDDING)?;
        let table = |own: bool, name: &str| if own { self.cast(name) } else { Ok(embedding.shallow_clone()) };
        Ok(Weights {
            encoder: self.stack("encoder", self.config.num_layers)?,
            decoder: self.stack("decoder", self.config.num_decoder_layers)?,
            head_scale: self.config.scale_decoder_outputs.then(|| (self.config.d_model as f64).powf(-0.5)),
            decoder_embedding: table(self.config.own_decoder_embedding, DECODER_EMBEDDING)?,
            head: table(self.config.own_head, HEAD)?,
            encoder_embedding: embedding,
        })
    }

    fn stack(&self, name: &str, layers: i64) -> Result<Stack> {
        let first = format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        Ok(Stack {
            blocks: (0..layers).map(|layer| self.block(name, layer)).collect::<Result<_>>()?,
            position_bias: self.whole(first)?,
            buckets: Buckets {
                count: self.config.relative_attention_num_buckets,
                distance_max: self.config.relative_attention_max_distance,
                two_sided: name == "encoder",
            },
            final_norm: self.whole(format!("{name}.final_layer_norm.weight"))?,
            epsilon: self.config.layer_norm_epsilon,
        })
    }

    fn block(&self, stack: &str, layer: i64) -> Result<Block> {
        let block = format!("{stack}.block.{layer}.layer");
        let attention = format!("{block}.0.SelfAttention");
        let cross = (stack == "decoder").then(|| self.cross(&format!("{block}.1"))).transpose()?;
        let last = format!("{block}.{}", if stack == "decoder" { 2 } else { 1 });
        Ok(Block {
            attention_norm: self.whole(format!("{block}.0.layer_norm.weight"))?,
            attention: Attention {
                query_projection: None,
                fused_projection: self.fused(&attention, &["q", "k", "v"])?,
                output_projection: self.cast(&format!("{attention}.o.weight"))?,
                heads: self.config.num_heads,
            },
            cross,
            feed_forward_norm: self.whole(format!("{last}.layer_norm.weight"))?,
            feed_forward: self.feed_forward(&format!("{last}.DenseReluDense"))?,
        })
    }

    fn cross(&self, layer: &str) -> Result<(Tensor, Attention)> {
        let name = format!("{layer}.EncDecAttention");
        let attention = Attention {
            query_projection: Some(self.cast(&format!("{name}.q.weight"))?),
            fused_projection: self.fused(&name, &["k", "v"])?,
            output_projection: self.cast(&format!("{name}.o.weight"))?,
            heads: self.config.num_heads,
        };
        Ok((self.whole(format!("{layer}.layer_norm.weight"))?, attention))
    }

    fn feed_forward(&self, name: &str) -> Result<FeedForward> {
        Ok(FeedForward {
            input: self.fused(name, self.config.feed_forward.inputs())?,
            output: self.cast(&format!("{name}.wo.weight"))?,
            kind: self.config.feed_forward,
        })
    }

    fn whole(&self, name: String) -> Result<Tensor> {
        (self.find)(&Part { names: vec![name], cast: false })
    }

    fn cast(&self, name: &str) -> Result<Tensor> {
        (self.find)(&Part { names: vec![name.to_owned()], cast: true })
    }

    fn fused(&self, name: &str, parts: &[&str]) -> Result<Tensor> {
        let names = parts.iter().map(|part| format!("{name}.{part}.weight")).collect();
        (self.find)(&Part { names, cast: true })
    }
}
