//! Rows of the database as records, and records as rows.

use crate::failure::Attempt;
use domain::Timestamp;
use domain::store::{PageRequest, StoreError, StoreResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

/// The record of a row, where there is one.
pub(crate) fn record<R, T>(row: sqlx::Result<Option<R>>) -> Attempt<Option<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(row?.map(T::try_from).transpose()?)
}

/// The records of rows, in their order.
pub(crate) fn records<R, T>(rows: sqlx::Result<Vec<R>>) -> Attempt<Vec<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(rows?.into_iter().map(T::try_from).collect::<StoreResult<_>>()?)
}

/// A count or index.
pub(crate) fn number<T: TryFrom<i64>>(column: &str, number: impl Into<i64>) -> StoreResult<T> {
    let number = number.into();
    T::try_from(number).map_err(|_| damaged(column, number))
}

/// A state or another value that is kept by its name.
pub(crate) fn named<T: FromStr>(column: &str, text: &str) -> StoreResult<T> {
    text.parse().map_err(|_| damaged(column, text))
}

/// The same, where it may be absent.
pub(crate) fn named_maybe<T: FromStr>(column: &str, text: Option<&str>) -> StoreResult<Option<T>> {
    text.map(|text| named(column, text)).transpose()
}

/// A value kept as JSON.
pub(crate) fn json<T: DeserializeOwned>(column: &str, text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| damaged(column, error))
}

/// The same, where it may be absent.
pub(crate) fn json_maybe<T: DeserializeOwned>(column: &str, text: Option<&str>) -> StoreResult<Option<T>> {
    text.map(|text| json(column, text)).transpose()
}

/// A value as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))
}

/// A value with numbers as JSON. A number that is not finite would be written as nothing, and never read again.
pub(crate) fn finite_json<T: Serialize + DeserializeOwned>(value: &T) -> StoreResult<String> {
    let text = to_json(value)?;
    let read: Result<T, _> = serde_json::from_str(&text);
    read.map_err(|_| StoreError::Invalid("a number is not finite: it cannot be kept".to_owned()))?;
    Ok(text)
}

/// A number that can be kept: finite.
pub(crate) fn finite(number: f64) -> StoreResult<f64> {
    if number.is_finite() {
        return Ok(number);
    }
    Err(StoreError::Invalid(format!("{number} is not finite: it cannot be kept")))
}

/// A number as the database keeps it, in 32 or 64 bits.
pub(crate) fn integer<T: TryFrom<u64>>(number: impl Into<u64>) -> StoreResult<T> {
    let number = number.into();
    T::try_from(number).map_err(|_| StoreError::Invalid(format!("{number} is too large")))
}

/// Milliseconds of a lease; none is longer than a thousand years.
pub(crate) fn milliseconds(lease: Duration) -> i64 {
    const LONGEST: i64 = 1_000 * 366 * 24 * 3_600_000;
    i64::try_from(lease.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

/// A text without the character NUL.
pub(crate) type Text<'a> = Cow<'a, str>;

/// A text as the database takes it. Postgres refuses the character NUL, which a teacher may well say: it is kept as
/// U+FFFD, the replacement character, so that garbage is an answer like any other and no job waits for it for ever.
pub(crate) fn text(text: &str) -> Text<'_> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// Ids in order, each once: the order in which rows are locked.
pub(crate) fn in_order(ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
    ids.into_iter().collect::<BTreeSet<Uuid>>().into_iter().collect()
}

fn damaged(column: &str, value: impl std::fmt::Display) -> StoreError {
    StoreError::Internal(format!("column {column} holds {value}, which no version of this program wrote"))
}

/// Where a page of a list begins: what comes before (created_at, id). The first page begins after everything.
pub(crate) struct Cursor {
    pub(crate) created_at: i64,
    pub(crate) id: Uuid,
    pub(crate) limit: i64,
}

impl Cursor {
    pub(crate) fn read(page: &PageRequest) -> StoreResult<Self> {
        let limit = page.size.clamp(1, domain::store::BATCH_MAX) as i64;
        let Some(text) = &page.cursor else {
            return Ok(Self { created_at: i64::MAX, id: Uuid::max(), limit });
        };
        let parts =
            text.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, Uuid::try_parse(id).ok()?)));
        let (created_at, id) = parts.ok_or_else(|| {
            StoreError::Invalid("the page token is none of this list's: begin without one".to_owned())
        })?;
        Ok(Self { created_at, id, limit })
    }

    /// The cursor after an item, where the page is full.
    pub(crate) fn next(&self, items: usize, last: Option<(Timestamp, Uuid)>) -> Option<String> {
        let (at, id) = last.filter(|_| items as i64 == self.limit)?;
        Some(format!("{}-{}", at.0, id.simple()))
    }
}
