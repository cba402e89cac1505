//! The metrics of calls to teachers.

use crate::Reply;
use crate::error::TeacherError;
use domain::ports::{Pace, WaitReason};
use domain::telemetry::{self, value};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the pace of a profile is shown.
const PACE_EVERY: Duration = Duration::from_secs(1);

/// The series of one profile, looked up once.
#[derive(Clone)]
pub(crate) struct Meters {
    profile: String,
    seconds: Histogram,
    in_flight: Gauge,
    tokens_in: Counter,
    tokens_out: Counter,
    cost: Counter,
    factor: Gauge,
    ceiling: Gauge,
    held: Gauge,
    paced: Arc<Mutex<Option<Instant>>>,
}

impl Meters {
    /// Every series of `profile`, at zero.
    pub(crate) fn new(profile: &str) -> Self {
        let profile = profile.to_owned();
        for outcome in value::TEACHER_OUTCOMES {
            requests(&profile, outcome).increment(0);
        }
        for reason in WaitReason::ALL {
            waits(&profile, reason).increment(0);
        }
        let tokens = |direction: &'static str| counter!(telemetry::TEACHER_TOKENS.name, "profile" => profile.clone(), "direction" => direction);
        Self {
            seconds: histogram!(telemetry::TEACHER_DURATION.name, "profile" => profile.clone()),
            in_flight: gauge!(telemetry::TEACHER_IN_FLIGHT.name, "profile" => profile.clone()),
            tokens_in: tokens("in"),
            tokens_out: tokens("out"),
            cost: counter!(telemetry::TEACHER_COST.name, "profile" => profile.clone()),
            factor: gauge!(telemetry::TEACHER_RATE_FACTOR.name, "profile" => profile.clone()),
            ceiling: gauge!(telemetry::TEACHER_CEILING.name, "profile" => profile.clone()),
            held: gauge!(telemetry::TEACHER_HELD.name, "profile" => profile.clone()),
            paced: Arc::default(),
            profile,
        }
    }

    /// A call began; it is in flight until what is returned is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    /// A call was not made: it has no room on its account.
    pub(crate) fn not_made(&self) {
        requests(&self.profile, "not_made").increment(1);
    }

    /// A call waits.
    pub(crate) fn waits(&self, reason: WaitReason) {
        waits(&self.profile, reason).increment(1);
    }

    /// Whether it is time to show the pace again.
    pub(crate) fn is_due(&self) -> bool {
        let mut paced = self.paced.lock().unwrap_or_else(PoisonError::into_inner);
        let due = paced.is_none_or(|at| at.elapsed() >= PACE_EVERY);
        if due {
            *paced = Some(Instant::now());
        }
        due
    }

    /// How the profile is paced.
    pub(crate) fn pace(&self, pace: &Pace) {
        self.factor.set(pace.factor);
        self.ceiling.set(pace.ceiling as f64);
        self.held.set(pace.held.as_secs_f64());
    }

    /// A call ended.
    pub(crate) fn end(&self, result: &Result<Reply, TeacherError>, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        self.read(result);
    }

    /// What a call, or a line of a batch, brought: its outcome, and what it cost.
    pub(crate) fn read(&self, result: &Result<Reply, TeacherError>) {
        let (outcome, usage) = match result {
            Ok(reply) => ("ok", Some(reply.usage)),
            Err(error) => (outcome(error), error.usage()),
        };
        // What was paid counts, whatever the answer is worth.
        let usage = usage.unwrap_or_default();
        self.tokens_in.increment(usage.tokens_in);
        self.tokens_out.increment(usage.tokens_out);
        self.cost.increment(usage.money_micros);
        requests(&self.profile, outcome).increment(1);
    }
}

fn waits(profile: &str, reason: WaitReason) -> Counter {
    counter!(telemetry::TEACHER_WAITS.name, "profile" => profile.to_owned(), "reason" => reason.as_str())
}

fn requests(profile: &str, outcome: &'static str) -> Counter {
    counter!(telemetry::TEACHER_REQUESTS.name, "profile" => profile.to_owned(), "outcome" => outcome)
}

/// The outcome of an error: one of [`value::TEACHER_OUTCOMES`].
pub(crate) fn outcome(error: &TeacherError) -> &'static str {
    match error {
        TeacherError::Wait { .. } => "rate_limited",
        TeacherError::Unavailable { .. } => "unavailable",
        TeacherError::Malformed(_) | TeacherError::WrongRequest { .. } | TeacherError::Invalid(_) => {
            "malformed"
        }
        TeacherError::Permanent(_) => "refused",
        TeacherError::BudgetLater
        | TeacherError::BudgetExhausted
        | TeacherError::LeaseLost
        | TeacherError::Closed
        | TeacherError::Unaccounted(_) => "not_made",
    }
}

/// A call in flight; counted down when dropped, also when the call is cancelled.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use domain::budget::CallEnd;

    #[test]
    fn waits_have_the_reasons_of_the_table() {
        assert_eq!(WaitReason::ALL.map(WaitReason::as_str).as_slice(), value::TEACHER_WAIT_REASONS);
    }

    #[test]
    fn every_failure_has_an_outcome_of_the_table() {
        let failure = Box::new(Failure {
            profile: String::new(),
            url: String::new(),
            message: String::new(),
            end: CallEnd::Refused,
        });
        let errors = [
            TeacherError::Wait { failure: failure.clone(), wait: Duration::ZERO },
            TeacherError::Unavailable { failure: failure.clone(), wait: None, is_held: false },
            TeacherError::WrongRequest { failure: failure.clone(), parameter: None },
            TeacherError::Malformed(failure.clone()),
            TeacherError::Permanent(failure),
            TeacherError::Invalid(String::new()),
            TeacherError::BudgetLater,
            TeacherError::BudgetExhausted,
            TeacherError::LeaseLost,
            TeacherError::Closed,
            TeacherError::Unaccounted(String::new()),
        ];
        let mut seen: Vec<&str> = errors.iter().map(outcome).collect();
        seen.push("ok");
        for name in &seen {
            assert!(value::TEACHER_OUTCOMES.contains(name), "{name}");
        }
        for name in value::TEACHER_OUTCOMES {
            assert!(seen.contains(name), "no error has the outcome {name}");
        }
    }
}
