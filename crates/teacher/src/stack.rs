//! The stack around a call. Outermost first: retry (bounded), the breaker, the shared limits and the calls at once (one
//! [turn](crate::turn)), the job's account, one call with its timeouts.

use crate::account::{CallAccount, OpenCall};
use crate::attempt::{backoff, later};
use crate::batch::BatchTeacher;
use crate::client::{CallReport, Client};
use crate::error::{Failure, TeacherError};
use crate::headers::{LimitState, RateLimitHeaders};
use crate::meters::{self, Meters};
use crate::profile::{Profile, shown_url};
use crate::standing::{Obstacle, Standing};
use crate::turn::{NoTurn, Turn, Turns, Waiting};
use crate::{Question, Reply, estimate_tokens};
use domain::budget::{CallEnd, Usage};
use domain::ports::{CallCost, CallOutcome, Dimension, RateLimiter, RateLimits, SeenLimit, WaitReason};
use domain::telemetry::span;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// The longest wait between two calls for one attempt at a prompt; where more is asked, the prompt goes back to its queue.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest time for which a prompt goes back to its queue because of limits of the profile.
const POSTPONED_MAX: Duration = Duration::from_secs(60);

/// A teacher that can be asked. Cloning shares its limits.
#[derive(Clone)]
pub struct Teacher {
    profile: Arc<Profile>,
    client: Client,
    meters: Meters,
    turns: Arc<Turns>,
    standing: Arc<Standing>,
    batches: Option<BatchTeacher>,
}

impl std::fmt::Debug for Teacher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Teacher").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Teacher {
    /// A teacher by its profile, within the limits that `rate_limiter` shares.
    ///
    /// # Errors
    /// The profile's URL is not valid.
    pub fn new(profile: Profile, rate_limiter: Arc<dyn RateLimiter>) -> Result<Self, TeacherError> {
        let (client, meters) = (Client::new(profile.clone())?, Meters::new(&profile.name));
        let concurrency_max = u64::try_from(profile.concurrency_max.max(1)).unwrap_or(u64::MAX);
        let limits = RateLimits { concurrency_max, ..profile.limits };
        let standing = Arc::new(Standing::default());
        let waiting = WaitNotes { meters: meters.clone(), standing: Arc::clone(&standing) };
        let turns = Turns::new(profile.name.clone(), limits, rate_limiter, Box::new(waiting));
        let batches = BatchTeacher::new(&client, &meters);
        Ok(Self { batches, profile: Arc::new(profile), client, meters, turns: Arc::new(turns), standing })
    }

    /// Which model answers, as the server tells where it has a list of models (OpenAI's dialects): what stands behind the
    /// profile's name for it, which many local servers ignore. Asked once in a while; `None` where it does not tell.
    pub async fn served_model(&self) -> Option<String> {
        self.client.served_model().await
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The same teacher, asked in batches; `None` where it has no batch API.
    pub fn batches(&self) -> Option<&BatchTeacher> {
        self.batches.as_ref()
    }

    /// What keeps it from answering at present; `None` where it answers, or nobody asks. Answers to other replicas count.
    pub async fn obstacle(&self) -> Option<Obstacle> {
        let answered_ago = match self.turns.pace().await {
            Ok(pace) => {
                self.meters.pace(&pace);
                pace.answered_ago
            }
            Err(error) => {
                self.standing.failed(&TeacherError::Unaccounted(error.to_string()));
                None
            }
        };
        self.standing.obstacle(answered_ago)
    }

    /// Makes no further call: whoever waits for one, or asks from now on, gets [`TeacherError::Closed`] at once. Calls in flight
    /// end as they do.
    pub fn close(&self) {
        self.turns.close();
    }

    /// Asks one question, with retries where they may succeed, at most `attempts_max` calls, each reserved on `account` before
    /// it is sent. Every call is ended there but the one that the reply came from.
    ///
    /// # Errors
    /// The error of the last call, or why it was not made.
    pub async fn ask(
        &self,
        question: Question,
        account: Arc<dyn CallAccount>,
    ) -> Result<Reply, TeacherError> {
        let span = tracing::info_span!(
            span::CHAT,
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            "error.type" = tracing::field::Empty,
            distillery.teacher = %self.profile.name,
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = self.profile.provider.convention(),
            gen_ai.request.model = %self.profile.model,
            gen_ai.request.max_tokens = question.sampling.tokens_max,
            gen_ai.request.temperature = question.sampling.temperature,
            gen_ai.request.top_p = question.sampling.top_p,
            gen_ai.response.model = tracing::field::Empty,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
        );
        let asked = self.ask_with_retries(question, &account).instrument(span.clone()).await;
        match &asked {
            Ok(reply) => {
                span.record("gen_ai.response.model", reply.model.as_str());
                span.record("gen_ai.usage.input_tokens", reply.usage.tokens_in);
                span.record("gen_ai.usage.output_tokens", reply.usage.tokens_out);
            }
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", meters::outcome(error));
            }
        }
        asked
    }

    async fn ask_with_retries(
        &self,
        question: Question,
        account: &Arc<dyn CallAccount>,
    ) -> Result<Reply, TeacherError> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let turn = match self.turns.turn(self.cost(&question)).await {
                Ok(turn) => turn,
                Err(none) => return Err(self.no_turn(none, failures == 0)),
            };
            match self.attempt(turn, &question, account).await {
                Ok(reply) => return Ok(Reply { seconds: began.elapsed().as_secs_f64(), ..reply }),
                Err(TeacherError::Unavailable { failure, wait, is_held }) => {
                    failures += 1;
                    let pause = backoff(failures, wait, rand::random::<f64>());
                    if failures >= self.profile.attempts_max.max(1) || pause > RETRY_WAIT_MAX {
                        return Err(TeacherError::Unavailable { failure, wait, is_held });
                    }
                    tracing::debug!(error = %failure, failures, ?pause, "retrying a call");
                    tokio::time::sleep(pause).await;
                }
                // A prompt that waits for a teacher does so in its queue: nothing holds its lease meanwhile.
                Err(TeacherError::Wait { failure, wait }) => {
                    return Err(TeacherError::Wait { failure, wait: later(wait, rand::random::<f64>()) });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One call in its turn. The account is asked last: what it grants is sent at once.
    async fn attempt(
        &self,
        mut turn: Turn,
        question: &Question,
        account: &Arc<dyn CallAccount>,
    ) -> Result<Reply, TeacherError> {
        let open = match OpenCall::reserve(account, self.profile.bound(question)).await {
            Ok(open) => open,
            Err(reason) => {
                self.meters.not_made();
                turn.settle(CallOutcome::NotSent, &[]).await;
                return Err(reason.into_error());
            }
        };
        turn.sent();
        let (began, in_flight) = (Instant::now(), InFlight::new(self));
        let report = tokio::select! {
            report = self.client.ask(question, open.id()) => report,
            never = self.turns.renewals() => match never {},
        };
        let took = began.elapsed();
        in_flight.end(&report);
        self.meters.end(&report.outcome, took);
        match outcome(&report, took) {
            answered @ CallOutcome::Answered { .. } => {
                turn.settle_behind(answered, seen(&report.limits)).await;
            }
            // What follows waits for what this call found out.
            other => turn.settle(other, &seen(&report.limits)).await,
        }
        if self.meters.is_due()
            && let Ok(pace) = self.turns.pace().await
        {
            self.meters.pace(&pace);
        }
        match &report.outcome {
            Ok(_) => open.answered(),
            Err(error) => open.end(error.end()).await,
        }
        report.outcome
    }

    /// The most that a call counts for: tokens of the prompt are estimated, and settled with what the server counted.
    fn cost(&self, question: &Question) -> CallCost {
        CallCost {
            tokens_in: estimate_tokens(&question.prompt)
                .saturating_add(estimate_tokens(&question.instruction)),
            tokens_out: u64::from(self.profile.tokens_sent(question)),
        }
    }

    /// Why a question has no turn; `is_held` where no call was made about it before.
    fn no_turn(&self, none: NoTurn, is_held: bool) -> TeacherError {
        let failure = |message: String| {
            let (profile, url) = (self.profile.name.clone(), shown_url(&self.profile.url));
            Box::new(Failure { profile, url, message, end: CallEnd::Refused })
        };
        match none {
            NoTurn::Later { wait, reason: WaitReason::Failed } => {
                let words =
                    self.standing.words().unwrap_or_else(|| "failed several times in a row".to_owned());
                let message = format!("is not asked for {} s: it {words}", wait.as_secs_f64().ceil());
                TeacherError::Unavailable { failure: failure(message), wait: Some(wait), is_held }
            }
            NoTurn::Later { wait, reason } => {
                let why = match reason {
                    WaitReason::Rate => "has its limits a minute taken",
                    WaitReason::Day => "has its limits of a day taken",
                    WaitReason::Concurrency => "has as many calls in flight as it bears",
                    WaitReason::Refused | WaitReason::Failed | WaitReason::Probe => "refuses calls (429)",
                };
                let message = format!("{why}: the next call starts in {} s", wait.as_secs_f64().ceil());
                // Whoever raises a limit meanwhile does not wait for the end of the old one.
                TeacherError::Wait { failure: failure(message), wait: wait.min(POSTPONED_MAX) }
            }
            NoTurn::Closed => TeacherError::Closed,
            NoTurn::NeverFits(message) => {
                TeacherError::Invalid(format!("teacher `{}`: {message}", self.profile.name))
            }
            NoTurn::Unavailable(message) => {
                let error = TeacherError::Unaccounted(message);
                self.standing.failed(&error);
                error
            }
        }
    }
}

/// Notes of calls that wait.
struct WaitNotes {
    meters: Meters,
    standing: Arc<Standing>,
}

impl Waiting for WaitNotes {
    fn waits(&self, wait: Duration, reason: WaitReason) {
        self.meters.waits(reason);
        self.standing.waits(wait, reason);
    }
}

/// A call in flight; it is so no longer when this is dropped.
struct InFlight {
    standing: Arc<Standing>,
    ended: bool,
    _gauge: meters::InFlight,
}

impl InFlight {
    fn new(teacher: &Teacher) -> Self {
        teacher.standing.sent();
        Self { standing: Arc::clone(&teacher.standing), ended: false, _gauge: teacher.meters.begin() }
    }

    fn end(mut self, report: &CallReport) {
        self.ended = true;
        let away =
            matches!(report.outcome, Err(TeacherError::Wait { .. } | TeacherError::Unavailable { .. }));
        self.standing.ended(!away);
        if let Err(error) = &report.outcome {
            self.standing.failed(error);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.standing.ended(false);
        }
    }
}

/// What a call means for the limits.
fn outcome(report: &CallReport, took: Duration) -> CallOutcome {
    match &report.outcome {
        Ok(reply) => CallOutcome::Answered { used: cost_of(reply.usage), took },
        Err(TeacherError::Wait { wait, .. }) => {
            CallOutcome::Refused { wait: Some(*wait).filter(|wait| !wait.is_zero()) }
        }
        Err(TeacherError::Unavailable { wait, .. }) => {
            CallOutcome::Failed { wait: *wait, overloaded: report.overloaded }
        }
        Err(error) => CallOutcome::Answered { used: cost_of(error.usage().unwrap_or_default()), took },
    }
}

fn cost_of(usage: Usage) -> CallCost {
    CallCost { tokens_in: usage.tokens_in, tokens_out: usage.tokens_out }
}

/// The limits of the headers that say something.
fn seen(headers: &RateLimitHeaders) -> Vec<SeenLimit> {
    let seen = |(dimension, state): (Dimension, LimitState)| {
        let LimitState { limit, remaining, reset } = state;
        (!state.is_unknown()).then_some(SeenLimit { dimension, limit, remaining, reset })
    };
    [
        (Dimension::Requests, headers.requests),
        (Dimension::Tokens, headers.tokens),
        (Dimension::TokensIn, headers.tokens_in),
        (Dimension::TokensOut, headers.tokens_out),
    ]
    .into_iter()
    .filter_map(seen)
    .collect()
}
