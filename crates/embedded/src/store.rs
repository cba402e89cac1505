//! Opening the database, and the one way to write to it.

use crate::row::internal;
use async_trait::async_trait;
use domain::event::{Event, EventKind};
use domain::example::Row;
use domain::ids::{CompletionKey, DatasetId, DistillationId, ModelId, PromptId, RequestId, RunId};
use domain::metric::Accuracy;
use domain::objective::TrainingExample;
use domain::queue::Work;
use domain::records::{
    BaseModel, Completion, Dataset, Distillation, HarvestProgress, Harvested, LeasedRun, LedgerEntry,
    MetricPoint, Model, NewDistillation, NewModel, NewPrompt, Prompt, RowCounts, Run, VerdictUpdate,
};
use domain::state::{DistillationState, PromptState};
use domain::store::{
    AttemptFailure, DistillationFilter, HarvestOutcome, LeaseOutcome, LedgerFilter, Page, PageRequest,
    RunInstruction, StoreError, StoreResult,
};
use domain::{Example, Fault, Split, Store};
use fs4::FileExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Sqlite, SqliteConnection, SqlitePool, Transaction};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

/// The database's name in the data folder.
const DATABASE: &str = "distillery.db";
/// The lock's name in the data folder.
const LOCK: &str = "lock";
/// How long a reader waits for a checkpoint of the write-ahead log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// How often, and how long in between, a lock that another process holds is tried.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

/// Milliseconds since the Unix epoch, from wherever tests want them.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: wait for it, end it, or use another --data-dir", .0.display())]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer version of this program: use that version, or another --data-dir", .0.display())]
    Newer(PathBuf),
    /// It is damaged, or no database at all.
    #[error("{}: {message}: restore it from a copy, or use another --data-dir", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What happened.
        message: String,
    },
}

impl OpenError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::InUse(_) | Self::Newer(_) => Fault::Conflict,
            Self::Io { .. } | Self::Database { .. } => Fault::Unavailable,
        }
    }
}

/// Takes the lock of a data folder. A process that is just ending, or one that is just being started by its holder, has
/// it for a moment longer.
async fn hold(lock: &File) -> Result<(), ()> {
    for _ in 0..LOCK_TRIES {
        if FileExt::try_lock(lock).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    FileExt::try_lock(lock).map_err(drop)
}

/// The records of one machine. A committed write survives the process's end at any instant; after a loss of power the
/// newest commits may be missing, and the database is whole.
pub struct SqliteStore {
    /// `None` once the store is closed.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    clock: Clock,
    /// Held for as long as the store lives.
    _lock: File,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the data folder, made where it is absent, and brings its database to this program's version.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(folder: &Path) -> Result<Self, OpenError> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self::open_with_clock(folder, Arc::new(now)).await
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with_clock(folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        hold(&lock).await.map_err(|()| OpenError::InUse(folder.to_owned()))?;
        let path = folder.join(DATABASE);
        let database =
            |error: sqlx::Error| OpenError::Database { path: path.clone(), message: error.to_string() };
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(database)?;
        MIGRATIONS.run_direct(None, &mut writer, false).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => OpenError::Newer(path.clone()),
            other => OpenError::Database { path: path.clone(), message: other.to_string() },
        })?;
        end_leases(&mut writer).await.map_err(database)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(database)?;
        Ok(Self { writer: Mutex::new(Some(writer)), readers, clock, _lock: lock })
    }

    /// The database's version: the number of the newest migration.
    pub fn version() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Ends every connection; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.close().await
        {
            tracing::warn!(%error, "the database is not closed in order: the next one to open it mends that");
        }
    }

    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(crate) async fn write(&self) -> StoreResult<Writer<'_>> {
        let connection = MutexGuard::try_map(self.writer.lock().await, Option::as_mut)
            .map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))?;
        Ok(Writer { connection })
    }
}

/// The lock says that no other process is at work here: whoever held a lease is gone, and nobody need wait for its end.
async fn end_leases(writer: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query!("UPDATE distillations SET driver_until = 0 WHERE driver_until > 0")
        .execute(&mut *writer)
        .await?;
    sqlx::query!("UPDATE prompts SET lease_until = 0 WHERE state = 'leased'").execute(&mut *writer).await?;
    sqlx::query!("UPDATE runs SET lease_until = 0 WHERE state = 'leased'").execute(&mut *writer).await?;
    Ok(())
}

/// The one connection that writes, for as long as a method needs it.
pub(crate) struct Writer<'a> {
    connection: MappedMutexGuard<'a, SqliteConnection>,
}

impl Writer<'_> {
    /// A transaction that holds the database's write lock from its beginning: it never fails half-way for want of it.
    pub(crate) async fn begin(&mut self) -> StoreResult<Transaction<'_, Sqlite>> {
        self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(internal)
    }
}

macro_rules! delegate {
    ($($(#[$attribute:meta])* async fn $name:ident(&self $(, $argument:ident: $kind:ty)* $(,)?) -> $result:ty = $target:ident;)+) => {
        #[async_trait]
        impl Store for SqliteStore {
            $($(#[$attribute])* async fn $name(&self $(, $argument: $kind)*) -> $result {
                self.$target($($argument),*).await
            })+
        }
    };
}

delegate! {
    async fn create_dataset(&self, request: RequestId, name: &str) -> StoreResult<Dataset> = dataset_create;
    async fn append_rows(&self, dataset: DatasetId, offset: u64, rows: Vec<Example>) -> StoreResult<u64> = dataset_append;
    async fn commit_dataset(&self, dataset: DatasetId, fingerprint: &str) -> StoreResult<Dataset> = dataset_commit;
    async fn dataset(&self, dataset: DatasetId) -> StoreResult<Dataset> = dataset_get;
    async fn find_dataset(&self, name: &str) -> StoreResult<Option<Dataset>> = dataset_find;
    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> StoreResult<Option<Dataset>> = dataset_find_by_fingerprint;
    async fn list_datasets(&self, page: &PageRequest) -> StoreResult<Page<Dataset>> = dataset_list;
    async fn delete_dataset(&self, dataset: DatasetId) -> StoreResult<()> = dataset_delete;
    async fn rows(&self, dataset: DatasetId, split: Option<Split>, from: u64, limit: usize) -> StoreResult<Vec<Row>> = dataset_rows;
    async fn row_counts(&self, dataset: DatasetId, split: Split) -> StoreResult<RowCounts> = dataset_row_counts;
    async fn create_distillation(&self, new: NewDistillation) -> StoreResult<Distillation> = job_create;
    async fn plan_prompts(&self, distillation: DistillationId, prompts: Vec<NewPrompt>) -> StoreResult<()> = job_plan;
    async fn distillation(&self, distillation: DistillationId) -> StoreResult<Distillation> = job_get;
    async fn list_distillations(&self, filter: &DistillationFilter, page: &PageRequest) -> StoreResult<Page<Distillation>> = job_list;
    async fn transition(&self, distillation: DistillationId, from: &[DistillationState], to: DistillationState, reason: &str) -> StoreResult<Distillation> = job_transition;
    async fn pause(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation> = job_pause;
    async fn resume(&self, distillation: DistillationId) -> StoreResult<Distillation> = job_resume;
    async fn cancel(&self, distillation: DistillationId, reason: &str) -> StoreResult<Distillation> = job_cancel;
    async fn delete_distillation(&self, distillation: DistillationId) -> StoreResult<()> = job_delete;
    async fn claim_distillations(&self, driver: &str, lease: Duration, limit: usize) -> StoreResult<Vec<Distillation>> = job_claim;
    async fn record_teacher(&self, distillation: DistillationId, accuracy: Option<Accuracy>, harvest_seconds: f64) -> StoreResult<()> = job_record_teacher;
    async fn events(&self, distillation: DistillationId, after: u64, limit: usize) -> StoreResult<Vec<Event>> = job_events;
    async fn append_event(&self, distillation: DistillationId, kind: EventKind) -> StoreResult<u64> = job_append_event;
    async fn harvest_progress(&self, distillation: DistillationId) -> StoreResult<HarvestProgress> = job_progress;
    async fn outbox(&self, limit: usize) -> StoreResult<Vec<Work>> = prompt_outbox;
    async fn mark_published(&self, prompts: &[PromptId]) -> StoreResult<()> = prompt_mark_published;
    async fn unfinished_prompts(&self, after: Option<PromptId>, limit: usize) -> StoreResult<Vec<Work>> = prompt_unfinished;
    async fn lease_prompts(&self, prompts: &[PromptId], worker: &str, lease: Duration) -> StoreResult<LeaseOutcome> = prompt_lease;
    async fn heartbeat_prompts(&self, leases: &[(PromptId, u32)], lease: Duration) -> StoreResult<Vec<PromptId>> = prompt_heartbeat;
    async fn record_harvest(&self, harvested: Vec<Harvested>) -> StoreResult<HarvestOutcome> = prompt_record;
    async fn record_failure(&self, prompt: PromptId, attempt: u32, failure: AttemptFailure) -> StoreResult<PromptState> = prompt_fail;
    async fn prompt(&self, prompt: PromptId) -> StoreResult<Prompt> = prompt_get;
    async fn prompts_in_state(&self, distillation: DistillationId, state: PromptState, after_row: Option<u64>, limit: usize) -> StoreResult<Vec<Prompt>> = prompt_in_state;
    async fn completion(&self, key: CompletionKey) -> StoreResult<Option<Completion>> = prompt_completion;
    async fn record_imported(&self, distillation: DistillationId, prompts: Vec<(NewPrompt, Harvested)>) -> StoreResult<()> = prompt_record_imported;
    async fn ledger(&self, distillation: DistillationId, filter: &LedgerFilter, limit: usize) -> StoreResult<Vec<LedgerEntry>> = prompt_ledger;
    async fn record_verdicts(&self, distillation: DistillationId, verdicts: Vec<VerdictUpdate>) -> StoreResult<()> = prompt_verdicts;
    async fn start_training(&self, distillation: DistillationId, ledger_fingerprint: &str) -> StoreResult<Run> = run_start;
    async fn lease_run(&self, trainer: &str, lease: Duration) -> StoreResult<Option<LeasedRun>> = run_lease;
    async fn report_run(&self, run: RunId, fence: u64, step: u64, metrics: Vec<MetricPoint>, lease: Duration) -> StoreResult<RunInstruction> = run_report;
    async fn save_resume_point(&self, run: RunId, fence: u64, step: u64, path: &str) -> StoreResult<Option<String>> = run_save_resume_point;
    async fn start_evaluating(&self, run: RunId, fence: u64) -> StoreResult<()> = run_start_evaluating;
    async fn publish_run(&self, run: RunId, fence: u64, model: NewModel) -> StoreResult<Model> = run_publish;
    async fn fail_run(&self, run: RunId, fence: u64, reason: &str) -> StoreResult<()> = run_fail;
    async fn release_run(&self, run: RunId, fence: u64) -> StoreResult<()> = run_release;
    async fn run(&self, run: RunId) -> StoreResult<Run> = run_get;
    async fn training_examples(&self, run: RunId, split: Split, from: u64, limit: usize) -> StoreResult<Vec<TrainingExample>> = run_examples;
    async fn metrics(&self, run: RunId, name: Option<&str>, limit: usize) -> StoreResult<Vec<MetricPoint>> = run_metrics;
    async fn model(&self, model: ModelId) -> StoreResult<Model> = model_get;
    async fn find_model(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>> = model_find;
    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> StoreResult<Page<Model>> = model_list;
    async fn delete_model(&self, model: ModelId) -> StoreResult<Model> = model_delete;
    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> StoreResult<BaseModel> = model_register_base;
    async fn base_model(&self, name: &str) -> StoreResult<Option<BaseModel>> = model_base;
}
