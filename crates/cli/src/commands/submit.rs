//! `distillery submit`: a distillation for a server.

use super::{print_json, print_line, print_report};
use crate::args::SubmitArguments;
use crate::job;
use crate::shown::{Shown, follow, state_name};
use crate::spec_file::{self, SpecFile};
use crate::target::{self, unless_interrupted};
use app::config::Config;
use domain::Violation;
use tokio_util::sync::CancellationToken;
use wire::{Channel, v1};

/// See [`crate::args::Verb::Submit`].
pub(crate) async fn submit(
    config: Config,
    arguments: SubmitArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let file = spec_file::read(&arguments.spec)?;
    if file.init.is_some() {
        let words =
            "is a path, and a job names a base model that the operator registered: write `student.base`";
        return Err(file.mistakes(vec![Violation::new("student.init", words)]).into());
    }
    let channel = target::server(&config, &arguments.server).await?;
    let job = unless_interrupted(&shutdown, hand_in(&channel, &file)).await?;
    if !arguments.watch {
        return tell(&job, arguments.json);
    }
    let reported = unless_interrupted(&shutdown, async {
        let mut shown = Shown::default();
        follow(&channel, &job.id, 0, |message| {
            message.event.into_iter().for_each(|event| shown.event(event));
            Ok(())
        })
        .await?;
        shown.end();
        job::report(&channel, &job.id).await
    })
    .await?;
    if arguments.json {
        print_json(&reported.outcome)?;
    } else {
        print_report(&reported)?;
    }
    reported.outcome.succeeded()
}

async fn hand_in(channel: &Channel, file: &SpecFile) -> anyhow::Result<v1::Distillation> {
    let dataset = job::dataset(channel, file).await?;
    job::submit(channel, file, &dataset.id).await
}

fn tell(job: &v1::Distillation, json: bool) -> anyhow::Result<()> {
    let (name, state) = (job::name(job), state_name(job.state()));
    if json {
        return print_json(&serde_json::json!({
            "distillation": job.id, "name": name, "state": state, "dataset": job.dataset_id,
        }));
    }
    print_line(&format!("{name}: {state}, as {}; `distillery watch {name}` follows it", job.id))
}
