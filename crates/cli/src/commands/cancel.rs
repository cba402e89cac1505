//! `distillery cancel`: a job's end.

use super::print_job;
use crate::args::CancelArguments;
use crate::client::failure;
use crate::job;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::{Channel, v1};

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

async fn end(channel: &Channel, arguments: &CancelArguments) -> anyhow::Result<v1::Distillation> {
    let id = job::of(job::find(channel, &arguments.job.job).await?.distillation)?.id;
    let request = v1::CancelDistillationRequest { distillation_id: id, reason: arguments.reason.clone() };
    let mut client = DistillationsServiceClient::new(channel.clone());
    job::of(client.cancel_distillation(request).await.map_err(failure)?.into_inner().distillation)
}
