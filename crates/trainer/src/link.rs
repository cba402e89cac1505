//! The trainer's line to the harvester, from the training thread: every call carries the fence of the lease.

use crate::{Settings, TrainError};
use domain::Split;
use domain::metric::Accuracy;
use domain::objective::TrainingExample;
use domain::records::{LeasedRun, MetricPoint, Model};
use domain::run::{RunOutcomes, RunResult};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wire::v1::runs_service_client::RunsServiceClient;
use wire::{Channel, v1};

/// How often a call is tried at least while the harvester is away. It is tried for as long as the lease surely holds.
const CALL_ATTEMPTS: u32 = 5;
const CALL_BACKOFF: Duration = Duration::from_millis(200);
const CALL_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Asks for a run.
pub(crate) async fn lease(settings: &Settings, channel: Channel) -> Result<Option<LeasedRun>, TrainError> {
    let request = wire::lease_request(&settings.name, settings.lease);
    let answer = client(channel).lease_run(request).await.map_err(|status| TrainError::call(&status))?;
    answer.into_inner().leased.map(TryInto::try_into).transpose().map_err(malformed)
}

fn client(channel: Channel) -> RunsServiceClient<Channel> {
    RunsServiceClient::new(channel)
        .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(wire::MESSAGE_BYTES_MAX)
}

fn malformed(violations: Vec<domain::Violation>) -> TrainError {
    let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
    TrainError::Internal(format!("the harvester's answer cannot be read: {}", words.join("; ")))
}

/// Until when a lease holds that began after `from`, whatever a last call takes.
fn surely(from: Instant, lease: Duration) -> Instant {
    from + lease.saturating_sub(lease / 5)
}

/// The line of one leased run.
pub(crate) struct Link {
    client: RunsServiceClient<Channel>,
    runtime: Handle,
    run_id: String,
    fence: u64,
    lease: Duration,
    /// Until then nobody else can have the run: shortly before the lease ends, by this clock.
    held_until: Instant,
    report_every: Duration,
    reported: Instant,
    step: u64,
    points: Vec<MetricPoint>,
    shutdown: CancellationToken,
}

macro_rules! call {
    ($link:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let mut attempt = 1;
        loop {
            match $link.runtime.block_on($link.client.$method(request.clone())) {
                Ok(answer) => break Ok(answer.into_inner()),
                Err(status) => match TrainError::call(&status) {
                    TrainError::Unavailable(_) if $link.is_patient(attempt) => {
                        std::thread::sleep((CALL_BACKOFF * attempt).min(CALL_BACKOFF_MAX));
                        attempt += 1;
                    }
                    error => break Err(error),
                },
            }
        }
    }};
}

impl Link {
    pub(crate) fn new(
        settings: &Settings,
        channel: Channel,
        leased: &LeasedRun,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            client: client(channel),
            runtime: Handle::current(),
            run_id: leased.run.id.to_string(),
            fence: leased.run.fence,
            lease: settings.lease,
            held_until: surely(Instant::now(), settings.lease),
            report_every: settings.report_every,
            reported: Instant::now(),
            step: leased.run.step,
            points: Vec::new(),
            shutdown,
        }
    }

    /// Whether a call is tried once more that was tried so often: work of hours is not given up for a harvester that restarts.
    fn is_patient(&self, attempts: u32) -> bool {
        attempts < CALL_ATTEMPTS || Instant::now() < self.held_until && !self.is_interrupted()
    }

    pub(crate) fn run_id(&self) -> &str {
        &self.run_id
    }

    pub(crate) fn fence(&self) -> u64 {
        self.fence
    }

    /// Every row of a split with its accepted rationales, in order of index.
    pub(crate) fn examples(&mut self, split: Split) -> Result<Vec<TrainingExample>, TrainError> {
        let request = v1::StreamExamplesRequest {
            run_id: self.run_id.clone(),
            split: v1::Split::from(split).into(),
            from_index: 0,
        };
        let mut examples = Vec::new();
        let mut stream = call!(self, stream_examples, request)?;
        while let Some(chunk) =
            self.runtime.block_on(stream.message()).map_err(|status| TrainError::call(&status))?
        {
            for example in chunk.examples {
                examples.push(TrainingExample::try_from(example).map_err(malformed)?);
            }
        }
        self.beat()?;
        Ok(examples)
    }

    /// Notes numbers of a step; they are sent about every second.
    pub(crate) fn note(&mut self, step: u64, numbers: &[(&str, f64)]) -> Result<(), TrainError> {
        self.step = step;
        for (name, value) in numbers {
            self.points.push(MetricPoint { step, name: (*name).to_owned(), value: *value });
        }
        self.beat()
    }

    /// Whether numbers would be sent now: what costs time to measure is measured only then.
    pub(crate) fn is_due(&self) -> bool {
        self.reported.elapsed() >= self.report_every
    }

    /// Keeps the lease alive, and says whether to continue.
    pub(crate) fn beat(&mut self) -> Result<(), TrainError> {
        if self.is_due() { self.report(None) } else { Ok(()) }
    }

    /// Whether this process shuts down.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Sends what was noted, and a measurement of the student where there is one.
    pub(crate) fn report(&mut self, evaluation: Option<(u64, Split, Accuracy)>) -> Result<(), TrainError> {
        let request = v1::ReportRunRequest {
            run_id: self.run_id.clone(),
            fence: self.fence,
            step: self.step,
            metrics: std::mem::take(&mut self.points).into_iter().map(Into::into).collect(),
            lease: Some(wire::duration(self.lease)),
            evaluation: evaluation.map(|(step, split, accuracy)| v1::RunEvaluation {
                step,
                split: v1::Split::from(split).into(),
                accuracy: Some(accuracy.into()),
            }),
        };
        let asked = Instant::now();
        let answer: v1::ReportRunResponse = call!(self, report_run, request)?;
        // Counted from before the request: the lease began behind it.
        self.held_until = surely(asked, self.lease);
        self.reported = Instant::now();
        match answer.instruction() {
            v1::RunInstruction::Cancel => Err(TrainError::Cancelled),
            v1::RunInstruction::Continue | v1::RunInstruction::Unspecified => Ok(()),
        }
    }

    /// Points the run at its newest resume state; returns the path it pointed at before.
    pub(crate) fn save_resume_point(&mut self, step: u64, path: &str) -> Result<Option<String>, TrainError> {
        let request = v1::SaveResumePointRequest {
            run_id: self.run_id.clone(),
            fence: self.fence,
            step,
            path: path.to_owned(),
        };
        let answer: v1::SaveResumePointResponse = call!(self, save_resume_point, request)?;
        Ok((!answer.orphaned_path.is_empty()).then_some(answer.orphaned_path))
    }

    pub(crate) fn start_evaluating(&mut self) -> Result<(), TrainError> {
        let request = v1::StartEvaluatingRequest { run_id: self.run_id.clone(), fence: self.fence };
        call!(self, start_evaluating, request).map(|_: v1::StartEvaluatingResponse| ())
    }

    /// Commits a publication; returns the model that it is, of a job's final run.
    pub(crate) fn publish(
        &mut self,
        result: RunResult,
        outcomes: Option<RunOutcomes>,
    ) -> Result<Option<Model>, TrainError> {
        let request = v1::PublishRunRequest {
            run_id: self.run_id.clone(),
            fence: self.fence,
            result: Some(result.into()),
            outcomes: outcomes.map(Into::into),
        };
        let answer: v1::PublishRunResponse = call!(self, publish_run, request)?;
        answer.model.map(TryInto::try_into).transpose().map_err(malformed)
    }

    pub(crate) fn fail(&mut self, reason: &str) -> Result<(), TrainError> {
        let reason = wire::reason(reason);
        let request = v1::FailRunRequest { run_id: self.run_id.clone(), fence: self.fence, reason };
        call!(self, fail_run, request).map(|_: v1::FailRunResponse| ())
    }

    pub(crate) fn release(&mut self) -> Result<(), TrainError> {
        let request = v1::ReleaseRunRequest { run_id: self.run_id.clone(), fence: self.fence };
        call!(self, release_run, request).map(|_: v1::ReleaseRunResponse| ())
    }
}
