//! `distillery submit`: submit a distillation to a server.

use super::print_report;
use crate::args::SubmitArguments;
use crate::job::{self, Again};
use crate::shown;
use crate::spec_file::{self, SpecFile};
use crate::target::{self, unless_interrupted};
use crate::terminal::{print_json, print_line};
use app::base::Shared;
use app::config::Config;
use domain::records::Distillation;
use domain::spec::Start;
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// See [`crate::args::Verb::Submit`].
pub(crate) async fn submit(
    config: Config,
    arguments: SubmitArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut file = spec_file::read(&arguments.spec)?;
    let shared = file.init.is_some().then(|| Shared::open(&config)).transpose();
    let shared = shared.map_err(|error| file.refused_init(error))?;
    let channel = target::server(&config, &arguments.server, &shutdown).await?;
    let job = unless_interrupted(
        &shutdown,
        send(shared, &channel, &mut file, Again::of(arguments.again, arguments.refresh)),
    )
    .await?;
    if !arguments.watch {
        return print(&job, arguments.json);
    }
    let reported = unless_interrupted(&shutdown, async {
        shown::follow(&channel, job.id, 0, None).await?;
        job::report(&channel, job.id).await
    })
    .await?;
    if arguments.json {
        print_json(&reported.outcome)?;
    } else {
        print_report(&reported)?;
    }
    reported.outcome.succeeded()
}

async fn send(
    shared: Option<Shared>,
    channel: &Channel,
    file: &mut SpecFile,
    again: Again,
) -> anyhow::Result<Distillation> {
    if let (Some(shared), Some(folder), Start::Base { name }) = (shared, &file.init, &file.spec.start) {
        let registered = shared.register(channel, name, folder).await;
        file.spec.start = Start::Base { name: registered.map_err(|error| file.refused_init(error))? };
    }
    let dataset = job::dataset(channel, file).await?;
    job::submit_again(channel, file, dataset.id, again).await
}

fn print(job: &Distillation, json: bool) -> anyhow::Result<()> {
    let (id, name, state) = (job.id.to_string(), &job.spec.name, job.state);
    if json {
        return print_json(&serde_json::json!({
            "distillation": id, "name": name, "state": state, "dataset": job.dataset.to_string(),
        }));
    }
    print_line(&format!("{name}: {state}, as {id}; `distillery watch {name}` follows it"))
}
