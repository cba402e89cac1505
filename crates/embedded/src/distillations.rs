//! Jobs, their transitions and their events.

use crate::row::{
    Cursor, integer, internal, json, json_maybe, named, named_maybe, number, record, records, to_json,
};
use crate::store::SqliteStore;
use domain::Timestamp;
use domain::event::{Event, EventKind};
use domain::ids::{DatasetId, DistillationId, ModelId, RunId};
use domain::metric::Accuracy;
use domain::records::{Distillation, HarvestProgress, NewDistillation, NewPrompt, PhaseSeconds};
use domain::state::{DatasetState, DistillationState, PromptState, Purpose, Reason, Verdict};
use domain::store::{BATCH_MAX, DistillationFilter, Page, PageRequest, StoreError, StoreResult};
use sqlx::{Sqlite, Transaction};
use std::time::Duration;
use uuid::Uuid;

struct DistillationRow {
    id: Uuid,
    spec: String,
    dataset_id: Uuid,
    state: String,
    reason: String,
    resume_state: Option<String>,
    created_at: i64,
    updated_at: i64,
    run_id: Option<Uuid>,
    model_id: Option<Uuid>,
    teacher_accuracy: Option<String>,
    harvest_seconds: f64,
    train_seconds: f64,
    evaluate_seconds: f64,
    traceparent: String,
}

/// Jobs; what is given goes on after `FROM distillations`.
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

impl TryFrom<DistillationRow> for Distillation {
    type Error = StoreError;

    fn try_from(row: DistillationRow) -> StoreResult<Self> {
        Ok(Self {
            id: DistillationId::from_uuid(row.id),
            spec: json("spec", &row.spec)?,
            dataset: DatasetId::from_uuid(row.dataset_id),
            state: named("state", &row.state)?,
            reason: row.reason,
            resume_state: named_maybe("resume_state", row.resume_state.as_deref())?,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            run: row.run_id.map(RunId::from_uuid),
            model: row.model_id.map(ModelId::from_uuid),
            teacher_accuracy: json_maybe("teacher_accuracy", row.teacher_accuracy.as_deref())?,
            seconds: PhaseSeconds {
                harvest: row.harvest_seconds,
                train: row.train_seconds,
                evaluate: row.evaluate_seconds,
            },
            traceparent: row.traceparent,
        })
    }
}

pub(crate) async fn fetch(
    transaction: &mut Transaction<'_, Sqlite>,
    id: DistillationId,
) -> StoreResult<Distillation> {
    let row = distillations!("WHERE id = ?", id.as_uuid()).fetch_optional(&mut **transaction).await;
    record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))
}

/// Moves a job, with its event. The caller has checked where it stands, in the same transaction.
pub(crate) async fn move_to(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    job: &Distillation,
    to: DistillationState,
    reason: &str,
) -> StoreResult<()> {
    let resume_state = match to {
        DistillationState::Paused | DistillationState::Failed => Some(job.state.as_str()),
        _ => None,
    };
    // A driver keeps its claim while it plans; every other move ends it.
    let keeps_driver = job.state == DistillationState::Queued && to == DistillationState::Harvesting;
    sqlx::query!(
        "UPDATE distillations SET state = ?, reason = ?, resume_state = ?, updated_at = ?,
             driver_until = driver_until * ?
         WHERE id = ?",
        to.as_str(),
        reason,
        resume_state,
        now,
        i64::from(keeps_driver),
        job.id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    let kind = EventKind::StateChanged { from: Some(job.state), to, reason: reason.to_owned() };
    append(transaction, now, job.id, &kind).await?;
    Ok(())
}

pub(crate) async fn append(
    transaction: &mut Transaction<'_, Sqlite>,
    now: i64,
    id: DistillationId,
    kind: &EventKind,
) -> StoreResult<u64> {
    if let EventKind::TrainingProgress { metrics, .. } = kind
        && let Some((name, value)) = metrics.iter().find(|(_, value)| !value.is_finite())
    {
        return Err(StoreError::Invalid(format!("`{name}` is {value}: only finite numbers are kept")));
    }
    let sequence = sqlx::query_scalar!(
        "INSERT INTO events (distillation_id, sequence, at, kind)
         SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3 FROM events WHERE distillation_id = ?1
         RETURNING sequence AS \"sequence!\"",
        id.as_uuid(),
        now,
        to_json(kind)?
    )
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(u64::try_from(sequence).unwrap_or_default())
}

fn refuse(job: &Distillation, what: &str) -> StoreError {
    StoreError::Conflict(format!("distillation {} is {}: it cannot {what}", job.id, job.state))
}

impl SqliteStore {
    pub(crate) async fn job_create(&self, new: NewDistillation) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let known = distillations!("WHERE request_id = ?", new.request.as_uuid())
            .fetch_optional(&mut *transaction)
            .await;
        if let Some(job) = record(known)? {
            return Ok(job);
        }
        let state = sqlx::query_scalar!("SELECT state FROM datasets WHERE id = ?", new.dataset.as_uuid())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(internal)?;
        match state.as_deref() {
            None => return Err(StoreError::not_found("dataset", new.dataset)),
            Some(state) if state != DatasetState::Committed.as_str() => {
                return Err(StoreError::Conflict(format!("dataset {} is not committed yet", new.dataset)));
            }
            Some(_) => {}
        }
        let now = self.now();
        sqlx::query!(
            "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, created_at, updated_at,
                 traceparent)
             VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
            new.id.as_uuid(),
            new.request.as_uuid(),
            &new.spec.name,
            new.dataset.as_uuid(),
            to_json(&new.spec)?,
            now,
            now,
            &new.traceparent
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        let kind =
            EventKind::StateChanged { from: None, to: DistillationState::Queued, reason: String::new() };
        append(&mut transaction, now, new.id, &kind).await?;
        let job = fetch(&mut transaction, new.id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    pub(crate) async fn job_plan(&self, id: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        match job.state {
            DistillationState::Queued => {
                move_to(&mut transaction, self.now(), &job, DistillationState::Harvesting, "").await?;
            }
            DistillationState::Harvesting => {}
            _ => return Err(refuse(&job, "be planned")),
        }
        for prompt in &prompts {
            let added = crate::prompts::insert(&mut transaction, id, prompt, PromptState::Pending).await?;
            if added {
                sqlx::query!("INSERT INTO outbox (prompt_id) VALUES (?)", prompt.id.as_uuid())
                    .execute(&mut *transaction)
                    .await
                    .map_err(internal)?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn job_get(&self, id: DistillationId) -> StoreResult<Distillation> {
        let row = distillations!("WHERE id = ?", id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))
    }

    pub(crate) async fn job_list(
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

    pub(crate) async fn job_transition(
        &self,
        id: DistillationId,
        from: &[DistillationState],
        to: DistillationState,
        reason: &str,
    ) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        if !from.contains(&job.state) {
            return Err(refuse(&job, &format!("become {to}")));
        }
        move_to(&mut transaction, self.now(), &job, to, reason).await?;
        let job = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    pub(crate) async fn job_pause(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        use DistillationState::{Evaluating, Harvesting, Paused, Queued, Training};
        self.job_transition(id, &[Queued, Harvesting, Training, Evaluating], Paused, reason).await
    }

    pub(crate) async fn job_resume(&self, id: DistillationId) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        match job.state {
            DistillationState::Paused | DistillationState::Failed => {}
            DistillationState::Succeeded | DistillationState::Cancelled => {
                return Err(refuse(&job, "be resumed"));
            }
            _ => return Ok(job),
        }
        let datasets =
            sqlx::query_scalar!("SELECT count(*) FROM datasets WHERE id = ?", job.dataset.as_uuid())
                .fetch_one(&mut *transaction)
                .await
                .map_err(internal)?;
        if datasets == 0 {
            return Err(refuse(&job, "be resumed: its dataset was deleted"));
        }
        let to = job.resume_state.unwrap_or(DistillationState::Queued);
        sqlx::query!(
            "UPDATE prompts SET state = 'pending', failures = 0
             WHERE distillation_id = ? AND state IN ('parked', 'skipped')",
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        sqlx::query!(
            "UPDATE runs SET state = 'pending', reason = '' WHERE distillation_id = ? AND state = 'failed'",
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        move_to(&mut transaction, self.now(), &job, to, "").await?;
        let job = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    pub(crate) async fn job_cancel(&self, id: DistillationId, reason: &str) -> StoreResult<Distillation> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        match job.state {
            DistillationState::Cancelled => return Ok(job),
            DistillationState::Succeeded | DistillationState::Failed => {
                return Err(refuse(&job, "be cancelled"));
            }
            _ => {}
        }
        sqlx::query!(
            "UPDATE runs SET state = 'cancelled' WHERE distillation_id = ? AND state <> 'succeeded'",
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        move_to(&mut transaction, self.now(), &job, DistillationState::Cancelled, reason).await?;
        let job = fetch(&mut transaction, id).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(job)
    }

    pub(crate) async fn job_delete(&self, id: DistillationId) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = fetch(&mut transaction, id).await?;
        if !job.state.is_terminal() && job.state != DistillationState::Paused {
            return Err(refuse(&job, "be deleted: cancel it first"));
        }
        sqlx::query!("DELETE FROM distillations WHERE id = ?", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn job_claim(
        &self,
        driver: &str,
        lease: Duration,
        limit: usize,
    ) -> StoreResult<Vec<Distillation>> {
        let now = self.now();
        let waiting = sqlx::query_scalar!(
            "SELECT count(*) FROM distillations WHERE state IN ('queued', 'harvesting')
             AND (driver = ? OR driver_until <= ?)",
            driver,
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
        let claimed = sqlx::query_scalar!(
            "UPDATE distillations SET driver = ?1, driver_until = ?2 WHERE id IN (
                 SELECT id FROM distillations WHERE state IN ('queued', 'harvesting')
                 AND (driver = ?1 OR driver_until <= ?3) ORDER BY created_at LIMIT ?4) RETURNING id",
            driver,
            now + lease.as_millis() as i64,
            now,
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(internal)?;
        let mut jobs = Vec::with_capacity(claimed.len());
        for id in claimed {
            jobs.push(fetch(&mut transaction, DistillationId::from_uuid(id)).await?);
        }
        transaction.commit().await.map_err(internal)?;
        jobs.sort_by_key(|job| (job.created_at, job.id));
        Ok(jobs)
    }

    pub(crate) async fn job_record_teacher(
        &self,
        id: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let text = accuracy.as_ref().map(to_json).transpose()?;
        sqlx::query!(
            "UPDATE distillations SET teacher_accuracy = ?, harvest_seconds = ? WHERE id = ?",
            text,
            harvest_seconds,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        if let Some(accuracy) = accuracy {
            append(&mut transaction, self.now(), id, &EventKind::TeacherMeasured { accuracy }).await?;
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn job_events(
        &self,
        id: DistillationId,
        after: u64,
        limit: usize,
    ) -> StoreResult<Vec<Event>> {
        let rows = sqlx::query!(
            "SELECT sequence, at, kind FROM events WHERE distillation_id = ? AND sequence > ?
             ORDER BY sequence LIMIT ?",
            id.as_uuid(),
            integer(after)?,
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        rows.into_iter()
            .map(|row| {
                Ok(Event {
                    distillation: id,
                    sequence: number("sequence", row.sequence)?,
                    at: Timestamp(row.at),
                    kind: json("kind", &row.kind)?,
                })
            })
            .collect()
    }

    pub(crate) async fn job_append_event(&self, id: DistillationId, kind: EventKind) -> StoreResult<u64> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        fetch(&mut transaction, id).await?;
        let sequence = append(&mut transaction, self.now(), id, &kind).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(sequence)
    }

    pub(crate) async fn job_progress(&self, id: DistillationId) -> StoreResult<HarvestProgress> {
        let row = sqlx::query!(
            "SELECT calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros
             FROM distillations WHERE id = ?",
            id.as_uuid()
        )
        .fetch_optional(self.readers())
        .await
        .map_err(internal)?
        .ok_or_else(|| StoreError::not_found("distillation", id))?;
        let mut progress = HarvestProgress {
            calls: number("calls", row.calls)?,
            cache_hits: number("cache_hits", row.cache_hits)?,
            calls_paid_twice: number("calls_paid_twice", row.calls_paid_twice)?,
            tokens_in: number("tokens_in", row.tokens_in)?,
            tokens_out: number("tokens_out", row.tokens_out)?,
            money_micros: number("money_micros", row.money_micros)?,
            ..HarvestProgress::default()
        };
        let groups = sqlx::query!(
            "SELECT state, purpose, verdict, reason, count(*) AS count FROM prompts WHERE distillation_id = ?
             GROUP BY state, purpose, verdict, reason",
            id.as_uuid()
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        for group in &groups {
            let count = number("count", group.count)?;
            add(PromptState::ALL, &mut progress.prompts, named("state", &group.state)?, count);
            if group.purpose == Purpose::Train.as_str() {
                if let Some(verdict) = named_maybe("verdict", group.verdict.as_deref())? {
                    add(Verdict::ALL, &mut progress.verdicts, verdict, count);
                }
                if let Some(reason) = named_maybe("reason", group.reason.as_deref())? {
                    add(Reason::ALL, &mut progress.reasons, reason, count);
                }
            }
        }
        Ok(progress)
    }
}

fn add<T: PartialEq>(all: &[T], counts: &mut [u64], value: T, count: u64) {
    for (known, total) in all.iter().zip(counts) {
        if *known == value {
            *total += count;
        }
    }
}
