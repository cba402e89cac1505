//! The plain algorithm.

use super::{Operands, PANEL, STRIDE};

/// See [`super::Tile::sums`].
pub(super) fn sums(operands: &Operands<'_>, sums: &mut [i32]) {
    let depth = operands.depth;
    let rows = operands.activations.chunks_exact(depth).take(operands.rows);
    for (row, sums) in rows.zip(sums.chunks_exact_mut(STRIDE)) {
        let panels = operands.weights.chunks_exact(depth * PANEL);
        for (panel, sums) in panels.zip(sums.as_chunks_mut::<PANEL>().0) {
            *sums = panel_sums(panel, row);
        }
    }
}

fn panel_sums(panel: &[u8], row: &[u8]) -> [i32; PANEL] {
    let mut sums = [0_i32; PANEL];
    for (weights, values) in panel.as_chunks::<{ 4 * PANEL }>().0.iter().zip(row.as_chunks::<4>().0) {
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (weight, value) in weights.iter().zip(values) {
                *sum += i32::from(*weight as i8) * i32::from(*value);
            }
        }
    }
    sums
}
