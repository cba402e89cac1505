//! Sixteen float32 numbers at once: one algorithm, the same bits on every machine.
//!
//! Everything in float32 (norms, softmax, activations, attention) is written once over [`Lanes`]. [`Plain`] computes the lanes
//! one by one, `Wide` with AVX-512; each operation is correctly rounded, and reductions have a fixed order, so that both
//! give the same bits.

mod contract;
mod plain;
#[cfg(target_arch = "x86_64")]
mod wide;

pub(crate) use contract::{LANES, Lanes};
pub(crate) use plain::Plain;
#[cfg(target_arch = "x86_64")]
pub(crate) use wide::Wide;

/// Large and negative: the score of a position that is hidden.
pub(crate) const HIDDEN: f32 = -1e30;

/// bfloat16 bits of a number, rounded to nearest even. Not a number stays so.
#[inline(always)]
pub(crate) fn bfloat16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Two numbers as a pair of bfloat16: the first in the low half.
#[inline(always)]
pub(crate) fn bfloat16_pair(low: f32, high: f32) -> u32 {
    u32::from(bfloat16(low)) | (u32::from(bfloat16(high)) << 16)
}

/// The number of bfloat16 bits.
#[inline(always)]
pub(crate) fn from_bfloat16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Which vectors this machine computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vectors {
    /// One lane after the other.
    Plain,
    /// The plain algorithm, compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    Medium,
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Wide,
}

impl Vectors {
    /// Every kind that this machine has, the widest last.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut, reason = "other machines have one kind"))]
        let mut kinds = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kinds.push(Self::Medium);
            }
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if wide {
                kinds.push(Self::Wide);
            }
        }
        kinds
    }

    /// The widest that this machine has.
    pub(crate) fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Plain)
    }
}

/// Makes `$name(vectors, ..)` of the generic function `$generic::<L: Lanes>(..)`: compiled once for each kind of vectors.
macro_rules! for_vectors {
    ($(#[$doc:meta])* $name:ident = $generic:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$doc])*
        #[allow(unsafe_code, reason = "functions of an instruction set are called after it was found")]
        pub(crate) fn $name(vectors: $crate::lanes::Vectors, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn wide($($argument: $type),*) $(-> $result)? {
                $generic::<$crate::lanes::Wide>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn medium($($argument: $type),*) $(-> $result)? {
                $generic::<$crate::lanes::Plain>($($argument),*)
            }
            match vectors {
                // SAFETY: these kinds are only made where the instruction set was detected.
                #[cfg(target_arch = "x86_64")]
                $crate::lanes::Vectors::Wide => unsafe { wide($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::lanes::Vectors::Medium => unsafe { medium($($argument),*) },
                $crate::lanes::Vectors::Plain => $generic::<$crate::lanes::Plain>($($argument),*),
            }
        }
    };
}
pub(crate) use for_vectors;

#[cfg(test)]
mod tests {
    use super::*;

    /// All operations on one vector, folded into bits.
    fn trace<L: Lanes>(left: &[f32; LANES], right: &[f32; LANES], pairs: &[u32; LANES]) -> Vec<u32> {
        let (a, b) = (L::load(left), L::load(right));
        let (low, high) = L::of_pairs(pairs);
        let integers = pairs.map(|pair| pair as i32);
        let results = [
            a.add(b),
            a.subtract(b),
            a.multiply(b),
            a.divide(b),
            a.fused(b, low),
            a.larger(b),
            a.smaller(b),
            a.magnitude(),
            a.rounded(),
            a.exponential(),
            low,
            high,
            L::of_integers(&integers),
            a.keep_first(5, HIDDEN),
        ];
        let mut bits = Vec::new();
        for result in results {
            let mut out = [0.0; LANES];
            result.store(&mut out);
            bits.extend(out.map(f32::to_bits));
        }
        bits.extend([a.total().to_bits(), a.largest().to_bits()]);
        let (mut bytes, mut high, mut low) = ([0; LANES], [0; LANES], [0; LANES]);
        a.rounded().store_bytes(&mut bytes);
        a.multiply(L::splat(300.0)).rounded().store_words(&mut high, &mut low);
        bits.extend([bytes, high, low].concat().into_iter().map(u32::from));
        bits
    }

    fn traced<L: Lanes>(left: &[f32; LANES], right: &[f32; LANES], pairs: &[u32; LANES], out: &mut Vec<u32>) {
        *out = trace::<L>(left, right, pairs);
    }
    for_vectors!(trace_with = traced(left: &[f32; LANES], right: &[f32; LANES], pairs: &[u32; LANES], out: &mut Vec<u32>));

    #[test]
    fn every_kind_of_vectors_gives_the_same_bits() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for _ in 0..200 {
            let left: [f32; LANES] =
                std::array::from_fn(|_| (next() as f32 / (1_u32 << 30) as f32 - 1.0) * 100.0);
            let right: [f32; LANES] = std::array::from_fn(|_| next() as f32 / (1_u32 << 30) as f32 - 1.0);
            let pairs: [u32; LANES] =
                std::array::from_fn(|_| bfloat16_pair(next() as f32 / 1e9 - 1.0, next() as f32 / 1e9));
            let mut plain = Vec::new();
            trace_with(Vectors::Plain, &left, &right, &pairs, &mut plain);
            for vectors in Vectors::available() {
                let mut found = Vec::new();
                trace_with(vectors, &left, &right, &pairs, &mut found);
                assert_eq!(plain, found, "{vectors:?}");
            }
        }
    }

    #[test]
    fn exponential_is_close() {
        for step in -870..880 {
            let value = step as f32 * 0.1;
            let mut out = [0.0; LANES];
            Plain::splat(value).exponential().store(&mut out);
            let exact = f64::from(value).exp();
            assert!((f64::from(out[0]) - exact).abs() <= 4e-6 * exact, "{value}: {} {exact}", out[0]);
        }
        let mut out = [0.0; LANES];
        Plain::splat(f32::NAN).exponential().store(&mut out);
        assert!(out[0].is_nan());
    }
}
