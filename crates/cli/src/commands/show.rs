//! `distillery show`: one job, with its progress.

use super::{print_json, print_line};
use crate::args::JobArguments;
use crate::job::{self, accuracy};
use crate::report::{grouped, percent};
use crate::shown::{counted, state_name};
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::v1;

/// See [`crate::args::Verb::Show`].
pub(crate) async fn show(
    config: Config,
    arguments: JobArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, job::find(target.channel(), &arguments.job)).await;
    target.close().await?;
    let found = found?;
    let job = job::of(found.distillation)?;
    let harvest = found.harvest.unwrap_or_default();
    if arguments.json {
        let mut object = job::json(&job);
        if let serde_json::Value::Object(object) = &mut object {
            object.insert("harvest".to_owned(), job::harvest_json(&harvest));
            object.insert("spec".to_owned(), job::spec_json(&job)?);
        }
        return print_json(&object);
    }
    let dataset = found.dataset.map_or_else(|| "deleted".to_owned(), |dataset| describe(&dataset));
    let teacher = accuracy(job.teacher_accuracy)?;
    let mut lines = vec![
        ("name", job::name(&job).to_owned()),
        ("id", job.id.clone()),
        ("state", state_name(job.state()).to_owned()),
        ("reason", job.reason.clone()),
        ("submitted", job.created_at.map(|at| at.to_string()).unwrap_or_default()),
        ("dataset", dataset),
        ("prompts", counts(&harvest.prompts)),
        ("rationales", counts(&harvest.verdicts)),
        ("rejected for", counts(&harvest.reasons)),
        ("calls", format!("{}, {} from the store", grouped(harvest.calls), grouped(harvest.cache_hits))),
        ("tokens", format!("in {}, out {}", grouped(harvest.tokens_in), grouped(harvest.tokens_out))),
        ("teacher", teacher.map_or_else(String::new, |accuracy| percent(accuracy.value()))),
        ("run", job.run_id.clone()),
        ("model", job.model_id.clone()),
    ];
    if counted(&harvest.prompts, "parked") > 0 {
        lines.push(("hint", format!("`distillery resume {}` asks parked prompts again", job::name(&job))));
    }
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        print_line(&format!("{name:<13}{value}"))?;
    }
    Ok(())
}

fn describe(dataset: &v1::Dataset) -> String {
    format!("{} ({} rows, {})", dataset.name, grouped(dataset.rows), dataset.id)
}

fn counts(counts: &[v1::NamedCount]) -> String {
    let words: Vec<String> = counts
        .iter()
        .filter(|entry| entry.count > 0)
        .map(|entry| format!("{} {}", entry.name, grouped(entry.count)))
        .collect();
    words.join(", ")
}
