//! Runs: created, listed, found.

use super::call::{page, record, records};
use domain::ids::{DistillationId, RequestId, RunId};
use domain::records::{MetricPoint, Run};
use domain::run::RunPlan;
use tonic::Status;
use wire::v1::runs_service_client::RunsServiceClient;
use wire::{Channel, v1};

fn client(channel: &Channel) -> RunsServiceClient<Channel> {
    RunsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

/// Creates a run over the ledger of a job; a repeated request is the run of the first.
pub(crate) async fn create(
    channel: &Channel,
    request: RequestId,
    job: DistillationId,
    plan: &RunPlan,
) -> Result<Run, Status> {
    let request = v1::CreateRunRequest {
        request_id: request.to_string(),
        distillation_id: job.to_string(),
        plan: Some(plan.clone().into()),
    };
    record("run", client(channel).create_run(request).await?.into_inner().run)
}

/// A run by its id.
pub(crate) async fn get(channel: &Channel, run: RunId) -> Result<Run, Status> {
    let request = v1::GetRunRequest { run_id: run.to_string() };
    record("run", client(channel).get_run(request).await?.into_inner().run)
}

/// The numbers of a run in order of step.
pub(crate) async fn metrics(channel: &Channel, run: RunId) -> Result<Vec<MetricPoint>, Status> {
    let request = v1::ListMetricsRequest { run_id: run.to_string(), name: String::new() };
    let answer = client(channel).list_metrics(request).await?.into_inner();
    Ok(answer.metrics.into_iter().map(Into::into).collect())
}

/// At most `limit` runs of a job, the newest first.
pub(crate) async fn list(channel: &Channel, job: DistillationId, limit: usize) -> Result<Vec<Run>, Status> {
    let (mut runs, mut token) = (Vec::new(), String::new());
    while let Some(page) = page(limit, runs.len(), &mut token) {
        let request = v1::ListRunsRequest { distillation_id: job.to_string(), page: Some(page) };
        let answer = client(channel).list_runs(request).await?.into_inner();
        runs.extend(records::<_, Run>(answer.runs)?);
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(runs)
}
