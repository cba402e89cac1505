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
        let bucket = exact + (ratio * (count - exact) as f32) as i64;
        base + bucket.min(count - 1)
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
        let table = buckets.take(&distances);
        Tensor::embedding(weight, &table, -1, false, false).permute([2, 0, 1]).unsqueeze(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every distance up to 300 on either side, as `scripts/golden.sh` wrote them.
    #[test]
    fn distances_fall_into_the_buckets_of_transformers() {
        for (golden, count, distance_max) in [("v1_0", 8, 20), ("v1_1", 32, 128)] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
            let tensors = Tensor::read_safetensors(folder.join("expected.safetensors")).unwrap();
            for (stack, two_sided) in [("encoder", true), ("decoder", false)] {
                let name = format!("buckets.{stack}");
                let (_, expected) = tensors.iter().find(|(known, _)| *known == name).unwrap();
                let expected = Vec::<i64>::try_from(expected).unwrap();
                let buckets = Buckets { count, distance_max, two_sided };
                let found: Vec<i64> = (-300..=300).map(|distance| buckets.of(distance)).collect();
                assert_eq!(found, expected, "{golden} {stack}");
            }
        }
    }
}
