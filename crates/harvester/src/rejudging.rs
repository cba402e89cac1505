//! A job's ledger under other rules, next to its own: a page at a time, whatever its size.

use crate::apart::apart;
use crate::error::HarvestError;
use crate::ledger::Ledger;
use crate::shared::Shared;
use domain::ids::{DatasetId, DistillationId};
use domain::label::Comparison;
use domain::ports::{BATCH_MAX, StoreResult};
use domain::rejudge::Rejudged;
use domain::run::{RunDraft, RunPurpose};
use domain::spec::{Judging, JudgingDraft, StudentDraft, TrainingDraft};
use std::sync::Arc;

/// The judging of one ledger.
pub(crate) struct Rejudging {
    shared: Arc<Shared>,
    job: DistillationId,
    dataset: DatasetId,
    metric: Comparison,
    before: Judging,
    after: Judging,
    /// The next row to judge.
    from: u64,
    so_far: Rejudged,
}

impl Rejudging {
    /// Under the job's own rules, with those of `draft` in their place.
    ///
    /// # Errors
    /// There is no such job, its rows were deleted, or the rules contradict each other or the job.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        job: DistillationId,
        draft: JudgingDraft,
    ) -> Result<Self, HarvestError> {
        let job = shared.stores.jobs.distillation(job).await?;
        shared.stores.datasets.dataset(job.dataset).await?;
        // The rules that a run over this ledger would have.
        let plan = RunDraft {
            purpose: RunPurpose::Probe,
            fraction: None,
            seed: None,
            share: None,
            judging: draft,
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        };
        let after = plan.resolve(&job.spec).map_err(HarvestError::Invalid)?.judging;
        Ok(Self {
            shared,
            job: job.id,
            dataset: job.dataset,
            metric: job.spec.task.metric,
            before: job.spec.judging,
            after,
            from: 0,
            so_far: Rejudged::default(),
        })
    }

    /// Judges the next page of rows; returns whether that was the last one.
    pub(crate) async fn next(&mut self) -> StoreResult<bool> {
        let mut ledger = Ledger::starting(&self.shared, self.job, self.from);
        let Some(first) = ledger.next_row(self.from).await? else { return Ok(true) };
        let rows = self.shared.stores.datasets.rows(self.dataset, None, first, BATCH_MAX).await?;
        let Some(last) = rows.last() else { return Ok(true) };
        self.from = last.index + 1;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            let entries = ledger.of(row.index).await?;
            page.push((row, entries));
        }
        let (before, after, metric) = (self.before, self.after, self.metric);
        let mut so_far = self.so_far.clone();
        self.so_far = apart(move || {
            for (row, entries) in page.iter().filter(|(_, entries)| !entries.is_empty()) {
                so_far.add(&before, &after, metric, row.example.label.as_deref(), entries);
            }
            so_far
        })
        .await;
        Ok(false)
    }

    /// What was counted so far.
    pub(crate) fn so_far(&self) -> &Rejudged {
        &self.so_far
    }
}
