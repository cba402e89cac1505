//! Errors of teachers. Every message says what happened, at which profile, and what to do.

use domain::Fault;
use domain::budget::{CallEnd, Usage};
use std::fmt;
use std::time::Duration;

/// A call that brought no answer: where, what happened, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The profile.
    pub profile: String,
    /// Its address, without its query and without credentials.
    pub url: String,
    /// What happened, and what to do.
    pub message: String,
    /// How the call ended, with its usage where the server reported one or sent an answer.
    pub end: CallEnd,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "teacher `{}` at {} {}", self.profile, self.url, self.message)
    }
}

/// A teacher's failure. An answer is classified once, by the dialect of its provider; nobody else looks at statuses, bodies
/// or reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TeacherError {
    /// The teacher asked to wait (429): the prompt is postponed, and nothing is counted.
    #[error("{failure}")]
    Wait {
        /// What it said.
        failure: Box<Failure>,
        /// How long.
        wait: Duration,
    },
    /// It cannot be reached, has an error of its own or broke off, and retries did not help.
    #[error("{failure}")]
    Unavailable {
        /// What happened.
        failure: Box<Failure>,
        /// How long the server asked to wait.
        wait: Option<Duration>,
        /// No call was made about this question: after failures of others it is left alone for that long.
        is_held: bool,
    },
    /// It refuses this request, and would refuse it again.
    #[error("{failure}")]
    WrongRequest {
        /// What it said.
        failure: Box<Failure>,
        /// The parameter of the profile that the model does not take, so that every prompt would be refused; `None` where the
        /// prompt itself is wrong, as when it is too long.
        parameter: Option<String>,
    },
    /// Its answer cannot be used for this prompt.
    #[error("{0}")]
    Malformed(Box<Failure>),
    /// No prompt can be answered until an operator acts.
    #[error("{0}")]
    Permanent(Box<Failure>),
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
    /// No further call is made here: the process shuts down.
    #[error("released without being asked: the process shuts down")]
    Closed,
    /// The prompt cannot be rendered, or never fits into a limit.
    #[error("{0}")]
    Invalid(String),
}

impl TeacherError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Wait { .. } | Self::BudgetLater => Fault::Overloaded,
            Self::Unavailable { .. } | Self::Malformed(_) | Self::Unaccounted(_) | Self::Closed => {
                Fault::Unavailable
            }
            Self::BudgetExhausted | Self::LeaseLost => Fault::Conflict,
            Self::Permanent(_) => Fault::Denied,
            Self::WrongRequest { .. } | Self::Invalid(_) => Fault::Invalid,
        }
    }

    /// The call that failed; `None` where none was made.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Wait { failure, .. }
            | Self::Unavailable { failure, .. }
            | Self::WrongRequest { failure, .. }
            | Self::Malformed(failure)
            | Self::Permanent(failure) => Some(failure),
            Self::BudgetLater
            | Self::BudgetExhausted
            | Self::LeaseLost
            | Self::Unaccounted(_)
            | Self::Closed
            | Self::Invalid(_) => None,
        }
    }

    /// How its call ended; refused where none was made.
    pub fn end(&self) -> CallEnd {
        self.failure().map_or(CallEnd::Refused, |failure| failure.end)
    }

    /// What its call cost, where the server counted or answered.
    pub fn usage(&self) -> Option<Usage> {
        match self.end() {
            CallEnd::Charged(usage) => Some(usage),
            CallEnd::Failed | CallEnd::Refused | CallEnd::InDoubt => None,
        }
    }
}
