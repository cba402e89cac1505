//! `distillery list`: list jobs.

use crate::args::ListArguments;
use crate::client::call::failure;
use crate::client::jobs;
use crate::job;
use crate::report::percent;
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::rfc3339;

/// See [`crate::args::Verb::List`].
pub(crate) async fn list(
    config: Config,
    arguments: ListArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::read(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, async {
        let name = arguments.name.as_deref();
        let jobs = jobs::list(target.channel(), &arguments.state, name, arguments.limit).await;
        jobs.map_err(failure)
    })
    .await;
    target.close().await?;
    let jobs = found?;
    if arguments.json {
        let jobs: Vec<_> = jobs.iter().map(job::json).collect();
        return print_json(&serde_json::json!({"distillations": jobs}));
    }
    if jobs.is_empty() {
        return print_line("no jobs");
    }
    let mut table = Table::new(&["name", "state", "submitted", "teacher", "id", "reason"]);
    for job in &jobs {
        table.add([
            job.spec.name.clone(),
            job.state.to_string(),
            rfc3339(job.created_at),
            job.teacher_accuracy.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            job.id.to_string(),
            job.reason.clone(),
        ]);
    }
    print_table(&table)
}
