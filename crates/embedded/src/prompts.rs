//! Prompts, their leases, and the ledger.

use crate::distillations;
use crate::row::{get, integer, internal, json, named, named_maybe, number, small, uuid};
use crate::store::SqliteStore;
use domain::ids::{CompletionKey, DistillationId, PromptId};
use domain::records::{
    Completion, Distillation, FinishReason, Harvested, LeasedPrompt, LedgerEntry, NewPrompt, Parsed, Prompt,
    VerdictUpdate,
};
use domain::spec::Budget;
use domain::state::{DistillationState, PromptState, Verdict};
use domain::store::{
    AttemptFailure, BATCH_MAX, HarvestOutcome, LeaseOutcome, LedgerFilter, StoreError, StoreResult,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::time::Duration;

type Tx<'a> = Transaction<'a, Sqlite>;

fn read(row: &SqliteRow) -> StoreResult<Prompt> {
    Ok(Prompt {
        id: PromptId::from_uuid(uuid(row, "id")?),
        distillation: DistillationId::from_uuid(uuid(row, "distillation_id")?),
        row: number(row, "row_index")?,
        sample: small(row, "sample")?,
        hinted: get::<i64>(row, "hinted")? != 0,
        purpose: named(row, "purpose")?,
        key: key(row)?,
        state: named(row, "state")?,
        attempt: small(row, "attempt")?,
        failures: small(row, "failures")?,
        error: get(row, "error")?,
    })
}

fn key(row: &SqliteRow) -> StoreResult<CompletionKey> {
    let bytes: Vec<u8> = get(row, "key")?;
    CompletionKey::from_slice(&bytes)
        .ok_or_else(|| StoreError::Internal("a completion's key is cut off".to_owned()))
}

fn read_completion(row: &SqliteRow) -> StoreResult<Completion> {
    let finish_reason: String = get(row, "finish_reason")?;
    Ok(Completion {
        key: key(row)?,
        text: get(row, "text")?,
        finish_reason: match finish_reason.as_str() {
            "length" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Stop,
        },
        model: get(row, "model")?,
        tokens_in: number(row, "tokens_in")?,
        tokens_out: number(row, "tokens_out")?,
        money_micros: number(row, "money_micros")?,
        seconds: get(row, "seconds")?,
    })
}

/// Writes a prompt; says whether it was not known before.
pub(crate) async fn insert(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    prompt: &NewPrompt,
    state: PromptState,
) -> StoreResult<bool> {
    let result = sqlx::query(
        "INSERT INTO prompts (id, distillation_id, row_index, sample, hinted, purpose, key, tokens_reserved, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING",
    )
    .bind(prompt.id.as_uuid())
    .bind(job.as_uuid())
    .bind(integer(prompt.row)?)
    .bind(i64::from(prompt.sample))
    .bind(i64::from(prompt.hinted))
    .bind(prompt.purpose.as_str())
    .bind(prompt.key.0.as_slice())
    .bind(integer(prompt.tokens_reserved)?)
    .bind(state.as_str())
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

async fn fetch(transaction: &mut Tx<'_>, id: PromptId) -> StoreResult<Option<SqliteRow>> {
    sqlx::query("SELECT * FROM prompts WHERE id = ?")
        .bind(id.as_uuid())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)
}

async fn find_completion(transaction: &mut Tx<'_>, key: CompletionKey) -> StoreResult<Option<Completion>> {
    let row = sqlx::query("SELECT * FROM completions WHERE key = ?")
        .bind(key.0.as_slice())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
    row.as_ref().map(read_completion).transpose()
}

/// Writes a completion under its key; says whether it was not known before.
async fn keep(transaction: &mut Tx<'_>, now: i64, completion: &Completion) -> StoreResult<bool> {
    let finish_reason = match completion.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    };
    let result = sqlx::query(
        "INSERT INTO completions (key, text, finish_reason, model, tokens_in, tokens_out, money_micros, seconds, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
    )
    .bind(completion.key.0.as_slice())
    .bind(&completion.text)
    .bind(finish_reason)
    .bind(&completion.model)
    .bind(integer(completion.tokens_in)?)
    .bind(integer(completion.tokens_out)?)
    .bind(integer(completion.money_micros)?)
    .bind(completion.seconds)
    .bind(now)
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

/// Gives back what a lease reserved.
async fn unreserve(transaction: &mut Tx<'_>, prompt: &SqliteRow) -> StoreResult<()> {
    if get::<i64>(prompt, "reserved")? == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE distillations SET prompts_reserved = prompts_reserved - 1, tokens_reserved = tokens_reserved - ? WHERE id = ?",
    )
    .bind(get::<i64>(prompt, "tokens_reserved")?)
    .bind(uuid(prompt, "distillation_id")?)
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Reserves one call; says whether the budget has room for it.
async fn reserve(transaction: &mut Tx<'_>, job: &Distillation, tokens: u64) -> StoreResult<bool> {
    let budget = job.spec.teacher.as_ref().map_or_else(Budget::default, |teacher| teacher.budget);
    let limit = |limit: Option<u64>| limit.map_or(Ok(i64::MAX), integer);
    let result = sqlx::query(
        "UPDATE distillations SET prompts_reserved = prompts_reserved + 1, tokens_reserved = tokens_reserved + ?1
         WHERE id = ?2 AND calls + prompts_reserved + 1 <= ?3
         AND tokens_in + tokens_out + tokens_reserved + ?1 <= ?4 AND money_micros < ?5",
    )
    .bind(integer(tokens)?)
    .bind(job.id.as_uuid())
    .bind(limit(budget.prompts)?)
    .bind(limit(budget.tokens)?)
    .bind(limit(budget.money_micros)?)
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

impl SqliteStore {
    pub(crate) async fn prompt_outbox(&self, limit: usize) -> StoreResult<Vec<PromptId>> {
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT prompt_id FROM outbox ORDER BY sequence LIMIT ?")
                .bind(limit.clamp(1, BATCH_MAX) as i64)
                .fetch_all(self.readers())
                .await
                .map_err(internal)?;
        Ok(ids.into_iter().map(PromptId::from_uuid).collect())
    }

    pub(crate) async fn prompt_mark_published(&self, prompts: &[PromptId]) -> StoreResult<()> {
        if prompts.is_empty() {
            return Ok(());
        }
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for prompt in prompts {
            sqlx::query("DELETE FROM outbox WHERE prompt_id = ?")
                .bind(prompt.as_uuid())
                .execute(&mut *transaction)
                .await
                .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn prompt_unfinished(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> StoreResult<Vec<PromptId>> {
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
            "SELECT id FROM prompts WHERE id > ?1
             AND distillation_id IN (SELECT id FROM distillations WHERE state = 'harvesting')
             AND (state = 'pending' OR state = 'leased' AND lease_until <= ?2)
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE prompt_id = prompts.id) ORDER BY id LIMIT ?3",
        )
        .bind(after.map_or(uuid::Uuid::nil(), PromptId::as_uuid))
        .bind(self.now())
        .bind(limit.clamp(1, BATCH_MAX) as i64)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        Ok(ids.into_iter().map(PromptId::from_uuid).collect())
    }

    pub(crate) async fn prompt_lease(
        &self,
        prompts: &[PromptId],
        worker: &str,
        lease: Duration,
    ) -> StoreResult<LeaseOutcome> {
        let now = self.now();
        let until = now + lease.as_millis() as i64;
        let mut outcome = LeaseOutcome::default();
        let mut jobs: HashMap<DistillationId, Distillation> = HashMap::new();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for id in prompts {
            let Some(row) = fetch(&mut transaction, *id).await? else {
                outcome.settled.push(*id);
                continue;
            };
            let mut prompt = read(&row)?;
            if !jobs.contains_key(&prompt.distillation) {
                let job = distillations::fetch(&mut transaction, prompt.distillation).await?;
                jobs.insert(prompt.distillation, job);
            }
            let Some(job) = jobs.get(&prompt.distillation) else { continue };
            let expired = get::<i64>(&row, "lease_until")? <= now;
            match prompt.state {
                _ if job.state != DistillationState::Harvesting => {
                    outcome.settled.push(*id);
                    continue;
                }
                PromptState::Pending => {}
                PromptState::Leased if expired => unreserve(&mut transaction, &row).await?,
                PromptState::Leased => {
                    outcome.busy.push(*id);
                    continue;
                }
                PromptState::Answered | PromptState::Parked | PromptState::Skipped => {
                    outcome.settled.push(*id);
                    continue;
                }
            }
            let cached = find_completion(&mut transaction, prompt.key).await?;
            if cached.is_none() && asked_elsewhere(&mut transaction, &prompt, now).await? {
                outcome.busy.push(*id);
                continue;
            }
            let reserved = cached.is_none();
            if reserved && !reserve(&mut transaction, job, number(&row, "tokens_reserved")?).await? {
                set_state(&mut transaction, *id, PromptState::Skipped).await?;
                outcome.out_of_budget.push(*id);
                continue;
            }
            prompt.attempt += 1;
            prompt.state = PromptState::Leased;
            take(&mut transaction, &prompt, worker, until, reserved).await?;
            let example = example(&mut transaction, job, prompt.row).await?;
            outcome.leased.push(LeasedPrompt { prompt, example, cached });
        }
        transaction.commit().await.map_err(internal)?;
        Ok(outcome)
    }

    pub(crate) async fn prompt_heartbeat(
        &self,
        leases: &[(PromptId, u32)],
        lease: Duration,
    ) -> StoreResult<Vec<PromptId>> {
        let until = self.now() + lease.as_millis() as i64;
        let mut lost = Vec::new();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for (id, attempt) in leases {
            let result = sqlx::query(
                "UPDATE prompts SET lease_until = ? WHERE id = ? AND attempt = ? AND state = 'leased'",
            )
            .bind(until)
            .bind(id.as_uuid())
            .bind(i64::from(*attempt))
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

    pub(crate) async fn prompt_record(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome> {
        let now = self.now();
        let mut outcome = HarvestOutcome::default();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for answer in &harvested {
            keep(&mut transaction, now, &answer.completion).await?;
            let Some(row) = fetch(&mut transaction, answer.prompt).await? else {
                outcome.stale.push(answer.prompt);
                continue;
            };
            let prompt = read(&row)?;
            let holds = prompt.state == PromptState::Leased && prompt.attempt == answer.attempt;
            let paid_twice = !holds && !answer.cached;
            spend(&mut transaction, prompt.distillation, answer, paid_twice).await?;
            if !holds {
                outcome.stale.push(answer.prompt);
                continue;
            }
            unreserve(&mut transaction, &row).await?;
            answered(&mut transaction, answer).await?;
            outcome.stored.push(answer.prompt);
        }
        transaction.commit().await.map_err(internal)?;
        Ok(outcome)
    }

    pub(crate) async fn prompt_fail(
        &self,
        id: PromptId,
        attempt: u32,
        failure: AttemptFailure,
    ) -> StoreResult<PromptState> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let row = fetch(&mut transaction, id).await?.ok_or_else(|| StoreError::not_found("prompt", id))?;
        let prompt = read(&row)?;
        if prompt.state != PromptState::Leased || prompt.attempt != attempt {
            return Ok(prompt.state);
        }
        unreserve(&mut transaction, &row).await?;
        let (failures, error, state) = match failure {
            AttemptFailure::Delayed => (prompt.failures, prompt.error, PromptState::Pending),
            AttemptFailure::Teacher { error, failures_max } => {
                let failures = prompt.failures + 1;
                let parked = failures >= failures_max;
                (failures, error, if parked { PromptState::Parked } else { PromptState::Pending })
            }
        };
        sqlx::query(
            "UPDATE prompts SET state = ?, failures = ?, error = ?, reserved = 0, worker = '' WHERE id = ?",
        )
        .bind(state.as_str())
        .bind(i64::from(failures))
        .bind(error)
        .bind(id.as_uuid())
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(state)
    }

    pub(crate) async fn prompt_get(&self, id: PromptId) -> StoreResult<Prompt> {
        let row = sqlx::query("SELECT * FROM prompts WHERE id = ?")
            .bind(id.as_uuid())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::not_found("prompt", id))
    }

    pub(crate) async fn prompt_in_state(
        &self,
        job: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<Prompt>> {
        let rows = sqlx::query(
            "SELECT * FROM prompts WHERE distillation_id = ? AND state = ? AND row_index > ?
             ORDER BY row_index, sample, hinted, purpose LIMIT ?",
        )
        .bind(job.as_uuid())
        .bind(state.as_str())
        .bind(after_row.map_or(Ok(-1), integer)?)
        .bind(limit.clamp(1, BATCH_MAX) as i64 + ROW_PROMPTS_MAX)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let mut prompts = rows.iter().map(read).collect::<StoreResult<Vec<_>>>()?;
        whole_rows(&mut prompts, limit.clamp(1, BATCH_MAX), |prompt| prompt.row);
        Ok(prompts)
    }

    pub(crate) async fn prompt_completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>> {
        let row = sqlx::query("SELECT * FROM completions WHERE key = ?")
            .bind(key.0.as_slice())
            .fetch_optional(self.readers())
            .await
            .map_err(internal)?;
        row.as_ref().map(read_completion).transpose()
    }

    pub(crate) async fn prompt_record_imported(
        &self,
        id: DistillationId,
        prompts: Vec<(NewPrompt, Harvested)>,
    ) -> StoreResult<()> {
        let now = self.now();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        let job = distillations::fetch(&mut transaction, id).await?;
        match job.state {
            DistillationState::Queued => {
                distillations::move_to(&mut transaction, now, &job, DistillationState::Harvesting, "")
                    .await?;
            }
            DistillationState::Harvesting => {}
            state => {
                return Err(StoreError::Conflict(format!(
                    "distillation {id} is {state}: nothing is imported"
                )));
            }
        }
        for (prompt, harvested) in &prompts {
            keep(&mut transaction, now, &harvested.completion).await?;
            if insert(&mut transaction, id, prompt, PromptState::Leased).await? {
                answered(&mut transaction, harvested).await?;
            }
        }
        transaction.commit().await.map_err(internal)
    }

    pub(crate) async fn prompt_ledger(
        &self,
        job: DistillationId,
        filter: &LedgerFilter,
        limit: usize,
    ) -> StoreResult<Vec<LedgerEntry>> {
        let limit = limit.clamp(1, BATCH_MAX);
        let rows = sqlx::query(
            "SELECT prompts.*, completions.text, completions.model FROM prompts JOIN completions USING (key)
             WHERE distillation_id = ?1 AND state = 'answered' AND row_index > ?2 AND (?3 IS NULL OR verdict = ?3)
             ORDER BY row_index, sample, hinted, purpose LIMIT ?4",
        )
        .bind(job.as_uuid())
        .bind(filter.after_row.map_or(Ok(-1), integer)?)
        .bind(filter.verdict.map(Verdict::as_str))
        .bind(limit as i64 + ROW_PROMPTS_MAX)
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        let mut entries = rows.iter().map(read_entry).collect::<StoreResult<Vec<_>>>()?;
        whole_rows(&mut entries, limit, |entry| entry.row);
        Ok(entries)
    }

    pub(crate) async fn prompt_verdicts(
        &self,
        job: DistillationId,
        verdicts: Vec<VerdictUpdate>,
    ) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for verdict in &verdicts {
            sqlx::query(
                "UPDATE prompts SET verdict = ?, reason = ?, weight = ? WHERE id = ? AND distillation_id = ?",
            )
            .bind(verdict.verdict.as_str())
            .bind(verdict.reason.map(|reason| reason.as_str()))
            .bind(verdict.weight)
            .bind(verdict.prompt.as_uuid())
            .bind(job.as_uuid())
            .execute(&mut *transaction)
            .await
            .map_err(internal)?;
        }
        transaction.commit().await.map_err(internal)
    }
}

/// Most prompts of one row: 64 samples and a hinted one, for two purposes, with room to spare.
const ROW_PROMPTS_MAX: i64 = 256;

/// Cuts a longer list before the row that `limit` falls into; the first row stays whole in any case.
fn whole_rows<T>(items: &mut Vec<T>, limit: usize, row: impl Fn(&T) -> u64) {
    let (Some(first), Some(cut)) = (items.first().map(&row), items.get(limit).map(&row)) else { return };
    items.retain(|item| if cut == first { row(item) == first } else { row(item) < cut });
}

fn read_entry(row: &SqliteRow) -> StoreResult<LedgerEntry> {
    let prompt = read(row)?;
    Ok(LedgerEntry {
        distillation: prompt.distillation,
        prompt: prompt.id,
        row: prompt.row,
        sample: prompt.sample,
        hinted: prompt.hinted,
        purpose: prompt.purpose,
        parsed: Parsed {
            rationale: get(row, "rationale")?,
            label: get(row, "label")?,
            reason: named_maybe(row, "parse_reason")?,
        },
        verdict: named_maybe(row, "verdict")?.unwrap_or(Verdict::Unjudged),
        reason: named_maybe(row, "reason")?,
        weight: get(row, "weight")?,
        completion: get(row, "text")?,
        model: get(row, "model")?,
    })
}

async fn asked_elsewhere(transaction: &mut Tx<'_>, prompt: &Prompt, now: i64) -> StoreResult<bool> {
    let others: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM prompts WHERE key = ? AND state = 'leased' AND lease_until > ? AND id <> ?",
    )
    .bind(prompt.key.0.as_slice())
    .bind(now)
    .bind(prompt.id.as_uuid())
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(others > 0)
}

async fn set_state(transaction: &mut Tx<'_>, id: PromptId, state: PromptState) -> StoreResult<()> {
    sqlx::query("UPDATE prompts SET state = ?, reserved = 0, worker = '' WHERE id = ?")
        .bind(state.as_str())
        .bind(id.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(())
}

async fn take(
    transaction: &mut Tx<'_>,
    prompt: &Prompt,
    worker: &str,
    until: i64,
    reserved: bool,
) -> StoreResult<()> {
    sqlx::query("UPDATE prompts SET state = 'leased', attempt = ?, worker = ?, lease_until = ?, reserved = ? WHERE id = ?")
        .bind(i64::from(prompt.attempt))
        .bind(worker)
        .bind(until)
        .bind(i64::from(reserved))
        .bind(prompt.id.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(())
}

async fn example(transaction: &mut Tx<'_>, job: &Distillation, row: u64) -> StoreResult<domain::Example> {
    let found = sqlx::query("SELECT example FROM examples WHERE dataset_id = ? AND row_index = ?")
        .bind(job.dataset.as_uuid())
        .bind(integer(row)?)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?
        .ok_or_else(|| StoreError::not_found("row", row))?;
    json(&found, "example")
}

/// Counts a call, or a hit of the cache.
async fn spend(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    answer: &Harvested,
    paid_twice: bool,
) -> StoreResult<()> {
    let (calls, hits) = if answer.cached { (0, i64::from(!paid_twice)) } else { (1, 0) };
    let completion = &answer.completion;
    sqlx::query(
        "UPDATE distillations SET calls = calls + ?1, cache_hits = cache_hits + ?2, calls_paid_twice = calls_paid_twice + ?3,
         tokens_in = tokens_in + ?4, tokens_out = tokens_out + ?5, money_micros = money_micros + ?6 WHERE id = ?7",
    )
    .bind(calls)
    .bind(hits)
    .bind(i64::from(paid_twice))
    .bind(calls * integer(completion.tokens_in)?)
    .bind(calls * integer(completion.tokens_out)?)
    .bind(calls * integer(completion.money_micros)?)
    .bind(job.as_uuid())
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Writes what the task read into the prompt's line.
async fn answered(transaction: &mut Tx<'_>, answer: &Harvested) -> StoreResult<()> {
    sqlx::query(
        "UPDATE prompts SET state = 'answered', reserved = 0, worker = '', rationale = ?, label = ?, parse_reason = ?,
         verdict = ?, reason = ? WHERE id = ?",
    )
    .bind(&answer.parsed.rationale)
    .bind(&answer.parsed.label)
    .bind(answer.parsed.reason.map(|reason| reason.as_str()))
    .bind(answer.verdict.as_str())
    .bind(answer.reason.map(|reason| reason.as_str()))
    .bind(answer.prompt.as_uuid())
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}
