//! What the machine can do at best, for comparison with what the engine does.

use crate::engine::Engine;
use crate::lanes::{Lanes, for_vectors};
use crate::memory::prefetch;
use crate::tile::{DEPTH_UNIT, Operands, PANEL, PANELS, ROWS, STRIDE, Tile};
use crate::{Error, Result};
use std::time::Instant;

/// Words ahead of the reader that are asked for: 4,096 bytes, as the tiles do.
const AHEAD: usize = 1024;

#[inline(always)]
fn fold_words<L: Lanes>(words: &[u32]) -> u32 {
    let mut sums = [L::splat(0.0); 8];
    for words in words.as_chunks::<16>().0.as_chunks::<8>().0 {
        for (sum, words) in sums.iter_mut().zip(words) {
            prefetch(words, AHEAD);
            let (low, high) = L::of_pairs(words);
            *sum = sum.larger(low.larger(high));
        }
    }
    sums.iter().fold(0, |folded, sum| folded ^ sum.largest().to_bits())
}

for_vectors!(
    /// Reads all words.
    fold = fold_words(words: &[u32]) -> u32
);

impl Engine {
    /// Seconds in which the engine's threads read the weights of a decoder step once, and do nothing else.
    ///
    /// # Errors
    /// A worker failed.
    pub fn reading_seconds(&mut self) -> Result<f64> {
        let (model, vectors, pool) = self.parts_to_read();
        let plan = &model.plan;
        let first = plan.decoder.first().map_or(0, |layer| layer.attention_input.panels.start);
        let words = model.memory.panels.get(first..plan.head.panels.end).unwrap_or_default();
        let start = Instant::now();
        pool.run(&|worker| {
            let share = worker.share(words.len(), 128);
            std::hint::black_box(fold(vectors, words.get(share).unwrap_or_default()));
        })?;
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Tile {
    /// Multiplications a second of one thread over `rows` rows (up to 32) and 64 columns of `64 * units` summands, the same
    /// again and again: four units stay in the first cache.
    ///
    /// # Errors
    /// The machine lacks the tile, the rows are not in 1..=32, or the units are not in 1..=64.
    pub fn peak(self, rows: usize, units: usize) -> Result<f64> {
        const ROUNDS: usize = 2000;
        if !Self::available().contains(&self) || !(1..=ROWS).contains(&rows) || !(1..=64).contains(&units) {
            return Err(Error::Input(format!("no {self:?} tile for {rows} rows and {units} units")));
        }
        let depth = units * DEPTH_UNIT;
        let weights = vec![1; PANELS * PANEL * depth];
        let activations = vec![2; ROWS * depth];
        let mut sums = vec![0; ROWS * STRIDE];
        let operands = Operands { weights: &weights, depth, activations: &activations, rows };
        self.begin();
        let start = Instant::now();
        for _ in 0..ROUNDS {
            self.sums(std::hint::black_box(&operands), &mut sums);
        }
        let seconds = start.elapsed().as_secs_f64();
        self.end();
        Ok((ROUNDS * rows * PANELS * PANEL * depth) as f64 / seconds)
    }
}
