//! `distillery runs`: list the runs over a job's ledger.

use crate::args::RunsArguments;
use crate::client::call::failure;
use crate::client::{jobs, runs as calls};
use crate::job::accuracy_json;
use crate::report::{interval, percent};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table};
use app::config::Config;
use domain::records::Run;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wire::rfc3339;

/// See [`crate::args::Verb::Runs`].
pub(crate) async fn runs(
    config: Config,
    arguments: RunsArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::read(config, &arguments.job.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, async {
        let job = jobs::find(target.channel(), &arguments.job.job).await?.job.id;
        calls::list(target.channel(), job, arguments.limit).await.map_err(failure)
    })
    .await;
    target.close().await?;
    let runs = found?;
    if arguments.job.json {
        let runs: Vec<_> = runs.iter().map(to_json).collect();
        return print_json(&json!({"runs": runs}));
    }
    if runs.is_empty() {
        return print_line("no runs");
    }
    print_table(&table(&runs))
}

/// Runs for people.
pub(crate) fn table(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "purpose",
        "state",
        "rows",
        "objective",
        "seed",
        "rules",
        "test accuracy",
        "95% interval",
        "id",
        "reason",
    ]);
    for run in runs {
        let test = run.result.as_ref().and_then(|result| result.test);
        let (study, cell) = run.plan.purpose.study_and_cell();
        let purpose = match run.plan.share {
            Some(share) => format!("{}: {}", run.plan.purpose.name(), share.rows()),
            None if study.is_empty() => run.plan.purpose.name().to_owned(),
            None => format!("{study}/{cell}"),
        };
        table.add([
            purpose,
            run.state.to_string(),
            percent(run.plan.rows.fraction()),
            run.plan.training.objective.to_string(),
            run.plan.training.seed.to_string(),
            rules(run),
            test.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            test.map_or_else(|| "-".to_owned(), interval),
            run.id.to_string(),
            run.reason.clone(),
        ]);
    }
    table
}

/// The judging rules that are on.
fn rules(run: &Run) -> String {
    let judging = &run.plan.judging;
    let rules: Vec<&str> = [("agree", judging.agree), ("hint", judging.hint.is_on()), ("vote", judging.vote)]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .chain([judging.label.as_str()])
        .collect();
    rules.join(", ")
}

/// A run as scripts read it.
pub(crate) fn to_json(run: &Run) -> Value {
    let plan = &run.plan;
    let (study, cell) = plan.purpose.study_and_cell();
    let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let result = run.result.as_ref();
    json!({
        "run": run.id.to_string(),
        "distillation": run.distillation.to_string(),
        "purpose": plan.purpose.name(),
        "study": name(study),
        "cell": name(cell),
        "state": run.state,
        "reason": run.reason,
        "step": run.step,
        "rows": {"fraction": plan.rows.fraction(), "seed": plan.rows.seed},
        "share": plan.share,
        "judging": plan.judging,
        "student": plan.start,
        "training": plan.training,
        "ledger_fingerprint": run.ledger_fingerprint,
        "checkpoint": result.map(|result| result.path.as_str()),
        "parameters": result.map(|result| result.parameters),
        "validation": accuracy_json(result.and_then(|result| result.validation)),
        "test": accuracy_json(result.and_then(|result| result.test)),
        "seconds": {
            "train": result.map(|result| result.train_seconds),
            "evaluate": result.map(|result| result.evaluate_seconds),
        },
        "created_at": rfc3339(run.created_at),
    })
}
