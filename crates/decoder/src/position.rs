//! Relative position bias (Raffel et al. 2020, section 2.1): a learned number a head for every bucket of distances.
#![allow(clippy::indexing_slicing, reason = "buckets and heads lie in the table by construction")]

use crate::lanes::LANES;
use crate::model::Model;

/// The bucket of `distance` = key position - query position: exact for small distances, logarithmic beyond.
fn bucket(distance: i64, count: i64, distance_max: i64, two_sided: bool) -> i64 {
    let (count, base, distance) = if two_sided {
        let half = count / 2;
        (half, if distance > 0 { half } else { 0 }, distance.abs())
    } else {
        (count, 0, (-distance).max(0))
    };
    let exact = count / 2;
    if distance < exact {
        return base + distance;
    }
    // In float32, as the reference computes it: a bucket's edge must fall on the same side.
    let ratio = (distance as f32 / exact as f32).ln() / (distance_max as f32 / exact as f32).ln();
    base + (exact + (ratio * (count - exact) as f32) as i64).min(count - 1)
}

/// Bias by distance, for one length.
#[derive(Debug, Default)]
pub(crate) struct Bias {
    /// `[heads][stride]`.
    table: Vec<f32>,
    stride: usize,
    length: usize,
}

impl Bias {
    /// Distances from `1 - length` to `last`, in this order.
    fn fill(&mut self, model: &Model, length: usize, last: i64, two_sided: bool) {
        let shape = &model.shape;
        let range = if two_sided { &model.plan.encoder_bias } else { &model.plan.decoder_bias };
        let weights = model.numbers(range);
        let (count, farthest) =
            (shape.relative_attention_num_buckets as i64, shape.relative_attention_max_distance as i64);
        let distances = 1 - length as i64..=last;
        let buckets: Vec<usize> = distances
            .map(|distance| bucket(distance, count, farthest, two_sided).clamp(0, count - 1) as usize)
            .collect();
        self.stride = buckets.len() + LANES;
        self.table = vec![0.0; self.stride * shape.num_heads];
        for (head, row) in self.table.chunks_exact_mut(self.stride).enumerate() {
            for (place, bucket) in row.iter_mut().zip(&buckets) {
                *place = weights[bucket * shape.num_heads + head];
            }
        }
        self.length = length;
    }

    /// Makes sure that rows of `length` positions can be read by the encoder.
    pub(crate) fn ensure_encoder(&mut self, model: &Model, length: usize) {
        if length > self.length {
            self.fill(model, length, length as i64 - 1, true);
        }
    }

    /// Makes sure that `length` positions can be read by the decoder.
    pub(crate) fn ensure_decoder(&mut self, model: &Model, length: usize) {
        if length > self.length {
            self.fill(model, length.next_power_of_two(), 0, false);
        }
    }

    /// A head's bias by distance; that of distance 0 stands at [`Bias::centre`].
    pub(crate) fn head(&self, head: usize) -> &[f32] {
        &self.table[head * self.stride..(head + 1) * self.stride]
    }

    /// Where distance 0 stands.
    pub(crate) fn centre(&self) -> usize {
        self.length - 1
    }
}
