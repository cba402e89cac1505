//! What jobs may spend and have spent. A transaction that changes a job's prompts holds its account, so that a budget is a hard limit
//! whatever the number of workers, and prompts are written by one transaction at a time.

use crate::failure::TransactionResult;
use crate::store::Tx;
use domain::ids::DistillationId;
use domain::ports::StoreResult;
use domain::records::Completion;
use domain::rows::integer;
use domain::state::DistillationState;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The accounts that a transaction holds, by job.
pub(crate) type Accounts = BTreeMap<DistillationId, Account>;

/// One job's account.
pub(crate) struct Account {
    pub(crate) harvesting: bool,
    calls: i64,
    cache_hits: i64,
    calls_paid_twice: i64,
    tokens_in: i64,
    tokens_out: i64,
    money_micros: i64,
    prompts_max: Option<i64>,
    tokens_max: Option<i64>,
    money_micros_max: Option<i64>,
    prompts_reserved: i64,
    tokens_reserved: i64,
    changed: bool,
}

struct AccountRow {
    id: Uuid,
    state: String,
    calls: i64,
    cache_hits: i64,
    calls_paid_twice: i64,
    tokens_in: i64,
    tokens_out: i64,
    money_micros: i64,
    prompts_max: Option<i64>,
    tokens_max: Option<i64>,
    money_micros_max: Option<i64>,
    prompts_reserved: i64,
    tokens_reserved: i64,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        Self {
            harvesting: row.state == DistillationState::Harvesting.as_str(),
            calls: row.calls,
            cache_hits: row.cache_hits,
            calls_paid_twice: row.calls_paid_twice,
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            money_micros: row.money_micros,
            prompts_max: row.prompts_max,
            tokens_max: row.tokens_max,
            money_micros_max: row.money_micros_max,
            prompts_reserved: row.prompts_reserved,
            tokens_reserved: row.tokens_reserved,
            changed: false,
        }
    }
}

/// Whether a budget has room for one more call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It has.
    Free,
    /// Not now: others have reserved what is left, and may give it back.
    Reserved,
    /// It is used up.
    Spent,
}

impl Account {
    /// Whether a call of this many tokens fits in.
    pub(crate) fn room(&self, tokens: i64) -> Room {
        let fits = |used: i64, limit: Option<i64>| limit.is_none_or(|limit| used <= limit);
        let used = self.tokens_in.saturating_add(self.tokens_out).saturating_add(tokens);
        let next = self.calls.saturating_add(1);
        // The price of a call is known afterwards: the one that reaches the limit is the last.
        let money = fits(self.money_micros.saturating_add(1), self.money_micros_max);
        if !money || !fits(next, self.prompts_max) || !fits(used, self.tokens_max) {
            return Room::Spent;
        }
        let free = fits(next.saturating_add(self.prompts_reserved), self.prompts_max)
            && fits(used.saturating_add(self.tokens_reserved), self.tokens_max);
        if free { Room::Free } else { Room::Reserved }
    }

    /// Reserves a call of this many tokens.
    pub(crate) fn reserve(&mut self, tokens: i64) {
        self.prompts_reserved += 1;
        self.tokens_reserved = self.tokens_reserved.saturating_add(tokens);
        self.changed = true;
    }

    /// Gives back what was reserved for a call.
    pub(crate) fn give_back(&mut self, tokens: i64) {
        self.prompts_reserved -= 1;
        self.tokens_reserved -= tokens;
        self.changed = true;
    }

    /// Counts a call, which `paid_twice` says was made for an answer that is known.
    pub(crate) fn spend(&mut self, completion: &Completion, paid_twice: bool) -> StoreResult<()> {
        self.calls += 1;
        self.calls_paid_twice += i64::from(paid_twice);
        self.tokens_in = self.tokens_in.saturating_add(integer(completion.tokens_in)?);
        self.tokens_out = self.tokens_out.saturating_add(integer(completion.tokens_out)?);
        self.money_micros = self.money_micros.saturating_add(integer(completion.money_micros)?);
        self.changed = true;
        Ok(())
    }

    /// Counts an answer that cost nothing.
    pub(crate) fn hit(&mut self) {
        self.cache_hits += 1;
        self.changed = true;
    }
}

/// The accounts of the jobs of these prompts, held until the transaction ends.
pub(crate) async fn hold(tx: &mut Tx, prompts: &[Uuid]) -> TransactionResult<Accounts> {
    let rows = sqlx::query_as!(
        AccountRow,
        "SELECT id, state, calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
             prompts_max, tokens_max, money_micros_max, prompts_reserved, tokens_reserved
         FROM distillations WHERE id IN (SELECT distillation_id FROM prompts WHERE id = ANY ($1))
         ORDER BY id FOR NO KEY UPDATE",
        prompts
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| (DistillationId::from_uuid(row.id), row.into())).collect())
}

/// Writes what has changed.
pub(crate) async fn save(tx: &mut Tx, accounts: &Accounts) -> TransactionResult<()> {
    for (id, account) in accounts.iter().filter(|(_, account)| account.changed) {
        sqlx::query!(
            "UPDATE distillations SET calls = $2, cache_hits = $3, calls_paid_twice = $4, tokens_in = $5,
                 tokens_out = $6, money_micros = $7, prompts_reserved = $8, tokens_reserved = $9
             WHERE id = $1",
            id.as_uuid(),
            account.calls,
            account.cache_hits,
            account.calls_paid_twice,
            account.tokens_in,
            account.tokens_out,
            account.money_micros,
            account.prompts_reserved,
            account.tokens_reserved
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
