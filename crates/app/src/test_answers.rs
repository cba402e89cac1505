//! What students answered to the test rows, from their checkpoints.

use anyhow::Context;
use checkpoints::{Checkpoints, Predictions};
use domain::Split;
use domain::run::RunResult;
use domain::study::Answered;

/// What a student answered to the test rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TestAnswers {
    /// The rows, without what differs from one measurement to the next.
    pub rows: Vec<Answered>,
    /// How long an answer took, in the middle of the rows; `None` where there are none.
    pub milliseconds: Option<f64>,
}

/// The answers of a run's student.
pub(crate) async fn read(checkpoints: Checkpoints, result: &RunResult) -> anyhow::Result<TestAnswers> {
    let (path, manifest) = (result.path.clone(), result.manifest_sha256.clone());
    // A bucket's folder is copied, which blocks.
    tokio::task::spawn_blocking(move || {
        let folder = checkpoints.fetch(&path, Some(&manifest))?;
        let absent = || format!("{} has no predictions of the test rows", folder.display());
        let predictions = Predictions::read(&folder, Split::Test)?.with_context(absent)?;
        let mut times: Vec<f64> = predictions.rows.iter().map(|row| row.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        let answered = predictions.rows.into_iter().map(|row| Answered {
            row: row.row,
            gold: row.gold,
            prediction: row.label,
            right: row.correct,
            log_probability: row.log_probability,
            rationale: row.rationale,
            ..Answered::default()
        });
        Ok(TestAnswers { rows: answered.collect(), milliseconds: times.get(times.len() / 2).copied() })
    })
    .await?
}
