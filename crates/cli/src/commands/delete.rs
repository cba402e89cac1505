//! `distillery delete`: a job, a model or a dataset.

use super::{print_json, print_line};
use crate::args::DeleteArguments;
use crate::client::{self, failure};
use crate::job;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

/// See [`crate::args::Verb::Delete`].
pub(crate) async fn delete(
    config: Config,
    arguments: DeleteArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let deleted = unless_interrupted(&shutdown, remove(target.channel(), &arguments)).await;
    target.close().await?;
    let (what, id) = deleted?;
    if arguments.json {
        return print_json(&serde_json::json!({"deleted": what, "id": id}));
    }
    print_line(&format!("deleted the {what} {id}"))
}

/// Deletes what is named. Returns what it was, and its id.
async fn remove(channel: &Channel, arguments: &DeleteArguments) -> anyhow::Result<(&'static str, String)> {
    if let Some(name) = &arguments.model {
        let id = client::model(channel, name).await?.id;
        let request = v1::DeleteModelRequest { model_id: id.clone() };
        ModelsServiceClient::new(channel.clone()).delete_model(request).await.map_err(failure)?;
        return Ok(("model", id));
    }
    if let Some(name) = &arguments.dataset {
        let id = client::dataset(channel, name).await?.id;
        let request = v1::DeleteDatasetRequest { dataset_id: id.clone() };
        DatasetsServiceClient::new(channel.clone()).delete_dataset(request).await.map_err(failure)?;
        return Ok(("dataset", id));
    }
    let job = arguments.job.as_deref().unwrap_or_default();
    let id = job::of(job::find(channel, job).await?.distillation)?.id;
    let request = v1::DeleteDistillationRequest { distillation_id: id.clone() };
    DistillationsServiceClient::new(channel.clone()).delete_distillation(request).await.map_err(failure)?;
    Ok(("distillation", id))
}
