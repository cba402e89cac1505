//! In place of `local` in a build without the harvester: there are no records on this machine, and every verb that would
//! open them says so.

use crate::config::Config;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use wire::Channel;

const WORDS: &str = "this program was built without the harvester: name a server (--server), or build it with the \
                     feature `harvester`";

/// A folder that no student can start from; the words say why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// What would work beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles;

impl Roles {
    /// The records alone.
    pub const RECORDS: Self = Self;
    /// Harvesting and training too.
    pub const DISTIL: Self = Self;
}

/// The system on one machine, which this build cannot open: there is no such value.
#[derive(Debug)]
pub enum Local {}

impl Local {
    /// Says that this build has no records.
    ///
    /// # Errors
    /// Always.
    pub async fn open(_: Config, _: Roles, _: CancellationToken) -> anyhow::Result<Self> {
        anyhow::bail!(WORDS)
    }

    /// To its services.
    pub fn channel(&self) -> &Channel {
        match *self {}
    }

    /// Why a role ended.
    pub async fn failed(&self) -> anyhow::Error {
        match *self {}
    }

    /// Ends it.
    ///
    /// # Errors
    /// None: there is no such value.
    pub async fn close(self) -> anyhow::Result<()> {
        match self {}
    }

    /// Registers a base checkpoint.
    ///
    /// # Errors
    /// None: there is no such value.
    pub async fn register_base(&self, _: &str, _: &Path) -> anyhow::Result<String> {
        match *self {}
    }

    /// Where a checkpoint lies.
    ///
    /// # Errors
    /// None: there is no such value.
    pub fn checkpoint_folder(&self, _: &str) -> anyhow::Result<PathBuf> {
        match *self {}
    }
}

/// Why a teacher cannot be asked: none can, and opening says so.
pub fn teacher_without_key(_: &Config, _: &str) -> Option<String> {
    None
}

/// Says that this build has no records.
///
/// # Errors
/// Always.
pub async fn migrate(_: &Config) -> anyhow::Result<i64> {
    anyhow::bail!(WORDS)
}
