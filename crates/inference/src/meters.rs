//! What is counted of serving.

use domain::telemetry::{self, value};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::{Duration, Instant};

/// Every series, at zero, and those of the engine.
#[derive(Clone)]
pub(crate) struct Meters {
    queue_tokens: Gauge,
    queue_seconds: Histogram,
    first_token: Histogram,
    batch_rows: Histogram,
    tokens_in: Counter,
    tokens_out: Counter,
    padding: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        for task in value::INFERENCE_TASKS {
            for outcome in value::INFERENCE_OUTCOMES {
                requests(task, outcome).increment(0);
            }
            drop(seconds(task));
        }
        for reason in value::REFUSALS {
            counter!(telemetry::INFERENCE_REFUSALS.name, "reason" => *reason).increment(0);
        }
        for outcome in value::LOADS {
            counter!(telemetry::INFERENCE_LOADS.name, "outcome" => *outcome).increment(0);
        }
        models(0);
        let tokens =
            |direction: &'static str| counter!(telemetry::INFERENCE_TOKENS.name, "direction" => direction);
        Self {
            queue_tokens: gauge!(telemetry::INFERENCE_QUEUE_TOKENS.name),
            queue_seconds: histogram!(telemetry::INFERENCE_QUEUE_DURATION.name),
            first_token: histogram!(telemetry::INFERENCE_FIRST_TOKEN.name),
            batch_rows: histogram!(telemetry::INFERENCE_BATCH_ROWS.name),
            tokens_in: tokens("in"),
            tokens_out: tokens("out"),
            padding: counter!(telemetry::INFERENCE_PADDING.name),
        }
    }

    /// Requests hold so many tokens.
    pub(crate) fn held(&self, tokens: usize) {
        self.queue_tokens.set(tokens as f64);
    }

    /// A request that was admitted then left the queue.
    pub(crate) fn left_queue(&self, admitted: Instant) {
        self.queue_seconds.record(admitted.elapsed().as_secs_f64());
    }

    /// A step of so many rows; those that joined have these lengths, and so many tokens are read for them.
    pub(crate) fn step(&self, rows: usize, joined: &[usize], read: usize) {
        let tokens: usize = joined.iter().sum();
        self.batch_rows.record(rows as f64);
        self.tokens_in.increment(tokens as u64);
        self.padding.increment(read.saturating_sub(tokens) as u64);
    }

    /// A request that was admitted then has its first token.
    pub(crate) fn first_token(&self, admitted: Instant) {
        self.first_token.record(admitted.elapsed().as_secs_f64());
    }

    /// So many tokens were written.
    pub(crate) fn wrote(&self, tokens: usize) {
        self.tokens_out.increment(tokens as u64);
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    Ok,
    Deadline,
    /// Its caller left.
    Cancelled,
    Failed,
}

impl RequestOutcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

fn requests(task: &'static str, outcome: &'static str) -> Counter {
    counter!(telemetry::INFERENCE_REQUESTS.name, "task" => task, "outcome" => outcome)
}

fn seconds(task: &'static str) -> Histogram {
    histogram!(telemetry::INFERENCE_DURATION.name, "task" => task)
}

/// A request is over.
pub(crate) fn ended(task: &'static str, outcome: RequestOutcome, took: Duration) {
    requests(task, outcome.name()).increment(1);
    seconds(task).record(took.as_secs_f64());
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    Overloaded,
    Draining,
}

impl RefusalReason {
    fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// A request was not admitted.
pub(crate) fn refused(why: RefusalReason) {
    counter!(telemetry::INFERENCE_REFUSALS.name, "reason" => why.name()).increment(1);
}

/// So many models are served.
pub(crate) fn models(count: usize) {
    gauge!(telemetry::INFERENCE_MODELS.name).set(count as f64);
}

/// A published model was loaded, or could not be.
pub(crate) fn loaded(is_served: bool) {
    let outcome = if is_served { "ok" } else { "failed" };
    counter!(telemetry::INFERENCE_LOADS.name, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_values_of_the_table() {
        let outcomes =
            [RequestOutcome::Ok, RequestOutcome::Deadline, RequestOutcome::Cancelled, RequestOutcome::Failed]
                .map(RequestOutcome::name);
        assert_eq!(outcomes.as_slice(), value::INFERENCE_OUTCOMES);
        let refusals = [RefusalReason::Overloaded, RefusalReason::Draining].map(RefusalReason::name);
        assert_eq!(refusals.as_slice(), value::REFUSALS);
        assert_eq!(value::LOADS, ["ok", "failed"]);
        assert_eq!(value::LOOKUPS, ["hit", "miss"]);
        assert_eq!(value::DIRECTIONS, ["in", "out"]);
    }
}
