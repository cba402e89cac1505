//! The composition root of one machine: SQLite, a queue in memory, and the roles that a verb needs, speaking gRPC to each
//! other over memory.

use crate::checkpoint_store::{self, Writers};
use crate::config::Config;
use crate::migrated::Migrated;
use crate::records::{self, Records};
use crate::test_answers::{self, TestAnswers};
use crate::{roles, teachers, transport};
use anyhow::anyhow;
use checkpoints::{Checkpoints, Predictions};
use domain::Split;
use domain::ids::RunId;
use domain::metric::Accuracy;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::Channel;

/// What works in this process, besides the records and their API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The records are changed: no other process works in the data folder.
    writes: bool,
    /// The operator's teachers are known, to plan with and to probe.
    plans: bool,
    harvests: bool,
    trains: bool,
}

impl Scope {
    /// The records to look things up in, also while another process works in the data folder.
    pub const READ: Self = Self { writes: false, plans: false, harvests: false, trains: false };
    /// The records alone: importing, cancelling, deleting.
    pub const RECORDS: Self = Self { writes: true, plans: false, harvests: false, trains: false };
    /// The records, and the teachers to plan with: no job is worked on.
    pub const PLAN: Self = Self { writes: true, plans: true, harvests: false, trains: false };
    /// Harvesting and training too.
    pub const DISTIL: Self = Self { writes: true, plans: true, harvests: true, trains: true };
    /// Training alone: no teacher is asked, not even for other jobs of the data folder.
    pub const TRAIN: Self = Self { writes: true, plans: false, harvests: false, trains: true };
}

/// The system on one machine.
#[derive(Debug)]
pub struct Local {
    channel: Channel,
    records: Records,
    /// Opened once: opening clears what an earlier process left unfinished.
    checkpoints: Checkpoints,
    /// Ends the roles; the API they speak to ends after them.
    roles_end: CancellationToken,
    api_end: CancellationToken,
    tasks: TaskTracker,
    failure: watch::Receiver<Option<String>>,
}

impl Local {
    /// Opens the data folder and starts the roles, which end with `shutdown` or with [`Local::close`].
    ///
    /// # Errors
    /// The folder is in use, damaged or cannot be written; a teacher profile is wrong.
    pub async fn open(mut config: Config, which: Scope, shutdown: CancellationToken) -> anyhow::Result<Self> {
        // Whoever starts this once more is the retry: nothing is given up for the processes that were lost before.
        config.harvester.lost_trainers_max = u64::MAX;
        config.harvester.lost_harvesters_max = u64::MAX;
        let (records, writers) = if which.writes {
            (records::open(&config).await?, Writers::Alone)
        } else {
            (records::open_to_read(&config).await?, Writers::Many)
        };
        let checkpoints = checkpoint_store::open(&config, writers)?;
        let teachers = if which.plans { records::teachers(&config, &records)? } else { BTreeMap::new() };
        // No other process works for a verb.
        let workers = if which.harvests { config.harvester.workers.max(1) } else { 0 };
        let harvester = records::harvester(&config, workers, &records, teachers);
        let api_end = CancellationToken::new();
        let channel = transport::in_memory(harvester.routes(), api_end.clone()).await?;
        let roles_end = shutdown.child_token();
        let tasks = TaskTracker::new();
        let (failed, failure) = watch::channel(None);
        if which.harvests {
            let end = roles_end.clone();
            tasks.spawn(async move { harvester.run(end).await });
        }
        if which.trains {
            let (end, channel, checkpoints) = (roles_end.clone(), channel.clone(), checkpoints.clone());
            let reached = CancellationToken::new();
            tasks.spawn(async move {
                if let Err(error) =
                    roles::train(config, roles::Harvester::Here, channel, checkpoints, reached, end).await
                {
                    failed.send_replace(Some(format!("the trainer ended: {error:#}")));
                    // Kept until the process has read it.
                    failed.closed().await;
                }
            });
        }
        tasks.close();
        Ok(Self { channel, records, checkpoints, roles_end, api_end, tasks, failure })
    }

    /// To the services.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Resolves when a role ended that should not have.
    pub async fn failed(&self) -> anyhow::Error {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(words) => anyhow!(words.clone().unwrap_or_default()),
            // No role is running that could fail.
            Err(_) => std::future::pending().await,
        }
    }

    /// The accuracy of the student in `folder` on the test rows that its teacher was measured on, at most `rows_max` of them;
    /// `None` where the folder has no predictions, or where these are all of its test rows.
    ///
    /// # Errors
    /// The predictions cannot be read.
    pub fn accuracy_on_teachers_rows(
        &self,
        folder: &Path,
        rows_max: u32,
    ) -> anyhow::Result<Option<Accuracy>> {
        let Some(predictions) = Predictions::read(folder, Split::Test)? else { return Ok(None) };
        let rows: Vec<u64> = predictions.rows.iter().map(|row| row.row).collect();
        if rows.len() <= usize::try_from(rows_max).unwrap_or(usize::MAX) {
            return Ok(None);
        }
        let chosen = domain::subset::sample(rows, rows_max);
        let measured = || predictions.rows.iter().filter(|row| chosen.contains(&row.row));
        let count =
            |is: fn(&checkpoints::Prediction) -> bool| measured().filter(|row| is(row)).count() as u64;
        Ok(Some(Accuracy::measure(count(|_| true), count(|row| row.correct), count(|row| row.parsed))))
    }

    /// What the student of a checkpoint answered to the test rows.
    ///
    /// # Errors
    /// Its checkpoint is absent or damaged.
    pub async fn test_answers(&self, path: &str, manifest_sha256: &str) -> anyhow::Result<TestAnswers> {
        test_answers::read(self.checkpoints.clone(), path, manifest_sha256).await
    }

    /// Ends in order: the roles finish what is asked and hand back their leases, then the API, then the database.
    ///
    /// # Errors
    /// None so far; later adapters may have some.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { channel, records, roles_end, api_end, tasks, failure, .. } = self;
        drop(failure);
        roles_end.cancel();
        tasks.wait().await;
        drop(channel);
        api_end.cancel();
        records.close().await;
        Ok(())
    }

    /// Copies a checkpoint folder in and registers it; the name says its content.
    ///
    /// # Errors
    /// The folder is not a checkpoint that a student can start from: [`crate::base::Refused`]. Or it cannot be copied.
    pub async fn register_base(&self, name: &str, folder: &Path) -> anyhow::Result<String> {
        crate::base::copy_and_register(&self.channel, self.checkpoints.clone(), name, folder).await
    }

    /// Where the checkpoint of a published model lies.
    ///
    /// # Errors
    /// The path is not one of the store's.
    pub fn checkpoint_folder(&self, path: &str) -> anyhow::Result<PathBuf> {
        Ok(self.checkpoints.folder(path)?)
    }

    /// The same, every file as its manifest says.
    ///
    /// # Errors
    /// It is absent or damaged.
    pub async fn verified_folder(&self, path: &str, manifest_sha256: &str) -> anyhow::Result<PathBuf> {
        checkpoint_store::fetch(self.checkpoints.clone(), path, manifest_sha256).await
    }

    /// Deletes what the trainers of a run left in the checkpoint store.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub async fn delete_run(&self, run: RunId) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints.clone();
        Ok(tokio::task::spawn_blocking(move || checkpoints.delete_run(&run.to_string())).await??)
    }
}

/// Why the teacher profile `name` cannot be used without its key; `None` where its key is present or not needed.
pub fn teacher_without_key(config: &Config, name: &str) -> Option<String> {
    teachers::without_key(&config.teachers, name)
}

/// Brings the configured database, or that of the data folder, to this program's version.
///
/// # Errors
/// There is none, it cannot be reached, is in use, damaged, or written by a newer program.
pub async fn migrate(config: &Config) -> anyhow::Result<Migrated> {
    records::migrate(config).await
}
