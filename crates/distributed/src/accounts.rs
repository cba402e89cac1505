//! What jobs may spend and have spent. A transaction that changes a job's prompts holds its account, so that a budget is a hard limit
//! whatever the number of workers, and prompts are written by one transaction at a time.

use crate::failure::TransactionResult;
use crate::store::Tx;
use domain::budget::{Account, Amount, Usage};
use domain::ids::DistillationId;
use domain::ports::{StoreError, StoreResult};
use domain::rows::{AmountRow, integer, number};
use domain::spec::Budget;
use domain::state::DistillationState;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The accounts that a transaction holds, by job.
pub(crate) type Accounts = BTreeMap<DistillationId, JobAccount>;

/// One job's account.
pub(crate) struct JobAccount {
    pub(crate) harvesting: bool,
    /// Whether its prompts are asked in batches.
    pub(crate) batched: bool,
    /// What it may spend and has reserved; `spent` is as of when it was held.
    pub(crate) account: Account,
    calls: i64,
    cache_hits: i64,
    calls_paid_twice: i64,
    tokens_in: i64,
    tokens_out: i64,
    money_micros: i64,
    changed: bool,
}

struct AccountRow {
    id: Uuid,
    state: String,
    batched: bool,
    calls: i64,
    cache_hits: i64,
    calls_paid_twice: i64,
    tokens_in: i64,
    tokens_out: i64,
    money_micros: i64,
    prompts_max: Option<i64>,
    tokens_max: Option<i64>,
    money_micros_max: Option<i64>,
}

impl TryFrom<AccountRow> for JobAccount {
    type Error = StoreError;

    fn try_from(row: AccountRow) -> StoreResult<Self> {
        let limit = |column, limit: Option<i64>| limit.map(|limit| number(column, limit)).transpose();
        Ok(Self {
            batched: row.batched,
            harvesting: row.state == DistillationState::Harvesting.as_str(),
            account: Account {
                budget: Budget {
                    prompts: limit("prompts_max", row.prompts_max)?,
                    tokens: limit("tokens_max", row.tokens_max)?,
                    money_micros: limit("money_micros_max", row.money_micros_max)?,
                },
                spent: Amount {
                    calls: number("calls", row.calls)?,
                    tokens: number("tokens", row.tokens_in.saturating_add(row.tokens_out))?,
                    money_micros: number("money_micros", row.money_micros)?,
                },
                ..Account::default()
            },
            calls: row.calls,
            cache_hits: row.cache_hits,
            calls_paid_twice: row.calls_paid_twice,
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            money_micros: row.money_micros,
            changed: false,
        })
    }
}

impl JobAccount {
    /// Counts a call and what it cost.
    pub(crate) fn spend(&mut self, usage: Usage) -> StoreResult<()> {
        self.calls = self.calls.saturating_add(1);
        self.tokens_in = self.tokens_in.saturating_add(integer(usage.tokens_in)?);
        self.tokens_out = self.tokens_out.saturating_add(integer(usage.tokens_out)?);
        self.money_micros = self.money_micros.saturating_add(integer(usage.money_micros)?);
        self.changed = true;
        Ok(())
    }

    /// Counts a call that was made for an answer that is known.
    pub(crate) fn paid_twice(&mut self) {
        self.calls_paid_twice += 1;
        self.changed = true;
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
        "SELECT id, state, batched, calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
             prompts_max, tokens_max, money_micros_max
         FROM distillations WHERE id IN (SELECT distillation_id FROM prompts WHERE id = ANY ($1))
         ORDER BY id FOR NO KEY UPDATE",
        prompts
    )
    .fetch_all(&mut **tx)
    .await?;
    accounts(rows)
}

/// The accounts of the jobs of these calls, held until the transaction ends.
pub(crate) async fn hold_of_calls(tx: &mut Tx, calls: &[Uuid]) -> TransactionResult<Accounts> {
    let rows = sqlx::query_as!(
        AccountRow,
        "SELECT id, state, batched, calls, cache_hits, calls_paid_twice, tokens_in, tokens_out, money_micros,
             prompts_max, tokens_max, money_micros_max
         FROM distillations WHERE id IN (SELECT distillation_id FROM calls WHERE id = ANY ($1))
         ORDER BY id FOR NO KEY UPDATE",
        calls
    )
    .fetch_all(&mut **tx)
    .await?;
    accounts(rows)
}

fn accounts(rows: Vec<AccountRow>) -> TransactionResult<Accounts> {
    let account = |row: AccountRow| Ok((DistillationId::from_uuid(row.id), row.try_into()?));
    Ok(rows.into_iter().map(account).collect::<StoreResult<_>>()?)
}

/// Adds what the jobs of held accounts have reserved: the calls that are being made, and those in doubt.
pub(crate) async fn add_reserved(tx: &mut Tx, accounts: &mut Accounts) -> TransactionResult<()> {
    let jobs: Vec<Uuid> = accounts.keys().map(|job| job.as_uuid()).collect();
    let rows = sqlx::query_file_as!(AmountRow, "src/sql/reserved.sql", &jobs).fetch_all(&mut **tx).await?;
    for row in rows {
        if let Some(job) = accounts.get_mut(&DistillationId::from_uuid(row.distillation_id)) {
            row.add_to(&mut job.account)?;
        }
    }
    Ok(())
}

/// Writes what has changed.
pub(crate) async fn save(tx: &mut Tx, accounts: &Accounts) -> TransactionResult<()> {
    for (id, account) in accounts.iter().filter(|(_, account)| account.changed) {
        sqlx::query!(
            "UPDATE distillations SET calls = $2, cache_hits = $3, calls_paid_twice = $4, tokens_in = $5,
                 tokens_out = $6, money_micros = $7
             WHERE id = $1",
            id.as_uuid(),
            account.calls,
            account.cache_hits,
            account.calls_paid_twice,
            account.tokens_in,
            account.tokens_out,
            account.money_micros
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
