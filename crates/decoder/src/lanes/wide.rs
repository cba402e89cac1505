//! Lanes in one AVX-512 register.
#![allow(unsafe_code, reason = "intrinsics of AVX-512; `Wide` is only used in functions compiled for it")]

use super::{LANES, Lanes};
use std::arch::x86_64::*;

/// Sixteen numbers in one register. Only used behind [`super::Vectors::Wide`], which is made where AVX-512 was detected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide(__m512);

/// Calls an intrinsic.
macro_rules! call {
    ($call:expr) => {
        // SAFETY: the instruction set was detected (see `Wide`), and pointers are those of whole arrays.
        unsafe { $call }
    };
}

impl Lanes for Wide {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(call!(_mm512_set1_ps(value)))
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(call!(_mm512_loadu_ps(values.as_ptr())))
    }

    #[inline(always)]
    fn store(self, out: &mut [f32; LANES]) {
        call!(_mm512_storeu_ps(out.as_mut_ptr(), self.0));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(call!(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        Self(call!(_mm512_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        Self(call!(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn divide(self, other: Self) -> Self {
        Self(call!(_mm512_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn fused(self, factor: Self, summand: Self) -> Self {
        Self(call!(_mm512_fmadd_ps(self.0, factor.0, summand.0)))
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        Self(call!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        Self(call!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        Self(call!(_mm512_abs_ps(self.0)))
    }

    #[inline(always)]
    fn rounded(self) -> Self {
        Self(call!(_mm512_roundscale_ps::<0>(self.0)))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(call!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
            _mm512_cvtps_epi32(self.0),
            _mm512_set1_epi32(127)
        )))))
    }

    #[inline(always)]
    fn total(self) -> f32 {
        call!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        call!({
            let eight = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }

    #[inline(always)]
    fn of_integers(values: &[i32; LANES]) -> Self {
        Self(call!(_mm512_cvtepi32_ps(_mm512_loadu_si512(values.as_ptr().cast()))))
    }

    #[inline(always)]
    fn of_pairs(values: &[u32; LANES]) -> (Self, Self) {
        call!({
            let pairs = _mm512_loadu_si512(values.as_ptr().cast());
            let low = _mm512_slli_epi32::<16>(pairs);
            let high = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (Self(_mm512_castsi512_ps(low)), Self(_mm512_castsi512_ps(high)))
        })
    }

    #[inline(always)]
    fn keep_first(self, count: usize, other: f32) -> Self {
        let mask = ((1_u32 << count.min(LANES)) - 1) as u16;
        Self(call!(_mm512_mask_mov_ps(_mm512_set1_ps(other), mask, self.0)))
    }

    #[inline(always)]
    fn store_bytes(self, out: &mut [u8; LANES]) {
        call!({
            let shifted = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(128));
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(shifted));
        });
    }

    #[inline(always)]
    fn store_words(self, high: &mut [u8; LANES], low: &mut [u8; LANES]) {
        call!({
            let shifted = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(32_768));
            let upper = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(shifted));
            _mm_storeu_si128(high.as_mut_ptr().cast(), upper);
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(shifted));
        });
    }
}
