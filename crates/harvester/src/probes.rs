//! The probes of a job that asks until rationales stop helping, as the store has them, and the rows that each of them reads.

use crate::shared::Shared;
use crate::strata;
use domain::ids::{DatasetId, DistillationId};
use domain::ports::{PageRequest, StoreResult};
use domain::records::Run;
use domain::share::Share;
use domain::spec::{Select, Spec};
use domain::state::RunState;
use domain::until;
use std::collections::HashSet;

/// Runs of a job that harvests: its probes.
const RUNS_MAX: usize = 100;

/// The probes of a harvest, in order of their share.
pub(crate) async fn of(shared: &Shared, job: DistillationId) -> StoreResult<Vec<Run>> {
    let page = PageRequest { size: RUNS_MAX, cursor: None };
    let mut runs = shared.stores.runs.list_runs(job, &page).await?.items;
    runs.retain(|run| run.plan.share.is_some());
    runs.sort_by_key(|run| run.plan.share);
    Ok(runs)
}

/// How many probes of a job have been measured.
pub(crate) async fn probed(shared: &Shared, job: DistillationId) -> StoreResult<usize> {
    let probes = of(shared, job).await?;
    Ok(probes.iter().filter(|run| run.state == RunState::Succeeded).count())
}

/// The train rows of a share of a job. What a probe over it reads is the same whenever it is asked: earlier probes have ended.
pub(crate) async fn rows(
    shared: &Shared,
    job: DistillationId,
    dataset: DatasetId,
    spec: &Spec,
    share: Share,
) -> StoreResult<HashSet<u64>> {
    let select = spec.teacher.as_ref().map_or(Select::Stratified, |teacher| teacher.select);
    let mut needed = Vec::new();
    if select == Select::Needed {
        for run in of(shared, job).await?.iter().filter(|run| run.plan.share < Some(share)) {
            needed.push(shared.stores.runs.outcomes(run.id).await?.needed);
        }
    }
    let strata = strata::of(shared, dataset, &spec.task).await?;
    Ok(until::rows_of(share, select, spec.training.seed, &strata, &needed))
}
