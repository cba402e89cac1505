//! JSON Lines, CSV, Parquet and the paper's layout, read into rows, with file, line and field in every error.
//!
//! A row has the fields of [`FIELDS`], the same in every format:
//!
//! | field | holds |
//! | --- | --- |
//! | `id` | the caller's own id, unique over all files read together |
//! | `split` | `train` (where absent), `validation` (or `valid`, `dev`), `test` |
//! | `input` | the text; or `premise` and `hypothesis` in its place |
//! | `choices` | the options of a multiple-choice question: an array; in CSV a cell with a JSON array of texts |
//! | `label` | the gold label; a number or a truth value counts as its text, digit for digit |
//! | `rationale` | an explanation that came with the row |
//!
//! Where the columns of a file have other names, [`Options::columns`] says which is which field. [`sample()`] looks at the first
//! rows of a file of any columns.
//!
//! What is read beyond the plain forms, and as what, is a table in `docs/DATA.md`: files of other programs, their encodings,
//! separators, compressions, indexes and absent values.
//!
//! [`rows`] streams: memory does not grow with the file, except 40 bytes for every row with an `id`. Rows are yielded until
//! the first mistake; the rest is only searched for further mistakes, and one [`ReadErrors`] with all of them ends the
//! iteration. Whoever stages rows while reading discards the stage then.
//!
//! # Invariants
//!
//! - No bytes make it panic.
//! - No line, field or record is held beyond its limit.
//! - Every error has file, line and field.
//!
//! # Example
//!
//! ```
//! use readers::{Format, Options, rows_from};
//!
//! let read = |text: &'static str| rows_from("rows.jsonl", Format::Jsonl, Box::new(text.as_bytes()), Options::default());
//! let mut rows = read("{\"input\": \"Great soup.\", \"label\": \"positive\"}\n");
//! assert_eq!(rows.next().unwrap().unwrap().label.as_deref(), Some("positive"));
//!
//! let error = read("{\"input\": 7}\n").next().unwrap().unwrap_err().to_string();
//! assert!(error.contains("rows.jsonl") && error.contains("input"), "{error}");
//! ```

pub mod error;
pub mod paper;
pub mod write;

mod columns;
mod csv;
mod jsonl;
mod missing;
mod parquet;
mod row;
mod rows;
mod sample;
mod text;

pub use columns::{COLUMNS_MAX, Columns};
pub use error::{Place, ReadError, ReadErrors};
pub use row::FIELDS;
pub use rows::{Options, Rows, rows, rows_from};
pub use sample::{Sample, SampledColumn, Value, sample};
pub use write::{WriteError, Writer};

use domain::Split;
use std::path::{Path, PathBuf};

/// Longest line of JSONL, or record of CSV, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Most rows of one import.
pub const ROWS_MAX: u64 = 20_000_000;

/// How rows lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object a line, or one array of objects.
    Jsonl,
    /// Separated by commas, semicolons, tabs or bars, with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Self] = &[Self::Jsonl, Self::Csv, Self::Parquet];

    /// Its name, as the command line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// The format that a file's name stands for; `None` where it stands for none.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "csv" | "tsv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// How its rows lie in it.
    pub format: Format,
    /// The split of all its rows; where `None`, the rows say so themselves.
    pub split: Option<Split>,
}
