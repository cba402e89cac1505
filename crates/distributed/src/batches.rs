//! Batches: prompts that are asked together, through the batch API of a provider.

use crate::accounts;
use crate::calls;
use crate::failure::{TransactionError, TransactionResult};
use crate::leases::{self, Asker};
use crate::row::{Text, in_order, milliseconds, record, records, text};
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::budget::CallEnd;
use domain::ids::{BatchId, CallId, DistillationId, PromptId};
use domain::ports::{
    BATCH_LEASE, BATCH_MAX, BatchFill, BatchLine, BatchStore, LineEnd, NewBatch, StoreError, StoreResult,
};
use domain::records::Batch;
use domain::rows::{BatchLineRow, BatchRow, integer};
use std::time::Duration;
use uuid::Uuid;

/// Batches; what is given continues the statement after `FROM batches`.
macro_rules! batches {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            BatchRow,
            "SELECT id, distillation_id, profile, state, submission, name, lines, note, created_at,
             now_ms() - changed_at AS \"in_state_ms!\" FROM batches " + $rest,
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
             prompts.row_index, sample, profile, hinted, purpose, prompts.key, prompts.state, failures, prompts.error,
             examples.example
             FROM calls JOIN prompts ON prompts.id = calls.prompt_id
             JOIN distillations ON distillations.id = prompts.distillation_id
             JOIN examples ON examples.dataset_id = distillations.dataset_id
                 AND examples.row_index = prompts.row_index
             WHERE calls.batch_id = $1 " + $rest,
            $($argument),*
        )
    };
}

async fn fetch(tx: &mut Tx, id: BatchId) -> TransactionResult<Batch> {
    let row = batches!("WHERE id = $1", id.as_uuid()).fetch_optional(&mut **tx).await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("batch", id))?)
}

/// The batch that a job prepares for a profile, made where there is none, held until the transaction ends.
async fn prepared(tx: &mut Tx, into: &NewBatch) -> TransactionResult<Batch> {
    let (job, profile) = (into.distillation.as_uuid(), integer::<i32>(into.profile)?);
    sqlx::query!(
        "INSERT INTO batches (id, distillation_id, profile, state, created_at, changed_at, next_at)
         SELECT $1, id, $3, 'preparing', now_ms(), now_ms(), now_ms() FROM distillations WHERE id = $2
         ON CONFLICT DO NOTHING",
        into.id.as_uuid(),
        job,
        profile
    )
    .execute(&mut **tx)
    .await?;
    let row = batches!(
        "WHERE distillation_id = $1 AND profile = $2 AND state = 'preparing' FOR NO KEY UPDATE",
        job,
        profile
    )
    .fetch_optional(&mut **tx)
    .await;
    Ok(record(row)?.ok_or_else(|| StoreError::not_found("batch", into.id))?)
}

/// Makes leased prompts lines of a batch.
async fn add(tx: &mut Tx, batch: BatchId, prompts: &[PromptId]) -> TransactionResult<()> {
    let calls: Vec<Uuid> = prompts.iter().map(|_| CallId::generate().as_uuid()).collect();
    let ids: Vec<Uuid> = prompts.iter().map(|prompt| prompt.as_uuid()).collect();
    sqlx::query!(
        "INSERT INTO calls (id, distillation_id, prompt_id, attempt, tokens, money_micros, batch_id)
         SELECT call_id, distillation_id, prompts.id, attempt, tokens_max, money_micros_max, $3
         FROM unnest($1::uuid[], $2::uuid[]) AS line (call_id, prompt_id) JOIN prompts ON prompts.id = line.prompt_id",
        &calls,
        &ids,
        batch.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "UPDATE batches SET lines = lines + $2 WHERE id = $1",
        batch.as_uuid(),
        integer::<i64>(u64::try_from(prompts.len()).unwrap_or(u64::MAX))?
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn fill(tx: &mut Tx, into: &NewBatch, prompts: &[PromptId]) -> TransactionResult<BatchFill> {
    let batch = prepared(tx, into).await?;
    let room = usize::try_from(into.lines_max.saturating_sub(batch.lines)).unwrap_or(usize::MAX);
    let (asked, left) = prompts.split_at_checked(room).unwrap_or((prompts, &[]));
    let asker = Asker { worker: "batch", lease: BATCH_LEASE, in_batch: true };
    let outcome = leases::take(tx, asked, &asker).await?;
    let taken: Vec<PromptId> = outcome.leased.iter().map(|leased| leased.prompt.id).collect();
    add(tx, batch.id, &taken).await?;
    let batch = if batch.lines == 0 && taken.is_empty() {
        sqlx::query!("DELETE FROM batches WHERE id = $1", batch.id.as_uuid()).execute(&mut **tx).await?;
        None
    } else {
        Some(fetch(tx, batch.id).await?)
    };
    Ok(BatchFill {
        batch,
        taken: taken.len(),
        answered: outcome.settled,
        left: left.to_vec(),
        out_of_budget: outcome.out_of_budget.len(),
    })
}

async fn split(tx: &mut Tx, id: BatchId, from: CallId, into: BatchId) -> TransactionResult<()> {
    let row = batches!("WHERE id = $1 AND state = 'ready' FOR NO KEY UPDATE", id.as_uuid())
        .fetch_optional(&mut **tx)
        .await;
    let known: Option<Batch> = record(row)?;
    if known.is_none() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO batches (id, distillation_id, profile, state, created_at, changed_at, next_at)
         SELECT $1, distillation_id, profile, 'ready', now_ms(), now_ms(), now_ms() FROM batches WHERE id = $2
         ON CONFLICT (id) DO NOTHING",
        into.as_uuid(),
        id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    let moved = sqlx::query!(
        "UPDATE calls SET batch_id = $1 WHERE batch_id = $2 AND id >= $3",
        into.as_uuid(),
        id.as_uuid(),
        from.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    let lines = integer::<i64>(moved.rows_affected())?;
    for (batch, lines) in [(into, lines), (id, -lines)] {
        sqlx::query!("UPDATE batches SET lines = lines + $2 WHERE id = $1", batch.as_uuid(), lines)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn end_lines(tx: &mut Tx, ended: &[LineEnd]) -> TransactionResult<()> {
    let calls = in_order(ended.iter().map(|line| line.call.as_uuid()));
    let mut accounts = accounts::hold_of_calls(tx, &calls).await?;
    let ends: Vec<(CallId, CallEnd)> = ended.iter().map(|line| (line.call, line.end)).collect();
    calls::end(tx, &mut accounts, &ends).await?;
    accounts::save(tx, &accounts).await?;
    let mut lines: Vec<&LineEnd> = ended.iter().collect();
    lines.sort_by_key(|line| line.prompt.as_uuid());
    for line in lines {
        match leases::fail(tx, line.prompt, line.attempt, &line.failure).await {
            Ok(_) => {}
            // Its job was deleted.
            Err(TransactionError::Refused(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn end(tx: &mut Tx, id: BatchId, note: &str) -> TransactionResult<()> {
    sqlx::query!(
        "SELECT id FROM distillations WHERE id = (SELECT distillation_id FROM batches WHERE id = $1)
         FOR NO KEY UPDATE",
        id.as_uuid()
    )
    .fetch_optional(&mut **tx)
    .await?;
    sqlx::query!(
        "UPDATE prompts SET state = 'pending', worker = '' FROM calls
         WHERE calls.prompt_id = prompts.id AND calls.batch_id = $1 AND NOT calls.in_doubt
             AND calls.attempt = prompts.attempt AND prompts.state = 'leased'",
        id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!("UPDATE calls SET in_doubt = TRUE WHERE batch_id = $1", id.as_uuid())
        .execute(&mut **tx)
        .await?;
    sqlx::query!(
        "UPDATE batches SET state = 'ended', note = $2, worker = '', lease_until = 0, changed_at = now_ms()
         WHERE id = $1 AND state <> 'ended'",
        id.as_uuid(),
        text(note) as Text<'_>
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

#[async_trait]
impl BatchStore for PostgresStore {
    async fn fill_batch(&self, into: &NewBatch, prompts: &[PromptId]) -> StoreResult<BatchFill> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let filled = fill(&mut tx, into, prompts).await?;
            tx.commit().await?;
            Ok(filled)
        })
        .await
    }

    async fn seal_batches(&self, job: DistillationId) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query!(
                "UPDATE batches SET state = 'ready', changed_at = now_ms(), next_at = now_ms()
                 WHERE distillation_id = $1 AND state = 'preparing'",
                job.as_uuid()
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn claim_batches(&self, worker: &str, lease: Duration, limit: usize) -> StoreResult<Vec<Batch>> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let claimed = sqlx::query_scalar!(
                "WITH free AS (
                     SELECT id FROM batches WHERE state IN ('ready', 'submitting', 'submitted')
                     AND next_at <= now_ms() AND (worker = '' OR lease_until <= now_ms())
                     AND distillation_id NOT IN (
                         SELECT suspects.id FROM distillations AS suspects
                         JOIN drivers ON drivers.distillation_id = suspects.id
                         WHERE suspects.lost_harvesters > 0 AND driver <> $1)
                     ORDER BY created_at, id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
                 )
                 UPDATE batches SET worker = $1, lease_until = now_ms() + $2 FROM free
                 WHERE batches.id = free.id RETURNING batches.id",
                text(worker) as Text<'_>,
                milliseconds(lease),
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(&mut *tx)
            .await?;
            let rows =
                batches!("WHERE id = ANY ($1) ORDER BY created_at, id", &claimed).fetch_all(&mut *tx).await;
            let batches = records(rows)?;
            tx.commit().await?;
            Ok(batches)
        })
        .await
    }

    async fn renew_batch(&self, id: BatchId, worker: &str, lease: Duration) -> StoreResult<bool> {
        self.call(|| async {
            let renewed = sqlx::query!(
                "UPDATE batches SET lease_until = now_ms() + $3 WHERE id = $1 AND worker = $2",
                id.as_uuid(),
                text(worker) as Text<'_>,
                milliseconds(lease)
            )
            .execute(self.pool())
            .await?;
            Ok(renewed.rows_affected() > 0)
        })
        .await
    }

    async fn postpone_batch(&self, id: BatchId, worker: &str, wait: Duration) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query!(
                "UPDATE batches SET worker = '', lease_until = 0, next_at = greatest(next_at, now_ms() + $3)
                 WHERE id = $1 AND worker = $2",
                id.as_uuid(),
                text(worker) as Text<'_>,
                milliseconds(wait)
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn begin_submission(&self, id: BatchId, submission: u32) -> StoreResult<bool> {
        self.call(|| async {
            let begun = sqlx::query!(
                "UPDATE batches SET state = 'submitting', changed_at = now_ms()
                 WHERE id = $1 AND state = 'ready' AND submission = $2",
                id.as_uuid(),
                integer::<i32>(submission)?
            )
            .execute(self.pool())
            .await?;
            Ok(begun.rows_affected() > 0)
        })
        .await
    }

    async fn record_submission(&self, id: BatchId, submission: u32, name: &str) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query!(
                "UPDATE batches SET state = 'submitted', name = $3, changed_at = now_ms()
                 WHERE id = $1 AND state = 'submitting' AND submission = $2",
                id.as_uuid(),
                integer::<i32>(submission)?,
                text(name) as Text<'_>
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn reset_submission(&self, id: BatchId, submission: u32, wait: Duration) -> StoreResult<()> {
        self.call(|| async {
            sqlx::query!(
                "UPDATE batches SET state = 'ready', submission = submission + 1, name = '', changed_at = now_ms(),
                     next_at = now_ms() + $3
                 WHERE id = $1 AND state IN ('submitting', 'submitted') AND submission = $2",
                id.as_uuid(),
                integer::<i32>(submission)?,
                milliseconds(wait)
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn split_batch(&self, id: BatchId, from: CallId, into: BatchId) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            split(&mut tx, id, from, into).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    async fn batch_lines(
        &self,
        id: BatchId,
        after: Option<CallId>,
        limit: usize,
    ) -> StoreResult<Vec<BatchLine>> {
        self.call(|| async {
            let rows = lines!(
                "AND calls.id > $2 ORDER BY calls.id LIMIT $3",
                id.as_uuid(),
                after.map_or(Uuid::nil(), CallId::as_uuid),
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(self.pool())
            .await;
            records(rows)
        })
        .await
    }

    async fn find_lines(&self, id: BatchId, calls: &[CallId]) -> StoreResult<Vec<BatchLine>> {
        self.call(|| async {
            let calls: Vec<Uuid> = calls.iter().map(|call| call.as_uuid()).collect();
            let rows = lines!("AND calls.id = ANY ($2) ORDER BY calls.id", id.as_uuid(), &calls)
                .fetch_all(self.pool())
                .await;
            records(rows)
        })
        .await
    }

    async fn end_lines(&self, ended: &[LineEnd]) -> StoreResult<()> {
        if ended.is_empty() {
            return Ok(());
        }
        self.call(|| async {
            let mut tx = self.begin().await?;
            end_lines(&mut tx, ended).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    async fn end_batch(&self, id: BatchId, note: &str) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            end(&mut tx, id, note).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    async fn batches(&self, job: DistillationId) -> StoreResult<Vec<Batch>> {
        self.call(|| async {
            let rows = batches!("WHERE distillation_id = $1 ORDER BY created_at, id", job.as_uuid())
                .fetch_all(self.pool())
                .await;
            records(rows)
        })
        .await
    }
}
