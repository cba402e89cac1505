//! The verbs.

pub(crate) mod bench_serve;
pub(crate) mod cancel;
pub(crate) mod checkpoint;
pub(crate) mod compare;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod health;
pub(crate) mod init;
pub(crate) mod ledger;
pub(crate) mod list;
pub(crate) mod models;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod resume;
pub(crate) mod rows;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod study;
pub(crate) mod submit;
pub(crate) mod train;
pub(crate) mod watch;

use crate::args::{Arguments, Place};
use crate::exit::Usage;
use crate::job::{self, Reported};
use crate::report;
use crate::terminal::{print_json, print_line, print_own, print_table};
use app::config::Config;
use app::migrated::Migrated;
use clap::CommandFactory;
use domain::records::Distillation;

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
    print_own(app::config::DEFAULTS.as_bytes())
}

/// See [`crate::args::Verb::Completions`].
pub(crate) fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "distillery", &mut script);
    print_own(&script)
}

/// See [`crate::args::Verb::Migrate`].
pub(crate) async fn migrate(config: Config, json: bool) -> anyhow::Result<()> {
    let Migrated { version, place, folder } = app::local::migrate(&config).await?;
    if json {
        return print_json(&serde_json::json!({"database": place, "data_dir": folder, "version": version}));
    }
    print_line(&format!("{place}: the database is at version {version}"))
}

/// What a job came to: a table, and where its student is.
pub(crate) fn print_report(reported: &Reported) -> anyhow::Result<()> {
    print_table(&report::table(
        &reported.outcome,
        reported.teacher,
        reported.student,
        reported.student_on_teachers_rows,
    ))?;
    for line in report::totals(&reported.outcome) {
        print_line(&line)?;
    }
    let outcome = &reported.outcome;
    match (outcome.model_link.as_ref().or(outcome.model_dir.as_ref()), &outcome.model) {
        (Some(folder), _) => print_line(&format!("student: {folder}"))?,
        (None, Some(model)) => print_line(&format!("student: {model}"))?,
        (None, None) => {}
    }
    match &reported.outcome.page {
        Some(page) => print_line(&format!("page: {page}")),
        None => Ok(()),
    }
}

/// One job, after something was done to it.
pub(crate) fn print_job(job: &Distillation, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&job::json(job));
    }
    let reason = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
    print_line(&format!("{}: {}{reason}", job.spec.name, job.state))
}
