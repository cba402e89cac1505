//! The ledger: read, judged again, and asked again.

use super::respond::{Answer, CHUNK_ROWS, Stream, fail, id, page, stream};
use crate::rejudging::Rejudging;
use crate::shared::Shared;
use domain::Violation;
use domain::ids::DistillationId;
use domain::ports::LedgerFilter;
use domain::records::ParkedPrompt;
use domain::spec::JudgingDraft;
use domain::state::PromptState;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use wire::v1::rationales_service_server::RationalesService;
use wire::{LedgerFields, v1};

pub(super) struct Rationales(pub(super) Arc<Shared>);

/// Pages of a ledger contain whole rows: the token names the last row of the previous page.
fn after_row(cursor: Option<String>) -> Result<Option<u64>, Status> {
    let read = |token: String| token.strip_prefix("row-").and_then(|row| row.parse().ok());
    match cursor {
        None => Ok(None),
        Some(token) => read(token).map(Some).ok_or_else(|| {
            wire::invalid(vec![Violation::new(
                "page.page_token",
                "is not a page token of this list; omit it to start from the first page",
            )])
        }),
    }
}

fn token(full: bool, last: Option<u64>) -> String {
    match last {
        Some(row) if full => format!("row-{row}"),
        _ => String::new(),
    }
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
        filter.after_row = filter.after_row.max(after_row(page.cursor)?);
        self.0.stores.jobs.distillation(job).await.map_err(fail)?;
        let entries = self.0.stores.prompts.ledger(job, &filter, page.size).await.map_err(fail)?;
        // A page that is not full may have been cut at the end of a row, so only an empty one is the last.
        let next_page_token = token(!entries.is_empty(), entries.last().map(|entry| entry.row));
        let rationales = entries.into_iter().map(Into::into).collect();
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
                if !sink.send(v1::StreamRationalesResponse { rationales }).await {
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
        let next_page_token = token(!prompts.is_empty(), prompts.last().map(|prompt| prompt.row));
        let prompts = prompts.into_iter().map(|prompt| ParkedPrompt::from(prompt).into()).collect();
        Ok(Response::new(v1::ListParkedPromptsResponse { prompts, next_page_token }))
    }
}
