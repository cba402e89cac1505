//! What a verb calls: a server, or the records in this machine's data directory. Both answer over a channel, so a verb is
//! written once.

use crate::args::ServerArguments;
use crate::exit::{Interrupted, Usage};
use app::client::{Health, Unusable};
use app::config::{ClientSection, Config};
use app::local::{Local, Scope};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// Which service a verb calls: servers may have one of them, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    /// The harvester's: jobs, data, the ledger, models.
    Jobs,
    /// The inference service: answers.
    Answers,
}

impl Service {
    /// Its name in the API.
    fn name(self) -> &'static str {
        match self {
            Self::Jobs => "distillery.v1.DistillationsService",
            Self::Answers => "distillery.v1.InferenceService",
        }
    }

    /// Whose it is.
    fn role(self) -> &'static str {
        match self {
            Self::Jobs => "a harvester",
            Self::Answers => "an inference service",
        }
    }
}

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

    /// The same to look things up only: the data folder may be in use by a process that works there.
    pub(crate) async fn read(
        config: Config,
        server: &ServerArguments,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::open_with(config, server, Scope::READ, shutdown).await
    }

    /// The server that is named, else the data folder with what `scope` says.
    pub(crate) async fn open_with(
        config: Config,
        server: &ServerArguments,
        scope: Scope,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        match server.url() {
            Some(urls) => {
                let found = find(&config.client, urls, server, Service::Jobs);
                Ok(Self::Server(unless_interrupted(&shutdown, found).await?))
            }
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

/// The URLs of a list with commas between.
pub(crate) fn each(urls: &str) -> impl Iterator<Item = &str> {
    urls.split(',').map(str::trim).filter(|url| !url.is_empty())
}

/// A channel to the first of these servers (URLs with commas between) that has a service. One that does not answer is passed
/// over where another does.
pub(crate) async fn find(
    section: &ClientSection,
    urls: &str,
    server: &ServerArguments,
    service: Service,
) -> anyhow::Result<Channel> {
    let mut unreached = None;
    for url in each(urls) {
        match connect(section, url, server).await {
            // A server that does not tell its health is called all the same.
            Ok(channel) => match app::client::health(channel.clone(), service.name()).await {
                Ok(Health::Unknown) => {}
                Ok(Health::Serving | Health::NotServing) | Err(_) => return Ok(channel),
            },
            Err(error) if error.is::<Usage>() => return Err(error),
            Err(error) => unreached = unreached.or(Some(error)),
        }
    }
    let role = service.role();
    Err(unreached.unwrap_or_else(|| {
        let words = format!(
            "--server: {urls} is not {role}, which this verb calls: name {role} too, with a comma between \
             (--server URL,URL, or DISTILLERY_SERVER)"
        );
        Usage(words).into()
    }))
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
pub(crate) async fn server(
    config: &Config,
    server: &ServerArguments,
    shutdown: &CancellationToken,
) -> anyhow::Result<Channel> {
    let words =
        "--server: name a server (or set DISTILLERY_SERVER); `distillery run` distils on this machine";
    let urls = server.url().ok_or_else(|| Usage(words.to_owned()))?;
    unless_interrupted(shutdown, find(&config.client, urls, server, Service::Jobs)).await
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
