//! The port of datasets.

use super::error::StoreResult;
use super::page::{Page, PageRequest};
use crate::example::{Example, Row, Split};
use crate::ids::{DatasetId, RequestId};
use crate::records::{Dataset, RowCounts};
use async_trait::async_trait;
use std::time::Duration;

/// Datasets: staged, appended to, committed; invisible to `find_dataset` and to distillations until then.
#[async_trait]
pub trait DatasetStore: Send + Sync + 'static {
    /// Begins an upload.
    async fn create_dataset(&self, request: RequestId, name: &str) -> StoreResult<Dataset>;
    /// Appends `rows` at `offset`. Rows below the present end are ignored, so that a repeated chunk does nothing twice;
    /// an offset beyond the end is a conflict that names the end. Returns the new end. Duplicate `key`s are invalid and
    /// named with both row numbers.
    async fn append_rows(&self, dataset: DatasetId, offset: u64, rows: Vec<Example>) -> StoreResult<u64>;
    /// Makes it visible and immutable. Committing again with the same fingerprint does nothing.
    async fn commit_dataset(&self, dataset: DatasetId, fingerprint: &str) -> StoreResult<Dataset>;
    /// One dataset.
    async fn dataset(&self, dataset: DatasetId) -> StoreResult<Dataset>;
    /// The newest committed dataset of that name.
    async fn find_dataset(&self, name: &str) -> StoreResult<Option<Dataset>>;
    /// The newest committed dataset with that fingerprint.
    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> StoreResult<Option<Dataset>>;
    /// Committed datasets, newest first.
    async fn list_datasets(&self, page: &PageRequest) -> StoreResult<Page<Dataset>>;
    /// Deletes it; a conflict while a distillation that is not terminal reads it.
    async fn delete_dataset(&self, dataset: DatasetId) -> StoreResult<()>;
    /// Removes staged datasets whose upload began longer than `age` ago. Returns how many.
    async fn remove_staged(&self, age: Duration) -> StoreResult<u64>;
    /// Up to `limit` rows with index >= `from`, in order, of one split or of all.
    async fn rows(
        &self,
        dataset: DatasetId,
        split: Option<Split>,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<Row>>;
    /// Counts of one split.
    async fn row_counts(&self, dataset: DatasetId, split: Split) -> StoreResult<RowCounts>;
}
