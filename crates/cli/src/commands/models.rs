//! `distillery models`: list published students, and copy one out.

use crate::args::{ModelsAction, ModelsArguments, ModelsExportArguments};
use crate::client::call::failure;
use crate::client::models;
use crate::exit::Usage;
use crate::job::accuracy_json;
use crate::place::Place;
use crate::report::{grouped, interval, percent};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table};
use anyhow::Context;
use app::config::Config;
use app::local::Scope;
use domain::records::Model;
use std::path::Path;
use tokio_util::sync::CancellationToken;
use wire::rfc3339;

/// See [`crate::args::Verb::Models`].
pub(crate) async fn models(
    config: Config,
    arguments: ModelsArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(ModelsAction::Export(arguments)) = arguments.action {
        return export(config, arguments, shutdown).await;
    }
    let target = Target::read(config, &arguments.server, shutdown.clone()).await?;
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

/// Copies a student's checkpoint into a folder that takes its name when it is whole.
async fn export(
    config: Config,
    arguments: ModelsExportArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    if folder.symlink_metadata().is_ok() {
        let words = "is there already: name a folder that is not, or move it away";
        return Err(Usage(format!("DIR: {} {words}", folder.display())).into());
    }
    let place = Place::open(config, &arguments.server, Scope::READ, shutdown.clone()).await?;
    let copied = unless_interrupted(&shutdown, async {
        let model = models::find(place.channel(), &arguments.model).await?;
        let from = place.verified_folder(&model).await?;
        let to = folder.clone();
        tokio::task::spawn_blocking(move || copy_whole(&from, &to)).await??;
        Ok(model)
    })
    .await;
    place.close().await?;
    let model = copied?;
    let name = format!("{}@{}", model.name, model.version);
    if arguments.json {
        return print_json(&serde_json::json!({"model": name, "folder": folder.display().to_string()}));
    }
    print_line(&format!("{name}: {}", folder.display()))
}

fn copy_whole(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut name = to.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
    name.push(format!(".{}.part", std::process::id()));
    let part = to.with_file_name(name);
    // Not made if it is there: what is removed where the copy fails is this call's own.
    std::fs::create_dir(&part).with_context(|| part.display().to_string())?;
    let copied = copy_files(from, &part).and_then(|()| std::fs::rename(&part, to));
    if copied.is_err() {
        std::fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
    }
    copied.with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))
}

/// A checkpoint's files and folders; there is nothing else in it.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A model as scripts read it.
pub(crate) fn json(model: &Model) -> serde_json::Value {
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
