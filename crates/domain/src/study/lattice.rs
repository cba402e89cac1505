//! Distributions of whole numbers, such as of how many more rows one student gets right than another.

/// Values that are less likely than this, relative to the likeliest, are left out.
const UNLIKELY: f64 = 1e-12;

/// How likely each whole number of a range is.
#[derive(Debug, Clone)]
pub(super) struct Lattice {
    least: i64,
    chances: Vec<f64>,
}

impl Lattice {
    /// The value of one of these, drawn with its weight.
    pub(super) fn of(weights: impl Iterator<Item = (i64, f64)> + Clone) -> Self {
        let least = weights.clone().map(|(value, _)| value).min().unwrap_or(0);
        let most = weights.clone().map(|(value, _)| value).max().unwrap_or(0);
        let sum: f64 = weights.clone().map(|(_, weight)| weight).sum();
        let mut chances = vec![0.0; usize::try_from(most - least + 1).unwrap_or(1)];
        for (value, weight) in weights {
            if let Some(chance) = usize::try_from(value - least).ok().and_then(|place| chances.get_mut(place))
            {
                *chance += weight / sum;
            }
        }
        Self { least, chances }
    }

    /// The sum of `count` values drawn of this, each by itself: by squaring, in which the cost is that of a few standard
    /// deviations.
    pub(super) fn sum_of(&self, count: u64) -> Self {
        let mut sum = Self { least: 0, chances: vec![1.0] };
        let (mut power, mut left) = (self.clone(), count);
        while left > 0 {
            if left % 2 == 1 {
                sum = sum.and(&power);
            }
            left /= 2;
            if left > 0 {
                power = power.and(&power);
            }
        }
        sum
    }

    /// The sum of a value of this and one of `other`.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut chances = vec![0.0; (self.chances.len() + other.chances.len()).saturating_sub(1)];
        for (place, first) in self.chances.iter().enumerate() {
            let places = chances.iter_mut().skip(place);
            for (sum, second) in places.zip(&other.chances) {
                *sum += first * second;
            }
        }
        Self { least: self.least + other.least, chances }.trimmed()
    }

    fn trimmed(mut self) -> Self {
        let likeliest = self.chances.iter().copied().fold(0.0, f64::max);
        let counts = |chance: &f64| *chance >= likeliest * UNLIKELY;
        let first = self.chances.iter().position(counts).unwrap_or(0);
        let last = self.chances.iter().rposition(counts).unwrap_or(0);
        self.chances.truncate(last + 1);
        self.chances.drain(..first);
        self.least += i64::try_from(first).unwrap_or(0);
        self
    }

    /// From which values are drawn.
    pub(super) fn draws(&self) -> Draws {
        let mut below = 0.0;
        let sum_up = |chance: &f64| {
            below += chance;
            below
        };
        Draws { least: self.least, below: self.chances.iter().map(sum_up).collect() }
    }
}

/// A distribution, summed up.
#[derive(Debug, Clone)]
pub(super) struct Draws {
    least: i64,
    below: Vec<f64>,
}

impl Draws {
    /// The value at `share` (0 to 1) of the distribution.
    pub(super) fn at(&self, share: f64) -> i64 {
        let whole = self.below.last().copied().unwrap_or(1.0);
        let place = self.below.partition_point(|below| *below < share * whole);
        self.least + i64::try_from(place.min(self.below.len().saturating_sub(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_distributed_as_it_is_known_to_be() {
        // 10 throws of a coin: Pascal's triangle.
        let coins = Lattice::of([(0, 1.0), (1, 1.0)].into_iter()).sum_of(10);
        let expected = [1.0, 10.0, 45.0, 120.0, 210.0, 252.0, 210.0, 120.0, 45.0, 10.0, 1.0];
        assert_eq!(coins.chances.len(), expected.len());
        for (found, expected) in coins.chances.iter().zip(expected) {
            assert!((found - expected / 1024.0).abs() < 1e-12, "{found} {expected}");
        }
        let draws = coins.draws();
        assert_eq!([0.0, 0.5, 1.0].map(|share| draws.at(share)), [0, 5, 10]);
        // Of 1,000 values of -2, 0 and 1 the mean and the variance add up.
        let sum = Lattice::of([(-2, 1.0), (0, 5.0), (1, 2.0)].into_iter()).sum_of(1_000);
        let values = || (sum.least..).zip(&sum.chances).map(|(value, chance)| (value as f64, *chance));
        let mean: f64 = values().map(|(value, chance)| value * chance).sum();
        let variance: f64 = values().map(|(value, chance)| (value - mean).powi(2) * chance).sum();
        assert!(mean.abs() < 1e-6 && (variance - 750.0).abs() < 1e-3, "{mean} {variance}");
        assert!(sum.chances.len() < 1_000, "a few standard deviations: {}", sum.chances.len());
        assert_eq!(Lattice::of([(3, 1.0)].into_iter()).sum_of(0).draws().at(0.5), 0);
    }
}
