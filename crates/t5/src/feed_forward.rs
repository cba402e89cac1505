//! The feed-forward layer, gated or not.

use crate::Result;
use crate::config::FeedForwardKind;
use crate::pass::Pass;
use tch::Tensor;

/// Projections in the pass's number format.
#[derive(Debug)]
pub(crate) struct FeedForward {
    /// `[d_ff, d_model]`, or `[2 * d_ff, d_model]` where it is gated: `[wi_0; wi_1]`.
    pub(crate) input: Tensor,
    /// `[d_model, d_ff]`.
    pub(crate) output: Tensor,
    pub(crate) kind: FeedForwardKind,
}

impl FeedForward {
    /// `x` and the result are `[batch, length, d_model]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let wide = pass.linear(x, &self.input)?;
        let active = pass.activate(&wide, self.kind)?;
        pass.linear(&pass.drop(&active)?, &self.output)
    }
}
