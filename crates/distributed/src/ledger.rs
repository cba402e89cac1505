//! Completions, and the ledger of what was read in them.

use crate::accounts::{self, Accounts, JobAccount};
use crate::calls;
use crate::columns::{ParsedColumns, PromptColumns};
use crate::failure::TransactionResult;
use crate::row::{Text, records, text};
use crate::store::Tx;
use domain::budget::CallEnd;
use domain::ids::{CallId, CompletionKey, DistillationId, PromptId};
use domain::ports::{HarvestOutcome, StoreResult};
use domain::records::{Completion, Harvested, NewPrompt, VerdictUpdate};
use domain::rows::{CompletionRow, Held, finite, integer, key};
use domain::state::PromptState;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// The completions of these keys, as far as there are any.
pub(crate) async fn completions(
    tx: &mut Tx,
    keys: &[CompletionKey],
) -> TransactionResult<HashMap<CompletionKey, Completion>> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
    let rows = sqlx::query_as!(
        CompletionRow,
        "SELECT key, text, finish_reason, model, tokens_in, tokens_out, money_micros, seconds
         FROM completions WHERE key = ANY ($1)",
        &keys
    )
    .fetch_all(&mut **tx)
    .await;
    let known: Vec<Completion> = records(rows)?;
    Ok(known.into_iter().map(|completion| (completion.key, completion)).collect())
}

/// Writes completions under their keys, in order of key; of several with one key, the first stays. Returns the keys that
/// were not known before.
pub(crate) async fn keep<'a>(
    tx: &mut Tx,
    completions: impl Iterator<Item = &'a Completion>,
) -> TransactionResult<HashSet<CompletionKey>> {
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
        &sorted().map(|completion| completion.finish_reason.as_str()).collect::<Vec<_>>() as &[&str],
        &sorted().map(|completion| text(&completion.model)).collect::<Vec<_>>() as &[Text<'_>],
        &numbers(|completion| completion.tokens_in)?,
        &numbers(|completion| completion.tokens_out)?,
        &numbers(|completion| completion.money_micros)?,
        &sorted().map(|completion| finite(completion.seconds)).collect::<StoreResult<Vec<f64>>>()?
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(added.iter().map(|bytes| key(bytes)).collect::<StoreResult<_>>()?)
}

/// Writes what was read into the lines of held prompts.
async fn write_readings(tx: &mut Tx, answers: &[&Harvested]) -> TransactionResult<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let read = ParsedColumns::of(answers);
    sqlx::query!(
        "UPDATE prompts SET state = 'answered', worker = '', rationale = read.rationale,
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
enum RecordedAs {
    /// Its lease holds: it is written.
    Written,
    /// It was written before, by a call whose reply was lost.
    Repeated,
    /// Its lease was lost.
    Stale,
}

/// Settles one answer with its prompt and the job's account; `new` are the keys that were not answered before.
fn settle(
    held: &mut Held,
    account: &mut JobAccount,
    answer: &Harvested,
    new: &mut HashSet<CompletionKey>,
) -> StoreResult<RecordedAs> {
    let same_lease = held.prompt.attempt == answer.attempt;
    if same_lease && held.prompt.state == PromptState::Answered {
        return Ok(RecordedAs::Repeated);
    }
    let holds = same_lease && held.prompt.state == PromptState::Leased;
    if !answer.cached {
        if !new.remove(&answer.completion.key) {
            account.paid_twice();
        }
    } else if holds {
        account.hit();
    }
    if !holds {
        return Ok(RecordedAs::Stale);
    }
    held.prompt.state = PromptState::Answered;
    Ok(RecordedAs::Written)
}

/// Writes what workers brought back for held prompts, and settles it with the held accounts.
pub(crate) async fn record(
    tx: &mut Tx,
    accounts: &mut Accounts,
    mut held: HashMap<PromptId, Held>,
    harvested: &[Harvested],
) -> TransactionResult<HarvestOutcome> {
    let mut outcome = HarvestOutcome::default();
    let ended: Vec<(CallId, CallEnd)> = harvested.iter().flat_map(|answer| answer.calls.clone()).collect();
    calls::end(tx, accounts, &ended).await?;
    let mut new = keep(tx, harvested.iter().map(|answer| &answer.completion)).await?;
    let mut written = Vec::with_capacity(harvested.len());
    for answer in harvested {
        let found = held.get_mut(&answer.prompt).and_then(|held| {
            let account = accounts.get_mut(&held.prompt.distillation)?;
            Some((held, account))
        });
        let fate = match found {
            Some((held, account)) => settle(held, account, answer, &mut new)?,
            // Its job was deleted.
            None => RecordedAs::Stale,
        };
        match fate {
            RecordedAs::Written => {
                written.push(answer);
                outcome.stored.push(answer.prompt);
            }
            RecordedAs::Repeated => outcome.stored.push(answer.prompt),
            RecordedAs::Stale => outcome.stale.push(answer.prompt),
        }
    }
    write_readings(tx, &written).await?;
    Ok(outcome)
}

/// Writes answers that came with the data, as answered prompts of a locked job.
pub(crate) async fn record_imported(
    tx: &mut Tx,
    id: DistillationId,
    prompts: &[(NewPrompt, Harvested)],
) -> TransactionResult<()> {
    let new = PromptColumns::of(prompts.iter().map(|(prompt, _)| prompt))?;
    let answers: Vec<&Harvested> = prompts.iter().map(|(_, answer)| answer).collect();
    keep(tx, answers.iter().map(|answer| &answer.completion)).await?;
    let read = ParsedColumns::of(&answers);
    sqlx::query!(
        "INSERT INTO prompts (distillation_id, state, id, row_index, sample, hinted, purpose, key,
             tokens_max, money_micros_max, rationale, label, parse_reason, verdict, reason)
         SELECT $1, 'answered', * FROM unnest($2::uuid[], $3::bigint[], $4::int[], $5::bool[], $6::text[],
             $7::bytea[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[])
         ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING",
        id.as_uuid(),
        &new.ids,
        &new.rows,
        &new.samples,
        &new.hinted,
        &new.purposes as &[&str],
        &new.keys,
        &new.tokens_max,
        &new.money_micros_max,
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

/// Writes final verdicts.
pub(crate) async fn record_verdicts(
    tx: &mut Tx,
    job: DistillationId,
    verdicts: &[VerdictUpdate],
) -> TransactionResult<()> {
    // Of several for one prompt, the last counts.
    let last: BTreeMap<Uuid, &VerdictUpdate> =
        verdicts.iter().map(|verdict| (verdict.prompt.as_uuid(), verdict)).collect();
    let ids: Vec<Uuid> = last.keys().copied().collect();
    let names: Vec<&str> = last.values().map(|verdict| verdict.verdict.as_str()).collect();
    let reasons: Vec<Option<&str>> =
        last.values().map(|verdict| verdict.reason.map(|reason| reason.as_str())).collect();
    let weights: Vec<f64> =
        last.values().map(|verdict| finite(verdict.weight)).collect::<StoreResult<_>>()?;
    accounts::hold(tx, &ids).await?;
    sqlx::query!(
        "SELECT id FROM prompts WHERE id = ANY ($1) AND distillation_id = $2 ORDER BY id FOR NO KEY UPDATE",
        &ids,
        job.as_uuid()
    )
    .fetch_all(&mut **tx)
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
    .execute(&mut **tx)
    .await?;
    Ok(())
}
