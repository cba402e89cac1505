//! Published students and base checkpoints.

use crate::failure::TransactionResult;
use crate::row::{Text, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::Timestamp;
use domain::ids::{ModelId, RunId};
use domain::ports::{ModelStore, Page, PageRequest, StoreError, StoreResult};
use domain::records::{BaseModel, Distillation, Model};
use domain::rows::{Cursor, ModelRow, finite_json, integer};
use domain::run::RunResult;

/// Models; what is given continues the statement after `FROM models`.
macro_rules! models {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            ModelRow,
            "SELECT id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, validation,
             test, created_at, traceparent FROM models " + $rest,
            $($argument),*
        )
    };
}

/// The model that a run published; a run that is not its job's final one has none.
pub(crate) async fn of_run(tx: &mut Tx, run: RunId) -> TransactionResult<Option<Model>> {
    record(
        sqlx::query_file_as!(ModelRow, "../../statements/model_of_run.sql", run.as_uuid())
            .fetch_optional(&mut **tx)
            .await,
    )
}

/// The next version of a job's model.
pub(crate) async fn insert(
    tx: &mut Tx,
    job: &Distillation,
    run: RunId,
    new: &RunResult,
) -> TransactionResult<Model> {
    let name = text(&job.spec.name);
    let version = sqlx::query_file_scalar!("../../statements/next_version.sql", name.as_ref())
        .fetch_one(&mut **tx)
        .await?;
    sqlx::query!(
        "INSERT INTO models (id, name, version, distillation_id, run_id, path, manifest_sha256, parameters,
             validation, test, traceparent, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now_ms())",
        ModelId::generate().as_uuid(),
        name.as_ref(),
        version,
        job.id.as_uuid(),
        run.as_uuid(),
        text(&new.path) as Text<'_>,
        text(&new.manifest_sha256) as Text<'_>,
        integer::<i64>(new.parameters)?,
        new.validation.as_ref().map(finite_json).transpose()?,
        new.test.as_ref().map(finite_json).transpose()?,
        text(&job.traceparent) as Text<'_>
    )
    .execute(&mut **tx)
    .await?;
    Ok(of_run(tx, run).await?.ok_or_else(|| StoreError::not_found("model of run", run))?)
}

#[async_trait]
impl ModelStore for PostgresStore {
    async fn model(&self, id: ModelId) -> StoreResult<Model> {
        self.call(|| async {
            let row = sqlx::query_file_as!(ModelRow, "../../statements/model.sql", id.as_uuid())
                .fetch_optional(self.pool())
                .await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("model", id))?)
        })
        .await
    }

    async fn find_model(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>> {
        self.call(|| async {
            let row = sqlx::query_file_as!(
                ModelRow,
                "../../statements/model_of_name.sql",
                text(name) as Text<'_>,
                version.map(integer::<i64>).transpose()?
            )
            .fetch_optional(self.pool())
            .await;
            record(row)
        })
        .await
    }

    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> StoreResult<Page<Model>> {
        self.call(|| async {
            let cursor = Cursor::read(page)?;
            let rows = sqlx::query_file_as!(
                ModelRow,
                "../../statements/models.sql",
                cursor.created_at,
                cursor.id,
                name.map(text) as Option<Text<'_>>,
                cursor.limit
            )
            .fetch_all(self.pool())
            .await;
            let items: Vec<Model> = records(rows)?;
            let next =
                cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
            Ok(Page { items, next })
        })
        .await
    }

    async fn delete_model(&self, id: ModelId) -> StoreResult<Model> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let row = models!("WHERE id = $1 FOR UPDATE", id.as_uuid()).fetch_optional(&mut *tx).await;
            let model = record(row)?.ok_or_else(|| StoreError::not_found("model", id))?;
            sqlx::query_file!("../../statements/delete_model.sql", id.as_uuid()).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(model)
        })
        .await
    }

    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> StoreResult<BaseModel> {
        self.call(|| async {
            sqlx::query!(
                "INSERT INTO base_models (name, manifest_sha256, created_at) VALUES ($1, $2, now_ms())
                 ON CONFLICT (name) DO NOTHING",
                text(name) as Text<'_>,
                text(manifest_sha256) as Text<'_>
            )
            .execute(self.pool())
            .await?;
            let base =
                self.base_model(name).await?.ok_or_else(|| StoreError::not_found("base model", name))?;
            if base.manifest_sha256 == manifest_sha256 {
                return Ok(base);
            }
            let words = format!("a base model `{name}` with other files is registered: use another name");
            Err(StoreError::Conflict(words).into())
        })
        .await
    }

    async fn base_model(&self, name: &str) -> StoreResult<Option<BaseModel>> {
        self.call(|| async {
            let row = sqlx::query_file!("../../statements/base_model.sql", text(name) as Text<'_>)
                .fetch_optional(self.pool())
                .await?;
            Ok(row.map(|row| BaseModel {
                name: row.name,
                manifest_sha256: row.manifest_sha256,
                created_at: Timestamp(row.created_at),
            }))
        })
        .await
    }
}
