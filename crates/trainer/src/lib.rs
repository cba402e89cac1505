//! The trainer: it leases runs, trains students on labels and accepted rationales, measures them and publishes them.
//!
//! `training` is the loop; `step`, `batches`, `schedule` and `optimizer` are its parts; `resume` makes it exact.
//!
//! # Invariants
//!
//! - No database is imported: runs and rows come over gRPC.
//! - A trainer that lost its lease publishes nothing.
//! - 2N steps are the bytes of N steps, a kill, and N more; the same run gives the same student in every process on one kind
//!   of CPU.
//! - What a student answers is asked of the predictor that serves.
//!
//! # Example
//!
//! ```no_run
//! # async fn example(channel: wire::Channel) -> Result<(), Box<dyn std::error::Error>> {
//! let store = checkpoints::Checkpoints::open_shared("checkpoints".as_ref())?;
//! let shutdown = tokio_util::sync::CancellationToken::new();
//! trainer::run(trainer::Settings::new("trainer-1"), channel, store, shutdown).await?;
//! # Ok(())
//! # }
//! ```

pub mod batches;
pub mod data;
mod error;
pub mod evaluate;
mod link;
mod meters;
pub mod optimizer;
pub mod out_of_memory;
mod publish;
pub mod resume;
pub mod schedule;
mod settings;
mod state;
pub mod step;
pub mod training;

pub use error::TrainError;
pub use settings::Settings;

use checkpoints::Checkpoints;
use domain::records::LeasedRun;
use link::Link;
use meters::Ended;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// Whether a CUDA device is found, and the library for it.
pub fn has_cuda() -> bool {
    t5::device::select().is_cuda()
}

/// Opens a base checkpoint as a run that starts from it would.
///
/// # Errors
/// No student can start from it: the file, tensor or token is named.
pub fn check_base(folder: &Path) -> Result<(), TrainError> {
    Ok(student::open_checkpoint(folder, tch::Device::Cpu).map(drop)?)
}

/// Leases and trains one run after another until `shutdown`; then writes the resume state of the one at hand and hands
/// it back. Ends by itself when there was no run for as long as the settings say.
///
/// # Errors
/// The tensor library fell over while it trained.
pub async fn run(
    settings: Settings,
    channel: Channel,
    checkpoints: Checkpoints,
    shutdown: CancellationToken,
) -> Result<(), TrainError> {
    let mut worked = Instant::now();
    let mut trouble = Trouble::default();
    meters::register();
    while !shutdown.is_cancelled() {
        let asked = link::lease(&settings, channel.clone()).await;
        if asked.is_ok() {
            settings.reached.cancel();
            trouble.ends();
        }
        let leased = match asked {
            Ok(Some(leased)) => leased,
            Ok(None) => {
                if settings.idle_max.is_some_and(|longest| worked.elapsed() >= longest) {
                    tracing::info!("there is no run to train");
                    return Ok(());
                }
                idle(settings.poll, &shutdown).await;
                continue;
            }
            Err(error) => {
                idle(trouble.with(&error, settings.poll), &shutdown).await;
                continue;
            }
        };
        let link = Link::new(&settings, channel.clone(), &leased, shutdown.clone());
        let (settings, checkpoints) = (settings.clone(), checkpoints.clone());
        // Tensors are work for a thread of its own; the runtime keeps answering meanwhile.
        tokio::task::spawn_blocking(move || carry_out(&settings, &checkpoints, &leased, link))
            .await
            .map_err(|error| TrainError::Internal(error.to_string()))??;
        worked = Instant::now();
    }
    Ok(())
}

/// The span of one training, in its job's trace.
fn run_span(leased: &LeasedRun) -> tracing::Span {
    let span = tracing::info_span!(
        domain::telemetry::span::RUN,
        distillery.job = %leased.run.distillation,
        distillery.run = %leased.run.id,
        distillery.fence = leased.run.fence,
        distillery.outcome = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    wire::trace::adopt(&span, &leased.traceparent);
    span
}

async fn idle(wait: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// The longest wait before a harvester that does not answer is asked again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What keeps a trainer from its work: told once, however often it is met, and met less and less often.
#[derive(Debug, Default)]
struct Trouble {
    words: String,
    wait: Duration,
}

impl Trouble {
    /// Notes that no run could be leased. Returns how long to wait.
    fn with(&mut self, error: &TrainError, poll: Duration) -> Duration {
        let words = error.to_string();
        if words != self.words {
            tracing::warn!(
                error = words,
                "no run can be leased: asked again and again, told once (client.harvester_url, its token, client.ca)"
            );
            self.words = words;
        }
        self.wait = self.wait.saturating_mul(2).clamp(poll, WAIT_MAX);
        self.wait
    }

    /// Notes that the harvester answers.
    fn ends(&mut self) {
        if !self.words.is_empty() {
            tracing::info!("the harvester answers again");
            *self = Self::default();
        }
    }
}

/// Trains one run to whatever end it has, and says so to the store.
///
/// # Errors
/// The tensor library fell over: what this process computes next cannot be trusted, so that it ends.
fn carry_out(
    settings: &Settings,
    checkpoints: &Checkpoints,
    leased: &LeasedRun,
    mut link: Link,
) -> Result<(), TrainError> {
    let run = leased.run.id;
    let span = run_span(leased);
    let _within = span.enter();
    let _active = meters::begin();
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        state::TrainState::open(settings, checkpoints, leased, &mut link)
            .and_then(|state| training::train(state, &mut link, checkpoints))
            .and_then(|trained| publish::publish(trained, leased, &mut link, checkpoints))
    }));
    // Told to the store, or the next trainer would take the run up and fall over it as well.
    let panicked = ended
        .as_ref()
        .err()
        .map(|panic| format!("the training broke off: {}", out_of_memory::message(&**panic)));
    let (how, reported) = match ended {
        Ok(Ok(model)) => {
            tracing::info!(%run, model, "published");
            (Ended::Succeeded, Ok(()))
        }
        Ok(Err(TrainError::Interrupted)) => (Ended::Released, link.release()),
        Ok(Err(TrainError::Cancelled)) => (Ended::Cancelled, Ok(())),
        Ok(Err(TrainError::Lost(_))) => (Ended::Lost, Ok(())),
        Ok(Err(error @ TrainError::Unavailable(_))) => {
            tracing::warn!(%run, %error, "handing the run back");
            (Ended::Released, link.release())
        }
        Ok(Err(error)) => (Ended::Failed, link.fail(&error.to_string())),
        Err(_) => (Ended::Failed, link.fail(panicked.as_deref().unwrap_or_default())),
    };
    meters::ended(how);
    span.record("distillery.outcome", how.name());
    if how == Ended::Failed {
        span.record("otel.status_code", "ERROR");
    }
    if let Err(error) = reported {
        tracing::warn!(%run, %error, "the end of the run could not be reported: its lease will expire");
    }
    panicked.map_or(Ok(()), |words| Err(TrainError::Internal(words)))
}
