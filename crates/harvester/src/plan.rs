//! The prompts that a job starts with, and the hinted ones that follow.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::shared::Shared;
use domain::Split;
use domain::budget::CallBound;
use domain::completion;
use domain::completion::FinishReason;
use domain::example::Row;
use domain::fingerprint::imported_key;
use domain::ids::PromptId;
use domain::judge;
use domain::ports::BATCH_MAX;
use domain::records::{Completion, Harvested, NewPrompt};
use domain::spec::{TeacherSource, TeacherSpec};
use domain::state::Purpose;

/// Plans the job's first prompts and moves it to `harvesting`. Repeating it changes nothing.
pub(crate) async fn begin(shared: &Shared, job: &PreparedJob) -> Result<(), HarvestError> {
    match job.spec.teacher.as_ref() {
        None => shared.stores.prompts.plan_prompts(job.id, Vec::new()).await?,
        Some(teacher) if teacher.source == TeacherSource::Imported => import(shared, job, teacher).await?,
        Some(teacher) => {
            let mut prompts = Vec::new();
            for (split, purpose, rows_max) in stages(teacher) {
                each_row(shared, job, split, rows_max, |row| {
                    let samples = if purpose == Purpose::Train { teacher.samples } else { 1 };
                    for sample in 0..samples {
                        prompts.push(prompt(job, teacher, &row, sample, false, purpose)?);
                    }
                    Ok(())
                })
                .await?;
            }
            shared.stores.prompts.plan_prompts(job.id, prompts).await?;
        }
    }
    shared.changed.notify_waiters();
    Ok(())
}

/// The splits that are asked about, with their purpose and number of rows.
fn stages(teacher: &TeacherSpec) -> Vec<(Split, Purpose, Option<u32>)> {
    let mut stages = vec![(Split::Train, Purpose::Train, teacher.rows)];
    if teacher.evaluate {
        stages.push((Split::Test, Purpose::Evaluate, None));
    }
    stages
}

/// Calls `visit` with every row of a split, in order, at most `rows_max` of them.
async fn each_row(
    shared: &Shared,
    job: &PreparedJob,
    split: Split,
    rows_max: Option<u32>,
    mut visit: impl FnMut(Row) -> Result<(), HarvestError>,
) -> Result<(), HarvestError> {
    let mut left = rows_max.map_or(usize::MAX, |rows| rows as usize);
    let mut from = 0;
    while left > 0 {
        let rows = shared.stores.datasets.rows(job.dataset, Some(split), from, left.min(BATCH_MAX)).await?;
        let Some(last) = rows.last() else { break };
        from = last.index + 1;
        left -= rows.len();
        for row in rows {
            visit(row)?;
        }
    }
    Ok(())
}

fn prompt(
    job: &PreparedJob,
    teacher: &TeacherSpec,
    row: &Row,
    sample: u32,
    hinted: bool,
    purpose: Purpose,
) -> Result<NewPrompt, HarvestError> {
    let question = job.question(teacher, &row.example, sample, hinted, purpose == Purpose::Evaluate)?;
    let bound = job.teacher.as_ref().map(|teacher| teacher.bound(&question)).unwrap_or_default();
    Ok(NewPrompt {
        id: PromptId::generate(),
        row: row.index,
        sample,
        hinted,
        purpose,
        key: job.key(&question),
        bound,
    })
}

/// Plans a hinted prompt for every row where no sample agrees. Returns whether there was any to plan.
pub(crate) async fn hints(shared: &Shared, job: &PreparedJob) -> Result<bool, HarvestError> {
    let Some(teacher) = job.spec.teacher.as_ref().filter(|_| job.spec.judging.hint) else { return Ok(false) };
    let before = shared.stores.prompts.harvest_progress(job.id).await?.total();
    let mut prompts = Vec::new();
    crate::judging::each_answered_row(shared, job, |row, mut train| {
        train.retain(|entry| entry.purpose == Purpose::Train);
        let gold = row.example.label.as_deref();
        let asked = train.iter().any(|entry| entry.hinted);
        if !train.is_empty()
            && !asked
            && judge::wants_hint(&job.spec.judging, job.spec.task.metric, gold, &train)
        {
            prompts.push(prompt(job, teacher, &row, teacher.samples, true, Purpose::Train)?);
        }
        Ok(())
    })
    .await?;
    if prompts.is_empty() {
        return Ok(false);
    }
    shared.stores.prompts.plan_prompts(job.id, prompts).await?;
    shared.changed.notify_waiters();
    // Prompts that were planned before (and parked, for example) are not planned twice: then this stage has ended.
    Ok(shared.stores.prompts.harvest_progress(job.id).await?.total() > before)
}

/// Writes the answers that came with the data into the ledger.
async fn import(shared: &Shared, job: &PreparedJob, teacher: &TeacherSpec) -> Result<(), HarvestError> {
    let mut answered = Vec::new();
    for (split, purpose, rows_max) in stages(teacher) {
        each_row(shared, job, split, rows_max, |row| {
            for (answer, sample) in row.example.answers.iter().zip(0..) {
                answered.push(imported(job, &row, answer, sample, purpose));
                if purpose == Purpose::Evaluate {
                    break;
                }
            }
            Ok(())
        })
        .await?;
    }
    // An empty plan still moves the job to `harvesting`.
    shared.stores.prompts.plan_prompts(job.id, Vec::new()).await?;
    while !answered.is_empty() {
        let rest = answered.split_off(answered.len().min(BATCH_MAX));
        shared.stores.prompts.record_imported(job.id, answered).await?;
        answered = rest;
    }
    Ok(())
}

fn imported(
    job: &PreparedJob,
    row: &Row,
    answer: &domain::Answer,
    sample: u32,
    purpose: Purpose,
) -> (NewPrompt, Harvested) {
    let id = PromptId::generate();
    let input = job.spec.task.student_input(&row.example);
    let key = imported_key(&input, answer);
    let parsed = completion::parse_imported(&job.spec.task, &row.example, answer);
    let gold = row.example.label.as_deref();
    let (verdict, reason) = judge::provisional(&job.spec.judging, job.spec.task.metric, gold, &parsed);
    let prompt =
        NewPrompt { id, row: row.index, sample, hinted: false, purpose, key, bound: CallBound::default() };
    let completion = Completion {
        key,
        text: answer.text().to_owned(),
        finish_reason: FinishReason::Stop,
        model: answer.teacher().to_owned(),
        tokens_in: 0,
        tokens_out: 0,
        money_micros: 0,
        seconds: 0.0,
    };
    (
        prompt,
        Harvested {
            prompt: id,
            attempt: 0,
            completion,
            cached: true,
            calls: Vec::new(),
            parsed,
            verdict,
            reason,
        },
    )
}
