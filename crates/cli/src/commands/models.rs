//! `distillery models`: list published students.

use crate::args::ModelsArguments;
use crate::client::call::failure;
use crate::client::models;
use crate::job::accuracy_json;
use crate::report::{grouped, interval, percent};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table};
use app::config::Config;
use domain::records::Model;
use tokio_util::sync::CancellationToken;
use wire::rfc3339;

/// See [`crate::args::Verb::Models`].
pub(crate) async fn models(
    config: Config,
    arguments: ModelsArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, async {
        let models = models::list(target.channel(), arguments.name.as_deref(), arguments.limit).await;
        models.map_err(failure)
    })
    .await;
    target.close().await?;
    let models = found?;
    if arguments.json {
        let models: Vec<_> = models.iter().map(json).collect();
        return print_json(&serde_json::json!({"models": models}));
    }
    if models.is_empty() {
        return print_line("no models");
    }
    let mut table = Table::new(&["model", "test accuracy", "95% interval", "parameters", "published", "id"]);
    for model in &models {
        let test = model.test;
        table.add([
            format!("{}@{}", model.name, model.version),
            test.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            test.map_or_else(|| "-".to_owned(), interval),
            grouped(model.parameters),
            rfc3339(model.created_at),
            model.id.to_string(),
        ]);
    }
    print_table(&table)
}

fn json(model: &Model) -> serde_json::Value {
    serde_json::json!({
        "model": format!("{}@{}", model.name, model.version),
        "name": model.name,
        "version": model.version,
        "id": model.id.to_string(),
        "distillation": model.distillation.to_string(),
        "parameters": model.parameters,
        "validation": accuracy_json(model.validation),
        "test": accuracy_json(model.test),
        "published_at": rfc3339(model.created_at),
    })
}
