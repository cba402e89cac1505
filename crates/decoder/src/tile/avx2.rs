//! AVX2: bytes are widened to 16 bits, and one instruction multiplies 16 pairs and adds neighbours.
#![allow(unsafe_code, reason = "intrinsics of AVX2 over operands whose lengths were checked")]

use super::{Operands, PANEL, STRIDE};
use std::arch::x86_64::*;

/// Bytes of one step through a panel: four summands of 16 columns.
const STEP: usize = 4 * PANEL;
/// Registers that hold the sums of a panel: four columns each, the even and odd pairs of summands of a column apart.
const PARTS: usize = 4;

/// See [`super::Tile::sums`], which has checked the lengths.
pub(super) fn sums(operands: &Operands<'_>, sums: &mut [i32]) {
    let panel = operands.depth * PANEL;
    for index in 0..operands.panels() {
        let mut row = 0;
        while row < operands.rows {
            // SAFETY: the tile is available only where AVX2 was detected. The panel lies in the weights, the rows from `row` on
            // lie in the activations, and row `row` of the sums has room for 16 columns of this panel.
            unsafe {
                let weights = operands.weights.as_ptr().add(index * panel);
                let values = operands.activations.as_ptr().add(row * operands.depth);
                let out = sums.as_mut_ptr().add(row * STRIDE + index * PANEL);
                row += match operands.rows - row {
                    2.. => rows::<2>(weights, values, operands.depth, out),
                    _ => rows::<1>(weights, values, operands.depth, out),
                };
            }
        }
    }
}

/// Some rows over the same weights; returns how many.
///
/// # Safety
/// `weights` is a panel of `depth`, a multiple of 4; `values` are `COUNT` rows of `depth`; `out` has room for 16 sums in each of them.
#[target_feature(enable = "avx2")]
unsafe fn rows<const COUNT: usize>(
    weights: *const u8,
    values: *const u8,
    depth: usize,
    out: *mut i32,
) -> usize {
    let mut sums = [[_mm256_setzero_si256(); PARTS]; COUNT];
    for step in 0..depth / 4 {
        let mut read = [_mm256_setzero_si256(); COUNT];
        for (row, read) in read.iter_mut().enumerate() {
            // SAFETY: the four bytes lie in the row.
            let four = unsafe { values.add(row * depth + step * 4).cast::<i32>().read_unaligned() };
            // Four copies of four values.
            *read = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
        }
        for part in 0..PARTS {
            // SAFETY: the 16 bytes lie in the panel.
            let bytes = unsafe { _mm_loadu_si128(weights.add(step * STEP + part * 16).cast()) };
            let four_columns = _mm256_cvtepi8_epi16(bytes);
            for (sums, read) in sums.iter_mut().zip(read) {
                if let Some(sum) = sums.get_mut(part) {
                    // 2 * 255 * 128 fits into 32 bits, as does the sum over the largest depth.
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(four_columns, read));
                }
            }
        }
    }
    for (row, [first, second, third, fourth]) in sums.into_iter().enumerate() {
        // Neighbours are added within halves of 128 bits, and the quarters put in the order of their columns.
        let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(first, second));
        let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(third, fourth));
        // SAFETY: the caller has room for 16 sums in each row.
        unsafe {
            let to = out.add(row * STRIDE);
            _mm256_storeu_si256(to.cast(), low);
            _mm256_storeu_si256(to.add(8).cast(), high);
        }
    }
    COUNT
}
