//! What the teacher's completions are worth: parse failures and accuracy, by split.

use super::{PaperDataset, official};
use domain::completion::FinishReason;
use domain::label::Comparison;
use domain::state::Reason;
use domain::{Example, Split, Task, completion, label};
use std::fmt;

/// The report of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaperReport {
    /// Of which dataset.
    pub dataset: PaperDataset,
    /// By split, in the order train, validation, test.
    pub splits: Vec<SplitReport>,
}

/// The report of one split. Every share is of all its rows: a row that cannot be parsed counts as wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitReport {
    /// Which split.
    pub split: Split,
    /// Its rows.
    pub rows: u64,
    /// Completions that cannot be used, by reason, in the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::ALL.len()],
    /// Rows whose label the released code reads, and reads right.
    pub official: u64,
    /// Rows that a careful reader finds right: an equation by its value, whole; any other label by its text as the
    /// teacher wrote it.
    pub careful: u64,
    /// Rows that judging finds right, by the task's own comparison: as `careful`, but `French government` is
    /// `french government`.
    pub judged: u64,
}

impl SplitReport {
    pub(super) fn new(split: Split) -> Self {
        Self { split, rows: 0, reasons: [0; Reason::ALL.len()], official: 0, careful: 0, judged: 0 }
    }

    /// Completions that cannot be used for one reason.
    pub fn of(&self, reason: Reason) -> u64 {
        Reason::ALL
            .iter()
            .zip(self.reasons)
            .find(|(known, _)| **known == reason)
            .map_or(0, |(_, count)| count)
    }

    /// Completions that cannot be parsed: all reasons but a label outside the set.
    pub fn parse_failures(&self) -> u64 {
        self.reasons.iter().sum::<u64>() - self.of(Reason::LabelNotInSet)
    }

    /// Labels outside the set.
    pub fn labels_not_in_set(&self) -> u64 {
        self.of(Reason::LabelNotInSet)
    }

    /// The teacher's accuracy by the released code's rule.
    pub fn accuracy_official(&self) -> Share {
        Share { part: self.official, whole: self.rows }
    }

    /// The teacher's accuracy as a careful reader finds it.
    pub fn accuracy_careful(&self) -> Share {
        Share { part: self.careful, whole: self.rows }
    }

    /// The teacher's accuracy as judging finds it.
    pub fn accuracy_judged(&self) -> Share {
        Share { part: self.judged, whole: self.rows }
    }

    pub(super) fn count(&mut self, dataset: PaperDataset, task: &Task, example: &Example, text: &str) {
        let gold = example.label.as_deref().unwrap_or_default();
        let parsed = completion::parse(task, example, text, FinishReason::Stop);
        let judged = parsed.label.as_deref().is_some_and(|label| label::same(task.metric, label, gold));
        let careful = match task.metric {
            Comparison::Equation => judged,
            Comparison::Text => {
                completion::label_as_written(task, example, text).as_deref() == Some(gold.trim())
            }
        };
        let official = official::label(dataset, text).is_some_and(|label| match task.metric {
            Comparison::Equation => label::same(Comparison::Equation, &label, gold),
            Comparison::Text => label == gold,
        });
        self.rows += 1;
        self.judged += u64::from(judged);
        self.careful += u64::from(careful);
        self.official += u64::from(official);
        for (known, count) in Reason::ALL.iter().zip(&mut self.reasons) {
            *count += u64::from(parsed.reason == Some(*known));
        }
    }
}

/// A share of a whole, shown as a percentage with one decimal, halves rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub part: u64,
    /// Of how many.
    pub whole: u64,
}

impl Share {
    /// Between 0 and 1; 0 of nothing.
    pub fn value(self) -> f64 {
        if self.whole == 0 { 0.0 } else { self.part as f64 / self.whole as f64 }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, whole) = (u128::from(self.part), u128::from(self.whole.max(1)));
        let tenths = (part * 2000 + whole) / (whole * 2);
        write!(formatter, "{}.{}%", tenths / 10, tenths % 10)
    }
}
