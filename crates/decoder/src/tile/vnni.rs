//! AVX-512 VNNI: one instruction multiplies 64 pairs and adds them into 16 sums.
#![allow(unsafe_code, reason = "intrinsics of AVX-512 over operands whose lengths were checked")]

use super::{Operands, PANEL, STRIDE};
use std::arch::x86_64::*;

/// Bytes of one step through a panel: four summands of 16 columns.
const STEP: usize = 4 * PANEL;
/// How far ahead weights are asked for when they are read once.
const AHEAD: usize = 4096;

/// See [`super::Tile::sums`], which has checked the lengths.
pub(super) fn sums(operands: &Operands<'_>, sums: &mut [i32]) {
    let panel = operands.depth * PANEL;
    for index in 0..operands.panels() {
        let mut row = 0;
        while row < operands.rows {
            let taken = operands.rows - row;
            // SAFETY: the tile is available only where VNNI was detected. The panel lies in the weights, the rows from
            // `row` on lie in the activations, and row `row` of the sums has room for 16 columns of this panel.
            unsafe {
                let weights = operands.weights.as_ptr().add(index * panel);
                let values = operands.activations.as_ptr().add(row * operands.depth);
                let out = sums.as_mut_ptr().add(row * STRIDE + index * PANEL);
                row += match taken {
                    8.. => rows::<8>(weights, values, operands.depth, out),
                    4.. => rows::<4>(weights, values, operands.depth, out),
                    2.. => rows::<2>(weights, values, operands.depth, out),
                    _ => one(weights, values, operands.depth, out),
                };
            }
        }
    }
}

/// One row: four chains of sums hide the instruction's latency.
///
/// # Safety
/// `weights` is a panel of `depth`, a multiple of 16; `values` a row of `depth`; `out` has room for 16 sums.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn one(weights: *const u8, values: *const u8, depth: usize, out: *mut i32) -> usize {
    let mut chains = [_mm512_setzero_si512(); 4];
    let mut step = 0;
    while step < depth / 4 {
        for (ahead, chain) in chains.iter_mut().enumerate() {
            // SAFETY: `step + ahead` lies below `depth / 4`. Prefetching beyond the end is harmless.
            unsafe {
                let at = weights.add((step + ahead) * STEP);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                let value = _mm512_set1_epi32(values.add((step + ahead) * 4).cast::<i32>().read_unaligned());
                *chain = _mm512_dpbusd_epi32(*chain, value, _mm512_loadu_si512(at.cast()));
            }
        }
        step += 4;
    }
    let [first, second, third, fourth] = chains;
    let sum = _mm512_add_epi32(_mm512_add_epi32(first, second), _mm512_add_epi32(third, fourth));
    // SAFETY: the caller has room for 16 sums.
    unsafe { _mm512_storeu_si512(out.cast(), sum) };
    1
}

/// Several rows over the same weights.
///
/// # Safety
/// As `one`, with `COUNT` rows of values and of sums.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn rows<const COUNT: usize>(
    weights: *const u8,
    values: *const u8,
    depth: usize,
    out: *mut i32,
) -> usize {
    let mut even = [_mm512_setzero_si512(); COUNT];
    let mut odd = [_mm512_setzero_si512(); COUNT];
    let mut step = 0;
    while step < depth / 4 {
        // SAFETY: `step + 1` lies below `depth / 4`, which is even. Prefetching beyond the end is harmless.
        unsafe {
            let at = weights.add(step * STEP);
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + STEP).cast());
            let (first, second) = (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(STEP).cast()));
            for (row, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
                let value = values.add(row * depth + step * 4).cast::<i32>();
                let (low, high) = (value.read_unaligned(), value.add(1).read_unaligned());
                *even = _mm512_dpbusd_epi32(*even, _mm512_set1_epi32(low), first);
                *odd = _mm512_dpbusd_epi32(*odd, _mm512_set1_epi32(high), second);
            }
        }
        step += 2;
    }
    for (row, (even, odd)) in even.into_iter().zip(odd).enumerate() {
        // SAFETY: the caller has room for 16 sums in each of `COUNT` rows.
        unsafe { _mm512_storeu_si512(out.add(row * STRIDE).cast(), _mm512_add_epi32(even, odd)) };
    }
    COUNT
}
