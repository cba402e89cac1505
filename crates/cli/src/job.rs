//! One job: what it reads, how it is submitted and found, and what became of it.

use crate::client::call::failure;
use crate::client::jobs::{self, Found};
use crate::client::{datasets, ledger, models};
use crate::exit::Usage;
use crate::report::{Outcome, StudentOutcome, TeacherOutcome, grouped};
use crate::spec_data::Data;
use crate::spec_file::SpecFile;
use crate::terminal::say;
use crate::upload::{Rows, Undivided, upload};
use domain::budget::Amount;
use domain::fingerprint::{refresh_request, submission_request};
use domain::ids::{DatasetId, DistillationId, RequestId};
use domain::metric::Accuracy;
use domain::ports::LedgerFilter;
use domain::records::{Dataset, Distillation, HarvestProgress, Model};
use domain::spec::{LabelSource, Spec, TeacherSource};
use domain::state::{DistillationState, PromptState, Reason, Verdict};
use domain::{Split, Violation};
use wire::{Channel, rfc3339};

/// Most jobs of one name among which the newest of a specification is looked for.
const JOBS_MAX: usize = 500;

/// What a job came to, with the accuracies of teacher and student, and its model.
pub(crate) struct Reported {
    pub(crate) job: Distillation,
    pub(crate) harvest: HarvestProgress,
    pub(crate) outcome: Outcome,
    pub(crate) teacher: Option<Accuracy>,
    pub(crate) student: Option<Accuracy>,
    /// On the rows that the teacher was measured on, where these are not all.
    pub(crate) student_on_teachers_rows: Option<Accuracy>,
    pub(crate) model: Option<Model>,
}

/// A job as scripts read it.
pub(crate) fn json(job: &Distillation) -> serde_json::Value {
    serde_json::json!({
        "distillation": job.id.to_string(),
        "name": job.spec.name,
        "state": job.state,
        "reason": job.reason,
        "dataset": job.dataset.to_string(),
        "run": job.run.map(|run| run.to_string()),
        "model": job.model.map(|model| model.to_string()),
        "teacher_accuracy": accuracy_json(job.teacher_accuracy),
        "submitted_at": rfc3339(job.created_at),
        "changed_at": rfc3339(job.updated_at),
        "seconds": job.seconds,
    })
}

/// A measurement as scripts read it; null where nothing was measured.
pub(crate) fn accuracy_json(accuracy: Option<Accuracy>) -> serde_json::Value {
    accuracy.map_or(serde_json::Value::Null, |accuracy| {
        serde_json::json!({
            "value": accuracy.value(), "low": accuracy.low, "high": accuracy.high, "rows": accuracy.rows,
        })
    })
}

/// A harvest's numbers as scripts read them.
pub(crate) fn harvest_json(harvest: &HarvestProgress) -> serde_json::Value {
    serde_json::json!({
        "prompts": counts_json(PromptState::ALL, &harvest.prompts),
        "verdicts": counts_json(Verdict::ALL, &harvest.verdicts),
        "reasons": counts_json(Reason::ALL, &harvest.reasons),
        "calls": harvest.calls,
        "cache_hits": harvest.cache_hits,
        "tokens_in": harvest.tokens_in,
        "tokens_out": harvest.tokens_out,
        "money_micros": harvest.money_micros,
        "open": amount_json(harvest.open),
        "in_doubt": amount_json(harvest.in_doubt),
        "expected": harvest.expected,
        "projected": harvest.projected().map(amount_json),
        "obstacle": harvest.obstacle,
    })
}

/// A quantity of calls as scripts read it.
pub(crate) fn amount_json(amount: Amount) -> serde_json::Value {
    serde_json::json!({"calls": amount.calls, "tokens": amount.tokens, "money_micros": amount.money_micros})
}

fn counts_json<T: ToString>(names: &[T], counts: &[u64]) -> serde_json::Map<String, serde_json::Value> {
    names.iter().zip(counts).map(|(name, count)| (name.to_string(), (*count).into())).collect()
}

/// The rows of a specification: an imported dataset, or its files, uploaded. Where none of the train rows has a label, and the
/// specification leaves it open, the student learns the teacher's.
pub(crate) async fn dataset(channel: &Channel, file: &mut SpecFile) -> anyhow::Result<Dataset> {
    match &file.data {
        Data::Imported(name) => {
            let found = datasets::find(channel, name).await;
            let found = found.map_err(|error| match error.downcast::<Usage>() {
                Ok(Usage(words)) => file.mistakes(vec![Violation::new("data.dataset", words)]).into(),
                Err(error) => error,
            })?;
            if file.over_unlabelled_rows.is_some() && !is_labelled(channel, &found).await? {
                learn_from_teacher(file);
            }
            Ok(found)
        }
        Data::Files(files) => {
            let files = files.clone();
            if file.over_unlabelled_rows.is_some() {
                let rows = Rows::of_files(&files, &file.spec.task, false)?;
                if !tokio::task::spawn_blocking(move || rows.have_train_label()).await? {
                    learn_from_teacher(file);
                }
            }
            let gold = file.spec.judging.label == LabelSource::Gold;
            let mut rows = Rows::of_files(&files, &file.spec.task, gold)?;
            if let Some(shares) = files.shares {
                let task = file.spec.task.clone();
                let divided = tokio::task::spawn_blocking(move || rows.divided(shares, &task)).await?;
                rows = divided.map_err(|why| match why {
                    Undivided::Reading(error) => error,
                    Undivided::Twice(violation) => file.mistakes(vec![violation]).into(),
                })?;
            }
            upload(channel, &file.spec.name, rows).await
        }
    }
}

/// Whether a train row of an imported dataset has a label.
async fn is_labelled(channel: &Channel, dataset: &Dataset) -> anyhow::Result<bool> {
    if dataset.rows_labelled == 0 || dataset.rows_labelled == dataset.rows {
        return Ok(dataset.rows_labelled > 0);
    }
    let mut is_labelled = false;
    datasets::rows(channel, dataset.id, Some(Split::Train), |row| {
        is_labelled |= row.example.label.is_some();
        Ok(())
    })
    .await?;
    Ok(is_labelled)
}

fn learn_from_teacher(file: &mut SpecFile) {
    let Some(mut spec) = file.over_unlabelled_rows.take() else { return };
    // Where it starts may have been named since the file was read.
    spec.start.clone_from(&file.spec.start);
    file.spec = spec;
    say("no train row has a label: the student learns the teacher's (judging.label = \"teacher\")");
}

/// Why a specification was refused: its mistakes, each with its line, or another failure.
pub(crate) fn refused(file: &SpecFile, status: tonic::Status) -> anyhow::Error {
    let violations = wire::violations_of(&status);
    if violations.is_empty() { failure(status) } else { file.mistakes(violations).into() }
}

/// What becomes of a specification that was submitted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It is the same job.
    Same,
    /// It is another job, over the answers that there are.
    Anew,
    /// Its answers are asked for again.
    Refreshed,
}

impl Again {
    /// By its options, of which one is given at most.
    pub(crate) fn of(again: bool, refresh: bool) -> Self {
        match (again, refresh) {
            (_, true) => Self::Refreshed,
            (true, false) => Self::Anew,
            (false, false) => Self::Same,
        }
    }
}

/// Submits a specification. Submitted again, it is the same job, which resumes where it stopped: the newest, where answers
/// were asked for again.
///
/// With [`Again::Refreshed`], what that job was answered is forgotten and asked again. A job that harvests, or is paused in its
/// harvest, does so itself: another one beside it would ask the same. For one that is past its harvest there is a new job.
pub(crate) async fn submit_again(
    channel: &Channel,
    file: &SpecFile,
    dataset: DatasetId,
    again: Again,
) -> anyhow::Result<Distillation> {
    let request = submission_request(&dataset.to_string(), &file.spec);
    let Some(job) = newest(channel, &file.spec, request).await? else {
        return send(channel, file, dataset, request).await;
    };
    let (name, id, state) = (&job.spec.name, job.id, job.state);
    match again {
        Again::Same if state == DistillationState::Cancelled => {
            let words = format!(
                "{name} ({id}) was cancelled and stays so: --again makes another job of the same specification, which pays for \
                 no answer twice"
            );
            return Err(Usage(words).into());
        }
        Again::Same => return resumed(channel, job).await,
        Again::Anew if !state.is_terminal() => {
            let words =
                format!("--again: {name} ({id}) is {state}: run or submit it without --again, or cancel it");
            return Err(Usage(words).into());
        }
        Again::Anew => return send(channel, file, dataset, refresh_request(request, job.id)).await,
        Again::Refreshed => {}
    }
    let all = LedgerFilter::default();
    let outcome = ledger::forget(channel, RequestId::generate(), job.id, &all).await.map_err(failure)?;
    say(&format!("{} answers are forgotten", grouped(outcome.forgotten)));
    if outcome.harvests {
        return resumed(channel, job).await;
    }
    send(channel, file, dataset, refresh_request(request, job.id)).await
}

/// The newest job that this request, or a refresh of it, made.
async fn newest(channel: &Channel, spec: &Spec, request: RequestId) -> anyhow::Result<Option<Distillation>> {
    let jobs = jobs::list(channel, &[], Some(&spec.name), JOBS_MAX).await.map_err(failure)?;
    let same = |job: &Distillation| submission_request(&job.dataset.to_string(), &job.spec) == request;
    Ok(jobs.into_iter().find(same))
}

async fn send(
    channel: &Channel,
    file: &SpecFile,
    dataset: DatasetId,
    request: RequestId,
) -> anyhow::Result<Distillation> {
    let job =
        jobs::submit(channel, request, &file.spec, dataset).await.map_err(|status| refused(file, status))?;
    resumed(channel, job).await
}

async fn resumed(channel: &Channel, job: Distillation) -> anyhow::Result<Distillation> {
    match job.state {
        DistillationState::Paused | DistillationState::Failed => {
            say(&format!("resuming {} job ({})", job.state, job.reason));
            jobs::resume(channel, job.id).await.map_err(failure)
        }
        _ => Ok(job),
    }
}

/// What became of a job.
pub(crate) async fn report(channel: &Channel, id: DistillationId) -> anyhow::Result<Reported> {
    let Found { job, harvest, .. } = jobs::get(channel, id).await.map_err(failure)?;
    let model = match job.model {
        Some(model) => Some(models::get(channel, model).await.map_err(failure)?),
        None => None,
    };
    let teacher = job.teacher_accuracy;
    let student = model.as_ref().and_then(|model| model.test);
    let validation = model.as_ref().and_then(|model| model.validation);
    say_parked(channel, id, &harvest).await?;
    let outcome = Outcome {
        state: job.state,
        distillation: job.id.to_string(),
        reason: job.reason.clone(),
        model: model.as_ref().map(|model| format!("{}@{}", model.name, model.version)),
        model_dir: None,
        model_link: None,
        page: None,
        teacher: teacher_outcome(&job.spec, teacher, &harvest),
        student: StudentOutcome {
            parameters: model.as_ref().map(|model| model.parameters),
            validation_accuracy: validation.map(|accuracy| accuracy.value()),
            accuracy: student.map(|accuracy| accuracy.value()),
            accuracy_low: student.map(|accuracy| accuracy.low),
            accuracy_high: student.map(|accuracy| accuracy.high),
            accuracy_on_teachers_rows: None,
        },
        seconds: job.seconds,
    };
    Ok(Reported { job, harvest, outcome, teacher, student, student_on_teachers_rows: None, model })
}

/// Says how many prompts are parked, and why the first of them is.
async fn say_parked(channel: &Channel, id: DistillationId, harvest: &HarvestProgress) -> anyhow::Result<()> {
    let parked = harvest.in_state(PromptState::Parked);
    if parked == 0 {
        return Ok(());
    }
    if let Some(first) = jobs::first_parked(channel, id).await.map_err(failure)? {
        say(&format!("parked {parked} prompts, the first of them row {}: {}", first.row, first.error));
    }
    Ok(())
}

fn teacher_outcome(spec: &Spec, accuracy: Option<Accuracy>, harvest: &HarvestProgress) -> TeacherOutcome {
    let teacher = spec.teacher.as_ref();
    let name = match teacher {
        Some(asked) if asked.source != TeacherSource::Imported => asked.profiles().join(", then "),
        Some(_) => domain::spec::PROFILE_IMPORTED.to_owned(),
        None => domain::spec::PROFILE_NONE.to_owned(),
    };
    TeacherOutcome {
        name,
        accuracy: accuracy.map(|accuracy| accuracy.value()),
        accuracy_low: accuracy.map(|accuracy| accuracy.low),
        accuracy_high: accuracy.map(|accuracy| accuracy.high),
        accuracy_rows: accuracy.map(|accuracy| accuracy.rows),
        prompts: harvest.calls,
        cached: harvest.cache_hits,
        parked: harvest.in_state(PromptState::Parked),
        skipped: harvest.in_state(PromptState::Skipped),
        accepted: harvest.with_verdict(Verdict::Accepted),
        tokens_in: harvest.tokens_in,
        tokens_out: harvest.tokens_out,
        money_micros: harvest.money_micros,
        in_doubt: amount_json(harvest.in_doubt),
        budget: teacher.map(|teacher| teacher.budget).unwrap_or_default(),
    }
}
