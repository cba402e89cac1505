//! Errors of the harvester.

use domain::ports::StoreError;
use domain::{Fault, Violation};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use teacher::TeacherError;

/// A failure of the harvester.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] domain::ports::QueueError),
    /// The teacher's.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The caller's mistakes.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// The process shuts down: the prompt was not asked.
    #[error("released without being asked: the process shuts down")]
    Unasked,
    /// The job cannot continue; the reason names what to do.
    #[error("{0}")]
    Stuck(String),
    /// The process itself failed at it.
    #[error(
        "an internal error stopped the work at this job ({0}): report it with the log; resume to try again"
    )]
    Broken(String),
}

impl HarvestError {
    /// The kind of failure.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Queue(error) => error.fault(),
            Self::Teacher(error) => error.fault(),
            Self::Invalid(_) => Fault::Invalid,
            Self::Unasked => Fault::Unavailable,
            Self::Stuck(_) => Fault::Conflict,
            Self::Broken(_) => Fault::Internal,
        }
    }
}

/// What `work` at a job comes to; a panic in it is an error, which pauses that job, and stops nothing else.
pub(crate) async fn guarded<T>(
    work: impl Future<Output = Result<T, HarvestError>>,
) -> Result<T, HarvestError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(HarvestError::Broken(words.to_owned()))
    })
}

impl From<HarvestError> for tonic::Status {
    fn from(error: HarvestError) -> Self {
        match error {
            HarvestError::Invalid(violations) => wire::invalid(violations),
            other => wire::status(other.fault(), other.to_string()),
        }
    }
}
