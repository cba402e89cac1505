//! What is wrong with a file, and where.

use domain::{Fault, Violation};
use std::fmt;
use std::path::{Path, PathBuf};

/// Most different mistakes reported together.
pub const MISTAKES_MAX: usize = 20;
/// The search for further mistakes ends after so many, equal ones counted each.
const OCCURRENCES_MAX: u64 = 1_000;
/// Longest message; damaged files would otherwise be quoted whole.
const MESSAGE_CHARS_MAX: usize = 400;

/// Where in a file something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of text, from 1, and where it is known a column (a byte of the line), from 1.
    Line {
        /// The line.
        line: u64,
        /// The column.
        column: Option<u64>,
    },
    /// A row of a Parquet file.
    Row {
        /// The row group, from 1.
        group: u64,
        /// The row, from 1, counted through the file.
        row: u64,
    },
}

impl Place {
    /// A line, from 1.
    pub(crate) fn line(line: u64) -> Self {
        Self::Line { line, column: None }
    }

    /// How another mistake refers to it.
    pub(crate) fn in_words(self) -> String {
        match self {
            Self::File => "the file".to_owned(),
            Self::Line { line, column: None } => format!("line {line}"),
            Self::Line { line, column: Some(column) } => format!("line {line}, column {column}"),
            Self::Row { group, row } => format!("row {row} (row group {group})"),
        }
    }
}

/// One mistake: where it stands, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub place: Place,
    /// Which field, as a user writes it (`choices[2]`); `None` where it is not one field's.
    pub field: Option<String>,
    /// What is wrong and what to do about it.
    pub message: String,
    /// How many further places have the same mistake.
    pub repeated: u64,
    /// What kind of failure it is.
    pub fault: Fault,
}

impl ReadError {
    pub(crate) fn new(file: &Path, place: Place, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
            message.push('…');
        }
        Self { file: file.to_owned(), place, field: None, message, repeated: 0, fault: Fault::Invalid }
    }

    pub(crate) fn of(file: &Path, place: Place, violation: Violation) -> Self {
        Self { field: Some(violation.field), ..Self::new(file, place, violation.message) }
    }

    /// A message of the operating system about a file.
    pub(crate) fn io(file: &Path, error: &std::io::Error) -> Self {
        let (message, fault) = match error.kind() {
            std::io::ErrorKind::NotFound => ("does not exist: check the path".to_owned(), Fault::NotFound),
            std::io::ErrorKind::PermissionDenied => {
                ("may not be read: check its permissions".to_owned(), Fault::Denied)
            }
            std::io::ErrorKind::IsADirectory => ("is a folder: name a file in it".to_owned(), Fault::Invalid),
            _ => (format!("cannot be read: {error}"), Fault::Unavailable),
        };
        Self { fault, ..Self::new(file, Place::File, message) }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.file.display())?;
        match self.place {
            Place::File => {}
            Place::Line { line, column: None } => write!(formatter, "{line}:")?,
            Place::Line { line, column: Some(column) } => write!(formatter, "{line}:{column}:")?,
            Place::Row { group, row } => write!(formatter, " row {row} (row group {group}):")?,
        }
        if let Some(field) = &self.field {
            write!(formatter, " {field}:")?;
        }
        write!(formatter, " {}", self.message)?;
        match self.repeated {
            0 => Ok(()),
            1 => write!(formatter, " (and in one more place)"),
            more => write!(formatter, " (and in {more} more places)"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Everything that is wrong: never empty, one mistake a line when shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadErrors {
    /// The mistakes, in the order in which they stand.
    pub mistakes: Vec<ReadError>,
    /// Whether the search ended before the data did.
    pub more: bool,
}

impl ReadErrors {
    /// What kind of failure it is: the first mistake's.
    pub fn fault(&self) -> Fault {
        self.mistakes.first().map_or(Fault::Internal, |mistake| mistake.fault)
    }
}

impl From<ReadError> for ReadErrors {
    fn from(mistake: ReadError) -> Self {
        Self { mistakes: vec![mistake], more: false }
    }
}

impl fmt::Display for ReadErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, mistake) in self.mistakes.iter().enumerate() {
            let start = if place == 0 { "" } else { "\n" };
            write!(formatter, "{start}{mistake}")?;
        }
        if self.more {
            write!(formatter, "\nthere may be more mistakes: the search ended here")?;
        }
        Ok(())
    }
}

impl std::error::Error for ReadErrors {}

/// Mistakes as they are found. Equal ones (same file, field and message) are kept once and counted.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    found: Vec<ReadError>,
    occurrences: u64,
    full: bool,
}

impl Mistakes {
    pub(crate) fn push(&mut self, mistake: ReadError) {
        self.occurrences += 1;
        let same = |known: &&mut ReadError| {
            (&known.file, &known.field, &known.message) == (&mistake.file, &mistake.field, &mistake.message)
        };
        if let Some(known) = self.found.iter_mut().find(same) {
            known.repeated += 1;
        } else if self.found.len() < MISTAKES_MAX {
            self.found.push(mistake);
        } else {
            self.full = true;
        }
        self.full |= self.occurrences >= OCCURRENCES_MAX;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether nothing further is to be looked for.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// All of them; `None` where there are none.
    pub(crate) fn take(&mut self) -> Option<ReadErrors> {
        let found = std::mem::take(self);
        (!found.is_empty()).then_some(ReadErrors { mistakes: found.found, more: found.full })
    }
}
