//! Faults as gRPC statuses, and back.

use domain::{Fault, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// How many violations a message names; all of them are in the details.
const SHOWN_MAX: usize = 8;

/// The status of a fault. Of an internal one the caller learns only that it happened: the words are for the log.
pub fn status(fault: Fault, message: impl Into<String>) -> Status {
    let message = message.into();
    match fault {
        Fault::NotFound => Status::new(Code::NotFound, message),
        Fault::Conflict => Status::new(Code::FailedPrecondition, message),
        Fault::Invalid => Status::new(Code::InvalidArgument, message),
        Fault::Overloaded => Status::new(Code::ResourceExhausted, message),
        Fault::Unavailable => Status::new(Code::Unavailable, message),
        Fault::Denied => Status::new(Code::PermissionDenied, message),
        Fault::Internal => {
            tracing::error!(fault = "internal", message);
            Status::new(Code::Internal, "an internal error: the server's log has the details")
        }
    }
}

/// INVALID_ARGUMENT with one `BadRequest` field violation each.
pub fn invalid(violations: Vec<Violation>) -> Status {
    let mut words: Vec<String> = violations.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if violations.len() > SHOWN_MAX {
        words.push(format!("and {} more", violations.len() - SHOWN_MAX));
    }
    let mut details = ErrorDetails::new();
    for violation in violations {
        details.add_bad_request_violation(violation.field, violation.message);
    }
    Status::with_error_details(Code::InvalidArgument, words.join("; "), details)
}

/// The field violations that a server's status carries; none where it names none.
pub fn violations_of(status: &Status) -> Vec<Violation> {
    let details = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    details.into_iter().map(|found| Violation::new(found.field, found.description)).collect()
}

/// What kind of failure a server reported.
pub fn fault_of(status: &Status) -> Fault {
    match status.code() {
        Code::NotFound => Fault::NotFound,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Fault::Conflict,
        Code::InvalidArgument | Code::OutOfRange => Fault::Invalid,
        Code::ResourceExhausted => Fault::Overloaded,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Fault::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Fault::Denied,
        Code::Ok | Code::Unknown | Code::Internal | Code::Unimplemented | Code::DataLoss => Fault::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_survives_the_wire_and_internal_words_do_not() {
        for fault in [
            Fault::NotFound,
            Fault::Conflict,
            Fault::Invalid,
            Fault::Overloaded,
            Fault::Unavailable,
            Fault::Denied,
            Fault::Internal,
        ] {
            assert_eq!(fault_of(&status(fault, "secret words")), fault);
        }
        assert!(!status(Fault::Internal, "secret words").message().contains("secret"));
    }

    #[test]
    fn all_violations_travel_and_some_are_shown() {
        let violations =
            (0..20).map(|place| Violation::new(format!("rows[{place}].input"), "is empty")).collect();
        let status = invalid(violations);
        assert!(status.message().starts_with("rows[0].input: is empty; "), "{}", status.message());
        assert!(status.message().ends_with("and 12 more"));
        let read = violations_of(&status);
        assert_eq!((read.len(), read.last()), (20, Some(&Violation::new("rows[19].input", "is empty"))));
        assert_eq!(violations_of(&Status::not_found("nothing")), vec![]);
    }
}
