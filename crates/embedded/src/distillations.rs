//! Jobs, their transitions and their events.

use crate::row::{
    Cursor, get, integer, internal, json, json_maybe, named, named_maybe, number, time, to_json, uuid,
};
use crate::store::SqliteStore;
use domain::event::{Event, EventKind};
use domain::ids::{DatasetId, DistillationId, ModelId, RunId};
use domain::metric::Accuracy;
use domain::records::{Distillation, HarvestProgress, NewDistillation, NewPrompt, PhaseSeconds};
use domain::state::{DatasetState, DistillationState, PromptState, Reason, Verdict};
use domain::store::{BATCH_MAX, DistillationFilter, Page, PageRequest, StoreError, StoreResult};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use std::time::Duration;

fn read(row: &SqliteRow) -> StoreResult<Distillation> {
    Ok(Distillation {
        id: DistillationId::from_uuid(uuid(row, "id")?),
        spec: json(row, "spec")?,
        dataset: DatasetId::from_uuid(uuid(row, "dataset_id")?),
        state: named(row, "state")?,
        reason: get(row, "reason")?,
        resume_state: named_maybe(row, "resume_state")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        run: get::<Option<uuid::Uuid>>(row, "run_id")?.map(RunId::from_uuid),
        model: get::<Option<uuid::Uuid>>(row, "model_id")?.map(ModelId::from_uuid),
        teacher_accuracy: json_maybe(row, "teacher_accuracy")?,
        seconds: PhaseSeconds {
            harvest: get(row, "harvest_seconds")?,
            train: get(row, "train_seconds")?,
            evaluate: get(row, "evaluate_seconds")?,
        },
    })
}

pub(crate) async fn fetch(
    transaction: &mut Transaction<'_, Sqlite>,
    id: DistillationId,
) -> StoreResult<Distillation> {
    let row = sqlx::query("SELECT * FROM distillations WHERE id = ?")
        .bind(id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
    row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("distillation", id))
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
    sqlx::query("UPDATE distillations SET state = ?, reason = ?, resume_state = ?, updated_at = ?, driver_until = 0 WHERE id = ?")
        .bind(to.as_str())
        .bind(reason)
        .bind(resume_state)
        .bind(now)
        .bind(job.id.as_uuid())
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
    let sequence: i64 = sqlx::query_scalar(
        "INSERT INTO events (distillation_id, sequence, at, kind)
         SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3 FROM events WHERE distillation_id = ?1 RETURNING sequence",
    )
    .bind(id.as_uuid())
    .bind(now)
    .bind(to_json(kind)?)
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
        let known = sqlx::query("SELECT * FROM distillations WHERE request_id = ?")
            .bind(new.request.as_uuid())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(internal)?;
        if let Some(row) = known {
            return read(&row);
        }
        let state: Option<String> = sqlx::query_scalar("SELECT state FROM datasets WHERE id = ?")
            .bind(new.dataset.as_uuid())
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
        sqlx::query(
            "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)",
        )
        .bind(new.id.as_uuid())
        .bind(new.request.as_uuid())
        .bind(&new.spec.name)
        .bind(new.dataset.as_uuid())
        .bind(to_json(&new.spec)?)
        .bind(now)
        .bind(now)
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
                sqlx::query("INSERT INTO outbox (prompt_id) VALUES (?)")
                    .bind(prompt.id.as_uuid())
                    .execute(&mut *transaction)
                    .await
                    .map_err(internal)?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn job_get(&self, id: DistillationId) -> StoreResult<Distillation> {
        let row = sqlx::query("SELECT * FROM distillations WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("distillation", id))
    }

    pub(crate) async fn job_list(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> StoreResult<Page<Distillation>> {
        let cursor = Cursor::read(page)?;
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let rows = sqlx::query(
            "SELECT * FROM distillations WHERE (created_at, id) < (?1, ?2)
             AND (?3 = '[]' OR state IN (SELECT value FROM json_each(?3))) AND (?4 IS NULL OR name = ?4)
             ORDER BY created_at DESC, id DESC LIMIT ?5",
        )
        .bind(cursor.created_at)
        .bind(cursor.id)
        .bind(to_json(&states)?)
        .bind(&filter.name)
        .bind(cursor.limit)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let items = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
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
        let to = job.resume_state.unwrap_or(DistillationState::Queued);
        sqlx::query(
            "UPDATE prompts SET state = 'pending', failures = 0 WHERE distillation_id = ? AND state IN ('parked', 'skipped')",
        )
        .bind(id.as_uuid())
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        sqlx::query(
            "UPDATE runs SET state = 'pending', reason = '' WHERE distillation_id = ? AND state = 'failed'",
        )
        .bind(id.as_uuid())
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
            DistillationState::Succeeded => return Err(refuse(&job, "be cancelled")),
            _ => {}
        }
        sqlx::query("UPDATE runs SET state = 'cancelled' WHERE distillation_id = ? AND state <> 'succeeded'")
            .bind(id.as_uuid())
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
        sqlx::query("DELETE FROM distillations WHERE id = ?")
            .bind(id.as_uuid())
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
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM distillations WHERE state IN ('queued', 'harvesting')
             AND (driver = ? OR driver_until <= ?)",
        )
        .bind(driver)
        .bind(now)
        .fetch_one(self.readers())
        .await
        .map_err(internal)?;
        // Looking is free; the write lock is only taken where there is something to claim.
        if waiting == 0 {
            return Ok(Vec::new());
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let rows = sqlx::query(
            "UPDATE distillations SET driver = ?1, driver_until = ?2 WHERE id IN (
                 SELECT id FROM distillations WHERE state IN ('queued', 'harvesting')
                 AND (driver = ?1 OR driver_until <= ?3) ORDER BY created_at LIMIT ?4) RETURNING *",
        )
        .bind(driver)
        .bind(now + lease.as_millis() as i64)
        .bind(now)
        .bind(limit.clamp(1, BATCH_MAX) as i64)
        .fetch_all(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        let mut jobs = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
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
        sqlx::query("UPDATE distillations SET teacher_accuracy = ?, harvest_seconds = ? WHERE id = ?")
            .bind(text)
            .bind(harvest_seconds)
            .bind(id.as_uuid())
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
        let rows = sqlx::query(
            "SELECT sequence, at, kind FROM events WHERE distillation_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        )
        .bind(id.as_uuid())
        .bind(integer(after)?)
        .bind(limit.clamp(1, BATCH_MAX) as i64)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let event = |row: &SqliteRow| {
            Ok(Event {
                distillation: id,
                sequence: number(row, "sequence")?,
                at: time(row, "at")?,
                kind: json(row, "kind")?,
            })
        };
        rows.iter().map(event).collect()
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
        let row = sqlx::query("SELECT * FROM distillations WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?
            .ok_or_else(|| StoreError::not_found("distillation", id))?;
        let mut progress = HarvestProgress {
            calls: number(&row, "calls")?,
            cache_hits: number(&row, "cache_hits")?,
            calls_paid_twice: number(&row, "calls_paid_twice")?,
            tokens_in: number(&row, "tokens_in")?,
            tokens_out: number(&row, "tokens_out")?,
            money_micros: number(&row, "money_micros")?,
            ..HarvestProgress::default()
        };
        let groups = sqlx::query(
            "SELECT state, purpose, verdict, reason, count(*) AS count FROM prompts WHERE distillation_id = ?
             GROUP BY state, purpose, verdict, reason",
        )
        .bind(id.as_uuid())
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        for group in &groups {
            let count = number(group, "count")?;
            let state: PromptState = named(group, "state")?;
            add(PromptState::ALL, &mut progress.prompts, state, count);
            if group.try_get::<String, _>("purpose").map_err(internal)? == "train" {
                if let Some(verdict) = named_maybe::<Verdict>(group, "verdict")? {
                    add(Verdict::ALL, &mut progress.verdicts, verdict, count);
                }
                if let Some(reason) = named_maybe::<Reason>(group, "reason")? {
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
