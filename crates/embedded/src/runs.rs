//! Runs: leased, fenced, published.

use crate::distillations::{self, append, move_to};
use crate::models;
use crate::row::{integer, internal, named, number, record};
use crate::store::SqliteStore;
use domain::event::EventKind;
use domain::example::Row;
use domain::ids::{DistillationId, ModelId, RunId};
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::records::{LeasedRun, MetricPoint, Model, NewModel, Run};
use domain::spec::LabelSource;
use domain::state::{DistillationState, RunState};
use domain::store::{RunInstruction, StoreError, StoreResult};
use domain::{Example, Split, Timestamp};
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

struct RunRow {
    id: Uuid,
    distillation_id: Uuid,
    state: String,
    fence: i64,
    trainer: String,
    step: i64,
    resume_path: String,
    reason: String,
    created_at: i64,
}

/// Runs; what is given goes on after `FROM runs`.
macro_rules! runs {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            RunRow,
            "SELECT id, distillation_id, state, fence, trainer, step, resume_path, reason, created_at
             FROM runs " + $rest,
            $($argument),*
        )
    };
}

impl TryFrom<RunRow> for Run {
    type Error = StoreError;

    fn try_from(row: RunRow) -> StoreResult<Self> {
        Ok(Self {
            id: RunId::from_uuid(row.id),
            distillation: DistillationId::from_uuid(row.distillation_id),
            state: named("state", &row.state)?,
            fence: number("fence", row.fence)?,
            trainer: row.trainer,
            step: number("step", row.step)?,
            resume_path: row.resume_path,
            reason: row.reason,
            created_at: Timestamp(row.created_at),
        })
    }
}

async fn fetch(transaction: &mut Transaction<'_, Sqlite>, id: RunId) -> StoreResult<Run> {
    let row = runs!("WHERE id = ?", id.as_uuid()).fetch_optional(&mut **transaction).await;
    record(row)?.ok_or_else(|| StoreError::not_found("run", id))
}

/// The run under this fence; another holder's is a conflict.
async fn held(transaction: &mut Transaction<'_, Sqlite>, id: RunId, fence: u64) -> StoreResult<Run> {
    let run = fetch(transaction, id).await?;
    if run.fence == fence && run.state == RunState::Leased {
        return Ok(run);
    }
    Err(StoreError::Conflict(format!(
        "run {id} is {} under fence {}: the lease with fence {fence} is lost",
        run.state, run.fence
    )))
}

async fn set(
    transaction: &mut Transaction<'_, Sqlite>,
    id: RunId,
    state: RunState,
    reason: &str,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE runs SET state = ?, reason = ?, trainer = '', lease_until = 0 WHERE id = ?",
        state.as_str(),
        reason,
        id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

impl SqliteStore {
    pub(crate) async fn run_start(&self, id: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = distillations::fetch(&mut transaction, id).await?;
        if let Some(run) = job.run {
            let run = fetch(&mut transaction, run).await?;
            if job.state == DistillationState::Harvesting {
                move_to(&mut transaction, self.now(), &job, DistillationState::Training, "").await?;
                transaction.commit().await.map_err(internal)?;
            }
            return Ok(run);
        }
        if job.state != DistillationState::Harvesting {
            return Err(StoreError::Conflict(format!("distillation {id} is {}: it cannot train", job.state)));
        }
        let run = RunId::generate();
        let now = self.now();
        sqlx::query!(
            "INSERT INTO runs (id, distillation_id, state, created_at) VALUES (?, ?, 'pending', ?)",
            run.as_uuid(),
            id.as_uuid(),
            now
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        sqlx::query!(
            "UPDATE distillations SET run_id = ?, ledger_fingerprint = ? WHERE id = ?",
            run.as_uuid(),
            ledger_fingerprint,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        move_to(&mut transaction, now, &job, DistillationState::Training, "").await?;
        let run = fetch(&mut transaction, run).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(run)
    }

    pub(crate) async fn run_lease(&self, trainer: &str, lease: Duration) -> StoreResult<Option<LeasedRun>> {
        let now = self.now();
        let waiting = sqlx::query_scalar!(
            "SELECT count(*) FROM runs WHERE state = 'pending' OR state = 'leased' AND lease_until <= ?",
            now
        )
        .fetch_one(self.readers())
        .await
        .map_err(internal)?;
        if waiting == 0 {
            return Ok(None);
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let leased = sqlx::query_scalar!(
            "UPDATE runs SET state = 'leased', fence = fence + 1, trainer = ?1, lease_until = ?2
             WHERE id = (
                 SELECT runs.id FROM runs JOIN distillations ON distillations.id = runs.distillation_id
                 WHERE (runs.state = 'pending' OR runs.state = 'leased' AND runs.lease_until <= ?3)
                 AND distillations.state IN ('training', 'evaluating') ORDER BY runs.created_at LIMIT 1)
             RETURNING id",
            trainer,
            now + lease.as_millis() as i64,
            now
        )
        .fetch_optional(&mut *transaction)
        .await
        .map_err(internal)?;
        let Some(id) = leased else { return Ok(None) };
        let run = fetch(&mut transaction, RunId::from_uuid(id)).await?;
        let job = distillations::fetch(&mut transaction, run.distillation).await?;
        let ledger_fingerprint = sqlx::query_scalar!(
            "SELECT ledger_fingerprint FROM distillations WHERE id = ?",
            job.id.as_uuid()
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        drop(writer);
        let dataset = self.dataset_get(job.dataset).await?;
        Ok(Some(LeasedRun { run, spec: job.spec, dataset, ledger_fingerprint, traceparent: job.traceparent }))
    }

    pub(crate) async fn run_report(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        metrics: Vec<MetricPoint>,
        lease: Duration,
    ) -> StoreResult<RunInstruction> {
        if let Some(point) = metrics.iter().find(|point| !point.value.is_finite()) {
            return Err(StoreError::Invalid(format!(
                "`{}` at step {} is {}: only finite numbers are kept",
                point.name, point.step, point.value
            )));
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        if run.fence == fence && run.state == RunState::Cancelled {
            return Ok(RunInstruction::Cancel);
        }
        held(&mut transaction, id, fence).await?;
        sqlx::query!(
            "UPDATE runs SET step = max(step, ?), lease_until = ? WHERE id = ?",
            integer(step)?,
            self.now() + lease.as_millis() as i64,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        for point in &metrics {
            sqlx::query!(
                "INSERT OR REPLACE INTO metrics (run_id, step, name, value) VALUES (?, ?, ?, ?)",
                id.as_uuid(),
                integer(point.step)?,
                &point.name,
                point.value
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)?;
        Ok(RunInstruction::Continue)
    }

    pub(crate) async fn run_save_resume_point(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        path: &str,
    ) -> StoreResult<Option<String>> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = held(&mut transaction, id, fence).await?;
        sqlx::query!(
            "UPDATE runs SET step = ?, resume_path = ? WHERE id = ?",
            integer(step)?,
            path,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok((!run.resume_path.is_empty() && run.resume_path != path).then_some(run.resume_path))
    }

    pub(crate) async fn run_start_evaluating(&self, id: RunId, fence: u64) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = held(&mut transaction, id, fence).await?;
        let job = distillations::fetch(&mut transaction, run.distillation).await?;
        if job.state == DistillationState::Training {
            move_to(&mut transaction, self.now(), &job, DistillationState::Evaluating, "").await?;
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn run_publish(&self, id: RunId, fence: u64, new: NewModel) -> StoreResult<Model> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let published = fetch(&mut transaction, id).await?;
        if published.fence == fence && published.state == RunState::Succeeded {
            // The answer to the first call was lost.
            return models::of_run(&mut transaction, id).await;
        }
        let run = held(&mut transaction, id, fence).await?;
        let job = distillations::fetch(&mut transaction, run.distillation).await?;
        let model = models::insert(&mut transaction, now, &job, id, &new).await?;
        set(&mut transaction, id, RunState::Succeeded, "").await?;
        sqlx::query!(
            "UPDATE distillations SET model_id = ?, train_seconds = ?, evaluate_seconds = ? WHERE id = ?",
            model.id.as_uuid(),
            new.train_seconds,
            new.evaluate_seconds,
            job.id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        let event = EventKind::Published {
            model: ModelId::from_uuid(model.id.as_uuid()),
            name: model.name.clone(),
            version: model.version,
        };
        append(&mut transaction, now, job.id, &event).await?;
        move_to(&mut transaction, now, &job, DistillationState::Succeeded, "").await?;
        transaction.commit().await.map_err(internal)?;
        Ok(model)
    }

    pub(crate) async fn run_fail(&self, id: RunId, fence: u64, reason: &str) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = held(&mut transaction, id, fence).await?;
        let job = distillations::fetch(&mut transaction, run.distillation).await?;
        set(&mut transaction, id, RunState::Failed, reason).await?;
        // A failed job resumes in training: its evaluation begins anew.
        let from = domain::records::Distillation { state: DistillationState::Training, ..job };
        move_to(&mut transaction, self.now(), &from, DistillationState::Failed, reason).await?;
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn run_release(&self, id: RunId, fence: u64) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        held(&mut transaction, id, fence).await?;
        set(&mut transaction, id, RunState::Pending, "").await?;
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn run_get(&self, id: RunId) -> StoreResult<Run> {
        let row = runs!("WHERE id = ?", id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("run", id))
    }

    pub(crate) async fn run_examples(
        &self,
        id: RunId,
        split: Split,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<TrainingExample>> {
        let job = self.job_get(self.run_get(id).await?.distillation).await?;
        let rows = self.dataset_rows(job.dataset, Some(split), from, limit).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        let mut rationales = self.accepted(job.id, first.index, last.index).await?;
        let examples = rows.into_iter().map(|Row { index, mut example }| {
            let rationales = rationales.remove(&index).unwrap_or_default();
            // What came with the row was judged; the trainer needs only what was accepted.
            example.answers = Vec::new();
            let target = target(job.spec.judging.label, split, &example, &rationales);
            TrainingExample { row: Row { index, example }, target, rationales }
        });
        Ok(examples.collect())
    }

    async fn accepted(
        &self,
        job: DistillationId,
        first: u64,
        last: u64,
    ) -> StoreResult<HashMap<u64, Vec<AcceptedRationale>>> {
        let rows = sqlx::query!(
            "SELECT row_index, rationale, label, weight FROM prompts
             WHERE distillation_id = ? AND purpose = 'train' AND state = 'answered' AND verdict = 'accepted'
             AND row_index BETWEEN ? AND ? ORDER BY row_index, sample, hinted",
            job.as_uuid(),
            integer(first)?,
            integer(last)?
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let mut accepted: HashMap<u64, Vec<AcceptedRationale>> = HashMap::new();
        for row in rows {
            accepted.entry(number("row_index", row.row_index)?).or_default().push(AcceptedRationale {
                text: row.rationale,
                label: row.label.unwrap_or_default(),
                weight: row.weight,
            });
        }
        Ok(accepted)
    }

    pub(crate) async fn run_metrics(
        &self,
        id: RunId,
        name: Option<&str>,
        limit: usize,
    ) -> StoreResult<Vec<MetricPoint>> {
        let rows = sqlx::query!(
            "SELECT step, name, value FROM metrics WHERE run_id = ?1 AND (?2 IS NULL OR name = ?2)
             ORDER BY step, name LIMIT ?3",
            id.as_uuid(),
            name,
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        rows.into_iter()
            .map(|row| Ok(MetricPoint { step: number("step", row.step)?, name: row.name, value: row.value }))
            .collect()
    }
}

/// The label that the student learns. Rows that are measured keep their gold label.
fn target(
    source: LabelSource,
    split: Split,
    example: &Example,
    rationales: &[AcceptedRationale],
) -> Option<String> {
    match (source, split) {
        (LabelSource::Teacher, Split::Train) => rationales.first().map(|rationale| rationale.label.clone()),
        _ => example.label.clone(),
    }
}
