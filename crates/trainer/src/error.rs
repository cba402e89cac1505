//! What can end a training.

use domain::Fault;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// This process shuts down; the resume state is written.
    #[error("interrupted")]
    Interrupted,
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Another trainer has the run, or it is gone.
    #[error("the lease is lost: {0}")]
    Lost(String),
    /// The harvester does not answer.
    #[error("the harvester does not answer: {0}")]
    Unavailable(String),
    /// The data cannot train this student.
    #[error("{0}")]
    Data(String),
    /// Loss or gradients are no numbers any more.
    #[error(
        "step {step}: the {what} is not finite, over rows {rows}: lower `training.learning_rate`, or look at these rows"
    )]
    NotFinite {
        /// The optimiser step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Indices of the batch's rows.
        rows: String,
    },
    /// One row alone is too much.
    #[error(
        "step {step}: out of memory, even one row at a time (up to {tokens} padded tokens): a lower \
         `training.batch_tokens_max` cannot help any more; lower `training.input_tokens_max` and \
         `training.target_tokens_max`, or take a smaller student"
    )]
    OutOfMemory {
        /// The optimiser step.
        step: u64,
        /// Padded tokens of the longest row.
        tokens: usize,
    },
    /// The student's checkpoint.
    #[error(transparent)]
    Model(#[from] t5::Error),
    /// The store of checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] checkpoints::CheckpointError),
    /// A resume state that is not what was written.
    #[error(
        "the resume state cannot be read ({error}): delete the folder {} and run again; the training begins anew, and \
         ends in the same student",
        folder.display()
    )]
    Resume {
        /// What is wrong.
        error: checkpoints::CheckpointError,
        /// Where it lies.
        folder: std::path::PathBuf,
    },
    /// The student's files, or its answers.
    #[error(transparent)]
    Student(#[from] student::StudentError),
    /// The tensor library.
    #[error("the tensor library failed: {0}")]
    Tensor(#[from] tch::TchError),
    /// A mistake of ours.
    #[error("{0}")]
    Internal(String),
}

impl TrainError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Interrupted | Self::Unavailable(_) => Fault::Unavailable,
            Self::Cancelled | Self::Lost(_) => Fault::Conflict,
            Self::Data(_) | Self::NotFinite { .. } | Self::OutOfMemory { .. } | Self::Model(_) => {
                Fault::Invalid
            }
            Self::Student(error) => error.fault(),
            Self::Checkpoint(error) | Self::Resume { error, .. } => error.fault(),
            Self::Tensor(_) | Self::Internal(_) => Fault::Internal,
        }
    }

    /// A call of the harvester that failed.
    pub(crate) fn call(status: &tonic::Status) -> Self {
        // A connection that could not be made may say nothing but its cause.
        let cause = || std::error::Error::source(status).map(ToString::to_string);
        let message = match status.message() {
            "" => cause().unwrap_or_else(|| status.code().to_string()),
            words => words.to_owned(),
        };
        match wire::fault_of(status) {
            Fault::Conflict | Fault::NotFound => Self::Lost(message),
            Fault::Unavailable | Fault::Overloaded => Self::Unavailable(message),
            Fault::Invalid | Fault::Denied | Fault::Internal => Self::Internal(message),
        }
    }
}
