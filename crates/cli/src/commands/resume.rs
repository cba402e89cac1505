//! `distillery resume`: a paused or failed job goes on.

use super::print_job;
use crate::args::JobArguments;
use crate::client::failure;
use crate::job;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::{Channel, v1};

/// See [`crate::args::Verb::Resume`].
pub(crate) async fn resume(
    config: Config,
    arguments: JobArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let resumed = unless_interrupted(&shutdown, go_on(target.channel(), &arguments.job)).await;
    target.close().await?;
    print_job(&resumed?, arguments.json)
}

async fn go_on(channel: &Channel, id_or_name: &str) -> anyhow::Result<v1::Distillation> {
    let id = job::of(job::find(channel, id_or_name).await?.distillation)?.id;
    let request = v1::ResumeDistillationRequest { distillation_id: id };
    let mut client = DistillationsServiceClient::new(channel.clone());
    job::of(client.resume_distillation(request).await.map_err(failure)?.into_inner().distillation)
}
