//! What every part of the harvester works with.

use crate::at_work::AtWork;
use crate::job::{PreparedJobs, Teachers};
use crate::position::Positions;
use crate::stage::Stages;
use crate::trials::Trials;
use crate::watching::{JobSeen, Models, Watching};
use domain::ids::DistillationId;
use domain::ports::{StoreError, StoreResult};
use domain::{Queue, Stores};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most prompts asked at once by one process.
pub(crate) const WORKERS_MAX: usize = 1024;

/// Callers that watch jobs at once in one process, and as many that watch the models.
const WATCHERS_MAX: usize = 1_000;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This process's name, unique per start: who holds the leases.
    pub name: String,
    /// How long a prompt's lease holds without a heartbeat.
    pub lease: Duration,
    /// Failures of the teacher on one prompt after which it is parked.
    pub failures_max: u32,
    /// Trainers that may be lost at a run in a row, without a step forward, before it fails.
    pub lost_trainers_max: u64,
    /// Harvesters that may be lost at a job in a row, without its coming further, before it pauses.
    pub lost_harvesters_max: u64,
    /// How long a teacher may be away before its jobs are paused.
    pub outage_patience: Duration,
    /// How often background work looks around when nothing wakes it.
    pub poll: Duration,
    /// How often a batch is looked at while it is young.
    pub batch_poll: Duration,
    /// Prompts asked at once by this process; 0 where it only answers the API.
    pub workers: usize,
    /// Callers that watch jobs at once, and as many that watch the models.
    pub watchers_max: usize,
}

impl Settings {
    /// Settings for one process that does everything.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            lease: Duration::from_secs(30),
            failures_max: 5,
            lost_trainers_max: 3,
            lost_harvesters_max: 3,
            outage_patience: Duration::from_secs(20),
            poll: Duration::from_millis(50),
            batch_poll: Duration::from_secs(15),
            workers: WORKERS_MAX,
            watchers_max: WATCHERS_MAX,
        }
    }
}

/// What every part of it works with.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) stores: Stores,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) teachers: Arc<Teachers>,
    pub(crate) jobs: PreparedJobs,
    /// The jobs that this process is at work at.
    pub(crate) at_work: Arc<AtWork>,
    /// Those of them at which others were lost.
    pub(crate) trials: Trials,
    /// Where the planning of each job stands.
    pub(crate) positions: Positions,
    /// What each job asks about that stops early.
    pub(crate) stages: Stages,
    /// Jobs and models that are watched.
    pub(crate) watched_jobs: Watching<DistillationId, Arc<JobSeen>>,
    pub(crate) watched_models: Watching<(), Models>,
    /// How many models this process has deleted.
    pub(crate) deleted_models: AtomicU64,
    /// Something changed: the driver and the relay look at once.
    pub(crate) changed: Notify,
}

impl Shared {
    pub(crate) fn new(settings: Settings, stores: Stores, queue: Arc<dyn Queue>, teachers: Teachers) -> Self {
        let teachers = Arc::new(teachers);
        let works = settings.workers > 0;
        let at_work = Arc::new(AtWork::new(Arc::clone(&stores.jobs), &settings.name, settings.lease, works));
        let jobs = PreparedJobs::new(Arc::clone(&stores.jobs), Arc::clone(&teachers), Arc::clone(&at_work));
        let watchers_max = settings.watchers_max;
        Self {
            settings,
            stores,
            queue,
            teachers,
            jobs,
            at_work,
            trials: Trials::default(),
            positions: Positions::default(),
            stages: Stages::default(),
            watched_jobs: Watching::new(watchers_max),
            watched_models: Watching::new(watchers_max),
            deleted_models: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Pauses a job. One that was paused, ended or deleted in between needs no pause.
    pub(crate) async fn pause(&self, job: DistillationId, reason: &str) -> StoreResult<()> {
        match self.stores.jobs.pause(job, &wire::reason(reason)).await {
            Ok(_) | Err(StoreError::Conflict(_) | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends the trial of a job that has come further.
    pub(crate) async fn acquit(&self, job: DistillationId) -> StoreResult<()> {
        self.stores.jobs.clear_lost_harvesters(job).await?;
        tracing::info!(distillation = %job, "a job at which a harvester was lost has come further");
        Ok(())
    }

    /// Waits until something changed, the poll interval is over, or `shutdown`. Returns whether to continue.
    pub(crate) async fn idle(&self, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = self.changed.notified() => true,
            () = tokio::time::sleep(self.settings.poll) => true,
        }
    }
}
