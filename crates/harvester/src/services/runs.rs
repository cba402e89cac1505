//! Runs: leased, fed, reported on and published.

use super::{Answer, Stream, fail, id, stream};
use crate::Shared;
use domain::event::EventKind;
use domain::ids::RunId;
use domain::metric::Accuracy;
use domain::records::{MetricPoint, NewModel};
use domain::{Split, Violation};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use wire::v1;
use wire::v1::runs_service_server::RunsService;

/// Shortest and longest lease that a trainer may ask for.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(600);
/// Most numbers of one report.
const REPORT_METRICS_MAX: usize = 1_000;
/// Most numbers of one answer.
const METRICS_MAX: usize = 100_000;
/// Rows of one chunk for a trainer.
const CHUNK_ROWS: usize = 500;

pub(super) struct Runs(pub(super) Arc<Shared>);

fn lease(span: Option<prost_types::Duration>) -> Result<Duration, Status> {
    wire::duration_of("lease", span, LEASE_MIN, LEASE_MAX).map_err(wire::invalid)
}

fn accuracy(field: &str, accuracy: Option<v1::Accuracy>) -> Result<Option<Accuracy>, Status> {
    let read = |accuracy| wire::under(field, Accuracy::try_from(accuracy)).map_err(wire::invalid);
    accuracy.map(read).transpose()
}

#[tonic::async_trait]
impl RunsService for Runs {
    async fn lease_run(&self, request: Request<v1::LeaseRunRequest>) -> Answer<v1::LeaseRunResponse> {
        let request = request.into_inner();
        if request.trainer.is_empty() || request.trainer.len() > 256 {
            return Err(wire::invalid(vec![Violation::new("trainer", "must have 1 to 256 bytes")]));
        }
        let leased =
            self.0.stores.runs.lease_run(&request.trainer, lease(request.lease)?).await.map_err(fail)?;
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
        self.0.stores.runs.run(run).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(move |sink| async move {
            let mut from = request.from_index;
            loop {
                let examples =
                    shared.stores.runs.training_examples(run, split, from, CHUNK_ROWS).await.map_err(fail)?;
                let Some(last) = examples.last() else { return Ok(()) };
                from = last.row.index + 1;
                let examples = examples.into_iter().map(Into::into).collect();
                if !sink.send(v1::StreamExamplesResponse { examples }).await {
                    return Ok(());
                }
            }
        })))
    }

    async fn report_run(&self, request: Request<v1::ReportRunRequest>) -> Answer<v1::ReportRunResponse> {
        let request = request.into_inner();
        let id: RunId = id("run_id", &request.run_id)?;
        if request.metrics.len() > REPORT_METRICS_MAX {
            let words = format!("has more than {REPORT_METRICS_MAX} entries: report more often");
            return Err(wire::invalid(vec![Violation::new("metrics", words)]));
        }
        let lease = lease(request.lease)?;
        let points: Vec<MetricPoint> = request.metrics.into_iter().map(Into::into).collect();
        let latest: Vec<(String, f64)> = points
            .iter()
            .filter(|point| Some(point.step) == points.last().map(|last| last.step))
            .map(|point| (point.name.clone(), point.value))
            .collect();
        let stores = &self.0.stores;
        let instruction =
            stores.runs.report_run(id, request.fence, request.step, points, lease).await.map_err(fail)?;
        let run = stores.runs.run(id).await.map_err(fail)?;
        if let Some(evaluation) = request.evaluation {
            let split = wire::filter::<Split>("evaluation.split", evaluation.split).map_err(wire::invalid)?;
            if let (Some(split), Some(accuracy)) = (split, accuracy("evaluation", evaluation.accuracy)?) {
                let split = split.to_string();
                let event = EventKind::Evaluated { run: id, step: evaluation.step, split, accuracy };
                stores.jobs.append_event(run.distillation, event).await.map_err(fail)?;
            }
        }
        if !latest.is_empty() {
            let steps = self.0.jobs.get(&self.0, run.distillation).await?.spec.training.steps;
            let steps = u64::from(steps);
            let event = EventKind::TrainingProgress { run: id, step: request.step, steps, metrics: latest };
            stores.jobs.append_event(run.distillation, event).await.map_err(fail)?;
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
        let model = NewModel {
            validation: accuracy("validation", request.validation)?,
            test: accuracy("test", request.test)?,
            path: request.path,
            manifest_sha256: request.manifest_sha256,
            parameters: request.parameters,
            train_seconds: request.train_seconds,
            evaluate_seconds: request.evaluate_seconds,
        };
        let model = self.0.stores.runs.publish_run(run, request.fence, model).await.map_err(fail)?;
        Ok(Response::new(v1::PublishRunResponse { model: Some(model.into()) }))
    }

    async fn fail_run(&self, request: Request<v1::FailRunRequest>) -> Answer<v1::FailRunResponse> {
        let request = request.into_inner();
        let run = id("run_id", &request.run_id)?;
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
