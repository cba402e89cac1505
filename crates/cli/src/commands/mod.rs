//! The verbs.

pub(crate) mod predict;
pub(crate) mod rows;
pub(crate) mod run;

use crate::args::{Arguments, Place};
use crate::exit::Usage;
use app::config::Config;
use clap::CommandFactory;
use std::io::Write;

/// Reads the configuration, with `--data-dir` over it.
pub(crate) fn load_config(place: &Place) -> anyhow::Result<Config> {
    let mut config = Config::load_here(place.config.as_deref())?;
    if let Some(folder) = &place.data_dir {
        config.data_dir.clone_from(folder);
    }
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        let words = "is a file: name a folder, which is made where it is absent";
        return Err(Usage(format!("--data-dir: {} {words}", config.data_dir.display())).into());
    }
    Ok(config)
}

/// See [`crate::args::Verb::Config`].
pub(crate) fn print_config() -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(app::config::DEFAULTS.as_bytes())?)
}

/// See [`crate::args::Verb::Completions`].
pub(crate) fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "distillery", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// See [`crate::args::Verb::Migrate`].
pub(crate) async fn migrate(config: Config, json: bool) -> anyhow::Result<()> {
    let version = app::local::migrate(&config).await?;
    let folder = config.data_dir.display().to_string();
    if json {
        return print_json(&serde_json::json!({"data_dir": folder, "version": version}));
    }
    print_line(&format!("{folder}: the database is at version {version}"))
}

/// One JSON object on standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string(value)?)
}

/// One line on standard output.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
