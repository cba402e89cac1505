//! Batches: prompts that are asked together, through the batch API of a provider.

use crate::calls;
use crate::prompts::{self, Asker};
use crate::row::{internal, milliseconds, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::ids::{BatchId, CallId, DistillationId, PromptId};
use domain::ports::{
    BATCH_LEASE, BATCH_MAX, BatchFill, BatchLine, BatchStore, LineEnd, NewBatch, StoreError, StoreResult,
};
use domain::records::Batch;
use domain::rows::{BatchLineRow, BatchRow, integer, to_json};
use sqlx::{Sqlite, Transaction};
use std::time::Duration;
use uuid::Uuid;

type Tx<'a> = Transaction<'a, Sqlite>;

/// Batches; what is given continues the statement after `FROM batches`.
macro_rules! batches {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            BatchRow,
            "SELECT id, distillation_id, profile, state, submission, name, lines, note, created_at,
             ?1 - changed_at AS \"in_state_ms!: i64\" FROM batches " + $rest,
            $($argument),*
        )
    };
}

/// Lines of a batch; what is given continues the statement after its joins.
macro_rules! lines {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            BatchLineRow,
            "SELECT calls.id AS call, calls.attempt AS call_attempt, prompts.id, prompts.distillation_id,
             prompts.row_index, sample, profile, hinted AS \"hinted: bool\", purpose, prompts.key AS \"key: Vec<u8>\",
             prompts.state, failures, prompts.error, examples.example
             FROM calls JOIN prompts ON prompts.id = calls.prompt_id
             JOIN distillations ON distillations.id = prompts.distillation_id
             JOIN examples ON examples.dataset_id = distillations.dataset_id
                 AND examples.row_index = prompts.row_index
             WHERE calls.batch_id = ?1 " + $rest,
            $($argument),*
        )
    };
}

async fn fetch(transaction: &mut Tx<'_>, now: i64, id: BatchId) -> StoreResult<Batch> {
    let row = batches!("WHERE id = ?2", now, id.as_uuid()).fetch_optional(&mut **transaction).await;
    record(row)?.ok_or_else(|| StoreError::not_found("batch", id))
}

/// The batch that a job prepares for a profile, made where there is none.
async fn prepared(transaction: &mut Tx<'_>, now: i64, into: &NewBatch) -> StoreResult<Batch> {
    let (job, profile) = (into.distillation.as_uuid(), i64::from(into.profile));
    sqlx::query!(
        "INSERT INTO batches (id, distillation_id, profile, state, created_at, changed_at, next_at)
         VALUES (?1, ?2, ?3, 'preparing', ?4, ?4, ?4) ON CONFLICT DO NOTHING",
        into.id.as_uuid(),
        job,
        profile,
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    let row =
        batches!("WHERE distillation_id = ?2 AND profile = ?3 AND state = 'preparing'", now, job, profile)
            .fetch_optional(&mut **transaction)
            .await;
    record(row)?.ok_or_else(|| StoreError::not_found("batch", into.id))
}

/// Makes a leased prompt a line of a batch.
async fn add(transaction: &mut Tx<'_>, batch: BatchId, prompt: PromptId) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO calls (id, distillation_id, prompt_id, attempt, tokens, money_micros, batch_id)
         SELECT ?1, distillation_id, id, attempt, tokens_max, money_micros_max, ?2 FROM prompts WHERE id = ?3",
        CallId::generate().as_uuid(),
        batch.as_uuid(),
        prompt.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Removes a job's prepared batches without lines.
async fn remove_empty(transaction: &mut Tx<'_>, job: DistillationId) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM batches WHERE distillation_id = ? AND state = 'preparing' AND lines = 0",
        job.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

#[async_trait]
impl BatchStore for SqliteStore {
    async fn fill_batch(&self, into: &NewBatch, prompts: &[PromptId]) -> StoreResult<BatchFill> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let batch = prepared(&mut transaction, now, into).await?;
        let room = usize::try_from(into.lines_max.saturating_sub(batch.lines)).unwrap_or(usize::MAX);
        let (asked, left) = prompts.split_at_checked(room).unwrap_or((prompts, &[]));
        let asker = Asker { worker: "batch", lease: BATCH_LEASE, in_batch: true };
        let outcome = prompts::lease_all(&mut transaction, now, asked, &asker).await?;
        for leased in &outcome.leased {
            add(&mut transaction, batch.id, leased.prompt.id).await?;
        }
        let taken = outcome.leased.len();
        sqlx::query!(
            "UPDATE batches SET lines = lines + ? WHERE id = ?",
            integer::<i64>(u64::try_from(taken).unwrap_or(u64::MAX))?,
            batch.id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        remove_empty(&mut transaction, into.distillation).await?;
        let is_empty = batch.lines == 0 && taken == 0;
        let batch = if is_empty { None } else { Some(fetch(&mut transaction, now, batch.id).await?) };
        transaction.commit().await.map_err(internal)?;
        Ok(BatchFill {
            batch,
            taken,
            answered: outcome.settled,
            left: left.to_vec(),
            out_of_budget: outcome.out_of_budget.len(),
        })
    }

    async fn seal_batches(&self, job: DistillationId) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "UPDATE batches SET state = 'ready', changed_at = ?1, next_at = ?1
             WHERE distillation_id = ?2 AND state = 'preparing'",
            now,
            job.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn claim_batches(&self, worker: &str, lease: Duration, limit: usize) -> StoreResult<Vec<Batch>> {
        let now = self.now();
        let waiting = sqlx::query_scalar!(
            "SELECT count(*) FROM batches WHERE state IN ('ready', 'submitting', 'submitted') AND next_at <= ?1
             AND (worker = '' OR lease_until <= ?1) AND distillation_id NOT IN (
                 SELECT id FROM distillations WHERE lost_harvesters > 0 AND driver <> ?2)",
            now,
            worker
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
            "UPDATE batches SET worker = ?1, lease_until = ?2 WHERE id IN (
                 SELECT id FROM batches WHERE state IN ('ready', 'submitting', 'submitted') AND next_at <= ?3
                 AND (worker = '' OR lease_until <= ?3) AND distillation_id NOT IN (
                     SELECT id FROM distillations WHERE lost_harvesters > 0 AND driver <> ?1)
                 ORDER BY created_at, id LIMIT ?4) RETURNING id",
            worker,
            now.saturating_add(milliseconds(lease)),
            now,
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(internal)?;
        let mut batches = Vec::with_capacity(claimed.len());
        for id in claimed {
            batches.push(fetch(&mut transaction, now, BatchId::from_uuid(id)).await?);
        }
        transaction.commit().await.map_err(internal)?;
        batches.sort_by_key(|batch| (batch.created_at, batch.id));
        Ok(batches)
    }

    async fn renew_batch(&self, id: BatchId, worker: &str, lease: Duration) -> StoreResult<bool> {
        let until = self.now().saturating_add(milliseconds(lease));
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let renewed = sqlx::query!(
            "UPDATE batches SET lease_until = ? WHERE id = ? AND worker = ?",
            until,
            id.as_uuid(),
            worker
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(renewed.rows_affected() > 0)
    }

    async fn postpone_batch(&self, id: BatchId, worker: &str, wait: Duration) -> StoreResult<()> {
        let next = self.now().saturating_add(milliseconds(wait));
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "UPDATE batches SET worker = '', lease_until = 0, next_at = max(next_at, ?) WHERE id = ? AND worker = ?",
            next,
            id.as_uuid(),
            worker
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn begin_submission(&self, id: BatchId, submission: u32) -> StoreResult<bool> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let begun = sqlx::query!(
            "UPDATE batches SET state = 'submitting', changed_at = ? WHERE id = ? AND state = 'ready' AND submission = ?",
            now,
            id.as_uuid(),
            i64::from(submission)
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(begun.rows_affected() > 0)
    }

    async fn record_submission(&self, id: BatchId, submission: u32, name: &str) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "UPDATE batches SET state = 'submitted', name = ?, changed_at = ?
             WHERE id = ? AND state = 'submitting' AND submission = ?",
            name,
            now,
            id.as_uuid(),
            i64::from(submission)
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn reset_submission(&self, id: BatchId, submission: u32, wait: Duration) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "UPDATE batches SET state = 'ready', submission = submission + 1, name = '', changed_at = ?1, next_at = ?2
             WHERE id = ?3 AND state IN ('submitting', 'submitted') AND submission = ?4",
            now,
            now.saturating_add(milliseconds(wait)),
            id.as_uuid(),
            i64::from(submission)
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn split_batch(&self, id: BatchId, from: CallId, into: BatchId) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let lines = sqlx::query_scalar!(
            "SELECT count(*) FROM calls WHERE batch_id = ? AND id >= ?",
            id.as_uuid(),
            from.as_uuid()
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(internal)?;
        let made = sqlx::query!(
            "INSERT INTO batches (id, distillation_id, profile, state, lines, created_at, changed_at, next_at)
             SELECT ?1, distillation_id, profile, 'ready', ?2, ?3, ?3, ?3 FROM batches WHERE id = ?4 AND state = 'ready'",
            into.as_uuid(),
            lines,
            now,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        if made.rows_affected() > 0 {
            sqlx::query!(
                "UPDATE calls SET batch_id = ?1 WHERE batch_id = ?2 AND id >= ?3",
                into.as_uuid(),
                id.as_uuid(),
                from.as_uuid()
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
            sqlx::query!("UPDATE batches SET lines = lines - ? WHERE id = ?", lines, id.as_uuid())
                .execute(&mut *transaction)
                .await
                .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }

    async fn batch_lines(
        &self,
        id: BatchId,
        after: Option<CallId>,
        limit: usize,
    ) -> StoreResult<Vec<BatchLine>> {
        let rows = lines!(
            "AND calls.id > ?2 ORDER BY calls.id LIMIT ?3",
            id.as_uuid(),
            after.map_or(Uuid::nil(), CallId::as_uuid),
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await;
        records(rows)
    }

    async fn find_lines(&self, id: BatchId, calls: &[CallId]) -> StoreResult<Vec<BatchLine>> {
        let calls: Vec<String> = calls.iter().map(|call| call.as_uuid().simple().to_string()).collect();
        let rows = lines!(
            "AND calls.id IN (SELECT unhex(value) FROM json_each(?2)) ORDER BY calls.id",
            id.as_uuid(),
            to_json(&calls)?
        )
        .fetch_all(self.readers())
        .await;
        records(rows)
    }

    async fn end_lines(&self, ended: &[LineEnd]) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for line in ended {
            calls::end(&mut transaction, &[(line.call, line.end)]).await?;
            if prompts::fetch(&mut transaction, now, line.prompt).await?.is_some() {
                prompts::fail(&mut transaction, now, line.prompt, line.attempt, line.failure.clone()).await?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    async fn end_batch(&self, id: BatchId, note: &str) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query!(
            "UPDATE prompts SET state = 'pending', worker = '' WHERE state = 'leased' AND EXISTS (
                 SELECT 1 FROM calls WHERE calls.prompt_id = prompts.id AND batch_id = ? AND NOT in_doubt
                     AND calls.attempt = prompts.attempt)",
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        sqlx::query!("UPDATE calls SET in_doubt = TRUE WHERE batch_id = ?", id.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        sqlx::query!(
            "UPDATE batches SET state = 'ended', note = ?, worker = '', lease_until = 0, changed_at = ?
             WHERE id = ? AND state <> 'ended'",
            note,
            now,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)
    }

    async fn batches(&self, job: DistillationId) -> StoreResult<Vec<Batch>> {
        let rows = batches!("WHERE distillation_id = ?2 ORDER BY created_at, id", self.now(), job.as_uuid())
            .fetch_all(self.readers())
            .await;
        records(rows)
    }
}
