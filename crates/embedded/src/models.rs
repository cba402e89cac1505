//! Published students and base checkpoints.

use crate::row::{internal, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::Timestamp;
use domain::ids::{ModelId, RunId};
use domain::ports::{ModelStore, Page, PageRequest, StoreError, StoreResult};
use domain::records::{BaseModel, Distillation, Model};
use domain::rows::{Cursor, ModelRow, finite_json, integer};
use domain::run::RunResult;
use sqlx::{Sqlite, Transaction};

async fn fetch(transaction: &mut Transaction<'_, Sqlite>, id: ModelId) -> StoreResult<Model> {
    let row = sqlx::query_file_as!(ModelRow, "../../statements/model.sql", id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await;
    record(row)?.ok_or_else(|| StoreError::not_found("model", id))
}

/// The model that a run published; a run that is not its job's final one has none.
pub(crate) async fn of_run(
    transaction: &mut Transaction<'_, Sqlite>,
    run: RunId,
) -> StoreResult<Option<Model>> {
    record(
        sqlx::query_file_as!(ModelRow, "../../statements/model_of_run.sql", run.as_uuid())
            .fetch_optional(&mut **transaction)
            .await,
    )
}

/// The next version of a job's model.
pub(crate) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: &Distillation,
    run: RunId,
    new: &RunResult,
) -> StoreResult<Model> {
    let version = sqlx::query_file_scalar!("../../statements/next_version.sql", &job.spec.name)
        .fetch_one(&mut **transaction)
        .await
        .map_err(internal)?;
    let id = ModelId::generate();
    sqlx::query!(
        "INSERT INTO models (id, name, version, distillation_id, run_id, path, manifest_sha256, parameters,
             validation, test, created_at, traceparent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        id.as_uuid(),
        &job.spec.name,
        version,
        job.id.as_uuid(),
        run.as_uuid(),
        &new.path,
        &new.manifest_sha256,
        integer::<i64>(new.parameters)?,
        new.validation.as_ref().map(finite_json).transpose()?,
        new.test.as_ref().map(finite_json).transpose()?,
        now,
        &job.traceparent
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    fetch(transaction, id).await
}

#[async_trait]
impl ModelStore for SqliteStore {
    async fn model(&self, id: ModelId) -> StoreResult<Model> {
        let row = sqlx::query_file_as!(ModelRow, "../../statements/model.sql", id.as_uuid())
            .fetch_optional(self.readers())
            .await;
        record(row)?.ok_or_else(|| StoreError::not_found("model", id))
    }

    async fn find_model(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>> {
        let row = sqlx::query_file_as!(
            ModelRow,
            "../../statements/model_of_name.sql",
            name,
            version.map(integer::<i64>).transpose()?
        )
        .fetch_optional(self.readers())
        .await;
        record(row)
    }

    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> StoreResult<Page<Model>> {
        let cursor = Cursor::read(page)?;
        let rows = sqlx::query_file_as!(
            ModelRow,
            "../../statements/models.sql",
            cursor.created_at,
            cursor.id,
            name,
            cursor.limit
        )
        .fetch_all(self.readers())
        .await;
        let items: Vec<Model> = records(rows)?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    async fn delete_model(&self, id: ModelId) -> StoreResult<Model> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let model = fetch(&mut transaction, id).await?;
        sqlx::query_file!("../../statements/delete_model.sql", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(model)
    }

    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> StoreResult<BaseModel> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "INSERT INTO base_models (name, manifest_sha256, created_at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO NOTHING",
            name,
            manifest_sha256,
            self.now()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        drop(writer);
        let base = self.base_model(name).await?.ok_or_else(|| StoreError::not_found("base model", name))?;
        if base.manifest_sha256 == manifest_sha256 {
            return Ok(base);
        }
        Err(StoreError::Conflict(format!(
            "a base model `{name}` with other files is registered: use another name"
        )))
    }

    async fn base_model(&self, name: &str) -> StoreResult<Option<BaseModel>> {
        let row = sqlx::query_file!("../../statements/base_model.sql", name)
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        Ok(row.map(|row| BaseModel {
            name: name.to_owned(),
            manifest_sha256: row.manifest_sha256,
            created_at: Timestamp(row.created_at),
        }))
    }
}
