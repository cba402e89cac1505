//! Runs: leased, fenced, published.

use crate::datasets;
use crate::failure::Attempt;
use crate::jobs::{self, append, apply};
use crate::models;
use crate::row::{Text, milliseconds, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::Split;
use domain::ids::{DatasetId, DistillationId, RunId};
use domain::lifecycle::{self, Publication, RunInstruction, RunTransition};
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::ports::{RunStore, StoreError, StoreResult};
use domain::records::{Distillation, LeasedRun, MetricPoint, Model, NewModel, Run, training_example};
use domain::rows::{MetricRow, RunRow, finite, integer, json, number};
use domain::spec::Spec;
use std::collections::{BTreeMap, HashMap};
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

async fn fetch(tx: &mut Tx, id: RunId) -> Attempt<Run> {
    let row = runs!("WHERE id = $1", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
}

/// A run that no other transaction changes until the transaction ends; `None` where there is none.
async fn lock(tx: &mut Tx, id: RunId) -> Attempt<Option<Run>> {
    record(runs!("WHERE id = $1 FOR NO KEY UPDATE", id.as_uuid()).fetch_optional(&mut **tx).await)
}

/// A run and its job, both locked: the job first, as everywhere.
async fn lock_with_job(tx: &mut Tx, id: RunId) -> Attempt<(Run, Distillation)> {
    let job = sqlx::query_scalar!("SELECT distillation_id FROM runs WHERE id = $1", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| StoreError::not_found("run", id))?;
    let job = jobs::lock(tx, DistillationId::from_uuid(job)).await?;
    let run = lock(tx, id).await?.ok_or_else(|| StoreError::not_found("run", id))?;
    Ok((run, job))
}

/// Ends the lease of a locked run and writes what else the transition says.
async fn end(tx: &mut Tx, run: &Run, transition: RunTransition) -> Attempt<()> {
    sqlx::query!(
        "UPDATE runs SET state = $1, reason = $2, trainer = '', lease_until = 0 WHERE id = $3",
        transition.state.as_str(),
        text(&transition.reason) as Text<'_>,
        run.id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    for event in &transition.events {
        append(tx, run.distillation, event).await?;
    }
    apply(tx, run.distillation, transition.job).await
}

/// Makes the run of a locked job.
async fn insert(tx: &mut Tx, job: DistillationId, ledger_fingerprint: &str) -> Attempt<RunId> {
    let run = RunId::generate();
    sqlx::query!(
        "INSERT INTO runs (id, distillation_id, state, created_at) VALUES ($1, $2, 'pending', now_ms())",
        run.as_uuid(),
        job.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "UPDATE distillations SET run_id = $1, ledger_fingerprint = $2 WHERE id = $3",
        run.as_uuid(),
        text(ledger_fingerprint) as Text<'_>,
        job.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(run)
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn start_training(&self, id: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let job = jobs::lock(&mut tx, id).await?;
            let transition = lifecycle::start_training(&job)?;
            let run = match job.run {
                Some(run) => run,
                None => insert(&mut tx, id, ledger_fingerprint).await?,
            };
            apply(&mut tx, id, transition).await?;
            let run = fetch(&mut tx, run).await?;
            tx.commit().await?;
            Ok(run)
        })
        .await
    }

    async fn lease_run(&self, trainer: &str, lease: Duration) -> StoreResult<Option<LeasedRun>> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let leased = sqlx::query_scalar!(
                "WITH waiting AS (
                     SELECT runs.id FROM runs JOIN distillations ON distillations.id = distillation_id
                     WHERE runs.state IN ('pending', 'leased')
                     AND (runs.state = 'pending' OR lease_until <= now_ms())
                     AND distillations.state IN ('training', 'evaluating')
                     ORDER BY runs.created_at, runs.id LIMIT 1 FOR NO KEY UPDATE OF runs SKIP LOCKED
                 )
                 UPDATE runs SET state = 'leased', fence = fence + 1, trainer = $1, lease_until = now_ms() + $2
                 FROM waiting WHERE runs.id = waiting.id RETURNING runs.id",
                text(trainer) as Text<'_>,
                milliseconds(lease)
            )
            .fetch_optional(&mut *tx)
            .await?;
            let Some(id) = leased else { return Ok(None) };
            let run = fetch(&mut tx, RunId::from_uuid(id)).await?;
            let job = sqlx::query!(
                "SELECT spec, dataset_id, ledger_fingerprint, traceparent FROM distillations WHERE id = $1",
                run.distillation.as_uuid()
            )
            .fetch_one(&mut *tx)
            .await?;
            let spec: Spec = json("spec", &job.spec)?;
            let dataset = datasets::fetch(&mut tx, DatasetId::from_uuid(job.dataset_id)).await?;
            tx.commit().await?;
            let (ledger_fingerprint, traceparent) = (job.ledger_fingerprint, job.traceparent);
            Ok(Some(LeasedRun { run, spec, dataset, ledger_fingerprint, traceparent }))
        })
        .await
    }

    async fn report_run(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        metrics: Vec<MetricPoint>,
        lease: Duration,
    ) -> StoreResult<RunInstruction> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let run = lock(&mut tx, id).await?;
            let instruction = lifecycle::report(run.as_ref(), fence)?;
            let Some(run) = run.filter(|_| instruction == RunInstruction::Continue) else {
                return Ok(instruction);
            };
            sqlx::query!(
                "UPDATE runs SET step = $1, lease_until = now_ms() + $2 WHERE id = $3",
                integer::<i64>(step.max(run.step))?,
                milliseconds(lease),
                id.as_uuid()
            )
            .execute(&mut *tx)
            .await?;
            write_metrics(&mut tx, id, &metrics).await?;
            tx.commit().await?;
            Ok(instruction)
        })
        .await
    }

    async fn save_resume_point(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        path: &str,
    ) -> StoreResult<Option<String>> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let run = lock(&mut tx, id).await?.ok_or_else(|| StoreError::not_found("run", id))?;
            lifecycle::hold(&run, fence)?;
            sqlx::query!(
                "UPDATE runs SET step = $1, resume_path = $2 WHERE id = $3",
                integer::<i64>(step)?,
                text(path) as Text<'_>,
                id.as_uuid()
            )
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok((!run.resume_path.is_empty() && run.resume_path != path).then_some(run.resume_path))
        })
        .await
    }

    async fn start_evaluating(&self, id: RunId, fence: u64) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let (run, job) = lock_with_job(&mut tx, id).await?;
            apply(&mut tx, job.id, lifecycle::start_evaluating(&job, &run, fence)?).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn publish_run(&self, id: RunId, fence: u64, new: NewModel) -> StoreResult<Model> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let (run, job) = lock_with_job(&mut tx, id).await?;
            if lifecycle::publication(&run, fence)? == Publication::Repeated {
                return models::of_run(&mut tx, id).await;
            }
            let model = models::insert(&mut tx, &job, id, &new).await?;
            sqlx::query!(
                "UPDATE distillations SET model_id = $1, train_seconds = $2, evaluate_seconds = $3 WHERE id = $4",
                model.id.as_uuid(),
                finite(new.train_seconds)?,
                finite(new.evaluate_seconds)?,
                job.id.as_uuid()
            )
            .execute(&mut *tx)
            .await?;
            end(&mut tx, &run, lifecycle::publish(&job, &run, &model)).await?;
            tx.commit().await?;
            Ok(model)
        })
        .await
    }

    async fn fail_run(&self, id: RunId, fence: u64, reason: &str) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let (run, job) = lock_with_job(&mut tx, id).await?;
            end(&mut tx, &run, lifecycle::fail_run(&job, &run, fence, reason)?).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn release_run(&self, id: RunId, fence: u64) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let run = lock(&mut tx, id).await?.ok_or_else(|| StoreError::not_found("run", id))?;
            end(&mut tx, &run, lifecycle::release_run(&run, fence)?).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn run(&self, id: RunId) -> StoreResult<Run> {
        self.call(|| async {
            let row = runs!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
        })
        .await
    }

    async fn training_examples(
        &self,
        id: RunId,
        split: Split,
        from: u64,
        limit: usize,
    ) -> StoreResult<Vec<TrainingExample>> {
        self.call(|| async {
            let mut tx = self.begin_reading().await?;
            let run = fetch(&mut tx, id).await?;
            let job = jobs::fetch(&mut tx, run.distillation).await?;
            let rows = datasets::page_of_split(&mut tx, job.dataset, split, from, limit).await?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
            let mut rationales = accepted(&mut tx, job.id, first.index, last.index).await?;
            let examples = rows.into_iter().map(|row| {
                let rationales = rationales.remove(&row.index).unwrap_or_default();
                training_example(row, split, job.spec.judging.label, rationales)
            });
            Ok(examples.collect())
        })
        .await
    }

    async fn metrics(&self, id: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>> {
        self.call(|| async {
            let rows = sqlx::query_as!(
                MetricRow,
                "SELECT step, name, value FROM metrics WHERE run_id = $1 AND ($2::text IS NULL OR name = $2)
                 ORDER BY step, name LIMIT $3",
                id.as_uuid(),
                name.map(text) as Option<Text<'_>>,
                i64::try_from(limit).unwrap_or(i64::MAX)
            )
            .fetch_all(self.pool())
            .await;
            records(rows)
        })
        .await
    }
}

/// Writes numbers of a locked run; of several for one step and name, the last counts.
async fn write_metrics(tx: &mut Tx, id: RunId, metrics: &[MetricPoint]) -> Attempt<()> {
    if metrics.is_empty() {
        return Ok(());
    }
    let mut last = BTreeMap::new();
    for point in metrics {
        last.insert((integer::<i64>(point.step)?, text(&point.name)), finite(point.value)?);
    }
    let (places, values): (Vec<_>, Vec<f64>) = last.into_iter().unzip();
    let (steps, names): (Vec<i64>, Vec<_>) = places.into_iter().unzip();
    sqlx::query!(
        "INSERT INTO metrics (run_id, step, name, value)
         SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::float8[])
         ON CONFLICT (run_id, step, name) DO UPDATE SET value = excluded.value",
        id.as_uuid(),
        &steps,
        &names as &[Text<'_>],
        &values
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The accepted rationales of a job's rows from `first` to `last`, in order of sample.
async fn accepted(
    tx: &mut Tx,
    job: DistillationId,
    first: u64,
    last: u64,
) -> Attempt<HashMap<u64, Vec<AcceptedRationale>>> {
    let rows = sqlx::query!(
        "SELECT row_index, rationale, label, weight FROM prompts
         WHERE distillation_id = $1 AND purpose = 'train' AND state = 'answered' AND verdict = 'accepted'
         AND row_index BETWEEN $2 AND $3 ORDER BY row_index, sample, hinted",
        job.as_uuid(),
        integer::<i64>(first)?,
        integer::<i64>(last)?
    )
    .fetch_all(&mut **tx)
    .await?;
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
