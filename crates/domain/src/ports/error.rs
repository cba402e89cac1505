//! What can go wrong in a store.

use crate::fault::{Fault, Violation};
use crate::lifecycle::Conflict;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The thing does not exist.
    #[error("there is no {what} {id}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The thing is in a state that forbids the call, or the lease was lost.
    #[error("{0}")]
    Conflict(String),
    /// The call is wrong whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// The database does not answer or is locked: try again.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Damage, or a bug of this program.
    #[error("the database failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } => Fault::NotFound,
            Self::Conflict(_) => Fault::Conflict,
            Self::Invalid(_) => Fault::Invalid,
            Self::Unavailable(_) => Fault::Unavailable,
            Self::Internal(_) => Fault::Internal,
        }
    }

    /// There is no such thing.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    /// Refuses a call that breaks a rule, naming every field that the caller has to correct.
    ///
    /// # Errors
    /// There is a violation.
    pub fn refuse(violations: &[Violation]) -> Result<(), Self> {
        if violations.is_empty() {
            return Ok(());
        }
        let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
        Err(Self::Invalid(words.join("; ")))
    }
}

impl From<Conflict> for StoreError {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict.to_string())
    }
}

/// The result of a store's method.
pub type StoreResult<T> = Result<T, StoreError>;
