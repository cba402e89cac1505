//! What a verb calls: a server, or the records in this machine's data directory. Both answer over a channel, so a verb is
//! written once.

use crate::args::ServerArguments;
use crate::exit::{Interrupted, Usage};
use app::client::Unusable;
use app::config::{ClientSection, Config};
use app::local::{Local, Scope};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// The services that a verb calls.
pub(crate) enum Target {
    /// Those of the data folder, in this process.
    Here(Box<Local>),
    /// Those of a server.
    Server(Channel),
}

impl Target {
    /// The server that is named, else the data folder.
    pub(crate) async fn open(
        config: Config,
        server: &ServerArguments,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::open_with(config, server, Scope::RECORDS, shutdown).await
    }

    /// The server that is named, else the data folder with what `scope` says.
    pub(crate) async fn open_with(
        config: Config,
        server: &ServerArguments,
        scope: Scope,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        match server.url() {
            Some(url) => Ok(Self::Server(connect(&config.client, url, server).await?)),
            None => Ok(Self::Here(Box::new(Local::open(config, scope, shutdown).await?))),
        }
    }

    /// To its services.
    pub(crate) fn channel(&self) -> &Channel {
        match self {
            Self::Here(local) => local.channel(),
            Self::Server(channel) => channel,
        }
    }

    /// Ends the services of the data directory.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Here(local) => local.close().await,
            Self::Server(_) => Ok(()),
        }
    }
}

/// A channel to the server at `url`.
pub(crate) async fn connect(
    section: &ClientSection,
    url: &str,
    server: &ServerArguments,
) -> anyhow::Result<Channel> {
    let mut section = section.clone();
    if let Some(file) = &server.token_file {
        section.token_file.clone_from(file);
    }
    if let Some(file) = &server.ca {
        section.ca.clone_from(file);
    }
    app::client::connect(&section, url).await.map_err(|error| match error.downcast::<Unusable>() {
        Ok(unusable) => Usage(format!("--server: {unusable}")).into(),
        Err(error) => error,
    })
}

/// The server of a verb that needs one.
pub(crate) async fn server(config: &Config, server: &ServerArguments) -> anyhow::Result<Channel> {
    let words =
        "--server: name a server (or set DISTILLERY_SERVER); `distillery run` distils on this machine";
    let url = server.url().ok_or_else(|| Usage(words.to_owned()))?;
    connect(&config.client, url, server).await
}

/// `work`, unless a signal comes first.
pub(crate) async fn unless_interrupted<T>(
    shutdown: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.cancelled() => Err(Interrupted("interrupted".to_owned()).into()),
    }
}
