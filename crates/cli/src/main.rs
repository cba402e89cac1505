//! `distillery`: the command line.

mod args;
mod client;
mod commands;
mod exit;
mod job;
mod progress;
mod report;
mod shown;
mod spec_file;
mod target;
mod upload;

use args::{Arguments, Verb};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::code(dispatch(arguments))
}

fn dispatch(arguments: Arguments) -> anyhow::Result<()> {
    if let Verb::Completions { shell } = arguments.verb {
        return commands::print_completions(shell);
    }
    if let Verb::Config = arguments.verb {
        return commands::print_config();
    }
    let config = commands::load_config(&arguments.place)?;
    app::telemetry::start(&config.log)?;
    app::block_on(async move {
        let shutdown = app::signals::shutdown();
        match arguments.verb {
            Verb::Run(run) => commands::run::run(config, run, shutdown).await,
            Verb::Predict(predict) => commands::predict::predict(config, predict, shutdown).await,
            Verb::Import { format } => commands::rows::import(config, format, shutdown).await,
            Verb::Export(export) => commands::rows::export(config, export, shutdown).await,
            Verb::Serve(serve) => commands::serve::serve(config, serve, shutdown).await,
            Verb::Submit(submit) => commands::submit::submit(config, submit, shutdown).await,
            Verb::Watch(watch) => commands::watch::watch(config, watch, shutdown).await,
            Verb::List(list) => commands::list::list(config, list, shutdown).await,
            Verb::Show(job) => commands::show::show(config, job, shutdown).await,
            Verb::Cancel(cancel) => commands::cancel::cancel(config, cancel, shutdown).await,
            Verb::Resume(job) => commands::resume::resume(config, job, shutdown).await,
            Verb::Delete(delete) => commands::delete::delete(config, delete, shutdown).await,
            Verb::Ledger(ledger) => commands::ledger::ledger(config, ledger, shutdown).await,
            Verb::Models(models) => commands::models::models(config, models, shutdown).await,
            Verb::Migrate { json } => commands::migrate(config, json).await,
            Verb::Config | Verb::Completions { .. } => Ok(()),
        }
    })
}
