//! Prompts, their leases, and the ledger.

use crate::distillations;
use crate::row::{integer, internal, json, named, named_maybe, number, record, records};
use crate::store::SqliteStore;
use domain::completion::{FinishReason, Parsed};
use domain::ids::{CompletionKey, DistillationId, PromptId};
use domain::queue::Work;
use domain::records::{
    Completion, Distillation, Harvested, LeasedPrompt, LedgerEntry, NewPrompt, Prompt, VerdictUpdate,
};
use domain::spec::Budget;
use domain::state::{DistillationState, PromptState, Verdict};
use domain::store::{
    AttemptFailure, BATCH_MAX, HarvestOutcome, LeaseOutcome, LedgerFilter, StoreError, StoreResult,
};
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;
use uuid::Uuid;

type Tx<'a> = Transaction<'a, Sqlite>;

/// An entry of the work list.
struct WorkRow {
    prompt: Uuid,
    traceparent: String,
}

impl WorkRow {
    fn work(self) -> Work {
        Work { prompt: PromptId::from_uuid(self.prompt), traceparent: self.traceparent }
    }
}

struct PromptRow {
    id: Uuid,
    distillation_id: Uuid,
    row_index: i64,
    sample: i64,
    hinted: i64,
    purpose: String,
    key: Vec<u8>,
    state: String,
    attempt: i64,
    failures: i64,
    error: String,
    lease_until: i64,
    reserved: i64,
    tokens_reserved: i64,
}

/// Prompts; what is given goes on after `FROM prompts`.
macro_rules! prompts {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            PromptRow,
            "SELECT id, distillation_id, row_index, sample, hinted, purpose, key, state, attempt, failures,
             error, lease_until, reserved, tokens_reserved FROM prompts " + $rest,
            $($argument),*
        )
    };
}

impl TryFrom<PromptRow> for Prompt {
    type Error = StoreError;

    fn try_from(row: PromptRow) -> StoreResult<Self> {
        Ok(Self {
            id: PromptId::from_uuid(row.id),
            distillation: DistillationId::from_uuid(row.distillation_id),
            row: number("row_index", row.row_index)?,
            sample: number("sample", row.sample)?,
            hinted: row.hinted != 0,
            purpose: named("purpose", &row.purpose)?,
            key: key(&row.key)?,
            state: named("state", &row.state)?,
            attempt: number("attempt", row.attempt)?,
            failures: number("failures", row.failures)?,
            error: row.error,
        })
    }
}

/// A prompt with its lease, live or not.
struct Held {
    prompt: Prompt,
    lease_until: i64,
    reserved: bool,
    tokens_reserved: i64,
}

impl TryFrom<PromptRow> for Held {
    type Error = StoreError;

    fn try_from(row: PromptRow) -> StoreResult<Self> {
        Ok(Self {
            lease_until: row.lease_until,
            reserved: row.reserved != 0,
            tokens_reserved: row.tokens_reserved,
            prompt: row.try_into()?,
        })
    }
}

fn key(bytes: &[u8]) -> StoreResult<CompletionKey> {
    CompletionKey::from_slice(bytes)
        .ok_or_else(|| StoreError::Internal("a completion's key is cut off".to_owned()))
}

struct CompletionRow {
    key: Vec<u8>,
    text: String,
    finish_reason: String,
    model: String,
    tokens_in: i64,
    tokens_out: i64,
    money_micros: i64,
    seconds: f64,
}

/// Completions; what is given goes on after `FROM completions`.
macro_rules! completions {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            CompletionRow,
            "SELECT key, text, finish_reason, model, tokens_in, tokens_out, money_micros, seconds
             FROM completions " + $rest,
            $($argument),*
        )
    };
}

impl TryFrom<CompletionRow> for Completion {
    type Error = StoreError;

    fn try_from(row: CompletionRow) -> StoreResult<Self> {
        Ok(Self {
            key: key(&row.key)?,
            text: row.text,
            finish_reason: match row.finish_reason.as_str() {
                "length" => FinishReason::Length,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Stop,
            },
            model: row.model,
            tokens_in: number("tokens_in", row.tokens_in)?,
            tokens_out: number("tokens_out", row.tokens_out)?,
            money_micros: number("money_micros", row.money_micros)?,
            seconds: row.seconds,
        })
    }
}

/// An answered prompt with its completion.
struct EntryRow {
    id: Uuid,
    distillation_id: Uuid,
    row_index: i64,
    sample: i64,
    hinted: i64,
    purpose: String,
    rationale: String,
    label: Option<String>,
    parse_reason: Option<String>,
    verdict: Option<String>,
    reason: Option<String>,
    weight: f64,
    text: String,
    model: String,
}

impl TryFrom<EntryRow> for LedgerEntry {
    type Error = StoreError;

    fn try_from(row: EntryRow) -> StoreResult<Self> {
        Ok(Self {
            distillation: DistillationId::from_uuid(row.distillation_id),
            prompt: PromptId::from_uuid(row.id),
            row: number("row_index", row.row_index)?,
            sample: number("sample", row.sample)?,
            hinted: row.hinted != 0,
            purpose: named("purpose", &row.purpose)?,
            parsed: Parsed {
                rationale: row.rationale,
                label: row.label,
                reason: named_maybe("parse_reason", row.parse_reason.as_deref())?,
            },
            verdict: named_maybe("verdict", row.verdict.as_deref())?.unwrap_or(Verdict::Unjudged),
            reason: named_maybe("reason", row.reason.as_deref())?,
            weight: row.weight,
            completion: row.text,
            model: row.model,
        })
    }
}

/// Writes a prompt; says whether it was not known before.
pub(crate) async fn insert(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    prompt: &NewPrompt,
    state: PromptState,
) -> StoreResult<bool> {
    let result = sqlx::query!(
        "INSERT INTO prompts (id, distillation_id, row_index, sample, hinted, purpose, key,
             tokens_reserved, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING",
        prompt.id.as_uuid(),
        job.as_uuid(),
        integer(prompt.row)?,
        i64::from(prompt.sample),
        i64::from(prompt.hinted),
        prompt.purpose.as_str(),
        prompt.key.0.as_slice(),
        integer(prompt.tokens_reserved)?,
        state.as_str()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

async fn fetch(transaction: &mut Tx<'_>, id: PromptId) -> StoreResult<Option<Held>> {
    record(prompts!("WHERE id = ?", id.as_uuid()).fetch_optional(&mut **transaction).await)
}

async fn find_completion(transaction: &mut Tx<'_>, key: CompletionKey) -> StoreResult<Option<Completion>> {
    let row = completions!("WHERE key = ?", key.0.as_slice()).fetch_optional(&mut **transaction).await;
    record(row)
}

/// Writes a completion under its key; says whether it was not known before.
async fn keep(transaction: &mut Tx<'_>, now: i64, completion: &Completion) -> StoreResult<bool> {
    let finish_reason = match completion.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    };
    let result = sqlx::query!(
        "INSERT INTO completions (key, text, finish_reason, model, tokens_in, tokens_out, money_micros,
             seconds, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        completion.key.0.as_slice(),
        &completion.text,
        finish_reason,
        &completion.model,
        integer(completion.tokens_in)?,
        integer(completion.tokens_out)?,
        integer(completion.money_micros)?,
        completion.seconds,
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(result.rows_affected() > 0)
}

/// Gives back what a lease reserved, once.
async fn unreserve(transaction: &mut Tx<'_>, held: &Held) -> StoreResult<()> {
    if !held.reserved {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE distillations SET prompts_reserved = prompts_reserved - 1,
         tokens_reserved = tokens_reserved - ? WHERE id = ?",
        held.tokens_reserved,
        held.prompt.distillation.as_uuid()
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    sqlx::query!("UPDATE prompts SET reserved = 0 WHERE id = ?", held.prompt.id.as_uuid())
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(())
}

/// Room in a budget for one more call.
enum Room {
    /// It is reserved.
    Reserved,
    /// Calls that are being made hold the rest of the budget, and may give some of it back.
    Later,
    /// The budget is used up.
    None,
}

/// Reserves one call.
async fn reserve(transaction: &mut Tx<'_>, job: &Distillation, tokens: i64) -> StoreResult<Room> {
    let budget = job.spec.teacher.as_ref().map_or_else(Budget::default, |teacher| teacher.budget);
    let limit = |limit: Option<u64>| limit.map_or(Ok(i64::MAX), integer);
    let (prompts, all_tokens, money) =
        (limit(budget.prompts)?, limit(budget.tokens)?, limit(budget.money_micros)?);
    let result = sqlx::query!(
        "UPDATE distillations SET prompts_reserved = prompts_reserved + 1,
             tokens_reserved = tokens_reserved + ?1
         WHERE id = ?2 AND calls + prompts_reserved + 1 <= ?3
         AND tokens_in + tokens_out + tokens_reserved + ?1 <= ?4 AND money_micros < ?5",
        tokens,
        job.id.as_uuid(),
        prompts,
        all_tokens,
        money
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    if result.rows_affected() > 0 {
        return Ok(Room::Reserved);
    }
    let unspent = sqlx::query_scalar!(
        "SELECT count(*) FROM distillations
         WHERE id = ?2 AND calls + 1 <= ?3 AND tokens_in + tokens_out + ?1 <= ?4 AND money_micros < ?5",
        tokens,
        job.id.as_uuid(),
        prompts,
        all_tokens,
        money
    )
    .fetch_one(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(if unspent > 0 { Room::Later } else { Room::None })
}

impl SqliteStore {
    pub(crate) async fn prompt_outbox(&self, limit: usize) -> StoreResult<Vec<Work>> {
        let rows = sqlx::query_as!(
            WorkRow,
            "SELECT outbox.prompt_id AS prompt, traceparent FROM outbox
             JOIN prompts ON prompts.id = outbox.prompt_id
             JOIN distillations ON distillations.id = prompts.distillation_id
             ORDER BY outbox.sequence LIMIT ?",
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        Ok(rows.into_iter().map(WorkRow::work).collect())
    }

    pub(crate) async fn prompt_mark_published(&self, prompts: &[PromptId]) -> StoreResult<()> {
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

    pub(crate) async fn prompt_unfinished(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> StoreResult<Vec<Work>> {
        // The cross join keeps the order of the tables: pages go along the index of unfinished prompts.
        let rows = sqlx::query_as!(
            WorkRow,
            "SELECT prompts.id AS prompt, traceparent FROM prompts INDEXED BY prompts_unfinished
             CROSS JOIN distillations ON distillations.id = prompts.distillation_id
             WHERE prompts.id > ?1 AND prompts.state IN ('pending', 'leased')
             AND (prompts.state = 'pending' OR lease_until <= ?2) AND distillations.state = 'harvesting'
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE prompt_id = prompts.id) ORDER BY prompts.id LIMIT ?3",
            after.map_or(Uuid::nil(), PromptId::as_uuid),
            self.now(),
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.readers())
        .await
        .map_err(internal)?;
        Ok(rows.into_iter().map(WorkRow::work).collect())
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
            let Some(held) = fetch(&mut transaction, *id).await? else {
                outcome.settled.push(*id);
                continue;
            };
            let distillation = held.prompt.distillation;
            let job = match jobs.entry(distillation) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(distillations::fetch(&mut transaction, distillation).await?),
            };
            match held.prompt.state {
                _ if job.state != DistillationState::Harvesting => {
                    outcome.settled.push(*id);
                    continue;
                }
                PromptState::Pending => {}
                PromptState::Leased if held.lease_until <= now => unreserve(&mut transaction, &held).await?,
                PromptState::Leased => {
                    outcome.busy.push(*id);
                    continue;
                }
                PromptState::Answered | PromptState::Parked | PromptState::Skipped => {
                    outcome.settled.push(*id);
                    continue;
                }
            }
            let cached = find_completion(&mut transaction, held.prompt.key).await?;
            if cached.is_none() && asked_elsewhere(&mut transaction, &held.prompt, now).await? {
                outcome.busy.push(*id);
                continue;
            }
            let reserved = cached.is_none();
            let room = match reserved {
                true => reserve(&mut transaction, job, held.tokens_reserved).await?,
                false => Room::Reserved,
            };
            match room {
                Room::Reserved => {}
                Room::Later => {
                    outcome.busy.push(*id);
                    continue;
                }
                Room::None => {
                    set_state(&mut transaction, *id, PromptState::Skipped).await?;
                    outcome.out_of_budget.push(*id);
                    continue;
                }
            }
            let attempt = held.prompt.attempt + 1;
            let prompt = Prompt { attempt, state: PromptState::Leased, ..held.prompt };
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

    pub(crate) async fn prompt_record(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome> {
        let now = self.now();
        let mut outcome = HarvestOutcome::default();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for answer in &harvested {
            let new = keep(&mut transaction, now, &answer.completion).await?;
            let Some(held) = fetch(&mut transaction, answer.prompt).await? else {
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
            spend(&mut transaction, held.prompt.distillation, answer, hit, paid_twice).await?;
            if !holds {
                outcome.stale.push(answer.prompt);
                continue;
            }
            unreserve(&mut transaction, &held).await?;
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
        let held = fetch(&mut transaction, id).await?.ok_or_else(|| StoreError::not_found("prompt", id))?;
        let prompt = &held.prompt;
        if prompt.state != PromptState::Leased || prompt.attempt != attempt {
            return Ok(prompt.state);
        }
        unreserve(&mut transaction, &held).await?;
        let (failures, error, state) = match failure {
            AttemptFailure::Delayed => (prompt.failures, prompt.error.clone(), PromptState::Pending),
            AttemptFailure::Teacher { error, failures_max } => {
                let failures = prompt.failures + 1;
                let parked = failures >= failures_max;
                (failures, error, if parked { PromptState::Parked } else { PromptState::Pending })
            }
        };
        sqlx::query!(
            "UPDATE prompts SET state = ?, failures = ?, error = ?, reserved = 0, worker = '' WHERE id = ?",
            state.as_str(),
            i64::from(failures),
            error,
            id.as_uuid()
        )
        .execute(&mut *transaction)
        .await
        .map_err(internal)?;
        transaction.commit().await.map_err(internal)?;
        Ok(state)
    }

    pub(crate) async fn prompt_get(&self, id: PromptId) -> StoreResult<Prompt> {
        let row = prompts!("WHERE id = ?", id.as_uuid()).fetch_optional(self.readers()).await;
        record(row)?.ok_or_else(|| StoreError::not_found("prompt", id))
    }

    pub(crate) async fn prompt_in_state(
        &self,
        job: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> StoreResult<Vec<Prompt>> {
        let rows = prompts!(
            "WHERE distillation_id = ? AND state = ? AND row_index > ?
             ORDER BY row_index, sample, hinted, purpose LIMIT ?",
            job.as_uuid(),
            state.as_str(),
            after_row.map_or(Ok(-1), integer)?,
            limit.clamp(1, BATCH_MAX) as i64 + ROW_PROMPTS_MAX
        )
        .fetch_all(self.readers())
        .await;
        let mut prompts: Vec<Prompt> = records(rows)?;
        whole_rows(&mut prompts, limit.clamp(1, BATCH_MAX), |prompt| prompt.row);
        Ok(prompts)
    }

    pub(crate) async fn prompt_completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>> {
        let row = completions!("WHERE key = ?", key.0.as_slice()).fetch_optional(self.readers()).await;
        record(row)
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
        let rows = sqlx::query_as!(
            EntryRow,
            "SELECT id, distillation_id, row_index, sample, hinted, purpose, rationale, label, parse_reason,
                 verdict, reason, weight, text, model FROM prompts JOIN completions USING (key)
             WHERE distillation_id = ?1 AND state = 'answered' AND row_index > ?2
             AND (?3 IS NULL OR verdict = ?3)
             ORDER BY row_index, sample, hinted, purpose LIMIT ?4",
            job.as_uuid(),
            filter.after_row.map_or(Ok(-1), integer)?,
            filter.verdict.map(Verdict::as_str),
            limit as i64 + ROW_PROMPTS_MAX
        )
        .fetch_all(self.readers())
        .await;
        let mut entries: Vec<LedgerEntry> = records(rows)?;
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

/// Most prompts of one row: 64 samples and a hinted one, for two purposes, with room to spare.
const ROW_PROMPTS_MAX: i64 = 256;

/// Cuts a longer list before the row that `limit` falls into; the first row stays whole in any case.
fn whole_rows<T>(items: &mut Vec<T>, limit: usize, row: impl Fn(&T) -> u64) {
    let (Some(first), Some(cut)) = (items.first().map(&row), items.get(limit).map(&row)) else { return };
    items.retain(|item| if cut == first { row(item) == first } else { row(item) < cut });
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
    sqlx::query!(
        "UPDATE prompts SET state = ?, reserved = 0, worker = '' WHERE id = ?",
        state.as_str(),
        id.as_uuid()
    )
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
    sqlx::query!(
        "UPDATE prompts SET state = 'leased', attempt = ?, worker = ?, lease_until = ?, reserved = ?
         WHERE id = ?",
        i64::from(prompt.attempt),
        worker,
        until,
        i64::from(reserved),
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
        integer(row)?
    )
    .fetch_optional(&mut **transaction)
    .await
    .map_err(internal)?
    .ok_or_else(|| StoreError::not_found("row", row))?;
    json("example", &found)
}

/// Counts a call, or a hit of the cache.
async fn spend(
    transaction: &mut Tx<'_>,
    job: DistillationId,
    answer: &Harvested,
    hit: bool,
    paid_twice: bool,
) -> StoreResult<()> {
    let calls = i64::from(!answer.cached);
    let completion = &answer.completion;
    sqlx::query!(
        "UPDATE distillations SET calls = calls + ?1, cache_hits = cache_hits + ?2,
             calls_paid_twice = calls_paid_twice + ?3, tokens_in = tokens_in + ?4,
             tokens_out = tokens_out + ?5, money_micros = money_micros + ?6
         WHERE id = ?7",
        calls,
        i64::from(hit),
        i64::from(paid_twice),
        calls * integer(completion.tokens_in)?,
        calls * integer(completion.tokens_out)?,
        calls * integer(completion.money_micros)?,
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
        "UPDATE prompts SET state = 'answered', reserved = 0, worker = '', rationale = ?, label = ?,
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
