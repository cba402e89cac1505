//! `distillery run`: one distillation on this machine, from its specification to its student.

use super::{print_json, print_line};
use crate::args::RunArguments;
use crate::client::{self, failure, malformed};
use crate::exit::{Interrupted, Usage};
use crate::progress::{Progress, say};
use crate::report::{self, Outcome, Seconds, StudentOutcome, TeacherOutcome, grouped, percent};
use crate::spec_file::{self, Data, SpecFile};
use anyhow::{Context, anyhow, bail};
use app::config::Config;
use app::local::{Local, Refused, Roles};
use domain::metric::Accuracy;
use domain::spec::{LabelSource, Spec, Start, TeacherSource};
use domain::{Timestamp, Violation};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::v1::watch_distillation_response::Event;
use wire::v1::{self, DistillationState as State};

/// Submits the specification (the same one again is the same job), watches it to its end, and reports.
pub(crate) async fn run(
    config: Config,
    arguments: RunArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let file = spec_file::read(&arguments.spec)?;
    if let Some(TeacherSource::Profile(name)) = file.spec.teacher.as_ref().map(|teacher| &teacher.source)
        && let Some(why) = app::local::teacher_without_key(&config, name)
    {
        return Err(file.mistakes(vec![Violation::new("teacher.profile", why)]).into());
    }
    let local = Local::open(config, Roles::DISTIL, shutdown.clone()).await?;
    let result = distil(&local, file, &shutdown).await;
    // The services hand back their leases and write their resume state before the process ends.
    local.close().await?;
    let (outcome, teacher, student) = result?;
    if arguments.json {
        print_json(&outcome)?;
    } else {
        print_line(&report::table(&outcome, teacher, student))?;
        if let Some(folder) = &outcome.model_dir {
            print_line(&format!("student: {folder}"))?;
        }
    }
    match outcome.state.as_str() {
        "succeeded" => Ok(()),
        state => bail!("the distillation is {state}: {}", outcome.reason),
    }
}

type Reported = (Outcome, Option<Accuracy>, Option<Accuracy>);

async fn distil(local: &Local, mut file: SpecFile, shutdown: &CancellationToken) -> anyhow::Result<Reported> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let began = Timestamp(i64::try_from(began)?);
    if let (Some(folder), Start::Base { name }) = (&file.init, &file.spec.start) {
        let name =
            local.register_base(name, folder).await.map_err(|error| match error.downcast::<Refused>() {
                Ok(refused) => {
                    file.mistakes(vec![Violation::new("student.init", refused.to_string())]).into()
                }
                Err(error) => error,
            })?;
        file.spec.start = Start::Base { name };
    }
    let dataset = dataset(local, &file).await?;
    let submitted = submit(local.channel(), &file, &dataset.id).await?;
    let id = submitted.id.clone();
    tokio::select! {
        watched = watch(local.channel(), &id, began) => watched?,
        () = shutdown.cancelled() => {
            return Err(Interrupted("interrupted: run the same command again to go on".to_owned()).into());
        }
        failed = local.failed() => return Err(failed),
    }
    outcome(local, &id, &file.spec).await
}

async fn dataset(local: &Local, file: &SpecFile) -> anyhow::Result<v1::Dataset> {
    match &file.data {
        Data::Imported(name) => {
            let found = client::dataset(local.channel(), name).await;
            found.map_err(|error| match error.downcast::<Usage>() {
                Ok(Usage(words)) => file.mistakes(vec![Violation::new("data.dataset", words)]).into(),
                Err(error) => error,
            })
        }
        Data::Files(files) => {
            let gold = file.spec.judging.label == LabelSource::Gold;
            let rows = super::rows::read_splits(files, &file.spec.task, gold)?;
            client::upload(local.channel(), &file.spec.name, rows).await
        }
    }
}

async fn submit(channel: &Channel, file: &SpecFile, dataset_id: &str) -> anyhow::Result<v1::Distillation> {
    let spec = &file.spec;
    let mut client = DistillationsServiceClient::new(channel.clone());
    let request_id =
        client::request_id(&[b"distillation", dataset_id.as_bytes(), &serde_json::to_vec(spec)?]);
    let request = v1::SubmitDistillationRequest {
        request_id,
        spec: Some(spec.clone().into()),
        dataset_id: dataset_id.to_owned(),
    };
    let submitted = client.submit_distillation(request).await.map_err(|status| {
        let violations = wire::violations_of(&status);
        if violations.is_empty() { failure(status) } else { file.mistakes(violations).into() }
    })?;
    let job = submitted.into_inner().distillation;
    let job = job.ok_or_else(|| anyhow!("the server accepted no job"))?;
    match job.state() {
        State::Paused | State::Failed => {
            say(&format!("going on: the job was {} ({})", state_name(job.state()), job.reason));
            let request = v1::ResumeDistillationRequest { distillation_id: job.id.clone() };
            let resumed = client.resume_distillation(request).await.map_err(failure)?.into_inner();
            resumed.distillation.ok_or_else(|| anyhow!("the server resumed no job"))
        }
        _ => Ok(job),
    }
}

/// Follows the job to its end, showing each phase. What happened before `since`, in an earlier call, is not shown again.
async fn watch(channel: &Channel, id: &str, since: Timestamp) -> anyhow::Result<()> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    let mut shown = Shown::default();
    let request = v1::WatchDistillationRequest { distillation_id: id.to_owned(), after_sequence: 0 };
    let mut events = client.watch_distillation(request).await.map_err(failure)?.into_inner();
    while let Some(message) = events.message().await.map_err(failure)? {
        let old = message.at.is_some() && wire::timestamp_of(message.at) < since;
        if let Some(event) = message.event.filter(|_| !old) {
            shown.event(event);
        }
    }
    shown.end();
    Ok(())
}

/// What is on the screen.
#[derive(Default)]
struct Shown {
    harvest: Option<Progress>,
    training: Option<Progress>,
    funnel: String,
    validation: Option<f64>,
}

impl Shown {
    fn event(&mut self, event: Event) {
        match event {
            Event::StateChanged(change) => self.state(&change),
            Event::HarvestProgress(progress) => self.harvest(&progress),
            Event::TrainingProgress(progress) => self.training(&progress),
            Event::Evaluated(evaluated) => self.evaluated(&evaluated),
            Event::TeacherMeasured(measured) => {
                if let Some(accuracy) =
                    measured.accuracy.and_then(|accuracy| Accuracy::try_from(accuracy).ok())
                {
                    say(&format!("teacher on the test rows: {}", percent(accuracy.value())));
                }
            }
            Event::Published(published) => {
                say(&format!("published: {}@{}", published.name, published.version));
            }
        }
    }

    fn state(&mut self, change: &v1::StateChanged) {
        let to = change.to();
        if !matches!(to, State::Queued | State::Harvesting)
            && let Some(progress) = self.harvest.take()
        {
            progress.finish(&self.funnel);
        }
        if to != State::Training
            && let Some(progress) = self.training.take()
        {
            progress.finish("trained");
        }
        if !change.reason.is_empty() {
            say(&format!("{}: {}", state_name(to), change.reason));
        }
    }

    fn harvest(&mut self, progress: &v1::HarvestProgress) {
        let total: u64 = progress.prompts.iter().map(|entry| entry.count).sum();
        if total == 0 {
            // Not planned yet, or nothing is asked at all.
            return;
        }
        let done: u64 =
            ["answered", "parked", "skipped"].iter().map(|name| counted(&progress.prompts, name)).sum();
        let reasons: Vec<String> = progress
            .reasons
            .iter()
            .filter(|entry| entry.count > 0)
            .map(|entry| format!("{} {}", entry.name, entry.count))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let unanswered: String = ["parked", "skipped"]
            .iter()
            .map(|name| (name, counted(&progress.prompts, name)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!(", {name} {count}"))
            .collect();
        self.funnel = format!(
            "accepted {}, rejected {}{reasons}{unanswered}, tokens {}",
            counted(&progress.verdicts, "accepted"),
            counted(&progress.verdicts, "rejected"),
            grouped(progress.tokens_in + progress.tokens_out),
        );
        let bar = self.harvest.get_or_insert_with(|| Progress::start("harvest"));
        bar.update(done, total, "prompts", &self.funnel);
    }

    fn training(&mut self, progress: &v1::TrainingProgress) {
        let metric =
            |name: &str| progress.metrics.iter().find(|point| point.name == name).map(|point| point.value);
        self.validation = metric("validation_accuracy").or(self.validation);
        let mut words = Vec::new();
        for (name, label) in [("loss_label", "label"), ("loss_rationale", "rationale")] {
            if let Some(value) = metric(name) {
                words.push(format!("{label} loss {value:.3}"));
            }
        }
        if let Some(value) = self.validation {
            words.push(format!("validation {}", percent(value)));
        }
        if let Some(value) = metric("examples_per_second") {
            words.push(format!("{value:.0} examples/s"));
        }
        let bar = self.training.get_or_insert_with(|| Progress::start("training"));
        bar.update(progress.step, progress.steps, "steps", &words.join(", "));
    }

    fn evaluated(&mut self, evaluated: &v1::Evaluated) {
        let Some(accuracy) = evaluated.accuracy.and_then(|accuracy| Accuracy::try_from(accuracy).ok()) else {
            return;
        };
        let split = evaluated.split();
        if split == v1::Split::Validation {
            self.validation = Some(accuracy.value());
        }
        let name = if split == v1::Split::Test { "test" } else { "validation" };
        let line = format!("step {}: {name} accuracy {}", evaluated.step, percent(accuracy.value()));
        match &self.training {
            Some(progress) => progress.say(&line),
            None => say(&line),
        }
    }

    fn end(self) {
        for progress in [self.harvest, self.training].into_iter().flatten() {
            progress.finish("stopped");
        }
    }
}

async fn outcome(local: &Local, id: &str, spec: &Spec) -> anyhow::Result<Reported> {
    let request = v1::GetDistillationRequest { distillation_id: id.to_owned() };
    let answer = DistillationsServiceClient::new(local.channel().clone())
        .get_distillation(request)
        .await
        .map_err(failure)?
        .into_inner();
    let job = answer.distillation.ok_or_else(|| anyhow!("the server sent no job"))?;
    let model = model(local.channel(), &job.model_id).await?;
    let accuracy =
        |accuracy: Option<v1::Accuracy>| accuracy.map(Accuracy::try_from).transpose().map_err(malformed);
    let teacher = accuracy(job.teacher_accuracy)?;
    let student = accuracy(model.as_ref().and_then(|model| model.test))?;
    let validation = accuracy(model.as_ref().and_then(|model| model.validation))?;
    let harvest = answer.harvest.unwrap_or_default();
    say_parked(local.channel(), id, &harvest).await?;
    let model_dir = model
        .as_ref()
        .map(|model| local.checkpoint_folder(&model.path).context("the model's folder"))
        .transpose()?
        .map(|folder| folder.display().to_string());
    let outcome = Outcome {
        state: state_name(job.state()).to_owned(),
        distillation: job.id.clone(),
        reason: job.reason.clone(),
        model_dir,
        teacher: teacher_outcome(spec, teacher, &harvest),
        student: StudentOutcome {
            parameters: model.as_ref().map(|model| model.parameters),
            validation_accuracy: validation.map(|accuracy| accuracy.value()),
            accuracy: student.map(|accuracy| accuracy.value()),
            accuracy_low: student.map(|accuracy| accuracy.low),
            accuracy_high: student.map(|accuracy| accuracy.high),
        },
        seconds: Seconds {
            harvest: job.harvest_seconds,
            train: job.train_seconds,
            evaluate: job.evaluate_seconds,
        },
    };
    Ok((outcome, teacher, student))
}

/// Prompts that the teacher failed on too often are no secret: how many, and why the first of them.
async fn say_parked(channel: &Channel, id: &str, harvest: &v1::HarvestProgress) -> anyhow::Result<()> {
    let parked = counted(&harvest.prompts, "parked");
    if parked == 0 {
        return Ok(());
    }
    let page = Some(v1::PageRequest { page_size: 1, page_token: String::new() });
    let request = v1::ListParkedPromptsRequest { distillation_id: id.to_owned(), page };
    let answer = RationalesServiceClient::new(channel.clone()).list_parked_prompts(request).await;
    if let Some(first) = answer.map_err(failure)?.into_inner().prompts.first() {
        say(&format!("parked {parked} prompts, the first of them row {}: {}", first.row, first.error));
    }
    Ok(())
}

fn counted(counts: &[v1::NamedCount], name: &str) -> u64 {
    counts.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.count)
}

fn teacher_outcome(spec: &Spec, accuracy: Option<Accuracy>, harvest: &v1::HarvestProgress) -> TeacherOutcome {
    let name = match spec.teacher.as_ref().map(|teacher| &teacher.source) {
        Some(TeacherSource::Profile(name)) => name.clone(),
        Some(TeacherSource::Imported) => domain::spec::PROFILE_IMPORTED.to_owned(),
        None => domain::spec::PROFILE_NONE.to_owned(),
    };
    TeacherOutcome {
        name,
        accuracy: accuracy.map(|accuracy| accuracy.value()),
        accuracy_low: accuracy.map(|accuracy| accuracy.low),
        accuracy_high: accuracy.map(|accuracy| accuracy.high),
        prompts: harvest.calls,
        cached: harvest.cache_hits,
        parked: counted(&harvest.prompts, "parked"),
        skipped: counted(&harvest.prompts, "skipped"),
        accepted: counted(&harvest.verdicts, "accepted"),
        tokens_in: harvest.tokens_in,
        tokens_out: harvest.tokens_out,
    }
}

async fn model(channel: &Channel, id: &str) -> anyhow::Result<Option<v1::Model>> {
    if id.is_empty() {
        return Ok(None);
    }
    let which = Some(v1::get_model_request::Which::ModelId(id.to_owned()));
    let answer = ModelsServiceClient::new(channel.clone()).get_model(v1::GetModelRequest { which }).await;
    Ok(answer.map_err(failure)?.into_inner().model)
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Queued => "queued",
        State::Harvesting => "harvesting",
        State::Training => "training",
        State::Evaluating => "evaluating",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
        State::Paused => "paused",
    }
}
