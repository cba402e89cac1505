//! What students answered to the test rows, from their checkpoints.

use anyhow::Context;
use checkpoints::{Checkpoints, Predictions};
use domain::Split;
use domain::run::RunResult;
use domain::study::Answered;

/// The answers of a run's student, without what differs from one measurement to the next.
pub(crate) async fn read(checkpoints: Checkpoints, result: &RunResult) -> anyhow::Result<Vec<Answered>> {
    let (path, manifest) = (result.path.clone(), result.manifest_sha256.clone());
    // A bucket's folder is copied, which blocks.
    tokio::task::spawn_blocking(move || {
        let folder = checkpoints.fetch(&path, Some(&manifest))?;
        let absent = || format!("{} has no predictions of the test rows", folder.display());
        let predictions = Predictions::read(&folder, Split::Test)?.with_context(absent)?;
        let answered = predictions.rows.into_iter().map(|row| Answered {
            row: row.row,
            gold: row.gold,
            prediction: row.label,
            right: row.correct,
        });
        Ok(answered.collect())
    })
    .await?
}
