//! The harvester: it owns the records and the work list, asks teachers, judges what comes back, and answers the API.
//!
//! The life of a distillation is here: `submit` checks it, `driver` moves it from stage to stage, `relay` keeps the work
//! list filled, `worker` leases prompts, asks and writes. Invariants: harvester names no adapter, only the ports; nothing
//! that was answered is asked again; a row's verdicts do not depend on the order of arrival.

mod driver;
mod error;
mod job;
mod judging;
mod ledger;
mod meters;
mod plan;
mod relay;
mod runs;
mod services;
mod submit;
mod worker;

pub use error::HarvestError;

use domain::{Queue, Stores};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use teacher::Teacher;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most prompts asked at once by one process.
const WORKERS_MAX: usize = 1024;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This process's name, unique per start: who holds the leases.
    pub name: String,
    /// How long a prompt's lease holds without a heartbeat.
    pub lease: Duration,
    /// Failures of the teacher on one prompt after which it is parked.
    pub failures_max: u32,
    /// How long a teacher may be away before its jobs are paused.
    pub outage_patience: Duration,
    /// How often background work looks around when nothing wakes it.
    pub poll: Duration,
    /// Prompts asked at once by this process; 0 where it only answers the API.
    pub workers: usize,
}

impl Settings {
    /// Settings for one process that does everything.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease: Duration::from_secs(30),
            failures_max: 5,
            outage_patience: Duration::from_secs(20),
            poll: Duration::from_millis(50),
            workers: WORKERS_MAX,
        }
    }
}

/// The harvester. Cloning shares it.
#[derive(Clone)]
pub struct Harvester {
    shared: Arc<Shared>,
}

/// What every part of it works with.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) stores: Stores,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) teachers: BTreeMap<String, Teacher>,
    pub(crate) jobs: job::Jobs,
    /// Something changed: the driver and the relay look at once.
    pub(crate) changed: Notify,
}

impl Harvester {
    /// A harvester over the ports, with the operator's teachers by profile name.
    pub fn new(
        settings: Settings,
        stores: Stores,
        queue: Arc<dyn Queue>,
        teachers: BTreeMap<String, Teacher>,
    ) -> Self {
        meters::register();
        let shared =
            Shared { settings, stores, queue, teachers, jobs: job::Jobs::default(), changed: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Its gRPC services.
    pub fn routes(&self) -> tonic::service::Routes {
        services::routes(&self.shared)
    }

    /// Works until `shutdown`; then finishes what is being asked, writes it, and returns.
    pub async fn run(&self, shutdown: CancellationToken) {
        if self.shared.settings.workers == 0 {
            return shutdown.cancelled().await;
        }
        let tracker = TaskTracker::new();
        tracker.spawn(relay::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(driver::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(worker::run(Arc::clone(&self.shared), shutdown));
        tracker.close();
        tracker.wait().await;
    }
}

impl Shared {
    /// Waits until something changed, the poll interval is over, or `shutdown`. Says whether to go on.
    pub(crate) async fn idle(&self, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = self.changed.notified() => true,
            () = tokio::time::sleep(self.settings.poll) => true,
        }
    }
}
