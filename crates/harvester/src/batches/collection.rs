//! A batch that is over is collected: its results line by line, then what they lack.

use super::work::{BatchWork, ENQUEUED_WAIT, line_end};
use crate::error::HarvestError;
use crate::job::{self, PreparedJob};
use crate::meters::{self, BatchEvent};
use crate::writing::Answers;
use domain::budget::CallEnd;
use domain::ids::CallId;
use domain::ports::{AttemptFailure, BatchLine, LineEnd};
use domain::records::Harvested;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use teacher::{BatchAnswer, BatchClose, BatchOutput, BatchTeacher, LineSaid, TeacherError};

/// Lines that are settled at once.
const CHUNK: usize = 200;

/// What was read of a batch's results.
#[derive(Debug, Default)]
struct Read {
    answers: u64,
    nameless: u64,
    /// A failure that only a person ends.
    stuck: Option<String>,
}

impl BatchWork<'_> {
    /// Collects a batch that is over. Returns how long it waits then.
    pub(super) async fn collect(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
        output: &BatchOutput,
        is_wanted: bool,
    ) -> Result<Duration, HarvestError> {
        if let BatchClose::Refused { message, is_temporary } = &output.close {
            return self.refused(teacher, message, *is_temporary && is_wanted).await;
        }
        let _at_work = self.shared.at_work.at(self.batch.distillation).await?;
        let Some(read) = self.read(job, teacher, output).await? else { return Ok(Duration::ZERO) };
        if read.nameless > 0 {
            tracing::warn!(batch = %self.batch.id, lines = read.nameless, "lines of results belong to no call, and are left out");
        }
        // A provider that counts more answers than it sends may have been paid for the others.
        let end = match output.lines {
            Some(lines) if lines > read.answers => CallEnd::InDoubt,
            Some(_) | None => CallEnd::Refused,
        };
        let failures_max = self.shared.settings.failures_max;
        let (rest, note, event) = match output.close {
            BatchClose::Expired => (
                self.end_rest(|line| line_end(line, end, AttemptFailure::Delayed)).await?,
                "expired",
                BatchEvent::Expired,
            ),
            BatchClose::Cancelled => (
                self.end_rest(|line| line_end(line, end, AttemptFailure::Delayed)).await?,
                "cancelled",
                BatchEvent::Cancelled,
            ),
            BatchClose::Completed | BatchClose::Refused { .. } => {
                let error =
                    format!("the results of the batch `{}` have no line for this prompt", self.batch.name);
                let failed = || AttemptFailure::Teacher { error: error.clone(), failures_max };
                (self.end_rest(|line| line_end(line, end, failed())).await?, "", BatchEvent::Completed)
            }
        };
        if rest > 0 {
            tracing::warn!(batch = %self.batch.id, lines = rest, close = ?output.close, "lines of a batch were not answered");
        }
        meters::batch_lines_unanswered(rest);
        self.end(note, event).await?;
        if let Some(reason) = read.stuck {
            self.shared.pause(self.batch.distillation, &reason).await?;
        }
        Ok(Duration::ZERO)
    }

    /// A batch that the provider did not take: nothing of it was asked.
    async fn refused(
        &self,
        teacher: &BatchTeacher,
        message: &str,
        is_temporary: bool,
    ) -> Result<Duration, HarvestError> {
        let words = format!(
            "teacher `{}` refused the batch `{}`: `{message}`",
            teacher.profile().name,
            self.batch.name
        );
        if is_temporary {
            meters::batch(BatchEvent::Refused);
            tracing::warn!(batch = %self.batch.id, "{words}: it is submitted again later");
            let wait = ENQUEUED_WAIT.min(self.shared.settings.batch_poll.saturating_mul(20));
            self.shared.stores.batches.reset_submission(self.batch.id, self.batch.submission, wait).await?;
            return Ok(Duration::ZERO);
        }
        self.give_up(&words, BatchEvent::Refused).await?;
        let reason = format!("{words}: correct the profile or the task, then resume");
        self.shared.pause(self.batch.distillation, &reason).await?;
        Ok(Duration::ZERO)
    }

    /// Reads and settles the results; `None` where the process shuts down before their end.
    async fn read(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
        output: &BatchOutput,
    ) -> Result<Option<Read>, HarvestError> {
        let mut results = teacher.results(output);
        let (mut read, mut chunk) = (Read::default(), Vec::with_capacity(CHUNK));
        loop {
            let next = tokio::select! {
                next = results.next() => next?,
                () = self.shutdown.cancelled() => return Ok(None),
            };
            let is_last = next.is_none();
            if let Some(answer) = next {
                read.answers += u64::from(matches!(answer.said, LineSaid::Answer { status: 200..300, .. }));
                match answer.call {
                    Some(call) => chunk.push((call, answer)),
                    None => read.nameless += 1,
                }
            }
            if chunk.len() >= CHUNK || is_last && !chunk.is_empty() {
                self.settle(job, teacher, std::mem::take(&mut chunk), &mut read).await?;
            }
            if is_last {
                return Ok(Some(read));
            }
        }
    }

    /// Settles lines of results. One whose call has ended is a second line for it, or was settled before.
    async fn settle(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
        answers: Vec<(CallId, BatchAnswer)>,
        read: &mut Read,
    ) -> Result<(), HarvestError> {
        let calls: Vec<CallId> = answers.iter().map(|(call, _)| *call).collect();
        let lines = self.shared.stores.batches.find_lines(self.batch.id, &calls).await?;
        let lines: HashMap<CallId, BatchLine> = lines.into_iter().map(|line| (line.call, line)).collect();
        let reading = Reading {
            teacher: teacher.clone(),
            batch: self.batch.name.clone(),
            failures_max: self.shared.settings.failures_max,
        };
        let outcomes = move |job: &PreparedJob| -> Result<Vec<Outcome>, HarvestError> {
            let (mut settled, mut outcomes) = (HashSet::new(), Vec::with_capacity(answers.len()));
            for (call, answer) in answers {
                let Some(line) = lines.get(&call).filter(|_| settled.insert(call)) else { continue };
                outcomes.push(reading.outcome(job, line, answer.said)?);
            }
            Ok(outcomes)
        };
        let (mut harvested, mut ended) = (Vec::new(), Vec::new());
        for outcome in job.apart(outcomes).await? {
            match outcome {
                Outcome::Answered(answer) => harvested.push(*answer),
                Outcome::Failed(end) => ended.push(end),
                Outcome::Stuck(end, words) => {
                    ended.push(end);
                    read.stuck.get_or_insert(words);
                }
            }
        }
        if !harvested.is_empty() {
            Answers::new(harvested).write(&self.shared.stores).await?;
        }
        self.shared.stores.batches.end_lines(&ended).await?;
        self.shared.changed.notify_waiters();
        Ok(())
    }
}

/// How lines of results are read.
struct Reading {
    teacher: BatchTeacher,
    /// The provider's name of the batch.
    batch: String,
    failures_max: u32,
}

impl Reading {
    /// What a line of results comes to.
    fn outcome(&self, job: &PreparedJob, line: &BatchLine, said: LineSaid) -> Result<Outcome, HarvestError> {
        let failures_max = self.failures_max;
        let counted = |error: String| AttemptFailure::Teacher { error, failures_max };
        let (status, body) = match said {
            LineSaid::Answer { status, body } => (status, body),
            LineSaid::Unasked => {
                return Ok(Outcome::Failed(line_end(line, CallEnd::Refused, AttemptFailure::Delayed)));
            }
            LineSaid::Garbled => {
                let error = format!("its line in the results of the batch `{}` cannot be read", self.batch);
                return Ok(Outcome::Failed(line_end(line, CallEnd::InDoubt, counted(error))));
            }
        };
        let question = job.question_of(&line.prompt, &line.example)?;
        let error = match self.teacher.read(line.call, status, &body, &question) {
            Ok(reply) => {
                let calls = vec![(line.call, CallEnd::Charged(reply.usage))];
                let completion = job::completion(line.prompt.key, reply);
                return Ok(Outcome::Answered(Box::new(job.harvested(
                    &line.prompt,
                    &line.example,
                    completion,
                    calls,
                ))));
            }
            Err(error) => error,
        };
        let words = error.to_string();
        Ok(match error {
            TeacherError::Permanent(_) | TeacherError::WrongRequest { parameter: Some(_), .. } => {
                Outcome::Stuck(line_end(line, error.end(), AttemptFailure::Delayed), words)
            }
            TeacherError::Wait { .. } => {
                Outcome::Failed(line_end(line, error.end(), AttemptFailure::Delayed))
            }
            _ => Outcome::Failed(line_end(line, error.end(), counted(words))),
        })
    }
}

/// What a line of results comes to.
enum Outcome {
    Answered(Box<Harvested>),
    Failed(LineEnd),
    /// The same, and every other one would fail like it.
    Stuck(LineEnd, String),
}
