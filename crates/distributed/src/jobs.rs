//! Jobs, their transitions and their events.

use crate::datasets;
use crate::failure::TransactionResult;
use crate::row::{Text, in_order, milliseconds, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::event::{Event, EventKind};
use domain::ids::{DistillationId, RunId};
use domain::lifecycle::{self, Decision, Transition};
use domain::metric::Accuracy;
use domain::ports::{
    BATCH_MAX, Claim, ClaimedJob, DistillationFilter, JobStore, Page, PageRequest, StoreError, StoreResult,
};
use domain::records::{Distillation, NewDistillation};
use domain::rows::{Cursor, DistillationRow, EventRow, finite, finite_json, integer, number};
use domain::spec::{Budget, TeacherSpec};
use std::collections::HashMap;
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

pub(crate) async fn fetch(tx: &mut Tx, id: DistillationId) -> TransactionResult<Distillation> {
    let row = sqlx::query_file_as!(DistillationRow, "../../statements/job.sql", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
}

/// A job that no other transaction changes until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: DistillationId) -> TransactionResult<Distillation> {
    let row = distillations!("WHERE id = $1 FOR NO KEY UPDATE", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
}

/// Writes what a transition of a locked job says.
pub(crate) async fn apply(
    tx: &mut Tx,
    id: DistillationId,
    transition: Option<Transition>,
) -> TransactionResult<()> {
    let Some(transition) = transition else { return Ok(()) };
    sqlx::query!(
        "UPDATE distillations SET state = $1, reason = $2, resume_state = $3, updated_at = now_ms(), lost_harvesters = 0
         WHERE id = $4",
        transition.state.as_str(),
        text(&transition.reason) as Text<'_>,
        transition.resume_state.map(|state| state.as_str()),
        id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    for change in &transition.runs {
        sqlx::query_file!(
            "../../statements/change_runs.sql",
            change.to.as_str(),
            id.as_uuid(),
            change.from.as_str()
        )
        .execute(&mut **tx)
        .await?;
    }
    for change in &transition.prompts {
        sqlx::query_file!(
            "../../statements/change_prompts.sql",
            change.to.as_str(),
            id.as_uuid(),
            change.from.as_str()
        )
        .execute(&mut **tx)
        .await?;
    }
    for event in &transition.events {
        append(tx, id, event).await?;
    }
    Ok(())
}

/// Appends an event to a locked job.
pub(crate) async fn append(tx: &mut Tx, id: DistillationId, kind: &EventKind) -> TransactionResult<u64> {
    let sequence = sqlx::query_scalar!(
        "INSERT INTO events (distillation_id, sequence, at, kind)
         SELECT $1, coalesce(max(sequence), 0) + 1, now_ms(), $2 FROM events WHERE distillation_id = $1
         RETURNING sequence",
        id.as_uuid(),
        finite_json(kind)?
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(number("sequence", sequence)?)
}

impl PostgresStore {
    /// Counts the harvesters that were lost at work at a job against it.
    async fn count_lost(&self, id: DistillationId, claim: &Claim<'_>) -> TransactionResult<()> {
        let mut tx = self.begin().await?;
        let job = lock(&mut tx, id).await?;
        let lost = sqlx::query!(
            "DELETE FROM at_work WHERE distillation_id = $1 AND harvester <> $2 AND lease_until <= now_ms()",
            id.as_uuid(),
            text(claim.harvester) as Text<'_>
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        // Another replica has counted them.
        if lost == 0 {
            return Ok(());
        }
        let lost = sqlx::query_scalar!(
            "UPDATE distillations SET lost_harvesters = lost_harvesters + $1 WHERE id = $2 RETURNING lost_harvesters",
            integer::<i32>(lost)?,
            id.as_uuid()
        )
        .fetch_one(&mut *tx)
        .await?;
        let lost = u64::try_from(lost).unwrap_or_default();
        apply(&mut tx, id, lifecycle::lose_harvesters(&job, lost, claim.lost_max)).await?;
        Ok(tx.commit().await?)
    }

    /// Asks what becomes of a job, and writes that.
    async fn decide(
        &self,
        id: DistillationId,
        decide: impl Fn(&Distillation) -> Decision + Send,
    ) -> TransactionResult<Distillation> {
        let mut tx = self.begin().await?;
        let job = lock(&mut tx, id).await?;
        apply(&mut tx, id, decide(&job)?).await?;
        let job = fetch(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }
}

#[async_trait]
impl JobStore for PostgresStore {
    async fn create_distillation(&self, new: NewDistillation) -> StoreResult<Distillation> {
        StoreError::refuse(&new.spec.violations())?;
        self.call(|| async {
            let mut tx = self.begin().await?;
            let known =
                sqlx::query_file_as!(DistillationRow, "../../statements/job_of_request.sql", new.request.as_uuid()).fetch_optional(&mut *tx).await;
            if let Some(job) = record(known)? {
                return Ok(job);
            }
            let state = datasets::keep(&mut tx, new.dataset).await?;
            let state = state.ok_or_else(|| StoreError::not_found("dataset", new.dataset))?;
            let event = lifecycle::submit(new.dataset, state)?;
            let budget = new.spec.teacher.as_ref().map_or_else(Budget::default, |teacher| teacher.budget);
            let limit = |limit: Option<u64>| limit.and_then(|limit| i64::try_from(limit).ok());
            let made = sqlx::query!(
                "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, prompts_max, tokens_max,
                     money_micros_max, traceparent, batched, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, now_ms(), now_ms())
                 ON CONFLICT (request_id) DO NOTHING",
                new.id.as_uuid(),
                new.request.as_uuid(),
                text(&new.spec.name) as Text<'_>,
                new.dataset.as_uuid(),
                finite_json(&new.spec)?,
                limit(budget.prompts),
                limit(budget.tokens),
                limit(budget.money_micros),
                text(&new.traceparent) as Text<'_>,
                new.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched)
            )
            .execute(&mut *tx)
            .await?;
            if made.rows_affected() > 0 {
                sqlx::query!("INSERT INTO drivers (distillation_id) VALUES ($1)", new.id.as_uuid())
                    .execute(&mut *tx)
                    .await?;
                append(&mut tx, new.id, &event).await?;
            }
            // Where another call with this request came first, its job.
            let job = sqlx::query_file_as!(DistillationRow, "../../statements/job_of_request.sql", new.request.as_uuid()).fetch_one(&mut *tx).await?;
            tx.commit().await?;
            Ok(job.try_into()?)
        })
        .await
    }

    async fn distillation(&self, id: DistillationId) -> StoreResult<Distillation> {
        self.call(|| async {
            let row = sqlx::query_file_as!(DistillationRow, "../../statements/job.sql", id.as_uuid())
                .fetch_optional(self.pool())
                .await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
        })
        .await
    }

    async fn list_distillations(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> StoreResult<Page<Distillation>> {
        self.call(|| async {
            let cursor = Cursor::read(page)?;
            let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
            let rows = distillations!(
                "WHERE (created_at, id) < ($1, $2) AND (cardinality($3::text[]) = 0 OR state = ANY ($3))
                 AND ($4::text IS NULL OR name = $4) ORDER BY created_at DESC, id DESC LIMIT $5",
                cursor.created_at,
                cursor.id,
                &states as &[&str],
                filter.name.as_deref().map(text) as Option<Text<'_>>,
                cursor.limit
            )
            .fetch_all(self.pool())
            .await;
            let items: Vec<Distillation> = records(rows)?;
            let next =
                cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
            Ok(Page { items, next })
        })
        .await
    }

    async fn pause(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        self.call(|| self.decide(id, |job| lifecycle::pause(job, reason))).await
    }

    async fn resume(&self, id: DistillationId) -> StoreResult<Distillation> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let job = lock(&mut tx, id).await?;
            let has_dataset = datasets::keep(&mut tx, job.dataset).await?.is_some();
            apply(&mut tx, id, lifecycle::resume(&job, has_dataset)?).await?;
            let job = fetch(&mut tx, id).await?;
            tx.commit().await?;
            Ok(job)
        })
        .await
    }

    async fn cancel(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        self.call(|| self.decide(id, |job| lifecycle::cancel(job, reason))).await
    }

    async fn delete_distillation(&self, id: DistillationId) -> StoreResult<Vec<RunId>> {
        self.call_deletion(|| async {
            let mut tx = self.begin_deletion().await?;
            let row = distillations!("WHERE id = $1 FOR UPDATE", id.as_uuid()).fetch_optional(&mut *tx).await;
            let job: Distillation = record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?;
            lifecycle::delete(&job)?;
            let orphaned = sqlx::query_file_scalar!("../../statements/runs_without_model.sql", id.as_uuid())
                .fetch_all(&mut *tx)
                .await?;
            sqlx::query_file!("../../statements/delete_job.sql", id.as_uuid()).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(orphaned.into_iter().map(RunId::from_uuid).collect())
        })
        .await
    }

    async fn claim_distillations(&self, claim: &Claim<'_>) -> StoreResult<Vec<ClaimedJob>> {
        let lost = self
            .call(|| async {
                Ok(sqlx::query_scalar!(
                    "SELECT DISTINCT distillation_id FROM at_work WHERE harvester <> $1 AND lease_until <= now_ms() LIMIT $2",
                    text(claim.harvester) as Text<'_>,
                    BATCH_MAX as i64
                )
                .fetch_all(self.pool())
                .await?)
            })
            .await?;
        for job in lost {
            match self.call(|| self.count_lost(DistillationId::from_uuid(job), claim)).await {
                // It was deleted meanwhile.
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.call(|| async {
            let mut tx = self.begin().await?;
            let claimed = sqlx::query!(
                "WITH free AS (
                     SELECT distillation_id, lost_harvesters FROM drivers JOIN distillations ON id = distillation_id
                     WHERE state IN ('queued', 'harvesting') AND (driver = $1 OR lease_until <= now_ms())
                     AND (lost_harvesters = 0 OR id IN (
                         SELECT suspects.id FROM distillations AS suspects
                         JOIN drivers AS theirs ON theirs.distillation_id = suspects.id
                         WHERE suspects.state IN ('queued', 'harvesting') AND suspects.lost_harvesters > 0
                         AND (theirs.driver = $1 OR theirs.lease_until <= now_ms())
                         ORDER BY theirs.driver <> $1, suspects.lost_harvesters, suspects.created_at, suspects.id LIMIT $4))
                     ORDER BY created_at, id LIMIT $3 FOR NO KEY UPDATE OF drivers SKIP LOCKED
                 )
                 UPDATE drivers SET driver = $1, lease_until = now_ms() + $2 FROM free
                 WHERE drivers.distillation_id = free.distillation_id
                 RETURNING drivers.distillation_id, free.lost_harvesters",
                text(claim.harvester) as Text<'_>,
                milliseconds(claim.lease),
                claim.jobs_max.clamp(1, BATCH_MAX) as i64,
                claim.suspects_max.min(BATCH_MAX) as i64
            )
            .fetch_all(&mut *tx)
            .await?;
            let lost: HashMap<Uuid, i32> =
                claimed.iter().map(|row| (row.distillation_id, row.lost_harvesters)).collect();
            let ids: Vec<Uuid> = lost.keys().copied().collect();
            let rows = distillations!("WHERE id = ANY ($1) ORDER BY created_at, id", &ids)
                .fetch_all(&mut *tx)
                .await;
            let jobs: Vec<Distillation> = records(rows)?;
            tx.commit().await?;
            let claimed = |job: Distillation| {
                let lost = lost.get(&job.id.as_uuid()).copied().unwrap_or_default();
                ClaimedJob { job, lost_harvesters: u64::try_from(lost).unwrap_or_default() }
            };
            Ok(jobs.into_iter().map(claimed).collect())
        })
        .await
    }

    async fn note_at_work(
        &self,
        harvester: &str,
        jobs: &[DistillationId],
        lease: Duration,
    ) -> StoreResult<()> {
        self.call(|| async {
            let jobs = in_order(jobs.iter().map(|job| job.as_uuid()));
            let mut tx = self.begin().await?;
            // Shared: it keeps the jobs from being deleted meanwhile, and waits for no worker that writes their accounts.
            let jobs = sqlx::query_scalar!(
                "SELECT id FROM distillations WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE",
                &jobs
            )
            .fetch_all(&mut *tx)
            .await?;
            sqlx::query!(
                "DELETE FROM at_work WHERE harvester = $1 AND distillation_id <> ALL ($2)",
                text(harvester) as Text<'_>,
                &jobs
            )
            .execute(&mut *tx)
            .await?;
            sqlx::query!(
                "INSERT INTO at_work (distillation_id, harvester, lease_until)
                 SELECT job, $1, now_ms() + $3 FROM unnest($2::uuid[]) AS job
                 ON CONFLICT (distillation_id, harvester) DO UPDATE SET lease_until = excluded.lease_until",
                text(harvester) as Text<'_>,
                &jobs,
                milliseconds(lease)
            )
            .execute(&mut *tx)
            .await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn clear_lost_harvesters(&self, id: DistillationId) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query_file!("../../statements/clear_lost_harvesters.sql", id.as_uuid())
                .execute(self.pool())
                .await?;
            Ok(())
        })
        .await
    }

    async fn record_teacher(
        &self,
        id: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            lock(&mut tx, id).await?;
            sqlx::query_file!(
                "../../statements/set_teacher.sql",
                accuracy.as_ref().map(finite_json).transpose()?,
                finite(harvest_seconds)?,
                id.as_uuid()
            )
            .execute(&mut *tx)
            .await?;
            if let Some(accuracy) = accuracy {
                append(&mut tx, id, &EventKind::TeacherMeasured { accuracy }).await?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn note_obstacle(&self, id: DistillationId, obstacle: &str) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query_file!(
                "../../statements/note_obstacle.sql",
                &text(obstacle) as &Text<'_>,
                id.as_uuid()
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn events(&self, id: DistillationId, after: u64, limit: usize) -> StoreResult<Vec<Event>> {
        self.call(|| async {
            let rows = sqlx::query_file_as!(
                EventRow,
                "../../statements/events.sql",
                id.as_uuid(),
                integer::<i64>(after)?,
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(self.pool())
            .await;
            records(rows)
        })
        .await
    }

    async fn append_event(&self, id: DistillationId, kind: EventKind) -> StoreResult<u64> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            lock(&mut tx, id).await?;
            let sequence = append(&mut tx, id, &kind).await?;
            tx.commit().await?;
            Ok(sequence)
        })
        .await
    }
}
