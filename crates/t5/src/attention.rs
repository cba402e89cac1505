//! Attention without the 1/sqrt(d) scaling: the initialisation of the queries includes it.

use crate::Result;
use crate::pass::Pass;
use crate::rows::Rows;
use tch::{Kind, Tensor};

const NO_BIAS: Option<&Tensor> = None;

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
    /// Queries, keys and values of self-attention over `x`, the states of `rows`.
    pub(crate) fn project(&self, x: &Tensor, rows: &Rows) -> Result<(Tensor, KeyValue)> {
        let [query, key, value] = rows.heads(&x.f_linear(&self.fused_projection, NO_BIAS)?, self.heads)?;
        Ok((query, KeyValue { key, value }))
    }

    /// Keys and values of cross-attention over the encoder's output, the states of `rows`.
    pub(crate) fn project_kv(&self, encoded: &Tensor, rows: &Rows) -> Result<KeyValue> {
        let [key, value] = rows.heads(&encoded.f_linear(&self.fused_projection, NO_BIAS)?, self.heads)?;
        Ok(KeyValue { key, value })
    }

    /// Queries of cross-attention over `x`, the states of `rows`.
    pub(crate) fn query(&self, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let Some(projection) = &self.query_projection else { return Ok(self.project(x, rows)?.0) };
        let [query] = rows.heads(&x.f_linear(projection, NO_BIAS)?, self.heads)?;
        Ok(query)
    }

    /// The attended values as states of the queries' `rows`, projected. `bias` is float32 and broadcasts to
    /// `[batch, heads, query, key]`; masked positions hold a large negative number.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        cached: &KeyValue,
        rows: &Rows,
        bias: &Tensor,
        pass: &Pass,
    ) -> Result<Tensor> {
        let kind = query.kind();
        let scores = query.matmul(&cached.key.transpose(-1, -2)).to_kind(Kind::Float) + bias;
        let weights = pass.drop(&scores.softmax(-1, Kind::Float).to_kind(kind))?;
        let attended = rows.states(&weights.f_matmul(&cached.value)?)?;
        Ok(attended.f_linear(&self.output_projection, NO_BIAS)?)
    }
}
