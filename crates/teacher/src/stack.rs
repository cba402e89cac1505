//! The stack around a call. Outermost first: retry (bounded), rate limit (shared by every process), concurrency limit,
//! one call with its timeouts.

use crate::attempt::{CallError, backoff};
use crate::client::Client;
use crate::error::TeacherError;
use crate::meters::{self, Meters};
use crate::profile::Profile;
use crate::{Question, Reply, estimate_tokens};
use domain::ports::{RateLimitError, RateLimiter, Reservation};
use domain::telemetry::span;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tower::limit::ConcurrencyLimitLayer;
use tower::util::BoxCloneService;
use tower::{Service, ServiceBuilder, ServiceExt};
use tracing::Instrument;

/// A teacher that can be asked. Cloning shares its limits.
#[derive(Clone)]
pub struct Teacher {
    profile: Arc<Profile>,
    calls: Arc<Mutex<BoxCloneService<Question, Reply, CallError>>>,
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
        let client = Client::new(profile.clone())?;
        let rate_limited = tower::layer::layer_fn({
            let profile = profile.clone();
            move |inner| RateLimit {
                inner,
                profile: profile.clone(),
                rate_limiter: Arc::clone(&rate_limiter),
            }
        });
        let calls = ServiceBuilder::new()
            .layer(rate_limited)
            .layer(ConcurrencyLimitLayer::new(profile.concurrency_max.max(1)))
            .service(Call { client, meters: Meters::new(&profile.name) });
        Ok(Self { profile: Arc::new(profile), calls: Arc::new(Mutex::new(BoxCloneService::new(calls))) })
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Asks one question, with retries where they may succeed, at most `attempts_max` calls.
    ///
    /// # Errors
    /// The error of the last call.
    pub async fn ask(&self, question: Question) -> Result<Reply, TeacherError> {
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
        let asked = self.ask_with_retries(question).instrument(span.clone()).await;
        match &asked {
            Ok(reply) => {
                span.record("gen_ai.response.model", reply.model.as_str());
                span.record("gen_ai.usage.input_tokens", reply.tokens_in);
                span.record("gen_ai.usage.output_tokens", reply.tokens_out);
            }
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", meters::outcome(error));
            }
        }
        asked
    }

    fn stack(&self) -> BoxCloneService<Question, Reply, CallError> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask_with_retries(&self, question: Question) -> Result<Reply, TeacherError> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            match self.stack().oneshot(question.clone()).await {
                Ok(reply) => return Ok(Reply { seconds: began.elapsed().as_secs_f64(), ..reply }),
                Err(CallError::Retry { error, wait }) => {
                    failures += 1;
                    if failures >= self.profile.attempts_max.max(1) {
                        return Err(error);
                    }
                    let wait = backoff(failures, wait, rand::random::<f64>());
                    tracing::debug!(%error, failures, ?wait, "retrying a call");
                    tokio::time::sleep(wait).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }
}

/// The innermost service: one call.
#[derive(Clone)]
struct Call {
    client: Client,
    meters: Meters,
}

impl Service<Question> for Call {
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, question: Question) -> Self::Future {
        let Self { client, meters } = self.clone();
        async move {
            let (began, in_flight) = (Instant::now(), meters.begin());
            let result = client.ask(&question).await;
            drop(in_flight);
            meters.end(&result, began.elapsed());
            result
        }
        .boxed()
    }
}

/// Reserves a request and its tokens before the call, and settles with the usage afterwards.
#[derive(Clone)]
struct RateLimit<S> {
    inner: S,
    profile: Profile,
    rate_limiter: Arc<dyn RateLimiter>,
}

impl<S> Service<Question> for RateLimit<S>
where
    S: Service<Question, Response = Reply, Error = CallError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = CallError;
    type Future = BoxFuture<'static, Result<Reply, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        // The inner service is made ready after the reservation, so that a wait holds no slot of the concurrency limit.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, question: Question) -> Self::Future {
        let (inner, profile, rate_limiter) =
            (self.inner.clone(), self.profile.clone(), Arc::clone(&self.rate_limiter));
        async move {
            let reservation = reserve(&profile, rate_limiter.as_ref(), &question).await?;
            let result = inner.oneshot(question).await;
            let used = result.as_ref().map_or(0, |reply| reply.tokens_in + reply.tokens_out);
            if let Err(error) = rate_limiter.settle(&profile.name, reservation, used).await {
                tracing::warn!(%error, "a rate limit reservation cannot be settled");
            }
            if let Err(CallError::Final(TeacherError::Wait { wait, .. })) = &result
                && let Err(error) = rate_limiter.hold(&profile.name, *wait).await
            {
                tracing::warn!(%error, "the wait that a teacher asked for cannot be shared");
            }
            result
        }
        .boxed()
    }
}

async fn reserve(
    profile: &Profile,
    rate_limiter: &dyn RateLimiter,
    question: &Question,
) -> Result<u64, CallError> {
    let estimate = estimate_tokens(&question.prompt) + estimate_tokens(&question.instruction);
    let tokens = estimate + u64::from(question.sampling.tokens_max);
    loop {
        match rate_limiter.reserve(&profile.name, profile.limits, tokens).await {
            Ok(Reservation::Granted(reservation)) => return Ok(reservation),
            Ok(Reservation::Wait(wait)) => tokio::time::sleep(wait).await,
            Err(error @ RateLimitError::NeverFits { .. }) => {
                let message = format!("teacher `{}`: {error}", profile.name);
                return Err(CallError::Final(TeacherError::Invalid(message)));
            }
            Err(error @ RateLimitError::Unavailable(_)) => {
                let url = profile.url.clone();
                let error = TeacherError::Unavailable {
                    profile: profile.name.clone(),
                    url,
                    message: error.to_string(),
                };
                return Err(CallError::Retry { error, wait: None });
            }
        }
    }
}
