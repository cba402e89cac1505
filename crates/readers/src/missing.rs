//! Words that stand for an absent value in a column of numbers: `NaN`, `None`, `null`.
//!
//! In a column of texts they may be labels like any other. Which it is, is decided by the first rows of a file, so that a
//! stream is enough and memory does not grow with it.

use crate::error::ReadError;
use crate::row::{Cell, Record};
use std::collections::VecDeque;

/// What programs write for an absent number, letter by letter: `none` is a word of people.
const WORDS: &[&str] = &["NaN", "nan", "NAN", "null", "NULL", "None", "<NA>"];
/// Fields that may be numbers.
const COLUMNS: [&str; 2] = ["id", "label"];
/// Rows and bytes that are looked at before the first is given on.
const AHEAD_ROWS: usize = 512;
const AHEAD_BYTES: usize = 1024 * 1024;

/// Records in which such a word is an absent field.
pub(crate) struct Missing<I> {
    records: I,
    ahead: VecDeque<Result<Record, ReadError>>,
    /// Whether each of [`COLUMNS`] holds numbers; `None` before the first row.
    numeric: Option<[bool; COLUMNS.len()]>,
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Missing<I> {
    pub(crate) fn new(records: I) -> Self {
        Self { records, ahead: VecDeque::new(), numeric: None }
    }

    fn look_ahead(&mut self) -> [bool; COLUMNS.len()] {
        let mut bytes = 0;
        while self.ahead.len() < AHEAD_ROWS && bytes < AHEAD_BYTES {
            let Some(record) = self.records.next() else { break };
            bytes += record.as_ref().map_or(0, size);
            self.ahead.push_back(record);
        }
        COLUMNS.map(|name| {
            let records = self.ahead.iter().flatten();
            let cells = records.flat_map(|record| &record.cells).filter(|(column, _)| column == name);
            let mut texts = cells.filter_map(|(_, cell)| match cell {
                Cell::Text(text) if WORDS.contains(&text.as_str()) => None,
                Cell::Null => None,
                Cell::Text(text) | Cell::Bare(text) => Some(text.as_str()),
                Cell::List(_) | Cell::Other(_) => Some(""),
            });
            texts.next().is_some_and(is_number) && texts.all(is_number)
        })
    }
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Iterator for Missing<I> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let numeric = self.numeric.unwrap_or_else(|| self.look_ahead());
        self.numeric = Some(numeric);
        let mut next = self.ahead.pop_front().or_else(|| self.records.next())?;
        if let Ok(record) = &mut next {
            for (name, cell) in &mut record.cells {
                let is_numeric =
                    COLUMNS.iter().zip(numeric).any(|(column, numeric)| numeric && column == name);
                if is_numeric && matches!(cell, Cell::Text(text) if WORDS.contains(&text.as_str())) {
                    *cell = Cell::Null;
                }
            }
        }
        Some(next)
    }
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok_and(f64::is_finite)
}

/// About how much a record holds.
fn size(record: &Record) -> usize {
    let size = |cell: &Cell| match cell {
        Cell::Text(text) | Cell::Bare(text) => text.len(),
        Cell::List(items) => items.len() * 16,
        Cell::Null | Cell::Other(_) => 0,
    };
    record.cells.iter().map(|(name, cell)| name.len() + size(cell)).sum()
}
