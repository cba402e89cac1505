//! `local` in a build without the harvester: there are no records on this machine, and opening them is an error.

use crate::config::Config;
use crate::migrated::Migrated;
use crate::test_answers::TestAnswers;
use domain::ids::RunId;
use domain::metric::Accuracy;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use wire::Channel;

const UNAVAILABLE: &str = "this program was built without the harvester: name a server (--server), or build it with the \
                     feature `harvester`";

/// What works in this process, besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope;

impl Scope {
    /// The records to look things up in.
    pub const READ: Self = Self;
    /// The records alone.
    pub const RECORDS: Self = Self;
    /// The records, and the teachers to plan with.
    pub const PLAN: Self = Self;
    /// Harvesting and training too.
    pub const DISTIL: Self = Self;
    /// Training alone.
    pub const TRAIN: Self = Self;
}

/// The system on one machine, which this build cannot open: there is no such value.
#[derive(Debug)]
pub enum Local {}

impl Local {
    /// Fails: this build has no records.
    ///
    /// # Errors
    /// Always.
    pub async fn open(_: Config, _: Scope, _: CancellationToken) -> anyhow::Result<Self> {
        anyhow::bail!(UNAVAILABLE)
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

    /// The accuracy of a student on its teacher's rows.
    ///
    /// # Errors
    /// None: there is no such value.
    pub fn accuracy_on_teachers_rows(&self, _: &Path, _: u32) -> anyhow::Result<Option<Accuracy>> {
        match *self {}
    }

    /// Where the checkpoint of a published model lies, every file as its manifest says.
    ///
    /// # Errors
    /// None: there is no such value.
    pub async fn verified_folder(&self, _: &str, _: &str) -> anyhow::Result<PathBuf> {
        match *self {}
    }

    /// What a student answered to the test rows.
    ///
    /// # Errors
    /// None: there is no such value.
    pub async fn test_answers(&self, _: &str, _: &str) -> anyhow::Result<TestAnswers> {
        match *self {}
    }

    /// Deletes what a run left.
    ///
    /// # Errors
    /// None: there is no such value.
    pub async fn delete_run(&self, _: RunId) -> anyhow::Result<()> {
        match *self {}
    }
}

/// Why a teacher cannot be used; never known here, where opening fails first.
pub fn teacher_without_key(_: &Config, _: &str) -> Option<String> {
    None
}

/// Fails: this build has no records.
///
/// # Errors
/// Always.
pub async fn migrate(_: &Config) -> anyhow::Result<Migrated> {
    anyhow::bail!(UNAVAILABLE)
}
