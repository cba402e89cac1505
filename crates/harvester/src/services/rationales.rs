//! Reading the ledger.

use super::respond::{Answer, CHUNK_ROWS, Stream, fail, id, page, stream};
use crate::shared::Shared;
use domain::Violation;
use domain::ids::DistillationId;
use domain::ports::LedgerFilter;
use domain::records::ParkedPrompt;
use domain::state::{PromptState, Verdict};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use wire::v1;
use wire::v1::rationales_service_server::RationalesService;

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

#[tonic::async_trait]
impl RationalesService for Rationales {
    async fn list_rationales(
        &self,
        request: Request<v1::ListRationalesRequest>,
    ) -> Answer<v1::ListRationalesResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let verdict = wire::filter::<Verdict>("verdict", request.verdict).map_err(wire::invalid)?;
        let page = page(request.page);
        let filter = LedgerFilter { verdict, after_row: after_row(page.cursor)? };
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
        let verdict = wire::filter::<Verdict>("verdict", request.verdict).map_err(wire::invalid)?;
        self.0.stores.jobs.distillation(job).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(move |sink| async move {
            let mut filter = LedgerFilter { verdict, after_row: None };
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
