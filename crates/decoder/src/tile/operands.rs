//! What a tile is given, and its limits.

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Depth is padded to a multiple of this.
pub(crate) const DEPTH_UNIT: usize = 64;
/// Most rows of one call.
pub(crate) const ROWS: usize = 32;
/// Most panels of one call.
pub(crate) const PANELS: usize = 4;
/// Distance between the rows of the sums.
pub(crate) const STRIDE: usize = PANELS * PANEL;

/// The operands of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// Up to [`PANELS`] whole panels, one after the other.
    pub(crate) weights: &'a [u8],
    /// Summands of every sum, a multiple of [`DEPTH_UNIT`].
    pub(crate) depth: usize,
    /// `[rows, depth]`, followed by what else fills the last 16 rows.
    pub(crate) activations: &'a [u8],
    /// Up to [`ROWS`].
    pub(crate) rows: usize,
}

impl Operands<'_> {
    pub(super) fn panels(&self) -> usize {
        self.weights.len() / (self.depth * PANEL)
    }

    /// Whether everything that a tile reads and writes lies in its slices.
    pub(super) fn fit(&self, sums: &[i32]) -> bool {
        let panel = self.depth * PANEL;
        self.depth > 0
            && self.depth.is_multiple_of(DEPTH_UNIT)
            && self.weights.len().is_multiple_of(panel)
            && (1..=PANELS).contains(&self.panels())
            && (1..=ROWS).contains(&self.rows)
            && self.activations.len() >= self.rows.next_multiple_of(16) * self.depth
            && sums.len() >= ROWS * STRIDE
    }
}
