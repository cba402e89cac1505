//! Jobs, their transitions and their events.

use crate::datasets;
use crate::row::{internal, milliseconds, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::event::{Event, EventKind};
use domain::ids::{DistillationId, RunId};
use domain::lifecycle::{self, Transition};
use domain::metric::Accuracy;
use domain::ports::{
    BATCH_MAX, Claim, ClaimedJob, DistillationFilter, JobStore, Page, PageRequest, StoreError, StoreResult,
};
use domain::records::{Distillation, NewDistillation};
use domain::rows::{Cursor, DistillationRow, EventRow, finite, finite_json, integer, named, number, to_json};
use domain::spec::TeacherSpec;
use sqlx::{Sqlite, Transaction};
use std::time::Duration;
use uuid::Uuid;

/// Jobs; what is given continues the statement after `FROM distillations`.
macro_rules! distillations {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            DistillationRow,
            "SELECT id, spec, dataset_id, state, reason, resume_state, created_at, updated_at, run_id,
             model_id, teacher_accuracy, harvest_seconds, train_seconds, evaluate_seconds, traceparent
             FROM distillations " + $rest,
            $($argument),*
        )
    };
}

pub(crate) async fn fetch(
    transaction: &mut Transaction<'_, Sqlite>,
    id: DistillationId,
) -> StoreResult<Distillation> {
    let row = sqlx::query_file_as!(DistillationRow, "../../statements/job.sql", id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await;
    record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))
}

/// Writes what a transition says. The job has not changed since it was decided, in the same transaction.
pub(crate) async fn apply(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    id: DistillationId,
    transition: Option<Transition>,
) -> StoreResult<()> {
    let Some(transition) = transition else { return Ok(()) };
    sqlx::query!(
        "UPDATE distillations SET state = ?, reason = ?, resume_state = ?, updated_at = ?, lost_harvesters = 0 WHERE id = ?",
        transition.state.as_str(),
        transition.reason,
        transition.resume_state.map(|state| state.as_str()),
        now,
        id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    for change in &transition.runs {
        sqlx::query_file!(
            "../../statements/change_runs.sql",
            change.to.as_str(),
            id.as_uuid(),
            change.from.as_str()
        )
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    }
    for change in &transition.prompts {
        sqlx::query_file!(
            "../../statements/change_prompts.sql",
            change.to.as_str(),
            id.as_uuid(),
            change.from.as_str()
        )
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    }
    for event in &transition.events {
        append(transaction, now, id, event).await?;
    }
    Ok(())
}

/// Appends an event to a job.
pub(crate) async fn append(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    id: DistillationId,
    kind: &EventKind,
) -> StoreResult<u64> {
    let sequence = sqlx::query_scalar!(
        "INSERT INTO events (distillation_id, sequence, at, kind)
         SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3 FROM events WHERE distillation_id = ?1
         RETURNING sequence AS \"sequence!\"",
        id.as_uuid(),
        now,
        finite_json(kind)?
    )
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    number("sequence", sequence)
}

/// Counts the harvesters that were lost at work against the jobs that they were at work at.
async fn count_lost(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    claim: &Claim<'_>,
) -> StoreResult<()> {
    let lost = sqlx::query_scalar!(
        r#"DELETE FROM at_work WHERE harvester <> ? AND lease_until <= ? RETURNING distillation_id AS "job!: Uuid""#,
        claim.harvester,
        now
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(internal)?;
    for job in lost {
        let lost = sqlx::query_scalar!(
            "UPDATE distillations SET lost_harvesters = lost_harvesters + 1 WHERE id = ? RETURNING lost_harvesters",
            job
        )
        .fetch_one(&mut **transaction)
        .await
        .map_err(internal)?;
        let job = fetch(transaction, DistillationId::from_uuid(job)).await?;
        let transition = lifecycle::lose_harvesters(&job, number("lost_harvesters", lost)?, claim.lost_max);
        apply(transaction, now, job.id, transition).await?;
    }
    Ok(())
}

/// Whether harvesters were lost at a job, and another one than this drives it.
pub(crate) async fn is_tried_elsewhere(
    transaction: &mut Transaction<'_, Sqlite>,
    id: DistillationId,
    harvester: &str,
) -> StoreResult<bool> {
    let found = sqlx::query_scalar!(
        "SELECT count(*) FROM distillations WHERE id = ? AND lost_harvesters > 0 AND driver <> ?",
        id.as_uuid(),
        harvester
    )
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(found > 0)
}

impl SqliteStore {
    /// Asks what becomes of a job, and writes that.
    async fn decide(
        &self,
        id: DistillationId,
        decide: impl FnOnce(&Distillation) -> lifecycle::Decision + Send,
    ) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        apply(&mut transaction, self.now(), id, decide(&job)?).await?;
        let job = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn create_distillation(&self, new: NewDistillation) -> StoreResult<Distillation> {
        StoreError::refuse(&new.spec.violations())?;
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let known = sqlx::query_file_as!(
            DistillationRow,
            "../../statements/job_of_request.sql",
            new.request.as_uuid()
        )
        .fetch_optional(&mut *transaction)
        .await;
        if let Some(job) = record(known)? {
            return Ok(job);
        }
        let state = sqlx::query_scalar!("SELECT state FROM datasets WHERE id = ?", new.dataset.as_uuid())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(internal)?
            .ok_or_else(|| StoreError::not_found("dataset", new.dataset))?;
        let event = lifecycle::submit(new.dataset, named("state", &state)?)?;
        let now = self.now();
        sqlx::query!(
            "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, created_at, updated_at,
                 traceparent, batched)
             VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)",
            new.id.as_uuid(),
            new.request.as_uuid(),
            &new.spec.name,
            new.dataset.as_uuid(),
            finite_json(&new.spec)?,
            now,
            now,
            &new.traceparent,
            new.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched)
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        append(&mut transaction, now, new.id, &event).await?;
        let job = fetch(&mut transaction, new.id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    async fn distillation(&self, id: DistillationId) -> StoreResult<Distillation> {
        let row = sqlx::query_file_as!(DistillationRow, "../../statements/job.sql", id.as_uuid())
            .fetch_optional(self.readers())
            .await;
        record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))
    }

    async fn list_distillations(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> StoreResult<Page<Distillation>> {
        let cursor = Cursor::read(page)?;
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let rows = distillations!(
            "WHERE (created_at, id) < (?1, ?2)
             AND (?3 = '[]' OR state IN (SELECT value FROM json_each(?3))) AND (?4 IS NULL OR name = ?4)
             ORDER BY created_at DESC, id DESC LIMIT ?5",
            cursor.created_at,
            cursor.id,
            to_json(&states)?,
            &filter.name,
            cursor.limit
        )
        .fetch_all(self.readers())
        .await;
        let items: Vec<Distillation> = records(rows)?;
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    async fn pause(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        self.decide(id, |job| lifecycle::pause(job, reason)).await
    }

    async fn resume(&self, id: DistillationId) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        let has_dataset = datasets::exists(&mut transaction, job.dataset).await?;
        apply(&mut transaction, self.now(), id, lifecycle::resume(&job, has_dataset)?).await?;
        let job = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    async fn cancel(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        self.decide(id, |job| lifecycle::cancel(job, reason)).await
    }

    async fn delete_distillation(&self, id: DistillationId) -> StoreResult<Vec<RunId>> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        lifecycle::delete(&fetch(&mut transaction, id).await?)?;
        let orphaned = sqlx::query_file_scalar!("../../statements/runs_without_model.sql", id.as_uuid())
            .fetch_all(&mut *transaction)
            .await
            .map_err(internal)?;
        sqlx::query_file!("../../statements/delete_job.sql", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(orphaned.into_iter().map(RunId::from_uuid).collect())
    }

    async fn claim_distillations(&self, claim: &Claim<'_>) -> StoreResult<Vec<ClaimedJob>> {
        let now = self.now();
        let waiting = sqlx::query_scalar!(
            "SELECT count(*) FROM distillations WHERE state IN ('queued', 'harvesting')
             AND (driver = ? OR driver_until <= ?)",
            claim.harvester,
            now
        )
        .fetch_one(self.readers())
        .await
        .map_err(internal)?;
        // Looking is free; the write lock is only taken where there is something to claim.
        if waiting == 0 {
            return Ok(Vec::new());
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        count_lost(&mut transaction, now, claim).await?;
        let claimed = sqlx::query!(
            r#"UPDATE distillations SET driver = ?1, driver_until = ?2 WHERE id IN (
                 SELECT id FROM distillations WHERE state IN ('queued', 'harvesting')
                 AND (driver = ?1 OR driver_until <= ?3)
                 AND (lost_harvesters = 0 OR id IN (
                     SELECT id FROM distillations WHERE state IN ('queued', 'harvesting') AND lost_harvesters > 0
                     AND (driver = ?1 OR driver_until <= ?3)
                     ORDER BY driver <> ?1, lost_harvesters, created_at, id LIMIT ?4))
                 ORDER BY created_at, id LIMIT ?5)
             RETURNING id AS "id!", lost_harvesters"#,
            claim.harvester,
            now.saturating_add(milliseconds(claim.lease)),
            now,
            claim.suspects_max.min(BATCH_MAX) as i64,
            claim.jobs_max.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(internal)?;
        let mut jobs = Vec::with_capacity(claimed.len());
        for row in claimed {
            let job = fetch(&mut transaction, DistillationId::from_uuid(row.id)).await?;
            jobs.push(ClaimedJob { job, lost_harvesters: number("lost_harvesters", row.lost_harvesters)? });
        }
        transaction.commit().await.map_err(internal)?;
        jobs.sort_by_key(|claimed| (claimed.job.created_at, claimed.job.id));
        Ok(jobs)
    }

    async fn note_at_work(
        &self,
        harvester: &str,
        jobs: &[DistillationId],
        lease: Duration,
    ) -> StoreResult<()> {
        let until = self.now().saturating_add(milliseconds(lease));
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!("DELETE FROM at_work WHERE harvester = ?", harvester)
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        for job in jobs {
            sqlx::query!(
                "INSERT INTO at_work (distillation_id, harvester, lease_until)
                 SELECT id, ?1, ?2 FROM distillations WHERE id = ?3 ON CONFLICT DO NOTHING",
                harvester,
                until,
                job.as_uuid()
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }

    async fn clear_lost_harvesters(&self, id: DistillationId) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query_file!("../../statements/clear_lost_harvesters.sql", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn record_teacher(
        &self,
        id: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let text = accuracy.as_ref().map(finite_json).transpose()?;
        sqlx::query_file!("../../statements/set_teacher.sql", text, finite(harvest_seconds)?, id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        if let Some(accuracy) = accuracy {
            append(&mut transaction, self.now(), id, &EventKind::TeacherMeasured { accuracy }).await?;
        }
        transaction.commit().await.map_err(internal)
    }

    async fn note_obstacle(&self, id: DistillationId, obstacle: &str) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query_file!("../../statements/note_obstacle.sql", obstacle, id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn events(&self, id: DistillationId, after: u64, limit: usize) -> StoreResult<Vec<Event>> {
        let rows = sqlx::query_file_as!(
            EventRow,
            "../../statements/events.sql",
            id.as_uuid(),
            integer::<i64>(after)?,
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await;
        records(rows)
    }

    async fn append_event(&self, id: DistillationId, kind: EventKind) -> StoreResult<u64> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let sequence = append(&mut transaction, self.now(), id, &kind).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(sequence)
    }
}
