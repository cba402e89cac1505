//! What can go wrong when a student is asked.

use domain::Fault;

/// A failure of serving.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferenceError {
    /// There is no such model.
    #[error("there is no model `{name}` here (there are: {known})")]
    NoModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The caller must name one of several.
    #[error("`model` is empty, and there are several models here: {0}")]
    Ambiguous(String),
    /// An input that the model was never trained to read.
    #[error("example: its input has {tokens} tokens, and the model reads at most {limit}: shorten it")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// Too much waits already.
    #[error("{waiting} tokens wait already, and the limit is {limit}: try again in a second")]
    Overloaded {
        /// Tokens that wait.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// The server shuts down.
    #[error("the server shuts down: ask another one")]
    Draining,
    /// The caller's deadline passed.
    #[error("the deadline passed before the answer was done")]
    Deadline,
    /// A checkpoint that cannot be served.
    #[error("{0}")]
    Model(String),
    /// A mistake of ours.
    #[error("{0}")]
    Internal(String),
}

impl InferenceError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoModel { .. } => Fault::NotFound,
            Self::Ambiguous(_) | Self::TooLong { .. } | Self::Model(_) => Fault::Invalid,
            Self::Overloaded { .. } => Fault::Overloaded,
            Self::Draining | Self::Deadline => Fault::Unavailable,
            Self::Internal(_) => Fault::Internal,
        }
    }
}

impl From<InferenceError> for tonic::Status {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::Deadline => Self::deadline_exceeded(error.to_string()),
            other => wire::status(other.fault(), other.to_string()),
        }
    }
}

impl From<t5::Error> for InferenceError {
    fn from(error: t5::Error) -> Self {
        Self::Model(error.to_string())
    }
}
