//! `distillery show`: show a job and its progress.

use crate::args::JobArguments;
use crate::client::jobs::{self, Found};
use crate::job;
use crate::report::{grouped, percent};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{print_json, print_line};
use app::config::Config;
use domain::records::Dataset;
use domain::state::{PromptState, Reason, Verdict};
use tokio_util::sync::CancellationToken;
use wire::rfc3339;

/// See [`crate::args::Verb::Show`].
pub(crate) async fn show(
    config: Config,
    arguments: JobArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, jobs::find(target.channel(), &arguments.job)).await;
    target.close().await?;
    let Found { job, harvest, dataset } = found?;
    if arguments.json {
        let mut object = job::json(&job);
        if let serde_json::Value::Object(object) = &mut object {
            object.insert("harvest".to_owned(), job::harvest_json(&harvest));
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
        ("teacher", teacher.map_or_else(String::new, |accuracy| percent(accuracy.value()))),
        ("run", job.run.map(|run| run.to_string()).unwrap_or_default()),
        ("model", job.model.map(|model| model.to_string()).unwrap_or_default()),
    ];
    if harvest.in_state(PromptState::Parked) > 0 {
        lines.push(("hint", format!("`distillery resume {}` retries parked prompts", job.spec.name)));
    }
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        print_line(&format!("{name:<13}{value}"))?;
    }
    Ok(())
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
