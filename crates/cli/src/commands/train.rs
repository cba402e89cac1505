//! `distillery train`: one more run over a job's ledger, with settings of its own.

use super::runs::{table, to_json};
use crate::args::TrainArguments;
use crate::client::call::{Patience, failure};
use crate::client::{jobs, runs};
use crate::exit::{Interrupted, Usage};
use crate::progress::Progress;
use crate::target::{self, Service};
use crate::terminal::{print_json, print_line, print_table};
use anyhow::bail;
use app::config::Config;
use app::local::{Local, Scope};
use domain::Violation;
use domain::fingerprint::run_request;
use domain::ids::RunId;
use domain::records::{Distillation, Run};
use domain::run::{RunDraft, RunPlan, RunPurpose};
use domain::spec::{JudgingDraft, StudentDraft, TrainingDraft};
use domain::state::RunState;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// How often a run that trains here is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Failed runs with the same settings after which one more is not tried.
const ATTEMPTS_MAX: u32 = 100;

/// See [`crate::args::Verb::Train`].
pub(crate) async fn train(
    config: Config,
    arguments: TrainArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(urls) = arguments.job.server.url() {
        let found = target::find(&config.client, urls, &arguments.job.server, Service::Jobs);
        let channel = target::unless_interrupted(&shutdown, found).await?;
        let run = target::unless_interrupted(&shutdown, create(&channel, &arguments)).await?;
        return show(&run, None, arguments.job.json);
    }
    let local = Local::open(config, Scope::TRAIN, shutdown.clone()).await?;
    let ended = here(&local, &arguments, &shutdown).await;
    // The trainer hands back its lease and writes its resume state before the process ends.
    local.close().await?;
    let (run, folder) = ended?;
    show(&run, folder.as_deref(), arguments.job.json)?;
    match run.state {
        RunState::Succeeded => Ok(()),
        state => bail!("run {} is {state}: {}", run.id, run.reason),
    }
}

/// Creates the run in the data folder and trains it to its end; its checkpoint's folder comes with it.
async fn here(
    local: &Local,
    arguments: &TrainArguments,
    shutdown: &CancellationToken,
) -> anyhow::Result<(Run, Option<String>)> {
    let run = create(local.channel(), arguments).await?;
    let run = tokio::select! {
        run = follow(local.channel(), run.id) => run?,
        () = shutdown.cancelled() => {
            return Err(Interrupted("interrupted: run the same command again to resume".to_owned()).into());
        }
        failed = local.failed() => return Err(failed),
    };
    let folder = run.result.as_ref().map(|result| local.checkpoint_folder(&result.path)).transpose()?;
    Ok((run, folder.map(|folder| folder.display().to_string())))
}

/// The run of these arguments: the one of an earlier call, unless that failed.
async fn create(channel: &Channel, arguments: &TrainArguments) -> anyhow::Result<Run> {
    let job = jobs::find(channel, &arguments.job.job).await?.job;
    let plan = draft(arguments)?.resolve(&job.spec).map_err(mistakes)?;
    create_run(channel, &job, &plan).await
}

/// The run over a job's ledger that does this: the one of an earlier call, unless that failed.
pub(crate) async fn create_run(channel: &Channel, job: &Distillation, plan: &RunPlan) -> anyhow::Result<Run> {
    for attempt in 0..ATTEMPTS_MAX {
        let request = run_request(job.id, &job.spec, plan, attempt);
        let run = runs::create(channel, request, job.id, plan).await.map_err(|status| {
            let found = wire::violations_of(&status);
            if found.is_empty() { failure(status) } else { mistakes(found) }
        })?;
        if !matches!(run.state, RunState::Failed | RunState::Cancelled) {
            return Ok(run);
        }
    }
    bail!("{ATTEMPTS_MAX} runs with these settings failed: `distillery runs {}` shows why", job.id)
}

fn mistakes(found: Vec<Violation>) -> anyhow::Error {
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    Usage(words.join("\n")).into()
}

fn draft(arguments: &TrainArguments) -> anyhow::Result<RunDraft> {
    let purpose = match (&arguments.study, &arguments.cell) {
        (Some(study), Some(cell)) => {
            RunPurpose::read("cell", study, cell).map_err(|violation| mistakes(vec![violation]))?
        }
        _ => RunPurpose::Probe,
    };
    Ok(RunDraft {
        purpose,
        fraction: arguments.fraction,
        seed: arguments.rows_seed,
        share: None,
        judging: JudgingDraft {
            agree: arguments.agree,
            vote: arguments.vote,
            label: arguments.label,
            ..JudgingDraft::default()
        },
        student: StudentDraft { base: arguments.base.clone(), ..StudentDraft::default() },
        training: TrainingDraft {
            objective: arguments.objective,
            seed: arguments.seed,
            steps: arguments.steps,
            ..TrainingDraft::default()
        },
    })
}

/// Shows how far the run is until it ends.
async fn follow(channel: &Channel, id: RunId) -> anyhow::Result<Run> {
    let mut patience = Patience::default();
    let mut bar: Option<Progress> = None;
    loop {
        let run = match runs::get(channel, id).await {
            Ok(run) => run,
            Err(status) => {
                patience.wait(status).await.map_err(failure)?;
                continue;
            }
        };
        patience.restored();
        match run.state {
            RunState::Pending => {}
            RunState::Leased => {
                let bar = bar.get_or_insert_with(|| Progress::start("training"));
                bar.update(run.step, u64::from(run.plan.training.steps), "steps", "");
            }
            RunState::Succeeded | RunState::Failed | RunState::Cancelled => {
                if let Some(bar) = bar {
                    bar.finish(run.state.as_str());
                }
                return Ok(run);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(run: &Run, folder: Option<&str>, json: bool) -> anyhow::Result<()> {
    if json {
        let mut shown = to_json(run);
        if let (Some(fields), Some(folder)) = (shown.as_object_mut(), folder) {
            fields.insert("checkpoint_dir".to_owned(), folder.into());
        }
        return print_json(&shown);
    }
    print_table(&table(std::slice::from_ref(run)))?;
    folder.map_or(Ok(()), |folder| print_line(&format!("student: {folder}")))
}
