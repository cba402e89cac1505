//! Jobs: submitted, watched, cancelled, resumed.

use super::respond::{Answer, Stream, StreamSender, check_bytes, fail, fitted, id, page, stream};
use crate::batches;
use crate::estimate;
use crate::plan;
use crate::shared::Shared;
use crate::submit::{self, Asked};
use crate::watching::{JobSeen, Look, Watcher};
use domain::Violation;
use domain::event::EventKind;
use domain::ids::DistillationId;
use domain::ports::DistillationFilter;
use domain::state::DistillationState;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};
use wire::v1::distillations_service_server::DistillationsService;
use wire::{Watched, v1};

/// Most events of one read.
const EVENTS: usize = 100;
/// Events of a job that are kept for its watchers; who is further behind reads the records.
const EVENTS_KEPT: usize = 200;
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
        let look =
            || JobLook { shared: Arc::clone(&shared), job, after, seen: None, snapshot_at: Instant::now() };
        let watcher = shared.watched_jobs.watch(job, look)?;
        Ok(Response::new(stream(move |sink| async move { watch(&shared, watcher, job, after, &sink).await })))
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
    mut watcher: Watcher<Arc<JobSeen>>,
    job: DistillationId,
    mut after: u64,
    sink: &StreamSender<v1::WatchDistillationResponse>,
) -> Result<(), Status> {
    let mut told = 0;
    loop {
        let seen = tokio::select! {
            seen = watcher.next() => seen?,
            () = sink.closed() => return Ok(()),
        };
        if seen.snapshot != told && is_harvesting(seen.state) {
            told = seen.snapshot;
            sink.send(Watched::Snapshot { at: None, progress: seen.progress.clone() }.into()).await;
        }
        while after < seen.sequence {
            let events = match seen.events_after(after) {
                Some(events) => events,
                None => shared.stores.jobs.events(job, after, EVENTS).await.map_err(fail)?,
            };
            if events.is_empty() {
                break;
            }
            for event in events {
                after = event.sequence;
                if ends_harvest(&event.kind) {
                    let (at, progress) = (Some(event.at), seen.progress.clone());
                    sink.send(Watched::Snapshot { at, progress }.into()).await;
                }
                if !sink.send(Watched::Event(event).into()).await {
                    return Ok(());
                }
            }
        }
        if seen.state.is_terminal() || seen.state == DistillationState::Paused {
            return Ok(());
        }
    }
}

fn is_harvesting(state: DistillationState) -> bool {
    matches!(state, DistillationState::Queued | DistillationState::Harvesting)
}

/// Sends the final snapshot of a harvest that ended between two snapshots.
fn ends_harvest(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StateChanged { from: Some(DistillationState::Harvesting), .. })
}

/// Who looks at a job for all of its watchers.
struct JobLook {
    shared: Arc<Shared>,
    job: DistillationId,
    /// The last event that was read; at first, the one that the first watcher says that it has.
    after: u64,
    seen: Option<JobSeen>,
    snapshot_at: Instant,
}

impl JobLook {
    async fn is_there(&self, event: u64) -> Result<bool, Status> {
        let Some(before) = event.checked_sub(1) else { return Ok(true) };
        let found = self.shared.stores.jobs.events(self.job, before, 1).await.map_err(fail)?;
        Ok(found.first().is_some_and(|found| found.sequence == event))
    }
}

impl Look for JobLook {
    type Seen = Arc<JobSeen>;
    const EVERY: Duration = Duration::from_millis(100);

    async fn look(&mut self) -> Result<Option<Self::Seen>, Status> {
        let store = &self.shared.stores.jobs;
        // The state is read before the events: a job that has ended or is paused here has no further events.
        let job = store.distillation(self.job).await.map_err(fail)?;
        if self.seen.is_none() && !self.is_there(self.after).await? {
            self.after = 0;
        }
        let mut new = Vec::new();
        loop {
            let page = store.events(self.job, self.after, EVENTS).await.map_err(fail)?;
            let is_last = page.len() < EVENTS;
            self.after = page.last().map_or(self.after, |event| event.sequence);
            new.extend(page);
            new.drain(..new.len().saturating_sub(EVENTS_KEPT));
            if is_last {
                break;
            }
        }
        let is_old = self.snapshot_at.elapsed() >= SNAPSHOT_EVERY && is_harvesting(job.state);
        let needs_snapshot =
            is_old || self.seen.is_none() || new.iter().any(|event| ends_harvest(&event.kind));
        if !needs_snapshot && new.is_empty() && self.seen.as_ref().is_some_and(|seen| seen.state == job.state)
        {
            return Ok(None);
        }
        let (mut events, progress, snapshot) = match self.seen.take() {
            Some(seen) => (seen.events, Some(seen.progress), seen.snapshot),
            None => (VecDeque::new(), None, 0),
        };
        events.extend(new);
        events.drain(..events.len().saturating_sub(EVENTS_KEPT));
        let (progress, snapshot) = match progress.filter(|_| !needs_snapshot) {
            Some(progress) => (progress, snapshot),
            None => {
                self.snapshot_at = Instant::now();
                let batches = batches::of_job(&self.shared, &job).await.map_err(fail)?;
                let progress = plan::progress(&self.shared, &job, &batches).await.map_err(fail)?;
                (progress, snapshot.saturating_add(1))
            }
        };
        let seen = JobSeen { state: job.state, sequence: self.after, events, progress, snapshot };
        self.seen = Some(seen.clone());
        Ok(Some(Arc::new(seen)))
    }
}
