//! The checks of a job before it is accepted: its specification against the operator's profiles and the rows.

use crate::apart::apart;
use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use domain::example::Row;
use domain::fault::beside;
use domain::ids::{DatasetId, DistillationId, RequestId};
use domain::label::normalise;
use domain::ports::BATCH_MAX;
use domain::records::{Distillation, NewDistillation};
use domain::spec::{Budget, Draft, LabelSource, Spec, Start, TeacherSource, TeacherSpec, suggestion};
use domain::state::DatasetState;
use domain::task::{AnswerShape, LabelPlace};
use domain::{Fault, Split, Task, Violation};
use std::sync::Arc;
use teacher::Profile;

/// Most rows with a label outside the set that are named individually.
const LABELS_SHOWN: usize = 5;

/// What a caller asks for, as far as it could be read.
pub(crate) struct Asked {
    pub(crate) draft: Draft,
    pub(crate) dataset: wire::Checked<DatasetId>,
    /// What else could not be read.
    pub(crate) mistakes: Vec<Violation>,
}

/// Accepts a job whose specification was [checked](check).
pub(crate) async fn submit(
    shared: &Shared,
    request: RequestId,
    spec: Spec,
    dataset: DatasetId,
) -> Result<Distillation, HarvestError> {
    // What is done for the job belongs to the trace of this call.
    let traceparent = wire::trace::current_text();
    let new = NewDistillation { id: DistillationId::generate(), request, spec, dataset, traceparent };
    let job = shared.stores.jobs.create_distillation(new).await?;
    shared.changed.notify_waiters();
    Ok(job)
}

/// Fills what a draft leaves open, by the rows, and checks it against itself, the operator's profiles and the rows.
///
/// # Errors
/// Every mistake at once. There is no such dataset.
pub(crate) async fn check(shared: &Shared, asked: Asked) -> Result<(Spec, DatasetId), HarvestError> {
    let Asked { mut draft, dataset, mut mistakes } = asked;
    let rows = dataset.as_ref().ok().copied();
    mistakes.extend(dataset.as_ref().err().cloned().unwrap_or_default());
    if let Some(rows) = rows.filter(|_| draft.leaves_label_open()) {
        let train = shared.stores.datasets.row_counts(rows, Split::Train).await?;
        if train.rows > 0 && train.labelled == 0 {
            draft = draft.over_unlabelled_rows();
        }
    }
    let (spec, mut mistakes) = draft.resolve_after(mistakes);
    let mut found = spec.probe_violations();
    check_teacher(shared, &spec, &mut found);
    check_start(shared, &spec, &mut found).await?;
    if let Some(rows) = rows {
        let is_alone = mistakes.is_empty() && found.is_empty();
        match check_rows(shared, &spec, rows, &mut found).await {
            Err(error) if error.fault() == Fault::NotFound && !is_alone => {
                found.push(Violation::new("dataset_id", error.to_string()));
            }
            checked => checked?,
        }
    }
    mistakes.extend(beside(&mistakes, found));
    match dataset {
        Ok(rows) if mistakes.is_empty() => {
            check_probes(shared, &spec, rows, &mut mistakes).await?;
            check_template(shared, &spec, rows, &mut mistakes).await?;
            check_labels(shared, &spec, rows, &mut mistakes).await?;
            if mistakes.is_empty() { Ok((spec, rows)) } else { Err(HarvestError::Invalid(mistakes)) }
        }
        _ => Err(HarvestError::Invalid(mistakes)),
    }
}

/// Checks what training needs: a start that is registered, and rows to learn from.
///
/// # Errors
/// Every mistake at once.
pub(crate) async fn check_training(
    shared: &Shared,
    spec: &Spec,
    dataset: DatasetId,
) -> Result<(), HarvestError> {
    let mut found = Vec::new();
    check_start(shared, spec, &mut found).await?;
    check_rows(shared, spec, dataset, &mut found).await?;
    if found.is_empty() { Ok(()) } else { Err(HarvestError::Invalid(found)) }
}

fn check_teacher(shared: &Shared, spec: &Spec, found: &mut Vec<Violation>) {
    let Some(teacher) = &spec.teacher else { return };
    for name in teacher.profiles() {
        if let Some(asked) = shared.teachers.get(name) {
            found.extend(unpriced(asked.profile(), &teacher.budget));
            found.extend(unbatched(asked.profile(), teacher.batch));
            continue;
        }
        let known: Vec<&str> = shared.teachers.keys().map(String::as_str).collect();
        let near = suggestion(name, known.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        found.push(Violation::new(
            if teacher.profiles.is_some() { "teacher.profiles" } else { "teacher.profile" },
            format!("`{name}` is not a configured teacher profile (available: {}){near}", known.join(", ")),
        ));
    }
}

/// A budget in money that would never end, because calls cost nothing.
fn unpriced(profile: &Profile, budget: &Budget) -> Option<Violation> {
    (budget.money_micros.is_some() && !profile.has_prices()).then(|| {
        let words = format!(
            "would never end: the profile `{}` has no prices: set its price_in_per_million and price_out_per_million, or limit \
             `tokens` or `prompts`",
            profile.name
        );
        Violation::new("teacher.budget.money_micros", words)
    })
}

/// A batch that nobody takes.
fn unbatched(profile: &Profile, is_batched: bool) -> Option<Violation> {
    (is_batched && !profile.batch).then(|| {
        let words = format!(
            "is true, but the profile `{}` has no batch API: if its server has OpenAI's, write `batch = true` into the profile;              otherwise ask without batches",
            profile.name
        );
        Violation::new("teacher.batch", words)
    })
}

async fn check_start(shared: &Shared, spec: &Spec, found: &mut Vec<Violation>) -> Result<(), HarvestError> {
    if let Start::Base { name } = &spec.start
        && shared.stores.models.base_model(name).await?.is_none()
    {
        found.push(Violation::new(
            "student.base",
            format!("no base model `{name}` is registered: register it, or name another one"),
        ));
    }
    Ok(())
}

async fn check_rows(
    shared: &Shared,
    spec: &Spec,
    dataset: DatasetId,
    found: &mut Vec<Violation>,
) -> Result<(), HarvestError> {
    let record = shared.stores.datasets.dataset(dataset).await?;
    if record.state != DatasetState::Committed {
        found.push(Violation::new("dataset_id", "is not committed: finish its upload first"));
        return Ok(());
    }
    let train = shared.stores.datasets.row_counts(dataset, Split::Train).await?;
    if train.rows == 0 {
        found.push(Violation::new("dataset_id", format!("dataset `{}` has no train rows", record.name)));
    }
    if train.labelled < train.rows && spec.judging.label == LabelSource::Gold {
        let unlabelled = train.rows - train.labelled;
        found.push(Violation::new(
            "judging.label",
            format!(
                "is `gold`, but {unlabelled} of {} train rows have no label: label them, or write \
                 `judging.label = \"teacher\"` (with `agree = false`)",
                train.rows
            ),
        ));
    }
    let imported = spec.teacher.as_ref().is_some_and(|teacher| teacher.source == TeacherSource::Imported);
    let needs = spec.training.objective.needs_rationales() || spec.judging.label == LabelSource::Teacher;
    if imported && needs && train.answered == 0 {
        found.push(Violation::new(
            "teacher.profile",
            "is `imported`, but no train row came with a rationale: name a profile to ask, or `none`",
        ));
    }
    Ok(())
}

/// Probes compare students on labelled validation rows: those of the dataset, or some of its train rows.
async fn check_probes(
    shared: &Shared,
    spec: &Spec,
    dataset: DatasetId,
    found: &mut Vec<Violation>,
) -> Result<(), HarvestError> {
    if !spec.teacher.as_ref().is_some_and(TeacherSpec::stops_early) {
        return Ok(());
    }
    let validation = shared.stores.datasets.row_counts(dataset, Split::Validation).await?;
    let train = shared.stores.datasets.row_counts(dataset, Split::Train).await?;
    let held_out = train.labelled as f64 * spec.training.holdout_fraction;
    let measured = if validation.labelled > 0 { validation.labelled as f64 } else { held_out };
    if measured < 1.0 {
        let words = "measures its probes on validation rows with labels, and there are none: give the dataset some, or raise \
                     `training.holdout_fraction`";
        found.push(Violation::new("teacher.until", words));
    }
    Ok(())
}

/// A job that nobody has submitted, to prepare its prompts with.
pub(crate) fn draft(spec: &Spec, dataset: DatasetId) -> Distillation {
    Distillation {
        id: DistillationId::generate(),
        spec: spec.clone(),
        dataset,
        state: domain::state::DistillationState::Queued,
        reason: String::new(),
        resume_state: None,
        created_at: domain::Timestamp::default(),
        updated_at: domain::Timestamp::default(),
        run: None,
        model: None,
        teacher_accuracy: None,
        seconds: domain::records::PhaseSeconds::default(),
        traceparent: String::new(),
    }
}

/// Renders the template once, with the first row, so that a mistake in it is found before anything is paid for.
async fn check_template(
    shared: &Shared,
    spec: &Spec,
    dataset: DatasetId,
    found: &mut Vec<Violation>,
) -> Result<(), HarvestError> {
    if spec.teacher.is_none() {
        return Ok(());
    }
    let rows = shared.stores.datasets.rows(dataset, Some(Split::Train), 0, 1).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let draft = draft(spec, dataset);
    let (teachers, example) = (Arc::clone(&shared.teachers), row.example.clone());
    let hinted = spec.judging.hint.is_on();
    let render = move || PreparedJob::open(&teachers, &draft)?.question(&example, 0, hinted, false);
    if let Err(error) = apart(render).await {
        found.push(Violation::new("task.template", error.to_string()));
    }
    Ok(())
}

async fn check_labels(
    shared: &Shared,
    spec: &Spec,
    dataset: DatasetId,
    found: &mut Vec<Violation>,
) -> Result<(), HarvestError> {
    let (mut from, mut outside) = (0, 0_usize);
    loop {
        let rows = shared.stores.datasets.rows(dataset, None, from, BATCH_MAX).await?;
        let Some(last) = rows.last() else { break };
        from = last.index + 1;
        for row in rows {
            let Some(mistake) = label_mistake(&spec.task, &row) else { continue };
            outside += 1;
            if outside <= LABELS_SHOWN {
                found.push(mistake);
            }
        }
    }
    if outside > LABELS_SHOWN {
        found.push(Violation::new(
            "rows",
            format!("{} more rows have the same mistake", outside - LABELS_SHOWN),
        ));
    }
    Ok(())
}

/// The mistake in a row's label or choices.
fn label_mistake(task: &Task, row: &Row) -> Option<Violation> {
    let set = task.label_set(&row.example)?;
    if set.is_empty() {
        // Lettered answers need choices; for other tasks a row without choices has an open label set.
        return (task.answer.shape == AnswerShape::Choice).then(|| {
            let words = format!("is missing: the task `{}` asks for one of them", task.name);
            Violation::new(format!("rows[{}].choices", row.index), words)
        });
    }
    let label = row.example.label.as_ref()?;
    if set.iter().any(|known| normalise(known) == normalise(label)) {
        return None;
    }
    let shown: String = label.chars().take(60).collect();
    let mut words = format!("`{shown}` is not one of: {}", set.join(", "));
    if task.place_of(label) != LabelPlace::None {
        // Where rows are read with their task, integers are named there; stored rows are what they were imported as.
        words.push_str(&format!("; import the rows with `--task {}`, which names integers", task.name));
    }
    Some(Violation::new(format!("rows[{}].label", row.index), words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use teacher::{Prices, Provider};

    #[test]
    fn a_budget_in_money_needs_prices() {
        let check = |money_micros: Option<u64>, prices: Prices, refused: bool| {
            let profile =
                Profile { prices, ..Profile::new("mine", Provider::OpenAiChat, "http://host/v1", "m") };
            let found = unpriced(&profile, &Budget { money_micros, ..Budget::default() });
            assert_eq!(found.is_some(), refused, "{money_micros:?} {prices:?}");
            if let Some(violation) = found {
                let said = violation.to_string();
                assert!(
                    said.contains("teacher.budget.money_micros") && said.contains("price_in_per_million"),
                    "{said}"
                );
            }
        };
        let free = Prices::default();
        check(Some(0), free, true);
        check(Some(5), free, true);
        check(None, free, false);
        check(Some(5), Prices { out_per_million: 0.1, ..free }, false);
        check(Some(5), Prices { in_per_million: 0.1, ..free }, false);
    }

    #[test]
    fn batches_need_a_provider_that_takes_them() {
        let check = |provider, batch: Option<bool>, asked: bool, refused: bool| {
            let profile = Profile::new("mine", provider, "http://host/v1", "m");
            let profile = Profile { batch: batch.unwrap_or(profile.batch), ..profile };
            let found = unbatched(&profile, asked);
            assert_eq!(found.is_some(), refused, "{provider:?} {batch:?} {asked}");
            if let Some(violation) = found {
                let said = violation.to_string();
                assert!(said.contains("teacher.batch") && said.contains("batch = true"), "{said}");
            }
        };
        check(Provider::OpenAiCompletions, None, true, true);
        check(Provider::OpenAiCompletions, Some(true), true, false);
        check(Provider::OpenAiChat, None, true, true);
        check(Provider::OpenAiChat, None, false, false);
        check(Provider::OpenAiChat, Some(true), true, false);
        check(Provider::Anthropic, None, true, false);
        check(Provider::Gemini, None, true, false);
    }
}
