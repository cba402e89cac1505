//! The evidence of a study: what its students and its teacher answered to the test rows.

use super::place::Place;
use crate::client::{datasets, ledger};
use anyhow::Context;
use domain::ids::DatasetId;
use domain::label::same;
use domain::ports::LedgerFilter;
use domain::records::{Distillation, Run};
use domain::spec::{PROFILE_IMPORTED, TeacherSource};
use domain::state::Purpose;
use domain::study::{Answered, Answers, Asked, Cell};
use domain::{Split, Task};
use std::collections::BTreeMap;
use wire::Channel;

/// A test row that has a label.
pub(crate) struct TestRow {
    pub(crate) label: String,
    /// What a student reads.
    pub(crate) input: String,
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
        rows.extend(row.example.label.map(|label| (row.index, TestRow { label, input })));
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// What the students of the cells answered.
pub(crate) async fn of_students(place: &Place, cells: &[(Cell, Run)]) -> anyhow::Result<Vec<Answers>> {
    let mut answers = Vec::with_capacity(cells.len());
    for (cell, run) in cells {
        let result = run.result.as_ref().with_context(|| format!("cell {} has no result", cell.name()))?;
        let rows = place.test_answers(result).await.with_context(|| format!("cell {}", cell.name()))?;
        answers.push(Answers { cell: *cell, parameters: result.parameters, rows });
    }
    Ok(answers)
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
            let answered = Answered { row: entry.row, gold: row.label.clone(), prediction, right };
            rows.entry(entry.row).or_insert(answered);
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
