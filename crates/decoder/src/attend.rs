//! Attention, without the 1/sqrt(d) scaling: the initialisation of the queries includes it. All in float32, in an order that
//! depends only on the row's own lengths; the decoder keeps keys and values in bfloat16.
#![allow(
    clippy::indexing_slicing,
    reason = "places follow from widths and lengths; a wrong one stops the pass"
)]

use crate::lanes::{HIDDEN, LANES, Lanes, bfloat16_pair, for_vectors};
use crate::memory::prefetch;
use std::ops::Range;

/// Writes the key of `position` into a cache `[positions / 16][head / 2][16]` of pairs.
pub(crate) fn put_key(cache: &mut [u32], position: usize, key: &[f32]) {
    let block = position / LANES * (key.len() / 2) * LANES + position % LANES;
    for (index, pair) in key.as_chunks::<2>().0.iter().enumerate() {
        cache[block + index * LANES] = bfloat16_pair(pair[0], pair[1]);
    }
}

/// Writes the value of `position` into a cache `[positions / 2][head]` of pairs: the even position in the low half.
pub(crate) fn put_value(cache: &mut [u32], position: usize, value: &[f32]) {
    let row = position / 2 * value.len();
    let places = &mut cache[row..row + value.len()];
    for (place, value) in places.iter_mut().zip(value) {
        let bits = bfloat16_pair(*value, 0.0);
        *place = if position.is_multiple_of(2) {
            *place & 0xffff_0000 | bits
        } else {
            *place & 0xffff | bits << 16
        };
    }
}

/// One head's cache, and who looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'a> {
    /// See [`put_key`].
    pub(crate) keys: &'a [u32],
    /// See [`put_value`].
    pub(crate) values: &'a [u32],
    /// Positions that the query sees, at least one.
    pub(crate) length: usize,
    /// `[head]`.
    pub(crate) query: &'a [f32],
    /// What is added to the score of each position, followed by up to 15 further numbers.
    pub(crate) bias: Option<&'a [f32]>,
}

/// Softmax of the first `length` scores, without the division; the sum. The rest of the last block becomes zero.
#[inline(always)]
fn exponentials<L: Lanes>(scores: &mut [[f32; LANES]], length: usize) -> f32 {
    let mut largest = L::splat(HIDDEN);
    for scores in scores.iter() {
        largest = largest.larger(L::load(scores));
    }
    let largest = L::splat(largest.largest());
    let mut sum = L::splat(0.0);
    for (block, scores) in scores.iter_mut().enumerate() {
        let powers = L::load(scores).subtract(largest).exponential();
        let powers = powers.keep_first(length - block * LANES, 0.0);
        powers.store(scores);
        sum = sum.add(powers);
    }
    sum.total()
}

#[inline(always)]
fn attend_cached<L: Lanes>(cached: &Cached<'_>, scores: &mut [f32], out: &mut [f32]) {
    let (query, length) = (cached.query, cached.length);
    let blocks = length.div_ceil(LANES);
    let scores = &mut scores.as_chunks_mut::<LANES>().0[..blocks];
    let keys = cached.keys.chunks_exact(query.len() / 2 * LANES);
    let query_steps = query.len() / 4;
    for (block, (keys, scores)) in keys.zip(scores.iter_mut()).enumerate() {
        let mut sums = [L::splat(0.0); 4];
        let steps = keys.as_chunks::<LANES>().0.as_chunks::<2>().0.iter().zip(query.as_chunks::<4>().0);
        for (step, ([first, second], query)) in steps.enumerate() {
            // The values lie as the keys do, and are read next.
            let place = (block * query_steps + step) * 2 * LANES;
            prefetch(cached.values, place);
            prefetch(cached.values, place + LANES);
            let (low, high) = L::of_pairs(first);
            sums[0] = low.fused(L::splat(query[0]), sums[0]);
            sums[1] = high.fused(L::splat(query[1]), sums[1]);
            let (low, high) = L::of_pairs(second);
            sums[2] = low.fused(L::splat(query[2]), sums[2]);
            sums[3] = high.fused(L::splat(query[3]), sums[3]);
        }
        let mut score = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
        if let Some(bias) = cached.bias {
            score = score.add(L::load(&bias.as_chunks::<LANES>().0[block]));
        }
        score.keep_first(length - block * LANES, HIDDEN).store(scores);
    }
    let inverse = 1.0 / exponentials::<L>(scores, length);
    let weights = scores.as_flattened();
    let mut start = 0;
    while start < query.len() {
        let take = if query.len() - start >= 4 * LANES { 4 * LANES } else { LANES };
        let columns = start..start + take;
        if take == LANES {
            weigh_cached::<L, 1>(cached, weights, inverse, columns, out);
        } else {
            weigh_cached::<L, 4>(cached, weights, inverse, columns, out);
        }
        start += take;
    }
}

/// The weighted sum of the values in some columns of the head.
#[inline(always)]
fn weigh_cached<L: Lanes, const BLOCKS: usize>(
    cached: &Cached<'_>,
    weights: &[f32],
    inverse: f32,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let mut even = [L::splat(0.0); BLOCKS];
    let mut odd = [L::splat(0.0); BLOCKS];
    let rows = cached.values.chunks_exact(cached.query.len());
    let pairs = weights[..cached.length].chunks(2);
    for (weights, row) in pairs.zip(rows) {
        let row = row[columns.clone()].as_chunks::<LANES>().0;
        for block in 0..BLOCKS {
            // Behind the values lie the next head's keys.
            prefetch(&row[block], cached.values.len());
            let (low, high) = L::of_pairs(&row[block]);
            even[block] = low.fused(L::splat(weights[0]), even[block]);
            // Behind an odd length lies what an earlier row has left.
            if let Some(weight) = weights.get(1) {
                odd[block] = high.fused(L::splat(*weight), odd[block]);
            }
        }
    }
    let out = out[columns].as_chunks_mut::<LANES>().0;
    for block in 0..BLOCKS {
        even[block].add(odd[block]).multiply(L::splat(inverse)).store(&mut out[block]);
    }
}

for_vectors!(
    /// What a query attends to in a cache. `scores` has room for the length, padded to 16; `out` is `[head]`.
    attend = attend_cached(cached: &Cached<'_>, scores: &mut [f32], out: &mut [f32])
);

/// One head of one row of the encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequence<'a> {
    /// Queries, keys and values `[length][stride]` in float32.
    pub(crate) projected: &'a [f32],
    pub(crate) stride: usize,
    /// Where the head's query, key and value begin in a row.
    pub(crate) offset: usize,
    pub(crate) head: usize,
    pub(crate) length: usize,
    /// By key position - query position; the entry of distance 0 is `centre`.
    pub(crate) bias: &'a [f32],
    pub(crate) centre: usize,
}

impl<'a> Sequence<'a> {
    /// Part 0, 1 or 2 (query, key, value) of a position.
    #[inline(always)]
    fn part(&self, position: usize, part: usize) -> &'a [f32] {
        let start = position * self.stride + self.offset + part * self.head;
        &self.projected[start..start + self.head]
    }

    /// Numbers of scratch that a sequence takes.
    pub(crate) fn scratch(length: usize, head: usize) -> usize {
        (head + QUERIES) * length.next_multiple_of(LANES)
    }
}

/// Queries that are computed together.
const QUERIES: usize = 4;

#[inline(always)]
fn attend_whole<L: Lanes>(sequence: &Sequence<'_>, scratch: &mut [f32], out: &mut [f32]) {
    let (length, head) = (sequence.length, sequence.head);
    let padded = length.next_multiple_of(LANES);
    let (keys, scores) = scratch.split_at_mut(head * padded);
    for position in 0..length {
        for (index, value) in sequence.part(position, 1).iter().enumerate() {
            keys[index * padded + position] = *value;
        }
    }
    for row in keys.chunks_exact_mut(padded) {
        row[length..].fill(0.0);
    }
    let mut query = 0;
    while query < length {
        if length - query >= QUERIES {
            attend_queries::<L, QUERIES>(sequence, query, keys, scores, out);
            query += QUERIES;
        } else {
            attend_queries::<L, 1>(sequence, query, keys, scores, out);
            query += 1;
        }
    }
}

#[inline(always)]
fn attend_queries<L: Lanes, const COUNT: usize>(
    sequence: &Sequence<'_>,
    first: usize,
    keys: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (length, head) = (sequence.length, sequence.head);
    let padded = length.next_multiple_of(LANES);
    let queries: [&[f32]; COUNT] = std::array::from_fn(|index| sequence.part(first + index, 0));
    let mut block = 0;
    while block * LANES < padded {
        if padded - block * LANES >= 2 * LANES {
            score_blocks::<L, COUNT, 2>(sequence, first, queries, keys, block, scores);
            block += 2;
        } else {
            score_blocks::<L, COUNT, 1>(sequence, first, queries, keys, block, scores);
            block += 1;
        }
    }
    let mut inverses = [0.0; COUNT];
    for (inverse, scores) in inverses.iter_mut().zip(scores.chunks_exact_mut(padded)) {
        *inverse = 1.0 / exponentials::<L>(scores.as_chunks_mut::<LANES>().0, length);
    }
    let mut start = 0;
    while start < head {
        let take = if head - start >= 4 * LANES { 4 * LANES } else { LANES };
        let columns = start..start + take;
        if take == LANES {
            weigh::<L, COUNT, 1>(sequence, first, scores, inverses, columns, out);
        } else {
            weigh::<L, COUNT, 4>(sequence, first, scores, inverses, columns, out);
        }
        start += take;
    }
}

/// Scores of some queries with blocks of 16 keys.
#[inline(always)]
fn score_blocks<L: Lanes, const COUNT: usize, const BLOCKS: usize>(
    sequence: &Sequence<'_>,
    first: usize,
    queries: [&[f32]; COUNT],
    keys: &[f32],
    block: usize,
    scores: &mut [f32],
) {
    let (length, head) = (sequence.length, sequence.head);
    let padded = length.next_multiple_of(LANES);
    let mut sums = [[L::splat(0.0); BLOCKS]; COUNT];
    let queries = queries.map(|query| &query[..head]);
    for (index, keys) in keys.chunks_exact(padded).take(head).enumerate() {
        let keys = &keys[block * LANES..(block + BLOCKS) * LANES];
        let keys: [L; BLOCKS] = std::array::from_fn(|place| L::load(&keys.as_chunks::<LANES>().0[place]));
        for (sums, query) in sums.iter_mut().zip(queries) {
            let query = L::splat(query[index]);
            for (sum, keys) in sums.iter_mut().zip(keys) {
                *sum = keys.fused(query, *sum);
            }
        }
    }
    for (query, sums) in sums.into_iter().enumerate() {
        let bias = &sequence.bias[sequence.centre - (first + query) + block * LANES..];
        let row = &mut scores[query * padded..(query + 1) * padded];
        for (place, sum) in sums.into_iter().enumerate() {
            let biased = sum.add(L::load(&bias.as_chunks::<LANES>().0[place]));
            let shown = length - ((block + place) * LANES).min(length);
            biased.keep_first(shown, HIDDEN).store(&mut row.as_chunks_mut::<LANES>().0[block + place]);
        }
    }
}

/// The weighted sums of the values in some columns of the head.
#[inline(always)]
fn weigh<L: Lanes, const COUNT: usize, const BLOCKS: usize>(
    sequence: &Sequence<'_>,
    first: usize,
    weights: &[f32],
    inverses: [f32; COUNT],
    columns: Range<usize>,
    out: &mut [f32],
) {
    let (length, head) = (sequence.length, sequence.head);
    let padded = length.next_multiple_of(LANES);
    let weights: [&[f32]; COUNT] = std::array::from_fn(|query| &weights[query * padded..][..length]);
    let mut sums = [[L::splat(0.0); BLOCKS]; COUNT];
    for position in 0..length {
        let values = sequence.part(position, 2)[columns.clone()].as_chunks::<LANES>().0;
        let values: [L; BLOCKS] = std::array::from_fn(|block| L::load(&values[block]));
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = L::splat(weights[position]);
            for (sum, values) in sums.iter_mut().zip(values) {
                *sum = values.fused(weight, *sum);
            }
        }
    }
    for (query, (sums, inverse)) in sums.into_iter().zip(inverses).enumerate() {
        let row = &mut out[(first + query) * head..][columns.clone()];
        for (sum, out) in sums.into_iter().zip(row.as_chunks_mut::<LANES>().0) {
            sum.multiply(L::splat(inverse)).store(out);
        }
    }
}

for_vectors!(
    /// What every position of a row attends to in its whole row: `out` is `[length][head]`.
    attend_sequence = attend_whole(sequence: &Sequence<'_>, scratch: &mut [f32], out: &mut [f32])
);
