//! From sums to numbers, what follows a product element by element, and products in float32.

use crate::lanes::{LANES, Lanes, for_vectors};
use crate::shape::Activation;
use crate::tile::STRIDE;

/// Integer sums of a group of rows and columns, and what makes numbers of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums<'a> {
    /// `[rows][STRIDE]`; of the high bytes where there are low ones.
    pub(crate) high: &'a [i32],
    /// The same of the low bytes.
    pub(crate) low: Option<&'a [i32]>,
    /// The sum of each column's weights.
    pub(crate) columns: &'a [i32],
    /// Scale of each column.
    pub(crate) scales: &'a [f32],
    /// Scale of each row.
    pub(crate) row_scales: &'a [f32],
}

#[inline(always)]
fn finish_rows<L: Lanes>(sums: &Sums<'_>, out: &mut [f32]) {
    let columns = sums.columns.as_chunks::<LANES>().0;
    let scales = sums.scales.as_chunks::<LANES>().0;
    let rows = out.chunks_exact_mut(STRIDE).zip(sums.row_scales).zip(sums.high.chunks_exact(STRIDE));
    for (row, ((out, row_scale), high)) in rows.enumerate() {
        let row_scale = L::splat(*row_scale);
        let low = sums.low.and_then(|low| low.get(row * STRIDE..(row + 1) * STRIDE));
        let low = low.unwrap_or_default().as_chunks::<LANES>().0;
        let parts = out.as_chunks_mut::<LANES>().0.iter_mut().zip(high.as_chunks::<LANES>().0);
        for (index, (((out, high), columns), scales)) in parts.zip(columns).zip(scales).enumerate() {
            finished::<L>(high, low.get(index), columns, scales).multiply(row_scale).store(out);
        }
    }
}

for_vectors!(
    /// `out[row * STRIDE + column]` = (sum - 128 * column's sum) * column's scale * row's scale.
    finish = finish_rows(sums: &Sums<'_>, out: &mut [f32])
);

/// Integer sums of one row of a group; otherwise as [`Sums`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSums<'a> {
    pub(crate) high: &'a [i32],
    pub(crate) low: Option<&'a [i32]>,
    pub(crate) columns: &'a [i32],
    pub(crate) scales: &'a [f32],
    pub(crate) row_scale: f32,
}

#[inline(always)]
fn finish_one<L: Lanes>(sums: &RowSums<'_>, added: bool, out: &mut [f32]) {
    let row_scale = L::splat(sums.row_scale);
    let low = sums.low.unwrap_or_default().as_chunks::<LANES>().0;
    let parts = out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.high.as_chunks::<LANES>().0);
    let columns = sums.columns.as_chunks::<LANES>().0.iter().zip(sums.scales.as_chunks::<LANES>().0);
    for (index, ((out, high), (columns, scales))) in parts.zip(columns).enumerate() {
        let value = finished::<L>(high, low.get(index), columns, scales).multiply(row_scale);
        let value = if added { L::load(out).add(value) } else { value };
        value.store(out);
    }
}

for_vectors!(
    /// `out[column]` = (sum - 128 * column's sum) * column's scale * row's scale, or that is `added` to it.
    finish_row = finish_one(sums: &RowSums<'_>, added: bool, out: &mut [f32])
);

/// (sum - 128 * column's sum) * column's scale.
#[inline(always)]
fn finished<L: Lanes>(
    high: &[i32; LANES],
    low: Option<&[i32; LANES]>,
    columns: &[i32; LANES],
    scales: &[f32; LANES],
) -> L {
    let mut centred = [0; LANES];
    for ((centred, high), column) in centred.iter_mut().zip(high).zip(columns) {
        *centred = high.wrapping_sub(column.wrapping_mul(128));
    }
    let mut value = L::of_integers(&centred);
    if let Some(low) = low {
        value = value.fused(L::splat(256.0), L::of_integers(low));
    }
    value.multiply(L::load(scales))
}

/// Operands of a product in float32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats<'a> {
    /// Panels of bfloat16 pairs, `[panels][depth / 2][16]`.
    pub(crate) weights: &'a [u32],
    pub(crate) depth: usize,
    /// `[rows][depth]`.
    pub(crate) activations: &'a [f32],
    pub(crate) scales: &'a [f32],
}

#[inline(always)]
fn float_rows<L: Lanes>(operands: &Floats<'_>, out: &mut [f32]) {
    let depth = operands.depth;
    let panels = operands.weights.chunks_exact(depth / 2 * LANES);
    for (index, (panel, scales)) in panels.zip(operands.scales.as_chunks::<LANES>().0).enumerate() {
        let panel = panel.as_chunks::<LANES>().0;
        let mut rows = operands.activations.chunks_exact(depth);
        let mut outs =
            out.chunks_exact_mut(STRIDE).filter_map(|row| row.as_chunks_mut::<LANES>().0.get_mut(index));
        loop {
            let taken: [Option<&[f32]>; 4] = std::array::from_fn(|_| rows.next());
            let [Some(first), second, third, fourth] = taken else { break };
            let four = [first, second.unwrap_or(first), third.unwrap_or(first), fourth.unwrap_or(first)];
            let sums = four_rows::<L>(panel, four);
            for (sum, row) in sums.into_iter().zip(taken) {
                if let Some(out) = row.and_then(|_| outs.next()) {
                    sum.multiply(L::load(scales)).store(out);
                }
            }
        }
    }
}

/// Even summands and odd ones add up apart.
#[inline(always)]
fn four_rows<L: Lanes>(panel: &[[u32; LANES]], rows: [&[f32]; 4]) -> [L; 4] {
    let [first, second, third, fourth] = rows.map(|row| row.as_chunks::<2>().0);
    let mut even = [L::splat(0.0); 4];
    let mut odd = [L::splat(0.0); 4];
    for ((((pairs, first), second), third), fourth) in
        panel.iter().zip(first).zip(second).zip(third).zip(fourth)
    {
        let (low, high) = L::of_pairs(pairs);
        for (((even, odd), value), _) in
            even.iter_mut().zip(&mut odd).zip([first, second, third, fourth]).zip(0..4)
        {
            let [left, right] = *value;
            *even = low.fused(L::splat(left), *even);
            *odd = high.fused(L::splat(right), *odd);
        }
    }
    let mut sums = even;
    for (sum, odd) in sums.iter_mut().zip(odd) {
        *sum = sum.add(odd);
    }
    sums
}

for_vectors!(
    /// Products of float32 activations with bfloat16 weights, `out[row * STRIDE + column]`.
    multiply_floats = float_rows(operands: &Floats<'_>, out: &mut [f32])
);

/// `x / (1 + e^-y)`.
#[inline(always)]
fn times_sigmoid<L: Lanes>(x: L, y: L) -> L {
    x.divide(L::splat(1.0).add(L::splat(0.0).subtract(y).exponential()))
}

/// Twice the square root of 2 / pi.
const TANH_FACTOR: f32 = 1.595_769_2;

#[inline(always)]
fn active<L: Lanes>(activation: Activation, x: L) -> L {
    match activation {
        // Not a number stays so: it is the second operand.
        Activation::Relu => L::splat(0.0).larger(x),
        Activation::Silu => times_sigmoid(x, x),
        // 0.5 x (1 + tanh(z)) = x sigmoid(2 z).
        Activation::GeluTanh => {
            let inner = x.multiply(x).fused(L::splat(0.044_715 * TANH_FACTOR), L::splat(TANH_FACTOR));
            times_sigmoid(x, x.multiply(inner))
        }
        Activation::Gelu => {
            let half = x.multiply(L::splat(0.5));
            half.fused(error_function(x.multiply(L::splat(std::f32::consts::FRAC_1_SQRT_2))), half)
        }
    }
}

/// The error function (Abramowitz and Stegun 7.1.26: off by at most 1.5e-7).
#[inline(always)]
fn error_function<L: Lanes>(x: L) -> L {
    let magnitude = x.magnitude();
    let part = L::splat(1.0).divide(magnitude.fused(L::splat(0.327_591_1), L::splat(1.0)));
    let mut series = L::splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        series = series.fused(part, L::splat(coefficient));
    }
    let tail = L::splat(0.0).subtract(x.multiply(x)).exponential();
    let positive = L::splat(1.0).subtract(series.multiply(part).multiply(tail));
    // The sign of x; zero stays zero, since `positive` is next to zero there.
    positive.multiply(x.divide(magnitude.larger(L::splat(1e-30)).larger(magnitude)))
}

#[inline(always)]
fn activate_row<L: Lanes>(activation: Activation, gated: bool, values: &[f32], out: &mut [f32]) {
    let values = values.as_chunks::<LANES>().0;
    let out = out.as_chunks_mut::<LANES>().0;
    if gated {
        for (pair, out) in values.as_chunks::<2>().0.iter().zip(out) {
            let [gate, value] = pair;
            active(activation, L::load(gate)).multiply(L::load(value)).store(out);
        }
    } else {
        for (value, out) in values.iter().zip(out) {
            active(activation, L::load(value)).store(out);
        }
    }
}

for_vectors!(
    /// The activation of `values`; where it is gated, that of 16 values times the next 16.
    activate = activate_row(activation: Activation, gated: bool, values: &[f32], out: &mut [f32])
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Vectors;

    /// The error function by its series, in float64.
    fn exact_error_function(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn activations_are_close() {
        for step in -64..64 {
            let x = step as f32 * 0.07;
            let wide = f64::from(x);
            let tanh = (0.797_884_560_802_865_4 * (wide + 0.044_715 * wide.powi(3))).tanh();
            for (activation, exact) in [
                (Activation::Relu, wide.max(0.0)),
                (Activation::Silu, wide / (1.0 + (-wide).exp())),
                (Activation::GeluTanh, 0.5 * wide * (1.0 + tanh)),
                (Activation::Gelu, 0.5 * wide * (1.0 + exact_error_function(wide / 2.0_f64.sqrt()))),
            ] {
                let mut out = [0.0; 16];
                activate(Vectors::detect(), activation, false, &[x; 16], &mut out);
                assert!((f64::from(out[3]) - exact).abs() < 2e-6, "{activation:?}({x}): {} {exact}", out[3]);
            }
        }
    }
}
