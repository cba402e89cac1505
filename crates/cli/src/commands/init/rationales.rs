//! Why the exemplars have their labels, asked of the teacher: three questions with the label as hint, through the harvester.

use super::columns::{Labels, shown};
use super::proposal::Proposal;
use crate::client::call::failure;
use crate::client::{datasets, jobs};
use crate::exit::{Interrupted, Usage};
use crate::upload::{Rows, upload};
use app::config::Config;
use app::local::{Local, Scope};
use domain::example::CHOICES_MAX;
use domain::spec::{Draft, Hint, JudgingDraft, Spec, StudentDraft, TeacherDraft, TrainingDraft};
use domain::{Example, Task};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The dataset that the exemplars are asked from; it is deleted again.
const DATASET: &str = "init-exemplars";
/// How long a teacher may take for all of them.
const PATIENCE: Duration = Duration::from_secs(90);

/// One for each exemplar: the rationale, or why there is none.
pub(crate) type Rationales = Vec<Result<String, String>>;

/// Asks `proposal.profile` about the exemplars.
///
/// # Errors
/// The profile does not exist, the data folder cannot be used, or the user interrupts; a teacher that does not answer is
/// none.
pub(crate) async fn ask(
    config: Config,
    proposal: &Proposal,
    shutdown: &CancellationToken,
) -> anyhow::Result<Rationales> {
    let each = |why: String| proposal.exemplars.iter().map(|_| Err(why.clone())).collect();
    if let Some(why) = app::local::teacher_without_key(&config, &proposal.profile) {
        return Ok(each(why));
    }
    let spec = question(proposal)?;
    let local = Local::open(config, Scope::PLAN, shutdown.clone()).await?;
    let asked = tokio::select! {
        asked = tokio::time::timeout(PATIENCE, probe(&local, &spec, proposal)) => asked,
        () = shutdown.cancelled() => Ok(Err(Interrupted("interrupted: nothing is written".to_owned()).into())),
    };
    local.close().await?;
    match asked {
        Ok(rationales) => rationales,
        Err(_) => Ok(each(format!("the teacher took longer than {} seconds", PATIENCE.as_secs()))),
    }
}

/// A built-in task with its own exemplars, which shows a teacher the form: the user's has none yet.
fn question(proposal: &Proposal) -> anyhow::Result<Spec> {
    let name = match proposal.labels {
        Labels::Closed(_) | Labels::OfChoices => "classify",
        Labels::Equations => "equation",
        Labels::Open => "generate",
    };
    let task = Task::built_in(name).ok_or_else(|| anyhow::anyhow!("there is no task `{name}`"))?;
    let profile = Some(proposal.profile.clone());
    let draft = Draft {
        name: DATASET.to_owned(),
        task,
        teacher: TeacherDraft { profile, evaluate: Some(false), ..TeacherDraft::default() },
        judging: JudgingDraft { hint: Some(Hint::First), ..JudgingDraft::default() },
        student: StudentDraft::default(),
        training: TrainingDraft::default(),
    };
    draft.resolve().map_err(|violations| {
        let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
        Usage(words.join("\n").replace("teacher.profile", "--profile")).into()
    })
}

/// The exemplars as rows: of a closed set, the labels are the row's choices.
fn rows(proposal: &Proposal) -> Vec<Example> {
    let choices = |label: &str| match &proposal.labels {
        Labels::Closed(labels) => {
            let others = labels.iter().map(|(other, _)| other.clone()).filter(|other| other != label);
            let mut choices: Vec<String> = others.take(CHOICES_MAX - 1).collect();
            choices.push(label.to_owned());
            choices.sort_unstable();
            choices
        }
        Labels::OfChoices | Labels::Equations | Labels::Open => Vec::new(),
    };
    let row = |exemplar: &domain::task::Exemplar| {
        let own = exemplar.choices.clone();
        let choices = if own.is_empty() { choices(&exemplar.label) } else { own };
        Example { choices, label: Some(exemplar.label.clone()), ..exemplar.example() }
    };
    proposal.exemplars.iter().map(row).collect()
}

async fn probe(local: &Local, spec: &Spec, proposal: &Proposal) -> anyhow::Result<Rationales> {
    let rows = rows(proposal);
    let count = u32::try_from(rows.len())?;
    let dataset = upload(local.channel(), DATASET, Rows::Here(rows.into())).await?;
    let estimated = jobs::estimate(local.channel(), spec, dataset.id, count).await;
    datasets::delete(local.channel(), dataset.id).await.map_err(failure)?;
    let estimate = estimated.map_err(|status| {
        let violations = wire::violations_of(&status);
        let profile = violations.iter().find(|violation| violation.field == "teacher.profile");
        match profile {
            Some(violation) => Usage(format!("--profile: {}", violation.message)).into(),
            None => failure(status),
        }
    })?;
    let mut found = Vec::new();
    for (place, row) in estimate.probed.iter().enumerate() {
        let rationale = row.parsed.as_ref().map(|parsed| parsed.rationale.as_str()).unwrap_or_default();
        let fitting = proposal.fitting(place, rationale);
        if let Some(other) = fitting.as_deref().and_then(|rationale| proposal.contradicts(place, rationale)) {
            found.push(Err(format!("its answer argues for `{}`: {}", shown(&other), shown(rationale))));
            continue;
        }
        found.push(fitting.ok_or_else(|| match row.error.is_empty() {
            true => format!("its answer gives no reason: {}", shown(row.completion.trim())),
            false => row.error.clone(),
        }));
    }
    Ok(found)
}
