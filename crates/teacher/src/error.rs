//! What can go wrong with a teacher. Every message says what happened, at which profile, and what to do.

use domain::Fault;
use std::time::Duration;

/// A teacher's failure.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TeacherError {
    /// It asks us to wait (429): the prompt is delayed, and nothing is counted.
    #[error("teacher `{profile}` asks to wait {wait:?}")]
    Wait {
        /// The profile.
        profile: String,
        /// How long.
        wait: Duration,
    },
    /// It cannot be reached, or fails in itself, and retries did not help.
    #[error("teacher `{profile}` at {url} {message}")]
    Unavailable {
        /// The profile.
        profile: String,
        /// Where it was looked for.
        url: String,
        /// What happened.
        message: String,
    },
    /// It answered something that is no answer to this prompt.
    #[error("teacher `{profile}` at {url} {message}")]
    Malformed {
        /// The profile.
        profile: String,
        /// Who said it.
        url: String,
        /// What it said.
        message: String,
    },
    /// No prompt will ever be answered until a person changes something.
    #[error("teacher `{profile}` at {url} {message}")]
    Permanent {
        /// The profile.
        profile: String,
        /// Who said it.
        url: String,
        /// What it said, and what to do.
        message: String,
    },
    /// The prompt cannot be rendered, or can never fit.
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
