//! Runs: created, listed, leased, fed, reported on and published.

use super::respond::{Answer, CHUNK_ROWS, Stream, check_bytes, fail, fitted, id, page, stream};
use crate::runs::{self, Examples};
use crate::shared::Shared;
use domain::event::EventKind;
use domain::ids::RunId;
use domain::lifecycle::RunInstruction;
use domain::metric::Accuracy;
use domain::records::{MetricPoint, Run};
use domain::{Split, Violation};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use wire::v1;
use wire::v1::runs_service_server::RunsService;

/// Shortest and longest lease that a trainer may ask for.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(600);
/// Most metrics of one report.
const REPORT_METRICS_MAX: usize = 1_000;
/// Most metrics of one answer.
const METRICS_MAX: usize = 100_000;

pub(super) struct Runs(pub(super) Arc<Shared>);

fn lease(span: Option<prost_types::Duration>) -> Result<Duration, Status> {
    wire::duration_of("lease", span, LEASE_MIN, LEASE_MAX).map_err(wire::invalid)
}

/// A measurement: after which step, on which rows, what. One without rows or result says nothing.
type Evaluation = (u64, Split, Accuracy);

fn evaluation(message: v1::RunEvaluation) -> Result<Option<Evaluation>, Status> {
    let split = wire::filter::<Split>("evaluation.split", message.split).map_err(wire::invalid)?;
    let read = |accuracy| wire::under("evaluation", Accuracy::try_from(accuracy)).map_err(wire::invalid);
    let accuracy = message.accuracy.map(read).transpose()?;
    Ok(split.zip(accuracy).map(|(split, accuracy)| (message.step, split, accuracy)))
}

impl Runs {
    /// Appends what a trainer reported of a job's final run to the events of the job.
    async fn append_events(
        &self,
        run: &Run,
        step: u64,
        metrics: Vec<(String, f64)>,
        evaluation: Option<Evaluation>,
    ) -> Result<(), Status> {
        let jobs = &self.0.stores.jobs;
        if let Some((step, split, accuracy)) = evaluation {
            let event = EventKind::Evaluated { run: run.id, step, split: split.to_string(), accuracy };
            jobs.append_event(run.distillation, event).await.map_err(fail)?;
        }
        if !metrics.is_empty() {
            let steps = u64::from(run.plan.training.steps);
            let event = EventKind::TrainingProgress { run: run.id, step, steps, metrics };
            jobs.append_event(run.distillation, event).await.map_err(fail)?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl RunsService for Runs {
    async fn create_run(&self, request: Request<v1::CreateRunRequest>) -> Answer<v1::CreateRunResponse> {
        let request = request.into_inner();
        let (draft, mut mistakes) = wire::run_draft(request.plan.unwrap_or_default());
        let request_id = wire::id("request_id", &request.request_id);
        let job = wire::id("distillation_id", &request.distillation_id);
        mistakes.extend(request_id.as_ref().err().into_iter().chain(job.as_ref().err()).flatten().cloned());
        let job = job.map_err(|_| wire::invalid(mistakes.clone()))?;
        let (job, plan) = runs::plan(&self.0, job, draft, mistakes).await?;
        let run = runs::create(&self.0, request_id.map_err(wire::invalid)?, job, plan).await?;
        Ok(Response::new(v1::CreateRunResponse { run: Some(run.into()) }))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Answer<v1::ListRunsResponse> {
        let request = request.into_inner();
        let job = id("distillation_id", &request.distillation_id)?;
        let stores = &self.0.stores;
        stores.jobs.distillation(job).await.map_err(fail)?;
        let read = |page| async move { stores.runs.list_runs(job, &page).await };
        let (runs, next_page_token) = fitted(page(request.page), read).await?;
        Ok(Response::new(v1::ListRunsResponse { runs, next_page_token }))
    }

    async fn lease_run(&self, request: Request<v1::LeaseRunRequest>) -> Answer<v1::LeaseRunResponse> {
        let request = request.into_inner();
        if request.trainer.is_empty() || request.trainer.len() > 256 {
            return Err(wire::invalid(vec![Violation::new("trainer", "must have 1 to 256 bytes")]));
        }
        let lost_max = self.0.settings.lost_trainers_max;
        let lease = lease(request.lease)?;
        let leased = self.0.stores.runs.lease_run(&request.trainer, lease, lost_max).await.map_err(fail)?;
        Ok(Response::new(v1::LeaseRunResponse { leased: leased.map(Into::into) }))
    }

    type StreamExamplesStream = Stream<v1::StreamExamplesResponse>;

    async fn stream_examples(
        &self,
        request: Request<v1::StreamExamplesRequest>,
    ) -> Answer<Self::StreamExamplesStream> {
        let request = request.into_inner();
        let run: RunId = id("run_id", &request.run_id)?;
        let split = wire::filter::<Split>("split", request.split).map_err(wire::invalid)?;
        let split = wire::present("split", split).map_err(wire::invalid)?;
        let run = self.0.stores.runs.run(run).await.map_err(fail)?;
        let job = self.0.stores.jobs.distillation(run.distillation).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(move |sink| async move {
            let mut examples =
                Examples::open(&shared, &job, &run.plan, split, request.from_index).await.map_err(fail)?;
            while let Some(chunk) = examples.next(CHUNK_ROWS).await.map_err(fail)? {
                let examples = chunk.into_iter().map(Into::into).collect();
                if !sink.send_all(examples, |examples| v1::StreamExamplesResponse { examples }).await {
                    return Ok(());
                }
            }
            Ok(())
        })))
    }

    async fn report_run(&self, request: Request<v1::ReportRunRequest>) -> Answer<v1::ReportRunResponse> {
        let request = request.into_inner();
        let id: RunId = id("run_id", &request.run_id)?;
        if request.metrics.len() > REPORT_METRICS_MAX {
            let words = format!("has more than {REPORT_METRICS_MAX} entries: report more often");
            return Err(wire::invalid(vec![Violation::new("metrics", words)]));
        }
        for (place, point) in request.metrics.iter().enumerate() {
            check_bytes(&format!("metrics[{place}].name"), point.name.len(), wire::METRIC_BYTES_MAX)?;
        }
        let lease = lease(request.lease)?;
        let points: Vec<MetricPoint> = request.metrics.into_iter().map(Into::into).collect();
        let latest: Vec<(String, f64)> = points
            .iter()
            .filter(|point| Some(point.step) == points.last().map(|last| last.step))
            .map(|point| (point.name.clone(), point.value))
            .collect();
        let evaluation = request.evaluation.map(evaluation).transpose()?.flatten();
        let stores = &self.0.stores;
        let instruction =
            stores.runs.report_run(id, request.fence, request.step, points, lease).await.map_err(fail)?;
        if instruction == RunInstruction::Continue {
            let run = stores.runs.run(id).await.map_err(fail)?;
            // Only the final run is part of its job's life; the numbers of another are found by its id.
            if run.plan.purpose.is_final() {
                self.append_events(&run, request.step, latest, evaluation).await?;
            }
        }
        let instruction = v1::RunInstruction::from(instruction).into();
        Ok(Response::new(v1::ReportRunResponse { instruction }))
    }

    async fn save_resume_point(
        &self,
        request: Request<v1::SaveResumePointRequest>,
    ) -> Answer<v1::SaveResumePointResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        check_bytes("path", request.path.len(), wire::PATH_BYTES_MAX)?;
        let orphaned = self
            .0
            .stores
            .runs
            .save_resume_point(run, request.fence, request.step, &request.path)
            .await
            .map_err(fail)?;
        Ok(Response::new(v1::SaveResumePointResponse { orphaned_path: orphaned.unwrap_or_default() }))
    }

    async fn start_evaluating(
        &self,
        request: Request<v1::StartEvaluatingRequest>,
    ) -> Answer<v1::StartEvaluatingResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        self.0.stores.runs.start_evaluating(run, request.fence).await.map_err(fail)?;
        Ok(Response::new(v1::StartEvaluatingResponse {}))
    }

    async fn publish_run(&self, request: Request<v1::PublishRunRequest>) -> Answer<v1::PublishRunResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        let result = wire::present("result", request.result).map_err(wire::invalid)?;
        check_bytes("result.path", result.path.len(), wire::PATH_BYTES_MAX)?;
        check_bytes("result.manifest_sha256", result.manifest_sha256.len(), wire::PATH_BYTES_MAX)?;
        let result = wire::under("result", result.try_into()).map_err(wire::invalid)?;
        let outcomes = wire::under("outcomes", request.outcomes.unwrap_or_default().try_into());
        let outcomes = outcomes.map_err(wire::invalid)?;
        let model =
            self.0.stores.runs.publish_run(run, request.fence, result, outcomes).await.map_err(fail)?;
        // A job may wait for what its probe came to.
        self.0.changed.notify_waiters();
        Ok(Response::new(v1::PublishRunResponse { model: model.map(Into::into) }))
    }

    async fn fail_run(&self, request: Request<v1::FailRunRequest>) -> Answer<v1::FailRunResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        check_bytes("reason", request.reason.len(), wire::REASON_BYTES_MAX)?;
        self.0.stores.runs.fail_run(run, request.fence, &request.reason).await.map_err(fail)?;
        Ok(Response::new(v1::FailRunResponse {}))
    }

    async fn release_run(&self, request: Request<v1::ReleaseRunRequest>) -> Answer<v1::ReleaseRunResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        self.0.stores.runs.release_run(run, request.fence).await.map_err(fail)?;
        Ok(Response::new(v1::ReleaseRunResponse {}))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Answer<v1::GetRunResponse> {
        let run = id("run_id", &request.into_inner().run_id)?;
        let run = self.0.stores.runs.run(run).await.map_err(fail)?;
        Ok(Response::new(v1::GetRunResponse { run: Some(run.into()) }))
    }

    async fn list_metrics(
        &self,
        request: Request<v1::ListMetricsRequest>,
    ) -> Answer<v1::ListMetricsResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
        let name = (!request.name.is_empty()).then_some(request.name.as_str());
        let metrics = self.0.stores.runs.metrics(run, name, METRICS_MAX).await.map_err(fail)?;
        Ok(Response::new(v1::ListMetricsResponse { metrics: metrics.into_iter().map(Into::into).collect() }))
    }
}
