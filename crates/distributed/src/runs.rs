//! Runs: leased, fenced, published.

use crate::datasets;
use crate::distillations::{self, append, move_to, refuse};
use crate::failure::Attempt;
use crate::models;
use crate::row::{Text, finite, integer, json, milliseconds, named, number, record, text};
use crate::store::{PostgresStore, Tx};
use domain::event::EventKind;
use domain::example::Row;
use domain::ids::{DatasetId, DistillationId, RunId};
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::records::{Distillation, LeasedRun, MetricPoint, Model, NewModel, Run};
use domain::spec::{LabelSource, Spec};
use domain::state::{DistillationState, RunState};
use domain::store::{RunInstruction, StoreError, StoreResult};
use domain::{Example, Split, Timestamp};
use std::collections::{BTreeMap, HashMap};
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

async fn fetch(tx: &mut Tx, id: RunId) -> Attempt<Run> {
    let row = runs!("WHERE id = $1", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
}

/// A run that nobody else changes until the transaction ends; `None` where there is none.
async fn lock(tx: &mut Tx, id: RunId) -> Attempt<Option<Run>> {
    record(runs!("WHERE id = $1 FOR NO KEY UPDATE", id.as_uuid()).fetch_optional(&mut **tx).await)
}

/// The run under this fence; another holder's is a conflict.
fn held(run: Option<Run>, id: RunId, fence: u64) -> StoreResult<Run> {
    let run = run.ok_or_else(|| StoreError::not_found("run", id))?;
    if run.fence == fence && run.state == RunState::Leased {
        return Ok(run);
    }
    Err(StoreError::Conflict(format!(
        "run {id} is {} under fence {}: the lease with fence {fence} is lost",
        run.state, run.fence
    )))
}

/// A run and its job, both locked: the job first, as everybody does.
async fn lock_with_job(tx: &mut Tx, id: RunId) -> Attempt<(Run, Distillation)> {
    let job = sqlx::query_scalar!("SELECT distillation_id FROM runs WHERE id = $1", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| StoreError::not_found("run", id))?;
    let job = distillations::lock(tx, DistillationId::from_uuid(job)).await?;
    let run = lock(tx, id).await?.ok_or_else(|| StoreError::not_found("run", id))?;
    Ok((run, job))
}

/// Ends a lease.
async fn end(tx: &mut Tx, id: RunId, state: RunState, reason: &str) -> Attempt<()> {
    sqlx::query!(
        "UPDATE runs SET state = $1, reason = $2, trainer = '', lease_until = 0 WHERE id = $3",
        state.as_str(),
        text(reason) as Text<'_>,
        id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl PostgresStore {
    pub(crate) async fn run_start(&self, id: DistillationId, ledger_fingerprint: &str) -> Attempt<Run> {
        let mut tx = self.begin().await?;
        let job = distillations::lock(&mut tx, id).await?;
        if let Some(run) = job.run {
            let run = fetch(&mut tx, run).await?;
            if job.state == DistillationState::Harvesting {
                move_to(&mut tx, &job, DistillationState::Training, "").await?;
                tx.commit().await?;
            }
            return Ok(run);
        }
        if job.state != DistillationState::Harvesting {
            return Err(refuse(&job, "train").into());
        }
        let run = RunId::generate();
        sqlx::query!(
            "INSERT INTO runs (id, distillation_id, state, created_at) VALUES ($1, $2, 'pending', now_ms())",
            run.as_uuid(),
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE distillations SET run_id = $1, ledger_fingerprint = $2 WHERE id = $3",
            run.as_uuid(),
            text(ledger_fingerprint) as Text<'_>,
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        move_to(&mut tx, &job, DistillationState::Training, "").await?;
        let run = fetch(&mut tx, run).await?;
        tx.commit().await?;
        Ok(run)
    }

    pub(crate) async fn run_lease(&self, trainer: &str, lease: Duration) -> Attempt<Option<LeasedRun>> {
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
    }

    pub(crate) async fn run_report(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        metrics: &[MetricPoint],
        lease: Duration,
    ) -> Attempt<RunInstruction> {
        let mut tx = self.begin().await?;
        let run = match lock(&mut tx, id).await? {
            // Its job was deleted.
            None => return Ok(RunInstruction::Cancel),
            Some(run) if run.fence == fence && run.state == RunState::Cancelled => {
                return Ok(RunInstruction::Cancel);
            }
            Some(run) => held(Some(run), id, fence)?,
        };
        sqlx::query!(
            "UPDATE runs SET step = $1, lease_until = now_ms() + $2 WHERE id = $3",
            integer::<i64>(step.max(run.step))?,
            milliseconds(lease),
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        write_metrics(&mut tx, id, metrics).await?;
        tx.commit().await?;
        Ok(RunInstruction::Continue)
    }

    pub(crate) async fn run_save_resume_point(
        &self,
        id: RunId,
        fence: u64,
        step: u64,
        path: &str,
    ) -> Attempt<Option<String>> {
        let mut tx = self.begin().await?;
        let run = held(lock(&mut tx, id).await?, id, fence)?;
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
    }

    pub(crate) async fn run_start_evaluating(&self, id: RunId, fence: u64) -> Attempt<()> {
        let mut tx = self.begin().await?;
        let (run, job) = lock_with_job(&mut tx, id).await?;
        held(Some(run), id, fence)?;
        if job.state == DistillationState::Training {
            move_to(&mut tx, &job, DistillationState::Evaluating, "").await?;
        }
        Ok(tx.commit().await?)
    }

    pub(crate) async fn run_publish(&self, id: RunId, fence: u64, new: &NewModel) -> Attempt<Model> {
        let mut tx = self.begin().await?;
        let (run, job) = lock_with_job(&mut tx, id).await?;
        if run.fence == fence && run.state == RunState::Succeeded {
            // The answer to the first call was lost.
            return models::of_run(&mut tx, id).await;
        }
        held(Some(run), id, fence)?;
        let model = models::insert(&mut tx, &job, id, new).await?;
        end(&mut tx, id, RunState::Succeeded, "").await?;
        sqlx::query!(
            "UPDATE distillations SET model_id = $1, train_seconds = $2, evaluate_seconds = $3 WHERE id = $4",
            model.id.as_uuid(),
            finite(new.train_seconds)?,
            finite(new.evaluate_seconds)?,
            job.id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        let event =
            EventKind::Published { model: model.id, name: model.name.clone(), version: model.version };
        append(&mut tx, job.id, &event).await?;
        move_to(&mut tx, &job, DistillationState::Succeeded, "").await?;
        tx.commit().await?;
        Ok(model)
    }

    pub(crate) async fn run_fail(&self, id: RunId, fence: u64, reason: &str) -> Attempt<()> {
        let mut tx = self.begin().await?;
        let (run, job) = lock_with_job(&mut tx, id).await?;
        held(Some(run), id, fence)?;
        end(&mut tx, id, RunState::Failed, reason).await?;
        move_to(&mut tx, &job, DistillationState::Failed, reason).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn run_release(&self, id: RunId, fence: u64) -> Attempt<()> {
        let mut tx = self.begin().await?;
        held(lock(&mut tx, id).await?, id, fence)?;
        end(&mut tx, id, RunState::Pending, "").await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn run_get(&self, id: RunId) -> Attempt<Run> {
        let row = runs!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
        Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
    }

    pub(crate) async fn run_examples(
        &self,
        id: RunId,
        split: Split,
        from: u64,
        limit: usize,
    ) -> Attempt<Vec<TrainingExample>> {
        let mut tx = self.begin_reading().await?;
        let run = fetch(&mut tx, id).await?;
        let job = distillations::fetch(&mut tx, run.distillation).await?;
        let rows = datasets::page_of_split(&mut tx, job.dataset, split, from, limit).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        let mut rationales = accepted(&mut tx, job.id, first.index, last.index).await?;
        let examples = rows.into_iter().map(|Row { index, mut example }| {
            let rationales = rationales.remove(&index).unwrap_or_default();
            // What came with the row was judged; the trainer needs only what was accepted.
            example.answers = Vec::new();
            let target = target(job.spec.judging.label, split, &example, &rationales);
            TrainingExample { row: Row { index, example }, target, rationales }
        });
        Ok(examples.collect())
    }

    pub(crate) async fn run_metrics(
        &self,
        id: RunId,
        name: Option<&str>,
        limit: usize,
    ) -> Attempt<Vec<MetricPoint>> {
        let rows = sqlx::query!(
            "SELECT step, name, value FROM metrics WHERE run_id = $1 AND ($2::text IS NULL OR name = $2)
             ORDER BY step, name LIMIT $3",
            id.as_uuid(),
            name.map(text) as Option<Text<'_>>,
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(self.pool())
        .await?;
        let mut points = Vec::with_capacity(rows.len());
        for row in rows {
            points.push(MetricPoint { step: number("step", row.step)?, name: row.name, value: row.value });
        }
        Ok(points)
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
