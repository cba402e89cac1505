//! Runs: leased, fenced, published.

use crate::datasets;
use crate::jobs::{self, append, apply};
use crate::models;
use crate::row::{internal, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::ids::{DistillationId, RunId};
use domain::lifecycle::{self, Publication, RunInstruction, RunTransition};
use domain::ports::{DatasetStore, Page, PageRequest, RunStore, StoreError, StoreResult};
use domain::records::{Distillation, LeasedRun, MetricPoint, Model, NewRun, Run};
use domain::rows::{
    Cursor, MetricRow, RunRow, bits, finite, finite_json, integer, outcomes, outcomes_column,
};
use domain::run::{RunOutcomes, RunResult};
use domain::share::Share;
use domain::state::DistillationState;
use sqlx::{Sqlite, Transaction};
use std::time::Duration;

/// Runs with the specification they carry out; what is given continues the statement after `FROM`.
macro_rules! runs {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            RunRow,
            r#"SELECT runs.id, distillation_id, runs.state, fence, trainer, step, resume_path, runs.reason, runs.created_at,
             purpose, study, cell, coalesce(runs.spec, distillations.spec) AS "spec!: String", rows_millionths, rows_seed, share,
             runs.ledger_fingerprint, path, manifest_sha256, parameters, validation, test, runs.train_seconds,
             runs.evaluate_seconds
             FROM runs JOIN distillations ON distillations.id = distillation_id "# + $rest,
            $($argument),*
        )
    };
}

async fn find(transaction: &mut Transaction<'_, Sqlite>, id: RunId) -> StoreResult<Option<Run>> {
    record(runs!("WHERE runs.id = ?", id.as_uuid()).fetch_optional(&mut **transaction).await)
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
    sqlx::query_file!(
        "../../statements/end_run.sql",
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

/// What came of looking for a run to lease.
enum Leased {
    /// The oldest one, and its job.
    Taken(Box<(Run, Distillation)>),
    /// The oldest one failed: too many trainers were lost at it.
    Ended,
    /// There is none.
    None,
}

impl SqliteStore {
    async fn lease_oldest(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        trainer: &str,
        lease: Duration,
        lost_max: u64,
    ) -> StoreResult<Leased> {
        let now = self.now();
        let leased = sqlx::query!(
            r#"UPDATE runs SET lost_trainers = lost_trainers + (state = 'leased'), state = 'leased', fence = fence + 1, trainer = ?1,
                 lease_until = ?2
             WHERE id = (
                 SELECT runs.id FROM runs JOIN distillations ON distillations.id = runs.distillation_id
                 WHERE (runs.state = 'pending' OR runs.state = 'leased' AND runs.lease_until <= ?3)
                 AND (purpose <> 'final' OR distillations.state IN ('training', 'evaluating'))
                 ORDER BY runs.created_at, runs.id LIMIT 1)
             RETURNING id AS "id!", lost_trainers"#,
            trainer,
            now + lease.as_millis() as i64,
            now
        )
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
        let Some(leased) = leased else { return Ok(Leased::None) };
        let run = fetch(transaction, RunId::from_uuid(leased.id)).await?;
        let job = jobs::fetch(transaction, run.distillation).await?;
        match lifecycle::lose_run(&job, &run, leased.lost_trainers as u64, lost_max)? {
            Some(transition) => {
                end(transaction, now, &run, transition).await?;
                Ok(Leased::Ended)
            }
            None => Ok(Leased::Taken(Box::new((run, job)))),
        }
    }
}

#[async_trait]
impl RunStore for SqliteStore {
    async fn start_training(&self, id: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = jobs::fetch(&mut transaction, id).await?;
        let transition = lifecycle::start_training(&job)?;
        let waiting = sqlx::query_file_scalar!("../../statements/count_asked_again.sql", id.as_uuid())
            .fetch_one(&mut *transaction)
            .await
            .map_err(internal)?;
        if job.state == DistillationState::Harvesting && waiting > 0 {
            return Err(StoreError::Unavailable(format!("{waiting} prompts are asked again first")));
        }
        let run = match job.run {
            Some(run) => run,
            None => insert_final(&mut transaction, now, id, ledger_fingerprint).await?,
        };
        apply(&mut transaction, now, id, transition).await?;
        let run = fetch(&mut transaction, run).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(run)
    }

    async fn create_run(&self, new: NewRun) -> StoreResult<Run> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let known = runs!("WHERE runs.request_id = ?", new.request.as_uuid());
        if let Some(run) = record(known.fetch_optional(&mut *transaction).await)? {
            return Ok(run);
        }
        let job = jobs::fetch(&mut transaction, new.distillation).await?;
        lifecycle::create_run(&job, &new.plan, datasets::exists(&mut transaction, job.dataset).await?)?;
        let (study, cell) = new.plan.purpose.study_and_cell();
        sqlx::query!(
            "INSERT INTO runs (id, distillation_id, request_id, purpose, study, cell, spec, rows_millionths, rows_seed,
                 share, ledger_fingerprint, state, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
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
            &new.ledger_fingerprint,
            now
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        if let Some(event) = lifecycle::begun(&new) {
            append(&mut transaction, now, job.id, &event).await?;
        }
        let run = fetch(&mut transaction, new.id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(run)
    }

    async fn list_runs(&self, distillation: DistillationId, page: &PageRequest) -> StoreResult<Page<Run>> {
        let cursor = Cursor::read(page)?;
        let rows = runs!(
            "WHERE distillation_id = ?1 AND (runs.created_at, runs.id) < (?2, ?3)
             ORDER BY runs.created_at DESC, runs.id DESC LIMIT ?4",
            distillation.as_uuid(),
            cursor.created_at,
            cursor.id,
            cursor.limit
        )
        .fetch_all(self.readers())
        .await;
        let items: Vec<Run> = records(rows)?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    async fn lease_run(
        &self,
        trainer: &str,
        lease: Duration,
        lost_max: u64,
    ) -> StoreResult<Option<LeasedRun>> {
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
        // Bounded: each turn but the last ends a run.
        for _ in 0..=waiting {
            let mut transaction = writer.begin().await?;
            let leased = self.lease_oldest(&mut transaction, trainer, lease, lost_max).await?;
            transaction.commit().await.map_err(internal)?;
            match leased {
                Leased::Taken(taken) => {
                    let (run, job) = *taken;
                    drop(writer);
                    let dataset = self.dataset(job.dataset).await?;
                    let spec = run.plan.spec(&job.spec);
                    return Ok(Some(LeasedRun { run, spec, dataset, traceparent: job.traceparent }));
                }
                Leased::Ended => {}
                Leased::None => break,
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
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = find(&mut transaction, id).await?;
        if lifecycle::report(run.as_ref(), fence)? == RunInstruction::Cancel {
            return Ok(RunInstruction::Cancel);
        }
        sqlx::query!(
            "UPDATE runs SET lost_trainers = CASE WHEN ?1 > step THEN 0 ELSE lost_trainers END, step = max(step, ?1), lease_until = ?2
             WHERE id = ?3",
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
        sqlx::query_file!("../../statements/set_resume_point.sql", integer::<i64>(step)?, path, id.as_uuid())
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

    async fn publish_run(
        &self,
        id: RunId,
        fence: u64,
        result: RunResult,
        outcomes: RunOutcomes,
    ) -> StoreResult<Option<Model>> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let run = fetch(&mut transaction, id).await?;
        let job = jobs::fetch(&mut transaction, run.distillation).await?;
        let model = match lifecycle::publication(&run, fence)? {
            Publication::Repeated => return models::of_run(&mut transaction, id).await,
            Publication::Model => Some(publish_model(&mut transaction, now, &job, id, &result).await?),
            Publication::Result => None,
        };
        write_result(&mut transaction, id, &result, &outcomes).await?;
        end(&mut transaction, now, &run, lifecycle::publish(&job, &run, model.as_ref())).await?;
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
        let row = runs!("WHERE runs.id = ?", id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("run", id))
    }

    async fn outcomes(&self, id: RunId) -> StoreResult<RunOutcomes> {
        let column = sqlx::query_file_scalar!("../../statements/run_outcomes.sql", id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?
            .ok_or_else(|| StoreError::not_found("run", id))?;
        outcomes(column.as_deref())
    }

    async fn metrics(&self, id: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>> {
        let rows = sqlx::query_file_as!(
            MetricRow,
            "../../statements/metrics.sql",
            id.as_uuid(),
            name,
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(self.readers())
        .await;
        records(rows)
    }
}

/// Makes a job's final run.
async fn insert_final(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: DistillationId,
    ledger_fingerprint: &str,
) -> StoreResult<RunId> {
    let run = RunId::generate();
    sqlx::query!(
        "INSERT INTO runs (id, distillation_id, ledger_fingerprint, state, created_at)
         VALUES (?, ?, ?, 'pending', ?)",
        run.as_uuid(),
        job.as_uuid(),
        ledger_fingerprint,
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    sqlx::query_file!("../../statements/set_run.sql", run.as_uuid(), job.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(run)
}

/// Writes the model of a job's final run.
async fn publish_model(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: &Distillation,
    run: RunId,
    result: &RunResult,
) -> StoreResult<Model> {
    let model = models::insert(transaction, now, job, run, result).await?;
    sqlx::query_file!(
        "../../statements/set_model.sql",
        model.id.as_uuid(),
        finite(result.train_seconds)?,
        finite(result.evaluate_seconds)?,
        job.id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(model)
}

/// Writes what a run came to.
async fn write_result(
    transaction: &mut Transaction<'_, Sqlite>,
    id: RunId,
    result: &RunResult,
    outcomes: &RunOutcomes,
) -> StoreResult<()> {
    sqlx::query_file!(
        "../../statements/set_run_result.sql",
        &result.path,
        &result.manifest_sha256,
        integer::<i64>(result.parameters)?,
        result.validation.as_ref().map(finite_json).transpose()?,
        result.test.as_ref().map(finite_json).transpose()?,
        finite(result.train_seconds)?,
        finite(result.evaluate_seconds)?,
        id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    let outcomes = outcomes_column(outcomes)?;
    sqlx::query_file!("../../statements/set_run_outcomes.sql", outcomes, id.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(())
}
