//! Datasets and their rows.

use crate::failure::TransactionResult;
use crate::row::{Text, milliseconds, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::example::Row;
use domain::ids::{DatasetId, RequestId};
use domain::ports::{BATCH_MAX, DatasetStore, Page, PageRequest, StoreError, StoreResult};
use domain::records::{Dataset, RowCounts};
use domain::rows::{Cursor, DatasetRow, ExampleRow, integer, named, number, to_json};
use domain::state::DatasetState;
use domain::{Example, Split};
use std::collections::HashMap;
use std::time::Duration;

/// Datasets; what is given continues the statement after `FROM datasets`.
macro_rules! datasets {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            DatasetRow,
            "SELECT id, name, state, rows, rows_train, rows_validation, rows_test, rows_labelled, fingerprint,
             created_at FROM datasets " + $rest,
            $($argument),*
        )
    };
}

/// A dataset that no other transaction changes until the transaction ends.
async fn lock(tx: &mut Tx, id: DatasetId) -> TransactionResult<Dataset> {
    let row = datasets!("WHERE id = $1 FOR UPDATE", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("dataset", id))?)
}

/// The state of a dataset that no other transaction deletes until the transaction ends; `None` where there is none.
pub(crate) async fn keep(tx: &mut Tx, id: DatasetId) -> TransactionResult<Option<DatasetState>> {
    let state = sqlx::query_scalar!("SELECT state FROM datasets WHERE id = $1 FOR KEY SHARE", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(state.map(|state| named("state", &state)).transpose()?)
}

pub(crate) async fn fetch(tx: &mut Tx, id: DatasetId) -> TransactionResult<Dataset> {
    let row = sqlx::query_file_as!(DatasetRow, "../../statements/dataset.sql", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("dataset", id))?)
}

/// A page of one split's rows.
async fn page_of_split(
    tx: &mut Tx,
    id: DatasetId,
    split: Split,
    from: u64,
    limit: usize,
) -> TransactionResult<Vec<Row>> {
    let rows = sqlx::query_as!(
        ExampleRow,
        "SELECT row_index, example FROM examples WHERE dataset_id = $1 AND split = $2 AND row_index >= $3
         ORDER BY row_index LIMIT $4",
        id.as_uuid(),
        split.as_str(),
        integer::<i64>(from)?,
        limit.clamp(1, BATCH_MAX) as i64
    )
    .fetch_all(&mut **tx)
    .await;
    records(rows)
}

#[async_trait]
impl DatasetStore for PostgresStore {
    async fn create_dataset(&self, request: RequestId, name: &str) -> StoreResult<Dataset> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            sqlx::query!(
                "INSERT INTO datasets (id, request_id, name, state, created_at)
                 VALUES ($1, $2, $3, 'staged', now_ms()) ON CONFLICT (request_id) DO NOTHING",
                DatasetId::generate().as_uuid(),
                request.as_uuid(),
                text(name) as Text<'_>
            )
            .execute(&mut *tx)
            .await?;
            let row = sqlx::query_file_as!(
                DatasetRow,
                "../../statements/dataset_of_request.sql",
                request.as_uuid()
            )
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row.try_into()?)
        })
        .await
    }

    async fn append_rows(&self, id: DatasetId, offset: u64, rows: Vec<Example>) -> StoreResult<u64> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let dataset = lock(&mut tx, id).await?;
            if dataset.state == DatasetState::Committed {
                return Err(StoreError::Conflict(format!(
                    "dataset {id} is committed: nothing can be appended"
                ))
                .into());
            }
            if offset > dataset.rows {
                return Err(StoreError::Conflict(format!(
                    "dataset {id} has {} rows: continue at offset {}, not at {offset}",
                    dataset.rows, dataset.rows
                ))
                .into());
            }
            let known = usize::try_from(dataset.rows - offset).unwrap_or(usize::MAX);
            let new = rows.get(known..).unwrap_or_default();
            if !new.is_empty() {
                let chunk = Chunk::of(dataset.rows, new)?;
                chunk.check_keys(&mut tx, id).await?;
                chunk.insert(&mut tx, id).await?;
            }
            tx.commit().await?;
            Ok(dataset.rows + new.len() as u64)
        })
        .await
    }

    async fn commit_dataset(&self, id: DatasetId, fingerprint: &str) -> StoreResult<Dataset> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let dataset = lock(&mut tx, id).await?;
            if dataset.state == DatasetState::Committed {
                if dataset.fingerprint == fingerprint {
                    return Ok(dataset);
                }
                return Err(StoreError::Conflict(format!("dataset {id} is committed with other rows")).into());
            }
            if dataset.rows == 0 {
                let words = format!("dataset {id} has no rows: upload some, then commit");
                return Err(StoreError::Conflict(words).into());
            }
            sqlx::query_file!(
                "../../statements/commit_dataset.sql",
                text(fingerprint) as Text<'_>,
                id.as_uuid()
            )
            .execute(&mut *tx)
            .await?;
            let dataset = fetch(&mut tx, id).await?;
            tx.commit().await?;
            Ok(dataset)
        })
        .await
    }

    async fn dataset(&self, id: DatasetId) -> StoreResult<Dataset> {
        self.call(|| async {
            let row = sqlx::query_file_as!(DatasetRow, "../../statements/dataset.sql", id.as_uuid())
                .fetch_optional(self.pool())
                .await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("dataset", id))?)
        })
        .await
    }

    async fn find_dataset(&self, name: &str) -> StoreResult<Option<Dataset>> {
        self.call(|| async {
            let row = sqlx::query_file_as!(
                DatasetRow,
                "../../statements/dataset_of_name.sql",
                text(name) as Text<'_>
            )
            .fetch_optional(self.pool())
            .await;
            record(row)
        })
        .await
    }

    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> StoreResult<Option<Dataset>> {
        self.call(|| async {
            let row = sqlx::query_file_as!(
                DatasetRow,
                "../../statements/dataset_of_fingerprint.sql",
                text(fingerprint) as Text<'_>
            )
            .fetch_optional(self.pool())
            .await;
            record(row)
        })
        .await
    }

    async fn list_datasets(&self, page: &PageRequest) -> StoreResult<Page<Dataset>> {
        self.call(|| async {
            let cursor = Cursor::read(page)?;
            let rows = sqlx::query_file_as!(
                DatasetRow,
                "../../statements/datasets.sql",
                cursor.created_at,
                cursor.id,
                cursor.limit
            )
            .fetch_all(self.pool())
            .await;
            let items: Vec<Dataset> = records(rows)?;
            let next =
                cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
            Ok(Page { items, next })
        })
        .await
    }

    async fn delete_dataset(&self, id: DatasetId) -> StoreResult<()> {
        self.call_deletion(|| async {
            let mut tx = self.begin_deletion().await?;
            lock(&mut tx, id).await?;
            let reading = sqlx::query_file_scalar!("../../statements/count_jobs_of_dataset.sql", id.as_uuid())
            .fetch_one(&mut *tx)
            .await?;
            if reading > 0 {
                let words = format!(
                    "dataset {id} is read by {reading} distillations with unfinished work: wait for it, or cancel or \
                     delete them"
                );
                return Err(StoreError::Conflict(words).into());
            }
            sqlx::query_file!("../../statements/delete_dataset.sql", id.as_uuid()).execute(&mut *tx).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn remove_staged(&self, age: Duration) -> StoreResult<u64> {
        let mut removed = 0;
        loop {
            // One at a time; what is being appended to or committed at this moment is not waited for.
            let deleted = self.call_deletion(|| async {
                let mut tx = self.begin_deletion().await?;
                let result = sqlx::query!(
                    "DELETE FROM datasets WHERE id = (
                         SELECT id FROM datasets WHERE state = 'staged' AND created_at < now_ms() - $1::bigint
                         LIMIT 1 FOR UPDATE SKIP LOCKED)",
                    milliseconds(age)
                )
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                Ok(result.rows_affected())
            });
            match deleted.await? {
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
        self.call(|| async {
            let mut tx = self.begin_reading().await?;
            if let Some(split) = split {
                return page_of_split(&mut tx, id, split, from, limit).await;
            }
            let rows = sqlx::query_file_as!(
                ExampleRow,
                "../../statements/rows.sql",
                id.as_uuid(),
                integer::<i64>(from)?,
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(&mut *tx)
            .await;
            records(rows)
        })
        .await
    }

    async fn row_counts(&self, id: DatasetId, split: Split) -> StoreResult<RowCounts> {
        self.call(|| async {
            let row = sqlx::query!(
                "SELECT count(*) AS \"rows!\", count(*) FILTER (WHERE labelled) AS \"labelled!\",
                     count(*) FILTER (WHERE answered) AS \"answered!\"
                 FROM examples WHERE dataset_id = $1 AND split = $2",
                id.as_uuid(),
                split.as_str()
            )
            .fetch_one(self.pool())
            .await?;
            Ok(RowCounts {
                rows: number("rows", row.rows)?,
                labelled: number("labelled", row.labelled)?,
                answered: number("answered", row.answered)?,
            })
        })
        .await
    }
}

/// Rows to be appended, column by column.
struct Chunk<'a> {
    indexes: Vec<i64>,
    splits: Vec<&'static str>,
    keys: Vec<Option<Text<'a>>>,
    labelled: Vec<bool>,
    answered: Vec<bool>,
    examples: Vec<String>,
}

impl<'a> Chunk<'a> {
    fn of(first: u64, rows: &'a [Example]) -> StoreResult<Self> {
        Ok(Self {
            indexes: (first..).take(rows.len()).map(integer).collect::<StoreResult<_>>()?,
            splits: rows.iter().map(|row| row.split.as_str()).collect(),
            keys: rows.iter().map(|row| row.key.as_deref().map(text)).collect(),
            labelled: rows.iter().map(|row| row.label.is_some()).collect(),
            answered: rows.iter().map(|row| !row.answers.is_empty()).collect(),
            examples: rows.iter().map(to_json).collect::<StoreResult<_>>()?,
        })
    }

    /// Refuses a key that another row has, of the dataset or of this chunk, and names both rows.
    async fn check_keys(&self, tx: &mut Tx, dataset: DatasetId) -> TransactionResult<()> {
        let keys: Vec<&str> = self.keys.iter().flatten().map(AsRef::as_ref).collect();
        let known = sqlx::query!(
            "SELECT row_index, key AS \"key!\" FROM unnest($2::text[]) AS new (wanted)
             JOIN examples ON md5(key) = md5(wanted) AND key = wanted
             WHERE dataset_id = $1 AND key IS NOT NULL",
            dataset.as_uuid(),
            &keys as &[&str]
        )
        .fetch_all(&mut **tx)
        .await?;
        let mut rows: HashMap<&str, i64> =
            known.iter().map(|row| (row.key.as_str(), row.row_index)).collect();
        for (key, index) in self.keys.iter().zip(&self.indexes) {
            let Some(key) = key.as_deref() else { continue };
            if let Some(twin) = rows.insert(key, *index) {
                return Err(StoreError::Invalid(format!(
                    "rows {twin} and {index} have the same id `{}`: ids are unique in a dataset",
                    key.chars().take(64).collect::<String>()
                ))
                .into());
            }
        }
        Ok(())
    }

    async fn insert(&self, tx: &mut Tx, dataset: DatasetId) -> TransactionResult<()> {
        sqlx::query!(
            "INSERT INTO examples (dataset_id, row_index, split, key, labelled, answered, example)
             SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::text[])",
            dataset.as_uuid(),
            &self.indexes,
            &self.splits as &[&str],
            &self.keys as &[Option<Text<'_>>],
            &self.labelled,
            &self.answered,
            &self.examples
        )
        .execute(&mut **tx)
        .await?;
        let count =
            |split: Split| self.splits.iter().filter(|found| **found == split.as_str()).count() as i64;
        sqlx::query_file!(
            "../../statements/count_rows.sql",
            self.indexes.len() as i64,
            count(Split::Train),
            count(Split::Validation),
            count(Split::Test),
            self.labelled.iter().filter(|labelled| **labelled).count() as i64,
            dataset.as_uuid()
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}
