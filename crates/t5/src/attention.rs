//! Attention without the 1/sqrt(d) scaling: the initialisation of the queries includes it.

use crate::Result;
use crate::pass::Pass;
use tch::{Kind, Tensor};

/// Projections of one attention, in the pass's number format. Input projections that read the same states are one
/// matrix: `[q; k; v]` in self-attention, `[k; v]` in cross-attention.
#[derive(Debug)]
pub(crate) struct Attention {
    /// `[inner, d_model]`, cross-attention only: self-attention's queries are the first part of `fused_projection`.
    pub(crate) query_projection: Option<Tensor>,
    /// `[3 * inner, d_model]` or `[2 * inner, d_model]`.
    pub(crate) fused_projection: Tensor,
    /// `[d_model, inner]`.
    pub(crate) output_projection: Tensor,
    pub(crate) heads: i64,
}

/// Keys and values, each `[batch, heads, key, d_kv]`.
#[derive(Debug)]
pub(crate) struct KeyValue {
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
}

impl KeyValue {
    pub(crate) fn select(&self, rows: &Tensor) -> Self {
        Self { key: self.key.index_select(0, rows), value: self.value.index_select(0, rows) }
    }

    /// `self` followed by `next`.
    pub(crate) fn append(&self, next: &Self) -> Self {
        Self {
            key: Tensor::cat(&[&self.key, &next.key], 2),
            value: Tensor::cat(&[&self.value, &next.value], 2),
        }
    }
}

impl Attention {
    /// Queries, keys and values of self-attention over `x`, `[batch, length, d_model]`.
    pub(crate) fn project(&self, x: &Tensor) -> (Tensor, KeyValue) {
        let parts = x.linear(&self.fused_projection, None::<&Tensor>).chunk(3, -1);
        let [query, key, value] = self.split(parts);
        (query, KeyValue { key, value })
    }

    /// Keys and values of cross-attention over the encoder's output.
    pub(crate) fn project_kv(&self, encoded: &Tensor) -> KeyValue {
        let parts = encoded.linear(&self.fused_projection, None::<&Tensor>).chunk(2, -1);
        let [key, value] = self.split(parts);
        KeyValue { key, value }
    }

    /// Queries of cross-attention.
    pub(crate) fn query(&self, x: &Tensor) -> Tensor {
        match &self.query_projection {
            Some(projection) => self.heads_of(&x.linear(projection, None::<&Tensor>)),
            None => self.project(x).0,
        }
    }

    /// The attended values, projected: `[batch, query, d_model]`. `bias` is float32 and broadcasts to
    /// `[batch, heads, query, key]`; masked positions hold a large negative number.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        cached: &KeyValue,
        bias: &Tensor,
        pass: &Pass,
    ) -> Result<Tensor> {
        let kind = query.kind();
        let scores = query.matmul(&cached.key.transpose(-1, -2)).to_kind(Kind::Float) + bias;
        let weights = pass.drop(&scores.softmax(-1, Kind::Float).to_kind(kind))?;
        let (batch, length) =
            (query.size().first().copied().unwrap_or(0), query.size().get(2).copied().unwrap_or(0));
        let attended = weights.matmul(&cached.value).transpose(1, 2).reshape([batch, length, -1]);
        Ok(attended.linear(&self.output_projection, None::<&Tensor>))
    }

    fn heads_of(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (batch, length) = (size.first().copied().unwrap_or(0), size.get(1).copied().unwrap_or(0));
        x.reshape([batch, length, self.heads, -1]).transpose(1, 2)
    }

    fn split<const PARTS: usize>(&self, parts: Vec<Tensor>) -> [Tensor; PARTS] {
        let mut parts = parts.into_iter();
        std::array::from_fn(|_| parts.next().map_or_else(Tensor::new, |part| self.heads_of(&part)))
    }
}
