//! The ledger: read, judged again, and asked again.

use super::respond::{Answer, CHUNK_ROWS, Stream, fail, id, page, stream};
use crate::rejudging::Rejudging;
use crate::shared::Shared;
use domain::Violation;
use domain::ids::DistillationId;
use domain::ports::LedgerFilter;
use domain::records::{ParkedPrompt, Prompt};
use domain::rows::whole_rows;
use domain::spec::JudgingDraft;
use domain::state::PromptState;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use wire::v1::rationales_service_server::RationalesService;
use wire::{LedgerFields, v1};

pub(super) struct Rationales(pub(super) Arc<Shared>);

/// Where a page of whole rows begins: the token names the last row of the previous page.
fn after_row(cursor: Option<String>) -> Result<Option<u64>, Status> {
    let Some(token) = cursor else { return Ok(None) };
    Ok(Some(token.strip_prefix("row-").and_then(|row| row.parse().ok()).ok_or_else(foreign_token)?))
}

/// Where a page of the ledger begins: behind a row, or within one that does not go into one message, behind so many of its
/// entries.
fn place(cursor: Option<String>) -> Result<(Option<u64>, usize), Status> {
    let Some((row, entries)) = cursor.as_deref().and_then(|token| token.split_once('+')) else {
        return Ok((after_row(cursor)?, 0));
    };
    let row = after_row(Some(row.to_owned()))?;
    Ok((row.and_then(|row| row.checked_sub(1)), entries.parse().map_err(|_| foreign_token())?))
}

fn foreign_token() -> Status {
    let words = "is not a page token of this list; omit it to start from the first page";
    wire::invalid(vec![Violation::new("page.page_token", words)])
}

/// Cuts entries to what goes into one message, behind the first `sent` of them; returns the token of what follows.
fn cut(entries: &mut Vec<v1::Rationale>, sent: usize) -> String {
    let behind = entries.split_off(sent.min(entries.len()));
    let sent = std::mem::replace(entries, behind);
    let rest = entries.split_off(wire::fitting(entries));
    let Some(row) = entries.last().map(|last| last.row) else { return String::new() };
    // A page that is not full may have been cut at the end of a row, so only an empty one is the last.
    if rest.first().is_none_or(|next| next.row != row) {
        return format!("row-{row}");
    }
    let of_row = sent.iter().chain(entries.iter()).filter(|entry| entry.row == row).count();
    format!("row-{row}+{of_row}")
}

fn read_filter(fields: LedgerFields) -> Result<LedgerFilter, Status> {
    fields.try_into().map_err(wire::invalid)
}

#[tonic::async_trait]
impl RationalesService for Rationales {
    async fn list_rationales(
        &self,
        request: Request<v1::ListRationalesRequest>,
    ) -> Answer<v1::ListRationalesResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let v1::ListRationalesRequest { verdict, reasons, model, rows, page: wanted, .. } = request;
        let page = page(wanted);
        let mut filter = read_filter(LedgerFields { verdict, reasons, model, rows })?;
        let (after, sent) = place(page.cursor)?;
        filter.after_row = filter.after_row.max(after);
        self.0.stores.jobs.distillation(job).await.map_err(fail)?;
        let entries = self.0.stores.prompts.ledger(job, &filter, page.size).await.map_err(fail)?;
        let mut rationales: Vec<v1::Rationale> = entries.into_iter().map(Into::into).collect();
        let next_page_token = cut(&mut rationales, sent);
        Ok(Response::new(v1::ListRationalesResponse { rationales, next_page_token }))
    }

    type StreamRationalesStream = Stream<v1::StreamRationalesResponse>;

    async fn stream_rationales(
        &self,
        request: Request<v1::StreamRationalesRequest>,
    ) -> Answer<Self::StreamRationalesStream> {
        let request = request.into_inner();
        let job: DistillationId = id("distillation_id", &request.distillation_id)?;
        let verdict = wire::filter("verdict", request.verdict).map_err(wire::invalid)?;
        self.0.stores.jobs.distillation(job).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(move |sink| async move {
            let mut filter = LedgerFilter { verdict, ..LedgerFilter::default() };
            loop {
                let entries = shared.stores.prompts.ledger(job, &filter, CHUNK_ROWS).await.map_err(fail)?;
                let Some(last) = entries.last() else { return Ok(()) };
                filter.after_row = Some(last.row);
                let rationales = entries.into_iter().map(Into::into).collect();
                if !sink.send_all(rationales, |rationales| v1::StreamRationalesResponse { rationales }).await
                {
                    return Ok(());
                }
            }
        })))
    }

    async fn retry_parked_prompts(
        &self,
        request: Request<v1::RetryParkedPromptsRequest>,
    ) -> Answer<v1::RetryParkedPromptsResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let retried = self.0.stores.prompts.retry_parked(job, &request.error_contains).await.map_err(fail)?;
        self.0.positions.forget(job);
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::RetryParkedPromptsResponse { retried }))
    }

    async fn forget_rationales(
        &self,
        request: Request<v1::ForgetRationalesRequest>,
    ) -> Answer<v1::ForgetRationalesResponse> {
        let request = request.into_inner();
        let request_id = id("request_id", &request.request_id)?;
        let job = id("distillation_id", &request.distillation_id)?;
        let v1::ForgetRationalesRequest { verdict, reasons, model, rows, .. } = request;
        let filter = read_filter(LedgerFields { verdict, reasons, model, rows })?;
        let outcome = self.0.stores.prompts.forget(request_id, job, &filter).await.map_err(fail)?;
        self.0.positions.forget(job);
        tracing::info!(distillation = %job, outcome.forgotten, outcome.asked_again, "answers are forgotten");
        self.0.changed.notify_waiters();
        Ok(Response::new(outcome.into()))
    }

    type JudgeRationalesStream = Stream<v1::JudgeRationalesResponse>;

    async fn judge_rationales(
        &self,
        request: Request<v1::JudgeRationalesRequest>,
    ) -> Answer<Self::JudgeRationalesStream> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let draft = JudgingDraft::try_from(request.judging.unwrap_or_default()).map_err(wire::invalid)?;
        let mut again = Rejudging::open(Arc::clone(&self.0), job, draft).await?;
        Ok(Response::new(stream(move |sink| async move {
            loop {
                let done = again.next().await.map_err(fail)?;
                if !sink.send(wire::rejudged_message(again.so_far(), done)).await || done {
                    return Ok(());
                }
            }
        })))
    }

    async fn list_parked_prompts(
        &self,
        request: Request<v1::ListParkedPromptsRequest>,
    ) -> Answer<v1::ListParkedPromptsResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let page = page(request.page);
        let after = after_row(page.cursor)?;
        let prompts = self
            .0
            .stores
            .prompts
            .prompts_in_state(job, PromptState::Parked, after, page.size)
            .await
            .map_err(fail)?;
        let shown = |prompt: Prompt| Prompt { error: wire::reason(prompt.error.as_str()), ..prompt };
        let prompts = prompts.into_iter().map(|prompt| ParkedPrompt::from(shown(prompt)).into());
        let mut prompts: Vec<v1::ParkedPrompt> = prompts.collect();
        let fitting = wire::fitting(&prompts);
        whole_rows(&mut prompts, fitting, |prompt| prompt.row);
        let next_page_token = prompts.last().map(|last| format!("row-{}", last.row)).unwrap_or_default();
        Ok(Response::new(v1::ListParkedPromptsResponse { prompts, next_page_token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of many long samples is more than a message.
    #[test]
    fn pages_together_are_every_entry_once() {
        let lengths = [(0, vec![10, 20]), (1, vec![900_000; 7]), (2, vec![5]), (4, vec![3_000_000, 1])];
        let entry = |row: u64, sample: usize, bytes: usize| v1::Rationale {
            row,
            sample: u32::try_from(sample).unwrap(),
            rationale: "x".repeat(bytes),
            ..Default::default()
        };
        let ledger: Vec<v1::Rationale> = lengths
            .iter()
            .flat_map(|(row, of_row)| {
                of_row.iter().enumerate().map(move |(sample, bytes)| entry(*row, sample, *bytes))
            })
            .collect();
        let (mut listed, mut pages, mut cursor) = (Vec::new(), 0, None);
        loop {
            let (after, sent) = place(cursor).unwrap();
            let mut page: Vec<v1::Rationale> =
                ledger.iter().filter(|entry| after.is_none_or(|after| entry.row > after)).cloned().collect();
            let token = cut(&mut page, sent);
            if token.is_empty() {
                assert_eq!(page, []);
                break;
            }
            pages += 1;
            listed.extend(page);
            cursor = Some(token);
        }
        assert_eq!((listed, pages), (ledger, 6));
        for token in ["row", "row-", "row-x", "row-1+", "row-1+x", "1+2", "+"] {
            assert!(place(Some(token.to_owned())).is_err(), "{token}");
        }
    }
}
