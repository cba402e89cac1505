//! Datasets and their rows.

use crate::row::{internal, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::example::Row;
use domain::ids::{DatasetId, RequestId};
use domain::ports::{BATCH_MAX, DatasetStore, Page, PageRequest, StoreError, StoreResult};
use domain::records::{Dataset, RowCounts};
use domain::rows::{Cursor, DatasetRow, ExampleRow, integer, number, to_json};
use domain::state::DatasetState;
use domain::{Example, Split};
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::time::Duration;

async fn fetch(transaction: &mut Transaction<'_, Sqlite>, id: DatasetId) -> StoreResult<Dataset> {
    let row = sqlx::query_file_as!(DatasetRow, "../../statements/dataset.sql", id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await;
    record(row)?.ok_or_else(|| StoreError::not_found("dataset", id))
}

/// Whether there is a dataset of that id.
pub(crate) async fn exists(transaction: &mut Transaction<'_, Sqlite>, id: DatasetId) -> StoreResult<bool> {
    let count = sqlx::query_scalar!("SELECT count(*) FROM datasets WHERE id = ?", id.as_uuid())
        .fetch_one(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(count > 0)
}

#[async_trait]
impl DatasetStore for SqliteStore {
    async fn create_dataset(&self, request: RequestId, name: &str) -> StoreResult<Dataset> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "INSERT INTO datasets (id, request_id, name, state, created_at) VALUES (?, ?, ?, 'staged', ?)
             ON CONFLICT (request_id) DO NOTHING",
            DatasetId::generate().as_uuid(),
            request.as_uuid(),
            name,
            self.now()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        let row =
            sqlx::query_file_as!(DatasetRow, "../../statements/dataset_of_request.sql", request.as_uuid())
                .fetch_one(&mut *transaction)
                .await
                .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        row.try_into()
    }

    async fn append_rows(&self, id: DatasetId, offset: u64, rows: Vec<Example>) -> StoreResult<u64> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let dataset = fetch(&mut transaction, id).await?;
        if dataset.state == DatasetState::Committed {
            return Err(StoreError::Conflict(format!("dataset {id} is committed: nothing can be appended")));
        }
        if offset > dataset.rows {
            return Err(StoreError::Conflict(format!(
                "dataset {id} has {} rows: continue at offset {}, not at {offset}",
                dataset.rows, dataset.rows
            )));
        }
        let known = usize::try_from(dataset.rows - offset).unwrap_or(usize::MAX);
        let new = rows.get(known..).unwrap_or_default();
        if !new.is_empty() {
            check_keys(&mut transaction, id, dataset.rows, new).await?;
            insert(&mut transaction, id, dataset.rows, new).await?;
            count(&mut transaction, id, new).await?;
        }
        transaction.commit().await.map_err(internal)?;
        Ok(dataset.rows + new.len() as u64)
    }

    async fn commit_dataset(&self, id: DatasetId, fingerprint: &str) -> StoreResult<Dataset> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let dataset = fetch(&mut transaction, id).await?;
        if dataset.state == DatasetState::Committed {
            if dataset.fingerprint == fingerprint {
                return Ok(dataset);
            }
            return Err(StoreError::Conflict(format!("dataset {id} is committed with other rows")));
        }
        if dataset.rows == 0 {
            return Err(StoreError::Conflict(format!("dataset {id} has no rows: upload some, then commit")));
        }
        sqlx::query_file!("../../statements/commit_dataset.sql", fingerprint, id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        let dataset = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(dataset)
    }

    async fn dataset(&self, id: DatasetId) -> StoreResult<Dataset> {
        let row = sqlx::query_file_as!(DatasetRow, "../../statements/dataset.sql", id.as_uuid())
            .fetch_optional(self.readers())
            .await;
        record(row)?.ok_or_else(|| StoreError::not_found("dataset", id))
    }

    async fn find_dataset(&self, name: &str) -> StoreResult<Option<Dataset>> {
        let row = sqlx::query_file_as!(DatasetRow, "../../statements/dataset_of_name.sql", name)
            .fetch_optional(self.readers())
            .await;
        record(row)
    }

    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> StoreResult<Option<Dataset>> {
        let row =
            sqlx::query_file_as!(DatasetRow, "../../statements/dataset_of_fingerprint.sql", fingerprint)
                .fetch_optional(self.readers())
                .await;
        record(row)
    }

    async fn list_datasets(&self, page: &PageRequest) -> StoreResult<Page<Dataset>> {
        let cursor = Cursor::read(page)?;
        let rows = sqlx::query_file_as!(
            DatasetRow,
            "../../statements/datasets.sql",
            cursor.created_at,
            cursor.id,
            cursor.limit
        )
        .fetch_all(self.readers())
        .await;
        let items: Vec<Dataset> = records(rows)?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    async fn delete_dataset(&self, id: DatasetId) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let reading = sqlx::query_file_scalar!("../../statements/count_jobs_of_dataset.sql", id.as_uuid())
            .fetch_one(&mut *transaction)
            .await
            .map_err(internal)?;
        if reading > 0 {
            return Err(StoreError::Conflict(format!(
                "dataset {id} is read by {reading} distillations with unfinished work: wait for it, or cancel or delete them"
            )));
        }
        sqlx::query_file!("../../statements/delete_dataset.sql", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn remove_staged(&self, age: Duration) -> StoreResult<u64> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let before = self.now().saturating_sub(age);
        let mut removed = 0;
        loop {
            let mut writer = self.write().await?;
            let mut transaction = writer.begin().await?;
            // One at a time: others write in between.
            let result = sqlx::query!(
                "DELETE FROM datasets WHERE id = (
                     SELECT id FROM datasets WHERE state = 'staged' AND created_at < ? LIMIT 1)",
                before
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
            transaction.commit().await.map_err(internal)?;
            match result.rows_affected() {
                0 => return Ok(removed),
                more => removed += more,
            }
        }
    }

    async fn rows(
        &self,
        id: DatasetId,
        split: Option<Split>,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<Row>> {
        let limit = limit.clamp(1, BATCH_MAX) as i64;
        let rows = match split {
            None => {
                sqlx::query_file_as!(
                    ExampleRow,
                    "../../statements/rows.sql",
                    id.as_uuid(),
                    integer::<i64>(from)?,
                    limit
                )
                .fetch_all(self.readers())
                .await
            }
            Some(split) => {
                sqlx::query_as!(
                    ExampleRow,
                    "SELECT row_index, example FROM examples INDEXED BY examples_by_split
                     WHERE dataset_id = ? AND split = ? AND row_index >= ? ORDER BY row_index LIMIT ?",
                    id.as_uuid(),
                    split.as_str(),
                    integer::<i64>(from)?,
                    limit
                )
                .fetch_all(self.readers())
                .await
            }
        };
        records(rows)
    }

    async fn row_counts(&self, id: DatasetId, split: Split) -> StoreResult<RowCounts> {
        let row = sqlx::query!(
            "SELECT count(*) AS rows, coalesce(sum(labelled), 0) AS labelled,
                 coalesce(sum(answered), 0) AS answered
             FROM examples WHERE dataset_id = ? AND split = ?",
            id.as_uuid(),
            split.as_str()
        )
        .fetch_one(self.readers())
        .await
        .map_err(internal)?;
        Ok(RowCounts {
            rows: number("rows", row.rows)?,
            labelled: number("labelled", row.labelled)?,
            answered: number("answered", row.answered)?,
        })
    }
}

/// Refuses a key that another row has, of the dataset or among the new rows, and names both rows.
async fn check_keys(
    transaction: &mut Transaction<'_, Sqlite>,
    dataset: DatasetId,
    first: u64,
    rows: &[Example],
) -> StoreResult<()> {
    let keys: Vec<&str> = rows.iter().filter_map(|row| row.key.as_deref()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let stored = sqlx::query!(
        "SELECT row_index AS \"row_index!\", examples.key AS \"key!\" FROM json_each(?2) AS new
         CROSS JOIN examples ON dataset_id = ?1 AND examples.key = new.value",
        dataset.as_uuid(),
        to_json(&keys)?
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(internal)?;
    let mut known = HashMap::new();
    for row in &stored {
        known.insert(row.key.as_str(), number("row_index", row.row_index)?);
    }
    for (row, index) in rows.iter().zip(first..) {
        let Some(key) = row.key.as_deref() else { continue };
        if let Some(twin) = known.insert(key, index) {
            return Err(StoreError::Invalid(format!(
                "rows {twin} and {index} have the same id `{}`: ids are unique in a dataset",
                key.chars().take(64).collect::<String>()
            )));
        }
    }
    Ok(())
}

/// Inserts all rows by one statement: one statement a row is what an import would spend its time on.
async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    dataset: DatasetId,
    first: u64,
    rows: &[Example],
) -> StoreResult<()> {
    let columns: Vec<_> = rows
        .iter()
        .map(|row| (row.split.as_str(), &row.key, row.label.is_some(), !row.answers.is_empty(), row))
        .collect();
    sqlx::query!(
        "INSERT INTO examples (dataset_id, row_index, split, key, labelled, answered, example)
         SELECT ?1, ?2 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value -> 4 FROM json_each(?3)",
        dataset.as_uuid(),
        integer::<i64>(first)?,
        to_json(&columns)?
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Adds rows to the dataset's counts.
async fn count(
    transaction: &mut Transaction<'_, Sqlite>,
    dataset: DatasetId,
    rows: &[Example],
) -> StoreResult<()> {
    let count = |wanted: fn(&Example) -> bool| rows.iter().filter(|row| wanted(row)).count() as i64;
    sqlx::query_file!(
        "../../statements/count_rows.sql",
        count(|_| true),
        count(|row| row.split == Split::Train),
        count(|row| row.split == Split::Validation),
        count(|row| row.split == Split::Test),
        count(|row| row.label.is_some()),
        dataset.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}
