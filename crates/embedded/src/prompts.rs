//! Prompts, their leases, and the ledger.

use crate::calls::{self, JobAccount};
use crate::forgotten;
use crate::jobs;
use crate::row::{internal, milliseconds, record, records};
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::budget::Room;
use domain::ids::{CompletionKey, DistillationId, PromptId, RequestId};
use domain::lifecycle;
use domain::ports::{
    Address, AttemptFailure, BATCH_MAX, ForgetOutcome, HarvestOutcome, LeaseOutcome, LedgerFilter,
    PromptStore, QueuedPrompt, StoreError, StoreResult, check_plan,
};
use domain::records::{
    Completion, Distillation, HarvestProgress, Harvested, LeasedPrompt, LedgerEntry, NewPrompt, Prompt,
    VerdictUpdate,
};
use domain::rows::{
    CompletionRow, EntryRow, GroupRow, Held, PromptRow, QueuedPromptRow, ROW_PROMPTS_MAX, SpentRow,
    addresses, integer, json, limit as limit_of, reasons, whole_rows,
};
use domain::spec::TeacherSpec;
use domain::state::{DistillationState, PromptState, Verdict};
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;
use uuid::Uuid;

type Tx<'a> = Transaction<'a, Sqlite>;

/// Prompts; what is given continues the statement after `FROM prompts`.
macro_rules! prompts {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            PromptRow,
            "SELECT id, distillation_id, row_index, sample, profile, hinted, purpose, key, state, attempt, failures,
             error, lease_until <= ?1 AS \"expired!: bool\", tokens_max, money_micros_max FROM prompts " + $rest,
            $($argument),*
        )
    };
}

/// Writes a prompt; says whether it was not known before.
async fn insert(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    prompt: &NewPrompt,
    state: PromptState,
) -> StoreResult<bool> {
    let result = sqlx::query!(
        "INSERT INTO prompts (id, distillation_id, row_index, sample, profile, hinted, purpose, key,
             tokens_max, money_micros_max, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING",
        prompt.id.as_uuid(),
        job.as_uuid(),
        integer::<i64>(prompt.row)?,
        i64::from(prompt.sample),
        i64::from(prompt.profile),
        prompt.hinted,
        prompt.purpose.as_str(),
        prompt.key.0.as_slice(),
        integer::<i64>(prompt.bound.tokens)?,
        integer::<i64>(prompt.bound.money_micros)?,
        state.as_str()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

pub(crate) async fn fetch(transaction: &mut Tx<'_>, now: i64, id: PromptId) -> StoreResult<Option<Held>> {
    record(prompts!("WHERE id = ?2", now, id.as_uuid()).fetch_optional(&mut **transaction).await)
}

async fn find_completion(transaction: &mut Tx<'_>, key: CompletionKey) -> StoreResult<Option<Completion>> {
    let row = sqlx::query_file_as!(CompletionRow, "../../statements/completion.sql", key.0.as_slice())
        .fetch_optional(&mut **transaction)
        .await;
    record(row)
}

/// Writes a completion under its key; says whether it was not known before.
async fn keep(transaction: &mut Tx<'_>, now: i64, completion: &Completion) -> StoreResult<bool> {
    let result = sqlx::query!(
        "INSERT INTO completions (key, text, finish_reason, model, tokens_in, tokens_out, money_micros,
             seconds, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        completion.key.0.as_slice(),
        &completion.text,
        completion.finish_reason.as_str(),
        &completion.model,
        integer::<i64>(completion.tokens_in)?,
        integer::<i64>(completion.tokens_out)?,
        integer::<i64>(completion.money_micros)?,
        completion.seconds,
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

#[async_trait]
impl PromptStore for SqliteStore {
    async fn plan_prompts(&self, id: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()> {
        check_plan(&prompts)?;
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = jobs::fetch(&mut transaction, id).await?;
        jobs::apply(&mut transaction, self.now(), id, lifecycle::plan(&job)?).await?;
        // What is asked in batches is not published: the driver gathers it.
        let is_published = !job.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched);
        for prompt in &prompts {
            if insert(&mut transaction, id, prompt, PromptState::Pending).await? && is_published {
                sqlx::query!("INSERT INTO outbox (prompt_id) VALUES (?)", prompt.id.as_uuid())
                    .execute(&mut *transaction)
                    .await
                    .map_err(internal)?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    async fn harvest_progress(&self, id: DistillationId) -> StoreResult<HarvestProgress> {
        // One transaction, so that all its numbers are of one moment.
        let mut reading = self.readers().begin().await.map_err(internal)?;
        let spent = sqlx::query_as!(
            SpentRow,
            "SELECT calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
             CASE state WHEN 'harvesting' THEN obstacle ELSE '' END AS \"obstacle!: String\"
             FROM distillations WHERE id = ?",
            id.as_uuid()
        )
        .fetch_optional(&mut *reading)
        .await;
        let mut progress: HarvestProgress =
            record(spent)?.ok_or_else(|| StoreError::not_found("distillation", id))?;
        for row in
            calls::reserved!(self.now(), id.as_uuid()).fetch_all(&mut *reading).await.map_err(internal)?
        {
            let sum = if row.in_doubt { &mut progress.in_doubt } else { &mut progress.open };
            *sum = row.amount()?;
        }
        let groups = sqlx::query_as!(
            GroupRow,
            "SELECT state, purpose, verdict, reason, count(*) AS count FROM prompts WHERE distillation_id = ?
             GROUP BY state, purpose, verdict, reason",
            id.as_uuid()
        )
        .fetch_all(&mut *reading)
        .await
        .map_err(internal)?;
        for group in &groups {
            group.count_in(&mut progress)?;
        }
        Ok(progress)
    }

    async fn outbox(&self, limit: usize) -> StoreResult<Vec<QueuedPrompt>> {
        let rows = sqlx::query_file_as!(
            QueuedPromptRow,
            "../../statements/outbox.sql",
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        Ok(rows.into_iter().map(QueuedPrompt::from).collect())
    }

    async fn mark_published(&self, prompts: &[PromptId]) -> StoreResult<()> {
        if prompts.is_empty() {
            return Ok(());
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for prompt in prompts {
            sqlx::query!("DELETE FROM outbox WHERE prompt_id = ?", prompt.as_uuid())
                .execute(&mut *transaction)
                .await
                .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }

    async fn unfinished_prompts(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> StoreResult<Vec<QueuedPrompt>> {
        // The cross join keeps the order of the tables: pages go along the index of unfinished prompts.
        let rows = sqlx::query_as!(
            QueuedPromptRow,
            "SELECT prompts.id AS prompt, traceparent FROM prompts INDEXED BY prompts_unfinished
             CROSS JOIN distillations ON distillations.id = prompts.distillation_id
             WHERE prompts.id > ?1 AND prompts.state IN ('pending', 'leased')
             AND (prompts.state = 'pending' AND NOT batched OR lease_until <= ?2 AND prompts.state = 'leased')
             AND distillations.state = 'harvesting'
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE prompt_id = prompts.id) ORDER BY prompts.id LIMIT ?3",
            after.map_or(Uuid::nil(), PromptId::as_uuid),
            self.now(),
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        Ok(rows.into_iter().map(QueuedPrompt::from).collect())
    }

    async fn lease_prompts(
        &self,
        prompts: &[PromptId],
        worker: &str,
        lease: Duration,
    ) -> StoreResult<LeaseOutcome> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let asker = Asker { worker, lease, in_batch: false };
        let outcome = lease_all(&mut transaction, self.now(), prompts, &asker).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(outcome)
    }

    async fn heartbeat_prompts(
        &self,
        leases: &[(PromptId, u32)],
        lease: Duration,
    ) -> StoreResult<Vec<PromptId>> {
        let until = self.now() + lease.as_millis() as i64;
        let mut lost = Vec::new();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for (id, attempt) in leases {
            let result = sqlx::query!(
                "UPDATE prompts SET lease_until = ? WHERE id = ? AND attempt = ? AND state = 'leased'",
                until,
                id.as_uuid(),
                i64::from(*attempt)
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
            if result.rows_affected() == 0 {
                lost.push(*id);
            }
        }
        transaction.commit().await.map_err(internal)?;
        Ok(lost)
    }

    async fn record_harvest(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome> {
        let now = self.now();
        let mut outcome = HarvestOutcome::default();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for answer in &harvested {
            calls::end(&mut transaction, &answer.calls).await?;
            let new = keep(&mut transaction, now, &answer.completion).await?;
            let Some(held) = fetch(&mut transaction, now, answer.prompt).await? else {
                outcome.stale.push(answer.prompt);
                continue;
            };
            let current = held.prompt.attempt == answer.attempt;
            if current && held.prompt.state == PromptState::Answered {
                // The reply to the first call was lost.
                outcome.stored.push(answer.prompt);
                continue;
            }
            let holds = current && held.prompt.state == PromptState::Leased;
            let hit = holds && answer.cached;
            let paid_twice = !new && !answer.cached;
            count(&mut transaction, held.prompt.distillation, hit, paid_twice).await?;
            if !holds {
                outcome.stale.push(answer.prompt);
                continue;
            }
            answered(&mut transaction, answer).await?;
            outcome.stored.push(answer.prompt);
        }
        transaction.commit().await.map_err(internal)?;
        Ok(outcome)
    }

    async fn record_failure(
        &self,
        id: PromptId,
        attempt: u32,
        failure: AttemptFailure,
    ) -> StoreResult<PromptState> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let state = fail(&mut transaction, self.now(), id, attempt, failure).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(state)
    }

    async fn prompt(&self, id: PromptId) -> StoreResult<Prompt> {
        let row = prompts!("WHERE id = ?2", self.now(), id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("prompt", id))
    }

    async fn prompts_in_state(
        &self,
        job: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<Prompt>> {
        let rows = prompts!(
            "WHERE distillation_id = ?2 AND state = ?3 AND row_index > ?4
             ORDER BY row_index, sample, hinted, purpose LIMIT ?5",
            self.now(),
            job.as_uuid(),
            state.as_str(),
            after_row.map_or(Ok(-1), integer::<i64>)?,
            limit.clamp(1, BATCH_MAX) as i64 + ROW_PROMPTS_MAX
        )
        .fetch_all(self.readers())
        .await;
        let mut prompts: Vec<Prompt> = records(rows)?;
        whole_rows(&mut prompts, limit.clamp(1, BATCH_MAX), |prompt| prompt.row);
        Ok(prompts)
    }

    async fn keep_completions(&self, completions: Vec<Completion>) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for completion in &completions {
            keep(&mut transaction, now, completion).await?;
        }
        transaction.commit().await.map_err(internal)
    }

    async fn completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>> {
        let row = sqlx::query_file_as!(CompletionRow, "../../statements/completion.sql", key.0.as_slice())
            .fetch_optional(self.readers())
            .await;
        record(row)
    }

    async fn addresses(&self, keys: &[CompletionKey]) -> StoreResult<Vec<Address>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH_MAX) {
            let rows = forgotten::follow(self.readers(), keys).await?;
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
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = jobs::fetch(&mut transaction, id).await?;
        let outcome = forgotten::forget(&mut transaction, now, request, &job, filter).await?;
        transaction.commit().await.map_err(internal)?;
        Ok(outcome)
    }

    async fn retry_parked(&self, id: DistillationId, error: &str) -> StoreResult<u64> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        lifecycle::retry_parked(&jobs::fetch(&mut transaction, id).await?)?;
        sqlx::query_file!("../../statements/enqueue_parked.sql", id.as_uuid(), error)
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        let retried = sqlx::query_file!("../../statements/retry_parked.sql", id.as_uuid(), error)
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(retried.rows_affected())
    }

    async fn record_imported(
        &self,
        id: DistillationId,
        prompts: Vec<(NewPrompt, Harvested)>,
    ) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = jobs::fetch(&mut transaction, id).await?;
        jobs::apply(&mut transaction, now, id, lifecycle::plan(&job)?).await?;
        for (prompt, harvested) in &prompts {
            keep(&mut transaction, now, &harvested.completion).await?;
            if insert(&mut transaction, id, prompt, PromptState::Leased).await? {
                answered(&mut transaction, harvested).await?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    async fn ledger(
        &self,
        job: DistillationId,
        filter: &LedgerFilter,
        limit: usize,
    ) -> StoreResult<Vec<LedgerEntry>> {
        let limit = limit.clamp(1, BATCH_MAX);
        let rows = sqlx::query_file_as!(
            EntryRow,
            "../../statements/ledger.sql",
            job.as_uuid(),
            filter.after_row.map_or(Ok(-1), integer::<i64>)?,
            limit_of(filter.before_row),
            filter.verdict.map(Verdict::as_str),
            reasons(&filter.reasons),
            &filter.model,
            limit as i64 + ROW_PROMPTS_MAX
        )
        .fetch_all(self.readers())
        .await;
        let mut entries: Vec<LedgerEntry> = records(rows)?;
        whole_rows(&mut entries, limit, |entry| entry.row);
        Ok(entries)
    }

    async fn record_verdicts(&self, job: DistillationId, verdicts: Vec<VerdictUpdate>) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for verdict in &verdicts {
            sqlx::query!(
                "UPDATE prompts SET verdict = ?, reason = ?, weight = ? WHERE id = ? AND distillation_id = ?",
                verdict.verdict.as_str(),
                verdict.reason.map(|reason| reason.as_str()),
                verdict.weight,
                verdict.prompt.as_uuid(),
                job.as_uuid()
            )
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }
}

/// Ends a lease without an answer, where it holds. Returns the prompt's state.
pub(crate) async fn fail(
    transaction: &mut Tx<'_>,
    now: i64,
    id: PromptId,
    attempt: u32,
    failure: AttemptFailure,
) -> StoreResult<PromptState> {
    let held = fetch(transaction, now, id).await?;
    let held = held.ok_or_else(|| StoreError::not_found("prompt", id))?;
    let prompt = &held.prompt;
    if prompt.state != PromptState::Leased || prompt.attempt != attempt {
        return Ok(prompt.state);
    }
    let (failures, error, state) = match failure {
        AttemptFailure::Delayed => (prompt.failures, prompt.error.clone(), PromptState::Pending),
        AttemptFailure::OutOfBudget => (prompt.failures, prompt.error.clone(), PromptState::Skipped),
        AttemptFailure::Teacher { error, failures_max } => {
            let failures = prompt.failures + 1;
            let parked = failures >= failures_max;
            (failures, error, if parked { PromptState::Parked } else { PromptState::Pending })
        }
    };
    sqlx::query_file!(
        "../../statements/end_attempt.sql",
        state.as_str(),
        i64::from(failures),
        error,
        id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(state)
}

/// Who leases prompts.
pub(crate) struct Asker<'a> {
    pub(crate) worker: &'a str,
    pub(crate) lease: Duration,
    /// Whether it asks them in a batch.
    pub(crate) in_batch: bool,
}

/// Leases what can be leased of these prompts.
pub(crate) async fn lease_all(
    transaction: &mut Tx<'_>,
    now: i64,
    prompts: &[PromptId],
    asker: &Asker<'_>,
) -> StoreResult<LeaseOutcome> {
    let until = now.saturating_add(milliseconds(asker.lease));
    let mut outcome = LeaseOutcome::default();
    let mut accounts: HashMap<DistillationId, (JobAccount, bool)> = HashMap::new();
    for id in prompts {
        let Some(held) = fetch(transaction, now, *id).await? else {
            outcome.settled.push(*id);
            continue;
        };
        let distillation = held.prompt.distillation;
        let (job, is_tried_elsewhere) = match accounts.entry(distillation) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let job = JobAccount::fetch(transaction, now, distillation).await?;
                // A batch is filled by the job's driver.
                let tried = !asker.in_batch
                    && jobs::is_tried_elsewhere(transaction, distillation, asker.worker).await?;
                new.insert((job, tried))
            }
        };
        match held.prompt.state {
            _ if job.record.state != DistillationState::Harvesting => {
                outcome.settled.push(*id);
                continue;
            }
            PromptState::Pending => {}
            PromptState::Leased if held.expired => {}
            PromptState::Leased => {
                outcome.busy.push(*id);
                continue;
            }
            PromptState::Answered | PromptState::Parked | PromptState::Skipped => {
                outcome.settled.push(*id);
                continue;
            }
        }
        let cached = find_completion(transaction, held.prompt.key).await?;
        // What was answered is free, and a worker's; the rest is asked in one way or the other.
        if asker.in_batch != (cached.is_none() && job.is_batched()) {
            outcome.settled.push(*id);
            continue;
        }
        if *is_tried_elsewhere || cached.is_none() && asked_elsewhere(transaction, &held.prompt, now).await? {
            outcome.busy.push(*id);
            continue;
        }
        // Within this transaction the account counts what it hands out, so that no more is leased than may be called.
        let room = if cached.is_none() { job.account.reserve(held.bound) } else { Room::Free };
        match room {
            Room::Free => {}
            Room::Later => {
                outcome.busy.push(*id);
                continue;
            }
            Room::Exhausted => {
                set_state(transaction, *id, PromptState::Skipped).await?;
                outcome.out_of_budget.push(*id);
                continue;
            }
        }
        let attempt = held.prompt.attempt + 1;
        let prompt = Prompt { attempt, state: PromptState::Leased, ..held.prompt };
        take(transaction, &prompt, asker.worker, until).await?;
        let example = example(transaction, &job.record, prompt.row).await?;
        outcome.leased.push(LeasedPrompt { prompt, example, cached });
    }
    Ok(outcome)
}

async fn asked_elsewhere(transaction: &mut Tx<'_>, prompt: &Prompt, now: i64) -> StoreResult<bool> {
    let others = sqlx::query_scalar!(
        "SELECT count(*) FROM prompts WHERE key = ? AND state = 'leased' AND lease_until > ? AND id <> ?",
        prompt.key.0.as_slice(),
        now,
        prompt.id.as_uuid()
    )
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(others > 0)
}

async fn set_state(transaction: &mut Tx<'_>, id: PromptId, state: PromptState) -> StoreResult<()> {
    sqlx::query!("UPDATE prompts SET state = ?, worker = '' WHERE id = ?", state.as_str(), id.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(())
}

async fn take(transaction: &mut Tx<'_>, prompt: &Prompt, worker: &str, until: i64) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE prompts SET state = 'leased', attempt = ?, worker = ?, lease_until = ? WHERE id = ?",
        i64::from(prompt.attempt),
        worker,
        until,
        prompt.id.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

async fn example(transaction: &mut Tx<'_>, job: &Distillation, row: u64) -> StoreResult<domain::Example> {
    let found = sqlx::query_scalar!(
        "SELECT example FROM examples WHERE dataset_id = ? AND row_index = ?",
        job.dataset.as_uuid(),
        integer::<i64>(row)?
    )
    .fetch_optional(&mut **transaction)
    .await
    .map_err(internal)?
    .ok_or_else(|| StoreError::not_found("row", row))?;
    json("example", &found)
}

/// Counts a hit of the cache, or a call for an answer that is known.
async fn count(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    hit: bool,
    paid_twice: bool,
) -> StoreResult<()> {
    if !hit && !paid_twice {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE distillations SET cache_hits = cache_hits + ?1, calls_paid_twice = calls_paid_twice + ?2
         WHERE id = ?3",
        i64::from(hit),
        i64::from(paid_twice),
        job.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Writes what the task read into the prompt's line.
async fn answered(transaction: &mut Tx<'_>, answer: &Harvested) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE prompts SET state = 'answered', worker = '', rationale = ?, label = ?,
         parse_reason = ?, verdict = ?, reason = ? WHERE id = ?",
        &answer.parsed.rationale,
        &answer.parsed.label,
        answer.parsed.reason.map(|reason| reason.as_str()),
        answer.verdict.as_str(),
        answer.reason.map(|reason| reason.as_str()),
        answer.prompt.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}
