//! Addresses that were forgotten, and those that follow them.

use crate::row::internal;
use domain::fingerprint::successor;
use domain::ids::{CompletionKey, RequestId};
use domain::lifecycle::{self, Forgetting};
use domain::ports::{BATCH_MAX, ForgetOutcome, LedgerFilter, StoreResult};
use domain::records::Distillation;
use domain::rows::{
    AddressRow, AnsweredRow, ROW_PROMPTS_MAX, integer, key, limit, reasons, to_json, whole_rows,
};
use domain::state::Verdict;
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::collections::BTreeSet;

type Tx<'a> = Transaction<'a, Sqlite>;

/// Where the answers to questions are.
pub(crate) async fn follow(readers: &SqlitePool, keys: &[CompletionKey]) -> StoreResult<Vec<AddressRow>> {
    let keys: Vec<String> = keys.iter().map(CompletionKey::to_string).collect();
    sqlx::query_as!(
        AddressRow,
        "WITH RECURSIVE chain (asked, key) AS (
             SELECT unhex(value), unhex(value) FROM json_each(?1)
             UNION ALL SELECT chain.asked, forgotten.next FROM chain JOIN forgotten ON forgotten.key = chain.key
         )
         SELECT asked AS \"asked!: Vec<u8>\", chain.key AS \"key!: Vec<u8>\", completions.model AS \"model?: String\"
         FROM chain LEFT JOIN completions ON completions.key = chain.key
         WHERE NOT EXISTS (SELECT 1 FROM forgotten WHERE forgotten.key = chain.key)",
        to_json(&keys)?
    )
    .fetch_all(readers)
    .await
    .map_err(internal)
}

/// Forgets the answers of a job's entries, page by page.
pub(crate) async fn forget(
    transaction: &mut Tx<'_>,
    now: i64,
    request: RequestId,
    job: &Distillation,
    filter: &LedgerFilter,
) -> StoreResult<ForgetOutcome> {
    let asks_again = lifecycle::forget(job)? == Forgetting::AskAgain;
    let known =
        sqlx::query_file!("../../statements/count_forgotten.sql", request.as_uuid(), job.id.as_uuid())
            .fetch_one(&mut **transaction)
            .await
            .map_err(internal)?;
    let mut outcome = ForgetOutcome { harvests: asks_again, ..ForgetOutcome::default() };
    if known.forgotten > 0 {
        outcome.forgotten = known.forgotten.unsigned_abs();
        outcome.asked_again = known.asked_again.unsigned_abs();
        return Ok(outcome);
    }
    let mut after = filter.after_row.map_or(Ok(-1), integer::<i64>)?;
    loop {
        let answered = answered(transaction, job, filter, after).await?;
        let Some(last) = answered.last() else { return Ok(outcome) };
        after = last.row_index;
        outcome.forgotten += mark(transaction, now, request, &answered).await?;
        if asks_again {
            ask_again(transaction, &answered).await?;
            outcome.asked_again += answered.len() as u64;
        }
    }
}

/// Answered prompts of the rows after `after`, whole rows.
async fn answered(
    transaction: &mut Tx<'_>,
    job: &Distillation,
    filter: &LedgerFilter,
    after: i64,
) -> StoreResult<Vec<AnsweredRow>> {
    let mut rows = sqlx::query_file_as!(
        AnsweredRow,
        "../../statements/answered.sql",
        job.id.as_uuid(),
        after,
        limit(filter.before_row),
        filter.verdict.map(Verdict::as_str),
        reasons(&filter.reasons),
        &filter.model,
        BATCH_MAX as i64 + ROW_PROMPTS_MAX
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(internal)?;
    whole_rows(&mut rows, BATCH_MAX, |row| row.row_index.unsigned_abs());
    Ok(rows)
}

/// Writes what follows the addresses of answers; returns how many had nothing that follows them.
async fn mark(
    transaction: &mut Tx<'_>,
    now: i64,
    request: RequestId,
    answered: &[AnsweredRow],
) -> StoreResult<u64> {
    let keys = answered.iter().map(|row| key(&row.key)).collect::<StoreResult<BTreeSet<_>>>()?;
    let pairs: Vec<[String; 2]> =
        keys.into_iter().map(|key| [key.to_string(), successor(key).to_string()]).collect();
    let marked = sqlx::query!(
        "INSERT INTO forgotten (key, next, request_id, at)
         SELECT unhex(value ->> 0), unhex(value ->> 1), ?2, ?3 FROM json_each(?1) WHERE true
         ON CONFLICT (key) DO NOTHING",
        to_json(&pairs)?,
        request.as_uuid(),
        now
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(marked.rows_affected())
}

/// Makes prompts pending again, under the last of the addresses that follow theirs.
async fn ask_again(transaction: &mut Tx<'_>, answered: &[AnsweredRow]) -> StoreResult<()> {
    let ids: Vec<String> = answered.iter().map(|row| row.id.simple().to_string()).collect();
    let ids = to_json(&ids)?;
    sqlx::query!(
        "UPDATE prompts SET state = 'pending', failures = 0, error = '', rationale = '', label = NULL,
             parse_reason = NULL, verdict = NULL, reason = NULL, weight = 1
         WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
        &ids
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    loop {
        let moved = sqlx::query!(
            "UPDATE prompts SET key = forgotten.next FROM forgotten
             WHERE forgotten.key = prompts.key AND prompts.id IN (SELECT unhex(value) FROM json_each(?1))",
            &ids
        )
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
        if moved.rows_affected() == 0 {
            break;
        }
    }
    sqlx::query!(
        "INSERT INTO outbox (prompt_id) SELECT id FROM prompts
         WHERE id IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY row_index, sample, hinted, purpose
         ON CONFLICT (prompt_id) DO NOTHING",
        &ids
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}
