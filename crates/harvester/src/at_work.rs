//! At which jobs this process is at work, for whoever finds that it was lost: what may end a process leaves a mark in the store
//! before it begins. One that stays behind counts against its job.
//!
//! A mark is kept for a while after the work ends, so that a job of many prompts costs a write now and then, and not one for each.

use domain::JobStore;
use domain::ids::DistillationId;
use domain::ports::StoreResult;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The jobs that this process is at work at.
pub(crate) struct AtWork {
    store: Arc<dyn JobStore>,
    harvester: String,
    lease: Duration,
    /// `None` where nobody works in this process, or prolongs its marks: it only answers.
    marked: Option<Mutex<HashMap<DistillationId, Mark>>>,
}

/// This process is at work at a job for as long as one is held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark(Arc<()>);

impl Mark {
    /// Whether somebody besides the list of marks holds it.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl AtWork {
    pub(crate) fn new(store: Arc<dyn JobStore>, harvester: &str, lease: Duration, works: bool) -> Self {
        Self { store, harvester: harvester.to_owned(), lease, marked: works.then(Mutex::default) }
    }

    /// Marks a job before something is done that may end the process.
    pub(crate) async fn at(&self, job: DistillationId) -> StoreResult<Mark> {
        let Some(marked) = &self.marked else { return Ok(Mark::default()) };
        // Held while it is written, so that nobody goes on before that.
        let mut marked = marked.lock().await;
        if let Some(mark) = marked.get(&job) {
            return Ok(mark.clone());
        }
        let jobs: Vec<DistillationId> = marked.keys().copied().chain([job]).collect();
        self.store.note_at_work(&self.harvester, &jobs, self.lease).await?;
        Ok(marked.entry(job).or_default().clone())
    }

    /// Takes the mark of a job back at once, unless somebody is at work at it.
    pub(crate) async fn leave(&self, job: DistillationId) -> StoreResult<()> {
        let Some(marked) = &self.marked else { return Ok(()) };
        let mut marked = marked.lock().await;
        if marked.get(&job).is_none_or(Mark::is_held) {
            return Ok(());
        }
        let others: Vec<DistillationId> = marked.keys().copied().filter(|other| *other != job).collect();
        self.store.note_at_work(&self.harvester, &others, self.lease).await?;
        marked.remove(&job);
        Ok(())
    }

    /// Prolongs the marks that are held, and takes back the others.
    async fn keep(&self) -> StoreResult<()> {
        let Some(marked) = &self.marked else { return Ok(()) };
        let mut marked = marked.lock().await;
        if marked.is_empty() {
            return Ok(());
        }
        let held = marked.iter().filter(|(_, mark)| mark.is_held());
        let jobs: Vec<DistillationId> = held.map(|(job, _)| *job).collect();
        self.store.note_at_work(&self.harvester, &jobs, self.lease).await?;
        // After it is written: a mark that could not be taken back is taken back the next time.
        marked.retain(|job, _| jobs.contains(job));
        Ok(())
    }
}

/// Keeps the marks of this process until `stopped`, when its work has ended; then takes them back.
pub(crate) async fn run(at_work: Arc<AtWork>, stopped: CancellationToken) {
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            () = stopped.cancelled() => is_last = true,
            () = tokio::time::sleep(at_work.lease / 3) => {}
        }
        if let Err(error) = at_work.keep().await {
            tracing::warn!(%error, "what this process is at work at cannot be noted");
        }
    }
}
