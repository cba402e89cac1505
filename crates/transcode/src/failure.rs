//! What can be wrong: with descriptors, or with a request.

/// Descriptors that describe no API over HTTP.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub(crate) String);

/// A request that is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Mistake {
    /// Where: the field, `body`, or `body line N`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl Mistake {
    pub(crate) fn new(field: impl Into<String>, message: impl ToString) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }
}
