//! Lanes one by one.

use super::{LANES, Lanes};

/// Sixteen numbers without an instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, of: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (out, other) in out.iter_mut().zip(other.0) {
            *out = of(*out, other);
        }
        Self(out)
    }

    #[inline(always)]
    fn each(self, of: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(of))
    }

    /// Halves combined until one number is left.
    #[inline(always)]
    fn folded(self, of: impl Fn(f32, f32) -> f32) -> f32 {
        let mut values = self.0;
        let mut half = LANES / 2;
        while half > 0 {
            let (low, high) = values.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high.iter()) {
                *low = of(*low, *high);
            }
            half /= 2;
        }
        let [first, ..] = values;
        first
    }
}

impl Lanes for Plain {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        *out = self.0;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |left, right| left + right)
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        self.zip(other, |left, right| left - right)
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.zip(other, |left, right| left * right)
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        self.zip(other, |left, right| left / right)
    }

    #[inline(always)]
    fn fused(self, factor: Self, summand: Self) -> Self {
        let mut out = self.0;
        for ((out, factor), summand) in out.iter_mut().zip(factor.0).zip(summand.0) {
            *out = out.mul_add(factor, summand);
        }
        Self(out)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |left, right| if left > right { left } else { right })
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.zip(other, |left, right| if left < right { left } else { right })
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        self.each(f32::abs)
    }

    #[inline(always)]
    fn rounded(self) -> Self {
        self.each(f32::round_ties_even)
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.each(|power| f32::from_bits((power as i32).wrapping_add(127).wrapping_shl(23) as u32))
    }

    #[inline(always)]
    fn total(self) -> f32 {
        self.folded(|left, right| left + right)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.folded(|left, right| if left > right { left } else { right })
    }

    #[inline(always)]
    fn of_integers(values: &[i32; LANES]) -> Self {
        Self(values.map(|value| value as f32))
    }

    #[inline(always)]
    fn of_pairs(values: &[u32; LANES]) -> (Self, Self) {
        (
            Self(values.map(|pair| f32::from_bits(pair << 16))),
            Self(values.map(|pair| f32::from_bits(pair & 0xffff_0000))),
        )
    }

    #[inline(always)]
    fn keep_first(self, count: usize, other: f32) -> Self {
        let mut out = self.0;
        for out in out.iter_mut().skip(count) {
            *out = other;
        }
        Self(out)
    }

    #[inline(always)]
    fn store_bytes(self, out: &mut [u8; LANES]) {
        *out = self.0.map(|value| (value as i32 + 128) as u8);
    }

    #[inline(always)]
    fn store_words(self, high: &mut [u8; LANES], low: &mut [u8; LANES]) {
        *high = self.0.map(|value| ((value as i32 + 32_768) >> 8) as u8);
        *low = self.0.map(|value| (value as i32 + 32_768) as u8);
    }
}
