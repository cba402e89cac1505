//! The ledger of a job, page by page; judged again, and asked again.

use super::call::{Patience, failure, malformed, page, records};
use domain::ids::{DistillationId, RequestId};
use domain::ports::{ForgetOutcome, LedgerFilter};
use domain::records::{LedgerEntry, ParkedPrompt};
use domain::rejudge::Rejudged;
use domain::spec::JudgingDraft;
use tonic::Status;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::{Channel, LedgerFields, v1};

fn client(channel: &Channel) -> RationalesServiceClient<Channel> {
    RationalesServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

/// Passes up to `limit` entries to `see`, in order, page by page: a long ledger outlives its connections.
pub(crate) async fn entries(
    channel: &Channel,
    job: DistillationId,
    filter: &LedgerFilter,
    limit: usize,
    mut see: impl FnMut(LedgerEntry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client = client(channel);
    let LedgerFields { verdict, reasons, model, rows } = filter.clone().into();
    let (mut seen, mut token) = (0, String::new());
    let mut patience = Patience::default();
    while let Some(page) = page(limit, seen, &mut token) {
        let resumed = page.page_token.clone();
        let request = v1::ListRationalesRequest {
            distillation_id: job.to_string(),
            verdict,
            page: Some(page),
            reasons: reasons.clone(),
            model: model.clone(),
            rows,
        };
        let answer = match client.list_rationales(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                patience.wait(status).await.map_err(failure)?;
                token = resumed;
                continue;
            }
        };
        patience.restored();
        // A page holds whole rows, and may be longer than what is left.
        for entry in answer.rationales.into_iter().take(limit - seen) {
            let entry = wire::ledger_entry(job, entry);
            see(entry.map_err(|found| failure(malformed(found)))?)?;
            seen += 1;
        }
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(())
}

/// Forgets the answers of the entries that `filter` takes.
pub(crate) async fn forget(
    channel: &Channel,
    request: RequestId,
    job: DistillationId,
    filter: &LedgerFilter,
) -> Result<ForgetOutcome, Status> {
    let LedgerFields { verdict, reasons, model, rows } = filter.clone().into();
    let request = v1::ForgetRationalesRequest {
        request_id: request.to_string(),
        distillation_id: job.to_string(),
        verdict,
        reasons,
        model,
        rows,
    };
    Ok(client(channel).forget_rationales(request).await?.into_inner().into())
}

/// Judges a whole ledger under other rules; passes the rows so far to `see`.
pub(crate) async fn judge(
    channel: &Channel,
    job: DistillationId,
    rules: JudgingDraft,
    mut see: impl FnMut(u64),
) -> Result<Rejudged, Status> {
    let request =
        v1::JudgeRationalesRequest { distillation_id: job.to_string(), judging: Some(rules.into()) };
    let mut counts = client(channel).judge_rationales(request).await?.into_inner();
    while let Some(message) = counts.message().await? {
        see(message.rows);
        if message.done {
            return message.try_into().map_err(malformed);
        }
    }
    Err(Status::unavailable("the server ended before the whole ledger was judged: try again"))
}

/// Asks parked prompts again; returns how many.
pub(crate) async fn retry_parked(
    channel: &Channel,
    job: DistillationId,
    error_contains: &str,
) -> Result<u64, Status> {
    let request = v1::RetryParkedPromptsRequest {
        distillation_id: job.to_string(),
        error_contains: error_contains.to_owned(),
    };
    Ok(client(channel).retry_parked_prompts(request).await?.into_inner().retried)
}

/// Parked prompts of a job, in order.
pub(crate) async fn parked(
    channel: &Channel,
    job: DistillationId,
    mut see: impl FnMut(ParkedPrompt) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client = client(channel);
    let (mut seen, mut token) = (0, String::new());
    while let Some(page) = page(usize::MAX, seen, &mut token) {
        let request = v1::ListParkedPromptsRequest { distillation_id: job.to_string(), page: Some(page) };
        let answer = client.list_parked_prompts(request).await.map_err(failure)?.into_inner();
        for prompt in records::<_, ParkedPrompt>(answer.prompts).map_err(failure)? {
            see(prompt)?;
            seen += 1;
        }
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(())
}
