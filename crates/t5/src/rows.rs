//! How the rows of a pass lie in memory.

use crate::Result;
use tch::Tensor;

/// How the rows of a pass lie in memory.
#[derive(Debug)]
pub(crate) enum Rows {
    /// `[batch, length, ..]`: every row is as long as the longest.
    Padded,
    /// `[tokens, ..]`: end to end, so that nothing is computed for a position that is none. Attention alone pads them.
    Packed(kernels::Rows),
}

impl Rows {
    /// Projected states, `[.., PARTS * heads * d_kv]`, as attention reads them: each part `[batch, heads, length, d_kv]`.
    pub(crate) fn heads<const PARTS: usize>(&self, states: &Tensor, heads: i64) -> Result<[Tensor; PARTS]> {
        match self {
            Self::Packed(rows) => Ok(rows.spread(states, heads)?),
            Self::Padded => {
                let mut parts = states.f_chunk(PARTS as i64, -1)?.into_iter();
                let of = |part: Tensor| {
                    let size = part.size();
                    let (batch, length) =
                        (size.first().copied().unwrap_or(0), size.get(1).copied().unwrap_or(0));
                    part.reshape([batch, length, heads, -1]).transpose(1, 2)
                };
                Ok(std::array::from_fn(|_| parts.next().map_or_else(Tensor::new, of)))
            }
        }
    }

    /// What attention made, `[batch, heads, length, d_kv]`, as states again: `[.., heads * d_kv]`.
    pub(crate) fn states(&self, attended: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(rows) => Ok(rows.gather(attended)?),
            Self::Padded => {
                let size = attended.size();
                let (batch, length) = (size.first().copied().unwrap_or(0), size.get(2).copied().unwrap_or(0));
                Ok(attended.transpose(1, 2).f_reshape([batch, length, -1])?)
            }
        }
    }
}
