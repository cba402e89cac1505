//! The ledger of a job, page by page.

use super::call::{Patience, failure, malformed, page};
use domain::ids::DistillationId;
use domain::records::LedgerEntry;
use domain::state::Verdict;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::{Channel, v1};

/// Passes up to `limit` entries to `see`, in order, page by page: a long ledger outlives its connections.
pub(crate) async fn entries(
    channel: &Channel,
    job: DistillationId,
    verdict: Option<Verdict>,
    limit: usize,
    mut see: impl FnMut(LedgerEntry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client =
        RationalesServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
    let verdict = verdict.map_or(v1::Verdict::Unspecified, v1::Verdict::from).into();
    let (mut seen, mut token) = (0, String::new());
    let mut patience = Patience::default();
    while let Some(page) = page(limit, seen, &mut token) {
        let resumed = page.page_token.clone();
        let request =
            v1::ListRationalesRequest { distillation_id: job.to_string(), verdict, page: Some(page) };
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
