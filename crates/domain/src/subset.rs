//! Which train rows a run learns from: a fraction of them, nested and stratified.
//!
//! Within each label the rows have one order, by a hash of the split seed and the row's index, and a fraction takes the
//! first of them, rounded up. So a smaller fraction of the same seed lies inside a larger one, every label keeps its
//! share to within one row, and every process on every machine chooses the same rows.

use crate::example::Example;
use crate::fault::Violation;
use crate::label::normalise;
use crate::metric::SplitMix;
use crate::task::{LabelSet, Task};
use std::collections::{BTreeMap, HashSet};

/// Parts of a whole: fractions are kept as integers, so that comparing them is exact everywhere.
const WHOLE: u32 = 1_000_000;
/// Makes the order of rows independent of other draws from the same seed, such as the rows that are held out.
const SALT: u64 = 0x5375_6273_6574_2031;

/// A fraction of a job's train rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    millionths: u32,
    /// The split seed: which rows a fraction takes, and which rows are held out where the dataset has no validation rows.
    pub seed: u64,
}

impl Subset {
    /// Every train row.
    pub fn all(seed: u64) -> Self {
        Self { millionths: WHOLE, seed }
    }

    /// This fraction, to the millionth.
    ///
    /// # Errors
    /// It is not above 0 and at most 1.
    pub fn new(fraction: f64, seed: u64) -> Result<Self, Violation> {
        let parts = (fraction * f64::from(WHOLE)).round();
        if parts >= 1.0 && parts <= f64::from(WHOLE) {
            return Ok(Self { millionths: parts as u32, seed });
        }
        Err(Violation::new("rows.fraction", format!("is {fraction}: it must be above 0 and at most 1")))
    }

    /// The subset of so many millionths, as it is stored; `None` for a number that none has.
    pub fn of_millionths(millionths: u32, seed: u64) -> Option<Self> {
        (1..=WHOLE).contains(&millionths).then_some(Self { millionths, seed })
    }

    /// The fraction in millionths.
    pub fn millionths(&self) -> u32 {
        self.millionths
    }

    /// The fraction, above 0 and at most 1.
    pub fn fraction(&self) -> f64 {
        f64::from(self.millionths) / f64::from(WHOLE)
    }

    /// Whether it takes every row.
    pub fn is_all(&self) -> bool {
        self.millionths == WHOLE
    }

    /// The rows that it takes, of all train rows with the stratum of each.
    pub fn choose(&self, rows: impl IntoIterator<Item = (u64, Stratum)>) -> HashSet<u64> {
        let mut strata: BTreeMap<Stratum, Vec<(u64, u64)>> = BTreeMap::new();
        for (index, stratum) in rows {
            strata.entry(stratum).or_default().push((self.rank(index), index));
        }
        let mut chosen = HashSet::new();
        for mut rows in strata.into_values() {
            rows.sort_unstable();
            let parts = rows.len() as u128 * u128::from(self.millionths);
            let count = parts.div_ceil(u128::from(WHOLE));
            chosen.extend(
                rows.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).map(|(_, index)| index),
            );
        }
        chosen
    }

    /// Where a row stands in the order of its stratum.
    pub(crate) fn rank(&self, index: u64) -> u64 {
        SplitMix::new(self.seed ^ SALT ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next_u64()
    }
}

/// At most `count` of these rows, the same ones whenever they are chosen of the same rows: a larger count contains a smaller.
pub fn sample(rows: Vec<u64>, count: u32) -> HashSet<u64> {
    let all = Subset::all(0);
    let mut ranked: Vec<(u64, u64)> = rows.into_iter().map(|row| (all.rank(row), row)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).map(|(_, row)| row).collect()
}

/// Rows whose proportions a subset keeps: those with the same label of a closed set. Labels of an open set are not
/// strata, since nearly every row has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stratum(Option<String>);

impl Stratum {
    /// The stratum of a row.
    pub fn of(task: &Task, example: &Example) -> Self {
        match task.labels {
            LabelSet::Closed(_) => Self(example.label.as_deref().map(normalise)),
            LabelSet::Open | LabelSet::Choices => Self(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stratum(label: &str) -> Stratum {
        Stratum(Some(label.to_owned()))
    }

    /// Row `index` has the label at `index` of `labels`.
    fn choose(fraction: f64, seed: u64, labels: &[u8]) -> HashSet<u64> {
        let rows = (0..).zip(labels).map(|(index, label)| (index, stratum(&label.to_string())));
        Subset::new(fraction, seed).unwrap().choose(rows)
    }

    proptest! {
        #[test]
        fn fractions_are_nested_and_keep_the_share_of_each_label(
            labels in proptest::collection::vec(0..4u8, 1..400), seed: u64, parts in 1..=64u32, more in 1..=64u32,
        ) {
            let (low, high) = (parts.min(more), parts.max(more));
            let (few, many) = (choose(f64::from(low) / 64.0, seed, &labels), choose(f64::from(high) / 64.0, seed, &labels));
            prop_assert!(few.is_subset(&many));
            for label in 0..4 {
                let rows: Vec<u64> = (0..).zip(&labels).filter(|(_, known)| **known == label).map(|(index, _)| index).collect();
                let kept = rows.iter().filter(|index| few.contains(index)).count();
                prop_assert_eq!(kept, (rows.len() * low as usize).div_ceil(64), "label {}", label);
            }
            prop_assert_eq!(choose(1.0, seed, &labels).len(), labels.len());
        }
    }

    #[test]
    fn the_choice_is_the_same_in_every_process() {
        let mut chosen: Vec<u64> = choose(0.125, 7, &[0; 64]).into_iter().collect();
        chosen.sort_unstable();
        assert_eq!(chosen, [7, 16, 21, 26, 34, 47, 48, 58]);
        assert_ne!(choose(0.125, 7, &[0; 64]), choose(0.125, 8, &[0; 64]));
    }

    #[test]
    fn a_sample_is_nested_and_always_the_same() {
        let rows: Vec<u64> = (0..500).collect();
        let (few, many) = (sample(rows.clone(), 20), sample(rows.clone(), 200));
        assert_eq!((few.len(), many.len(), sample(rows.clone(), 900).len()), (20, 200, 500));
        assert!(few.is_subset(&many) && !few.contains(&1_000));
        assert_eq!(sample(rows.into_iter().rev().collect(), 20), few);
    }

    #[test]
    fn only_labels_of_a_closed_set_are_strata() {
        let row = |label: &str| Example { label: Some(label.to_owned()), ..Example::default() };
        let check = |task: &str, left: &str, right: &str, same: bool| {
            let task = Task::built_in(task).unwrap();
            let strata = [left, right].map(|label| Stratum::of(&task, &row(label)));
            assert_eq!(strata[0] == strata[1], same, "{}: {left}, {right}", task.name);
        };
        check("nli", "neutral", "Neutral ", true);
        check("nli", "neutral", "contradiction", false);
        check("equation", "1 + 1", "2 + 2", true);
        check("choice", "bank", "river", true);
    }

    #[test]
    fn a_fraction_lies_above_zero_and_at_most_one() {
        for wrong in [0.0, -0.5, 1.000_001, 1e-9, f64::NAN, f64::INFINITY] {
            assert!(Subset::new(wrong, 0).unwrap_err().message.contains("above 0"), "{wrong}");
        }
        assert_eq!(Subset::new(0.125, 0).unwrap().fraction(), 0.125);
        assert!(Subset::new(1.0, 3).unwrap().is_all());
    }
}
