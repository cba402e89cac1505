//! Failures of the database as the port's, and which of them are tried again.

use domain::lifecycle::Conflict;
use domain::ports::{StoreError, StoreResult};
use std::time::Duration;
use uuid::Uuid;

/// Tries of one transaction that collided with another.
const TRIES_MAX: u32 = 6;
/// The longest wait before the second try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(10);

/// Two transactions wait for each other, or one would have seen what the other undid.
const COLLISIONS: &[&str] = &["40001", "40P01"];
/// Classes and codes of transient failures: a lost connection, too few resources, an operator's intervention, a timeout, a
/// standby that is not the primary yet.
const TRANSIENT: &[&str] = &["08", "53", "57", "40001", "40P01", "55P03", "25P03", "25006"];

/// Why one try of a transaction ended.
#[derive(Debug)]
pub(crate) enum TransactionError {
    /// The records forbid it.
    Refused(StoreError),
    /// The database failed.
    Database(sqlx::Error),
}

/// The result of one try.
pub(crate) type TransactionResult<T> = Result<T, TransactionError>;

impl From<StoreError> for TransactionError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Conflict> for TransactionError {
    fn from(conflict: Conflict) -> Self {
        Self::Refused(conflict.into())
    }
}

impl From<sqlx::Error> for TransactionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<TransactionError> for StoreError {
    fn from(failure: TransactionError) -> Self {
        let error = match failure {
            TransactionError::Refused(error) => return error,
            TransactionError::Database(error) => error,
        };
        let transient = match &error {
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|code| TRANSIENT.iter().any(|class| code.starts_with(class)))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            _ => false,
        };
        if transient { Self::Unavailable(error.to_string()) } else { Self::Internal(error.to_string()) }
    }
}

/// The tries of one call.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    made: u32,
}

impl Retries {
    /// Waits for the next try; the error where there is none.
    pub(crate) async fn again(&mut self, failure: TransactionError) -> StoreResult<()> {
        self.made += 1;
        if self.made >= TRIES_MAX || !collided(&failure) {
            return Err(failure.into());
        }
        tracing::debug!(tries = self.made, ?failure, "a transaction is tried again");
        tokio::time::sleep(pause(self.made)).await;
        Ok(())
    }
}

fn collided(failure: &TransactionError) -> bool {
    let TransactionError::Database(sqlx::Error::Database(error)) = failure else { return false };
    error.code().is_some_and(|code| COLLISIONS.contains(&code.as_ref()))
}

/// A random part of a bound that doubles, so that those who collided do not meet again.
fn pause(made: u32) -> Duration {
    let share = f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    (PAUSE * 2u32.saturating_pow(made)).mul_f64(share)
}
