//! The output projection: the likeliest token and its probability without keeping the logits, some logits, or all of them.
//!
//! The vocabulary is worked through in segments whose sums are put together in their order: the same bits for every number of
//! workers.
#![allow(unsafe_code, reason = "workers take disjoint segments")]

use crate::lanes::{HIDDEN, LANES, Lanes, for_vectors};
use crate::memory::Buffer;
use crate::pass::{Pass, Sink, Source};
use crate::tile::PANEL;
use std::ops::Range;

/// Columns of a segment.
pub(crate) const SEGMENT: usize = 512;
/// Numbers that a segment says of a row: largest logit, its column's bits, sum of exponentials.
const PART: usize = 3;

/// What a row of the pass needs of its logits.
#[derive(Debug, Clone)]
pub(crate) enum Need {
    /// The likeliest token.
    Choice,
    /// All logits, at this place of the logits.
    Logits(usize),
    /// The logits of some ids, at these places of the picks; and the sum of all exponentials.
    Picks(Vec<u32>, Range<usize>),
}

/// The greedy choice of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The likeliest token; the first where several are.
    pub id: u32,
    /// The natural logarithm of its probability: log-softmax over the vocabulary.
    pub log_probability: f64,
    /// Whether all logits are finite. Where they are not, the other fields say nothing.
    pub finite: bool,
}

/// What a row's segments say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) id: u32,
    pub(crate) largest: f32,
    /// The natural logarithm of the sum of exponentials of all logits - `largest`.
    pub(crate) log_sum: f64,
}

impl Summary {
    pub(crate) fn finite(&self) -> bool {
        self.largest.is_finite() && self.log_sum.is_finite()
    }

    /// The log-probability of a token with this logit.
    pub(crate) fn log_probability(&self, logit: f32) -> f64 {
        f64::from(logit) - f64::from(self.largest) - self.log_sum
    }
}

/// The operands and results of the head.
#[derive(Debug)]
pub(crate) struct HeadPass<'a> {
    /// One a row of the pass.
    pub(crate) needs: &'a [Need],
    /// `[segments][rows][PART]`.
    pub(crate) parts: &'a Buffer<f32>,
    pub(crate) logits: &'a Buffer<f32>,
    pub(crate) picks: &'a Buffer<f32>,
}

/// Numbers that the parts of `rows` rows take.
pub(crate) fn parts_length(vocabulary: usize, rows: usize) -> usize {
    vocabulary.div_ceil(SEGMENT).saturating_mul(rows).saturating_mul(PART)
}

#[inline(always)]
fn summarise_segment<L: Lanes>(logits: &[f32]) -> (f32, f32) {
    let blocks = logits.as_chunks::<LANES>().0;
    let mut largest = L::splat(f32::NEG_INFINITY);
    for block in blocks {
        largest = largest.larger(L::load(block));
    }
    let top = largest.largest();
    let largest = L::splat(top);
    let mut sums = [L::splat(0.0); 2];
    for pair in blocks.chunks(2) {
        for (block, sum) in pair.iter().zip(&mut sums) {
            *sum = sum.add(L::load(block).subtract(largest).exponential());
        }
    }
    let [first, second] = sums;
    (top, first.add(second).total())
}

for_vectors!(
    /// The largest logit, and the sum of exponentials of the logits less that.
    summarise = summarise_segment(logits: &[f32]) -> (f32, f32)
);

impl HeadPass<'_> {
    /// This worker's segments for all rows. The residual stream lies behind a barrier.
    pub(crate) fn run(&self, pass: &Pass<'_>) {
        let plan = &pass.model.plan;
        let activations = pass.prepare(&plan.head, Source::States, Some(&plan.decoder_norm));
        let segments = plan.head.columns.div_ceil(SEGMENT);
        let mut best = vec![f32::NEG_INFINITY; pass.rows];
        for segment in pass.worker.share(segments, 1) {
            let start = segment * SEGMENT;
            let width = SEGMENT.min(plan.head.columns - start);
            // SAFETY: the scratch is this worker's own.
            let logits = unsafe { pass.scratch().segment.part_mut(0..pass.rows * SEGMENT) };
            let panels = start / PANEL..(start + width) / PANEL;
            pass.multiply(
                &plan.head,
                activations,
                0..pass.rows,
                panels,
                Sink::Each(&mut |group| {
                    let columns = group.columns.start - start..group.columns.end - start;
                    for (row, values) in group.rows() {
                        if let Some(places) =
                            logits.get_mut(row * SEGMENT + columns.start..row * SEGMENT + columns.end)
                        {
                            places.copy_from_slice(values);
                        }
                    }
                }),
            );
            for ((row, best), logits) in best.iter_mut().enumerate().zip(logits.chunks_exact_mut(SEGMENT)) {
                let logits = logits.get_mut(..width).unwrap_or_default();
                self.row(pass, (segment, row), logits, best);
            }
        }
    }

    fn row(&self, pass: &Pass<'_>, (segment, row): (usize, usize), logits: &mut [f32], best: &mut f32) {
        let vocabulary = pass.model.shape.vocab_size;
        let start = segment * SEGMENT;
        let shown = logits.len().min(vocabulary - start);
        if let Some(padding) = logits.get_mut(shown..) {
            padding.fill(f32::NEG_INFINITY);
        }
        let within = |id: &u32| (start..start + shown).contains(&(*id as usize));
        match self.needs.get(row) {
            Some(Need::Logits(place)) => {
                // SAFETY: each row's logits have a place of their own, and the segment is this worker's.
                let places = unsafe { self.logits.part_mut(place + start..place + start + shown) };
                places.copy_from_slice(logits.get(..shown).unwrap_or_default());
                return;
            }
            Some(Need::Picks(ids, places)) => {
                for (id, place) in ids.iter().zip(places.clone()).filter(|(id, _)| within(id)) {
                    let logit = logits.get(*id as usize - start).copied().unwrap_or(HIDDEN);
                    // SAFETY: each pick has a place of its own, and lies in one segment.
                    unsafe { self.picks.part_mut(place..place + 1) }.fill(logit);
                }
            }
            Some(Need::Choice) | None => {}
        }
        let (largest, sum) = summarise(pass.vectors, logits);
        let mut column = 0;
        if largest > *best {
            *best = largest;
            column = start + logits.iter().position(|logit| *logit == largest).unwrap_or(0);
        }
        let place = (segment * pass.rows + row) * PART;
        // SAFETY: the segment is this worker's.
        let part = unsafe { self.parts.part_mut(place..place + PART) };
        part.copy_from_slice(&[largest, f32::from_bits(column as u32), sum]);
    }
}

/// What the segments say of a row, put together in their order.
pub(crate) fn summary(parts: &[f32], rows: usize, row: usize) -> Summary {
    let parts = parts.as_chunks::<PART>().0;
    let own = || parts.iter().skip(row).step_by(rows);
    let (mut id, mut largest) = (0, f32::NEG_INFINITY);
    for [top, column, _] in own() {
        if *top > largest {
            (id, largest) = (column.to_bits(), *top);
        }
    }
    let mut total = 0.0_f64;
    for [top, _, sum] in own() {
        total += f64::from(*sum) * (f64::from(*top) - f64::from(largest)).exp();
    }
    Summary { id, largest, log_sum: total.ln() }
}
