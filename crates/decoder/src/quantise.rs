//! Activations as a product reads them: normed where it asks for it, then 8 or 16 bits with a scale a row, or as they are.

use crate::lanes::{LANES, Lanes, for_vectors};

/// The norm before a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormWeights<'a> {
    /// `[model]`, padded with zeros.
    pub(crate) weights: &'a [f32],
    pub(crate) epsilon: f32,
    /// Width without padding.
    pub(crate) width: usize,
}

/// Where a row goes.
#[derive(Debug)]
pub(crate) enum Form<'a> {
    /// 8 bits, plus 128.
    Bytes(&'a mut [u8]),
    /// 16 bits, plus 32,768: high bytes and low bytes.
    Words(&'a mut [u8], &'a mut [u8]),
    /// float32.
    Floats(&'a mut [f32]),
}

/// Below this magnitude a row counts as zero: its reciprocal would not be finite.
const MAGNITUDE_MIN: f32 = 1e-30;

/// `weights * x / sqrt(mean(x^2) + epsilon)` into `out`, or `x` alone; the largest magnitude, which is not a number where
/// the row is not finite.
#[inline(always)]
fn normed<L: Lanes>(row: &[f32], norm: Option<NormWeights<'_>>, out: &mut [f32]) -> f32 {
    let row = row.as_chunks::<LANES>().0;
    let out = out.as_chunks_mut::<LANES>().0;
    let (mut largest, mut poison) = (L::splat(0.0), L::splat(0.0));
    if let Some(norm) = norm {
        let mut squares = [L::splat(0.0); 4];
        for four in row.chunks(4) {
            for (value, squares) in four.iter().zip(&mut squares) {
                let value = L::load(value);
                *squares = value.fused(value, *squares);
            }
        }
        let [first, second, third, fourth] = squares;
        let sum = first.add(second).add(third.add(fourth)).total();
        let factor = L::splat(1.0 / (sum / norm.width as f32 + norm.epsilon).sqrt());
        for ((value, weight), out) in row.iter().zip(norm.weights.as_chunks::<LANES>().0).zip(out) {
            let value = L::load(value).multiply(factor).multiply(L::load(weight));
            value.store(out);
            largest = largest.larger(value.magnitude());
            poison = value.fused(L::splat(0.0), poison);
        }
    } else {
        for (value, out) in row.iter().zip(out) {
            let value = L::load(value);
            value.store(out);
            largest = largest.larger(value.magnitude());
            poison = value.fused(L::splat(0.0), poison);
        }
    }
    largest.largest() + poison.total()
}

/// Writes a row in `form`; its scale. `scratch` has room for a row.
#[inline(always)]
fn quantise_row<L: Lanes>(
    row: &[f32],
    norm: Option<NormWeights<'_>>,
    form: Form<'_>,
    scratch: &mut [f32],
) -> f32 {
    let steps = match &form {
        Form::Bytes(_) => 127.0,
        Form::Words(..) => 32_767.0,
        Form::Floats(_) => 1.0,
    };
    let (largest, normed_row) = match form {
        Form::Floats(out) => {
            // Where the row is not finite, what it becomes is neither.
            normed::<L>(row, norm, out);
            return 1.0;
        }
        _ => (normed::<L>(row, norm, scratch), scratch.as_chunks::<LANES>().0),
    };
    let (scale, inverse) =
        if largest < MAGNITUDE_MIN { (0.0, 0.0) } else { (largest / steps, steps / largest) };
    let inverse = L::splat(inverse);
    let whole = |value: &[f32; LANES]| {
        let bounded = L::load(value).multiply(inverse).rounded();
        L::splat(-steps).larger(L::splat(steps).smaller(bounded))
    };
    match form {
        Form::Bytes(out) => {
            for (value, out) in normed_row.iter().zip(out.as_chunks_mut::<LANES>().0) {
                whole(value).store_bytes(out);
            }
        }
        Form::Words(high, low) => {
            let outs = high.as_chunks_mut::<LANES>().0.iter_mut().zip(low.as_chunks_mut::<LANES>().0);
            for (value, (high, low)) in normed_row.iter().zip(outs) {
                whole(value).store_words(high, low);
            }
        }
        Form::Floats(_) => {}
    }
    scale
}

for_vectors!(
    /// Writes a row in `form`; its scale, which is not a number where the row is not finite.
    quantise = quantise_row(
        row: &[f32],
        norm: Option<NormWeights<'_>>,
        form: Form<'_>,
        scratch: &mut [f32],
    ) -> f32
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Vectors;

    #[test]
    fn rows_come_back_within_half_a_step() {
        let row: Vec<f32> = (0..64).map(|index| ((index * 37 % 64) as f32 - 30.0) * 0.11).collect();
        let mut scratch = vec![0.0; 64];
        let (mut bytes, mut high, mut low) = (vec![0; 64], vec![0; 64], vec![0; 64]);
        let vectors = Vectors::detect();
        let scale = quantise(vectors, &row, None, Form::Bytes(&mut bytes), &mut scratch);
        for (value, byte) in row.iter().zip(&bytes) {
            assert!((value - scale * (f32::from(*byte) - 128.0)).abs() <= scale * 0.51);
        }
        let scale = quantise(vectors, &row, None, Form::Words(&mut high, &mut low), &mut scratch);
        for (value, (high, low)) in row.iter().zip(high.iter().zip(&low)) {
            let whole = f32::from(*high) * 256.0 + f32::from(*low) - 32_768.0;
            assert!((value - scale * whole).abs() <= scale * 0.6);
        }
    }

    #[test]
    fn a_row_that_is_not_finite_has_no_scale_and_zeros_have_zero() {
        let mut scratch = vec![0.0; 64];
        let mut bytes = vec![0; 64];
        for vectors in [Vectors::Plain, Vectors::detect()] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in [0, 17, 63] {
                    let mut row = vec![1.0; 64];
                    row[place] = bad;
                    assert!(
                        !quantise(vectors, &row, None, Form::Bytes(&mut bytes), &mut scratch).is_finite()
                    );
                }
            }
            let scale = quantise(vectors, &[0.0; 64], None, Form::Bytes(&mut bytes), &mut scratch);
            assert_eq!((scale, bytes[5]), (0.0, 128));
        }
    }
}
