//! Runs: leased, fenced, published.

use crate::datasets;
use crate::failure::TransactionResult;
use crate::jobs::{self, append, apply};
use crate::models;
use crate::row::{Text, milliseconds, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::ids::{DatasetId, DistillationId, RunId};
use domain::lifecycle::{self, Publication, RunInstruction, RunTransition};
use domain::ports::{Page, PageRequest, RunStore, StoreError, StoreResult};
use domain::records::{Distillation, LeasedRun, MetricPoint, Model, NewRun, Run};
use domain::rows::{
    Cursor, MetricRow, RunRow, bits, finite, finite_json, integer, json, outcomes, outcomes_column,
};
use domain::run::{RunOutcomes, RunResult};
use domain::share::Share;
use domain::state::DistillationState;
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs with the specification they carry out; what is given continues the statement after `FROM`.
macro_rules! runs {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            RunRow,
            r#"SELECT runs.id, distillation_id, runs.state, fence, trainer, step, resume_path, runs.reason, runs.created_at,
             purpose, study, cell, coalesce(runs.spec, distillations.spec) AS "spec!", rows_millionths, rows_seed, share,
             runs.ledger_fingerprint, path, manifest_sha256, parameters, validation, test, runs.train_seconds,
             runs.evaluate_seconds
             FROM runs JOIN distillations ON distillations.id = distillation_id "# + $rest,
            $($argument),*
        )
    };
}

async fn fetch(tx: &mut Tx, id: RunId) -> TransactionResult<Run> {
    let row = runs!("WHERE runs.id = $1", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
}

/// A run that no other transaction changes until the transaction ends; `None` where there is none.
async fn lock(tx: &mut Tx, id: RunId) -> TransactionResult<Option<Run>> {
    record(
        runs!("WHERE runs.id = $1 FOR NO KEY UPDATE OF runs", id.as_uuid()).fetch_optional(&mut **tx).await,
    )
}

/// A run and its job, both locked: the job first, as everywhere.
async fn lock_with_job(tx: &mut Tx, id: RunId) -> TransactionResult<(Run, Distillation)> {
    let job = sqlx::query_scalar!("SELECT distillation_id FROM runs WHERE id = $1", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| StoreError::not_found("run", id))?;
    let job = jobs::lock(tx, DistillationId::from_uuid(job)).await?;
    let run = lock(tx, id).await?.ok_or_else(|| StoreError::not_found("run", id))?;
    Ok((run, job))
}

/// Ends the lease of a locked run and writes what else the transition says.
async fn end(tx: &mut Tx, run: &Run, transition: RunTransition) -> TransactionResult<()> {
    sqlx::query_file!(
        "../../statements/end_run.sql",
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

/// Makes the final run of a locked job.
async fn insert_final(
    tx: &mut Tx,
    job: DistillationId,
    ledger_fingerprint: &str,
) -> TransactionResult<RunId> {
    let run = RunId::generate();
    sqlx::query!(
        "INSERT INTO runs (id, distillation_id, ledger_fingerprint, state, created_at)
         VALUES ($1, $2, $3, 'pending', now_ms())",
        run.as_uuid(),
        job.as_uuid(),
        text(ledger_fingerprint) as Text<'_>
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query_file!("../../statements/set_run.sql", run.as_uuid(), job.as_uuid())
        .execute(&mut **tx)
        .await?;
    Ok(run)
}

/// Makes a further run of a locked job.
async fn insert_further(tx: &mut Tx, job: &Distillation, new: &NewRun) -> TransactionResult<()> {
    let (study, cell) = new.plan.purpose.study_and_cell();
    sqlx::query!(
        "INSERT INTO runs (id, distillation_id, request_id, purpose, study, cell, spec, rows_millionths, rows_seed,
             share, ledger_fingerprint, state, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'pending', now_ms())",
        new.id.as_uuid(),
        job.id.as_uuid(),
        new.request.as_uuid(),
        new.plan.purpose.name(),
        study,
        cell,
        finite_json(&new.plan.spec(&job.spec))?,
        i64::from(new.plan.rows.millionths()),
        bits(new.plan.rows.seed),
        new.plan.share.map_or("", Share::as_str),
        text(&new.ledger_fingerprint) as Text<'_>
    )
    .execute(&mut **tx)
    .await?;
    if let Some(event) = lifecycle::begun(new) {
        append(tx, job.id, &event).await?;
    }
    Ok(())
}

/// Writes the model of a locked job's final run.
async fn publish_model(
    tx: &mut Tx,
    job: &Distillation,
    run: RunId,
    result: &RunResult,
) -> TransactionResult<Model> {
    let model = models::insert(tx, job, run, result).await?;
    sqlx::query_file!(
        "../../statements/set_model.sql",
        model.id.as_uuid(),
        finite(result.train_seconds)?,
        finite(result.evaluate_seconds)?,
        job.id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(model)
}

/// Writes what a locked run came to.
async fn write_result(
    tx: &mut Tx,
    run: RunId,
    result: &RunResult,
    outcomes: &RunOutcomes,
) -> TransactionResult<()> {
    sqlx::query_file!(
        "../../statements/set_run_result.sql",
        text(&result.path) as Text<'_>,
        text(&result.manifest_sha256) as Text<'_>,
        integer::<i64>(result.parameters)?,
        result.validation.as_ref().map(finite_json).transpose()?,
        result.test.as_ref().map(finite_json).transpose()?,
        finite(result.train_seconds)?,
        finite(result.evaluate_seconds)?,
        run.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    let outcomes = outcomes_column(outcomes)?;
    sqlx::query_file!("../../statements/set_run_outcomes.sql", outcomes, run.as_uuid())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Runs that one look for a run may end, because too many trainers were lost at them.
const ENDED_MAX: usize = 100;

/// What came of looking for a run to lease.
enum Leased {
    /// The oldest one.
    Taken(Box<LeasedRun>),
    /// The oldest one failed: too many trainers were lost at it.
    Ended,
    /// There is none.
    None,
}

impl PostgresStore {
    async fn lease_oldest(&self, trainer: &str, lease: Duration, lost_max: u64) -> TransactionResult<Leased> {
        let mut tx = self.begin().await?;
        let leased = sqlx::query!(
            "WITH waiting AS (
                 SELECT runs.id FROM runs JOIN distillations ON distillations.id = distillation_id
                 WHERE runs.state IN ('pending', 'leased')
                 AND (runs.state = 'pending' OR lease_until <= now_ms())
                 AND (purpose <> 'final' OR distillations.state IN ('training', 'evaluating'))
                 ORDER BY runs.created_at, runs.id LIMIT 1 FOR NO KEY UPDATE OF runs SKIP LOCKED
             )
             UPDATE runs SET lost_trainers = lost_trainers + CASE WHEN state = 'leased' THEN 1 ELSE 0 END, state = 'leased',
                 fence = fence + 1, trainer = $1, lease_until = now_ms() + $2
             FROM waiting WHERE runs.id = waiting.id RETURNING runs.id, lost_trainers",
            text(trainer) as Text<'_>,
            milliseconds(lease)
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(leased) = leased else { return Ok(Leased::None) };
        let run = fetch(&mut tx, RunId::from_uuid(leased.id)).await?;
        if u64::try_from(leased.lost_trainers).unwrap_or_default() >= lost_max {
            // Others lock the job before its runs: the lease is given up, and both are locked in their order.
            drop(tx);
            return self.end_lost(run.id, lost_max).await;
        }
        let job = sqlx::query!(
            "SELECT spec, dataset_id, traceparent FROM distillations WHERE id = $1",
            run.distillation.as_uuid()
        )
        .fetch_one(&mut *tx)
        .await?;
        let spec = run.plan.spec(&json("spec", &job.spec)?);
        let dataset = datasets::fetch(&mut tx, DatasetId::from_uuid(job.dataset_id)).await?;
        tx.commit().await?;
        Ok(Leased::Taken(Box::new(LeasedRun { run, spec, dataset, traceparent: job.traceparent })))
    }

    /// Ends a run whose last lease ran out like those before.
    async fn end_lost(&self, id: RunId, lost_max: u64) -> TransactionResult<Leased> {
        let mut tx = self.begin().await?;
        let (run, job) = lock_with_job(&mut tx, id).await?;
        let lost = sqlx::query_scalar!(
            "SELECT lost_trainers FROM runs WHERE id = $1 AND state = 'leased' AND lease_until <= now_ms()",
            id.as_uuid()
        )
        .fetch_optional(&mut *tx)
        .await?;
        // Somebody else has ended it, or its trainer is back.
        let Some(lost) = lost else { return Ok(Leased::Ended) };
        if let Some(transition) =
            lifecycle::lose_run(&job, &run, u64::try_from(lost).unwrap_or_default() + 1, lost_max)?
        {
            end(&mut tx, &run, transition).await?;
        }
        tx.commit().await?;
        Ok(Leased::Ended)
    }
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn start_training(&self, id: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let job = jobs::lock(&mut tx, id).await?;
            let transition = lifecycle::start_training(&job)?;
            let waiting = sqlx::query_file_scalar!("../../statements/count_asked_again.sql", id.as_uuid())
                .fetch_one(&mut *tx)
                .await?;
            if job.state == DistillationState::Harvesting && waiting > 0 {
                return Err(
                    StoreError::Unavailable(format!("{waiting} prompts are asked again first")).into()
                );
            }
            let run = match job.run {
                Some(run) => run,
                None => insert_final(&mut tx, id, ledger_fingerprint).await?,
            };
            apply(&mut tx, id, transition).await?;
            let run = fetch(&mut tx, run).await?;
            tx.commit().await?;
            Ok(run)
        })
        .await
    }

    async fn create_run(&self, new: NewRun) -> StoreResult<Run> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let job = jobs::lock(&mut tx, new.distillation).await?;
            let known =
                runs!("WHERE runs.request_id = $1", new.request.as_uuid()).fetch_optional(&mut *tx).await;
            if let Some(run) = record(known)? {
                return Ok(run);
            }
            lifecycle::create_run(&job, &new.plan, datasets::keep(&mut tx, job.dataset).await?.is_some())?;
            insert_further(&mut tx, &job, &new).await?;
            let run = fetch(&mut tx, new.id).await?;
            tx.commit().await?;
            Ok(run)
        })
        .await
    }

    async fn list_runs(&self, distillation: DistillationId, page: &PageRequest) -> StoreResult<Page<Run>> {
        self.call(|| async {
            let cursor = Cursor::read(page)?;
            let rows = runs!(
                "WHERE distillation_id = $1 AND (runs.created_at, runs.id) < ($2, $3)
                 ORDER BY runs.created_at DESC, runs.id DESC LIMIT $4",
                distillation.as_uuid(),
                cursor.created_at,
                cursor.id,
                cursor.limit
            )
            .fetch_all(self.pool())
            .await;
            let items: Vec<Run> = records(rows)?;
            let next =
                cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
            Ok(Page { items, next })
        })
        .await
    }

    async fn lease_run(
        &self,
        trainer: &str,
        lease: Duration,
        lost_max: u64,
    ) -> StoreResult<Option<LeasedRun>> {
        // Bounded: each turn but the last ends a run.
        for _ in 0..ENDED_MAX {
            let leased = self.call(|| self.lease_oldest(trainer, lease, lost_max)).await?;
            if !matches!(leased, Leased::Ended) {
                return Ok(match leased {
                    Leased::Taken(run) => Some(*run),
                    Leased::Ended | Leased::None => None,
                });
            }
        }
        Ok(None)
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
                "UPDATE runs SET lost_trainers = CASE WHEN $1 > step THEN 0 ELSE lost_trainers END, step = $1,
                     lease_until = now_ms() + $2
                 WHERE id = $3",
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
            sqlx::query_file!(
                "../../statements/set_resume_point.sql",
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

    async fn publish_run(
        &self,
        id: RunId,
        fence: u64,
        result: RunResult,
        outcomes: RunOutcomes,
    ) -> StoreResult<Option<Model>> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let (run, job) = lock_with_job(&mut tx, id).await?;
            let model = match lifecycle::publication(&run, fence)? {
                Publication::Repeated => return models::of_run(&mut tx, id).await,
                Publication::Model => Some(publish_model(&mut tx, &job, id, &result).await?),
                Publication::Result => None,
            };
            write_result(&mut tx, id, &result, &outcomes).await?;
            end(&mut tx, &run, lifecycle::publish(&job, &run, model.as_ref())).await?;
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
            let row = runs!("WHERE runs.id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("run", id))?)
        })
        .await
    }

    async fn outcomes(&self, id: RunId) -> StoreResult<RunOutcomes> {
        self.call(|| async {
            let column = sqlx::query_file_scalar!("../../statements/run_outcomes.sql", id.as_uuid())
                .fetch_optional(self.pool())
                .await?
                .ok_or_else(|| StoreError::not_found("run", id))?;
            Ok(outcomes(column.as_deref())?)
        })
        .await
    }

    async fn metrics(&self, id: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>> {
        self.call(|| async {
            let rows = sqlx::query_file_as!(
                MetricRow,
                "../../statements/metrics.sql",
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
async fn write_metrics(tx: &mut Tx, id: RunId, metrics: &[MetricPoint]) -> TransactionResult<()> {
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
