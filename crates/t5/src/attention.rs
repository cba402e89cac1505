//! Attention without the 1/sqrt(d) scaling: the initialisation of the queries includes it.

use crate::Result;
use crate::pass::Pass;
use crate::rows::Rows;
use crate::score_bias::ScoreBias;
use tch::Tensor;

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
    pub(crate) fn project(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, KeyValue)> {
        let [query, key, value] = rows.heads(&pass.linear(x, &self.fused_projection)?, self.heads)?;
        Ok((query, KeyValue { key, value }))
    }

    /// Keys and values of cross-attention over the encoder's output, the states of `rows`.
    pub(crate) fn project_kv(&self, encoded: &Tensor, rows: &Rows, pass: &Pass) -> Result<KeyValue> {
        let [key, value] = rows.heads(&pass.linear(encoded, &self.fused_projection)?, self.heads)?;
        Ok(KeyValue { key, value })
    }

    /// Queries of cross-attention over `x`, the states of `rows`.
    pub(crate) fn query(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<Tensor> {
        let Some(projection) = &self.query_projection else { return Ok(self.project(x, rows, pass)?.0) };
        let [query] = rows.heads(&pass.linear(x, projection)?, self.heads)?;
        Ok(query)
    }

    /// The attended values as states of the queries' `rows`, projected.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        cached: &KeyValue,
        rows: &Rows,
        bias: &ScoreBias,
        pass: &Pass,
    ) -> Result<Tensor> {
        let scores = query.matmul(&cached.key.transpose(-1, -2));
        let weights = pass.drop(&pass.attention_weights(&scores, bias)?)?;
        let attended = rows.states(&weights.f_matmul(&cached.value)?)?;
        pass.linear(&attended, &self.output_projection)
    }
}
