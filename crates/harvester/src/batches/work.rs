//! A claimed batch, and its steps.

use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::meters::{self, BatchEvent};
use crate::shared::Shared;
use domain::Fault;
use domain::budget::CallEnd;
use domain::ports::{AttemptFailure, BATCH_MAX, BatchLine, LineEnd, StoreError};
use domain::records::Batch;
use domain::state::{BatchState, DistillationState};
use std::sync::Arc;
use std::time::Duration;
use teacher::{BatchStatus, BatchTeacher, Teacher, TeacherError};
use tokio_util::sync::CancellationToken;

/// A batch is looked at after this part of the time that it has been waited for, and not more seldom than this.
pub(super) const POLL_SHARE: u32 = 20;
pub(super) const POLL_MAX: Duration = Duration::from_secs(5 * 60);
/// When a provider that has too much enqueued is tried again.
pub(super) const ENQUEUED_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long after its longest time a request to create a batch may still be worked on by the provider.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// A claimed batch.
pub(super) struct BatchWork<'a> {
    pub(super) shared: &'a Shared,
    pub(super) batch: &'a Batch,
    pub(super) shutdown: &'a CancellationToken,
}

impl BatchWork<'_> {
    /// Takes the batch one step further. Returns how long it waits then.
    pub(super) async fn step(&self) -> Result<Duration, HarvestError> {
        let record = match self.shared.stores.jobs.distillation(self.batch.distillation).await {
            Ok(record) => record,
            // It was deleted, and the batch with it.
            Err(StoreError::NotFound { .. }) => return Ok(POLL_MAX),
            Err(error) => return Err(error.into()),
        };
        let is_wanted = record.state == DistillationState::Harvesting;
        if self.batch.state == BatchState::Ready && !is_wanted {
            self.give_up("its job stopped before it was submitted", BatchEvent::Released).await?;
            return Ok(Duration::ZERO);
        }
        let job = self.shared.jobs.get(self.batch.distillation).await?;
        let Some(teacher) = job.teacher(self.batch.profile).and_then(Teacher::batches) else {
            return Err(HarvestError::Stuck(
                "the profile of this job has no batch API here any more: write `batch = true` into it, then resume"
                    .to_owned(),
            ));
        };
        match self.batch.state {
            BatchState::Ready => self.submit(&job, teacher).await,
            BatchState::Submitting => self.look_for(teacher).await,
            BatchState::Submitted => self.follow(&job, teacher, is_wanted).await,
            BatchState::Preparing | BatchState::Ended => Ok(POLL_MAX),
        }
    }

    /// Waits for a submitted batch, and collects it once it is over.
    async fn follow(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
        is_wanted: bool,
    ) -> Result<Duration, HarvestError> {
        let name = &self.batch.name;
        match teacher.status(name).await? {
            BatchStatus::Running { is_cancelling } => {
                if !is_wanted && !is_cancelling {
                    tracing::info!(batch = %self.batch.id, name, "a batch is cancelled: its job does not harvest");
                    teacher.cancel(name).await?;
                    return Ok(self.shared.settings.batch_poll);
                }
                Ok(self.poll())
            }
            BatchStatus::Over(output) => self.collect(job, teacher, &output, is_wanted).await,
            BatchStatus::Gone(words) => {
                let words = format!("teacher `{}` {words}", teacher.profile().name);
                self.doubt(&words).await?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// When to look again: often at first.
    pub(super) fn poll(&self) -> Duration {
        let least = self.shared.settings.batch_poll;
        (Duration::from_millis(self.batch.in_state_ms) / POLL_SHARE).clamp(least, POLL_MAX.max(least))
    }

    /// Prolongs the lease for as long as it holds.
    pub(super) async fn beat(&self) {
        let (name, lease) = (&self.shared.settings.name, self.shared.settings.lease);
        loop {
            tokio::time::sleep(lease / 3).await;
            match self.shared.stores.batches.renew_batch(self.batch.id, name, lease).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, batch = %self.batch.id, "the lease of a batch is not prolonged")
                }
            }
        }
    }

    /// Ends a batch that was not asked: its prompts wait again, and nothing is spent.
    pub(super) async fn give_up(&self, note: &str, event: BatchEvent) -> Result<(), HarvestError> {
        self.end_rest(|line| line_end(line, CallEnd::Refused, AttemptFailure::Delayed)).await?;
        self.end(note, event).await
    }

    /// Ends every line that is left in the way that `how` says.
    pub(super) async fn end_rest(&self, how: impl Fn(&BatchLine) -> LineEnd) -> Result<u64, HarvestError> {
        let (mut after, mut count) = (None, 0_u64);
        loop {
            let lines = self.shared.stores.batches.batch_lines(self.batch.id, after, BATCH_MAX).await?;
            let Some(last) = lines.last() else { return Ok(count) };
            after = Some(last.call);
            count = count.saturating_add(lines.len() as u64);
            let ended: Vec<LineEnd> = lines.iter().map(&how).collect();
            self.shared.stores.batches.end_lines(&ended).await?;
        }
    }

    pub(super) async fn end(&self, note: &str, event: BatchEvent) -> Result<(), HarvestError> {
        self.shared.stores.batches.end_batch(self.batch.id, note).await?;
        meters::batch(event);
        tracing::info!(batch = %self.batch.id, note, "a batch has ended");
        self.shared.positions.wake(self.batch.distillation);
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Ends a batch of which nobody can tell whether it is asked and paid: a person decides.
    pub(super) async fn doubt(&self, words: &str) -> Result<(), HarvestError> {
        self.end(words, BatchEvent::InDoubt).await?;
        let lines = self.batch.lines;
        let reason = format!(
            "{words}: its {lines} calls may have been paid, and count at their bounds. Look at the provider's list of batches for \
             {}/{}; resume to ask what is not answered again",
            self.batch.id, self.batch.submission
        );
        Ok(self.shared.pause(self.batch.distillation, &reason).await?)
    }

    /// What becomes of a failure: the batch is tried again after the returned wait, and a failure that only a person ends
    /// pauses its job.
    pub(super) async fn handle(&self, error: &HarvestError) -> Duration {
        tracing::warn!(%error, batch = %self.batch.id, state = %self.batch.state, "a batch waits");
        let least = self.shared.settings.batch_poll;
        if let HarvestError::Teacher(TeacherError::Wait { wait, .. }) = error {
            return (*wait).max(least);
        }
        match error.fault() {
            Fault::Unavailable | Fault::Overloaded => least,
            Fault::NotFound | Fault::Conflict | Fault::Invalid | Fault::Denied | Fault::Internal => {
                if let Err(error) = self.shared.pause(self.batch.distillation, &error.to_string()).await {
                    tracing::warn!(%error, batch = %self.batch.id, "the job of a batch is not paused");
                }
                self.poll()
            }
        }
    }
}

pub(super) fn line_end(line: &BatchLine, end: CallEnd, failure: AttemptFailure) -> LineEnd {
    LineEnd { call: line.call, end, prompt: line.prompt.id, attempt: line.prompt.attempt, failure }
}
