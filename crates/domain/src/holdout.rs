//! Which rows of a train file are held out, as validation and as test rows.
//!
//! Rows have one order within each label: by a hash of the seed and of what the student reads of them. The first of them are
//! test rows, the next ones validation rows, the others train. So every label keeps its share to within one row; the same rows
//! are divided alike in whatever order, format or process they are read; another validation share leaves the test rows as they
//! are; and rows that read the same are on the same side, whatever their labels, so that none is in two of them. Where rows are
//! added, only those next to a border may change sides.

use crate::example::{Example, Split};
use crate::fault::Violation;
use crate::subset::Stratum;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Parts of a whole: shares are kept as integers, so that comparing them is exact everywhere.
const WHOLE: u32 = 1_000_000;

/// How much of the train rows is held out, and by which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// In millionths.
    validation: u32,
    /// In millionths.
    test: u32,
    seed: u64,
}

impl Shares {
    /// These shares of the train rows; an absent one holds out nothing.
    ///
    /// # Errors
    /// One is not above 0 and below 1, or no row is left to train on; fields are `validation_share` and `test_share`.
    pub fn new(validation: Option<f64>, test: Option<f64>, seed: u64) -> Result<Self, Vec<Violation>> {
        let mut found = Vec::new();
        let mut parts = |field: &str, share: Option<f64>| {
            let Some(share) = share else { return 0 };
            let parts = (share * f64::from(WHOLE)).round();
            if parts >= 1.0 && parts < f64::from(WHOLE) {
                return parts as u32;
            }
            found.push(Violation::new(field, format!("is {share}: it must be above 0 and below 1")));
            0
        };
        let shares =
            Self { validation: parts("validation_share", validation), test: parts("test_share", test), seed };
        if shares.validation.saturating_add(shares.test) >= WHOLE {
            let message = "leaves no train row together with `validation_share`: their sum must be below 1";
            found.push(Violation::new("test_share", message));
        }
        if found.is_empty() { Ok(shares) } else { Err(found) }
    }

    /// Whether rows are held out for this split.
    pub fn hold_out(&self, split: Split) -> bool {
        match split {
            Split::Train => false,
            Split::Validation => self.validation > 0,
            Split::Test => self.test > 0,
        }
    }

    /// The place of a row in the order of its label: the first ones are test rows, the last ones train.
    pub fn rank(&self, row: &Example) -> u64 {
        let mut hash = Sha256::new();
        hash.update(b"holdout/1");
        hash.update(self.seed.to_be_bytes());
        let pair = [row.premise.as_deref(), row.hypothesis.as_deref()].map(Option::unwrap_or_default);
        let texts = std::iter::once(row.input.as_str()).chain(pair);
        for text in texts.chain(row.choices.iter().map(String::as_str)) {
            // With its length, so that no two lists of texts are one sequence of bytes.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        digest.iter().take(8).fold(0, |rank, byte| rank << 8 | u64::from(*byte))
    }

    /// Divides rows, each with its stratum. Memory is some 30 bytes for every row that differs from the others.
    pub fn divide(self, rows: impl IntoIterator<Item = (Example, Stratum)>) -> Holdout {
        let mut sides = HashMap::new();
        for mut ranks in self.by_stratum(rows).into_values() {
            ranks.sort_unstable();
            let (test, held_out) = self.counts(ranks.len());
            for (place, rank) in ranks.into_iter().take(held_out).enumerate() {
                sides.insert(rank, if place < test { Split::Test } else { Split::Validation });
            }
        }
        Holdout { shares: self, sides }
    }

    /// The ranks of each stratum. Rows that read the same count once: in the first stratum by name, whichever came first.
    fn by_stratum(self, rows: impl IntoIterator<Item = (Example, Stratum)>) -> BTreeMap<Stratum, Vec<u64>> {
        let mut names: Vec<Stratum> = Vec::new();
        let mut places: BTreeMap<Stratum, usize> = BTreeMap::new();
        let mut known: HashMap<u64, usize> = HashMap::new();
        for (row, stratum) in rows {
            let place = *places.entry(stratum).or_insert_with_key(|name| {
                names.push(name.clone());
                names.len() - 1
            });
            let first = known.entry(self.rank(&row)).or_insert(place);
            if names.get(place) < names.get(*first) {
                *first = place;
            }
        }
        let mut strata: BTreeMap<Stratum, Vec<u64>> = BTreeMap::new();
        for (rank, place) in known {
            if let Some(name) = names.get(place) {
                strata.entry(name.clone()).or_default().push(rank);
            }
        }
        strata
    }

    /// Of so many rows: how many are test rows, and how many are held out in all. One at least stays.
    fn counts(self, rows: usize) -> (usize, usize) {
        let part = |millionths: u32| {
            let parts = rows as u128 * u128::from(millionths) * 2 + u128::from(WHOLE);
            usize::try_from(parts / (2 * u128::from(WHOLE))).unwrap_or(usize::MAX)
        };
        let held_out = part(self.test.saturating_add(self.validation)).min(rows.saturating_sub(1));
        (part(self.test).min(held_out), held_out)
    }
}

/// The rows that are held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdout {
    shares: Shares,
    sides: HashMap<u64, Split>,
}

impl Holdout {
    /// The split of a row of those that were divided.
    pub fn split_of(&self, row: &Example) -> Split {
        self.sides.get(&self.shares.rank(row)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{LabelSet, Task};
    use proptest::prelude::*;

    fn row(input: &str, label: Option<&str>) -> Example {
        Example { input: input.into(), label: label.map(str::to_owned), ..Example::default() }
    }

    fn task() -> Task {
        let labels = LabelSet::Closed(["a", "b", "c"].map(str::to_owned).to_vec());
        Task { labels, ..Task::built_in("classify").unwrap() }
    }

    fn shares(validation: f64, test: f64, seed: u64) -> Shares {
        let some = |share: f64| (share > 0.0).then_some(share);
        Shares::new(some(validation), some(test), seed).unwrap()
    }

    fn divide(shares: Shares, rows: &[Example]) -> Vec<Split> {
        let task = task();
        let holdout = shares.divide(rows.iter().map(|row| (row.clone(), Stratum::of(&task, row))));
        rows.iter().map(|row| holdout.split_of(row)).collect()
    }

    /// Rows `from..from + count` of a label.
    fn of_label(label: &str, count: usize) -> Vec<Example> {
        (0..count).map(|place| row(&format!("{label} {place}"), Some(label))).collect()
    }

    #[test]
    fn every_label_keeps_its_share() {
        let check = |shares: Shares, rows: usize, expected: [usize; 3]| {
            let many = of_label("b", 40);
            let all: Vec<Example> = of_label("a", rows).into_iter().chain(many).collect();
            let splits = divide(shares, &all);
            let of_a = &splits[..rows];
            let counts = Split::ALL.iter().map(|split| of_a.iter().filter(|of| *of == split).count());
            assert_eq!(counts.collect::<Vec<_>>(), expected, "{rows} rows of {shares:?}");
        };
        check(shares(0.1, 0.2, 0), 100, [70, 10, 20]);
        check(shares(0.1, 0.2, 1), 10, [7, 1, 2]);
        check(shares(0.1, 0.2, 2), 3, [2, 0, 1]);
        check(shares(0.1, 0.2, 3), 1, [1, 0, 0]);
        check(shares(0.0, 0.25, 4), 4, [3, 0, 1]);
        check(shares(0.25, 0.0, 5), 4, [3, 1, 0]);
        // One row stays, however much is held out.
        check(shares(0.49, 0.5, 6), 1, [1, 0, 0]);
        check(shares(0.49, 0.5, 7), 2, [1, 0, 1]);
    }

    #[test]
    fn shares_that_cannot_be_are_named_by_field() {
        let check = |validation: Option<f64>, test: Option<f64>, fields: &[&str]| {
            let found = Shares::new(validation, test, 0).err().unwrap_or_default();
            let found: Vec<String> = found.into_iter().map(|violation| violation.field).collect();
            assert_eq!(found, fields, "{validation:?} and {test:?}");
        };
        check(None, None, &[]);
        check(Some(0.5), Some(0.49), &[]);
        check(Some(0.5), Some(0.5), &["test_share"]);
        check(Some(0.9), Some(0.2), &["test_share"]);
        check(Some(1.0), None, &["validation_share"]);
        check(Some(0.0), Some(-0.1), &["validation_share", "test_share"]);
        check(None, Some(f64::NAN), &["test_share"]);
        check(None, Some(1e-9), &["test_share"]);
    }

    #[test]
    fn rows_that_read_the_same_are_on_the_same_side() {
        let mut rows = of_label("a", 50);
        rows.extend(of_label("a", 50).into_iter().map(|row| Example { label: Some("b".into()), ..row }));
        let splits = divide(shares(0.2, 0.3, 0), &rows);
        assert_eq!(splits[..50], splits[50..]);
        assert_eq!(
            splits[..50].iter().filter(|split| **split == Split::Test).count(),
            15,
            "each counts once"
        );
    }

    #[test]
    fn what_the_student_reads_is_hashed_and_nothing_else() {
        let shares = shares(0.1, 0.1, 0);
        let base = row("x", Some("a"));
        let same = |other: Example| shares.rank(&base) == shares.rank(&other);
        assert!(same(Example { key: Some("7".into()), label: None, split: Split::Test, ..base.clone() }));
        assert!(!same(row("y", Some("a"))));
        assert!(!same(Example { choices: vec!["p".into(), "q".into()], ..base.clone() }));
        let choices =
            |texts: [&str; 2]| Example { choices: texts.map(str::to_owned).to_vec(), ..base.clone() };
        assert_ne!(shares.rank(&choices(["ab", "c"])), shares.rank(&choices(["a", "bc"])));
        assert_ne!(shares.rank(&base), Shares { seed: 1, ..shares }.rank(&base));
        assert_eq!(shares.rank(&base), 6_135_519_631_399_311_221, "the same in every process");
    }

    proptest! {
        #[test]
        fn rows_are_divided_alike_in_any_order_and_shares_are_kept(
            labels in proptest::collection::vec(proptest::option::of(0..3usize), 1..200),
            seed: u64, validation in 0..50u32, test in 0..50u32, from in 0..200usize,
        ) {
            let shares = shares(f64::from(validation) / 100.0, f64::from(test) / 100.0, seed);
            let name = |label: &Option<usize>| label.map(|place| ["a", "b", "c"][place]);
            let rows: Vec<Example> =
                labels.iter().enumerate().map(|(place, label)| row(&format!("row {place}"), name(label))).collect();
            let splits = divide(shares, &rows);
            let mut turned: Vec<(Example, Split)> = rows.iter().cloned().zip(splits.iter().copied()).collect();
            turned.rotate_left(from % rows.len());
            turned.reverse();
            let (moved, expected): (Vec<Example>, Vec<Split>) = turned.into_iter().unzip();
            prop_assert_eq!(divide(shares, &moved), expected);
            for label in [None, Some(0), Some(1), Some(2)] {
                let of: Vec<Split> =
                    labels.iter().zip(&splits).filter(|(of, _)| **of == label).map(|(_, split)| *split).collect();
                for (split, percent) in [(Split::Test, test), (Split::Validation, validation)] {
                    let held = of.iter().filter(|of| **of == split).count() as f64;
                    let wanted = of.len() as f64 * f64::from(percent) / 100.0;
                    prop_assert!((held - wanted).abs() <= 1.0, "{held} of {} for {percent}%", of.len());
                }
            }
        }

        #[test]
        fn the_test_rows_do_not_depend_on_the_validation_share(seed: u64, one in 1..40u32, other in 1..40u32) {
            let rows = of_label("a", 97);
            let test_rows = |validation: u32| -> Vec<bool> {
                divide(shares(f64::from(validation) / 100.0, 0.3, seed), &rows).iter().map(|split| *split == Split::Test).collect()
            };
            prop_assert_eq!(test_rows(one), test_rows(other));
        }
    }
}
