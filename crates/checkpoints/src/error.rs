//! What can go wrong with checkpoints.

use domain::Fault;
use std::path::{Path, PathBuf};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A bucket that does not answer, or refuses a request.
    #[error("{name}: {message}")]
    Bucket {
        /// The bucket and its prefix.
        name: String,
        /// What happened.
        message: String,
    },
    /// A path outside the store.
    #[error(
        "`{0}` is not a path in the store: its parts are letters, digits, `-`, `_` and `.`, and none is `..`"
    )]
    Path(String),
    /// A folder without its manifest, or without a file that it names.
    #[error("{}: is incomplete: {missing} is missing", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// A file is not what the manifest says.
    #[error("{}: its content is not what was published: copy it again", .0.display())]
    Changed(PathBuf),
    /// A folder that is not a checkpoint.
    #[error("{}: has no {missing}: a checkpoint is a folder with config.json, model.safetensors (or its index) and tokenizer.json", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A folder, or a file in it, that a student cannot start from; the words say what helps.
    #[error("{}: {message}", path.display())]
    Unusable {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        message: String,
    },
    /// A JSON file that cannot be read.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl CheckpointError {
    /// A failure of the disk.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::Bucket { .. } => Fault::Unavailable,
            Self::Path(_) | Self::Incomplete { .. } | Self::Unusable { .. } | Self::Json { .. } => {
                Fault::Invalid
            }
            Self::Damaged { .. } | Self::Changed(_) => Fault::Internal,
        }
    }
}
