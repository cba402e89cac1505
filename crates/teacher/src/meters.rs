//! The metrics of calls to teachers.

use crate::Reply;
use crate::attempt::CallError;
use crate::error::TeacherError;
use domain::telemetry::{self, value};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::Duration;

/// The series of one profile, looked up once.
#[derive(Clone)]
pub(crate) struct Meters {
    profile: String,
    seconds: Histogram,
    in_flight: Gauge,
    tokens_in: Counter,
    tokens_out: Counter,
    cost: Counter,
}

impl Meters {
    /// Every series of `profile`, at zero.
    pub(crate) fn new(profile: &str) -> Self {
        let profile = profile.to_owned();
        for outcome in value::TEACHER_OUTCOMES {
            requests(&profile, outcome).increment(0);
        }
        let tokens = |direction: &'static str| counter!(telemetry::TEACHER_TOKENS.name, "profile" => profile.clone(), "direction" => direction);
        Self {
            seconds: histogram!(telemetry::TEACHER_DURATION.name, "profile" => profile.clone()),
            in_flight: gauge!(telemetry::TEACHER_IN_FLIGHT.name, "profile" => profile.clone()),
            tokens_in: tokens("in"),
            tokens_out: tokens("out"),
            cost: counter!(telemetry::TEACHER_COST.name, "profile" => profile.clone()),
            profile,
        }
    }

    /// A call began; it is in flight until what is returned is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    /// A call ended.
    pub(crate) fn end(&self, result: &Result<Reply, CallError>, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        let outcome = match result {
            Ok(reply) => {
                self.tokens_in.increment(reply.usage.tokens_in);
                self.tokens_out.increment(reply.usage.tokens_out);
                self.cost.increment(reply.usage.money_micros);
                "ok"
            }
            Err(CallError::Retry { error, .. } | CallError::Final(error)) => outcome(error),
        };
        requests(&self.profile, outcome).increment(1);
    }
}

fn requests(profile: &str, outcome: &'static str) -> Counter {
    counter!(telemetry::TEACHER_REQUESTS.name, "profile" => profile.to_owned(), "outcome" => outcome)
}

/// The outcome of an error: one of [`value::TEACHER_OUTCOMES`].
pub(crate) fn outcome(error: &TeacherError) -> &'static str {
    match error {
        TeacherError::Wait { .. } => "rate_limited",
        TeacherError::Unavailable { .. } => "unavailable",
        TeacherError::Malformed { .. } | TeacherError::Invalid(_) => "malformed",
        TeacherError::Permanent { .. } => "refused",
        TeacherError::BudgetLater
        | TeacherError::BudgetExhausted
        | TeacherError::LeaseLost
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

    #[test]
    fn every_failure_has_an_outcome_of_the_table() {
        let (profile, url, message) = (String::new(), String::new(), String::new());
        let errors = [
            TeacherError::Wait { profile: profile.clone(), wait: Duration::ZERO },
            TeacherError::Unavailable {
                profile: profile.clone(),
                url: url.clone(),
                message: message.clone(),
            },
            TeacherError::Malformed { profile: profile.clone(), url: url.clone(), message: message.clone() },
            TeacherError::Permanent { profile, url, message },
            TeacherError::Invalid(String::new()),
            TeacherError::BudgetLater,
            TeacherError::BudgetExhausted,
            TeacherError::LeaseLost,
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
