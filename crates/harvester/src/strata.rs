//! The train rows of a dataset with the stratum of each: what fractions and shares of them are chosen from.

use crate::shared::Shared;
use domain::ids::DatasetId;
use domain::ports::{BATCH_MAX, StoreResult};
use domain::subset::Stratum;
use domain::{Split, Task};

/// All of them, in order.
pub(crate) async fn of(shared: &Shared, dataset: DatasetId, task: &Task) -> StoreResult<Vec<(u64, Stratum)>> {
    let (mut strata, mut from) = (Vec::new(), 0);
    loop {
        let rows = shared.stores.datasets.rows(dataset, Some(Split::Train), from, BATCH_MAX).await?;
        let Some(last) = rows.last() else { return Ok(strata) };
        from = last.index + 1;
        strata.extend(rows.iter().map(|row| (row.index, Stratum::of(task, &row.example))));
    }
}
