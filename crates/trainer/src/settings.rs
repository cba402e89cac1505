//! What the operator decides about training.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This process's name, unique per start: who holds the leases.
    pub name: String,
    /// How long a run's lease holds without a report.
    pub lease: Duration,
    /// How often numbers are reported.
    pub report_every: Duration,
    /// How often a trainer without work asks for some.
    pub poll: Duration,
    /// How long a trainer may be without work before it ends; `None` for ever.
    pub idle_max: Option<Duration>,
    /// Cancelled as soon as a harvester has answered: before that the trainer is not ready.
    pub reached: CancellationToken,
    /// Threads of the tensor library; 0 for one per core. A resumed run keeps the number that it began with.
    pub threads: u32,
    /// Whether CUDA is used where it is found.
    pub use_cuda: bool,
}

impl Settings {
    /// Settings for one process that does everything.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease: Duration::from_secs(60),
            report_every: Duration::from_secs(1),
            poll: Duration::from_millis(100),
            idle_max: None,
            reached: CancellationToken::new(),
            threads: 0,
            use_cuda: true,
        }
    }
}
