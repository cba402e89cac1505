//! Datasets and their rows.

use crate::row::{Cursor, get, integer, internal, json, named, number, time, to_json, uuid};
use crate::store::SqliteStore;
use domain::ids::{DatasetId, RequestId};
use domain::records::{Dataset, Row, RowCounts};
use domain::state::DatasetState;
use domain::store::{BATCH_MAX, Page, PageRequest, StoreError, StoreResult};
use domain::{Example, Split};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};

fn read(row: &SqliteRow) -> StoreResult<Dataset> {
    Ok(Dataset {
        id: DatasetId::from_uuid(uuid(row, "id")?),
        name: get(row, "name")?,
        state: named(row, "state")?,
        rows: number(row, "rows")?,
        rows_by_split: [
            number(row, "rows_train")?,
            number(row, "rows_validation")?,
            number(row, "rows_test")?,
        ],
        rows_labelled: number(row, "rows_labelled")?,
        fingerprint: get(row, "fingerprint")?,
        created_at: time(row, "created_at")?,
    })
}

async fn fetch(transaction: &mut Transaction<'_, Sqlite>, id: DatasetId) -> StoreResult<Dataset> {
    let row = sqlx::query("SELECT * FROM datasets WHERE id = ?")
        .bind(id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
    row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("dataset", id))
}

impl SqliteStore {
    pub(crate) async fn dataset_create(&self, request: RequestId, name: &str) -> StoreResult<Dataset> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query(
            "INSERT INTO datasets (id, request_id, name, state, created_at) VALUES (?, ?, ?, 'staged', ?)
             ON CONFLICT (request_id) DO NOTHING",
        )
        .bind(DatasetId::generate().as_uuid())
        .bind(request.as_uuid())
        .bind(name)
        .bind(self.now())
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        let row = sqlx::query("SELECT * FROM datasets WHERE request_id = ?")
            .bind(request.as_uuid())
            .fetch_one(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        read(&row)
    }

    pub(crate) async fn dataset_append(
        &self,
        id: DatasetId,
        offset: u64,
        rows: Vec<Example>,
    ) -> StoreResult<u64> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let dataset = fetch(&mut transaction, id).await?;
        if dataset.state == DatasetState::Committed {
            return Err(StoreError::Conflict(format!("dataset {id} is committed: nothing can be appended")));
        }
        if offset > dataset.rows {
            return Err(StoreError::Conflict(format!(
                "dataset {id} has {} rows: go on at offset {}, not at {offset}",
                dataset.rows, dataset.rows
            )));
        }
        let known = usize::try_from(dataset.rows - offset).unwrap_or(usize::MAX);
        let mut end = dataset.rows;
        for example in rows.iter().skip(known) {
            insert(&mut transaction, id, end, example).await?;
            end += 1;
        }
        transaction.commit().await.map_err(internal)?;
        Ok(end)
    }

    pub(crate) async fn dataset_commit(&self, id: DatasetId, fingerprint: &str) -> StoreResult<Dataset> {
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
        sqlx::query("UPDATE datasets SET state = 'committed', fingerprint = ? WHERE id = ?")
            .bind(fingerprint)
            .bind(id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        let dataset = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(dataset)
    }

    pub(crate) async fn dataset_get(&self, id: DatasetId) -> StoreResult<Dataset> {
        let row = sqlx::query("SELECT * FROM datasets WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("dataset", id))
    }

    pub(crate) async fn dataset_find(&self, name: &str) -> StoreResult<Option<Dataset>> {
        let row = sqlx::query(
            "SELECT * FROM datasets WHERE name = ? AND state = 'committed' ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(name)
        .fetch_optional(self.readers())
        .await
        .map_err(internal)?;
        row.as_ref().map(read).transpose()
    }

    pub(crate) async fn dataset_find_by_fingerprint(
        &self,
        fingerprint: &str,
    ) -> StoreResult<Option<Dataset>> {
        let row = sqlx::query(
            "SELECT * FROM datasets WHERE fingerprint = ? AND state = 'committed'
             ORDER BY created_at DESC, id DESC LIMIT 1",
        )
        .bind(fingerprint)
        .fetch_optional(self.readers())
        .await
        .map_err(internal)?;
        row.as_ref().map(read).transpose()
    }

    pub(crate) async fn dataset_list(&self, page: &PageRequest) -> StoreResult<Page<Dataset>> {
        let cursor = Cursor::read(page)?;
        let rows = sqlx::query(
            "SELECT * FROM datasets WHERE state = 'committed' AND (created_at, id) < (?, ?)
             ORDER BY created_at DESC, id DESC LIMIT ?",
        )
        .bind(cursor.created_at)
        .bind(cursor.id)
        .bind(cursor.limit)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let items = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    pub(crate) async fn dataset_delete(&self, id: DatasetId) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let reading: i64 = sqlx::query_scalar("SELECT count(*) FROM distillations WHERE dataset_id = ?")
            .bind(id.as_uuid())
            .fetch_one(&mut *transaction)
            .await
            .map_err(internal)?;
        if reading > 0 {
            return Err(StoreError::Conflict(format!(
                "dataset {id} is read by {reading} distillations: delete them first"
            )));
        }
        sqlx::query("DELETE FROM datasets WHERE id = ?")
            .bind(id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn dataset_rows(
        &self,
        id: DatasetId,
        split: Option<Split>,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<Row>> {
        let limit = limit.clamp(1, BATCH_MAX) as i64;
        let query = match split {
            None => sqlx::query(
                "SELECT row_index, example FROM examples WHERE dataset_id = ? AND row_index >= ?
                 ORDER BY row_index LIMIT ?",
            )
            .bind(id.as_uuid()),
            Some(split) => sqlx::query(
                "SELECT row_index, example FROM examples WHERE dataset_id = ? AND split = ? AND row_index >= ?
                 ORDER BY row_index LIMIT ?",
            )
            .bind(id.as_uuid())
            .bind(split.as_str()),
        };
        let rows =
            query.bind(integer(from)?).bind(limit).fetch_all(self.readers()).await.map_err(internal)?;
        rows.iter()
            .map(|row| Ok(Row { index: number(row, "row_index")?, example: json(row, "example")? }))
            .collect()
    }

    pub(crate) async fn dataset_row_counts(&self, id: DatasetId, split: Split) -> StoreResult<RowCounts> {
        let row = sqlx::query(
            "SELECT count(*) AS rows, coalesce(sum(labelled), 0) AS labelled, coalesce(sum(answered), 0) AS answered
             FROM examples WHERE dataset_id = ? AND split = ?",
        )
        .bind(id.as_uuid())
        .bind(split.as_str())
        .fetch_one(self.readers())
        .await
        .map_err(internal)?;
        Ok(RowCounts {
            rows: number(&row, "rows")?,
            labelled: number(&row, "labelled")?,
            answered: number(&row, "answered")?,
        })
    }
}

async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    dataset: DatasetId,
    index: u64,
    example: &Example,
) -> StoreResult<()> {
    if let Some(key) = &example.key {
        let twin: Option<i64> =
            sqlx::query_scalar("SELECT row_index FROM examples WHERE dataset_id = ? AND key = ?")
                .bind(dataset.as_uuid())
                .bind(key)
                .fetch_optional(&mut **transaction)
                .await
                .map_err(internal)?;
        if let Some(twin) = twin {
            return Err(StoreError::Invalid(format!(
                "rows {twin} and {index} have the same id `{}`: ids are unique in a dataset",
                key.chars().take(64).collect::<String>()
            )));
        }
    }
    sqlx::query(
        "INSERT INTO examples (dataset_id, row_index, split, key, labelled, answered, example)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(dataset.as_uuid())
    .bind(integer(index)?)
    .bind(example.split.as_str())
    .bind(&example.key)
    .bind(i64::from(example.label.is_some()))
    .bind(i64::from(!example.answers.is_empty()))
    .bind(to_json(example)?)
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    let split = |wanted: Split| i64::from(example.split == wanted);
    sqlx::query(
        "UPDATE datasets SET rows = rows + 1, rows_train = rows_train + ?, rows_validation = rows_validation + ?,
         rows_test = rows_test + ?, rows_labelled = rows_labelled + ? WHERE id = ?",
    )
    .bind(split(Split::Train))
    .bind(split(Split::Validation))
    .bind(split(Split::Test))
    .bind(i64::from(example.label.is_some()))
    .bind(dataset.as_uuid())
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}
