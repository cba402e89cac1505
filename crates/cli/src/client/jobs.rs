//! Jobs: submitted, found, followed, ended.

use super::call::{Patience, failure, malformed, page, record, records};
use crate::exit::Usage;
use domain::estimate::Estimate;
use domain::ids::{DatasetId, DistillationId, RequestId, RunId};
use domain::records::{Batch, Dataset, Distillation, HarvestProgress, ParkedPrompt};
use domain::spec::Spec;
use domain::state::DistillationState;
use tonic::Status;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::{Channel, Watched, v1};

/// A job, with what surrounds it.
pub(crate) struct Found {
    pub(crate) job: Distillation,
    pub(crate) harvest: HarvestProgress,
    /// Absent where it is deleted.
    pub(crate) dataset: Option<Dataset>,
    /// Oldest first.
    pub(crate) batches: Vec<Batch>,
}

fn client(channel: &Channel) -> DistillationsServiceClient<Channel> {
    DistillationsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

/// The job of that id, or the newest of that name.
pub(crate) async fn find(channel: &Channel, id_or_name: &str) -> anyhow::Result<Found> {
    let absent = || Usage(format!("there is no job `{id_or_name}`: `distillery list` shows the jobs"));
    let id = match id_or_name.parse::<DistillationId>() {
        Ok(id) => id,
        Err(_) => {
            list(channel, &[], Some(id_or_name), 1).await.map_err(failure)?.first().ok_or_else(absent)?.id
        }
    };
    get(channel, id).await.map_err(|status| match status.code() {
        tonic::Code::NotFound => absent().into(),
        _ => failure(status),
    })
}

/// States of jobs that services work at; a job that is in none of them and not paused is over.
pub(crate) const WORKED_AT: [DistillationState; 4] = [
    DistillationState::Queued,
    DistillationState::Harvesting,
    DistillationState::Training,
    DistillationState::Evaluating,
];
/// Jobs of one name that are told apart.
const NAMESAKES_MAX: usize = 8;

/// The job of that id, or the one of that name that is not over; where all of that name are, the newest. A name that several
/// unfinished jobs have says none of them.
pub(crate) async fn find_unfinished(channel: &Channel, id_or_name: &str) -> anyhow::Result<Found> {
    if id_or_name.parse::<DistillationId>().is_ok() {
        return find(channel, id_or_name).await;
    }
    let unfinished = [&WORKED_AT[..], &[DistillationState::Paused]].concat();
    let jobs = list(channel, &unfinished, Some(id_or_name), NAMESAKES_MAX).await.map_err(failure)?;
    match jobs.as_slice() {
        [] => find(channel, id_or_name).await,
        [job] => get(channel, job.id).await.map_err(failure),
        jobs => {
            let one = |job: &Distillation| {
                format!("{} ({}, of {})", job.id, job.state, wire::rfc3339(job.created_at))
            };
            let ids: Vec<String> = jobs.iter().map(one).collect();
            let words =
                format!("`{id_or_name}` is the name of several jobs: name one by its id: {}", ids.join("; "));
            Err(Usage(words).into())
        }
    }
}

/// A job by its id.
pub(crate) async fn get(channel: &Channel, job: DistillationId) -> Result<Found, Status> {
    let request = v1::GetDistillationRequest { distillation_id: job.to_string() };
    let answer = client(channel).get_distillation(request).await?.into_inner();
    let batches = answer.batches.into_iter().map(|batch| wire::batch(job, batch));
    Ok(Found {
        batches: batches.collect::<Result<_, _>>().map_err(malformed)?,
        job: record("distillation", answer.distillation)?,
        harvest: answer.harvest.unwrap_or_default().into(),
        dataset: answer.dataset.map(Dataset::try_from).transpose().map_err(malformed)?,
    })
}

/// What this job would ask; asks `probe_rows` rows now.
pub(crate) async fn estimate(
    channel: &Channel,
    spec: &Spec,
    dataset: DatasetId,
    probe_rows: u32,
) -> Result<Estimate, Status> {
    let request = v1::EstimateDistillationRequest {
        spec: Some(spec.clone().into()),
        dataset_id: dataset.to_string(),
        probe_rows,
    };
    let answer = client(channel).estimate_distillation(request).await?.into_inner();
    answer.try_into().map_err(malformed)
}

/// At most `limit` jobs of any of `states` (of all where there are none), the newest first.
pub(crate) async fn list(
    channel: &Channel,
    states: &[DistillationState],
    name: Option<&str>,
    limit: usize,
) -> Result<Vec<Distillation>, Status> {
    let states: Vec<i32> = states.iter().map(|state| v1::DistillationState::from(*state).into()).collect();
    let name = name.unwrap_or_default();
    let (mut jobs, mut token) = (Vec::new(), String::new());
    while let Some(page) = page(limit, jobs.len(), &mut token) {
        let request =
            v1::ListDistillationsRequest { page: Some(page), states: states.clone(), name: name.to_owned() };
        let answer = client(channel).list_distillations(request).await?.into_inner();
        jobs.extend(records::<_, Distillation>(answer.distillations)?);
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(jobs)
}

/// Submits a specification; a repeated request is the job of the first.
pub(crate) async fn submit(
    channel: &Channel,
    request: RequestId,
    spec: &Spec,
    dataset: DatasetId,
) -> Result<Distillation, Status> {
    let request = v1::SubmitDistillationRequest {
        request_id: request.to_string(),
        spec: Some(spec.clone().into()),
        dataset_id: dataset.to_string(),
    };
    let answer = client(channel).submit_distillation(request).await?;
    record("distillation", answer.into_inner().distillation)
}

/// Resumes a paused or failed job.
pub(crate) async fn resume(channel: &Channel, job: DistillationId) -> Result<Distillation, Status> {
    let request = v1::ResumeDistillationRequest { distillation_id: job.to_string() };
    let answer = client(channel).resume_distillation(request).await?;
    record("distillation", answer.into_inner().distillation)
}

/// Cancels a job.
pub(crate) async fn cancel(
    channel: &Channel,
    job: DistillationId,
    reason: &str,
) -> Result<Distillation, Status> {
    let request =
        v1::CancelDistillationRequest { distillation_id: job.to_string(), reason: reason.to_owned() };
    let answer = client(channel).cancel_distillation(request).await?;
    record("distillation", answer.into_inner().distillation)
}

/// Deletes a job; returns its runs that no model came from.
pub(crate) async fn delete(channel: &Channel, job: DistillationId) -> Result<Vec<RunId>, Status> {
    let request = v1::DeleteDistillationRequest { distillation_id: job.to_string() };
    let orphaned = client(channel).delete_distillation(request).await?.into_inner().orphaned_run_ids;
    let runs = orphaned.iter().map(|run| wire::id("orphaned_run_ids", run));
    runs.collect::<Result<_, _>>().map_err(malformed)
}

/// Follows a job until it ends or pauses. After a lost connection it resumes behind the last event.
pub(crate) async fn follow(
    channel: &Channel,
    job: DistillationId,
    mut after: u64,
    mut see: impl FnMut(Watched) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client = client(channel);
    let mut patience = Patience::default();
    loop {
        let request =
            v1::WatchDistillationRequest { distillation_id: job.to_string(), after_sequence: after };
        let lost = match client.watch_distillation(request).await {
            Ok(answer) => {
                let mut events = answer.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(message)) => {
                            patience.restored();
                            let watched = Watched::try_from((job, message));
                            let watched = watched.map_err(|found| failure(malformed(found)))?;
                            after = after.max(watched.sequence());
                            see(watched)?;
                        }
                        Ok(None) => return Ok(()),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// The first parked prompt of a job.
pub(crate) async fn first_parked(
    channel: &Channel,
    job: DistillationId,
) -> Result<Option<ParkedPrompt>, Status> {
    let page = Some(v1::PageRequest { page_size: 1, page_token: String::new() });
    let request = v1::ListParkedPromptsRequest { distillation_id: job.to_string(), page };
    let answer = RationalesServiceClient::new(channel.clone()).list_parked_prompts(request).await;
    Ok(records(answer?.into_inner().prompts)?.into_iter().next())
}
