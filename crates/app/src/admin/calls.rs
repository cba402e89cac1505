//! What the page of jobs asks of the API: messages of the API stay in here.

use domain::Violation;
use domain::ids::{DistillationId, RunId};
use domain::records::{Dataset, Distillation, HarvestProgress, MetricPoint, Run};
use tonic::Status;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::runs_service_client::RunsServiceClient;
use wire::{Channel, v1};

/// Jobs of one page.
const PAGE_JOBS: u32 = 20;

/// A job, with what surrounds it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) job: Distillation,
    pub(super) harvest: HarvestProgress,
    /// Absent where it is deleted.
    pub(super) dataset: Option<Dataset>,
}

fn malformed(violations: Vec<Violation>) -> Status {
    let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Status::internal(format!("the answer cannot be read: {}", words.join("; ")))
}

fn record<M, T: TryFrom<M, Error = Vec<Violation>>>(what: &str, message: Option<M>) -> Result<T, Status> {
    wire::present(what, message).and_then(T::try_from).map_err(malformed)
}

fn jobs(channel: &Channel) -> DistillationsServiceClient<Channel> {
    DistillationsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

fn runs(channel: &Channel) -> RunsServiceClient<Channel> {
    RunsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

/// A page of jobs, the newest first, and what names the next page.
pub(super) async fn page(channel: &Channel, token: &str) -> Result<(Vec<Distillation>, String), Status> {
    let page = Some(v1::PageRequest { page_size: PAGE_JOBS, page_token: token.to_owned() });
    let request = v1::ListDistillationsRequest { page, states: Vec::new(), name: String::new() };
    let answer = jobs(channel).list_distillations(request).await?.into_inner();
    let found = answer.distillations.into_iter().map(|job| job.try_into().map_err(malformed));
    Ok((found.collect::<Result<_, _>>()?, answer.next_page_token))
}

/// A job by its id.
pub(super) async fn job(channel: &Channel, job: DistillationId) -> Result<Found, Status> {
    let request = v1::GetDistillationRequest { distillation_id: job.to_string() };
    let answer = jobs(channel).get_distillation(request).await?.into_inner();
    Ok(Found {
        job: record("distillation", answer.distillation)?,
        harvest: answer.harvest.unwrap_or_default().into(),
        dataset: answer.dataset.map(Dataset::try_from).transpose().map_err(malformed)?,
    })
}

/// A run by its id.
pub(super) async fn run(channel: &Channel, run: RunId) -> Result<Run, Status> {
    let request = v1::GetRunRequest { run_id: run.to_string() };
    record("run", runs(channel).get_run(request).await?.into_inner().run)
}

/// The numbers of a run in order of step.
pub(super) async fn metrics(channel: &Channel, run: RunId) -> Result<Vec<MetricPoint>, Status> {
    let request = v1::ListMetricsRequest { run_id: run.to_string(), name: String::new() };
    let answer = runs(channel).list_metrics(request).await?.into_inner();
    Ok(answer.metrics.into_iter().map(Into::into).collect())
}
