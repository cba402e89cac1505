//! Opening the database, and how every method of the port is carried out: a bounded number of tries, each one
//! transaction, within a bounded time.

use crate::failure::{Attempt, Failure, Tries};
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
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres, Transaction};
use std::time::Duration;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgres");

/// A transaction on a connection of the pool.
pub(crate) type Tx = Transaction<'static, Postgres>;

/// How the database is used. Everything is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Connections of this process at most.
    pub connections_max: u32,
    /// A call waits so long for a connection, also while the server is away.
    pub connect_max: Duration,
    /// The server gives up a statement after this.
    pub statement_max: Duration,
    /// The server gives up waiting for another transaction after this.
    pub lock_max: Duration,
    /// A call ends after this, whatever became of the server.
    pub call_max: Duration,
    /// The same for the deletion of a job or a dataset, whose rows may be millions.
    pub deletion_max: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            connections_max: 16,
            connect_max: Duration::from_secs(5),
            statement_max: Duration::from_secs(30),
            lock_max: Duration::from_secs(10),
            call_max: Duration::from_secs(60),
            deletion_max: Duration::from_secs(600),
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is none.
    #[error(
        "the database's URL cannot be read ({0}): it looks like postgres://user:password@host:5432/database"
    )]
    Url(String),
    /// It does not answer, or refuses us.
    #[error("the database at {place} cannot be reached: {message}")]
    Unavailable {
        /// Host, port and name.
        place: String,
        /// What happened.
        message: String,
    },
    /// It has no records yet, or those of an older program.
    #[error(
        "the database at {place} has version {found}, and this program needs {needed}: run `distillery migrate`"
    )]
    Older {
        /// Host, port and name.
        place: String,
        /// Its version; 0 where it is empty.
        found: i64,
        /// This program's.
        needed: i64,
    },
    /// A newer program has migrated it.
    #[error(
        "the database at {place} has version {found}, and this program knows {needed}: use a newer version of it"
    )]
    Newer {
        /// Host, port and name.
        place: String,
        /// Its version.
        found: i64,
        /// This program's.
        needed: i64,
    },
    /// A migration failed, or is not the one that was applied.
    #[error("the database at {place} cannot be migrated: {message}")]
    Migration {
        /// Host, port and name.
        place: String,
        /// What happened.
        message: String,
    },
}

impl OpenError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url(_) => Fault::Invalid,
            Self::Unavailable { .. } => Fault::Unavailable,
            Self::Older { .. } | Self::Newer { .. } => Fault::Conflict,
            Self::Migration { .. } => Fault::Internal,
        }
    }
}

/// The records of a cluster. Clones of the process, and any number of replicas, share them.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    settings: PostgresSettings,
}

impl PostgresStore {
    /// Brings the database to this program's version, and returns that. Several may do it at the same time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn migrate(url: &str) -> Result<i64, OpenError> {
        let (options, place) = options(url)?;
        let mut connection = options.connect().await.map_err(unavailable(&place))?;
        let done = MIGRATIONS.run_direct(None, &mut connection, false).await;
        let found = version(&mut connection).await.map_err(unavailable(&place))?;
        let needed = Self::version();
        done.map_err(|error| match error {
            MigrateError::VersionMissing(_) if found > needed => {
                OpenError::Newer { place: place.clone(), found, needed }
            }
            other => OpenError::Migration { place: place.clone(), message: other.to_string() },
        })?;
        // A connection that does not close in order is closed by the server.
        let _ = connection.close().await;
        Ok(needed)
    }

    /// Opens a database of exactly this program's version; it changes nothing there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &str, settings: PostgresSettings) -> Result<Self, OpenError> {
        let (options, place) = options(url)?;
        let limit = |limit: Duration| limit.as_millis().to_string();
        let options = options.options([
            ("statement_timeout", limit(settings.statement_max)),
            ("lock_timeout", limit(settings.lock_max)),
            ("idle_in_transaction_session_timeout", limit(settings.call_max)),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(settings.connect_max)
            .connect_with(options)
            .await
            .map_err(unavailable(&place))?;
        let mut connection = pool.acquire().await.map_err(unavailable(&place))?;
        let found = version(&mut connection).await.map_err(unavailable(&place))?;
        let needed = Self::version();
        match found.cmp(&needed) {
            std::cmp::Ordering::Less => Err(OpenError::Older { place, found, needed }),
            std::cmp::Ordering::Greater => Err(OpenError::Newer { place, found, needed }),
            std::cmp::Ordering::Equal => Ok(Self { pool, settings }),
        }
    }

    /// The version of the records that this program reads and writes: the number of the newest migration.
    pub fn version() -> i64 {
        MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Ends every connection, once the calls under way have ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Where single statements are carried out.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction that writes.
    pub(crate) async fn begin(&self) -> Attempt<Tx> {
        Ok(self.pool.begin().await?)
    }

    /// A transaction that writes, and may take as long as a deletion takes.
    pub(crate) async fn begin_deletion(&self) -> Attempt<Tx> {
        let mut tx = self.pool.begin().await?;
        let limit = self.settings.deletion_max.as_millis().to_string();
        sqlx::query_scalar!("SELECT set_config('statement_timeout', $1, true)", limit)
            .fetch_one(&mut *tx)
            .await?;
        Ok(tx)
    }

    /// A transaction that reads one state of everything.
    pub(crate) async fn begin_reading(&self) -> Attempt<Tx> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }
}

fn options(url: &str) -> Result<(PgConnectOptions, String), OpenError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Url("it does not begin with postgres://".to_owned()));
    }
    let options: PgConnectOptions =
        url.parse().map_err(|error: sqlx::Error| OpenError::Url(error.to_string()))?;
    // The password is in the URL: an error names the rest.
    let database = options.get_database().unwrap_or_default();
    let place = format!("{}:{}/{database}", options.get_host(), options.get_port());
    Ok((options.application_name("distillery"), place))
}

fn unavailable(place: &str) -> impl Fn(sqlx::Error) -> OpenError {
    let place = place.to_owned();
    move |error| OpenError::Unavailable { place: place.clone(), message: error.to_string() }
}

/// The newest migration that was applied; 0 where there was none.
async fn version(connection: &mut PgConnection) -> sqlx::Result<i64> {
    // The table is sqlx's own, and absent from a database that was never migrated.
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !migrated {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

/// One try of a call, within its time.
async fn within<T>(limit: Duration, attempt: impl Future<Output = Attempt<T>> + Send) -> Attempt<T> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => {
            Err(Failure::Refused(StoreError::Unavailable(format!("the call did not end within {limit:?}"))))
        }
    }
}

macro_rules! delegate {
    ($($(#[$attribute:meta])* async fn $name:ident(&self $(, $argument:ident: $kind:ty)* $(,)?) -> $result:ty
        = $target:ident($($given:expr),*) within $limit:ident;)+) => {
        #[async_trait]
        impl Store for PostgresStore {
            $($(#[$attribute])* async fn $name(&self $(, $argument: $kind)*) -> StoreResult<$result> {
                let mut tries = Tries::default();
                loop {
                    // Boxed: the methods' states are large, and the port boxes them anyway.
                    let attempt = Box::pin(self.$target($($given),*));
                    match within(self.settings.$limit, attempt).await {
                        Ok(value) => return Ok(value),
                        Err(failure) => tries.again(failure).await?,
                    }
                }
            })+
        }
    };
}

delegate! {
    async fn create_dataset(&self, request: RequestId, name: &str) -> Dataset = dataset_create(request, name) within call_max;
    async fn append_rows(&self, dataset: DatasetId, offset: u64, rows: Vec<Example>) -> u64 = dataset_append(dataset, offset, &rows) within call_max;
    async fn commit_dataset(&self, dataset: DatasetId, fingerprint: &str) -> Dataset = dataset_commit(dataset, fingerprint) within call_max;
    async fn dataset(&self, dataset: DatasetId) -> Dataset = dataset_get(dataset) within call_max;
    async fn find_dataset(&self, name: &str) -> Option<Dataset> = dataset_find(name) within call_max;
    async fn find_dataset_by_fingerprint(&self, fingerprint: &str) -> Option<Dataset> = dataset_find_by_fingerprint(fingerprint) within call_max;
    async fn list_datasets(&self, page: &PageRequest) -> Page<Dataset> = dataset_list(page) within call_max;
    async fn delete_dataset(&self, dataset: DatasetId) -> () = dataset_delete(dataset) within deletion_max;
    async fn rows(&self, dataset: DatasetId, split: Option<Split>, from: u64, limit: usize) -> Vec<Row> = dataset_rows(dataset, split, from, limit) within call_max;
    async fn row_counts(&self, dataset: DatasetId, split: Split) -> RowCounts = dataset_row_counts(dataset, split) within call_max;
    async fn create_distillation(&self, new: NewDistillation) -> Distillation = job_create(&new) within call_max;
    async fn plan_prompts(&self, distillation: DistillationId, prompts: Vec<NewPrompt>) -> () = prompt_plan(distillation, &prompts) within call_max;
    async fn distillation(&self, distillation: DistillationId) -> Distillation = job_get(distillation) within call_max;
    async fn list_distillations(&self, filter: &DistillationFilter, page: &PageRequest) -> Page<Distillation> = job_list(filter, page) within call_max;
    async fn transition(&self, distillation: DistillationId, from: &[DistillationState], to: DistillationState, reason: &str) -> Distillation = job_transition(distillation, from, to, reason) within call_max;
    async fn pause(&self, distillation: DistillationId, reason: &str) -> Distillation = job_pause(distillation, reason) within call_max;
    async fn resume(&self, distillation: DistillationId) -> Distillation = job_resume(distillation) within call_max;
    async fn cancel(&self, distillation: DistillationId, reason: &str) -> Distillation = job_cancel(distillation, reason) within call_max;
    async fn delete_distillation(&self, distillation: DistillationId) -> () = job_delete(distillation) within deletion_max;
    async fn claim_distillations(&self, driver: &str, lease: Duration, limit: usize) -> Vec<Distillation> = job_claim(driver, lease, limit) within call_max;
    async fn record_teacher(&self, distillation: DistillationId, accuracy: Option<Accuracy>, harvest_seconds: f64) -> () = job_record_teacher(distillation, accuracy, harvest_seconds) within call_max;
    async fn events(&self, distillation: DistillationId, after: u64, limit: usize) -> Vec<Event> = job_events(distillation, after, limit) within call_max;
    async fn append_event(&self, distillation: DistillationId, kind: EventKind) -> u64 = job_append_event(distillation, &kind) within call_max;
    async fn harvest_progress(&self, distillation: DistillationId) -> HarvestProgress = job_progress(distillation) within call_max;
    async fn outbox(&self, limit: usize) -> Vec<Work> = prompt_outbox(limit) within call_max;
    async fn mark_published(&self, prompts: &[PromptId]) -> () = prompt_mark_published(prompts) within call_max;
    async fn unfinished_prompts(&self, after: Option<PromptId>, limit: usize) -> Vec<Work> = prompt_unfinished(after, limit) within call_max;
    async fn lease_prompts(&self, prompts: &[PromptId], worker: &str, lease: Duration) -> LeaseOutcome = lease_take(prompts, worker, lease) within call_max;
    async fn heartbeat_prompts(&self, leases: &[(PromptId, u32)], lease: Duration) -> Vec<PromptId> = lease_heartbeat(leases, lease) within call_max;
    async fn record_harvest(&self, harvested: Vec<Harvested>) -> HarvestOutcome = ledger_record(&harvested) within call_max;
    async fn record_failure(&self, prompt: PromptId, attempt: u32, failure: AttemptFailure) -> PromptState = lease_fail(prompt, attempt, &failure) within call_max;
    async fn prompt(&self, prompt: PromptId) -> Prompt = prompt_get(prompt) within call_max;
    async fn prompts_in_state(&self, distillation: DistillationId, state: PromptState, after_row: Option<u64>, limit: usize) -> Vec<Prompt> = prompt_in_state(distillation, state, after_row, limit) within call_max;
    async fn completion(&self, key: CompletionKey) -> Option<Completion> = ledger_completion(key) within call_max;
    async fn record_imported(&self, distillation: DistillationId, prompts: Vec<(NewPrompt, Harvested)>) -> () = ledger_record_imported(distillation, &prompts) within call_max;
    async fn ledger(&self, distillation: DistillationId, filter: &LedgerFilter, limit: usize) -> Vec<LedgerEntry> = ledger_page(distillation, filter, limit) within call_max;
    async fn record_verdicts(&self, distillation: DistillationId, verdicts: Vec<VerdictUpdate>) -> () = ledger_verdicts(distillation, &verdicts) within call_max;
    async fn start_training(&self, distillation: DistillationId, ledger_fingerprint: &str) -> Run = run_start(distillation, ledger_fingerprint) within call_max;
    async fn lease_run(&self, trainer: &str, lease: Duration) -> Option<LeasedRun> = run_lease(trainer, lease) within call_max;
    async fn report_run(&self, run: RunId, fence: u64, step: u64, metrics: Vec<MetricPoint>, lease: Duration) -> RunInstruction = run_report(run, fence, step, &metrics, lease) within call_max;
    async fn save_resume_point(&self, run: RunId, fence: u64, step: u64, path: &str) -> Option<String> = run_save_resume_point(run, fence, step, path) within call_max;
    async fn start_evaluating(&self, run: RunId, fence: u64) -> () = run_start_evaluating(run, fence) within call_max;
    async fn publish_run(&self, run: RunId, fence: u64, model: NewModel) -> Model = run_publish(run, fence, &model) within call_max;
    async fn fail_run(&self, run: RunId, fence: u64, reason: &str) -> () = run_fail(run, fence, reason) within call_max;
    async fn release_run(&self, run: RunId, fence: u64) -> () = run_release(run, fence) within call_max;
    async fn run(&self, run: RunId) -> Run = run_get(run) within call_max;
    async fn training_examples(&self, run: RunId, split: Split, from: u64, limit: usize) -> Vec<TrainingExample> = run_examples(run, split, from, limit) within call_max;
    async fn metrics(&self, run: RunId, name: Option<&str>, limit: usize) -> Vec<MetricPoint> = run_metrics(run, name, limit) within call_max;
    async fn model(&self, model: ModelId) -> Model = model_get(model) within call_max;
    async fn find_model(&self, name: &str, version: Option<u64>) -> Option<Model> = model_find(name, version) within call_max;
    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> Page<Model> = model_list(name, page) within call_max;
    async fn delete_model(&self, model: ModelId) -> Model = model_delete(model) within call_max;
    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> BaseModel = model_register_base(name, manifest_sha256) within call_max;
    async fn base_model(&self, name: &str) -> Option<BaseModel> = model_base(name) within call_max;
}
