//! Rows of the database as records, and its failures as the port's.

use domain::Timestamp;
use domain::store::{PageRequest, StoreError, StoreResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use uuid::Uuid;

/// A failure of the database: a lock, a full disk or an end of this process goes away, the rest is damage.
pub(crate) fn internal(error: sqlx::Error) -> StoreError {
    let busy = error
        .as_database_error()
        .and_then(|database| database.code())
        .is_some_and(|code| matches!(code.as_ref(), "5" | "6" | "13" | "261" | "517"));
    let closed = matches!(error, sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut);
    if busy || closed {
        StoreError::Unavailable(error.to_string())
    } else {
        StoreError::Internal(error.to_string())
    }
}

/// The record of a row, where there is one.
pub(crate) fn record<R, T>(row: sqlx::Result<Option<R>>) -> StoreResult<Option<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    row.map_err(internal)?.map(T::try_from).transpose()
}

/// The records of rows, in their order.
pub(crate) fn records<R, T>(rows: sqlx::Result<Vec<R>>) -> StoreResult<Vec<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    rows.map_err(internal)?.into_iter().map(T::try_from).collect()
}

/// A count or index.
pub(crate) fn number<T: TryFrom<i64>>(column: &str, number: i64) -> StoreResult<T> {
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

/// A number as the database keeps it.
pub(crate) fn integer(number: u64) -> StoreResult<i64> {
    i64::try_from(number).map_err(|_| StoreError::Invalid(format!("{number} is too large")))
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
