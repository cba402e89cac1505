//! What is added to the scores of an attention.

use tch::Tensor;

/// What is added to the scores of an attention, in float32.
#[derive(Debug)]
pub(crate) struct ScoreBias {
    /// Learned, `[1, heads, query, key]`.
    pub(crate) position: Option<Tensor>,
    /// A large negative number where a key is hidden: `[batch, 1, 1, key]` or `[1, 1, query, key]`.
    pub(crate) mask: Option<Tensor>,
}
