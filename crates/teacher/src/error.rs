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
    /// Other calls hold what is left of the budget: the prompt is postponed, and nothing is counted.
    #[error("the calls that are being made hold what is left of the budget")]
    BudgetLater,
    /// The budget of the job has no room for this call: it was not made.
    #[error("the budget is used up: raise it to ask more")]
    BudgetExhausted,
    /// The prompt is no longer this worker's: the call was not made.
    #[error("the lease on the prompt was lost before it was asked")]
    LeaseLost,
    /// The call cannot be reserved on its account, and was not made.
    #[error("a call cannot be reserved: {0}")]
    Unaccounted(String),
    /// The prompt cannot be rendered, or never fits into a limit.
    #[error("{0}")]
    Invalid(String),
}

impl TeacherError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Wait { .. } | Self::BudgetLater => Fault::Overloaded,
            Self::Unavailable { .. } | Self::Malformed { .. } | Self::Unaccounted(_) => Fault::Unavailable,
            Self::BudgetExhausted | Self::LeaseLost => Fault::Conflict,
            Self::Permanent { .. } => Fault::Denied,
            Self::Invalid(_) => Fault::Invalid,
        }
    }
}
