//! `distillery run`: one distillation on this machine, from its specification to its student.

use super::print_report;
use crate::args::{Place, RunArguments};
use crate::client::call::failure;
use crate::client::jobs;
use crate::exit::Interrupted;
use crate::job::{self, Again, Reported};
use crate::job_page;
use crate::model_link;
use crate::next;
use crate::shown;
use crate::spec_file::{self, SpecFile};
use crate::terminal::{print_json, say};
use anyhow::Context;
use app::config::Config;
use app::local::{Local, Scope};
use domain::ids::DistillationId;
use domain::spec::{Start, TeacherSource};
use domain::state::DistillationState;
use domain::{Timestamp, Violation};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// Other jobs that are told of.
const OTHERS_MAX: usize = 8;

/// Submits the specification (the same one again is the same job), watches it to its end, and reports.
pub(crate) async fn run(
    config: Config,
    place: Place,
    arguments: RunArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let file = spec_file::read(&arguments.spec)?;
    // For the page: what it shows is what was read.
    let specification = std::fs::read_to_string(&arguments.spec)?;
    if let Some(TeacherSource::Profile(name)) = file.spec.teacher.as_ref().map(|teacher| &teacher.source)
        && let Some(why) = app::local::teacher_without_key(&config, name)
    {
        return Err(file.mistakes(vec![Violation::new("teacher.profile", why)]).into());
    }
    let task = file.spec.task.clone();
    let data_dir = config.data_dir.clone();
    let local = Local::open(config, Scope::DISTIL, shutdown.clone()).await?;
    let again = Again::of(arguments.again, arguments.refresh);
    let result = async {
        let mut reported = distil(&local, file, again, &shutdown).await?;
        if reported.outcome.state == DistillationState::Succeeded {
            let reports = data_dir.join(app::pages::REPORTS);
            let page = job_page::write(&local, &reports, &reported, &specification).await?;
            reported.outcome.page = Some(page.display().to_string());
            if let (Some(model), Some(folder)) = (&reported.outcome.model, &reported.outcome.model_dir) {
                match model_link::link(&data_dir, model, Path::new(folder)) {
                    Ok(link) => reported.outcome.model_link = Some(link.display().to_string()),
                    // The student is there, and is found by its folder: some file systems have no links.
                    Err(error) => say(&format!("{error:#}: the student is in {folder}")),
                }
            }
        }
        anyhow::Ok(reported)
    }
    .await;
    // The services hand back their leases and write their resume state before the process ends.
    local.close().await?;
    let reported = result?;
    if arguments.json {
        print_json(&reported.outcome)?;
    } else {
        print_report(&reported)?;
        if let Some(model) = &reported.outcome.model {
            say(&format!("next: {}", next::predict(&place, model, &task)));
        }
    }
    reported.outcome.succeeded()
}

async fn distil(
    local: &Local,
    mut file: SpecFile,
    again: Again,
    shutdown: &CancellationToken,
) -> anyhow::Result<Reported> {
    let began = now()?;
    if let (Some(folder), Start::Base { name }) = (&file.init, &file.spec.start) {
        let registered = local.register_base(name, folder).await;
        file.spec.start = Start::Base { name: registered.map_err(|error| file.refused_init(error))? };
    }
    let dataset = job::dataset(local.channel(), &mut file).await?;
    let submitted = job::submit_again(local.channel(), &file, dataset.id, again).await?;
    let id = submitted.id;
    tell_others(local.channel(), id).await?;
    tokio::select! {
        followed = shown::follow(local.channel(), id, 0, Some(began)) => followed?,
        () = shutdown.cancelled() => {
            let how = match again {
                Again::Same => "",
                Again::Anew => "without --again ",
                Again::Refreshed => "without --refresh ",
            };
            return Err(Interrupted(format!("interrupted: run the same command again {how}to resume")).into());
        }
        failed = local.failed() => return Err(failed),
    }
    let mut reported = job::report(local.channel(), id).await?;
    if let Some(model) = &reported.model {
        let folder = local.checkpoint_folder(&model.path).context("the model's folder")?;
        reported.outcome.model_dir = Some(folder.display().to_string());
        if let Some(teacher) = file.spec.teacher.as_ref().filter(|_| reported.teacher.is_some()) {
            let same = local.accuracy_on_teachers_rows(&folder, teacher.evaluate_rows)?;
            reported.outcome.student.accuracy_on_teachers_rows = same.map(|accuracy| accuracy.value());
            reported.student_on_teachers_rows = same;
        }
    }
    Ok(reported)
}

/// Says which other jobs of the data folder are unfinished: they are worked at too, and trained first where they are older.
async fn tell_others(channel: &Channel, id: DistillationId) -> anyhow::Result<()> {
    let jobs = jobs::list(channel, &jobs::WORKED_AT, None, OTHERS_MAX + 1).await.map_err(failure)?;
    for job in jobs.iter().filter(|job| job.id != id).take(OTHERS_MAX) {
        say(&format!(
            "an earlier job is worked at too, and first where it is further: {} is {} (`distillery cancel {}` ends it)",
            job.spec.name, job.state, job.id
        ));
    }
    Ok(())
}

/// The time.
pub(crate) fn now() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    Ok(Timestamp(i64::try_from(since)?))
}
