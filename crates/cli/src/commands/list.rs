//! `distillery list`: the jobs there are.

use super::{print_json, print_line};
use crate::args::{ListArguments, StateName};
use crate::client::{failure, page};
use crate::job;
use crate::report::percent;
use crate::shown::state_name;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use tokio_util::sync::CancellationToken;
use wire::Channel;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::{self, DistillationState as State};

/// See [`crate::args::Verb::List`].
pub(crate) async fn list(
    config: Config,
    arguments: ListArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let found = unless_interrupted(&shutdown, jobs(target.channel(), &arguments)).await;
    target.close().await?;
    let jobs = found?;
    if arguments.json {
        let jobs: Vec<_> = jobs.iter().map(job::json).collect();
        return print_json(&serde_json::json!({"distillations": jobs}));
    }
    if jobs.is_empty() {
        return print_line("no jobs");
    }
    let mut table = super::table(&["name", "state", "submitted", "teacher", "id", "reason"]);
    for job in &jobs {
        let teacher = job::accuracy(job.teacher_accuracy)?;
        table.add_row([
            job::name(job).to_owned(),
            state_name(job.state()).to_owned(),
            job.created_at.map(|at| at.to_string()).unwrap_or_default(),
            teacher.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            job.id.clone(),
            job.reason.clone(),
        ]);
    }
    print_line(&table.to_string())
}

async fn jobs(channel: &Channel, arguments: &ListArguments) -> anyhow::Result<Vec<v1::Distillation>> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    let states: Vec<i32> = arguments.state.iter().map(|state| state_of(*state).into()).collect();
    let (mut jobs, mut token) = (Vec::new(), String::new());
    while let Some(page) = page(arguments.limit, jobs.len(), &mut token) {
        let name = arguments.name.clone().unwrap_or_default();
        let request = v1::ListDistillationsRequest { page: Some(page), states: states.clone(), name };
        let answer = client.list_distillations(request).await.map_err(failure)?.into_inner();
        jobs.extend(answer.distillations);
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(jobs)
}

fn state_of(name: StateName) -> State {
    match name {
        StateName::Queued => State::Queued,
        StateName::Harvesting => State::Harvesting,
        StateName::Training => State::Training,
        StateName::Evaluating => State::Evaluating,
        StateName::Succeeded => State::Succeeded,
        StateName::Failed => State::Failed,
        StateName::Cancelled => State::Cancelled,
        StateName::Paused => State::Paused,
    }
}
