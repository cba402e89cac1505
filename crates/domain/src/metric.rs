//! Accuracy, and how sure we are of it.

use serde::{Deserialize, Serialize};

/// How many resamples a bootstrap interval takes.
pub const BOOTSTRAP_RESAMPLES: u32 = 2_000;

/// A share of right answers with its 95% bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Rows measured.
    pub rows: u64,
    /// Rows answered right.
    pub correct: u64,
    /// Rows whose answer could be read at all.
    pub parsed: u64,
    /// The lower end of the interval, between 0 and 1.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Accuracy {
    /// Measures `correct` of `rows`, `parsed` of them readable. The interval is the percentile bootstrap (Efron 1979)
    /// over rows: resampling rows with replacement makes the count of right ones binomial, which is drawn with a
    /// generator seeded by the counts, so that the same answers always give the same interval.
    pub fn measure(rows: u64, correct: u64, parsed: u64) -> Self {
        let (low, high) = bootstrap(rows, correct);
        Self { rows, correct, parsed, low, high }
    }

    /// The share of right answers, between 0 and 1; 0 where there are no rows.
    pub fn value(&self) -> f64 {
        ratio(self.correct, self.rows)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn bootstrap(rows: u64, correct: u64) -> (f64, f64) {
    if rows == 0 {
        return (0.0, 0.0);
    }
    let share = ratio(correct, rows);
    let mut generator = SplitMix::new(rows.wrapping_mul(0x9E37_79B9).wrapping_add(correct));
    // Beyond some thousands of rows the binomial is drawn from its normal limit: same interval, flat cost.
    let mut draws: Vec<f64> = (0..BOOTSTRAP_RESAMPLES)
        .map(|_| {
            if rows <= 5_000 { generator.binomial(rows, share) } else { generator.normal_share(rows, share) }
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let index = (quantile * (draws.len() - 1) as f64).round() as usize;
        draws.get(index).copied().unwrap_or(share).clamp(0.0, 1.0)
    };
    (at(0.025), at(0.975))
}

/// splitmix64 (Steele, Lea and Flood 2014): small, seeded, the same on every machine.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

impl SplitMix {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in [0, 1).
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64 }
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    fn binomial(&mut self, rows: u64, share: f64) -> f64 {
        let hits = (0..rows).filter(|_| self.next_f64() < share).count();
        hits as f64 / rows as f64
    }

    fn normal_share(&mut self, rows: u64, share: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.next_f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.next_f64()).cos();
        share + normal * (share * (1.0 - share) / rows as f64).sqrt()
    }
}

/// The value in the middle, the higher one of two; `None` where there are none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_share_and_narrows_with_rows() {
        let few = Accuracy::measure(100, 60, 100);
        let many = Accuracy::measure(4_000, 2_400, 4_000);
        let most = Accuracy::measure(400_000, 240_000, 400_000);
        for accuracy in [few, many, most] {
            assert!(accuracy.low < 0.6 && 0.6 < accuracy.high, "{accuracy:?}");
        }
        // The normal approximation at 100 rows: 0.6 +- 0.096.
        assert!((few.low - 0.504).abs() < 0.02 && (few.high - 0.696).abs() < 0.02, "{few:?}");
        assert!(many.high - many.low < 0.04 && most.high - most.low < 0.004);
    }

    #[test]
    fn the_same_answers_give_the_same_interval_and_edges_hold() {
        assert_eq!(Accuracy::measure(200, 155, 198), Accuracy::measure(200, 155, 198));
        assert_eq!(Accuracy::measure(0, 0, 0).value(), 0.0);
        assert_eq!((Accuracy::measure(50, 50, 50).low, Accuracy::measure(50, 0, 0).high), (1.0, 0.0));
    }
}
