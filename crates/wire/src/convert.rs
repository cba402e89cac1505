//! The small parts of every conversion.

use domain::{Timestamp, Violation};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// A message that was read, or everything that is wrong with it.
pub type Checked<T> = Result<T, Vec<Violation>>;

/// The id in `field`.
///
/// # Errors
/// It is not an id of that kind.
pub fn id<T>(field: &str, text: &str) -> Checked<T>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| vec![Violation::new(field, error.to_string())])
}

/// The part in `field`, which has to be there.
///
/// # Errors
/// It is absent.
pub fn present<T>(field: &str, part: Option<T>) -> Checked<T> {
    part.ok_or_else(|| vec![Violation::new(field, "is missing")])
}

/// The text of a field that is empty where it is absent.
pub fn optional(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `result` with its violations' fields below `prefix`.
///
/// # Errors
/// Those of `result`.
pub fn under<T>(prefix: &str, result: Checked<T>) -> Checked<T> {
    result.map_err(|violations| {
        violations
            .into_iter()
            .map(|violation| Violation::new(format!("{prefix}.{}", violation.field), violation.message))
            .collect()
    })
}

/// Every element read, or every mistake of all of them, by index.
///
/// # Errors
/// Those of the elements.
pub fn each<M, T>(field: &str, messages: Vec<M>, read: impl Fn(M) -> Checked<T>) -> Checked<Vec<T>> {
    let mut items = Vec::with_capacity(messages.len());
    let mut found = Vec::new();
    for (place, message) in messages.into_iter().enumerate() {
        match under(&format!("{field}[{place}]"), read(message)) {
            Ok(item) => items.push(item),
            Err(violations) => found.extend(violations),
        }
    }
    if found.is_empty() { Ok(items) } else { Err(found) }
}

/// A point in time as a message.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1000),
        nanos: i32::try_from(at.0.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
    }
}

/// A point in time as text, by RFC 3339: `2026-01-02T03:04:05Z`.
pub fn rfc3339(at: Timestamp) -> String {
    timestamp(at).to_string()
}

/// A message as a point in time; the epoch where it is absent.
pub fn timestamp_of(at: Option<prost_types::Timestamp>) -> Timestamp {
    at.map_or_else(Timestamp::default, |at| {
        Timestamp(at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000))
    })
}

/// A span of time as a message.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// The span of time in `field`, between `low` and `high`.
///
/// # Errors
/// It is absent, negative or out of its range.
pub fn duration_of(
    field: &str,
    span: Option<prost_types::Duration>,
    low: Duration,
    high: Duration,
) -> Checked<Duration> {
    let span = present(field, span)?;
    let read = Duration::try_from(span).ok().filter(|span| (low..=high).contains(span));
    read.ok_or_else(|| vec![Violation::new(field, format!("must lie between {low:?} and {high:?}"))])
}
