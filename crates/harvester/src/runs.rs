//! Runs over a ledger: checked and created, and the rows that each of them learns from.
//!
//! A row's verdicts are computed here, by the rules of the run that reads it: the ledger is the truth, and what a store
//! keeps of verdicts is for lists and counts.

use crate::apart::apart;
use crate::error::HarvestError;
use crate::ledger::Ledger;
use crate::shared::Shared;
use crate::{probes, strata, submit};
use domain::example::Row;
use domain::fingerprint::probe_request;
use domain::ids::{DatasetId, DistillationId, RequestId, RunId};
use domain::judge::{self, Fingerprint};
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::ports::{BATCH_MAX, StoreError, StoreResult};
use domain::records::{Distillation, LedgerEntry, NewRun, Run};
use domain::run::{RunDraft, RunPlan};
use domain::share::Share;
use domain::spec::Spec;
use domain::{Split, Violation, lifecycle};
use std::collections::HashSet;

/// Most bytes of a row's rationales, so that they go into one message with the row; later samples are left out.
const RATIONALES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a caller asks of a run over the ledger of a job, which is returned with it.
///
/// # Errors
/// There is no such job. Or every mistake, those of reading it first.
pub(crate) async fn plan(
    shared: &Shared,
    job: DistillationId,
    draft: RunDraft,
    mistakes: Vec<Violation>,
) -> Result<(Distillation, RunPlan), HarvestError> {
    let job = shared.stores.jobs.distillation(job).await?;
    let plan = draft.resolve_after(&job.spec, mistakes).map_err(HarvestError::Invalid)?;
    Ok((job, plan))
}

/// Creates a run over the ledger of a job, or names every mistake.
pub(crate) async fn create(
    shared: &Shared,
    request: RequestId,
    job: Distillation,
    plan: RunPlan,
) -> Result<Run, HarvestError> {
    // The store decides it again when it writes; a ledger that still grows is not worth reading.
    lifecycle::create_run(&job, &plan, true).map_err(StoreError::from)?;
    let spec = plan.spec(&job.spec);
    submit::check_training(shared, &spec, job.dataset).await?;
    let ledger_fingerprint = fingerprint(shared, &job, &plan, &spec).await?;
    let (id, distillation) = (RunId::generate(), job.id);
    let new = NewRun { id, request, distillation, plan, ledger_fingerprint };
    Ok(shared.stores.runs.create_run(new).await?)
}

/// Creates the probe of a job over a share of its rows, which are done. Doing it again changes nothing.
pub(crate) async fn create_probe(
    shared: &Shared,
    job: DistillationId,
    plan: RunPlan,
    share: Share,
) -> Result<Run, HarvestError> {
    let job = shared.stores.jobs.distillation(job).await?;
    let spec = plan.spec(&job.spec);
    let ledger_fingerprint = fingerprint(shared, &job, &plan, &spec).await?;
    let (id, request, distillation) = (RunId::generate(), probe_request(job.id, share), job.id);
    let new = NewRun { id, request, distillation, plan, ledger_fingerprint };
    Ok(shared.stores.runs.create_run(new).await?)
}

/// That of the rationales that a run would train on.
async fn fingerprint(
    shared: &Shared,
    job: &Distillation,
    plan: &RunPlan,
    spec: &Spec,
) -> Result<String, HarvestError> {
    let mut examples = Examples::open(shared, job, plan, Split::Train, 0).await?;
    let (mut fingerprint, mut accepted) = (Fingerprint::default(), 0);
    while let Some(chunk) = examples.next(BATCH_MAX).await? {
        for example in chunk {
            accepted += example.rationales.len();
            fingerprint.add(&example);
        }
    }
    if accepted == 0 && spec.training.objective.needs_rationales() {
        let words = format!(
            "accepts no rationale of the ledger in these rows, and `training.objective = \"{}\"` needs some: change \
             the rules, take more rows, or train with `standard`",
            spec.training.objective
        );
        return Err(HarvestError::Invalid(vec![Violation::new("judging", words)]));
    }
    Ok(fingerprint.finish())
}

/// The rows of one split as a run reads them, in order.
pub(crate) struct Examples<'a> {
    shared: &'a Shared,
    dataset: DatasetId,
    spec: Spec,
    split: Split,
    from: u64,
    /// The train rows that the run takes; `None` for all.
    chosen: Option<HashSet<u64>>,
    /// The train rows whose rationales it reads; `None` for all.
    explained: Option<HashSet<u64>>,
    ledger: Ledger<'a>,
}

impl<'a> Examples<'a> {
    /// Rows with index >= `from`.
    pub(crate) async fn open(
        shared: &'a Shared,
        job: &Distillation,
        plan: &RunPlan,
        split: Split,
        from: u64,
    ) -> StoreResult<Self> {
        let spec = plan.spec(&job.spec);
        let chosen = match split {
            Split::Train if !plan.rows.is_all() => {
                Some(plan.rows.choose(strata::of(shared, job.dataset, &spec.task).await?))
            }
            Split::Train | Split::Validation | Split::Test => None,
        };
        let explained = match plan.share {
            Some(share) if split == Split::Train => {
                Some(probes::rows(shared, job.id, job.dataset, &job.spec, share).await?)
            }
            Some(_) | None => None,
        };
        let ledger = Ledger::new(shared, job.id);
        Ok(Self { shared, dataset: job.dataset, spec, split, from, chosen, explained, ledger })
    }

    /// The run's rows among the next `limit` of the split; `None` at the end.
    pub(crate) async fn next(&mut self, limit: usize) -> StoreResult<Option<Vec<TrainingExample>>> {
        let rows = self.shared.stores.datasets.rows(self.dataset, Some(self.split), self.from, limit).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.from = last.index + 1;
        if self.split != Split::Train {
            return Ok(Some(rows.into_iter().map(judge::measured).collect()));
        }
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            if self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&row.index)) {
                let is_explained = self.explained.as_ref().is_none_or(|rows| rows.contains(&row.index));
                let entries = if is_explained { self.ledger.of(row.index).await? } else { Vec::new() };
                read.push((row, entries));
            }
        }
        let (judging, metric) = (self.spec.judging, self.spec.task.metric);
        let learn = move |(row, entries): (Row, Vec<LedgerEntry>)| {
            let mut example = judge::learnt(&judging, metric, row, &entries);
            bound(&mut example.rationales);
            example
        };
        Ok(Some(apart(move || read.into_iter().map(learn).collect()).await))
    }
}

/// Leaves out what goes beyond [`RATIONALES_BYTES_MAX`].
fn bound(rationales: &mut Vec<AcceptedRationale>) {
    let mut bytes = 0_usize;
    rationales.retain(|rationale| {
        bytes = bytes.saturating_add(rationale.text.len()).saturating_add(rationale.label.len());
        bytes <= RATIONALES_BYTES_MAX
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rationales_of_a_row_go_into_one_message() {
        let of = |bytes: usize| AcceptedRationale {
            sample: 0,
            text: "x".repeat(bytes),
            label: "1".to_owned(),
            weight: 1.0,
        };
        let check = |lengths: &[usize], kept: usize| {
            let mut rationales: Vec<AcceptedRationale> = lengths.iter().map(|bytes| of(*bytes)).collect();
            bound(&mut rationales);
            assert_eq!(rationales.len(), kept, "{lengths:?}");
        };
        check(&[], 0);
        check(&[60_000; 64], 64);
        check(&[4_000_000; 3], 2);
        check(&[RATIONALES_BYTES_MAX, 1], 0);
        check(&[RATIONALES_BYTES_MAX - 1, 1], 1);
    }
}
