//! Errors of teachers. Every message says what happened, at which profile, and what to do.

use domain::Fault;
use std::time::Duration;

/// A teacher's failure.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TeacherError {
    /// The teacher asked to wait (429): the prompt is postponed, and nothing is counted.
    #[error("teacher `{profile}` asked to wait {wait:?}")]
    Wait {
        /// The profile.
        profile: String,
        /// How long.
        wait: Duration,
    },
    /// It cannot be reached or has an error of its own, and retries did not help.
    #[error("teacher `{profile}` at {url} {message}")]
    Unavailable {
        /// The profile.
        profile: String,
        /// Its address.
        url: String,
        /// What happened.
        message: String,
    },
    /// Its answer cannot be used for this prompt.
    #[error("teacher `{profile}` at {url} {message}")]
    Malformed {
        /// The profile.
        profile: String,
        /// Its address.
        url: String,
        /// What was wrong with the answer.
        message: String,
    },
    /// No prompt can be answered until an operator acts.
    #[error("teacher `{profile}` at {url} {message}")]
    Permanent {
        /// The profile.
        profile: String,
        /// Its address.
        url: String,
        /// What happened, and what to do.
        message: String,
    },
    /// The prompt cannot be rendered, or never fits into a limit.
    #[error("{0}")]
    Invalid(String),
}

impl TeacherError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Wait { .. } => Fault::Overloaded,
            Self::Unavailable { .. } | Self::Malformed { .. } => Fault::Unavailable,
            Self::Permanent { .. } => Fault::Denied,
            Self::Invalid(_) => Fault::Invalid,
        }
    }
}
