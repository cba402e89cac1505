//! Base checkpoints: copied into the store that trainers read, then registered with the harvester by a name that says
//! their content.

use crate::checkpoint_store::{self, Writers};
use crate::config::Config;
use crate::models;
use crate::roles;
use crate::test_answers::{self, TestAnswers};
use anyhow::anyhow;
use checkpoints::Checkpoints;
use domain::Fault;
use std::path::{Path, PathBuf};
use wire::Channel;

/// A folder that no student can start from; the words say why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// The store of checkpoints that this machine shares with the servers.
#[derive(Debug)]
pub struct Shared(Checkpoints);

impl Shared {
    /// What `[checkpoints] root` names. To be called on a runtime.
    ///
    /// # Errors
    /// It names nothing: [`Refused`]. Or it cannot be opened.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        if config.checkpoints.root.is_empty() {
            let words = "is a folder of this machine, which no server can read: name the servers' store in \
                         `[checkpoints] root` of your configuration, or write `student.base` and the name of a base \
                         model that is registered";
            return Err(Refused(words.to_owned()).into());
        }
        Ok(Self(checkpoint_store::open(config, Writers::Many)?))
    }

    /// Copies a folder in and registers it with the services at `channel`. Returns its name.
    ///
    /// # Errors
    /// The folder is not a checkpoint that a student can start from: [`Refused`]. Or it cannot be copied, or the services
    /// refuse it.
    pub async fn register(&self, channel: &Channel, name: &str, folder: &Path) -> anyhow::Result<String> {
        copy_and_register(channel, self.0.clone(), name, folder).await
    }

    /// A checkpoint's folder, every file as its manifest says; from a bucket, copied.
    ///
    /// # Errors
    /// It is absent or damaged.
    pub async fn verified_folder(&self, path: &str, manifest_sha256: &str) -> anyhow::Result<PathBuf> {
        checkpoint_store::fetch(self.0.clone(), path, manifest_sha256).await
    }

    /// What the student of a checkpoint answered to the test rows.
    ///
    /// # Errors
    /// Its checkpoint is absent or damaged.
    pub async fn test_answers(&self, path: &str, manifest_sha256: &str) -> anyhow::Result<TestAnswers> {
        test_answers::read(self.0.clone(), path, manifest_sha256).await
    }
}

/// The same, into any store.
pub(crate) async fn copy_and_register(
    channel: &Channel,
    checkpoints: Checkpoints,
    name: &str,
    folder: &Path,
) -> anyhow::Result<String> {
    let (name, folder) = (name.to_owned(), folder.to_owned());
    let (name, manifest_sha256) =
        tokio::task::spawn_blocking(move || copy(&checkpoints, &name, &folder)).await??;
    let registered = models::register_base(channel, &name, &manifest_sha256).await;
    registered.map_err(|status| anyhow!("{}", status.message()))?;
    Ok(name)
}

/// Name and manifest of the copy.
fn copy(checkpoints: &Checkpoints, name: &str, folder: &Path) -> anyhow::Result<(String, String)> {
    if !folder.is_dir() {
        let words = "is not a directory with config.json, model.safetensors and tokenizer.json";
        return Err(Refused(format!("{}: {words}", folder.display())).into());
    }
    let registered = checkpoints.register_base(name, folder).map_err(|error| match error.fault() {
        Fault::Invalid => anyhow::Error::from(Refused(error.to_string())),
        _ => error.into(),
    })?;
    if let Err(error) = roles::check_base(folder) {
        checkpoints.delete(&format!("base/{}", registered.0))?;
        return Err(Refused(error.to_string()).into());
    }
    Ok(registered)
}
