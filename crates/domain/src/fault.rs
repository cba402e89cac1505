//! What kind of failure something is: the only thing a transport needs to know of an error.

use std::fmt;

/// The kinds of failure. Every error enum of the workspace knows its fault; `wire` turns it into a gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The thing that was named does not exist.
    NotFound,
    /// The thing is in a state that forbids the call, or another holder has it.
    Conflict,
    /// The call itself is wrong, whatever the state of the system.
    Invalid,
    /// A bound was reached: try later.
    Overloaded,
    /// Something this call depends on does not answer: try later.
    Unavailable,
    /// The caller may not do this.
    Denied,
    /// A mistake of ours, or damage that no caller caused. Details are logged, not sent.
    Internal,
}

/// One mistake in what a user wrote: where it stands, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, such as `training.alpha` or `rows[3].label`.
    pub field: String,
    /// What is wrong and what to do about it, as one sentence.
    pub message: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}
