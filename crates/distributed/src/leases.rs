//! Leases on prompts: taken within the budget, kept alive, ended without an answer.

use crate::accounts::{self, Accounts};
use crate::failure::TransactionResult;
use crate::ledger;
use crate::row::{Text, in_order, milliseconds, records, text};
use crate::store::Tx;
use domain::Example;
use domain::budget::Room;
use domain::ids::{CompletionKey, DistillationId, PromptId};
use domain::ports::{AttemptFailure, LeaseOutcome, StoreError};
use domain::records::{Completion, LeasedPrompt};
use domain::rows::{Held, PromptRow, integer, json, key};
use domain::state::PromptState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use uuid::Uuid;

/// The class of our advisory locks on keys, and how many of them there are. They are few, because each takes a place in
/// the server's memory; keys that share one only wait for each other.
const KEY_LOCKS: i32 = 0x6b65_7973;
const KEY_LOCKS_COUNT: u8 = 64;

/// The prompts of these ids that exist, held until the transaction ends. Their jobs' accounts are held already.
pub(crate) async fn hold(tx: &mut Tx, ids: &[Uuid]) -> TransactionResult<Vec<Held>> {
    let rows = sqlx::query_as!(
        PromptRow,
        "SELECT id, distillation_id, row_index, sample, profile, hinted, purpose, key, state, attempt, failures, error,
             lease_until <= now_ms() AS \"expired!\", tokens_max, money_micros_max
         FROM prompts WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE",
        ids
    )
    .fetch_all(&mut **tx)
    .await;
    records(rows)
}

/// Who leases prompts.
pub(crate) struct Asker<'a> {
    pub(crate) worker: &'a str,
    pub(crate) lease: Duration,
    /// Whether it asks them in a batch.
    pub(crate) in_batch: bool,
}

/// Leases what can be leased of these prompts.
pub(crate) async fn take(
    tx: &mut Tx,
    prompts: &[PromptId],
    asker: &Asker<'_>,
) -> TransactionResult<LeaseOutcome> {
    let ids = in_order(prompts.iter().map(|id| id.as_uuid()));
    let mut accounts = accounts::hold(tx, &ids).await?;
    accounts::add_reserved(tx, &mut accounts).await?;
    let held = hold(tx, &ids).await?;
    let keys: Vec<CompletionKey> = held.iter().map(|held| held.prompt.key).collect();
    lock_keys(tx, &keys).await?;
    // A batch is filled by the job's driver.
    let tried_elsewhere = match asker.in_batch {
        true => HashSet::new(),
        false => tried_elsewhere(tx, &accounts, asker.worker).await?,
    };
    let mut taking = LeaseBatch {
        tried_elsewhere,
        // In this order: an answer that is committed in between is found by the second.
        asked: asked(tx, &keys).await?,
        known: ledger::completions(tx, &keys).await?,
        accounts,
        held: held.into_iter().map(|held| (held.prompt.id, held)).collect(),
        taken: Vec::new(),
        outcome: LeaseOutcome::default(),
        in_batch: asker.in_batch,
    };
    for id in prompts {
        taking.decide(*id);
    }
    taking.write(tx, asker.worker, asker.lease).await
}

/// Prolongs leases; returns those that were lost.
pub(crate) async fn prolong(
    tx: &mut Tx,
    leases: &[(PromptId, u32)],
    lease: Duration,
) -> TransactionResult<Vec<PromptId>> {
    let ids = in_order(leases.iter().map(|(id, _)| id.as_uuid()));
    // Shared: it keeps the jobs from being deleted meanwhile, and waits for no worker that writes their accounts.
    sqlx::query!(
        "SELECT id FROM distillations WHERE id IN (SELECT distillation_id FROM prompts WHERE id = ANY ($1))
         ORDER BY id FOR KEY SHARE",
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query!("SELECT id FROM prompts WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", &ids)
        .fetch_all(&mut **tx)
        .await?;
    let prompts: Vec<Uuid> = leases.iter().map(|(id, _)| id.as_uuid()).collect();
    let attempts: Vec<i64> = leases.iter().map(|(_, attempt)| i64::from(*attempt)).collect();
    let kept = sqlx::query!(
        "UPDATE prompts SET lease_until = now_ms() + $3
         FROM unnest($1::uuid[], $2::bigint[]) AS lease (prompt_id, attempt)
         WHERE id = prompt_id AND prompts.attempt = lease.attempt AND state = 'leased'
         RETURNING id, prompts.attempt",
        &prompts,
        &attempts,
        milliseconds(lease)
    )
    .fetch_all(&mut **tx)
    .await?;
    let kept: HashSet<(Uuid, i64)> = kept.iter().map(|row| (row.id, i64::from(row.attempt))).collect();
    let lost = leases.iter().filter(|(id, attempt)| !kept.contains(&(id.as_uuid(), i64::from(*attempt))));
    Ok(lost.map(|(id, _)| *id).collect())
}

/// Ends a lease without an answer.
pub(crate) async fn fail(
    tx: &mut Tx,
    id: PromptId,
    attempt: u32,
    failure: &AttemptFailure,
) -> TransactionResult<PromptState> {
    accounts::hold(tx, &[id.as_uuid()]).await?;
    let held = hold(tx, &[id.as_uuid()]).await?.pop();
    let held = held.ok_or_else(|| StoreError::not_found("prompt", id))?;
    let prompt = &held.prompt;
    if prompt.state != PromptState::Leased || prompt.attempt != attempt {
        return Ok(prompt.state);
    }
    let (failures, error, state) = match failure {
        AttemptFailure::Delayed => (prompt.failures, prompt.error.as_str(), PromptState::Pending),
        AttemptFailure::OutOfBudget => (prompt.failures, prompt.error.as_str(), PromptState::Skipped),
        AttemptFailure::Teacher { error, failures_max } => {
            let failures = prompt.failures.saturating_add(1);
            let parked = failures >= *failures_max;
            (failures, error.as_str(), if parked { PromptState::Parked } else { PromptState::Pending })
        }
    };
    sqlx::query_file!(
        "../../statements/end_attempt.sql",
        state.as_str(),
        integer::<i32>(failures)?,
        text(error) as Text<'_>,
        id.as_uuid()
    )
    .execute(&mut **tx)
    .await?;
    Ok(state)
}

/// Waits for other transactions that look at these keys, of this job or another: of two jobs that ask the same, the second
/// sees the first one's lease.
async fn lock_keys(tx: &mut Tx, keys: &[CompletionKey]) -> TransactionResult<()> {
    let places = keys.iter().map(|key| i32::from(key.0.first().copied().unwrap_or(0) % KEY_LOCKS_COUNT));
    let places: Vec<i32> = places.collect::<BTreeSet<i32>>().into_iter().collect();
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1, place) FROM unnest($2::int[]) AS place ORDER BY place",
        KEY_LOCKS,
        &places
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(())
}

/// The jobs among these at which harvesters were lost, and which another one than this drives.
async fn tried_elsewhere(
    tx: &mut Tx,
    accounts: &Accounts,
    harvester: &str,
) -> TransactionResult<HashSet<DistillationId>> {
    let jobs: Vec<Uuid> = accounts.keys().map(|job| job.as_uuid()).collect();
    let found = sqlx::query_scalar!(
        "SELECT id FROM distillations JOIN drivers ON distillation_id = id
         WHERE id = ANY ($1) AND lost_harvesters > 0 AND driver <> $2",
        &jobs,
        text(harvester) as Text<'_>
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(found.into_iter().map(DistillationId::from_uuid).collect())
}

/// Which prompts have a live lease on these keys.
async fn asked(
    tx: &mut Tx,
    keys: &[CompletionKey],
) -> TransactionResult<HashMap<CompletionKey, Vec<PromptId>>> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.0.to_vec()).collect();
    let rows = sqlx::query!(
        "SELECT key, id FROM prompts WHERE key = ANY ($1) AND state = 'leased' AND lease_until > now_ms()",
        &keys
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut asked: HashMap<CompletionKey, Vec<PromptId>> = HashMap::new();
    for row in rows {
        asked.entry(key(&row.key)?).or_default().push(PromptId::from_uuid(row.id));
    }
    Ok(asked)
}

/// Leases in the making. Everything that is decided on is held by the transaction.
struct LeaseBatch {
    accounts: Accounts,
    tried_elsewhere: HashSet<DistillationId>,
    held: HashMap<PromptId, Held>,
    asked: HashMap<CompletionKey, Vec<PromptId>>,
    known: HashMap<CompletionKey, Completion>,
    /// Prompts that are leased now, in the order of asking.
    taken: Vec<PromptId>,
    outcome: LeaseOutcome,
    in_batch: bool,
}

impl LeaseBatch {
    fn decide(&mut self, id: PromptId) {
        let Some(held) = self.held.get_mut(&id) else {
            return self.outcome.settled.push(id);
        };
        let Some(job) = self.accounts.get_mut(&held.prompt.distillation) else {
            return self.outcome.settled.push(id);
        };
        let open = match held.prompt.state {
            PromptState::Pending => true,
            PromptState::Leased if held.expired => true,
            PromptState::Leased if job.harvesting => return self.outcome.busy.push(id),
            PromptState::Leased | PromptState::Answered | PromptState::Parked | PromptState::Skipped => false,
        };
        if !open || !job.harvesting {
            return self.outcome.settled.push(id);
        }
        if self.tried_elsewhere.contains(&held.prompt.distillation) {
            return self.outcome.busy.push(id);
        }
        let is_known = self.known.contains_key(&held.prompt.key);
        // What was answered is free, and a worker's; the rest is asked in one way or the other.
        if self.in_batch != (!is_known && job.batched) {
            return self.outcome.settled.push(id);
        }
        if !is_known {
            let others = self.asked.get(&held.prompt.key);
            if others.is_some_and(|others| others.iter().any(|other| *other != id)) {
                return self.outcome.busy.push(id);
            }
            // Within this transaction the account counts what it hands out, so that no more is leased than may be called.
            match job.account.reserve(held.bound) {
                Room::Free => {}
                Room::Later => return self.outcome.busy.push(id),
                Room::Exhausted => {
                    held.prompt.state = PromptState::Skipped;
                    return self.outcome.out_of_budget.push(id);
                }
            }
        }
        held.prompt.attempt += 1;
        held.prompt.state = PromptState::Leased;
        held.expired = false;
        self.asked.entry(held.prompt.key).or_default().push(id);
        self.taken.push(id);
    }

    async fn write(mut self, tx: &mut Tx, worker: &str, lease: Duration) -> TransactionResult<LeaseOutcome> {
        let uuids = |ids: &[PromptId]| -> Vec<Uuid> { ids.iter().map(|id| id.as_uuid()).collect() };
        let taken = uuids(&self.taken);
        if !taken.is_empty() {
            sqlx::query!(
                "UPDATE prompts SET state = 'leased', attempt = attempt + 1, worker = $2, lease_until = now_ms() + $3
                 WHERE id = ANY ($1)",
                &taken,
                text(worker) as Text<'_>,
                milliseconds(lease)
            )
            .execute(&mut **tx)
            .await?;
        }
        if !self.outcome.out_of_budget.is_empty() {
            sqlx::query!(
                "UPDATE prompts SET state = 'skipped' WHERE id = ANY ($1)",
                &uuids(&self.outcome.out_of_budget)
            )
            .execute(&mut **tx)
            .await?;
        }
        let mut examples = self.examples(tx, &taken).await?;
        for id in &self.taken {
            let Some(Held { prompt, .. }) = self.held.remove(id) else { continue };
            let example = examples.remove(id).ok_or_else(|| StoreError::not_found("row", prompt.row))?;
            let cached = self.known.get(&prompt.key).cloned();
            self.outcome.leased.push(LeasedPrompt { prompt, example, cached });
        }
        Ok(self.outcome)
    }

    /// The rows that these prompts ask about.
    async fn examples(&self, tx: &mut Tx, taken: &[Uuid]) -> TransactionResult<HashMap<PromptId, Example>> {
        // Row by row, through the keys: what the planner knows of tables that were filled a moment ago would have it read
        // the whole dataset.
        let rows = sqlx::query!(
            "SELECT id AS \"id!\", (
                 SELECT example FROM prompts JOIN distillations ON distillations.id = distillation_id
                 JOIN examples USING (dataset_id, row_index) WHERE prompts.id = taken.id
             ) AS \"example?\" FROM unnest($1::uuid[]) AS taken (id)",
            taken
        )
        .fetch_all(&mut **tx)
        .await?;
        let mut examples = HashMap::with_capacity(rows.len());
        for row in rows {
            // A row that was deleted with its dataset is absent.
            let Some(example) = row.example else { continue };
            examples.insert(PromptId::from_uuid(row.id), json("example", &example)?);
        }
        Ok(examples)
    }
}
