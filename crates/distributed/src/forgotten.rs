//! Addresses that were forgotten, and those that follow them.

use crate::failure::TransactionResult;
use crate::row::{Text, text};
use crate::store::Tx;
use domain::fingerprint::successor;
use domain::ids::{CompletionKey, RequestId};
use domain::lifecycle::{self, Forgetting};
use domain::ports::{BATCH_MAX, ForgetOutcome, LedgerFilter, StoreResult};
use domain::records::Distillation;
use domain::rows::{AddressRow, AnsweredRow, ROW_PROMPTS_MAX, integer, key, limit, reasons, whole_rows};
use domain::state::Verdict;
use sqlx::PgPool;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Where the answers to questions are.
pub(crate) async fn follow(pool: &PgPool, keys: &[CompletionKey]) -> TransactionResult<Vec<AddressRow>> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
    let rows = sqlx::query_as!(
        AddressRow,
        "WITH RECURSIVE chain (asked, key) AS (
             SELECT wanted.key, wanted.key FROM unnest($1::bytea[]) AS wanted (key)
             UNION ALL SELECT chain.asked, forgotten.next FROM chain JOIN forgotten ON forgotten.key = chain.key
         )
         SELECT asked AS \"asked!\", chain.key AS \"key!\", completions.model AS \"model?\"
         FROM chain LEFT JOIN completions ON completions.key = chain.key
         WHERE NOT EXISTS (SELECT FROM forgotten WHERE forgotten.key = chain.key)",
        &keys
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Forgets the answers of a locked job's entries, page by page.
pub(crate) async fn forget(
    tx: &mut Tx,
    request: RequestId,
    job: &Distillation,
    filter: &LedgerFilter,
) -> TransactionResult<ForgetOutcome> {
    let asks_again = lifecycle::forget(job)? == Forgetting::AskAgain;
    let known =
        sqlx::query_file!("../../statements/count_forgotten.sql", request.as_uuid(), job.id.as_uuid())
            .fetch_one(&mut **tx)
            .await?;
    let mut outcome = ForgetOutcome { harvests: asks_again, ..ForgetOutcome::default() };
    if known.forgotten > 0 {
        outcome.forgotten = known.forgotten.unsigned_abs();
        outcome.asked_again = known.asked_again.unsigned_abs();
        return Ok(outcome);
    }
    let mut after = filter.after_row.map_or(Ok(-1), integer::<i64>)?;
    loop {
        let answered = answered(tx, job, filter, after).await?;
        let Some(last) = answered.last() else { return Ok(outcome) };
        after = last.row_index;
        outcome.forgotten += mark(tx, request, &answered).await?;
        if asks_again {
            ask_again(tx, &answered).await?;
            outcome.asked_again += answered.len() as u64;
        }
    }
}

/// Answered prompts of the rows after `after`, whole rows. Whoever changes them holds the job, as this transaction does.
async fn answered(
    tx: &mut Tx,
    job: &Distillation,
    filter: &LedgerFilter,
    after: i64,
) -> TransactionResult<Vec<AnsweredRow>> {
    let mut rows = sqlx::query_file_as!(
        AnsweredRow,
        "../../statements/answered.sql",
        job.id.as_uuid(),
        after,
        limit(filter.before_row),
        filter.verdict.map(Verdict::as_str),
        reasons(&filter.reasons),
        filter.model.as_deref().map(text) as Option<Text<'_>>,
        BATCH_MAX as i64 + ROW_PROMPTS_MAX
    )
    .fetch_all(&mut **tx)
    .await?;
    whole_rows(&mut rows, BATCH_MAX, |row| row.row_index.unsigned_abs());
    Ok(rows)
}

/// Writes what follows the addresses of answers, in order of key; returns how many had nothing that follows them.
async fn mark(tx: &mut Tx, request: RequestId, answered: &[AnsweredRow]) -> TransactionResult<u64> {
    let keys = answered.iter().map(|row| key(&row.key)).collect::<StoreResult<BTreeSet<_>>>()?;
    let next: Vec<Vec<u8>> = keys.iter().map(|key| successor(*key).0.to_vec()).collect();
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
    let marked = sqlx::query!(
        "INSERT INTO forgotten (key, next, request_id, at)
         SELECT key, next, $3, now_ms() FROM unnest($1::bytea[], $2::bytea[]) AS pair (key, next)
         ON CONFLICT (key) DO NOTHING",
        &keys,
        &next,
        request.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(marked.rows_affected())
}

/// Makes prompts pending again, under the last of the addresses that follow theirs.
async fn ask_again(tx: &mut Tx, answered: &[AnsweredRow]) -> TransactionResult<()> {
    let ids: Vec<Uuid> = answered.iter().map(|row| row.id).collect();
    sqlx::query!(
        "UPDATE prompts SET state = 'pending', failures = 0, error = '', rationale = '', label = NULL,
             parse_reason = NULL, verdict = NULL, reason = NULL, weight = 1
         WHERE id = ANY ($1)",
        &ids
    )
    .execute(&mut **tx)
    .await?;
    loop {
        let moved = sqlx::query!(
            "UPDATE prompts SET key = forgotten.next FROM forgotten
             WHERE forgotten.key = prompts.key AND prompts.id = ANY ($1)",
            &ids
        )
        .execute(&mut **tx)
        .await?;
        if moved.rows_affected() == 0 {
            break;
        }
    }
    sqlx::query!(
        "INSERT INTO outbox (prompt_id) SELECT id FROM prompts WHERE id = ANY ($1)
         ORDER BY row_index, sample, hinted, purpose ON CONFLICT (prompt_id) DO NOTHING",
        &ids
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
