//! The control of rationales: every row learns its own label, and another row's rationales.
//!
//! What a student gains from rationales that are of other rows it does not gain from what they say of its row (papers differ
//! on how much that is: arXiv 2406.14511).

use crate::metric::SplitMix;
use crate::objective::TrainingExample;
use crate::spec::{Rationales, TrainingSpec};

/// Makes the order of rationales independent of other draws from the same seed.
const SALT: u64 = 0x5368_7566_666C_6531;

/// Gives the rows the rationales that `training` says.
pub fn apply(training: &TrainingSpec, examples: &mut [TrainingExample]) {
    match training.rationales {
        Rationales::Own => {}
        Rationales::Shuffled => derange(examples, training.seed),
    }
}

/// Moves the rationales of every row that has some to another one of these rows: one cycle through all of them (Sattolo 1986),
/// so that none keeps its own. All rationales of a row stay together, with their weights. A row that is alone loses them.
fn derange(examples: &mut [TrainingExample], seed: u64) {
    let mut explained: Vec<&mut TrainingExample> =
        examples.iter_mut().filter(|example| !example.rationales.is_empty()).collect();
    if let [alone] = explained.as_mut_slice() {
        alone.rationales = Vec::new();
        return;
    }
    let mut rationales: Vec<_> =
        explained.iter_mut().map(|example| std::mem::take(&mut example.rationales)).collect();
    let mut generator = SplitMix::new(seed ^ SALT);
    for last in (1..rationales.len()).rev() {
        rationales.swap(last, generator.below(last as u64) as usize);
    }
    for (example, rationales) in explained.into_iter().zip(rationales) {
        example.rationales = rationales;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{Example, Row};
    use crate::objective::AcceptedRationale;

    /// Every third row has no rationale; every fourth has two.
    fn rows(count: u64) -> Vec<TrainingExample> {
        let rationale = |row: u64, sample: u32| AcceptedRationale {
            sample,
            text: format!("why {row}"),
            label: format!("label {row}"),
            weight: 1.0 / f64::from(sample + 1),
        };
        let rationales = |row: u64| match row {
            row if row.is_multiple_of(3) => Vec::new(),
            row if row.is_multiple_of(4) => vec![rationale(row, 0), rationale(row, 1)],
            row => vec![rationale(row, 0)],
        };
        (0..count)
            .map(|row| TrainingExample {
                row: Row { index: row, example: Example::default() },
                target: Some(format!("label {row}")),
                rationales: rationales(row),
            })
            .collect()
    }

    fn shuffled(count: u64, seed: u64) -> Vec<TrainingExample> {
        let mut examples = rows(count);
        derange(&mut examples, seed);
        examples
    }

    #[test]
    fn every_row_has_its_own_label_and_the_rationales_of_another_row() {
        for (count, seed) in [(3, 0), (5, 0), (40, 7), (301, 1)] {
            let (own, other) = (rows(count), shuffled(count, seed));
            for (own, other) in own.iter().zip(&other) {
                assert_eq!((own.row.index, &own.target), (other.row.index, &other.target));
                assert_eq!(own.rationales.is_empty(), other.rationales.is_empty());
                assert!(own.rationales.is_empty() || own.rationales != other.rationales, "{other:?}");
            }
            let texts = |examples: &[TrainingExample]| {
                let mut texts: Vec<String> = examples
                    .iter()
                    .flat_map(|example| &example.rationales)
                    .map(|rationale| format!("{} {} {}", rationale.text, rationale.sample, rationale.weight))
                    .collect();
                texts.sort();
                texts
            };
            assert_eq!(texts(&own), texts(&other), "none is lost, none is doubled");
            assert_eq!(shuffled(count, seed), other, "the same in every process");
        }
        assert_ne!(shuffled(40, 1), shuffled(40, 2));
    }

    #[test]
    fn a_row_that_is_alone_has_no_rationale() {
        assert!(shuffled(2, 0).iter().all(|example| example.rationales.is_empty()));
        assert_eq!(shuffled(0, 0), []);
    }
}
