//! Runs: leased, fenced, published.

use crate::jobs::{self, append, apply};
use crate::models;
use crate::row::{internal, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::Split;
use domain::ids::{DistillationId, RunId};
use domain::lifecycle::{self, Publication, RunInstruction, RunTransition};
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::ports::{DatasetStore, JobStore, RunStore, StoreError, StoreResult};
use domain::records::{LeasedRun, MetricPoint, Model, NewModel, Run, training_example};
use domain::rows::{MetricRow, RunRow, finite, integer, number};
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::time::Duration;

/// Runs; what is given continues the statement after `FROM runs`.
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

async fn find(transaction: &mut Transaction<'_, Sqlite>, id: RunId) -> StoreResult<Option<Run>> {
    record(runs!("WHERE id = ?", id.as_uuid()).fetch_optional(&mut **transaction).await)
}

async fn fetch(transaction: &mut Transaction<'_, Sqlite>, id: RunId) -> StoreResult<Run> {
    find(transaction, id).await?.ok_or_else(|| StoreError::not_found("run", id))
}

/// Ends a run's lease and writes what else the transition says.
async fn end(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    run: &Run,
    transition: RunTransition,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE runs SET state = ?, reason = ?, trainer = '', lease_until = 0 WHERE id = ?",
        transition.state.as_str(),
        transition.reason,
        run.id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    for event in &transition.events {
        append(transaction, now, run.distillation, event).await?;
    }
    apply(transaction, now, run.distillation, transition.job).await
}

#[async_trait]
impl RunStore for SqliteStore {
    async fn start_training(&self, id: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = jobs::fetch(&mut transaction, id).await?;
        let transition = lifecycle::start_training(&job)?;
        let run = match job.run {
            Some(run) => run,
            None => insert(&mut transaction, now, id, ledger_fingerprint).await?,
        };
        apply(&mut transaction, now, id, transition).await?;
        let run = fetch(&mut transaction, run).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(run)
    }

    async fn lease_run(&self, trainer: &str, lease: Duration) -> StoreResult<Option<LeasedRun>> {
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
        let job = jobs::fetch(&mut transaction, run.distillation).await?;
        let ledger_fingerprint = sqlx::query_scalar!(
            "SELECT ledger_fingerprint FROM distillations WHERE id = ?",
            job.id.as_uuid()
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        drop(writer);
        let dataset = self.dataset(job.dataset).await?;
        Ok(Some(LeasedRun { run, spec: job.spec, dataset, ledger_fingerprint, traceparent: job.traceparent }))
    }

    async fn report_run(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        metrics: Vec<MetricPoint>,
        lease: Duration,
    ) -> StoreResult<RunInstruction> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = find(&mut transaction, id).await?;
        if lifecycle::report(run.as_ref(), fence)? == RunInstruction::Cancel {
            return Ok(RunInstruction::Cancel);
        }
        sqlx::query!(
            "UPDATE runs SET step = max(step, ?), lease_until = ? WHERE id = ?",
            integer::<i64>(step)?,
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
                integer::<i64>(point.step)?,
                &point.name,
                finite(point.value)?
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)?;
        Ok(RunInstruction::Continue)
    }

    async fn save_resume_point(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        path: &str,
    ) -> StoreResult<Option<String>> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        lifecycle::hold(&run, fence)?;
        sqlx::query!(
            "UPDATE runs SET step = ?, resume_path = ? WHERE id = ?",
            integer::<i64>(step)?,
            path,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok((!run.resume_path.is_empty() && run.resume_path != path).then_some(run.resume_path))
    }

    async fn start_evaluating(&self, id: RunId, fence: u64) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        let job = jobs::fetch(&mut transaction, run.distillation).await?;
        let transition = lifecycle::start_evaluating(&job, &run, fence)?;
        apply(&mut transaction, self.now(), job.id, transition).await?;
        transaction.commit().await.map_err(internal)
    }

    async fn publish_run(&self, id: RunId, fence: u64, new: NewModel) -> StoreResult<Model> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        if lifecycle::publication(&run, fence)? == Publication::Repeated {
            return models::of_run(&mut transaction, id).await;
        }
        let job = jobs::fetch(&mut transaction, run.distillation).await?;
        let model = models::insert(&mut transaction, now, &job, id, &new).await?;
        sqlx::query!(
            "UPDATE distillations SET model_id = ?, train_seconds = ?, evaluate_seconds = ? WHERE id = ?",
            model.id.as_uuid(),
            finite(new.train_seconds)?,
            finite(new.evaluate_seconds)?,
            job.id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        end(&mut transaction, now, &run, lifecycle::publish(&job, &run, &model)).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(model)
    }

    async fn fail_run(&self, id: RunId, fence: u64, reason: &str) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        let job = jobs::fetch(&mut transaction, run.distillation).await?;
        let transition = lifecycle::fail_run(&job, &run, fence, reason)?;
        end(&mut transaction, self.now(), &run, transition).await?;
        transaction.commit().await.map_err(internal)
    }

    async fn release_run(&self, id: RunId, fence: u64) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        let transition = lifecycle::release_run(&run, fence)?;
        end(&mut transaction, self.now(), &run, transition).await?;
        transaction.commit().await.map_err(internal)
    }

    async fn run(&self, id: RunId) -> StoreResult<Run> {
        let row = runs!("WHERE id = ?", id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("run", id))
    }

    async fn training_examples(
        &self,
        id: RunId,
        split: Split,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<TrainingExample>> {
        let job = self.distillation(self.run(id).await?.distillation).await?;
        let rows = self.rows(job.dataset, Some(split), from, limit).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        let mut rationales = self.accepted(job.id, first.index, last.index).await?;
        let examples = rows.into_iter().map(|row| {
            let rationales = rationales.remove(&row.index).unwrap_or_default();
            training_example(row, split, job.spec.judging.label, rationales)
        });
        Ok(examples.collect())
    }

    async fn metrics(&self, id: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>> {
        let rows = sqlx::query_as!(
            MetricRow,
            "SELECT step, name, value FROM metrics WHERE run_id = ?1 AND (?2 IS NULL OR name = ?2)
             ORDER BY step, name LIMIT ?3",
            id.as_uuid(),
            name,
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(self.readers())
        .await;
        records(rows)
    }
}

impl SqliteStore {
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
            integer::<i64>(first)?,
            integer::<i64>(last)?
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
}

/// Makes a job's run.
async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: DistillationId,
    ledger_fingerprint: &str,
) -> StoreResult<RunId> {
    let run = RunId::generate();
    sqlx::query!(
        "INSERT INTO runs (id, distillation_id, state, created_at) VALUES (?, ?, 'pending', ?)",
        run.as_uuid(),
        job.as_uuid(),
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    sqlx::query!(
        "UPDATE distillations SET run_id = ?, ledger_fingerprint = ? WHERE id = ?",
        run.as_uuid(),
        ledger_fingerprint,
        job.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(run)
}
