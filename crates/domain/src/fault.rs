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

/// Those of `more` that do not follow from `mistakes`: of no field that one of them names, or that lies in it or around it, and
/// with none of these fields as their reason.
pub fn beside(mistakes: &[Violation], mut more: Vec<Violation>) -> Vec<Violation> {
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let follows = |violation: &Violation, mistake: &Violation| {
        is_in(&violation.field, &mistake.field)
            || is_in(&mistake.field, &violation.field)
            || violation.message.contains(&format!("`{}`", mistake.field))
    };
    more.retain(|violation| !mistakes.iter().any(|mistake| follows(violation, mistake)));
    more
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_mistake_is_not_said_again() {
        let mistakes = [Violation::new("teacher.samples", "is text"), Violation::new("task", "is absent")];
        let check = |field: &str, message: &str, kept: bool| {
            let more = vec![Violation::new(field, message)];
            assert_eq!(beside(&mistakes, more.clone()), if kept { more } else { vec![] }, "{field}");
        };
        check("teacher.samples", "is 0", false);
        check("task.stop", "is empty", false);
        check("task_name", "is empty", true);
        check("teacher", "is empty", false);
        check("judging.vote", "needs `teacher.samples` of 2 or more", false);
        check("judging.vote", "needs `teacher.profile`", true);
        assert_eq!(beside(&[], mistakes.to_vec()), mistakes);
    }
}
