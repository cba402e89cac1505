//! Calls: reserved against a job's budget before they are made, and ended.

use crate::jobs;
use crate::row::internal;
use crate::store::SqliteStore;
use async_trait::async_trait;
use domain::budget::{Account, Amount, CallEnd, Room, Usage};
use domain::ids::{CallId, DistillationId};
use domain::ports::{CallGrant, CallRequest, CallStore, StoreResult};
use domain::records::Distillation;
use domain::rows::{AmountRow, LeaseRow, integer, number};
use domain::spec::TeacherSpec;
use domain::state::DistillationState;
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use uuid::Uuid;

type Tx<'a> = Transaction<'a, Sqlite>;

/// What a job has reserved: the calls that are being made, and those in doubt.
macro_rules! reserved {
    ($now:expr, $job:expr) => {
        sqlx::query_as!(
            domain::rows::AmountRow,
            "SELECT calls.distillation_id,
                 calls.in_doubt OR prompts.state <> 'leased' OR prompts.attempt <> calls.attempt
                     OR prompts.lease_until <= ?1 AS \"in_doubt!: bool\",
                 count(*) AS \"calls!: i64\", sum(calls.tokens) AS \"tokens!: i64\",
                 sum(calls.money_micros) AS \"money_micros!: i64\"
             FROM calls JOIN prompts ON prompts.id = calls.prompt_id WHERE calls.distillation_id = ?2 GROUP BY 2",
            $now,
            $job
        )
    };
}
pub(crate) use reserved;

/// A job with its account.
pub(crate) struct JobAccount {
    pub(crate) record: Distillation,
    pub(crate) account: Account,
}

impl JobAccount {
    /// Whether its prompts are asked in batches.
    pub(crate) fn is_batched(&self) -> bool {
        self.record.spec.teacher.as_ref().is_some_and(TeacherSpec::is_batched)
    }

    pub(crate) async fn fetch(transaction: &mut Tx<'_>, now: i64, id: DistillationId) -> StoreResult<Self> {
        let record = jobs::fetch(transaction, id).await?;
        let spent = sqlx::query!(
            "SELECT calls, tokens_in + tokens_out AS \"tokens!: i64\", money_micros FROM distillations WHERE id = ?",
            id.as_uuid()
        )
        .fetch_one(&mut **transaction)
        .await
        .map_err(internal)?;
        let mut account = Account {
            budget: record.spec.teacher.as_ref().map(|teacher| teacher.budget).unwrap_or_default(),
            spent: Amount {
                calls: number("calls", spent.calls)?,
                tokens: number("tokens", spent.tokens)?,
                money_micros: number("money_micros", spent.money_micros)?,
            },
            ..Account::default()
        };
        let rows: Vec<AmountRow> =
            reserved!(now, id.as_uuid()).fetch_all(&mut **transaction).await.map_err(internal)?;
        for row in rows {
            row.add_to(&mut account)?;
        }
        Ok(Self { record, account })
    }
}

/// Whether a call is reserved already: the reply to the first request was lost.
async fn is_known(transaction: &mut Tx<'_>, call: CallId) -> StoreResult<bool> {
    let found = sqlx::query_scalar!("SELECT count(*) FROM calls WHERE id = ?", call.as_uuid())
        .fetch_one(&mut **transaction)
        .await
        .map_err(internal)?;
    Ok(found > 0)
}

async fn insert(transaction: &mut Tx<'_>, job: DistillationId, request: &CallRequest) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO calls (id, distillation_id, prompt_id, attempt, tokens, money_micros)
         VALUES (?, ?, ?, ?, ?, ?)",
        request.call.as_uuid(),
        job.as_uuid(),
        request.prompt.as_uuid(),
        i64::from(request.attempt),
        integer::<i64>(request.bound.tokens)?,
        integer::<i64>(request.bound.money_micros)?
    )
    .execute(&mut **transaction)
    .await
    .map_err(internal)?;
    Ok(())
}

/// Ends calls. One that is not there was ended before, or its job was deleted.
pub(crate) async fn end(transaction: &mut Tx<'_>, ended: &[(CallId, CallEnd)]) -> StoreResult<()> {
    for (call, end) in ended {
        let (calls, usage) = match end {
            CallEnd::Charged(usage) => (1, *usage),
            CallEnd::Failed => (1, Usage::default()),
            CallEnd::Refused => (0, Usage::default()),
            CallEnd::InDoubt => {
                sqlx::query_file!("../../statements/doubt_call.sql", call.as_uuid())
                    .execute(&mut **transaction)
                    .await
                    .map_err(internal)?;
                continue;
            }
        };
        let job: Option<Uuid> = sqlx::query_scalar!(
            "DELETE FROM calls WHERE id = ? RETURNING distillation_id AS \"job!\"",
            call.as_uuid()
        )
        .fetch_optional(&mut **transaction)
        .await
        .map_err(internal)?;
        let Some(job) = job else { continue };
        sqlx::query!(
            "UPDATE distillations SET calls = calls + ?1, tokens_in = tokens_in + ?2, tokens_out = tokens_out + ?3,
                 money_micros = money_micros + ?4
             WHERE id = ?5",
            calls,
            integer::<i64>(usage.tokens_in)?,
            integer::<i64>(usage.tokens_out)?,
            integer::<i64>(usage.money_micros)?,
            job
        )
        .execute(&mut **transaction)
        .await
        .map_err(internal)?;
    }
    Ok(())
}

#[async_trait]
impl CallStore for SqliteStore {
    async fn reserve_calls(&self, requests: &[CallRequest]) -> StoreResult<Vec<CallGrant>> {
        let now = self.now();
        let mut grants = Vec::with_capacity(requests.len());
        let mut jobs: HashMap<DistillationId, JobAccount> = HashMap::new();
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        for request in requests {
            let lease = sqlx::query_as!(
                LeaseRow,
                "SELECT distillation_id, state, attempt FROM prompts WHERE id = ?",
                request.prompt.as_uuid()
            )
            .fetch_optional(&mut *transaction)
            .await
            .map_err(internal)?;
            let Some(lease) = lease else {
                grants.push(CallGrant::LeaseLost);
                continue;
            };
            let id = DistillationId::from_uuid(lease.distillation_id);
            let job = match jobs.entry(id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(JobAccount::fetch(&mut transaction, now, id).await?),
            };
            if !lease.holds(request.attempt)? || job.record.state != DistillationState::Harvesting {
                grants.push(CallGrant::LeaseLost);
                continue;
            }
            if is_known(&mut transaction, request.call).await? {
                grants.push(CallGrant::Granted);
                continue;
            }
            grants.push(match job.account.reserve(request.bound) {
                Room::Free => {
                    insert(&mut transaction, id, request).await?;
                    CallGrant::Granted
                }
                Room::Later => CallGrant::Later,
                Room::Exhausted => CallGrant::Exhausted,
            });
        }
        transaction.commit().await.map_err(internal)?;
        Ok(grants)
    }

    async fn end_calls(&self, ended: &[(CallId, CallEnd)]) -> StoreResult<()> {
        let mut writer = self.write().await?;
        let mut transaction = writer.begin().await?;
        end(&mut transaction, ended).await?;
        transaction.commit().await.map_err(internal)
    }
}
