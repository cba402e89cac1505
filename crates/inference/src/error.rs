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
    /// An input that the model cannot answer.
    #[error("example: {0}")]
    Input(String),
    /// A model that computes no probabilities for an input.
    #[error("the model `{model}`: {message}")]
    NoAnswer {
        /// Its name and version.
        model: String,
        /// What happened.
        message: String,
    },
    /// One row of a call with several.
    #[error("rows[{row}]: {error}")]
    Row {
        /// Its place, from 0.
        row: usize,
        /// What is wrong with it.
        error: Box<InferenceError>,
    },
    /// Too much waits already.
    #[error("requests hold {waiting} tokens already, and the limit is {limit}: try again in a second")]
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
    #[error("the deadline passed before the answer was complete")]
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
            Self::Ambiguous(_) | Self::Input(_) | Self::Model(_) => Fault::Invalid,
            Self::NoAnswer { .. } => Fault::Conflict,
            Self::Row { error, .. } => error.fault(),
            Self::Overloaded { .. } => Fault::Overloaded,
            Self::Draining | Self::Deadline => Fault::Unavailable,
            Self::Internal(_) => Fault::Internal,
        }
    }

    /// As a failure of the row at `row`, where it is one; the others concern the call as a whole.
    pub(crate) fn at(self, row: usize) -> Self {
        match self {
            Self::Input(_) | Self::NoAnswer { .. } => Self::Row { row, error: Box::new(self) },
            other => other,
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
