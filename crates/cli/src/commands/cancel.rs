//! `distillery cancel`: end a job.

use super::print_job;
use crate::args::CancelArguments;
use crate::client::call::failure;
use crate::client::jobs;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use domain::records::Distillation;
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// See [`crate::args::Verb::Cancel`].
pub(crate) async fn cancel(
    config: Config,
    arguments: CancelArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.job.server, shutdown.clone()).await?;
    let cancelled = unless_interrupted(&shutdown, end(target.channel(), &arguments)).await;
    target.close().await?;
    print_job(&cancelled?, arguments.job.json)
}

async fn end(channel: &Channel, arguments: &CancelArguments) -> anyhow::Result<Distillation> {
    let job = jobs::find_unfinished(channel, &arguments.job.job).await?.job;
    jobs::cancel(channel, job.id, &arguments.reason).await.map_err(failure)
}
