//! Two students on the same rows: which one is better, and how sure we are of it.
//!
//! Only rows on which the two differ say anything about their difference, so counts of the four outcomes are enough.

use crate::named::named;
use serde::{Deserialize, Serialize};

/// Counts that are less likely than this, relative to the likeliest, are left out of a distribution.
const UNLIKELY: f64 = 1e-10;

/// Rows by which of two students answered them right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pairs {
    /// Both were right.
    pub both: u64,
    /// Only the first was right.
    pub first: u64,
    /// Only the second was right.
    pub second: u64,
    /// Neither was right.
    pub neither: u64,
}

/// How much better the first of two students is, in shares of right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The first one's accuracy less the second one's, between -1 and 1; 0 where there are no rows.
    pub value: f64,
    /// The lower end of its 95% interval.
    pub low: f64,
    /// The upper end of its 95% interval.
    pub high: f64,
    /// How likely a difference at least this large is where the two are equally good: the permutation test that swaps
    /// the two answers of a row, exactly (for right and wrong answers it is McNemar's test in its exact form).
    pub p_value: f64,
}

named!(
    /// What can be said of the first of two students.
    Finding {
        /// It is better: the 95% interval of the difference is above zero.
        Better = "better",
        /// It is worse: the interval is below zero.
        Worse = "worse",
        /// The interval is inside the margin.
        NoDifference = "no difference",
        /// None of these: more rows are needed.
        NotDecided = "not decided",
    }
);

impl FromIterator<(bool, bool)> for Pairs {
    /// From whether the first and the second were right on each row.
    fn from_iter<T: IntoIterator<Item = (bool, bool)>>(rights: T) -> Self {
        let mut pairs = Self::default();
        for right in rights {
            let count = match right {
                (true, true) => &mut pairs.both,
                (true, false) => &mut pairs.first,
                (false, true) => &mut pairs.second,
                (false, false) => &mut pairs.neither,
            };
            *count = count.saturating_add(1);
        }
        pairs
    }
}

impl Pairs {
    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        [self.both, self.first, self.second, self.neither].into_iter().fold(0, u64::saturating_add)
    }

    /// The first one's accuracy less the second one's; 0 where there are no rows.
    pub fn value(&self) -> f64 {
        let rows = self.rows();
        if rows == 0 { 0.0 } else { (self.first as f64 - self.second as f64) / rows as f64 }
    }

    /// The difference with its 95% interval and its p-value. Equal counts give equal intervals, on every machine.
    pub fn difference(&self) -> Difference {
        let (value, distribution) = (self.value(), self.distribution());
        Difference {
            value,
            low: quantile(&distribution, 0.025).min(value),
            high: quantile(&distribution, 0.975).max(value),
            p_value: sign_test(self.first, self.second),
        }
    }

    /// The value that the difference exceeds with a probability of at most 1 - `confidence`: the end of a one-sided
    /// interval. 1 where there are no rows.
    pub fn upper(&self, confidence: f64) -> f64 {
        quantile(&self.distribution(), confidence).max(self.value())
    }

    /// Every difference that a resample of the rows can have with the probability that it has that or a smaller one: the
    /// distribution of the percentile bootstrap (Efron 1979), computed and not drawn, so that it has no seed and no noise.
    /// It resamples from counts to which half a row was added in each of the four outcomes (Agresti and Min 2005): without
    /// that, two students that agree on all of a few rows would have the interval from 0 to 0.
    fn distribution(&self) -> Vec<(f64, f64)> {
        let rows = self.rows();
        if rows == 0 {
            return vec![(-1.0, 0.5), (1.0, 1.0)];
        }
        let differing = self.first as f64 + self.second as f64 + 1.0;
        let share_first = (self.first as f64 + 0.5) / differing;
        // How many rows of a resample differ, and on how many of these the first is right.
        let differing = binomial(rows, differing / (rows as f64 + 2.0));
        let most = differing.last().map_or(0, |&(most, _)| most);
        // By how many rows the first is right more often, counted from the least that this can be.
        let mut chances = vec![0.0; most.saturating_mul(2).saturating_add(1) as usize];
        for (differing, chance) in differing {
            for (first, chance_first) in binomial(differing, share_first) {
                let more = most.saturating_sub(differing).saturating_add(first.saturating_mul(2));
                if let Some(sum) = chances.get_mut(more as usize) {
                    *sum += chance * chance_first;
                }
            }
        }
        let mut below = 0.0;
        let sum_up = |(more, chance): (usize, f64)| {
            below += chance;
            ((more as f64 - most as f64) / rows as f64, below)
        };
        chances.into_iter().enumerate().filter(|&(_, chance)| chance > 0.0).map(sum_up).collect()
    }
}

impl Difference {
    /// What it says of the first student, where a difference of up to `margin` (a share of the rows) does not matter.
    pub fn finding(&self, margin: f64) -> Finding {
        if self.low > 0.0 {
            Finding::Better
        } else if self.high < 0.0 {
            Finding::Worse
        } else if -margin <= self.low && self.high <= margin {
            Finding::NoDifference
        } else {
            Finding::NotDecided
        }
    }
}

/// The smallest difference that is not exceeded with a probability of `share`.
fn quantile(distribution: &[(f64, f64)], share: f64) -> f64 {
    let index = distribution.partition_point(|&(_, below)| below < share);
    distribution.get(index).or(distribution.last()).map_or(0.0, |&(value, _)| value)
}

/// How many of `trials` succeed with probability `share` each (above 0 and below 1), from the fewest to the most, each count
/// with its probability; unlikely ones are left out.
fn binomial(trials: u64, share: f64) -> Vec<(u64, f64)> {
    binomial_until(trials, share, UNLIKELY)
}

fn binomial_until(trials: u64, share: f64, cut: f64) -> Vec<(u64, f64)> {
    let mode = (((trials as f64 + 1.0) * share) as u64).min(trials);
    let odds = share / (1.0 - share);
    // From the mode outwards, relative to it: no factorial is computed, and the cost is that of a few standard deviations.
    let fewer = std::iter::successors(Some((mode, 1.0)), |&(count, chance)| {
        Some((count.checked_sub(1)?, chance * count as f64 / ((trials - count + 1) as f64 * odds)))
    });
    let more = std::iter::successors(Some((mode, 1.0)), |&(count, chance)| {
        (count < trials).then(|| (count + 1, chance * (trials - count) as f64 * odds / (count + 1) as f64))
    });
    let counts = |&(_, chance): &(u64, f64)| chance >= cut;
    let mut all: Vec<(u64, f64)> = fewer.take_while(counts).collect();
    all.reverse();
    all.extend(more.skip(1).take_while(counts));
    let sum: f64 = all.iter().map(|(_, chance)| chance).sum();
    all.iter_mut().for_each(|(_, chance)| *chance /= sum);
    all
}

/// How likely `first` and `second` of their sum, or a split more uneven, are where both are equally likely: two-sided. 0 where
/// it is below the smallest number.
fn sign_test(first: u64, second: u64) -> f64 {
    let fewer = first.min(second);
    let tail = binomial_until(first.saturating_add(second), 0.5, f64::MIN_POSITIVE);
    let tail: f64 = tail.iter().take_while(|(count, _)| *count <= fewer).map(|(_, chance)| chance).sum();
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::SplitMix;

    fn pairs(both: u64, first: u64, second: u64, neither: u64) -> Pairs {
        Pairs { both, first, second, neither }
    }

    #[test]
    fn rows_are_counted_by_who_was_right() {
        let rights = [(true, true), (true, false), (true, false), (false, true), (false, false)];
        assert_eq!(rights.into_iter().collect::<Pairs>(), pairs(1, 2, 1, 1));
        assert_eq!(pairs(1, 2, 1, 1).rows(), 5);
        assert!((pairs(1, 2, 1, 1).value() - 0.2).abs() < 1e-12);
        assert_eq!(pairs(0, 0, 0, 0).value(), 0.0);
    }

    #[test]
    fn an_interval_is_that_of_the_normal_limit_where_there_are_many_rows() {
        // Counts, and the standard error of their difference: sqrt((b + c - (b - c)^2 / n)) / n.
        for counts in [
            pairs(700, 80, 60, 160),
            pairs(850, 40, 40, 70),
            pairs(100, 60, 10, 30),
            pairs(4_000, 3_000, 2_000, 1_000),
        ] {
            let (rows, first, second) = (counts.rows() as f64, counts.first as f64, counts.second as f64);
            let error = (first + second - (first - second).powi(2) / rows).sqrt() / rows;
            let difference = counts.difference();
            for (end, expected) in [
                (difference.low, difference.value - 1.96 * error),
                (difference.high, difference.value + 1.96 * error),
            ] {
                assert!(
                    (end - expected).abs() < 0.15 * error + 1.5 / rows,
                    "{counts:?}: {end} and {expected}"
                );
            }
            let upper = counts.upper(0.95);
            let expected = difference.value + 1.645 * error;
            assert!(
                (upper - expected).abs() < 0.15 * error + 1.5 / rows,
                "{counts:?}: {upper} and {expected}"
            );
            assert!(upper < counts.upper(0.99));
        }
    }

    #[test]
    fn edges_are_uncertain_and_bounded() {
        assert_eq!((pairs(0, 0, 0, 0).difference().low, pairs(0, 0, 0, 0).difference().high), (-1.0, 1.0));
        assert_eq!(pairs(0, 0, 0, 0).upper(0.95), 1.0);
        // Students that agree on a few rows may differ on others; on many rows they hardly do.
        let (few, many) = (pairs(5, 0, 0, 0).difference(), pairs(3_000, 0, 0, 0).difference());
        assert!(few.low <= -0.2 && few.high >= 0.2, "{few:?}");
        assert!(many.low > -0.002 && many.high < 0.002, "{many:?}");
        let all = pairs(0, 50, 0, 0).difference();
        assert!(all.high == 1.0 && all.low > 0.85, "{all:?}");
        assert_eq!(pairs(700, 80, 60, 160).difference(), pairs(700, 80, 60, 160).difference());
    }

    #[test]
    fn swapping_the_students_turns_the_difference_round() {
        for (first, second) in [(80, 60), (3, 0), (30, 31)] {
            let (one, other) =
                (pairs(700, first, second, 90).difference(), pairs(700, second, first, 90).difference());
            assert!((one.value + other.value).abs() < 1e-12);
            assert!(
                (one.low + other.high).abs() < 0.003 && (one.high + other.low).abs() < 0.003,
                "{one:?} {other:?}"
            );
            assert_eq!(one.p_value, other.p_value);
        }
    }

    #[test]
    fn the_p_value_is_that_of_the_exact_test() {
        // Two-sided binomial tests at one half, as R's binom.test gives them.
        for (first, second, expected) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 0, 0.0625),
            (8, 2, 0.109_375),
            (15, 5, 0.041_389_465),
            (80, 60, 0.107_987_63),
            (7, 7, 1.0),
            (60, 20, 8.580_56e-6),
        ] {
            let found = sign_test(first, second);
            assert!(
                (found - expected).abs() <= 1e-4 * expected,
                "{first} and {second}: {found}, not {expected}"
            );
        }
        // Bounded work and no overflow, whatever the counts.
        assert!(sign_test(400_000, 410_000) < 1e-20);
        assert!(sign_test(400_000, 400_000) > 0.99);
    }

    #[test]
    fn one_word_says_what_was_found() {
        let difference = |low, high| Difference { value: (low + high) / 2.0, low, high, p_value: 1.0 };
        for (low, high, finding) in [
            (0.01, 0.05, Finding::Better),
            (-0.05, -0.01, Finding::Worse),
            (-0.01, 0.015, Finding::NoDifference),
            (-0.02, 0.02, Finding::NoDifference),
            (0.0, 0.01, Finding::NoDifference),
            (-0.01, 0.03, Finding::NotDecided),
            (-0.05, 0.0, Finding::NotDecided),
        ] {
            assert_eq!(difference(low, high).finding(0.02), finding, "{low} to {high}");
        }
    }

    /// Studies with a planted difference: how often the interval and the one-sided bound hold it, and how often a word
    /// claims a difference.
    #[test]
    fn intervals_hold_a_planted_difference_as_often_as_they_promise() {
        // Rows, and the probabilities that only the first and only the second is right.
        for (rows, only_first, only_second) in
            [(60, 0.10, 0.10), (300, 0.10, 0.05), (300, 0.01, 0.01), (600, 0.04, 0.04)]
        {
            let (studies, truth) = (300_u32, only_first - only_second);
            let (mut held, mut bounded, mut claimed) = (0_u32, 0_u32, 0_u32);
            let mut generator = SplitMix::new(rows);
            for _ in 0..studies {
                let counts: Pairs = (0..rows)
                    .map(|_| {
                        let drawn = generator.next_f64();
                        (drawn < only_first, (only_first..only_first + only_second).contains(&drawn))
                    })
                    .collect();
                let difference = counts.difference();
                held += u32::from(difference.low <= truth && truth <= difference.high);
                bounded += u32::from(truth <= counts.upper(0.95));
                claimed += u32::from(difference.low > 0.0 || difference.high < 0.0);
            }
            let share = |count: u32| f64::from(count) / f64::from(studies);
            // 300 studies have a standard error of 1.3 points around 95%.
            assert!(
                (0.92..=1.0).contains(&share(held)),
                "{rows} rows: {held} of {studies} intervals hold it"
            );
            assert!(
                (0.92..=1.0).contains(&share(bounded)),
                "{rows} rows: {bounded} of {studies} bounds hold it"
            );
            if truth == 0.0 {
                assert!(share(claimed) <= 0.08, "{rows} rows: {claimed} of {studies} claim a difference");
            }
        }
    }
}
