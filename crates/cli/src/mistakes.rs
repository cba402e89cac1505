//! What is wrong with files that a user wrote: every mistake with file, line and field, all at once.

use domain::Violation;
use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with a specification and the files it names.
#[derive(Debug)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

/// One mistake, and where it stands.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) file: PathBuf,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) violation: Violation,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let end = if index + 1 == self.0.len() { "" } else { "\n" };
            write!(formatter, "{}:{}: {}{end}", mistake.file.display(), mistake.line, mistake.violation)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
