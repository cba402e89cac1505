//! The stack around a call. Outermost first: retry (bounded), rate limit (shared by every process), concurrency limit, the
//! job's account, one call with its timeouts.

use crate::account::{CallAccount, OpenCall};
use crate::attempt::backoff;
use crate::client::Client;
use crate::error::TeacherError;
use crate::meters::{self, Meters};
use crate::profile::Profile;
use crate::{Question, Reply, estimate_tokens};
use domain::budget::CallBound;
use domain::ports::{RateLimitError, RateLimiter, Reservation};
use domain::telemetry::span;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tracing::Instrument;

/// A teacher that can be asked. Cloning shares its limits.
#[derive(Clone)]
pub struct Teacher {
    profile: Arc<Profile>,
    client: Client,
    meters: Meters,
    rate_limiter: Arc<dyn RateLimiter>,
    permits: Arc<Semaphore>,
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
        Ok(Self {
            client: Client::new(profile.clone())?,
            meters: Meters::new(&profile.name),
            rate_limiter,
            permits: Arc::new(Semaphore::new(profile.concurrency_max.clamp(1, Semaphore::MAX_PERMITS))),
            profile: Arc::new(profile),
        })
    }

    /// The most that one call for this question can cost.
    pub fn bound(&self, question: &Question) -> CallBound {
        self.profile.bound(question)
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
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
            match self.attempt(&question, account).await {
                Ok(reply) => return Ok(Reply { seconds: began.elapsed().as_secs_f64(), ..reply }),
                Err(TeacherError::Unavailable { failure, wait }) => {
                    failures += 1;
                    if failures >= self.profile.attempts_max.max(1) {
                        return Err(TeacherError::Unavailable { failure, wait });
                    }
                    let wait = backoff(failures, wait, rand::random::<f64>());
                    tracing::debug!(error = %failure, failures, ?wait, "retrying a call");
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One call within the limits. A wait for the rate limit holds no permit, and the account is asked last: what it grants is
    /// sent at once.
    async fn attempt(
        &self,
        question: &Question,
        account: &Arc<dyn CallAccount>,
    ) -> Result<Reply, TeacherError> {
        let reservation = reserve(&self.profile, self.rate_limiter.as_ref(), question).await?;
        let result = match self.permits.acquire().await {
            Ok(_permit) => self.call(question, account).await,
            // The semaphore is never closed.
            Err(_closed) => Err(TeacherError::LeaseLost),
        };
        let usage = match &result {
            Ok(reply) => reply.usage,
            Err(error) => error.usage().unwrap_or_default(),
        };
        let used = usage.tokens_in.saturating_add(usage.tokens_out);
        if let Err(error) = self.rate_limiter.settle(&self.profile.name, reservation, used).await {
            tracing::warn!(%error, "a rate limit reservation cannot be settled");
        }
        if let Err(TeacherError::Wait { wait, .. }) = &result
            && let Err(error) = self.rate_limiter.hold(&self.profile.name, *wait).await
        {
            tracing::warn!(%error, "the wait that a teacher asked for cannot be shared");
        }
        result
    }

    async fn call(&self, question: &Question, account: &Arc<dyn CallAccount>) -> Result<Reply, TeacherError> {
        let open = OpenCall::reserve(account, self.profile.bound(question)).await;
        let open = open.map_err(|reason| reason.into_error())?;
        let (began, in_flight) = (Instant::now(), self.meters.begin());
        let report = self.client.ask(question, open.id()).await;
        drop(in_flight);
        tracing::trace!(limits = ?report.limits, sent = report.sent, "a call ended");
        self.meters.end(&report.outcome, began.elapsed());
        match &report.outcome {
            Ok(_) => open.answered(),
            Err(error) => open.end(error.end()).await,
        }
        report.outcome
    }
}

async fn reserve(
    profile: &Profile,
    rate_limiter: &dyn RateLimiter,
    question: &Question,
) -> Result<u64, TeacherError> {
    let estimate = estimate_tokens(&question.prompt) + estimate_tokens(&question.instruction);
    let tokens = estimate + u64::from(question.sampling.tokens_max);
    loop {
        match rate_limiter.reserve(&profile.name, profile.limits, tokens).await {
            Ok(Reservation::Granted(reservation)) => return Ok(reservation),
            Ok(Reservation::Wait(wait)) => tokio::time::sleep(wait).await,
            Err(error @ RateLimitError::NeverFits { .. }) => {
                let message = format!("teacher `{}`: {error}", profile.name);
                return Err(TeacherError::Invalid(message));
            }
            Err(error @ RateLimitError::Unavailable(_)) => {
                return Err(TeacherError::Unaccounted(error.to_string()));
            }
        }
    }
}
