//! Jobs, their transitions and their events.

use crate::datasets;
use crate::failure::Attempt;
use crate::row::{
    Cursor, Text, finite, finite_json, integer, json, json_maybe, milliseconds, named, named_maybe, number,
    record, records, text,
};
use crate::store::{PostgresStore, Tx};
use domain::Timestamp;
use domain::event::{Event, EventKind};
use domain::ids::{DatasetId, DistillationId, ModelId, RunId};
use domain::metric::Accuracy;
use domain::records::{Distillation, HarvestProgress, NewDistillation, PhaseSeconds};
use domain::spec::Budget;
use domain::state::{DatasetState, DistillationState, PromptState, Purpose, Reason, Verdict};
use domain::store::{BATCH_MAX, DistillationFilter, Page, PageRequest, StoreError, StoreResult};
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

pub(crate) async fn fetch(tx: &mut Tx, id: DistillationId) -> Attempt<Distillation> {
    let row = distillations!("WHERE id = $1", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
}

/// A job that nobody else changes until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: DistillationId) -> Attempt<Distillation> {
    let row = distillations!("WHERE id = $1 FOR NO KEY UPDATE", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
}

/// The state that a job goes back to when it is resumed after becoming `to`.
fn resume_state(job: &Distillation, to: DistillationState) -> Option<DistillationState> {
    use DistillationState::{Evaluating, Failed, Paused, Training};
    let stopped = if job.state == Paused { job.resume_state } else { Some(job.state) };
    let stopped = stopped.filter(|state| !state.is_terminal());
    match to {
        Paused => stopped,
        // A failed evaluation begins anew.
        Failed => stopped.map(|state| if state == Evaluating { Training } else { state }),
        _ => None,
    }
}

/// Moves a locked job, with its event.
pub(crate) async fn move_to(
    tx: &mut Tx,
    job: &Distillation,
    to: DistillationState,
    reason: &str,
) -> Attempt<()> {
    sqlx::query!(
        "UPDATE distillations SET state = $1, reason = $2, resume_state = $3, updated_at = now_ms()
         WHERE id = $4",
        to.as_str(),
        text(reason) as Text<'_>,
        resume_state(job, to).map(DistillationState::as_str),
        job.id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    let kind = EventKind::StateChanged { from: Some(job.state), to, reason: reason.to_owned() };
    append(tx, job.id, &kind).await?;
    Ok(())
}

/// Appends an event to a locked job.
pub(crate) async fn append(tx: &mut Tx, id: DistillationId, kind: &EventKind) -> Attempt<u64> {
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

/// Moves a locked job that is about to get prompts from `queued` to `harvesting`.
pub(crate) async fn begin_harvest(tx: &mut Tx, job: &Distillation, what: &str) -> Attempt<()> {
    match job.state {
        DistillationState::Queued => move_to(tx, job, DistillationState::Harvesting, "").await,
        DistillationState::Harvesting => Ok(()),
        _ => Err(refuse(job, what).into()),
    }
}

pub(crate) fn refuse(job: &Distillation, what: &str) -> StoreError {
    StoreError::Conflict(format!("distillation {} is {}: it cannot {what}", job.id, job.state))
}

impl PostgresStore {
    pub(crate) async fn job_create(&self, new: &NewDistillation) -> Attempt<Distillation> {
        let mut tx = self.begin().await?;
        let known =
            distillations!("WHERE request_id = $1", new.request.as_uuid()).fetch_optional(&mut *tx).await;
        if let Some(job) = record(known)? {
            return Ok(job);
        }
        match datasets::keep(&mut tx, new.dataset).await? {
            None => return Err(StoreError::not_found("dataset", new.dataset).into()),
            Some(DatasetState::Staged) => {
                let words = format!("dataset {} is not committed yet", new.dataset);
                return Err(StoreError::Conflict(words).into());
            }
            Some(DatasetState::Committed) => {}
        }
        let budget = new.spec.teacher.as_ref().map_or_else(Budget::default, |teacher| teacher.budget);
        // A limit beyond what is counted is none.
        let limit = |limit: Option<u64>| limit.and_then(|limit| i64::try_from(limit).ok());
        let made = sqlx::query!(
            "INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, prompts_max, tokens_max,
                 money_micros_max, traceparent, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, now_ms(), now_ms())
             ON CONFLICT (request_id) DO NOTHING",
            new.id.as_uuid(),
            new.request.as_uuid(),
            text(&new.spec.name) as Text<'_>,
            new.dataset.as_uuid(),
            finite_json(&new.spec)?,
            limit(budget.prompts),
            limit(budget.tokens),
            limit(budget.money_micros),
            text(&new.traceparent) as Text<'_>
        )
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() > 0 {
            sqlx::query!("INSERT INTO drivers (distillation_id) VALUES ($1)", new.id.as_uuid())
                .execute(&mut *tx)
                .await?;
            let kind =
                EventKind::StateChanged { from: None, to: DistillationState::Queued, reason: String::new() };
            append(&mut tx, new.id, &kind).await?;
        }
        // Where another call with this request came first, its job.
        let job = distillations!("WHERE request_id = $1", new.request.as_uuid()).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(job.try_into()?)
    }

    pub(crate) async fn job_get(&self, id: DistillationId) -> Attempt<Distillation> {
        let row = distillations!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
        Ok(record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?)
    }

    pub(crate) async fn job_list(
        &self,
        filter: &DistillationFilter,
        page: &PageRequest,
    ) -> Attempt<Page<Distillation>> {
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
        let next = cursor.next(items.len(), items.last().map(|last| (last.created_at, last.id.as_uuid())));
        Ok(Page { items, next })
    }

    pub(crate) async fn job_transition(
        &self,
        id: DistillationId,
        from: &[DistillationState],
        to: DistillationState,
        reason: &str,
    ) -> Attempt<Distillation> {
        let mut tx = self.begin().await?;
        let job = lock(&mut tx, id).await?;
        if !from.contains(&job.state) {
            return Err(refuse(&job, &format!("become {to}")).into());
        }
        move_to(&mut tx, &job, to, reason).await?;
        let job = fetch(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    pub(crate) async fn job_pause(&self, id: DistillationId, reason: &str) -> Attempt<Distillation> {
        use DistillationState::{Evaluating, Harvesting, Paused, Queued, Training};
        self.job_transition(id, &[Queued, Harvesting, Training, Evaluating], Paused, reason).await
    }

    pub(crate) async fn job_resume(&self, id: DistillationId) -> Attempt<Distillation> {
        let mut tx = self.begin().await?;
        let job = lock(&mut tx, id).await?;
        match job.state {
            DistillationState::Paused | DistillationState::Failed => {}
            DistillationState::Succeeded | DistillationState::Cancelled => {
                return Err(refuse(&job, "be resumed").into());
            }
            _ => return Ok(job),
        }
        if datasets::keep(&mut tx, job.dataset).await?.is_none() {
            let what = format!("be resumed, because its dataset {} was deleted", job.dataset);
            return Err(refuse(&job, &what).into());
        }
        sqlx::query!(
            "UPDATE prompts SET state = 'pending', failures = 0
             WHERE distillation_id = $1 AND state IN ('parked', 'skipped')",
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE runs SET state = 'pending', reason = '' WHERE distillation_id = $1 AND state = 'failed'",
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        move_to(&mut tx, &job, job.resume_state.unwrap_or(DistillationState::Queued), "").await?;
        let job = fetch(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    pub(crate) async fn job_cancel(&self, id: DistillationId, reason: &str) -> Attempt<Distillation> {
        let mut tx = self.begin().await?;
        let job = lock(&mut tx, id).await?;
        match job.state {
            DistillationState::Cancelled => return Ok(job),
            DistillationState::Succeeded | DistillationState::Failed => {
                return Err(refuse(&job, "be cancelled").into());
            }
            _ => {}
        }
        sqlx::query!(
            "UPDATE runs SET state = 'cancelled' WHERE distillation_id = $1 AND state <> 'succeeded'",
            id.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        move_to(&mut tx, &job, DistillationState::Cancelled, reason).await?;
        let job = fetch(&mut tx, id).await?;
        tx.commit().await?;
        Ok(job)
    }

    pub(crate) async fn job_delete(&self, id: DistillationId) -> Attempt<()> {
        let mut tx = self.begin_deletion().await?;
        let row = distillations!("WHERE id = $1 FOR UPDATE", id.as_uuid()).fetch_optional(&mut *tx).await;
        let job: Distillation = record(row)?.ok_or_else(|| StoreError::not_found("distillation", id))?;
        if !job.state.is_terminal() && job.state != DistillationState::Paused {
            return Err(refuse(&job, "be deleted: cancel it first").into());
        }
        sqlx::query!("DELETE FROM distillations WHERE id = $1", id.as_uuid()).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn job_claim(
        &self,
        driver: &str,
        lease: Duration,
        limit: usize,
    ) -> Attempt<Vec<Distillation>> {
        let mut tx = self.begin().await?;
        let claimed = sqlx::query_scalar!(
            "WITH free AS (
                 SELECT distillation_id FROM drivers JOIN distillations ON id = distillation_id
                 WHERE state IN ('queued', 'harvesting') AND (driver = $1 OR lease_until <= now_ms())
                 ORDER BY created_at, id LIMIT $3 FOR NO KEY UPDATE OF drivers SKIP LOCKED
             )
             UPDATE drivers SET driver = $1, lease_until = now_ms() + $2 FROM free
             WHERE drivers.distillation_id = free.distillation_id RETURNING drivers.distillation_id",
            text(driver) as Text<'_>,
            milliseconds(lease),
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(&mut *tx)
        .await?;
        let rows =
            distillations!("WHERE id = ANY ($1) ORDER BY created_at, id", &claimed).fetch_all(&mut *tx).await;
        let jobs = records(rows)?;
        tx.commit().await?;
        Ok(jobs)
    }

    pub(crate) async fn job_record_teacher(
        &self,
        id: DistillationId,
        accuracy: Option<Accuracy>,
        harvest_seconds: f64,
    ) -> Attempt<()> {
        let mut tx = self.begin().await?;
        lock(&mut tx, id).await?;
        sqlx::query!(
            "UPDATE distillations SET teacher_accuracy = $1, harvest_seconds = $2 WHERE id = $3",
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
    }

    pub(crate) async fn job_events(
        &self,
        id: DistillationId,
        after: u64,
        limit: usize,
    ) -> Attempt<Vec<Event>> {
        let rows = sqlx::query!(
            "SELECT sequence, at, kind FROM events WHERE distillation_id = $1 AND sequence > $2
             ORDER BY sequence LIMIT $3",
            id.as_uuid(),
            integer::<i64>(after)?,
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.pool())
        .await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            events.push(Event {
                distillation: id,
                sequence: number("sequence", row.sequence)?,
                at: Timestamp(row.at),
                kind: json("kind", &row.kind)?,
            });
        }
        Ok(events)
    }

    pub(crate) async fn job_append_event(&self, id: DistillationId, kind: &EventKind) -> Attempt<u64> {
        let mut tx = self.begin().await?;
        lock(&mut tx, id).await?;
        let sequence = append(&mut tx, id, kind).await?;
        tx.commit().await?;
        Ok(sequence)
    }

    pub(crate) async fn job_progress(&self, id: DistillationId) -> Attempt<HarvestProgress> {
        // One statement, so that all its numbers are of one moment. A job without prompts has one row without a state.
        let groups = sqlx::query!(
            "SELECT calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
                 groups.state AS \"state?\", purpose AS \"purpose?\", verdict AS \"verdict?\",
                 groups.reason AS \"reason?\", count AS \"count?\"
             FROM distillations LEFT JOIN LATERAL (
                 SELECT state, purpose, verdict, reason, count(*) AS count FROM prompts
                 WHERE distillation_id = distillations.id GROUP BY state, purpose, verdict, reason
             ) AS groups ON true WHERE id = $1",
            id.as_uuid()
        )
        .fetch_all(self.pool())
        .await?;
        let job = groups.first().ok_or_else(|| StoreError::not_found("distillation", id))?;
        let mut progress = HarvestProgress {
            calls: number("calls", job.calls)?,
            cache_hits: number("cache_hits", job.cache_hits)?,
            calls_paid_twice: number("calls_paid_twice", job.calls_paid_twice)?,
            tokens_in: number("tokens_in", job.tokens_in)?,
            tokens_out: number("tokens_out", job.tokens_out)?,
            money_micros: number("money_micros", job.money_micros)?,
            ..HarvestProgress::default()
        };
        for group in &groups {
            let (Some(state), Some(count)) = (&group.state, group.count) else { continue };
            let count = number("count", count)?;
            add(PromptState::ALL, &mut progress.prompts, named("state", state)?, count);
            if group.purpose.as_deref() == Some(Purpose::Train.as_str()) {
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
