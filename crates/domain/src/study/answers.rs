//! What students and their teacher answered: the only evidence of a study.

use super::grid::Cell;
use serde::{Deserialize, Serialize};

/// An answer to a test row.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answered {
    /// The row's index in the dataset.
    pub row: u64,
    /// The right label.
    pub gold: String,
    /// The label of the answer; empty where it says none.
    pub prediction: String,
    /// Whether the two are the same, as the task compares them.
    pub right: bool,
    /// The natural logarithm of the answer's probability; `None` for a teacher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_probability: Option<f64>,
    /// The rationale, of those rows that were explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
    /// The label that the rationale comes to by itself; `None` where it comes to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concludes: Option<String>,
    /// Whether that is the predicted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
}

/// What the student of a cell answered to the test rows that have a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The cell.
    pub cell: Cell,
    /// How many parameters the student has.
    pub parameters: u64,
    /// The rows, in order.
    pub rows: Vec<Answered>,
}

/// What a teacher answered to those of the test rows that it was asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The profiles that were asked, or where the answers came from.
    pub name: String,
    /// The rows, in order.
    pub rows: Vec<Answered>,
}

pub(super) fn count(rows: &[Answered], is: fn(&Answered) -> bool) -> u64 {
    rows.iter().filter(|row| is(row)).count() as u64
}

pub(super) fn share(part: u64, whole: u64) -> f64 {
    rounded(part as f64 / whole.max(1) as f64)
}

pub(super) fn rounded(value: f64) -> f64 {
    let rounded = (value * 1e6).round() / 1e6;
    // There is no negative zero in a table.
    if rounded == 0.0 { 0.0 } else { rounded }
}
