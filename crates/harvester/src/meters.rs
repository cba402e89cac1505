//! What is counted of harvesting.

use domain::ports::HarvestOutcome;
use domain::records::Harvested;
use domain::state::Verdict;
use domain::telemetry::{self, value};
use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// Every series, at zero.
pub(crate) fn register() {
    for verdict in Verdict::ALL {
        for cached in value::CACHED {
            counter!(telemetry::PROMPTS_HARVESTED.name, "verdict" => verdict.as_str(), "cached" => *cached)
                .increment(0);
        }
    }
    for outcome in value::PROMPT_FAILURES {
        counter!(telemetry::PROMPTS_FAILED.name, "outcome" => *outcome).increment(0);
    }
    for event in value::BATCH_EVENTS {
        counter!(telemetry::BATCHES.name, "event" => *event).increment(0);
    }
    counter!(telemetry::BATCH_LINES_UNANSWERED.name).increment(0);
    counter!(telemetry::PROMPTS_STALE.name).increment(0);
    for publisher in value::PUBLISHERS {
        counter!(telemetry::QUEUE_PUBLISHED.name, "by" => *publisher).increment(0);
    }
    drop(gauge!(telemetry::QUEUE_ENTRIES.name));
    drop(histogram!(telemetry::HARVEST_WRITE_DURATION.name));
    drop(histogram!(telemetry::HARVEST_WRITE_ROWS.name));
}

/// Answers were written.
pub(crate) fn written(harvested: &[Harvested], outcome: &HarvestOutcome, took: Duration) {
    histogram!(telemetry::HARVEST_WRITE_DURATION.name).record(took.as_secs_f64());
    histogram!(telemetry::HARVEST_WRITE_ROWS.name).record(harvested.len() as f64);
    counter!(telemetry::PROMPTS_STALE.name).increment(outcome.stale.len() as u64);
    for answer in harvested.iter().filter(|answer| !outcome.stale.contains(&answer.prompt)) {
        let cached = if answer.cached { "true" } else { "false" };
        counter!(telemetry::PROMPTS_HARVESTED.name, "verdict" => answer.verdict.as_str(), "cached" => cached)
            .increment(1);
    }
}

/// What happens to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchEvent {
    /// The provider has it.
    Submitted,
    /// Every line of it was worked on.
    Completed,
    /// Its time was over first.
    Expired,
    /// Its job stopped.
    Cancelled,
    /// The provider did not take it.
    Refused,
    /// Its job stopped before it was submitted.
    Released,
    /// Nobody can tell whether it is asked.
    InDoubt,
}

impl BatchEvent {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Released => "released",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// Something happened to a batch.
pub(crate) fn batch(event: BatchEvent) {
    counter!(telemetry::BATCHES.name, "event" => event.name()).increment(1);
}

/// Lines of a batch ended without an answer of their own.
pub(crate) fn batch_lines_unanswered(lines: u64) {
    counter!(telemetry::BATCH_LINES_UNANSWERED.name).increment(lines);
}

/// What became of a prompt that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It is tried again, and nothing is counted against it.
    Delayed,
    /// A failure is counted against it.
    Counted,
    /// Its job is paused for an operator.
    Paused,
}

impl NoAnswer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Counted => "counted",
            Self::Paused => "paused",
        }
    }
}

/// A prompt was not answered at an attempt.
pub(crate) fn unanswered(what: NoAnswer) {
    counter!(telemetry::PROMPTS_FAILED.name, "outcome" => what.name()).increment(1);
}

/// Who publishes entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publisher {
    /// It empties the outbox.
    Relay,
    /// It replaces what the queue lost.
    Reconciler,
}

impl Publisher {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reconciler => "reconciler",
        }
    }
}

/// Entries went to the queue.
pub(crate) fn published(by: Publisher, entries: usize) {
    counter!(telemetry::QUEUE_PUBLISHED.name, "by" => by.name()).increment(entries as u64);
}

/// Sets the number of entries on the queue.
pub(crate) fn entries(count: usize) {
    gauge!(telemetry::QUEUE_ENTRIES.name).set(count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_values_of_the_table() {
        let names = [NoAnswer::Delayed, NoAnswer::Counted, NoAnswer::Paused].map(NoAnswer::name);
        assert_eq!(names.as_slice(), value::PROMPT_FAILURES);
        let names = [Publisher::Relay, Publisher::Reconciler].map(Publisher::name);
        assert_eq!(names.as_slice(), value::PUBLISHERS);
        let events = [
            BatchEvent::Submitted,
            BatchEvent::Completed,
            BatchEvent::Expired,
            BatchEvent::Cancelled,
            BatchEvent::Refused,
            BatchEvent::Released,
            BatchEvent::InDoubt,
        ];
        assert_eq!(events.map(BatchEvent::name).as_slice(), value::BATCH_EVENTS);
    }
}
