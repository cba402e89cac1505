//! Rows of the database as records, and its failures as the port's.

use domain::ports::{StoreError, StoreResult};
use std::time::Duration;

/// A failure of the database: a lock, a full disk and a closed pool are transient, anything else is damage.
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

/// Milliseconds of a lease.
pub(crate) fn milliseconds(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}
