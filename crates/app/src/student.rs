//! One student, opened for a verb: from a folder, or by its name in the data folder.

use crate::config::Config;
use crate::{roles, transport};
use anyhow::bail;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// There is no such model; the message lists the models.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoModel(String);

/// A student that answers over memory.
#[derive(Debug)]
pub struct Student {
    /// To its inference service; the model there goes by an empty name.
    pub channel: Channel,
    end: CancellationToken,
}

impl Student {
    /// Opens `model`: a checkpoint where there is a folder of that path with one, else `name` or `name@version` in the data
    /// folder. A folder without one, such as that of a specification, hides no model of its name.
    ///
    /// # Errors
    /// There is no such model, or its folder is damaged: the error says what is wrong and what to do.
    pub async fn open(config: Config, model: &str) -> anyhow::Result<Self> {
        let path = Path::new(model);
        let folder = if path.join("config.json").is_file() {
            path.to_owned()
        } else {
            match find(&config, model).await {
                // What the folder lacks is said when it is opened.
                Err(error) if path.is_dir() && error.is::<NoModel>() => path.to_owned(),
                found => found?,
            }
        };
        let routes = roles::serve(&config, "student", &folder).await?;
        let end = CancellationToken::new();
        Ok(Self { channel: transport::in_memory(routes, end.clone()).await?, end })
    }

    /// Stops answering.
    pub fn close(self) {
        self.end.cancel();
    }
}

#[cfg(feature = "harvester")]
async fn find(config: &Config, model: &str) -> anyhow::Result<PathBuf> {
    use crate::local::{Local, Scope};
    let looks_like_a_path = model.contains('/');
    if looks_like_a_path || !config.data_dir.is_dir() {
        let place = config.data_dir.display();
        bail!(NoModel(format!("{model}: is not a directory, and {place} has no model of that name")));
    }
    let local = Local::open(config.clone(), Scope::READ, CancellationToken::new()).await?;
    let found = published(&local, model).await;
    local.close().await?;
    found
}

#[cfg(not(feature = "harvester"))]
async fn find(_: &Config, model: &str) -> anyhow::Result<PathBuf> {
    let words =
        "is not a checkpoint, and this program was built without the harvester, which finds models by name";
    bail!(NoModel(format!("{model}: {words}")))
}

#[cfg(feature = "harvester")]
async fn published(local: &crate::local::Local, model: &str) -> anyhow::Result<PathBuf> {
    use crate::models;
    let (name, version) = match model.split_once('@') {
        Some((name, version)) => (
            name,
            version.parse::<u64>().ok().filter(|version| *version > 0).ok_or_else(|| {
                NoModel(format!(
                    "{model}: `{version}` is not a version: write {name}@1, or {name} for the newest"
                ))
            })?,
        ),
        None => (model, 0),
    };
    match models::find(local.channel(), name, version).await {
        Ok(model) => local.verified_folder(&model.path, &model.manifest_sha256).await,
        Err(status) if status.code() == tonic::Code::NotFound => {
            let known: Vec<String> = models::newest(local.channel())
                .await
                .unwrap_or_default()
                .iter()
                .map(|model| format!("{}@{}", model.name, model.version))
                .collect();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            bail!(NoModel(format!("{model}: is neither a folder nor a published model (published: {known})")))
        }
        Err(status) => bail!("{}", status.message()),
    }
}
