//! Relative position bias (Raffel et al. 2020, section 2.1): a learned number a head for every bucket of distances,
//! learned in the first block of a stack and shared by the others.

use tch::{Device, Kind, Tensor};

/// How distances fall into buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) count: i64,
    pub(crate) distance_max: i64,
    /// Encoder: positions after the query have buckets of their own. Decoder: they are never seen.
    pub(crate) two_sided: bool,
}

impl Buckets {
    /// The bucket of `distance` = key position - query position: exact for small distances, logarithmic beyond.
    fn of(self, distance: i64) -> i64 {
        let (count, base, distance) = if self.two_sided {
            let half = self.count / 2;
            (half, if distance > 0 { half } else { 0 }, distance.abs())
        } else {
            (self.count, 0, (-distance).max(0))
        };
        let exact = count / 2;
        if distance < exact {
            return base + distance;
        }
        // In float32, as the reference computes it: a bucket's edge must fall on the same side.
        let ratio = (distance as f32 / exact as f32).ln() / (self.distance_max as f32 / exact as f32).ln();
        let place = exact + (ratio * (count - exact) as f32) as i64;
        base + place.min(count - 1)
    }

    /// The bias `[1, heads, query, key]` in float32 for queries at positions `from..from + queries` and keys at
    /// `0..keys`. `weight` is `[buckets, heads]`.
    pub(crate) fn bias(self, weight: &Tensor, from: i64, queries: i64, keys: i64) -> Tensor {
        let device: Device = weight.device();
        // Distances lie between -(from + queries - 1) and keys - 1 - from: one bucket for each, then looked up.
        let lowest = -(from + queries - 1);
        let buckets: Vec<i64> = (lowest..keys - from).map(|distance| self.of(distance)).collect();
        let buckets = Tensor::from_slice(&buckets).to_device(device);
        let options = (Kind::Int64, device);
        let distances = Tensor::arange(keys, options).unsqueeze(0)
            - Tensor::arange(queries, options).unsqueeze(1)
            - (lowest + from);
        let places = buckets.take(&distances);
        Tensor::embedding(weight, &places, -1, false, false).permute([2, 0, 1]).unsqueeze(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_buckets_of_the_paper() {
        let encoder = Buckets { count: 32, distance_max: 128, two_sided: true };
        let decoder = Buckets { two_sided: false, ..encoder };
        // Computed with transformers' T5Attention._relative_position_bucket.
        let check = |buckets: Buckets, expected: &[(i64, i64)]| {
            for (distance, bucket) in expected {
                assert_eq!(buckets.of(*distance), *bucket, "{distance}");
            }
        };
        check(encoder, &[(0, 0), (-1, 1), (-7, 7), (-8, 8), (-16, 10), (-127, 15), (-500, 15), (1, 17), (500, 31)]);
        check(decoder, &[(0, 0), (5, 0), (-15, 15), (-16, 16), (-64, 26), (-127, 31), (-500, 31)]);
    }
}
