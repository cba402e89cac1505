//! What is counted of training.

use crate::step::Losses;
use domain::telemetry::{self, value};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::{Duration, Instant};

/// Every series, at zero.
pub(crate) fn register() {
    for outcome in value::RUN_OUTCOMES {
        counter!(telemetry::TRAINING_RUNS.name, "outcome" => *outcome).increment(0);
    }
    for kind in value::CHECKPOINTS {
        drop(histogram!(telemetry::CHECKPOINT_DURATION.name, "kind" => *kind));
    }
    active().set(0.0);
    drop(Steps::new());
}

/// The series of optimiser steps, looked up once a run.
pub(crate) struct Steps {
    steps: Counter,
    examples: Counter,
    seconds: Histogram,
    label: Gauge,
    rationale: Gauge,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let loss = |task: &'static str| gauge!(telemetry::TRAINING_LOSS.name, "task" => task);
        Self {
            steps: counter!(telemetry::TRAINING_STEPS.name),
            examples: counter!(telemetry::TRAINING_EXAMPLES.name),
            seconds: histogram!(telemetry::TRAINING_STEP_DURATION.name),
            label: loss("label"),
            rationale: loss("rationale"),
        }
    }

    /// A step over so many examples is done.
    pub(crate) fn count(&self, examples: usize, losses: &Losses, took: Duration) {
        self.steps.increment(1);
        self.examples.increment(examples as u64);
        self.seconds.record(took.as_secs_f64());
        if let Some(loss) = losses.label {
            self.label.set(loss);
        }
        if let Some(loss) = losses.rationale {
            self.rationale.set(loss);
        }
    }
}

/// How a run ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
    Released,
    Cancelled,
    Lost,
}

impl Ended {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// A run is at hand until what is returned is dropped.
pub(crate) fn begin() -> Active {
    active().set(1.0);
    Active
}

fn active() -> Gauge {
    gauge!(telemetry::TRAINING_ACTIVE.name)
}

/// See [`begin`].
pub(crate) struct Active;

impl Drop for Active {
    fn drop(&mut self) {
        active().set(0.0);
    }
}

/// A run ended.
pub(crate) fn ended(how: Ended) {
    counter!(telemetry::TRAINING_RUNS.name, "outcome" => how.name()).increment(1);
}

/// A checkpoint that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// What a run resumes from.
    Resume,
    /// What is published.
    Model,
}

impl Checkpoint {
    fn name(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Model => "model",
        }
    }

    /// Writes it by `write`, in a span of its own.
    pub(crate) fn written<T, E>(self, write: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let kind = self.name();
        let span = tracing::info_span!(
            telemetry::span::CHECKPOINT,
            distillery.kind = kind,
            otel.status_code = tracing::field::Empty
        );
        let began = Instant::now();
        let written = span.in_scope(write);
        if written.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        histogram!(telemetry::CHECKPOINT_DURATION.name, "kind" => kind).record(began.elapsed().as_secs_f64());
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_values_of_the_table() {
        let ends = [Ended::Succeeded, Ended::Failed, Ended::Released, Ended::Cancelled, Ended::Lost];
        assert_eq!(ends.map(Ended::name).as_slice(), value::RUN_OUTCOMES);
        assert_eq!(
            [Checkpoint::Resume, Checkpoint::Model].map(Checkpoint::name).as_slice(),
            value::CHECKPOINTS
        );
        assert_eq!(value::LOSSES, ["label", "rationale"]);
    }
}
