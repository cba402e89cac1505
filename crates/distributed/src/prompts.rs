//! Prompts: planned, published, read.

use crate::accounts;
use crate::columns::PromptColumns;
use crate::forgotten;
use crate::jobs;
use crate::leases::{self, Asker};
use crate::ledger;
use crate::row::{Text, in_order, record, records, text};
use crate::store::PostgresStore;
use async_trait::async_trait;
use domain::ids::{CompletionKey, DistillationId, PromptId, RequestId};
use domain::lifecycle;
use domain::ports::{
    Address, AttemptFailure, BATCH_MAX, ForgetOutcome, HarvestOutcome, LeaseOutcome, LedgerFilter,
    PromptStore, QueuedPrompt, StoreError, StoreResult, check_plan,
};
use domain::records::{
    Completion, HarvestProgress, Harvested, LedgerEntry, NewPrompt, Prompt, VerdictUpdate,
};
use domain::rows::{
    AmountRow, CompletionRow, EntryRow, GroupRow, Held, PromptRow, QueuedPromptRow, ROW_PROMPTS_MAX,
    SpentRow, addresses, integer, limit as limit_of, reasons, whole_rows,
};
use domain::spec::TeacherSpec;
use domain::state::{PromptState, Verdict};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// Prompts; what is given continues the statement after `FROM prompts`.
macro_rules! prompts {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            PromptRow,
            "SELECT id, distillation_id, row_index, sample, profile, hinted, purpose, key, state, attempt, failures,
             error, lease_until <= now_ms() AS \"expired!\", tokens_max, money_micros_max FROM prompts " + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl PromptStore for PostgresStore {
    async fn plan_prompts(&self, id: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()> {
        check_plan(&prompts)?;
        self.call(|| async {
            let new = PromptColumns::of(prompts.iter())?;
            let mut tx = self.begin().await?;
            let job = jobs::lock(&mut tx, id).await?;
            jobs::apply(&mut tx, id, lifecycle::plan(&job)?).await?;
            // What is asked in batches is not published: the driver gathers it.
            let is_published = !job.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched);
            // The outbox counts in the order of planning, which is the order of the arrays.
            sqlx::query!(
                "WITH planned AS (
                     SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::int[], $5::bool[], $6::text[], $7::bytea[],
                         $8::bigint[], $9::bigint[], $10::int[])
                     WITH ORDINALITY AS new (id, row_index, sample, hinted, purpose, key, tokens_max,
                         money_micros_max, profile, place)
                 ), added AS (
                     INSERT INTO prompts (id, distillation_id, row_index, sample, hinted, purpose, key,
                         tokens_max, money_micros_max, profile, state)
                     SELECT id, $1, row_index, sample, hinted, purpose, key, tokens_max, money_micros_max, profile,
                         'pending'
                     FROM planned ORDER BY place
                     ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING RETURNING id
                 )
                 INSERT INTO outbox (prompt_id) SELECT id FROM added JOIN planned USING (id) WHERE $11 ORDER BY place",
                id.as_uuid(),
                &new.ids,
                &new.rows,
                &new.samples,
                &new.hinted,
                &new.purposes as &[&str],
                &new.keys,
                &new.tokens_max,
                &new.money_micros_max,
                &new.profiles,
                is_published
            )
            .execute(&mut *tx)
            .await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn harvest_progress(&self, id: DistillationId) -> StoreResult<HarvestProgress> {
        self.call(|| async {
            // One transaction, so that all its numbers are of one moment. A job without prompts has one row without a state.
            let mut tx = self.begin_reading().await?;
            let groups = sqlx::query!(
                "SELECT calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
                     CASE distillations.state WHEN 'harvesting' THEN obstacle ELSE '' END AS \"obstacle!\",
                     groups.state AS \"state?\", purpose AS \"purpose?\", verdict AS \"verdict?\",
                     groups.reason AS \"reason?\", count AS \"count?\"
                 FROM distillations LEFT JOIN LATERAL (
                     SELECT state, purpose, verdict, reason, count(*) AS count FROM prompts
                     WHERE distillation_id = distillations.id GROUP BY state, purpose, verdict, reason
                 ) AS groups ON true WHERE id = $1",
                id.as_uuid()
            )
            .fetch_all(&mut *tx)
            .await?;
            let job = groups.first().ok_or_else(|| StoreError::not_found("distillation", id))?;
            let mut progress = HarvestProgress::try_from(SpentRow {
                calls: job.calls,
                cache_hits: job.cache_hits,
                calls_paid_twice: job.calls_paid_twice,
                tokens_in: job.tokens_in,
                tokens_out: job.tokens_out,
                money_micros: job.money_micros,
                obstacle: job.obstacle.clone(),
            })?;
            let reserved = sqlx::query_file_as!(AmountRow, "src/sql/reserved.sql", &[id.as_uuid()])
                .fetch_all(&mut *tx)
                .await?;
            for row in reserved {
                let sum = if row.in_doubt { &mut progress.in_doubt } else { &mut progress.open };
                *sum = row.amount()?;
            }
            for group in groups {
                let (Some(state), Some(purpose), Some(count)) = (group.state, group.purpose, group.count)
                else {
                    continue;
                };
                let group = GroupRow { state, purpose, verdict: group.verdict, reason: group.reason, count };
                group.count_in(&mut progress)?;
            }
            Ok(progress)
        })
        .await
    }

    async fn outbox(&self, limit: usize) -> StoreResult<Vec<QueuedPrompt>> {
        self.call(|| async {
            let rows = sqlx::query_file_as!(
                QueuedPromptRow,
                "../../statements/outbox.sql",
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(self.pool())
            .await?;
            Ok(rows.into_iter().map(QueuedPrompt::from).collect())
        })
        .await
    }

    async fn mark_published(&self, prompts: &[PromptId]) -> StoreResult<()> {
        self.call(|| async {
            if prompts.is_empty() {
                return Ok(());
            }
            let ids: Vec<Uuid> = prompts.iter().map(|id| id.as_uuid()).collect();
            // A row that another transaction holds is being removed by another relay, or with its job.
            sqlx::query!(
                "DELETE FROM outbox WHERE sequence IN (
                     SELECT sequence FROM outbox WHERE prompt_id = ANY ($1) FOR UPDATE SKIP LOCKED)",
                &ids
            )
            .execute(self.pool())
            .await?;
            Ok(())
        })
        .await
    }

    async fn unfinished_prompts(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> StoreResult<Vec<QueuedPrompt>> {
        self.call(|| async {
            let rows = sqlx::query_as!(
                QueuedPromptRow,
                "SELECT prompts.id AS prompt, traceparent FROM prompts
                 JOIN distillations ON distillations.id = prompts.distillation_id
                 WHERE prompts.id > $1 AND prompts.state IN ('pending', 'leased')
                 AND (prompts.state = 'pending' AND NOT batched OR prompts.state = 'leased' AND lease_until <= now_ms())
                 AND distillations.state = 'harvesting'
                 AND NOT EXISTS (SELECT FROM outbox WHERE prompt_id = prompts.id) ORDER BY prompts.id LIMIT $2",
                after.map_or(Uuid::nil(), PromptId::as_uuid),
                limit.clamp(1, BATCH_MAX) as i64
            )
            .fetch_all(self.pool())
            .await?;
            Ok(rows.into_iter().map(QueuedPrompt::from).collect())
        })
        .await
    }

    async fn lease_prompts(
        &self,
        prompts: &[PromptId],
        worker: &str,
        lease: Duration,
    ) -> StoreResult<LeaseOutcome> {
        if prompts.is_empty() {
            return Ok(LeaseOutcome::default());
        }
        self.call(|| async {
            let mut tx = self.begin().await?;
            let outcome = leases::take(&mut tx, prompts, &Asker { worker, lease, in_batch: false }).await?;
            tx.commit().await?;
            Ok(outcome)
        })
        .await
    }

    async fn heartbeat_prompts(
        &self,
        leases: &[(PromptId, u32)],
        lease: Duration,
    ) -> StoreResult<Vec<PromptId>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        self.call(|| async {
            let mut tx = self.begin().await?;
            let lost = leases::prolong(&mut tx, leases, lease).await?;
            tx.commit().await?;
            Ok(lost)
        })
        .await
    }

    async fn record_harvest(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome> {
        if harvested.is_empty() {
            return Ok(HarvestOutcome::default());
        }
        self.call(|| async {
            let ids = in_order(harvested.iter().map(|answer| answer.prompt.as_uuid()));
            let mut tx = self.begin().await?;
            let mut accounts = accounts::hold(&mut tx, &ids).await?;
            let held = leases::hold(&mut tx, &ids).await?;
            let held: HashMap<PromptId, Held> = held.into_iter().map(|held| (held.prompt.id, held)).collect();
            let outcome = ledger::record(&mut tx, &mut accounts, held, &harvested).await?;
            accounts::save(&mut tx, &accounts).await?;
            tx.commit().await?;
            Ok(outcome)
        })
        .await
    }

    async fn record_failure(
        &self,
        id: PromptId,
        attempt: u32,
        failure: AttemptFailure,
    ) -> StoreResult<PromptState> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let state = leases::fail(&mut tx, id, attempt, &failure).await?;
            tx.commit().await?;
            Ok(state)
        })
        .await
    }

    async fn prompt(&self, id: PromptId) -> StoreResult<Prompt> {
        self.call(|| async {
            let row = prompts!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
            Ok(record(row)?.ok_or_else(|| StoreError::not_found("prompt", id))?)
        })
        .await
    }

    async fn prompts_in_state(
        &self,
        job: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<Prompt>> {
        self.call(|| async {
            let limit = limit.clamp(1, BATCH_MAX);
            let rows = prompts!(
                "WHERE distillation_id = $1 AND state = $2 AND row_index > $3
                 ORDER BY row_index, sample, hinted, purpose LIMIT $4",
                job.as_uuid(),
                state.as_str(),
                after_row.map_or(Ok(-1), integer)?,
                limit as i64 + ROW_PROMPTS_MAX
            )
            .fetch_all(self.pool())
            .await;
            let mut prompts: Vec<Prompt> = records(rows)?;
            whole_rows(&mut prompts, limit, |prompt| prompt.row);
            Ok(prompts)
        })
        .await
    }

    async fn keep_completions(&self, completions: Vec<Completion>) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            ledger::keep(&mut tx, completions.iter()).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>> {
        self.call(|| async {
            let row =
                sqlx::query_file_as!(CompletionRow, "../../statements/completion.sql", key.0.as_slice())
                    .fetch_optional(self.pool())
                    .await;
            record(row)
        })
        .await
    }

    async fn addresses(&self, keys: &[CompletionKey]) -> StoreResult<Vec<Address>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH_MAX) {
            let rows = self.call(|| async { forgotten::follow(self.pool(), keys).await }).await?;
            found.extend(addresses(keys, rows)?);
        }
        Ok(found)
    }

    async fn forget(
        &self,
        request: RequestId,
        id: DistillationId,
        filter: &LedgerFilter,
    ) -> StoreResult<ForgetOutcome> {
        // A whole ledger takes as long as its deletion.
        self.call_deletion(|| async {
            let mut tx = self.begin_deletion().await?;
            let job = jobs::lock(&mut tx, id).await?;
            let outcome = forgotten::forget(&mut tx, request, &job, filter).await?;
            tx.commit().await?;
            Ok(outcome)
        })
        .await
    }

    async fn retry_parked(&self, id: DistillationId, error: &str) -> StoreResult<u64> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            lifecycle::retry_parked(&jobs::lock(&mut tx, id).await?)?;
            let error = text(error);
            sqlx::query_file!("../../statements/enqueue_parked.sql", id.as_uuid(), &error as &Text<'_>)
                .execute(&mut *tx)
                .await?;
            let retried =
                sqlx::query_file!("../../statements/retry_parked.sql", id.as_uuid(), &error as &Text<'_>)
                    .execute(&mut *tx)
                    .await?;
            tx.commit().await?;
            Ok(retried.rows_affected())
        })
        .await
    }

    async fn record_imported(
        &self,
        id: DistillationId,
        prompts: Vec<(NewPrompt, Harvested)>,
    ) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            let job = jobs::lock(&mut tx, id).await?;
            jobs::apply(&mut tx, id, lifecycle::plan(&job)?).await?;
            ledger::record_imported(&mut tx, id, &prompts).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn ledger(
        &self,
        job: DistillationId,
        filter: &LedgerFilter,
        limit: usize,
    ) -> StoreResult<Vec<LedgerEntry>> {
        self.call(|| async {
            let limit = limit.clamp(1, BATCH_MAX);
            let rows = sqlx::query_file_as!(
                EntryRow,
                "../../statements/ledger.sql",
                job.as_uuid(),
                filter.after_row.map_or(Ok(-1), integer)?,
                limit_of(filter.before_row),
                filter.verdict.map(Verdict::as_str),
                reasons(&filter.reasons),
                filter.model.as_deref().map(text) as Option<Text<'_>>,
                limit as i64 + ROW_PROMPTS_MAX
            )
            .fetch_all(self.pool())
            .await;
            let mut entries: Vec<LedgerEntry> = records(rows)?;
            whole_rows(&mut entries, limit, |entry| entry.row);
            Ok(entries)
        })
        .await
    }

    async fn record_verdicts(&self, job: DistillationId, verdicts: Vec<VerdictUpdate>) -> StoreResult<()> {
        self.call(|| async {
            let mut tx = self.begin().await?;
            ledger::record_verdicts(&mut tx, job, &verdicts).await?;
            Ok(tx.commit().await?)
        })
        .await
    }
}
