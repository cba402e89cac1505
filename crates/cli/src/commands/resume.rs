//! `distillery resume`: resume a paused or failed job.

use super::print_job;
use crate::args::JobArguments;
use crate::client::call::failure;
use crate::client::jobs;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use domain::records::Distillation;
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// See [`crate::args::Verb::Resume`].
pub(crate) async fn resume(
    config: Config,
    arguments: JobArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let resumed = unless_interrupted(&shutdown, restart(target.channel(), &arguments.job)).await;
    target.close().await?;
    print_job(&resumed?, arguments.json)
}

async fn restart(channel: &Channel, id_or_name: &str) -> anyhow::Result<Distillation> {
    let job = jobs::find(channel, id_or_name).await?.job;
    jobs::resume(channel, job.id).await.map_err(failure)
}
