//! What students answered to the test rows, from their checkpoints.

use crate::checkpoint_store;
use anyhow::Context;
use checkpoints::{Checkpoints, Predictions};
use domain::Split;
use domain::metric::median;
use domain::study::Answered;

/// What a student answered to the test rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TestAnswers {
    /// The rows, without what differs from one measurement to the next.
    pub rows: Vec<Answered>,
    /// How long an answer took, in the middle of the rows; `None` where there are none.
    pub milliseconds: Option<f64>,
}

/// The answers of the student in a checkpoint.
pub(crate) async fn read(
    checkpoints: Checkpoints,
    path: &str,
    manifest_sha256: &str,
) -> anyhow::Result<TestAnswers> {
    let folder = checkpoint_store::fetch(checkpoints, path, manifest_sha256).await?;
    tokio::task::spawn_blocking(move || {
        let absent = || format!("{} has no predictions of the test rows", folder.display());
        let predictions = Predictions::read(&folder, Split::Test)?.with_context(absent)?;
        let milliseconds = median(predictions.rows.iter().map(|row| row.milliseconds).collect());
        let answered = predictions.rows.into_iter().map(|row| Answered {
            row: row.row,
            gold: row.gold,
            prediction: row.label,
            right: row.correct,
            log_probability: row.log_probability,
            rationale: row.rationale,
            ..Answered::default()
        });
        Ok(TestAnswers { rows: answered.collect(), milliseconds })
    })
    .await?
}
