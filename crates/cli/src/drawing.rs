//! What the drawings of pages have in common, in units of their own: narrow, so that their letters are legible on a phone.

use std::fmt::Write;

/// The width of a drawing.
pub(crate) const WIDTH: f64 = 420.0;
/// Its margins.
pub(crate) const LEFT: f64 = 44.0;
pub(crate) const RIGHT: f64 = 12.0;
pub(crate) const TOP: f64 = 12.0;

/// A line across the drawing at this height, with its words before it.
pub(crate) fn grid_line(page: &mut String, y: f64, words: &str) {
    let _ = write!(
        page,
        "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"var(--line)\" stroke-width=\"1\"/><text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"end\">{words}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0,
    );
}
