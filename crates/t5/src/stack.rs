//! A stack of blocks: the encoder, or the decoder.

use crate::Result;
use crate::attention::{Attention, KeyValue};
use crate::feed_forward::FeedForward;
use crate::pass::Pass;
use crate::position_bias::Buckets;
use crate::rows::Rows;
use crate::score_bias::ScoreBias;
use tch::Tensor;

/// One block: self-attention, cross-attention in the decoder, feed-forward; each after a norm and with a residual connection.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Tensor,
    pub(crate) attention: Attention,
    pub(crate) cross: Option<(Tensor, Attention)>,
    pub(crate) feed_forward_norm: Tensor,
    pub(crate) feed_forward: FeedForward,
}

/// A stack with its shared position bias and its last norm.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) blocks: Vec<Block>,
    /// `[buckets, heads]` in float32.
    pub(crate) position_bias: Tensor,
    pub(crate) buckets: Buckets,
    pub(crate) final_norm: Tensor,
    pub(crate) epsilon: f64,
}

/// Keys and values of one decoder block.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    /// Keys and values of the tokens so far; `None` before the first.
    pub(crate) own: Option<KeyValue>,
    /// Keys and values of the encoder's output.
    pub(crate) encoded: KeyValue,
}

/// The encoder's output, as the decoder of a whole target reads it.
pub(crate) struct Encoded<'a> {
    /// The states of `rows`.
    pub(crate) states: &'a Tensor,
    pub(crate) rows: &'a Rows,
    /// float32 `[batch, 1, 1, source]`.
    pub(crate) mask: &'a Tensor,
}

impl Stack {
    /// The encoder's pass. `x` are the states of `rows`, `mask` is float32 `[batch, 1, 1, length]`.
    pub(crate) fn encode(&self, x: &Tensor, rows: &Rows, mask: &Tensor, pass: &Pass) -> Result<Tensor> {
        let length = mask.size().last().copied().unwrap_or(0);
        let bias = self.bias(0, length, length, Some(mask));
        let mut x = pass.drop(x)?;
        for block in &self.blocks {
            let normed = self.norm(&x, &block.attention_norm, pass)?;
            let (query, key_value) = block.attention.project(&normed, rows, pass)?;
            x = pass.drop_added(&block.attention.attend(&query, &key_value, rows, &bias, pass)?, &x)?;
            x = self.feed_forward(&x, block, pass)?;
        }
        pass.drop(&self.norm(&x, &self.final_norm, pass)?)
    }

    /// The decoder's pass over whole targets. `x` are the states of `rows`; `causal` is float32 `[1, 1, length, length]`.
    pub(crate) fn decode(
        &self,
        x: &Tensor,
        rows: &Rows,
        causal: &Tensor,
        encoded: &Encoded<'_>,
        pass: &Pass,
    ) -> Result<Tensor> {
        let length = causal.size().last().copied().unwrap_or(0);
        let bias = self.bias(0, length, length, Some(causal));
        let hidden = ScoreBias { position: None, mask: Some(encoded.mask.shallow_clone()) };
        let mut x = pass.drop(x)?;
        for block in &self.blocks {
            let normed = self.norm(&x, &block.attention_norm, pass)?;
            let (query, key_value) = block.attention.project(&normed, rows, pass)?;
            x = pass.drop_added(&block.attention.attend(&query, &key_value, rows, &bias, pass)?, &x)?;
            if let Some((cross_norm, cross)) = &block.cross {
                let query = cross.query(&self.norm(&x, cross_norm, pass)?, rows, pass)?;
                let key_value = cross.project_kv(encoded.states, encoded.rows, pass)?;
                let attended = cross.attend(&query, &key_value, rows, &hidden, pass)?;
                x = pass.drop_added(&attended, &x)?;
            }
            x = self.feed_forward(&x, block, pass)?;
        }
        pass.drop(&self.norm(&x, &self.final_norm, pass)?)
    }

    /// The cache of every block before the first step: keys and values of the encoder's output.
    pub(crate) fn project_kv(&self, encoded: &Tensor) -> Result<Vec<KeyValueCache>> {
        let project = |(_, cross): &(Tensor, Attention)| {
            Ok(KeyValueCache {
                own: None,
                encoded: cross.project_kv(encoded, &Rows::Padded, &Pass::undropped())?,
            })
        };
        self.blocks.iter().filter_map(|block| block.cross.as_ref().map(project)).collect()
    }

    /// One step of the decoder: `x` is `[batch, 1, d_model]`, the token at `position`.
    pub(crate) fn step(
        &self,
        x: &Tensor,
        caches: &mut [KeyValueCache],
        position: i64,
        mask: &Tensor,
    ) -> Result<Tensor> {
        let (pass, rows) = (&Pass::undropped(), &Rows::Padded);
        let bias = self.bias(position, 1, position + 1, None);
        let hidden = ScoreBias { position: None, mask: Some(mask.shallow_clone()) };
        let mut x = x.shallow_clone();
        for (block, cache) in self.blocks.iter().zip(caches) {
            let normed = self.norm(&x, &block.attention_norm, pass)?;
            let (query, next) = block.attention.project(&normed, rows, pass)?;
            let own = match cache.own.take() {
                Some(past) => past.append(&next),
                None => next,
            };
            x = &x + block.attention.attend(&query, &own, rows, &bias, pass)?;
            cache.own = Some(own);
            if let Some((cross_norm, cross)) = &block.cross {
                let query = cross.query(&self.norm(&x, cross_norm, pass)?, rows, pass)?;
                x = &x + cross.attend(&query, &cache.encoded, rows, &hidden, pass)?;
            }
            x = self.feed_forward(&x, block, pass)?;
        }
        self.norm(&x, &self.final_norm, pass)
    }

    /// What self-attention adds to the scores of queries at positions `from..from + queries` and keys at `0..keys`.
    fn bias(&self, from: i64, queries: i64, keys: i64, mask: Option<&Tensor>) -> ScoreBias {
        let position = self.buckets.bias(&self.position_bias, from, queries, keys);
        ScoreBias { position: Some(position), mask: mask.map(Tensor::shallow_clone) }
    }

    fn feed_forward(&self, x: &Tensor, block: &Block, pass: &Pass) -> Result<Tensor> {
        let normed = self.norm(x, &block.feed_forward_norm, pass)?;
        pass.drop_added(&block.feed_forward.forward(&normed, pass)?, x)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor, pass: &Pass) -> Result<Tensor> {
        pass.norm(x, weight, self.epsilon)
    }
}
