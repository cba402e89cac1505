//! A batch is submitted once.

use super::work::{BatchWork, GRACE};
use crate::error::HarvestError;
use crate::job::PreparedJob;
use crate::meters::{self, BatchEvent};
use crate::shared::Shared;
use domain::budget::CallEnd;
use domain::ids::{BatchId, CallId};
use domain::ports::BatchLine;
use std::sync::Arc;
use std::time::Duration;
use teacher::{BatchTeacher, Candidate, Input, Listed, Payload, Proof};
use tokio::sync::mpsc;

/// Lines that are rendered at once.
const PAGE: usize = 200;

impl BatchWork<'_> {
    /// How the batch is marked at the provider.
    fn mark(&self) -> String {
        format!("{}/{}", self.batch.id, self.batch.submission)
    }

    /// Submits a ready batch: uploads its lines, notes that it is created, creates it.
    pub(super) async fn submit(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
    ) -> Result<Duration, HarvestError> {
        let _at_work = self.shared.at_work.at(self.batch.distillation).await?;
        let Some(length) = self.measure(job, teacher).await? else {
            self.end("nothing of it was left to ask", BatchEvent::Released).await?;
            return Ok(Duration::ZERO);
        };
        let (mark, payload) = (self.mark(), || self.payload(job, teacher, length));
        let input = if teacher.uploads_first() {
            let uploaded = tokio::select! {
                uploaded = teacher.upload(&mark, payload()) => uploaded?,
                () = self.shutdown.cancelled() => return Ok(Duration::ZERO),
            };
            Input::File(uploaded)
        } else {
            Input::Lines(payload())
        };
        let (batch, submission) = (self.batch.id, self.batch.submission);
        let batches = &self.shared.stores.batches;
        if self.shutdown.is_cancelled() || !batches.begin_submission(batch, submission).await? {
            return Ok(Duration::ZERO);
        }
        match teacher.create(&mark, input).await {
            Ok(name) => {
                batches.record_submission(batch, submission, &name).await?;
                meters::batch(BatchEvent::Submitted);
                tracing::info!(%batch, name, lines = self.batch.lines, "a batch is submitted");
                Ok(self.shared.settings.batch_poll)
            }
            Err(error) => {
                if error.end() == CallEnd::Refused {
                    batches.reset_submission(batch, submission, Duration::ZERO).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Finds out what became of a batch that was being created when its process ended, or lost the connection.
    pub(super) async fn look_for(&self, teacher: &BatchTeacher) -> Result<Duration, HarvestError> {
        let age = Duration::from_millis(self.batch.in_state_ms);
        let (batch, submission) = (self.batch.id, self.batch.submission);
        let candidates = match teacher.find(&self.mark(), self.batch.lines, age).await? {
            Listed::Candidates(candidates) => candidates,
            Listed::Unknowable(words) => {
                let name = &teacher.profile().name;
                self.doubt(&format!(
                    "teacher `{name}` {words}, and a batch was being submitted when contact was lost"
                ))
                .await?;
                return Ok(Duration::ZERO);
            }
        };
        let batches = &self.shared.stores.batches;
        let mut is_open = false;
        for candidate in &candidates {
            if self.is_ours(candidate).await? {
                batches.record_submission(batch, submission, &candidate.name).await?;
                meters::batch(BatchEvent::Submitted);
                tracing::info!(%batch, name = candidate.name, "a batch that was being submitted is found");
                return Ok(Duration::ZERO);
            }
            is_open |= candidate.proof == Proof::Lines;
        }
        let patience = teacher.create_timeout().saturating_add(self.shared.settings.batch_poll.min(GRACE));
        if is_open || age < patience {
            return Ok(self.poll().min(patience));
        }
        tracing::info!(%batch, "a batch that was being submitted is not there: it is submitted again");
        batches.reset_submission(batch, submission, Duration::ZERO).await?;
        Ok(Duration::ZERO)
    }

    async fn is_ours(&self, candidate: &Candidate) -> Result<bool, HarvestError> {
        match candidate.proof {
            Proof::Mark => Ok(true),
            Proof::Line(Some(call)) => {
                Ok(!self.shared.stores.batches.find_lines(self.batch.id, &[call]).await?.is_empty())
            }
            Proof::Line(None) | Proof::Lines | Proof::None => Ok(false),
        }
    }

    /// The bytes of the batch as it is sent; `None` where it has no lines. What is beyond the most bytes of a batch becomes
    /// another one.
    async fn measure(
        &self,
        job: &Arc<PreparedJob>,
        teacher: &BatchTeacher,
    ) -> Result<Option<u64>, HarvestError> {
        let mark = self.mark();
        let around = teacher.head(&mark).len().saturating_add(teacher.tail(&mark).len());
        let mut length = around as u64;
        let mut lines = Lines { shared: self.shared, batch: self.batch.id, after: None };
        let mut is_first = true;
        while let Some(page) = lines.next().await? {
            let asked = teacher.clone();
            let measured = move |job: &PreparedJob| -> Result<Vec<(CallId, u64)>, HarvestError> {
                let lines = page.iter().zip(0_usize..).map(|(line, place)| {
                    let bytes = render(job, &asked, line, is_first && place == 0)?.len() as u64;
                    Ok((line.call, bytes))
                });
                lines.collect()
            };
            for (call, bytes) in job.apart(measured).await? {
                if !is_first && length.saturating_add(bytes) > teacher.limits().bytes_max {
                    let rest = BatchId::generate();
                    self.shared.stores.batches.split_batch(self.batch.id, call, rest).await?;
                    return Ok(Some(length));
                }
                length = length.saturating_add(bytes);
                is_first = false;
            }
        }
        Ok((!is_first).then_some(length))
    }

    /// The lines, rendered once more while they are sent, so that nobody holds all of them.
    fn payload(&self, job: &Arc<PreparedJob>, teacher: &BatchTeacher, length: u64) -> Payload {
        let (sender, receiver) = mpsc::channel(4);
        let (stores, batch, mark) = (self.shared.stores.clone(), self.batch.id, self.mark());
        let (job, teacher) = (Arc::clone(job), teacher.clone());
        tokio::spawn(async move {
            let mut after: Option<CallId> = None;
            let mut bytes = teacher.head(&mark);
            loop {
                let page = match stores.batches.batch_lines(batch, after, PAGE).await {
                    Ok(page) => page,
                    Err(error) => return drop(sender.send(Err(std::io::Error::other(error))).await),
                };
                let Some(last) = page.last() else { break };
                let is_first = after.is_none();
                after = Some(last.call);
                let asked = teacher.clone();
                let rendered = move |job: &PreparedJob| -> Result<Vec<Vec<u8>>, HarvestError> {
                    let lines = page.iter().zip(0_usize..);
                    lines.map(|(line, place)| render(job, &asked, line, is_first && place == 0)).collect()
                };
                match job.apart(rendered).await {
                    Ok(lines) => lines.into_iter().for_each(|line| bytes.extend(line)),
                    Err(error) => return drop(sender.send(Err(std::io::Error::other(error))).await),
                }
                // Whoever reads is gone where the request has ended.
                if sender.send(Ok(std::mem::take(&mut bytes).into())).await.is_err() {
                    return;
                }
            }
            bytes.extend(teacher.tail(&mark));
            let _ = sender.send(Ok(bytes.into())).await;
        });
        let bytes = Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
        Payload { length, bytes }
    }
}

/// The lines of a batch, page by page.
struct Lines<'a> {
    shared: &'a Shared,
    batch: BatchId,
    after: Option<CallId>,
}

impl Lines<'_> {
    async fn next(&mut self) -> Result<Option<Vec<BatchLine>>, HarvestError> {
        let page = self.shared.stores.batches.batch_lines(self.batch, self.after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.call);
        Ok(Some(page))
    }
}

fn render(
    job: &PreparedJob,
    teacher: &BatchTeacher,
    line: &BatchLine,
    is_first: bool,
) -> Result<Vec<u8>, HarvestError> {
    let question = job.question_of(&line.prompt, &line.example)?;
    Ok(teacher.line(line.call, &question, is_first))
}
