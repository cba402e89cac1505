//! `distillery run`: one distillation on this machine, from its specification to its student.

use super::{print_json, print_line};
use crate::args::RunArguments;
use crate::client::{self, failure, malformed};
use crate::exit::Interrupted;
use crate::progress::{Progress, say};
use crate::report::{self, Outcome, Seconds, StudentOutcome, TeacherOutcome, grouped, percent};
use crate::spec_file::{self, Data, SpecFile};
use anyhow::{Context, anyhow, bail};
use app::config::Config;
use app::local::{Local, Roles};
use domain::metric::Accuracy;
use domain::spec::{LabelSource, Spec, Start, TeacherSource};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::v1::watch_distillation_response::Event;
use wire::v1::{self, DistillationState as State};

/// Submits the specification (the same one again is the same job), watches it to its end, and reports.
pub(crate) async fn run(
    config: Config,
    arguments: RunArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let file = spec_file::read(&arguments.spec)?;
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
    if let (Some(folder), Start::Base { name }) = (&file.init, &mut file.spec.start) {
        *name = local.register_base(name, folder).await?;
    }
    let dataset = dataset(local, &file).await?;
    let submitted = submit(local.channel(), &file.spec, &dataset.id).await?;
    let id = submitted.id.clone();
    tokio::select! {
        watched = watch(local.channel(), &id) => watched?,
        () = shutdown.cancelled() => {
            return Err(Interrupted("interrupted: run the same command again to go on".to_owned()).into());
        }
        failed = local.failed() => return Err(failed),
    }
    outcome(local, &id, &file.spec).await
}

async fn dataset(local: &Local, file: &SpecFile) -> anyhow::Result<v1::Dataset> {
    match &file.data {
        Data::Imported(name) => client::dataset(local.channel(), name).await,
        Data::Files(files) => {
            let gold = file.spec.judging.label == LabelSource::Gold;
            let rows = super::rows::read_splits(files, &file.spec.task, gold)?;
            client::upload(local.channel(), &file.spec.name, rows).await
        }
    }
}

async fn submit(channel: &Channel, spec: &Spec, dataset_id: &str) -> anyhow::Result<v1::Distillation> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    let request_id = client::request_id(&[b"distillation", dataset_id.as_bytes(), &serde_json::to_vec(spec)?]);
    let request = v1::SubmitDistillationRequest {
        request_id,
        spec: Some(spec.clone().into()),
        dataset_id: dataset_id.to_owned(),
    };
    let job = client.submit_distillation(request).await.map_err(failure)?.into_inner().distillation;
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

/// Follows the job to its end, showing each phase.
async fn watch(channel: &Channel, id: &str) -> anyhow::Result<()> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    // What happened before this call is not shown again.
    let mut shown = Shown::default();
    let request = v1::WatchDistillationRequest { distillation_id: id.to_owned(), after_sequence: 0 };
    let mut events = client.watch_distillation(request).await.map_err(failure)?.into_inner();
    while let Some(message) = events.message().await.map_err(failure)? {
        if let Some(event) = message.event {
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
                if let Some(accuracy) = measured.accuracy.and_then(|accuracy| Accuracy::try_from(accuracy).ok()) {
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
        if to != State::Harvesting
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
        let count = |list: &[v1::NamedCount], name: &str| {
            list.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.count)
        };
        let total: u64 = progress.prompts.iter().map(|entry| entry.count).sum();
        let done: u64 =
            ["answered", "parked", "skipped"].iter().map(|name| count(&progress.prompts, name)).sum();
        let reasons: Vec<String> = progress
            .reasons
            .iter()
            .filter(|entry| entry.count > 0)
            .map(|entry| format!("{} {}", entry.name, entry.count))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        self.funnel = format!(
            "accepted {}, rejected {}{reasons}, tokens {}",
            count(&progress.verdicts, "accepted"),
            count(&progress.verdicts, "rejected"),
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
    let accuracy = |accuracy: Option<v1::Accuracy>| accuracy.map(Accuracy::try_from).transpose().map_err(malformed);
    let teacher = accuracy(job.teacher_accuracy)?;
    let student = accuracy(model.as_ref().and_then(|model| model.test))?;
    let validation = accuracy(model.as_ref().and_then(|model| model.validation))?;
    let harvest = answer.harvest.unwrap_or_default();
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
        accepted: harvest
            .verdicts
            .iter()
            .find(|entry| entry.name == "accepted")
            .map_or(0, |entry| entry.count),
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
