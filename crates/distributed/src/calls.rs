//! Calls: reserved against a job's budget before they are made, and ended. Whoever writes them holds the job's account.

use crate::accounts::{self, Accounts};
use crate::failure::TransactionResult;
use crate::row::in_order;
use crate::store::{PostgresStore, Tx};
use async_trait::async_trait;
use domain::budget::{CallEnd, Room, Usage};
use domain::ids::{CallId, DistillationId, PromptId};
use domain::ports::{CallGrant, CallRequest, CallStore, StoreResult};
use domain::rows::{LeaseRow, integer};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// The leases of these prompts, as far as the prompts exist.
async fn leases(tx: &mut Tx, prompts: &[Uuid]) -> TransactionResult<HashMap<PromptId, LeaseRow>> {
    let rows = sqlx::query!(
        "SELECT id, distillation_id, state, attempt::bigint AS \"attempt!\" FROM prompts WHERE id = ANY ($1)",
        prompts
    )
    .fetch_all(&mut **tx)
    .await?;
    let lease = |row: (Uuid, LeaseRow)| (PromptId::from_uuid(row.0), row.1);
    Ok(rows
        .into_iter()
        .map(|row| {
            let (distillation_id, state, attempt) = (row.distillation_id, row.state, row.attempt);
            lease((row.id, LeaseRow { distillation_id, state, attempt }))
        })
        .collect())
}

/// Those of these calls that are reserved already: the reply to the first request was lost.
async fn known(tx: &mut Tx, calls: &[Uuid]) -> TransactionResult<HashSet<CallId>> {
    let rows =
        sqlx::query_scalar!("SELECT id FROM calls WHERE id = ANY ($1)", calls).fetch_all(&mut **tx).await?;
    Ok(rows.into_iter().map(CallId::from_uuid).collect())
}

async fn insert(tx: &mut Tx, new: &[(DistillationId, CallRequest)]) -> TransactionResult<()> {
    if new.is_empty() {
        return Ok(());
    }
    let requests = || new.iter().map(|(_, request)| request);
    sqlx::query!(
        "INSERT INTO calls (id, distillation_id, prompt_id, attempt, tokens, money_micros)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::bigint[])",
        &requests().map(|request| request.call.as_uuid()).collect::<Vec<_>>(),
        &new.iter().map(|(job, _)| job.as_uuid()).collect::<Vec<_>>(),
        &requests().map(|request| request.prompt.as_uuid()).collect::<Vec<_>>(),
        &requests().map(|request| integer(request.attempt)).collect::<StoreResult<Vec<i32>>>()?,
        &requests().map(|request| integer(request.bound.tokens)).collect::<StoreResult<Vec<i64>>>()?,
        &requests().map(|request| integer(request.bound.money_micros)).collect::<StoreResult<Vec<i64>>>()?
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn reserve(tx: &mut Tx, requests: &[CallRequest]) -> TransactionResult<Vec<CallGrant>> {
    let prompts = in_order(requests.iter().map(|request| request.prompt.as_uuid()));
    let mut accounts = accounts::hold(tx, &prompts).await?;
    accounts::add_reserved(tx, &mut accounts).await?;
    let leases = leases(tx, &prompts).await?;
    let calls: Vec<Uuid> = requests.iter().map(|request| request.call.as_uuid()).collect();
    let known = known(tx, &calls).await?;
    let (mut grants, mut new) = (Vec::with_capacity(requests.len()), Vec::new());
    for request in requests {
        let lease = leases.get(&request.prompt);
        let id = lease.map(|lease| DistillationId::from_uuid(lease.distillation_id));
        let holds = lease.map(|lease| lease.holds(request.attempt)).transpose()?.unwrap_or(false);
        let job = id.and_then(|id| Some((id, accounts.get_mut(&id)?)));
        let Some((id, job)) = job.filter(|(_, job)| holds && job.harvesting) else {
            grants.push(CallGrant::LeaseLost);
            continue;
        };
        if known.contains(&request.call) {
            grants.push(CallGrant::Granted);
            continue;
        }
        grants.push(match job.account.reserve(request.bound) {
            Room::Free => {
                new.push((id, *request));
                CallGrant::Granted
            }
            Room::Later => CallGrant::Later,
            Room::Exhausted => CallGrant::Exhausted,
        });
    }
    insert(tx, &new).await?;
    Ok(grants)
}

/// Ends calls of held accounts. One that is not there was ended before, or its job was deleted.
pub(crate) async fn end(
    tx: &mut Tx,
    accounts: &mut Accounts,
    ended: &[(CallId, CallEnd)],
) -> TransactionResult<()> {
    if ended.is_empty() {
        return Ok(());
    }
    // Of several for one call, the first counts.
    let mut ends: BTreeMap<Uuid, CallEnd> = BTreeMap::new();
    for (call, end) in ended {
        ends.entry(call.as_uuid()).or_insert(*end);
    }
    let (doubtful, known): (Vec<_>, Vec<_>) =
        ends.iter().partition(|(_, end)| matches!(end, CallEnd::InDoubt));
    let ids = |calls: Vec<(&Uuid, &CallEnd)>| calls.into_iter().map(|(id, _)| *id).collect::<Vec<Uuid>>();
    let (doubtful, known) = (ids(doubtful), ids(known));
    if !doubtful.is_empty() {
        sqlx::query!("UPDATE calls SET in_doubt = TRUE WHERE id = ANY ($1)", &doubtful)
            .execute(&mut **tx)
            .await?;
    }
    let removed = sqlx::query!("DELETE FROM calls WHERE id = ANY ($1) RETURNING id, distillation_id", &known)
        .fetch_all(&mut **tx)
        .await?;
    for row in removed {
        let Some(job) = accounts.get_mut(&DistillationId::from_uuid(row.distillation_id)) else { continue };
        match ends.get(&row.id) {
            Some(CallEnd::Charged(usage)) => job.spend(*usage)?,
            Some(CallEnd::Failed) => job.spend(Usage::default())?,
            Some(CallEnd::Refused | CallEnd::InDoubt) | None => {}
        }
    }
    Ok(())
}

#[async_trait]
impl CallStore for PostgresStore {
    async fn reserve_calls(&self, requests: &[CallRequest]) -> StoreResult<Vec<CallGrant>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.call(|| async {
            let mut tx = self.begin().await?;
            let grants = reserve(&mut tx, requests).await?;
            tx.commit().await?;
            Ok(grants)
        })
        .await
    }

    async fn end_calls(&self, ended: &[(CallId, CallEnd)]) -> StoreResult<()> {
        if ended.is_empty() {
            return Ok(());
        }
        self.call(|| async {
            let calls = in_order(ended.iter().map(|(call, _)| call.as_uuid()));
            let mut tx = self.begin().await?;
            let mut accounts = accounts::hold_of_calls(&mut tx, &calls).await?;
            end(&mut tx, &mut accounts, ended).await?;
            accounts::save(&mut tx, &accounts).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}
