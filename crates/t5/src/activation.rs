//! What a feed-forward layer makes of its input projection, of the library's operators.

use crate::config::{Activation, FeedForwardKind};
use tch::Tensor;

/// The activation of the input projection, or that of its first half times its second.
pub(crate) fn activate(wide: &Tensor, kind: FeedForwardKind) -> Tensor {
    if !kind.gated {
        return apply(kind.activation, wide);
    }
    let half = wide.size().last().copied().unwrap_or(0) / 2;
    apply(kind.activation, &wide.narrow(-1, 0, half)) * wide.narrow(-1, half, half)
}

fn apply(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Gelu => x.gelu("none"),
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::Silu => x.silu(),
    }
}
