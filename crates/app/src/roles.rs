//! Starting the roles that this build has; the others say that they are not in it.

use crate::config::Config;
use checkpoints::Checkpoints;
use std::path::Path;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Trains what can be leased from `channel` until `shutdown`.
#[cfg(feature = "trainer")]
pub(crate) async fn train(
    config: Config,
    channel: Channel,
    checkpoints: Checkpoints,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    use crate::config::DeviceChoice;
    let mut settings = trainer::Settings::new(process_name("trainer"));
    settings.lease = std::time::Duration::from_secs(config.trainer.lease_seconds.max(1));
    settings.threads = u32::try_from(config.trainer.threads)?;
    settings.use_cuda = config.trainer.device == DeviceChoice::Auto;
    Ok(trainer::run(settings, channel, checkpoints, shutdown).await?)
}

/// This build has no trainer.
#[cfg(not(feature = "trainer"))]
pub(crate) async fn train(_: Config, _: Channel, _: Checkpoints, _: CancellationToken) -> anyhow::Result<()> {
    anyhow::bail!("this program was built without the trainer: build it with the feature `trainer`")
}

/// Opens a base checkpoint as a run would: one that no student can start from is refused before a teacher is paid.
#[cfg(feature = "trainer")]
pub(crate) fn check_base(folder: &Path) -> anyhow::Result<()> {
    Ok(trainer::check_base(folder)?)
}

/// This build has no trainer, which is told when a run needs one.
#[cfg(not(feature = "trainer"))]
pub(crate) fn check_base(_: &Path) -> anyhow::Result<()> {
    Ok(())
}

/// The routes of an inference service over the students in `folders`, each under its name.
#[cfg(feature = "inference")]
pub(crate) async fn serve(
    config: &Config,
    name: &str,
    folder: &Path,
) -> anyhow::Result<tonic::service::Routes> {
    let settings = inference::Settings {
        queue_tokens_max: config.inference.queue_tokens_max,
        batch_tokens_max: config.inference.batch_tokens_max,
        use_cuda: config.trainer.device == crate::config::DeviceChoice::Auto,
        threads: u32::try_from(config.trainer.threads)?,
    };
    let service = inference::Inference::start(settings)?;
    service.open_folder(name, folder).await?;
    Ok(tonic::service::Routes::new(service.service()))
}

/// This build has no inference service.
#[cfg(not(feature = "inference"))]
pub(crate) async fn serve(_: &Config, _: &str, _: &Path) -> anyhow::Result<tonic::service::Routes> {
    anyhow::bail!("this program was built without inference: build it with the feature `inference`")
}

/// Unique per start: who holds a lease.
#[cfg(any(feature = "harvester", feature = "trainer"))]
pub(crate) fn process_name(role: &str) -> String {
    let started = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    format!("{role}-{}-{started}", std::process::id())
}
