//! `distillery show`: show a job and its progress.

use super::models;
use super::runs::to_json;
use crate::args::JobArguments;
use crate::client::call::failure;
use crate::client::jobs::{self, Found};
use crate::client::{models as calls, runs};
use crate::job;
use crate::progress::spoken;
use crate::report::{grouped, interval, percent};
use crate::shown::waiting_for_trainer;
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table};
use app::config::Config;
use domain::Spec;
use domain::budget::Amount;
use domain::metric::Accuracy;
use domain::records::{Batch, Dataset, Distillation, Model, PhaseSeconds, Run};
use domain::run::RunResult;
use domain::share::Share;
use domain::spec::TeacherSpec;
use domain::state::{BatchState, PromptState, Reason, Verdict};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::{Channel, rfc3339};

/// Runs among which the probes of a job are looked for.
const RUNS_MAX: usize = 1_000;

/// See [`crate::args::Verb::Show`].
pub(crate) async fn show(
    config: Config,
    arguments: JobArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::read(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, async {
        let found = jobs::find(target.channel(), &arguments.job).await?;
        let probes = probes(target.channel(), &found.job).await?;
        let trained = Trained::of(target.channel(), &found.job).await.map_err(failure)?;
        Ok((found, probes, trained))
    })
    .await;
    target.close().await?;
    let (Found { job, harvest, dataset, batches }, probes, trained) = found?;
    if arguments.json {
        let mut object = job::json(&job);
        if let serde_json::Value::Object(object) = &mut object {
            object.insert("harvest".to_owned(), job::harvest_json(&harvest));
            object.insert("training".to_owned(), trained.run.as_ref().map(to_json).into());
            object.insert("student".to_owned(), trained.model.as_ref().map(models::json).into());
            object.insert("probes".to_owned(), probes.iter().map(to_json).collect());
            object.insert("batches".to_owned(), batches.iter().map(batch_json).collect());
            object.insert("spec".to_owned(), serde_json::to_value(&job.spec)?);
        }
        return print_json(&object);
    }
    let dataset = dataset.map_or_else(|| "deleted".to_owned(), |dataset| describe(&dataset));
    let teacher = job.teacher_accuracy;
    let mut lines = vec![
        ("name", job.spec.name.clone()),
        ("id", job.id.to_string()),
        ("state", job.state.to_string()),
        ("reason", job.reason.clone()),
        ("submitted", rfc3339(job.created_at)),
        ("dataset", dataset),
        ("prompts", counts(PromptState::ALL, &harvest.prompts)),
        ("rationales", counts(Verdict::ALL, &harvest.verdicts)),
        ("rejected for", counts(Reason::ALL, &harvest.reasons)),
        ("calls", format!("{}, {} from the store", grouped(harvest.calls), grouped(harvest.cache_hits))),
        ("tokens", format!("in {}, out {}", grouped(harvest.tokens_in), grouped(harvest.tokens_out))),
        ("money", money(harvest.money_micros)),
        ("in doubt", in_doubt(harvest.in_doubt)),
        (
            "projected",
            harvest.projected().map_or_else(String::new, |projected| money(projected.money_micros)),
        ),
        ("batches", batch_counts(&batches)),
        ("budget", budget(&job.spec)),
        ("waiting", harvest.obstacle.clone()),
        ("teacher", teacher.map(measured).unwrap_or_default()),
        ("run", trained.run.as_ref().map(run_words).unwrap_or_default()),
        ("test", trained.accuracy(|result| result.test).map(measured).unwrap_or_default()),
        ("validation", trained.accuracy(|result| result.validation).map(measured).unwrap_or_default()),
        ("seconds", seconds(job.seconds)),
        ("model", trained.model.as_ref().map(model_words).unwrap_or_default()),
    ];
    lines.extend(probes.iter().map(|run| ("probe", probe(run))));
    if harvest.in_state(PromptState::Parked) > 0 {
        lines.push(("hint", format!("`distillery resume {}` retries parked prompts", job.spec.name)));
    }
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        print_line(&format!("{name:<13}{value}"))?;
    }
    if batches.is_empty() {
        return Ok(());
    }
    print_line("")?;
    print_table(&batch_table(&batches))
}

/// What a job's rationales trained, as far as it is there.
struct Trained {
    run: Option<Run>,
    model: Option<Model>,
}

impl Trained {
    async fn of(channel: &Channel, job: &Distillation) -> Result<Self, Status> {
        let run = match job.run {
            Some(run) => Some(runs::get(channel, run).await?),
            None => None,
        };
        let model = match job.model {
            Some(model) => match calls::get(channel, model).await {
                // A model may be deleted, and its job kept.
                Err(status) if status.code() == Code::NotFound => None,
                found => Some(found?),
            },
            None => None,
        };
        Ok(Self { run, model })
    }

    fn accuracy(&self, which: impl Fn(&RunResult) -> Option<Accuracy>) -> Option<Accuracy> {
        which(self.run.as_ref()?.result.as_ref()?)
    }
}

/// An accuracy with its interval, and on how many rows.
fn measured(accuracy: Accuracy) -> String {
    let rows = grouped(accuracy.rows);
    format!("{} ({}, {rows} rows)", percent(accuracy.value()), interval(accuracy))
}

/// Where a run stands.
fn run_words(run: &Run) -> String {
    let reason = match waiting_for_trainer(run) {
        Some(waiting) => format!(", {waiting}"),
        None if run.reason.is_empty() => String::new(),
        None => format!(" ({})", run.reason),
    };
    let steps = grouped(run.plan.training.steps.into());
    format!("{}{reason}, step {} of at most {steps}, {}", run.state, grouped(run.step), run.id)
}

fn model_words(model: &Model) -> String {
    format!("{}@{}, {} parameters, {}", model.name, model.version, grouped(model.parameters), model.id)
}

/// How long each phase has taken; empty where none has begun.
fn seconds(seconds: PhaseSeconds) -> String {
    let phases =
        [("harvest", seconds.harvest), ("training", seconds.train), ("evaluation", seconds.evaluate)];
    let told = phases.into_iter().filter(|(_, seconds)| *seconds > 0.0);
    told.map(|(phase, seconds)| format!("{phase} {seconds:.1}")).collect::<Vec<_>>().join(", ")
}

/// Most batches that a person is shown; a script has them all.
const BATCHES_SHOWN: usize = 20;

/// How many batches are in each state; empty for none.
fn batch_counts(batches: &[Batch]) -> String {
    let count = |state: &BatchState| batches.iter().filter(|batch| batch.state == *state).count() as u64;
    counts(BatchState::ALL, &BatchState::ALL.iter().map(count).collect::<Vec<_>>())
}

/// The newest batches, oldest first.
fn batch_table(batches: &[Batch]) -> Table {
    let mut table = Table::new(&["batch", "state", "for", "lines", "at the provider", "note"]);
    for batch in batches.iter().skip(batches.len().saturating_sub(BATCHES_SHOWN)) {
        let name = if batch.name.is_empty() { "-" } else { &batch.name };
        table.add([
            format!("{}/{}", batch.id, batch.submission),
            batch.state.to_string(),
            spoken(batch.in_state_ms / 1_000),
            grouped(batch.lines),
            name.to_owned(),
            batch.note.clone(),
        ]);
    }
    table
}

/// A batch as scripts read it.
fn batch_json(batch: &Batch) -> serde_json::Value {
    serde_json::json!({
        "id": batch.id.to_string(),
        "profile": batch.profile,
        "state": batch.state.to_string(),
        "submission": batch.submission,
        "name": batch.name,
        "lines": batch.lines,
        "note": batch.note,
        "created_at": rfc3339(batch.created_at),
        "in_state_ms": batch.in_state_ms,
    })
}

/// The probes of a job that asks until rationales stop helping, in order.
async fn probes(channel: &Channel, job: &Distillation) -> anyhow::Result<Vec<Run>> {
    if !job.spec.teacher.as_ref().is_some_and(TeacherSpec::stops_early) {
        return Ok(Vec::new());
    }
    let mut runs = runs::list(channel, job.id, RUNS_MAX).await.map_err(failure)?;
    runs.retain(|run| run.plan.share.is_some());
    runs.sort_by_key(|run| run.plan.share);
    Ok(runs)
}

/// What a probe is, and what it came to.
fn probe(run: &Run) -> String {
    let name = run.plan.share.map(Share::words).unwrap_or_default();
    let measured = run.result.as_ref().and_then(|result| result.validation);
    let result = measured.map_or_else(|| run.state.to_string(), |accuracy| percent(accuracy.value()));
    format!("{name}: {result}")
}

/// An amount of money in whole units; empty for none.
fn money(micros: u64) -> String {
    if micros == 0 { String::new() } else { format!("{:.6}", micros as f64 / 1e6) }
}

/// Calls whose end is not known, at the most they can cost; empty for none.
fn in_doubt(amount: Amount) -> String {
    if amount.calls == 0 {
        return String::new();
    }
    let money = money(amount.money_micros);
    let money = if money.is_empty() { money } else { format!(", money at most {money}") };
    format!("calls {}, tokens at most {}{money}", grouped(amount.calls), grouped(amount.tokens))
}

/// The limits of a job; empty where it has none.
fn budget(spec: &Spec) -> String {
    let budget = spec.teacher.as_ref().map(|teacher| teacher.budget).unwrap_or_default();
    let limits = [
        budget.prompts.map(|calls| format!("calls {}", grouped(calls))),
        budget.tokens.map(|tokens| format!("tokens {}", grouped(tokens))),
        budget.money_micros.map(|micros| format!("money {:.6}", micros as f64 / 1e6)),
    ];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn describe(dataset: &Dataset) -> String {
    format!("{} ({} rows, {})", dataset.name, grouped(dataset.rows), dataset.id)
}

fn counts<T: ToString>(names: &[T], counts: &[u64]) -> String {
    let words: Vec<String> = names
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{} {}", name.to_string(), grouped(*count)))
        .collect();
    words.join(", ")
}
