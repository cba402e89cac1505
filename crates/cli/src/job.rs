//! One job: what it reads, how it is submitted and found, and what became of it.

use crate::client::{self, failure, malformed};
use crate::exit::Usage;
use crate::progress::say;
use crate::report::{Outcome, Seconds, StudentOutcome, TeacherOutcome};
use crate::shown::{counted, state_name};
use crate::spec_file::{Data, SpecFile};
use crate::upload::upload;
use anyhow::anyhow;
use domain::Violation;
use domain::metric::Accuracy;
use domain::spec::{LabelSource, Spec, TeacherSource};
use wire::Channel;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::v1::{self, DistillationState as State};

/// What a job came to, with the accuracies of teacher and student, and its model.
pub(crate) struct Reported {
    pub(crate) outcome: Outcome,
    pub(crate) teacher: Option<Accuracy>,
    pub(crate) student: Option<Accuracy>,
    pub(crate) model: Option<v1::Model>,
}

/// The job of that id, or the newest of that name.
pub(crate) async fn find(channel: &Channel, id_or_name: &str) -> anyhow::Result<v1::GetDistillationResponse> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    let absent = || Usage(format!("there is no job `{id_or_name}`: `distillery list` shows those there are"));
    let id = if id_or_name.parse::<uuid::Uuid>().is_ok() {
        id_or_name.to_owned()
    } else {
        let page = Some(v1::PageRequest { page_size: 1, page_token: String::new() });
        let request =
            v1::ListDistillationsRequest { page, name: id_or_name.to_owned(), ..Default::default() };
        let list = client.list_distillations(request).await.map_err(failure)?.into_inner();
        list.distillations.into_iter().next().ok_or_else(absent)?.id
    };
    let request = v1::GetDistillationRequest { distillation_id: id };
    match client.get_distillation(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == tonic::Code::NotFound => Err(absent().into()),
        Err(status) => Err(failure(status)),
    }
}

/// A job's name.
pub(crate) fn name(job: &v1::Distillation) -> &str {
    job.spec.as_ref().map_or("", |spec| spec.name.as_str())
}

/// A job as scripts read it.
pub(crate) fn json(job: &v1::Distillation) -> serde_json::Value {
    serde_json::json!({
        "distillation": job.id,
        "name": name(job),
        "state": state_name(job.state()),
        "reason": job.reason,
        "dataset": job.dataset_id,
        "run": some(&job.run_id),
        "model": some(&job.model_id),
        "teacher_accuracy": accuracy_json(job.teacher_accuracy),
        "submitted_at": job.created_at.map(|at| at.to_string()),
        "changed_at": job.updated_at.map(|at| at.to_string()),
        "seconds": {
            "harvest": job.harvest_seconds,
            "train": job.train_seconds,
            "evaluate": job.evaluate_seconds,
        },
    })
}

fn some(id: &str) -> Option<&str> {
    (!id.is_empty()).then_some(id)
}

/// What a job was asked for, every hole filled.
pub(crate) fn spec_json(job: &v1::Distillation) -> anyhow::Result<serde_json::Value> {
    let spec = Spec::try_from(job.spec.clone().unwrap_or_default()).map_err(malformed)?;
    Ok(serde_json::to_value(spec)?)
}

/// A measurement as scripts read it; null where nothing was measured.
pub(crate) fn accuracy_json(message: Option<v1::Accuracy>) -> serde_json::Value {
    match accuracy(message) {
        Ok(Some(accuracy)) => serde_json::json!({
            "value": accuracy.value(), "low": accuracy.low, "high": accuracy.high, "rows": accuracy.rows,
        }),
        Ok(None) | Err(_) => serde_json::Value::Null,
    }
}

/// A harvest's numbers as scripts read them.
pub(crate) fn harvest_json(harvest: &v1::HarvestProgress) -> serde_json::Value {
    let counts = |counts: &[v1::NamedCount]| -> serde_json::Map<String, serde_json::Value> {
        counts.iter().map(|entry| (entry.name.clone(), entry.count.into())).collect()
    };
    serde_json::json!({
        "prompts": counts(&harvest.prompts),
        "verdicts": counts(&harvest.verdicts),
        "reasons": counts(&harvest.reasons),
        "calls": harvest.calls,
        "cache_hits": harvest.cache_hits,
        "tokens_in": harvest.tokens_in,
        "tokens_out": harvest.tokens_out,
        "money_micros": harvest.money_micros,
    })
}

/// The job in an answer that must have one.
pub(crate) fn of(job: Option<v1::Distillation>) -> anyhow::Result<v1::Distillation> {
    job.ok_or_else(|| anyhow!("the server sent no job"))
}

/// The rows of a specification: an imported dataset, or its files, uploaded.
pub(crate) async fn dataset(channel: &Channel, file: &SpecFile) -> anyhow::Result<v1::Dataset> {
    match &file.data {
        Data::Imported(name) => {
            let found = client::dataset(channel, name).await;
            found.map_err(|error| match error.downcast::<Usage>() {
                Ok(Usage(words)) => file.mistakes(vec![Violation::new("data.dataset", words)]).into(),
                Err(error) => error,
            })
        }
        Data::Files(files) => {
            let gold = file.spec.judging.label == LabelSource::Gold;
            let rows = crate::commands::rows::of_splits(files, &file.spec.task, gold)?;
            upload(channel, &file.spec.name, rows).await
        }
    }
}

/// Hands a specification in; the same one again is the same job, which goes on where it stopped.
pub(crate) async fn submit(
    channel: &Channel,
    file: &SpecFile,
    dataset_id: &str,
) -> anyhow::Result<v1::Distillation> {
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
    let job = of(submitted.into_inner().distillation)?;
    match job.state() {
        State::Paused | State::Failed => {
            say(&format!("going on: the job was {} ({})", state_name(job.state()), job.reason));
            let request = v1::ResumeDistillationRequest { distillation_id: job.id.clone() };
            let resumed = client.resume_distillation(request).await.map_err(failure)?.into_inner();
            of(resumed.distillation)
        }
        _ => Ok(job),
    }
}

/// What became of a job.
pub(crate) async fn report(channel: &Channel, id: &str) -> anyhow::Result<Reported> {
    let request = v1::GetDistillationRequest { distillation_id: id.to_owned() };
    let mut client = DistillationsServiceClient::new(channel.clone());
    let answer = client.get_distillation(request).await.map_err(failure)?.into_inner();
    let job = of(answer.distillation)?;
    let spec = Spec::try_from(job.spec.clone().unwrap_or_default()).map_err(malformed)?;
    let model = model(channel, &job.model_id).await?;
    let teacher = accuracy(job.teacher_accuracy)?;
    let student = accuracy(model.as_ref().and_then(|model| model.test))?;
    let validation = accuracy(model.as_ref().and_then(|model| model.validation))?;
    let harvest = answer.harvest.unwrap_or_default();
    say_parked(channel, id, &harvest).await?;
    let outcome = Outcome {
        state: state_name(job.state()).to_owned(),
        distillation: job.id.clone(),
        reason: job.reason.clone(),
        model: model.as_ref().map(|model| format!("{}@{}", model.name, model.version)),
        model_dir: None,
        teacher: teacher_outcome(&spec, teacher, &harvest),
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
    Ok(Reported { outcome, teacher, student, model })
}

/// A measurement in a message; absent where nothing was measured.
pub(crate) fn accuracy(message: Option<v1::Accuracy>) -> anyhow::Result<Option<Accuracy>> {
    message.map(Accuracy::try_from).transpose().map_err(malformed)
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
