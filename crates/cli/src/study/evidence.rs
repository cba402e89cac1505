//! The evidence of a study: what its students and its teacher answered to the test rows.

use crate::client::{datasets, ledger};
use crate::place::Place;
use anyhow::Context;
use domain::ids::DatasetId;
use domain::label::same;
use domain::ports::LedgerFilter;
use domain::records::{Distillation, Run};
use domain::spec::{PROFILE_IMPORTED, TeacherSource};
use domain::state::Purpose;
use domain::study::{Answered, Answers, Asked, Cell};
use domain::{Example, Split, Task};
use std::collections::BTreeMap;
use wire::Channel;

/// A test row that has a label.
pub(crate) struct TestRow {
    pub(crate) label: String,
    /// What a student reads.
    pub(crate) input: String,
    /// The row without its label.
    pub(crate) example: Example,
}

/// The test rows that have a label, by their index.
pub(crate) async fn test_rows(
    channel: &Channel,
    dataset: DatasetId,
    task: &Task,
) -> anyhow::Result<BTreeMap<u64, TestRow>> {
    let mut rows = BTreeMap::new();
    datasets::rows(channel, dataset, Some(Split::Test), |row| {
        let input = task.student_input(&row.example);
        let mut example = row.example;
        rows.extend(example.label.take().map(|label| (row.index, TestRow { label, input, example })));
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// What the students of the cells answered, and how long an answer of each took, in milliseconds.
pub(crate) async fn of_students(
    place: &Place,
    cells: &[(Cell, Run)],
    task: &Task,
    test_rows: &BTreeMap<u64, TestRow>,
) -> anyhow::Result<(Vec<Answers>, Vec<f64>)> {
    let mut answers = Vec::with_capacity(cells.len());
    let mut milliseconds = Vec::with_capacity(cells.len());
    for (cell, run) in cells {
        let result = run.result.as_ref().with_context(|| format!("cell {} has no result", cell.name()))?;
        let said = place
            .test_answers(&result.path, &result.manifest_sha256)
            .await
            .with_context(|| format!("cell {}", cell.name()))?;
        let rows = said.rows.into_iter().map(|row| with_conclusion(task, test_rows, row)).collect();
        answers.push(Answers { cell: *cell, parameters: result.parameters, rows });
        milliseconds.push(said.milliseconds.unwrap_or(0.0));
    }
    Ok((answers, milliseconds))
}

/// With what its rationale comes to by itself.
pub(crate) fn with_conclusion(
    task: &Task,
    test_rows: &BTreeMap<u64, TestRow>,
    mut answered: Answered,
) -> Answered {
    match (answered.rationale.take(), test_rows.get(&answered.row)) {
        (Some(rationale), Some(known)) => answered.explained(task, &known.example, rationale),
        _ => answered,
    }
}

/// What the teacher answered, compared as the students' answers are; `None` where it was asked about no test row.
pub(crate) async fn of_teacher(
    channel: &Channel,
    job: &Distillation,
    test_rows: &BTreeMap<u64, TestRow>,
) -> anyhow::Result<Option<Asked>> {
    let mut rows: BTreeMap<u64, Answered> = BTreeMap::new();
    let metric = job.spec.task.metric;
    ledger::entries(channel, job.id, &LedgerFilter::default(), usize::MAX, |entry| {
        if let (Purpose::Evaluate, Some(row)) = (entry.purpose, test_rows.get(&entry.row)) {
            let prediction = entry.parsed.label.unwrap_or_default();
            let right = !prediction.is_empty() && same(metric, &prediction, &row.label);
            let gold = row.label.clone();
            let answered = Answered { row: entry.row, gold, prediction, right, ..Answered::default() };
            let task = &job.spec.task;
            rows.entry(entry.row).or_insert(answered.explained(task, &row.example, entry.parsed.rationale));
        }
        Ok(())
    })
    .await?;
    let name = job.spec.teacher.as_ref().map_or_else(String::new, |teacher| match teacher.source {
        TeacherSource::Imported => PROFILE_IMPORTED.to_owned(),
        TeacherSource::Profile(_) => teacher.profiles().join(", then "),
    });
    Ok((!rows.is_empty()).then(|| Asked { name, rows: rows.into_values().collect() }))
}
