//! Rows of the database as records, and records as rows.

use crate::failure::TransactionResult;
use domain::ports::{StoreError, StoreResult};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// The record of a row, where there is one.
pub(crate) fn record<R, T>(row: sqlx::Result<Option<R>>) -> TransactionResult<Option<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(row?.map(T::try_from).transpose()?)
}

/// The records of rows, in their order.
pub(crate) fn records<R, T>(rows: sqlx::Result<Vec<R>>) -> TransactionResult<Vec<T>>
where
    T: TryFrom<R, Error = StoreError>,
{
    Ok(rows?.into_iter().map(T::try_from).collect::<StoreResult<_>>()?)
}

/// Milliseconds of a lease; none is longer than a thousand years.
pub(crate) fn milliseconds(lease: Duration) -> i64 {
    const LONGEST: i64 = 1_000 * 366 * 24 * 3_600_000;
    i64::try_from(lease.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

/// A text without the character NUL.
pub(crate) type Text<'a> = Cow<'a, str>;

/// A text as the database takes it. Postgres refuses the character NUL, which a teacher may answer: it is kept as U+FFFD,
/// the replacement character, so that such an answer is stored like any other and no job waits for it without end.
pub(crate) fn text(text: &str) -> Text<'_> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// Ids in order, each once: the order in which rows are locked.
pub(crate) fn in_order(ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
    ids.into_iter().collect::<BTreeSet<Uuid>>().into_iter().collect()
}
