//! Root-mean-square norm: no mean, no bias, in float32 whatever goes in.

use tch::{Kind, Tensor};

/// `weight * x / sqrt(mean(x^2) + epsilon)`. `x` is `[.., d_model]`, `weight` `[d_model]` in float32; the result is `kind`.
pub(crate) fn norm(x: &Tensor, weight: &Tensor, epsilon: f64, kind: Kind) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let scale = (x.square().mean_dim(&[-1_i64][..], true, Kind::Float) + epsilon).rsqrt();
    (x * scale * weight).to_kind(kind)
}
