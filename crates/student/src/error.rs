//! What can go wrong with a student.

use domain::Fault;

/// A failure of a student: of its files, or of one answer.
#[derive(Debug, thiserror::Error)]
pub enum StudentError {
    /// The tokenizer's files.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The model's files, or a pass.
    #[error(transparent)]
    Model(#[from] t5::Error),
    /// The packed form of the model, or a pass of it.
    #[error(transparent)]
    Packed(#[from] decoder::Error),
    /// The checkpoint folder.
    #[error(transparent)]
    Checkpoint(#[from] checkpoints::CheckpointError),
    /// An input that the student was not trained to read.
    #[error("its input has {tokens} tokens, and the model reads at most {limit}: shorten it")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// The student's limit.
        limit: usize,
    },
    /// An input that is longer than any that the student could read.
    #[error("its input has {bytes} bytes, and the model reads at most {limit}: shorten it")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What the student's limit of tokens can hold at most.
        limit: usize,
    },
    /// Labels of one set that are the same to the student.
    #[error("labels: {0}")]
    Labels(String),
    /// An answer without probabilities.
    #[error(
        "the logits are not finite for this input: its weights overflow in {0}; use another checkpoint, or train it in float32"
    )]
    NotFinite(&'static str),
    /// A mistake of ours.
    #[error("{0}")]
    Internal(String),
}

impl StudentError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Tokenizer(_)
            | Self::Model(_)
            | Self::Packed(_)
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::Labels(_) => Fault::Invalid,
            Self::Checkpoint(error) => error.fault(),
            Self::NotFinite(_) => Fault::Conflict,
            Self::Internal(_) => Fault::Internal,
        }
    }

    /// Whether it concerns one row, and says nothing about the others.
    pub fn is_of_one_row(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::TooLarge { .. } | Self::Labels(_) | Self::NotFinite(_))
    }
}
