//! What a migration came to.

/// A database at this program's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Its version.
    pub version: i64,
    /// Where it is, without user and password.
    pub place: String,
    /// The data folder that holds it, where one does.
    pub folder: Option<String>,
}
