//! Completions, and the ledger of what was read in them.

use crate::accounts::{self, Account};
use crate::distillations::{self, begin_harvest};
use crate::failure::Attempt;
use crate::prompts::{self, Columns, Held, ROW_PROMPTS_MAX, whole_rows};
use crate::row::{Text, finite, in_order, integer, named, named_maybe, number, record, records, text};
use crate::store::{PostgresStore, Tx};
use domain::completion::{FinishReason, Parsed};
use domain::ids::{CompletionKey, DistillationId, PromptId};
use domain::records::{Completion, Harvested, LedgerEntry, NewPrompt, VerdictUpdate};
use domain::state::{PromptState, Verdict};
use domain::store::{BATCH_MAX, HarvestOutcome, LedgerFilter, StoreError, StoreResult};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

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
            key: prompts::key(&row.key)?,
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

fn finish_name(finish_reason: FinishReason) -> &'static str {
    match finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// An answered prompt with its completion.
struct EntryRow {
    id: Uuid,
    distillation_id: Uuid,
    row_index: i64,
    sample: i32,
    hinted: bool,
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
            hinted: row.hinted,
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

/// The completions of these keys, as far as there are any.
pub(crate) async fn completions(
    tx: &mut Tx,
    keys: &[CompletionKey],
) -> Attempt<HashMap<CompletionKey, Completion>> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
    let rows = completions!("WHERE key = ANY ($1)", &keys).fetch_all(&mut **tx).await;
    let known: Vec<Completion> = records(rows)?;
    Ok(known.into_iter().map(|completion| (completion.key, completion)).collect())
}

/// Writes completions under their keys, in order of key; of several with one key, the first stays. Returns the keys that
/// were not known before.
async fn keep<'a>(
    tx: &mut Tx,
    completions: impl Iterator<Item = &'a Completion>,
) -> Attempt<HashSet<CompletionKey>> {
    let mut sorted: BTreeMap<CompletionKey, &Completion> = BTreeMap::new();
    for completion in completions {
        sorted.entry(completion.key).or_insert(completion);
    }
    let keys: Vec<Vec<u8>> = sorted.keys().map(|key| key.0.to_vec()).collect();
    let sorted = || sorted.values();
    let numbers = |number: fn(&Completion) -> u64| -> StoreResult<Vec<i64>> {
        sorted().map(|completion| integer(number(completion))).collect()
    };
    let added = sqlx::query_scalar!(
        "INSERT INTO completions (key, text, finish_reason, model, tokens_in, tokens_out, money_micros, seconds,
             created_at)
         SELECT *, now_ms() FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::float8[])
         ON CONFLICT (key) DO NOTHING RETURNING key",
        &keys,
        &sorted().map(|completion| text(&completion.text)).collect::<Vec<_>>() as &[Text<'_>],
        &sorted().map(|completion| finish_name(completion.finish_reason)).collect::<Vec<_>>() as &[&str],
        &sorted().map(|completion| text(&completion.model)).collect::<Vec<_>>() as &[Text<'_>],
        &numbers(|completion| completion.tokens_in)?,
        &numbers(|completion| completion.tokens_out)?,
        &numbers(|completion| completion.money_micros)?,
        &sorted().map(|completion| finite(completion.seconds)).collect::<StoreResult<Vec<f64>>>()?
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(added.iter().map(|bytes| prompts::key(bytes)).collect::<StoreResult<_>>()?)
}

/// What was read in answers, column by column.
struct Readings<'a> {
    ids: Vec<Uuid>,
    rationales: Vec<Text<'a>>,
    labels: Vec<Option<Text<'a>>>,
    parse_reasons: Vec<Option<&'static str>>,
    verdicts: Vec<&'static str>,
    reasons: Vec<Option<&'static str>>,
}

impl<'a> Readings<'a> {
    fn of(answers: &[&'a Harvested]) -> Self {
        Self {
            ids: answers.iter().map(|answer| answer.prompt.as_uuid()).collect(),
            rationales: answers.iter().map(|answer| text(&answer.parsed.rationale)).collect(),
            labels: answers.iter().map(|answer| answer.parsed.label.as_deref().map(text)).collect(),
            parse_reasons: answers
                .iter()
                .map(|answer| answer.parsed.reason.map(|reason| reason.as_str()))
                .collect(),
            verdicts: answers.iter().map(|answer| answer.verdict.as_str()).collect(),
            reasons: answers.iter().map(|answer| answer.reason.map(|reason| reason.as_str())).collect(),
        }
    }
}

/// Writes what was read into the lines of held prompts.
async fn write_readings(tx: &mut Tx, answers: &[&Harvested]) -> Attempt<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let read = Readings::of(answers);
    sqlx::query!(
        "UPDATE prompts SET state = 'answered', reserved = FALSE, worker = '', rationale = read.rationale,
             label = read.label, parse_reason = read.parse_reason, verdict = read.verdict, reason = read.reason
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             AS read (prompt_id, rationale, label, parse_reason, verdict, reason)
         WHERE id = prompt_id",
        &read.ids,
        &read.rationales as &[Text<'_>],
        &read.labels as &[Option<Text<'_>>],
        &read.parse_reasons as &[Option<&str>],
        &read.verdicts as &[&str],
        &read.reasons as &[Option<&str>]
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What becomes of one answer.
enum Fate {
    /// Its lease holds: it is written.
    Written,
    /// It was written before, by a call whose reply was lost.
    Repeated,
    /// Its lease was lost.
    Stale,
}

/// Settles one answer with its prompt and the job's account; `new` are the keys that nobody had answered.
fn settle(
    held: &mut Held,
    account: &mut Account,
    answer: &Harvested,
    new: &mut HashSet<CompletionKey>,
) -> StoreResult<Fate> {
    let same_lease = held.prompt.attempt == answer.attempt;
    if same_lease && held.prompt.state == PromptState::Answered {
        return Ok(Fate::Repeated);
    }
    let holds = same_lease && held.prompt.state == PromptState::Leased;
    if !answer.cached {
        account.spend(&answer.completion, !new.remove(&answer.completion.key))?;
    } else if holds {
        account.hit();
    }
    if !holds {
        return Ok(Fate::Stale);
    }
    if std::mem::take(&mut held.reserved) {
        account.give_back(held.tokens_reserved);
    }
    held.prompt.state = PromptState::Answered;
    Ok(Fate::Written)
}

impl PostgresStore {
    pub(crate) async fn ledger_record(&self, harvested: &[Harvested]) -> Attempt<HarvestOutcome> {
        let mut outcome = HarvestOutcome::default();
        if harvested.is_empty() {
            return Ok(outcome);
        }
        let ids = in_order(harvested.iter().map(|answer| answer.prompt.as_uuid()));
        let mut tx = self.begin().await?;
        let mut accounts = accounts::hold(&mut tx, &ids).await?;
        let held = prompts::hold(&mut tx, &ids).await?;
        let mut held: HashMap<PromptId, Held> = held.into_iter().map(|held| (held.prompt.id, held)).collect();
        let mut new = keep(&mut tx, harvested.iter().map(|answer| &answer.completion)).await?;
        let mut written = Vec::with_capacity(harvested.len());
        for answer in harvested {
            let found = held.get_mut(&answer.prompt).and_then(|held| {
                let account = accounts.get_mut(&held.prompt.distillation)?;
                Some((held, account))
            });
            let fate = match found {
                Some((held, account)) => settle(held, account, answer, &mut new)?,
                // Its job was deleted.
                None => Fate::Stale,
            };
            match fate {
                Fate::Written => {
                    written.push(answer);
                    outcome.stored.push(answer.prompt);
                }
                Fate::Repeated => outcome.stored.push(answer.prompt),
                Fate::Stale => outcome.stale.push(answer.prompt),
            }
        }
        write_readings(&mut tx, &written).await?;
        accounts::save(&mut tx, &accounts).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    pub(crate) async fn ledger_completion(&self, key: CompletionKey) -> Attempt<Option<Completion>> {
        record(completions!("WHERE key = $1", key.0.as_slice()).fetch_optional(self.pool()).await)
    }

    pub(crate) async fn ledger_record_imported(
        &self,
        id: DistillationId,
        prompts: &[(NewPrompt, Harvested)],
    ) -> Attempt<()> {
        let new = Columns::of(prompts.iter().map(|(prompt, _)| prompt))?;
        let answers: Vec<&Harvested> = prompts.iter().map(|(_, answer)| answer).collect();
        let mut tx = self.begin().await?;
        let job = distillations::lock(&mut tx, id).await?;
        begin_harvest(&mut tx, &job, "take imported answers").await?;
        keep(&mut tx, answers.iter().map(|answer| &answer.completion)).await?;
        let read = Readings::of(&answers);
        sqlx::query!(
            "INSERT INTO prompts (distillation_id, state, id, row_index, sample, hinted, purpose, key,
                 tokens_reserved, rationale, label, parse_reason, verdict, reason)
             SELECT $1, 'answered', * FROM unnest($2::uuid[], $3::bigint[], $4::int[], $5::bool[], $6::text[],
                 $7::bytea[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
             ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING",
            id.as_uuid(),
            &new.ids,
            &new.rows,
            &new.samples,
            &new.hinted,
            &new.purposes as &[&str],
            &new.keys,
            &new.tokens_reserved,
            &read.rationales as &[Text<'_>],
            &read.labels as &[Option<Text<'_>>],
            &read.parse_reasons as &[Option<&str>],
            &read.verdicts as &[&str],
            &read.reasons as &[Option<&str>]
        )
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn ledger_page(
        &self,
        job: DistillationId,
        filter: &LedgerFilter,
        limit: usize,
    ) -> Attempt<Vec<LedgerEntry>> {
        let limit = limit.clamp(1, BATCH_MAX);
        let rows = sqlx::query_as!(
            EntryRow,
            "SELECT id, distillation_id, row_index, sample, hinted, purpose, rationale, label, parse_reason,
                 verdict, reason, weight, text, model FROM prompts JOIN completions USING (key)
             WHERE distillation_id = $1 AND state = 'answered' AND row_index > $2
             AND ($3::text IS NULL OR verdict = $3)
             ORDER BY row_index, sample, hinted, purpose LIMIT $4",
            job.as_uuid(),
            filter.after_row.map_or(Ok(-1), integer)?,
            filter.verdict.map(Verdict::as_str),
            limit as i64 + ROW_PROMPTS_MAX
        )
        .fetch_all(self.pool())
        .await;
        let mut entries: Vec<LedgerEntry> = records(rows)?;
        whole_rows(&mut entries, limit, |entry| entry.row);
        Ok(entries)
    }

    pub(crate) async fn ledger_verdicts(
        &self,
        job: DistillationId,
        verdicts: &[VerdictUpdate],
    ) -> Attempt<()> {
        // Of several for one prompt, the last counts.
        let last: BTreeMap<Uuid, &VerdictUpdate> =
            verdicts.iter().map(|verdict| (verdict.prompt.as_uuid(), verdict)).collect();
        let ids: Vec<Uuid> = last.keys().copied().collect();
        let names: Vec<&str> = last.values().map(|verdict| verdict.verdict.as_str()).collect();
        let reasons: Vec<Option<&str>> =
            last.values().map(|verdict| verdict.reason.map(|reason| reason.as_str())).collect();
        let weights: Vec<f64> =
            last.values().map(|verdict| finite(verdict.weight)).collect::<StoreResult<_>>()?;
        let mut tx = self.begin().await?;
        accounts::hold(&mut tx, &ids).await?;
        sqlx::query!(
            "SELECT id FROM prompts WHERE id = ANY ($1) AND distillation_id = $2 ORDER BY id FOR NO KEY UPDATE",
            &ids,
            job.as_uuid()
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE prompts SET verdict = judged.verdict, reason = judged.reason, weight = judged.weight
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[])
                 AS judged (prompt_id, verdict, reason, weight)
             WHERE id = prompt_id AND distillation_id = $5",
            &ids,
            &names as &[&str],
            &reasons as &[Option<&str>],
            &weights,
            job.as_uuid()
        )
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}
