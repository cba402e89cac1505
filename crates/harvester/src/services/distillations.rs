//! Jobs: submitted, watched, cancelled, resumed.

use super::respond::{Answer, Stream, StreamSender, check_bytes, fail, fitted, id, page, stream};
use crate::batches;
use crate::estimate;
use crate::plan;
use crate::shared::Shared;
use crate::submit::{self, Asked};
use domain::ids::DistillationId;
use domain::ports::DistillationFilter;
use domain::state::DistillationState;
use domain::{Timestamp, Violation};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};
use wire::v1::distillations_service_server::DistillationsService;
use wire::{Watched, v1};

/// Most events of one read.
const EVENTS: usize = 100;
/// Interval at which a watcher polls for events.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Interval of harvest snapshots.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Distillations(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl DistillationsService for Distillations {
    async fn submit_distillation(
        &self,
        request: Request<v1::SubmitDistillationRequest>,
    ) -> Answer<v1::SubmitDistillationResponse> {
        let request = request.into_inner();
        let request_id = wire::id("request_id", &request.request_id);
        let mistakes = request_id.as_ref().err().cloned().unwrap_or_default();
        let asked = asked(request.spec, &request.dataset_id, mistakes)?;
        let (spec, dataset) = submit::check(&self.0, asked).await?;
        let request_id = request_id.map_err(wire::invalid)?;
        let job = submit::submit(&self.0, request_id, spec, dataset).await?;
        Ok(Response::new(v1::SubmitDistillationResponse { distillation: Some(job.into()) }))
    }

    async fn estimate_distillation(
        &self,
        request: Request<v1::EstimateDistillationRequest>,
    ) -> Answer<v1::EstimateDistillationResponse> {
        let request = request.into_inner();
        let asked = asked(request.spec, &request.dataset_id, Vec::new())?;
        let (spec, dataset) = submit::check(&self.0, asked).await?;
        let estimate = estimate::estimate(&self.0, spec, dataset, request.probe_rows).await?;
        Ok(Response::new(estimate.into()))
    }

    async fn get_distillation(
        &self,
        request: Request<v1::GetDistillationRequest>,
    ) -> Answer<v1::GetDistillationResponse> {
        let job = id("distillation_id", &request.into_inner().distillation_id)?;
        let stores = &self.0.stores;
        let job = stores.jobs.distillation(job).await.map_err(fail)?;
        let batches = batches::of_job(&self.0, &job).await.map_err(fail)?;
        let harvest = plan::progress(&self.0, &job, &batches).await.map_err(fail)?;
        let dataset = stores.datasets.dataset(job.dataset).await.ok();
        Ok(Response::new(v1::GetDistillationResponse {
            distillation: Some(job.into()),
            harvest: Some(harvest.into()),
            dataset: dataset.map(Into::into),
            batches: batches.into_iter().map(Into::into).collect(),
        }))
    }

    async fn list_distillations(
        &self,
        request: Request<v1::ListDistillationsRequest>,
    ) -> Answer<v1::ListDistillationsResponse> {
        let request = request.into_inner();
        let mut states = Vec::new();
        for number in request.states {
            states.extend(wire::filter::<DistillationState>("states", number).map_err(wire::invalid)?);
        }
        let filter = DistillationFilter { states, name: (!request.name.is_empty()).then_some(request.name) };
        let (store, filter) = (&self.0.stores.jobs, &filter);
        let read = |page| async move { store.list_distillations(filter, &page).await };
        let (distillations, next_page_token) = fitted(page(request.page), read).await?;
        Ok(Response::new(v1::ListDistillationsResponse { distillations, next_page_token }))
    }

    type WatchDistillationStream = Stream<v1::WatchDistillationResponse>;

    async fn watch_distillation(
        &self,
        request: Request<v1::WatchDistillationRequest>,
    ) -> Answer<Self::WatchDistillationStream> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        self.0.stores.jobs.distillation(job).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        let after = request.after_sequence;
        Ok(Response::new(stream(move |sink| async move { watch(&shared, job, after, &sink).await })))
    }

    async fn cancel_distillation(
        &self,
        request: Request<v1::CancelDistillationRequest>,
    ) -> Answer<v1::CancelDistillationResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        check_bytes("reason", request.reason.len(), wire::REASON_BYTES_MAX)?;
        let job = self.0.stores.jobs.cancel(job, &request.reason).await.map_err(fail)?;
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::CancelDistillationResponse { distillation: Some(job.into()) }))
    }

    async fn resume_distillation(
        &self,
        request: Request<v1::ResumeDistillationRequest>,
    ) -> Answer<v1::ResumeDistillationResponse> {
        let job = id("distillation_id", &request.into_inner().distillation_id)?;
        let job = self.0.stores.jobs.resume(job).await.map_err(fail)?;
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::ResumeDistillationResponse { distillation: Some(job.into()) }))
    }

    async fn delete_distillation(
        &self,
        request: Request<v1::DeleteDistillationRequest>,
    ) -> Answer<v1::DeleteDistillationResponse> {
        let job = id("distillation_id", &request.into_inner().distillation_id)?;
        let orphaned = self.0.stores.jobs.delete_distillation(job).await.map_err(fail)?;
        let orphaned_run_ids = orphaned.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::DeleteDistillationResponse { orphaned_run_ids }))
    }
}

/// What a request asks for, with what is wrong with it and the `mistakes` in the rest of the request.
fn asked(
    spec: Option<v1::DistillationSpec>,
    dataset_id: &str,
    mut mistakes: Vec<Violation>,
) -> Result<Asked, Status> {
    let dataset = wire::id("dataset_id", dataset_id);
    let spec = wire::present("spec", spec).map_err(|absent| {
        let of_rows = dataset.as_ref().err().cloned().unwrap_or_default();
        wire::invalid([std::mem::take(&mut mistakes), absent, of_rows].concat())
    })?;
    check_bytes("spec", wire::bytes_of(&spec), wire::SPEC_BYTES_MAX)?;
    let (draft, found) = wire::draft(spec);
    mistakes.extend(found);
    Ok(Asked { draft, dataset, mistakes })
}

/// Sends events in order, with harvest snapshots between them, until the job has ended or is paused.
async fn watch(
    shared: &Shared,
    job: DistillationId,
    mut after: u64,
    sink: &StreamSender<v1::WatchDistillationResponse>,
) -> Result<(), Status> {
    let mut snapshot: Option<Instant> = None;
    while !sink.is_closed() {
        // The state is read before the events: a job that has ended or is paused here has no further events.
        let state = shared.stores.jobs.distillation(job).await.map_err(fail)?.state;
        let harvesting = matches!(state, DistillationState::Queued | DistillationState::Harvesting);
        if harvesting && snapshot.is_none_or(|last| last.elapsed() >= SNAPSHOT_EVERY) {
            snapshot = Some(Instant::now());
            send_snapshot(shared, job, None, sink).await?;
        }
        let events = shared.stores.jobs.events(job, after, EVENTS).await.map_err(fail)?;
        let more = events.len() == EVENTS;
        for event in events {
            after = event.sequence;
            if ends_harvest(&event.kind) {
                send_snapshot(shared, job, Some(event.at), sink).await?;
            }
            if !sink.send(Watched::Event(event).into()).await {
                return Ok(());
            }
        }
        if more {
            continue;
        }
        if state.is_terminal() || state == DistillationState::Paused {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Sends the final snapshot of a harvest that ended between two snapshots.
fn ends_harvest(kind: &domain::event::EventKind) -> bool {
    matches!(kind, domain::event::EventKind::StateChanged { from: Some(DistillationState::Harvesting), .. })
}

/// A harvest snapshot; a final one carries its time, so that a watcher recognises an old one.
async fn send_snapshot(
    shared: &Shared,
    job: DistillationId,
    at: Option<Timestamp>,
    sink: &StreamSender<v1::WatchDistillationResponse>,
) -> Result<(), Status> {
    let job = shared.stores.jobs.distillation(job).await.map_err(fail)?;
    let batches = batches::of_job(shared, &job).await.map_err(fail)?;
    let progress = plan::progress(shared, &job, &batches).await.map_err(fail)?;
    sink.send(Watched::Snapshot { at, progress }.into()).await;
    Ok(())
}
