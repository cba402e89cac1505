//! Starting the roles that this build has; the others say that they are not in it.

use crate::config::Config;
#[cfg(feature = "trainer")]
use crate::process;
use checkpoints::Checkpoints;
#[cfg(any(feature = "harvester", feature = "inference"))]
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::Path;
#[cfg(feature = "trainer")]
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::Channel;

/// A harvester that was opened.
pub(crate) struct Harvesting {
    /// Its services.
    pub(crate) routes: Routes,
    /// Its work, until it is asked to end.
    pub(crate) work: BoxFuture<'static, ()>,
    /// Closes the records, after their last use.
    pub(crate) close: BoxFuture<'static, ()>,
}

/// An inference service that was opened.
pub(crate) struct Inferring {
    /// The routes it was given, and its own.
    pub(crate) routes: Routes,
    /// Follows the published models until it is asked to end.
    pub(crate) work: BoxFuture<'static, ()>,
    /// Takes no more requests; what waits is still answered.
    pub(crate) drain: Box<dyn FnOnce() + Send + Sync>,
    /// The names and versions it serves; `None` until it has loaded what is published.
    pub(crate) models: watch::Receiver<Option<BTreeMap<String, u64>>>,
}

/// Opens the records and a harvester over them, which works until `end`.
#[cfg(feature = "harvester")]
pub(crate) async fn harvest(config: &Config, end: CancellationToken) -> anyhow::Result<Harvesting> {
    let records = crate::records::open(config).await?;
    // A replica that only answers checks the profiles of what is submitted, too.
    let teachers = crate::records::teachers(config, &records)?;
    let harvester = crate::records::harvester(config, config.harvester.workers, &records, teachers);
    Ok(Harvesting {
        routes: harvester.routes(),
        work: async move { harvester.run(end).await }.boxed(),
        close: records.close().boxed(),
    })
}

/// This build has no harvester.
#[cfg(not(feature = "harvester"))]
pub(crate) async fn harvest(_: &Config, _: CancellationToken) -> anyhow::Result<Harvesting> {
    anyhow::bail!("this program was built without the harvester: build it with the feature `harvester`")
}

/// How often a trainer without work asks a harvester elsewhere for some.
#[cfg(feature = "trainer")]
const POLL_ELSEWHERE: Duration = Duration::from_secs(1);

/// Where the harvester is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harvester {
    /// In this process.
    Here,
    /// On the network.
    Elsewhere,
}

/// Trains what can be leased from `channel` until `shutdown`; `reached` is cancelled once that has answered.
#[cfg(feature = "trainer")]
pub(crate) async fn train(
    config: Config,
    harvester: Harvester,
    channel: Channel,
    checkpoints: Checkpoints,
    reached: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    use crate::config::DeviceChoice;
    let mut settings = trainer::Settings::new(process::name("trainer"));
    if harvester == Harvester::Elsewhere {
        settings.poll = POLL_ELSEWHERE;
        let idle = config.trainer.idle_seconds_max;
        settings.idle_max = (idle > 0).then(|| Duration::from_secs(idle));
    }
    settings.reached = reached;
    settings.lease = Duration::from_secs(config.trainer.lease_seconds.max(1));
    settings.threads = u32::try_from(config.trainer.threads)?;
    settings.use_cuda = config.trainer.device == DeviceChoice::Auto;
    Ok(trainer::run(settings, channel, checkpoints, shutdown).await?)
}

/// This build has no trainer.
#[cfg(not(feature = "trainer"))]
pub(crate) async fn train(
    _: Config,
    _: Harvester,
    _: Channel,
    _: Checkpoints,
    _: CancellationToken,
    _: CancellationToken,
) -> anyhow::Result<()> {
    anyhow::bail!("this program was built without the trainer: build it with the feature `trainer`")
}

/// Opens a base checkpoint as a run would: one that no student can start from is refused before a teacher is paid.
#[cfg(feature = "trainer")]
pub(crate) fn check_base(folder: &Path) -> anyhow::Result<()> {
    Ok(trainer::check_base(folder)?)
}

/// This build has no trainer; a run that needs one reports that.
#[cfg(not(feature = "trainer"))]
pub(crate) fn check_base(_: &Path) -> anyhow::Result<()> {
    Ok(())
}

/// The routes of an inference service over the student in `folder`, under `name`.
#[cfg(feature = "inference")]
pub(crate) async fn serve(config: &Config, name: &str, folder: &Path) -> anyhow::Result<Routes> {
    let service = inference::Inference::start(settings(config)?)?;
    service.open_folder(name, folder).await?;
    Ok(Routes::new(service.service()))
}

#[cfg(feature = "inference")]
fn settings(config: &Config) -> anyhow::Result<inference::Settings> {
    Ok(inference::Settings {
        queue_tokens_max: config.inference.queue_tokens_max,
        batch_tokens_max: config.inference.batch_tokens_max,
        cache_bytes_max: config.inference.cache_bytes_max,
        use_cuda: config.trainer.device == crate::config::DeviceChoice::Auto,
        threads: u32::try_from(config.trainer.threads)?,
    })
}

/// An inference service with `routes`, over every model that the harvester at `channel` has published.
#[cfg(feature = "inference")]
pub(crate) fn infer(
    config: &Config,
    routes: Routes,
    channel: Channel,
    checkpoints: Checkpoints,
    end: CancellationToken,
) -> anyhow::Result<Inferring> {
    let service = inference::Inference::start(settings(config)?)?;
    let following = service.clone();
    Ok(Inferring {
        routes: routes.add_service(service.service()).add_service(service.open_inference()),
        models: service.models(),
        work: async move { following.watch(channel, checkpoints, end).await }.boxed(),
        drain: Box::new(move || service.drain()),
    })
}

/// This build has no inference service.
#[cfg(not(feature = "inference"))]
pub(crate) fn infer(
    _: &Config,
    _: Routes,
    _: Channel,
    _: Checkpoints,
    _: CancellationToken,
) -> anyhow::Result<Inferring> {
    anyhow::bail!("this program was built without inference: build it with the feature `inference`")
}

/// This build has no inference service.
#[cfg(not(feature = "inference"))]
pub(crate) async fn serve(_: &Config, _: &str, _: &Path) -> anyhow::Result<Routes> {
    anyhow::bail!("this program was built without inference: build it with the feature `inference`")
}
