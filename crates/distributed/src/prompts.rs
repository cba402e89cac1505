//! Prompts: planned, published, read.

use crate::distillations::{self, begin_harvest};
use crate::failure::Attempt;
use crate::row::{integer, named, number, record, records};
use crate::store::{PostgresStore, Tx};
use domain::ids::{CompletionKey, DistillationId, PromptId};
use domain::queue::Work;
use domain::records::{NewPrompt, Prompt};
use domain::state::PromptState;
use domain::store::{BATCH_MAX, StoreError, StoreResult};
use uuid::Uuid;

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
    sample: i32,
    hinted: bool,
    purpose: String,
    key: Vec<u8>,
    state: String,
    attempt: i32,
    failures: i32,
    error: String,
    expired: bool,
    reserved: bool,
    tokens_reserved: i64,
}

/// Prompts; what is given goes on after `FROM prompts`.
macro_rules! prompts {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            PromptRow,
            "SELECT id, distillation_id, row_index, sample, hinted, purpose, key, state, attempt, failures,
             error, lease_until <= now_ms() AS \"expired!\", reserved, tokens_reserved FROM prompts " + $rest,
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
            hinted: row.hinted,
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
pub(crate) struct Held {
    pub(crate) prompt: Prompt,
    /// Its lease, where it has one, ran out.
    pub(crate) expired: bool,
    /// Its job's account holds its reservation.
    pub(crate) reserved: bool,
    pub(crate) tokens_reserved: i64,
}

impl TryFrom<PromptRow> for Held {
    type Error = StoreError;

    fn try_from(row: PromptRow) -> StoreResult<Self> {
        Ok(Self {
            expired: row.expired,
            reserved: row.reserved,
            tokens_reserved: row.tokens_reserved,
            prompt: row.try_into()?,
        })
    }
}

/// A content address as it is kept.
pub(crate) fn key(bytes: &[u8]) -> StoreResult<CompletionKey> {
    CompletionKey::from_slice(bytes)
        .ok_or_else(|| StoreError::Internal("a completion's key is cut off".to_owned()))
}

/// The prompts of these ids that exist, held until the transaction ends. Their jobs' accounts are held already.
pub(crate) async fn hold(tx: &mut Tx, ids: &[Uuid]) -> Attempt<Vec<Held>> {
    records(prompts!("WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", ids).fetch_all(&mut **tx).await)
}

/// New prompts, column by column.
pub(crate) struct Columns {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) rows: Vec<i64>,
    pub(crate) samples: Vec<i32>,
    pub(crate) hinted: Vec<bool>,
    pub(crate) purposes: Vec<&'static str>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) tokens_reserved: Vec<i64>,
}

impl Columns {
    pub(crate) fn of<'a>(prompts: impl Iterator<Item = &'a NewPrompt> + Clone) -> StoreResult<Self> {
        Ok(Self {
            ids: prompts.clone().map(|prompt| prompt.id.as_uuid()).collect(),
            rows: prompts.clone().map(|prompt| integer(prompt.row)).collect::<StoreResult<_>>()?,
            samples: prompts.clone().map(|prompt| integer(prompt.sample)).collect::<StoreResult<_>>()?,
            hinted: prompts.clone().map(|prompt| prompt.hinted).collect(),
            purposes: prompts.clone().map(|prompt| prompt.purpose.as_str()).collect(),
            keys: prompts.clone().map(|prompt| prompt.key.0.to_vec()).collect(),
            tokens_reserved: prompts
                .map(|prompt| integer(prompt.tokens_reserved))
                .collect::<StoreResult<_>>()?,
        })
    }
}

/// Most prompts of one row: 64 samples and a hinted one, for two purposes, with room to spare.
pub(crate) const ROW_PROMPTS_MAX: i64 = 256;

/// Cuts a longer list before the row that `limit` falls into; the first row stays whole in any case.
pub(crate) fn whole_rows<T>(items: &mut Vec<T>, limit: usize, row: impl Fn(&T) -> u64) {
    let (Some(first), Some(cut)) = (items.first().map(&row), items.get(limit).map(&row)) else { return };
    items.retain(|item| if cut == first { row(item) == first } else { row(item) < cut });
}

impl PostgresStore {
    pub(crate) async fn prompt_plan(&self, id: DistillationId, prompts: &[NewPrompt]) -> Attempt<()> {
        let new = Columns::of(prompts.iter())?;
        let mut tx = self.begin().await?;
        let job = distillations::lock(&mut tx, id).await?;
        begin_harvest(&mut tx, &job, "be planned").await?;
        // The outbox counts in the order of planning, which is the order of the arrays.
        sqlx::query!(
            "WITH planned AS (
                 SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::int[], $5::bool[], $6::text[], $7::bytea[],
                     $8::bigint[])
                 WITH ORDINALITY AS new (id, row_index, sample, hinted, purpose, key, tokens_reserved, place)
             ), added AS (
                 INSERT INTO prompts (id, distillation_id, row_index, sample, hinted, purpose, key,
                     tokens_reserved, state)
                 SELECT id, $1, row_index, sample, hinted, purpose, key, tokens_reserved, 'pending'
                 FROM planned ORDER BY place
                 ON CONFLICT (distillation_id, row_index, sample, hinted, purpose) DO NOTHING RETURNING id
             )
             INSERT INTO outbox (prompt_id) SELECT id FROM added JOIN planned USING (id) ORDER BY place",
            id.as_uuid(),
            &new.ids,
            &new.rows,
            &new.samples,
            &new.hinted,
            &new.purposes as &[&str],
            &new.keys,
            &new.tokens_reserved
        )
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn prompt_outbox(&self, limit: usize) -> Attempt<Vec<Work>> {
        let rows = sqlx::query_as!(
            WorkRow,
            "SELECT outbox.prompt_id AS prompt, traceparent FROM outbox
             JOIN prompts ON prompts.id = outbox.prompt_id
             JOIN distillations ON distillations.id = prompts.distillation_id
             ORDER BY outbox.sequence LIMIT $1",
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(WorkRow::work).collect())
    }

    pub(crate) async fn prompt_mark_published(&self, prompts: &[PromptId]) -> Attempt<()> {
        if prompts.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = prompts.iter().map(|id| id.as_uuid()).collect();
        // A row that somebody else holds is being removed by another relay, or with its job.
        sqlx::query!(
            "DELETE FROM outbox WHERE sequence IN (
                 SELECT sequence FROM outbox WHERE prompt_id = ANY ($1) FOR UPDATE SKIP LOCKED)",
            &ids
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    pub(crate) async fn prompt_unfinished(
        &self,
        after: Option<PromptId>,
        limit: usize,
    ) -> Attempt<Vec<Work>> {
        let rows = sqlx::query_as!(
            WorkRow,
            "SELECT prompts.id AS prompt, traceparent FROM prompts
             JOIN distillations ON distillations.id = prompts.distillation_id
             WHERE prompts.id > $1 AND prompts.state IN ('pending', 'leased')
             AND (prompts.state = 'pending' OR lease_until <= now_ms()) AND distillations.state = 'harvesting'
             AND NOT EXISTS (SELECT FROM outbox WHERE prompt_id = prompts.id) ORDER BY prompts.id LIMIT $2",
            after.map_or(Uuid::nil(), PromptId::as_uuid),
            limit.clamp(1, BATCH_MAX) as i64
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(WorkRow::work).collect())
    }

    pub(crate) async fn prompt_get(&self, id: PromptId) -> Attempt<Prompt> {
        let row = prompts!("WHERE id = $1", id.as_uuid()).fetch_optional(self.pool()).await;
        Ok(record(row)?.ok_or_else(|| StoreError::not_found("prompt", id))?)
    }

    pub(crate) async fn prompt_in_state(
        &self,
        job: DistillationId,
        state: PromptState,
        after_row: Option<u64>,
        limit: usize,
    ) -> Attempt<Vec<Prompt>> {
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
    }
}
