//! `distillery delete`: delete a job, a model or a dataset.

use crate::args::DeleteArguments;
use crate::client::call::failure;
use crate::client::{datasets, jobs, models};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{print_json, print_line};
use app::config::Config;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Delete`].
pub(crate) async fn delete(
    config: Config,
    arguments: DeleteArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let deleted = unless_interrupted(&shutdown, remove(&target, &arguments)).await;
    target.close().await?;
    let (what, id) = deleted?;
    if arguments.json {
        return print_json(&serde_json::json!({"deleted": what, "id": id}));
    }
    print_line(&format!("deleted the {what} {id}"))
}

/// Deletes what is named. Returns what it was, and its id.
async fn remove(target: &Target, arguments: &DeleteArguments) -> anyhow::Result<(&'static str, String)> {
    let channel = target.channel();
    if let Some(name) = &arguments.model {
        let id = models::find(channel, name).await?.id;
        models::delete(channel, id).await.map_err(failure)?;
        return Ok(("model", id.to_string()));
    }
    if let Some(name) = &arguments.dataset {
        let id = datasets::find(channel, name).await?.id;
        datasets::delete(channel, id).await.map_err(failure)?;
        return Ok(("dataset", id.to_string()));
    }
    let id = jobs::find(channel, arguments.job.as_deref().unwrap_or_default()).await?.job.id;
    for run in jobs::delete(channel, id).await.map_err(failure)? {
        // Next to a server, what its runs left is collected where the checkpoints are.
        if let Target::Here(local) = target {
            local.delete_run(run).await?;
        }
    }
    Ok(("distillation", id.to_string()))
}
