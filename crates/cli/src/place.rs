//! Where a study is carried out, and where students' checkpoints are read: on this machine, or at the services of a server that
//! keeps its checkpoints where this machine can read them.

use crate::args::ServerArguments;
use crate::exit::Usage;
use crate::target::{self, Service};
use app::base::{Refused, Shared};
use app::config::Config;
use app::local::{Local, Scope};
use app::test_answers::TestAnswers;
use domain::records::Model;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// The services that carry a study out.
pub(crate) enum Place {
    /// Those of this process.
    Here(Box<Local>),
    /// Those of a server, and its store of checkpoints.
    Server(Channel, Shared),
}

impl Place {
    /// The server that is named, else this machine, with what `scope` says.
    pub(crate) async fn open(
        config: Config,
        server: &ServerArguments,
        scope: Scope,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Some(urls) = server.url() else {
            return Ok(Self::Here(Box::new(Local::open(config, scope, shutdown).await?)));
        };
        let shared = Shared::open(&config).map_err(|error| match error.downcast::<Refused>() {
            Ok(_) => Usage(
                "--server: this reads students' checkpoints: name the servers' store in `[checkpoints] root` of your \
                 configuration"
                    .to_owned(),
            )
            .into(),
            Err(error) => error,
        })?;
        let found = target::find(&config.client, urls, server, Service::Jobs);
        Ok(Self::Server(target::unless_interrupted(&shutdown, found).await?, shared))
    }

    /// To the services.
    pub(crate) fn channel(&self) -> &Channel {
        match self {
            Self::Here(local) => local.channel(),
            Self::Server(channel, _) => channel,
        }
    }

    /// Cells that wait for a trainer: on this machine no more than it takes, so that what a smaller study does not need is not
    /// trained; at a server all, for any number of trainers.
    pub(crate) fn cells_ahead(&self) -> usize {
        match self {
            Self::Here(_) => 2,
            Self::Server(..) => usize::MAX,
        }
    }

    /// Copies a checkpoint folder in and registers it; the name says its content.
    pub(crate) async fn register_base(&self, name: &str, folder: &Path) -> anyhow::Result<String> {
        match self {
            Self::Here(local) => local.register_base(name, folder).await,
            Self::Server(channel, shared) => shared.register(channel, name, folder).await,
        }
    }

    /// The folder of a published model's checkpoint, every file as its manifest says.
    pub(crate) async fn verified_folder(&self, model: &Model) -> anyhow::Result<PathBuf> {
        match self {
            Self::Here(local) => local.verified_folder(&model.path, &model.manifest_sha256).await,
            Self::Server(_, shared) => shared.verified_folder(&model.path, &model.manifest_sha256).await,
        }
    }

    /// What the student of a checkpoint answered to the test rows.
    pub(crate) async fn test_answers(
        &self,
        path: &str,
        manifest_sha256: &str,
    ) -> anyhow::Result<TestAnswers> {
        match self {
            Self::Here(local) => local.test_answers(path, manifest_sha256).await,
            Self::Server(_, shared) => shared.test_answers(path, manifest_sha256).await,
        }
    }

    /// Resolves when a role of this process ended that should not have.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        match self {
            Self::Here(local) => local.failed().await,
            Self::Server(..) => std::future::pending().await,
        }
    }

    /// The services of this process hand back their leases and write their resume state.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Here(local) => local.close().await,
            Self::Server(..) => Ok(()),
        }
    }
}
