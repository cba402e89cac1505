//! `distillery models`: the published students.

use super::{print_json, print_line};
use crate::args::ModelsArguments;
use crate::client::{failure, page};
use crate::job::{accuracy, accuracy_json};
use crate::report::{grouped, interval, percent};
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

/// See [`crate::args::Verb::Models`].
pub(crate) async fn models(
    config: Config,
    arguments: ModelsArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, published(target.channel(), &arguments)).await;
    target.close().await?;
    let models = found?;
    if arguments.json {
        let models: Vec<_> = models.iter().map(json).collect();
        return print_json(&serde_json::json!({"models": models}));
    }
    if models.is_empty() {
        return print_line("no models");
    }
    let mut table =
        super::table(&["model", "test accuracy", "95% interval", "parameters", "published", "id"]);
    for model in &models {
        let test = accuracy(model.test)?;
        table.add_row([
            format!("{}@{}", model.name, model.version),
            test.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            test.map_or_else(|| "-".to_owned(), interval),
            grouped(model.parameters),
            model.created_at.map(|at| at.to_string()).unwrap_or_default(),
            model.id.clone(),
        ]);
    }
    print_line(&table.to_string())
}

async fn published(channel: &Channel, arguments: &ModelsArguments) -> anyhow::Result<Vec<v1::Model>> {
    let mut client = ModelsServiceClient::new(channel.clone());
    let (mut models, mut token) = (Vec::new(), String::new());
    while let Some(page) = page(arguments.limit, models.len(), &mut token) {
        let name = arguments.name.clone().unwrap_or_default();
        let request = v1::ListModelsRequest { page: Some(page), name };
        let answer = client.list_models(request).await.map_err(failure)?.into_inner();
        models.extend(answer.models);
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(models)
}

fn json(model: &v1::Model) -> serde_json::Value {
    serde_json::json!({
        "model": format!("{}@{}", model.name, model.version),
        "name": model.name,
        "version": model.version,
        "id": model.id,
        "distillation": model.distillation_id,
        "parameters": model.parameters,
        "validation": accuracy_json(model.validation),
        "test": accuracy_json(model.test),
        "published_at": model.created_at.map(|at| at.to_string()),
    })
}
