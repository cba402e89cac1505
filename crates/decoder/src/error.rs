//! What can go wrong: each message says what, where, and what to do.

use std::fmt;

/// A failure of a model, of its packed form, or of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The shape describes no T5 that this engine computes.
    Shape {
        /// The field of [`crate::Shape`].
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The caller has no tensor of this name.
    MissingTensor(String),
    /// A tensor has another number of values than the shape says.
    Misshapen {
        /// The tensor.
        name: String,
        /// Values that it has.
        found: usize,
        /// Values that it should have.
        expected: usize,
    },
    /// A tensor holds a value that is infinite or not a number.
    NotFinite(String),
    /// The bytes are not a packed model, or not a whole one.
    Damaged(String),
    /// What was asked does not fit the model: ids, lengths, slots.
    Input(String),
    /// The machine lacks memory for this many bytes.
    Memory(usize),
    /// A worker thread could not be started, or failed in an earlier call: the engine must be made anew.
    Worker(String),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { field, message } => write!(out, "{field}: {message}"),
            Self::MissingTensor(name) => {
                write!(
                    out,
                    "has no tensor `{name}`, which the shape asks for: is it the checkpoint of another model?"
                )
            }
            Self::Misshapen { name, found, expected } => {
                write!(out, "tensor `{name}` has {found} values, and the shape asks for {expected}")
            }
            Self::NotFinite(name) => write!(out, "tensor `{name}` holds a value that is not finite"),
            Self::Damaged(message) => write!(out, "is not a whole packed model ({message}): pack it again"),
            Self::Input(message) => out.write_str(message),
            Self::Memory(bytes) => write!(out, "{bytes} bytes of memory cannot be had"),
            Self::Worker(message) => {
                write!(out, "the worker threads are gone ({message}): make the engine anew")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
