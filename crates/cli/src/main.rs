//! `distillery`: the command line. `args` is its grammar, `commands` has one file for each verb, `client` the calls to services.
//!
//! # Invariants
//!
//! - Services are reached by gRPC only, also those of this process.
//! - Nothing that a terminal acts on reaches one: `terminal` alone writes to standard output and standard error.
//! - Standard output contains results and nothing else; progress, warnings and logs go to standard error.
//! - Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted.
//!
//! # Example
//!
//! ```text
//! distillery run examples/word-problems/spec.toml --json
//! ```

mod answers;
mod args;
mod client;
mod commands;
mod exit;
mod html;
mod job;
mod job_page;
mod known_keys;
mod load;
mod measured;
mod mistakes;
mod model_link;
mod next;
mod place;
mod progress;
mod report;
mod shown;
mod spec_data;
mod spec_file;
mod study;
mod target;
mod task_file;
mod terminal;
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
    let telemetry = app::telemetry::start(&config, &process_name(&arguments.verb))?;
    telemetry.block_on(arguments.verb.name(), async move {
        let shutdown = match arguments.verb {
            Verb::Serve(_) => app::signals::shutdown(),
            // Who presses Ctrl-C reads no log.
            _ => app::signals::shutdown_after(|| terminal::say(app::signals::WORDS)),
        };
        let place = arguments.place;
        match arguments.verb {
            Verb::Init(init) => Box::pin(commands::init::init(config, place, init, shutdown)).await,
            Verb::Run(run) => Box::pin(commands::run::run(config, place, run, shutdown)).await,
            Verb::Plan(plan) => commands::plan::plan(config, place, plan, shutdown).await,
            Verb::Study(study) => Box::pin(commands::study::study(config, study, shutdown)).await,
            Verb::Predict(predict) => commands::predict::predict(config, predict, shutdown).await,
            Verb::Evaluate(evaluate) => commands::evaluate::evaluate(config, evaluate, shutdown).await,
            Verb::Compare(compare) => commands::compare::compare(config, compare, shutdown).await,
            Verb::Import { format } => commands::rows::import(config, format, shutdown).await,
            Verb::Export(export) => commands::rows::export(config, export, shutdown).await,
            Verb::Serve(serve) => commands::serve::serve(config, serve, shutdown).await,
            Verb::Submit(submit) => Box::pin(commands::submit::submit(config, submit, shutdown)).await,
            Verb::Watch(watch) => commands::watch::watch(config, watch, shutdown).await,
            Verb::List(list) => commands::list::list(config, list, shutdown).await,
            Verb::Show(job) => commands::show::show(config, job, shutdown).await,
            Verb::Cancel(cancel) => commands::cancel::cancel(config, cancel, shutdown).await,
            Verb::Resume(job) => commands::resume::resume(config, job, shutdown).await,
            Verb::Delete(delete) => commands::delete::delete(config, delete, shutdown).await,
            Verb::Ledger(ledger) => commands::ledger::ledger(config, ledger, shutdown).await,
            Verb::Runs(runs) => commands::runs::runs(config, runs, shutdown).await,
            Verb::Train(train) => commands::train::train(config, train, shutdown).await,
            Verb::Models(models) => commands::models::models(config, models, shutdown).await,
            Verb::BenchServe(bench) => {
                Box::pin(commands::bench_serve::bench_serve(config, *bench, shutdown)).await
            }
            Verb::Health(health) => commands::health::health(config, health, shutdown).await,
            Verb::Doctor { json, server } => commands::doctor::doctor(config, json, server, shutdown).await,
            Verb::Migrate { json } => commands::migrate(config, json).await,
            Verb::Config | Verb::Completions { .. } => Ok(()),
        }
    })
}

/// What this process is called in traces: by its roles, where it serves.
fn process_name(verb: &Verb) -> String {
    match verb {
        Verb::Serve(serve) => format!("distillery-{}", commands::serve::roles(serve).names("-")),
        _ => "distillery-cli".to_owned(),
    }
}
