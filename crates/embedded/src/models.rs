//! Published students and base checkpoints.

use crate::row::{Cursor, get, integer, internal, json_maybe, number, time, to_json, uuid};
use crate::store::SqliteStore;
use domain::ids::{DistillationId, ModelId, RunId};
use domain::records::{BaseModel, Distillation, Model, NewModel};
use domain::store::{Page, PageRequest, StoreError, StoreResult};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};

fn read(row: &SqliteRow) -> StoreResult<Model> {
    Ok(Model {
        id: ModelId::from_uuid(uuid(row, "id")?),
        name: get(row, "name")?,
        version: number(row, "version")?,
        distillation: DistillationId::from_uuid(uuid(row, "distillation_id")?),
        run: RunId::from_uuid(uuid(row, "run_id")?),
        path: get(row, "path")?,
        manifest_sha256: get(row, "manifest_sha256")?,
        parameters: number(row, "parameters")?,
        validation: json_maybe(row, "validation")?,
        test: json_maybe(row, "test")?,
        created_at: time(row, "created_at")?,
    })
}

fn read_base(row: &SqliteRow) -> StoreResult<BaseModel> {
    Ok(BaseModel {
        name: get(row, "name")?,
        manifest_sha256: get(row, "manifest_sha256")?,
        created_at: time(row, "created_at")?,
    })
}

/// The model that a run published.
pub(crate) async fn of_run(transaction: &mut Transaction<'_, Sqlite>, run: RunId) -> StoreResult<Model> {
    let row = sqlx::query("SELECT * FROM models WHERE run_id = ?")
        .bind(run.as_uuid())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
    row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("model of run", run))
}

/// The next version of a job's model.
pub(crate) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: &Distillation,
    run: RunId,
    new: &NewModel,
) -> StoreResult<Model> {
    let row = sqlx::query(
        "INSERT INTO models (id, name, version, distillation_id, run_id, path, manifest_sha256, parameters, validation, test, created_at)
         SELECT ?1, ?2, coalesce(max(version), 0) + 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM models WHERE name = ?2
         RETURNING *",
    )
    .bind(ModelId::generate().as_uuid())
    .bind(&job.spec.name)
    .bind(job.id.as_uuid())
    .bind(run.as_uuid())
    .bind(&new.path)
    .bind(&new.manifest_sha256)
    .bind(integer(new.parameters)?)
    .bind(new.validation.as_ref().map(to_json).transpose()?)
    .bind(new.test.as_ref().map(to_json).transpose()?)
    .bind(now)
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    read(&row)
}

impl SqliteStore {
    pub(crate) async fn model_get(&self, id: ModelId) -> StoreResult<Model> {
        let row = sqlx::query("SELECT * FROM models WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("model", id))
    }

    pub(crate) async fn model_find(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>> {
        let row = sqlx::query(
            "SELECT * FROM models WHERE name = ?1 AND (?2 IS NULL OR version = ?2) ORDER BY version DESC LIMIT 1",
        )
        .bind(name)
        .bind(version.map(integer).transpose()?)
        .fetch_optional(self.readers())
        .await
        .map_err(internal)?;
        row.as_ref().map(read).transpose()
    }

    pub(crate) async fn model_list(
        &self,
        name: Option<&str>,
        page: &PageRequest,
    ) -> StoreResult<Page<Model>> {
        let cursor = Cursor::read(page)?;
        let rows = sqlx::query(
            "SELECT * FROM models WHERE (created_at, id) < (?1, ?2) AND (?3 IS NULL OR name = ?3)
             ORDER BY created_at DESC, id DESC LIMIT ?4",
        )
        .bind(cursor.created_at)
        .bind(cursor.id)
        .bind(name)
        .bind(cursor.limit)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let items = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    pub(crate) async fn model_delete(&self, id: ModelId) -> StoreResult<Model> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let row = sqlx::query("DELETE FROM models WHERE id = ? RETURNING *")
            .bind(id.as_uuid())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("model", id))
    }

    pub(crate) async fn model_register_base(
        &self,
        name: &str,
        manifest_sha256: &str,
    ) -> StoreResult<BaseModel> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query("INSERT INTO base_models (name, manifest_sha256, created_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(manifest_sha256)
            .bind(self.now())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        let row = sqlx::query("SELECT * FROM base_models WHERE name = ?")
            .bind(name)
            .fetch_one(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        let base = read_base(&row)?;
        if base.manifest_sha256 == manifest_sha256 {
            return Ok(base);
        }
        Err(StoreError::Conflict(format!(
            "a base model `{name}` with other files is registered: use another name"
        )))
    }

    pub(crate) async fn model_base(&self, name: &str) -> StoreResult<Option<BaseModel>> {
        let row = sqlx::query("SELECT * FROM base_models WHERE name = ?")
            .bind(name)
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read_base).transpose()
    }
}
