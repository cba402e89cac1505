//! A student that is served, by its name and version.

use crate::InferenceError;
use std::path::Path;
use student::{Device, Student, StudentError};

/// A student by name and version.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) version: u64,
    /// Its place among all that this process has served: no two have the same.
    pub(crate) number: u64,
    /// W3C trace context of the job that made it; empty for none.
    pub(crate) traceparent: String,
    pub(crate) student: Student,
}

impl Served {
    /// Opens a folder.
    pub(crate) fn open(
        name: &str,
        version: u64,
        folder: &Path,
        device: Device,
    ) -> Result<Self, InferenceError> {
        let student =
            Student::open(folder, device).map_err(|error| InferenceError::Model(error.to_string()))?;
        Ok(Self { name: name.to_owned(), version, number: 0, traceparent: String::new(), student })
    }

    /// A failure of this student, in the words of the service.
    pub(crate) fn error(&self, error: StudentError) -> InferenceError {
        match error {
            StudentError::TooLong { .. } | StudentError::TooLarge { .. } | StudentError::Labels(_) => {
                InferenceError::Input(error.to_string())
            }
            StudentError::NotFinite(_) => InferenceError::NoAnswer {
                model: format!("{}@{}", self.name, self.version),
                message: error.to_string(),
            },
            StudentError::Tokenizer(_)
            | StudentError::Model(_)
            | StudentError::Packed(_)
            | StudentError::Checkpoint(_) => InferenceError::Model(error.to_string()),
            StudentError::Internal(message) => InferenceError::Internal(message),
        }
    }
}
