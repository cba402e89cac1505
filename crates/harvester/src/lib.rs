//! The harvester: it owns the records and the queue, asks teachers, judges what they answer, and serves the API.
//!
//! `submit` checks a job, `driver` moves it from stage to stage, `relay` keeps the queue filled, `worker` leases prompts, asks
//! and writes, `batches` asks through the batch APIs of providers, `services` is the gRPC API.
//!
//! # Invariants
//!
//! - No adapter is imported, only the ports; no libtorch.
//! - Nothing that was answered is asked again.
//! - A row's verdicts do not depend on the order of arrival.
//! - An answer is acknowledged after it is committed.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::{collections::BTreeMap, sync::Arc};
//! use domain::Stores;
//! use harvester::{Harvester, Settings};
//!
//! let folder = tempfile::tempdir()?;
//! let store = Arc::new(embedded::SqliteStore::open(folder.path()).await?);
//! let settings = Settings::new("harvester-1");
//! let queue = Arc::new(embedded::MemoryQueue::new(10_000, settings.lease));
//! let harvester = Harvester::new(settings, Stores::of(&store), queue, BTreeMap::new());
//! let _served = harvester.routes();
//! # Ok(())
//! # }
//! ```

mod address;
mod apart;
mod at_work;
mod batches;
mod calls;
mod driver;
mod error;
mod estimate;
mod job;
mod judging;
mod ledger;
mod meters;
mod obstacles;
mod plan;
mod position;
mod probes;
mod rejudging;
mod relay;
mod runs;
mod services;
mod shared;
mod shares;
mod stage;
mod staged;
mod strata;
mod submit;
mod trials;
mod watching;
mod worker;
mod writing;

pub use error::HarvestError;
pub use shared::Settings;

use domain::{Queue, Stores};
use shared::Shared;
use std::collections::BTreeMap;
use std::sync::Arc;
use teacher::Teacher;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The harvester. Cloning shares it.
#[derive(Clone)]
pub struct Harvester {
    shared: Arc<Shared>,
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
        Self { shared: Arc::new(Shared::new(settings, stores, queue, teachers)) }
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
        let stopped = CancellationToken::new();
        let marks = tokio::spawn(at_work::run(Arc::clone(&self.shared.at_work), stopped.clone()));
        let tracker = TaskTracker::new();
        tracker.spawn(relay::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(batches::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(staged::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(driver::run(Arc::clone(&self.shared), shutdown.clone()));
        tracker.spawn(worker::run(Arc::clone(&self.shared), shutdown));
        tracker.close();
        tracker.wait().await;
        stopped.cancel();
        let _ = marks.await;
    }
}
