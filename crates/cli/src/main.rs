//! `distillery`: the command line.

mod args;
mod client;
mod commands;
mod exit;
mod progress;
mod report;
mod spec_file;

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
            Verb::Migrate { json } => commands::migrate(config, json).await,
            Verb::Config | Verb::Completions { .. } => Ok(()),
        }
    })
}
