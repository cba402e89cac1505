//! Published students and base checkpoints.

use crate::failure::Attempt;
use crate::row::{Cursor, Text, finite_json, integer, json_maybe, number, record, records, text};
use crate::store::{PostgresStore, Tx};
use domain::Timestamp;
use domain::ids::{DistillationId, ModelId, RunId};
use domain::records::{BaseModel, Distillation, Model, NewModel};
use domain::store::{Page, PageRequest, StoreError, StoreResult};
use uuid::Uuid;

struct ModelRow {
    id: Uuid,
    name: String,
    version: i64,
    distillation_id: Uuid,
    run_id: Uuid,
    path: String,
    manifest_sha256: String,
    parameters: i64,
    validation: Option<String>,
    test: Option<String>,
    created_at: i64,
    traceparent: String,
}

/// Models; what is given goes on after `FROM models`.
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

impl TryFrom<ModelRow> for Model {
    type Error = StoreError;

    fn try_from(row: ModelRow) -> StoreResult<Self> {
        Ok(Self {
            id: ModelId::from_uuid(row.id),
            name: row.name,
            version: number("version", row.version)?,
            distillation: DistillationId::from_uuid(row.distillation_id),
            run: RunId::from_uuid(row.run_id),
            path: row.path,
            manifest_sha256: row.manifest_sha256,
            parameters: number("parameters", row.parameters)?,
            validation: json_maybe("validation", row.validation.as_deref())?,
            test: json_maybe("test", row.test.as_deref())?,
            created_at: Timestamp(row.created_at),
            traceparent: row.traceparent,
        })
    }
}

/// The model that a run published.
pub(crate) async fn of_run(tx: &mut Tx, run: RunId) -> Attempt<Model> {
    let row = models!("WHERE run_id = $1", run.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("model of run", run))?)
}

/// The next version of a job's model.
pub(crate) async fn insert(tx: &mut Tx, job: &Distillation, run: RunId, new: &NewModel) -> Attempt<Model> {
    let name = text(&job.spec.name);
    let version = sqlx::query_scalar!(
        "INSERT INTO versions (name, newest) VALUES ($1, 1)
         ON CONFLICT (name) DO UPDATE SET newest = versions.newest + 1 RETURNING newest",
        name.as_ref()
    )
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
    of_run(tx, run).await
}

impl PostgresStore {
    pub(crate) async fn model_get(&self, id: ModelId) -> Attempt<Model> {
        let row = models!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
        Ok(record(row)?.ok_or_else(|| StoreError::not_found("model", id))?)
    }

    pub(crate) async fn model_find(&self, name: &str, version: Option<u64>) -> Attempt<Option<Model>> {
        let row = models!(
            "WHERE name = $1 AND ($2::bigint IS NULL OR version = $2) ORDER BY version DESC LIMIT 1",
            text(name) as Text<'_>,
            version.map(integer::<i64>).transpose()?
        )
        .fetch_optional(self.pool())
        .await;
        record(row)
    }

    pub(crate) async fn model_list(&self, name: Option<&str>, page: &PageRequest) -> Attempt<Page<Model>> {
        let cursor = Cursor::read(page)?;
        let rows = models!(
            "WHERE (created_at, id) < ($1, $2) AND ($3::text IS NULL OR name = $3)
             ORDER BY created_at DESC, id DESC LIMIT $4",
            cursor.created_at,
            cursor.id,
            name.map(text) as Option<Text<'_>>,
            cursor.limit
        )
        .fetch_all(self.pool())
        .await;
        let items: Vec<Model> = records(rows)?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    pub(crate) async fn model_delete(&self, id: ModelId) -> Attempt<Model> {
        let mut tx = self.begin().await?;
        let row = models!("WHERE id = $1 FOR UPDATE", id.as_uuid()).fetch_optional(&mut *tx).await;
        let model = record(row)?.ok_or_else(|| StoreError::not_found("model", id))?;
        sqlx::query!("DELETE FROM models WHERE id = $1", id.as_uuid()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(model)
    }

    pub(crate) async fn model_register_base(&self, name: &str, manifest_sha256: &str) -> Attempt<BaseModel> {
        sqlx::query!(
            "INSERT INTO base_models (name, manifest_sha256, created_at) VALUES ($1, $2, now_ms())
             ON CONFLICT (name) DO NOTHING",
            text(name) as Text<'_>,
            text(manifest_sha256) as Text<'_>
        )
        .execute(self.pool())
        .await?;
        let base = self.model_base(name).await?.ok_or_else(|| StoreError::not_found("base model", name))?;
        if base.manifest_sha256 == manifest_sha256 {
            return Ok(base);
        }
        let words = format!("a base model `{name}` with other files is registered: use another name");
        Err(StoreError::Conflict(words).into())
    }

    pub(crate) async fn model_base(&self, name: &str) -> Attempt<Option<BaseModel>> {
        let row = sqlx::query!(
            "SELECT name, manifest_sha256, created_at FROM base_models WHERE name = $1",
            text(name) as Text<'_>
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| BaseModel {
            name: row.name,
            manifest_sha256: row.manifest_sha256,
            created_at: Timestamp(row.created_at),
        }))
    }
}
