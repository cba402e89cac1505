//! Faults as gRPC statuses, and back.

use domain::{Fault, Violation};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What a caller is told of an internal error, and nothing else.
pub const INTERNAL: &str = "an internal error: the server's log has the details";

/// How many violations a message names; more of them are in the details.
const SHOWN_MAX: usize = 8;

/// Longest message, and longest field or description of one violation, in bytes: they travel as headers, which peers
/// bound at 16 KiB altogether, and may grow threefold on the way.
const MESSAGE_BYTES_MAX: usize = 1_024;
const WORDS_BYTES_MAX: usize = 512;
/// Most bytes of all violations in the details.
const DETAILS_BYTES_MAX: usize = 5_000;

/// What stands at the end of a text that was cut.
const ELLIPSIS: &str = "...";

/// `text`, or its beginning where it is longer than `bytes`.
fn clipped(text: String, bytes: usize) -> String {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default())
}

/// A reason as a call takes it and a list shows it: what is longer than [`REASON_BYTES_MAX`](crate::REASON_BYTES_MAX) is cut.
pub fn reason(text: impl Into<String>) -> String {
    clipped(text.into(), crate::REASON_BYTES_MAX - ELLIPSIS.len())
}

/// The status of a fault. Of an internal one the caller learns only that it happened: the words are for the log.
pub fn status(fault: Fault, message: impl Into<String>) -> Status {
    let message = clipped(message.into(), MESSAGE_BYTES_MAX);
    match fault {
        Fault::NotFound => Status::new(Code::NotFound, message),
        Fault::Conflict => Status::new(Code::FailedPrecondition, message),
        Fault::Invalid => Status::new(Code::InvalidArgument, message),
        Fault::Overloaded => Status::new(Code::ResourceExhausted, message),
        Fault::Unavailable => Status::new(Code::Unavailable, message),
        Fault::Denied => Status::new(Code::PermissionDenied, message),
        Fault::Internal => {
            tracing::error!(fault = "internal", message);
            Status::new(Code::Internal, INTERNAL)
        }
    }
}

/// RESOURCE_EXHAUSTED at a limit that all callers share, with when to call again.
pub fn busy(message: impl Into<String>, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, clipped(message.into(), MESSAGE_BYTES_MAX), details)
}

/// INVALID_ARGUMENT with one `BadRequest` field violation each, as many as a status can carry.
pub fn invalid(violations: Vec<Violation>) -> Status {
    let mut words: Vec<String> = violations.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if violations.len() > SHOWN_MAX {
        words.push(format!("and {} more", violations.len() - SHOWN_MAX));
    }
    let mut details = ErrorDetails::new();
    let mut bytes = 0;
    for violation in violations {
        let field = clipped(violation.field, WORDS_BYTES_MAX);
        let description = clipped(violation.message, WORDS_BYTES_MAX);
        bytes += field.len() + description.len();
        if bytes > DETAILS_BYTES_MAX {
            break;
        }
        details.add_bad_request_violation(field, description);
    }
    let message = clipped(words.join("; "), MESSAGE_BYTES_MAX);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The field violations that a server's status carries; none where it names none.
pub fn violations_of(status: &Status) -> Vec<Violation> {
    let details =
        status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    details.into_iter().map(|found| Violation::new(found.field, found.description)).collect()
}

/// What kind of failure a server reported. A connection that broke during a call is told by this side's own words: an
/// unknown status, or an internal one that has a cause here.
pub fn fault_of(status: &Status) -> Fault {
    match status.code() {
        Code::Internal if std::error::Error::source(status).is_some() => Fault::Unavailable,
        Code::NotFound => Fault::NotFound,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Fault::Conflict,
        Code::InvalidArgument | Code::OutOfRange => Fault::Invalid,
        Code::ResourceExhausted => Fault::Overloaded,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Fault::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Fault::Denied,
        Code::Ok | Code::Internal | Code::Unimplemented | Code::DataLoss => Fault::Internal,
    }
}

/// A code as gRPC's own documents write it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
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
    fn a_broken_connection_is_no_mistake_of_the_server() {
        let broken: Status = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(fault_of(&broken), Fault::Unavailable, "{broken:?}");
        let mut reset = Status::internal("h2 protocol error");
        reset.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        assert_eq!(fault_of(&reset), Fault::Unavailable);
        assert_eq!(fault_of(&Status::internal("sent by a server")), Fault::Internal);
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

    #[test]
    fn no_status_is_too_long_for_its_headers() {
        let long = "é".repeat(100_000);
        let many = (0..1_000).map(|_| Violation::new(long.clone(), long.clone())).collect();
        for status in [status(Fault::NotFound, long.clone()), invalid(many)] {
            let mut headers = http::HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let bytes: usize =
                headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(bytes < 15_000, "{bytes} bytes: {:?}", status.code());
            assert!(status.message().contains("..."), "{}", status.message().len());
        }
        assert!(!violations_of(&invalid(vec![Violation::new(long.clone(), long)])).is_empty());
    }
}
