//! The one table of names that this system is watched by: metrics, their labels, and spans. Code emits by these constants;
//! documentation, dashboards, alerts and scalers are checked against them.
//!
//! Metrics follow Prometheus: the prefix `distillery_`, the unit in the name, counters end in `_total`. No label holds a
//! job, a prompt or a row: what concerns one job is read from the records.

/// What kind of series a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations, counted up to these bounds.
    Histogram(&'static [f64]),
}

/// Who emits a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Every process that serves.
    Process,
    /// A process with this role.
    Harvester,
    /// A process with this role.
    Trainer,
    /// A process with this role.
    Inference,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Who emits it.
    pub owner: Owner,
    /// Its name in Prometheus.
    pub name: &'static str,
    /// What kind of series it is.
    pub kind: Kind,
    /// The labels that every series of it has, in addition to those of the scrape.
    pub labels: &'static [&'static str],
    /// What it says, in one line.
    pub help: &'static str,
}

/// Seconds, from a millisecond to ten minutes.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];
/// Rows or requests of one batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The table: a constant for each metric, and all of them in order.
macro_rules! metrics {
    ($($owner:ident { $(#[doc = $help:literal] $constant:ident = $name:literal, $kind:expr, [$($label:literal),*];)+ })+) => {
        $($(#[doc = $help]
        pub const $constant: Metric = Metric {
            owner: Owner::$owner,
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            help: $help.trim_ascii(),
        };)+)+

        /// Every metric that this system emits.
        pub const METRICS: &[Metric] = &[$($($constant),+),+];
    };
}

metrics! {
    Process {
        /// Always 1; its labels say which build answers, and in which roles.
        BUILD_INFO = "distillery_build_info", Kind::Gauge, ["version", "roles"];
        /// Processor time of this process, in seconds.
        PROCESS_CPU = "distillery_process_cpu_seconds_total", Kind::Counter, [];
        /// Resident memory of this process, in bytes.
        PROCESS_MEMORY = "distillery_process_resident_memory_bytes", Kind::Gauge, [];
        /// Calls of this process's gRPC services that ended, by method and status code.
        RPC_REQUESTS = "distillery_rpc_requests_total", Kind::Counter, ["service", "method", "code"];
        /// Seconds from a call's headers to the end of its answer.
        RPC_DURATION = "distillery_rpc_duration_seconds", Kind::Histogram(SECONDS), ["service", "method"];
        /// Calls that are being answered.
        RPC_IN_FLIGHT = "distillery_rpc_in_flight_requests", Kind::Gauge, [];
    }

    Harvester {
        /// Calls to a teacher that ended, and lines of batches that were read, by outcome: ok, rate_limited, unavailable, malformed, refused, not_made (the budget had no room).
        TEACHER_REQUESTS = "distillery_teacher_requests_total", Kind::Counter, ["profile", "outcome"];
        /// Seconds of one call to a teacher.
        TEACHER_DURATION = "distillery_teacher_request_duration_seconds", Kind::Histogram(SECONDS), ["profile"];
        /// Calls to a teacher that are in flight.
        TEACHER_IN_FLIGHT = "distillery_teacher_in_flight_requests", Kind::Gauge, ["profile"];
        /// Times that a call had to wait before it was made, by reason: rate, day, concurrency, refused, failed, probe.
        TEACHER_WAITS = "distillery_teacher_waits_total", Kind::Counter, ["profile", "reason"];
        /// Part of the profile's limits a minute that is used, as refusals taught; 1 is all of them.
        TEACHER_RATE_FACTOR = "distillery_teacher_rate_factor_ratio", Kind::Gauge, ["profile"];
        /// Most calls in flight at once at present, over all replicas.
        TEACHER_CEILING = "distillery_teacher_concurrency_ceiling_requests", Kind::Gauge, ["profile"];
        /// Seconds that the teacher is not asked, because it refused or failed (the breaker is open while this is over 0).
        TEACHER_HELD = "distillery_teacher_held_seconds", Kind::Gauge, ["profile"];
        /// Tokens that a teacher counted, by direction: in, out.
        TEACHER_TOKENS = "distillery_teacher_tokens_total", Kind::Counter, ["profile", "direction"];
        /// Cost of the calls, in millionths of the teacher's currency.
        TEACHER_COST = "distillery_teacher_cost_micros_total", Kind::Counter, ["profile"];
        /// Batches at a provider, by what happened to them: submitted, completed, expired, cancelled, refused, released (never submitted), in_doubt.
        BATCHES = "distillery_batches_total", Kind::Counter, ["event"];
        /// Lines of batches that ended without an answer of their own: the batch expired, was cancelled, or its results lack them.
        BATCH_LINES_UNANSWERED = "distillery_batch_lines_unanswered_total", Kind::Counter, [];
        /// Answers that were written to the ledger, by provisional verdict and whether they came from the store of completions.
        PROMPTS_HARVESTED = "distillery_prompts_harvested_total", Kind::Counter, ["verdict", "cached"];
        /// Prompts that were not answered at an attempt, by what became of them: delayed, counted, paused.
        PROMPTS_FAILED = "distillery_prompts_failed_total", Kind::Counter, ["outcome"];
        /// Answers that came after their lease was lost, and changed nothing.
        PROMPTS_STALE = "distillery_prompts_stale_total", Kind::Counter, [];
        /// Seconds of one write of answers.
        HARVEST_WRITE_DURATION = "distillery_harvest_write_duration_seconds", Kind::Histogram(SECONDS), [];
        /// Answers of one write.
        HARVEST_WRITE_ROWS = "distillery_harvest_write_rows", Kind::Histogram(ROWS), [];
        /// Entries of the queue, waiting and delivered.
        QUEUE_ENTRIES = "distillery_queue_entries", Kind::Gauge, [];
        /// Entries that were published to the queue, by who did: relay, reconciler.
        QUEUE_PUBLISHED = "distillery_queue_published_total", Kind::Counter, ["by"];
    }

    Trainer {
        /// Whether a run is being trained here: 0 or 1.
        TRAINING_ACTIVE = "distillery_training_active_runs", Kind::Gauge, [];
        /// Optimiser steps.
        TRAINING_STEPS = "distillery_training_steps_total", Kind::Counter, [];
        /// Examples that were trained on.
        TRAINING_EXAMPLES = "distillery_training_examples_total", Kind::Counter, [];
        /// Seconds of one optimiser step.
        TRAINING_STEP_DURATION = "distillery_training_step_duration_seconds", Kind::Histogram(SECONDS), [];
        /// Loss of the newest step, by task: label, rationale.
        TRAINING_LOSS = "distillery_training_loss_nats", Kind::Gauge, ["task"];
        /// Runs that ended here, by outcome: succeeded, failed, released, cancelled, lost.
        TRAINING_RUNS = "distillery_training_runs_total", Kind::Counter, ["outcome"];
        /// Seconds of writing a checkpoint, by kind: resume, model.
        CHECKPOINT_DURATION = "distillery_checkpoint_write_duration_seconds", Kind::Histogram(SECONDS), ["kind"];
    }

    Inference {
        /// Requests that the engine answered or gave up, by task (score, text) and outcome: ok, deadline, cancelled, failed.
        INFERENCE_REQUESTS = "distillery_inference_requests_total", Kind::Counter, ["task", "outcome"];
        /// Requests that were not admitted, by reason: overloaded, draining.
        INFERENCE_REFUSALS = "distillery_inference_refusals_total", Kind::Counter, ["reason"];
        /// Tokens that admitted requests hold: those that they read, and those that they may write.
        INFERENCE_QUEUE_TOKENS = "distillery_inference_queue_tokens", Kind::Gauge, [];
        /// Seconds from admission to the first step.
        INFERENCE_QUEUE_DURATION = "distillery_inference_queue_duration_seconds", Kind::Histogram(SECONDS), [];
        /// Seconds from admission to the first token.
        INFERENCE_FIRST_TOKEN = "distillery_inference_time_to_first_token_seconds", Kind::Histogram(SECONDS), [];
        /// Seconds from admission to the end.
        INFERENCE_DURATION = "distillery_inference_request_duration_seconds", Kind::Histogram(SECONDS), ["task"];
        /// Rows of one step.
        INFERENCE_BATCH_ROWS = "distillery_inference_batch_rows", Kind::Histogram(ROWS), [];
        /// Tokens read and written, by direction: in, out.
        INFERENCE_TOKENS = "distillery_inference_tokens_total", Kind::Counter, ["direction"];
        /// Source positions of batches that held padding.
        INFERENCE_PADDING = "distillery_inference_padding_tokens_total", Kind::Counter, [];
        /// Questions whose answers may be kept, by whether they were: hit, miss.
        INFERENCE_CACHE = "distillery_inference_cache_lookups_total", Kind::Counter, ["outcome"];
        /// Models that are served.
        INFERENCE_MODELS = "distillery_inference_models", Kind::Gauge, [];
        /// Loads of published models, by outcome: ok, failed.
        INFERENCE_LOADS = "distillery_inference_model_loads_total", Kind::Counter, ["outcome"];
    }
}

/// Values of labels that are known beforehand: their series stand at zero from a process's start.
pub mod value {
    /// `outcome` of [`super::TEACHER_REQUESTS`].
    pub const TEACHER_OUTCOMES: &[&str] =
        &["ok", "rate_limited", "unavailable", "malformed", "refused", "not_made"];
    /// `reason` of [`super::TEACHER_WAITS`].
    pub const TEACHER_WAIT_REASONS: &[&str] = &["rate", "day", "concurrency", "refused", "failed", "probe"];
    /// `direction` of tokens.
    pub const DIRECTIONS: &[&str] = &["in", "out"];
    /// `cached` of [`super::PROMPTS_HARVESTED`].
    pub const CACHED: &[&str] = &["false", "true"];
    /// `event` of [`super::BATCHES`].
    pub const BATCH_EVENTS: &[&str] =
        &["submitted", "completed", "expired", "cancelled", "refused", "released", "in_doubt"];
    /// `outcome` of [`super::PROMPTS_FAILED`].
    pub const PROMPT_FAILURES: &[&str] = &["delayed", "counted", "paused"];
    /// `by` of [`super::QUEUE_PUBLISHED`].
    pub const PUBLISHERS: &[&str] = &["relay", "reconciler"];
    /// `task` of [`super::TRAINING_LOSS`].
    pub const LOSSES: &[&str] = &["label", "rationale"];
    /// `outcome` of [`super::TRAINING_RUNS`].
    pub const RUN_OUTCOMES: &[&str] = &["succeeded", "failed", "released", "cancelled", "lost"];
    /// `kind` of [`super::CHECKPOINT_DURATION`].
    pub const CHECKPOINTS: &[&str] = &["resume", "model"];
    /// `task` of what the engine is asked.
    pub const INFERENCE_TASKS: &[&str] = &["score", "text"];
    /// `outcome` of [`super::INFERENCE_REQUESTS`].
    pub const INFERENCE_OUTCOMES: &[&str] = &["ok", "deadline", "cancelled", "failed"];
    /// `reason` of [`super::INFERENCE_REFUSALS`].
    pub const REFUSALS: &[&str] = &["overloaded", "draining"];
    /// `outcome` of [`super::INFERENCE_LOADS`].
    pub const LOADS: &[&str] = &["ok", "failed"];
    /// `outcome` of [`super::INFERENCE_CACHE`].
    pub const LOOKUPS: &[&str] = &["hit", "miss"];
}

/// Spans, by name. Only these leave the process; their attributes hold ids and counts, never text of a row, a prompt or an
/// answer, and no secret.
pub mod span {
    /// One command of the command line, from its start to its end.
    pub const COMMAND: &str = "command";
    /// A call, at the client's side.
    pub const CLIENT: &str = "rpc.client";
    /// A call, at the server's side.
    pub const SERVER: &str = "rpc.server";
    /// From a job's submission to its planned prompts.
    pub const PLAN: &str = "distillation.plan";
    /// One prompt: leased, asked, judged.
    pub const HARVEST: &str = "prompt.harvest";
    /// One call to a teacher, by the GenAI conventions.
    pub const CHAT: &str = "chat";
    /// One write of answers.
    pub const WRITE: &str = "harvest.write";
    /// One training, from its lease to its end.
    pub const RUN: &str = "run.train";
    /// One checkpoint that is written.
    pub const CHECKPOINT: &str = "checkpoint.write";
    /// One published model that is loaded to be served.
    pub const LOAD: &str = "model.load";
    /// One request in the engine, from admission to its end.
    pub const ANSWER: &str = "inference.answer";

    /// Every span that this system opens.
    pub const SPANS: &[&str] =
        &[COMMAND, CLIENT, SERVER, PLAN, HARVEST, CHAT, WRITE, RUN, CHECKPOINT, LOAD, ANSWER];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let units = [
            "_seconds",
            "_bytes",
            "_ratio",
            "_rows",
            "_tokens",
            "_nats",
            "_requests",
            "_runs",
            "_entries",
            "_models",
        ];
        for metric in METRICS {
            let name = metric.name;
            let bare = name.strip_suffix("_total").unwrap_or(name);
            assert!(name.starts_with("distillery_"), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            let has_unit = metric.kind == Kind::Counter
                || name == BUILD_INFO.name
                || units.iter().any(|unit| bare.ends_with(unit));
            assert!(has_unit, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn no_name_stands_twice() {
        let names: std::collections::BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }
}
