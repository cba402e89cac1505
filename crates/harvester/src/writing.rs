//! Writing what was asked: an answer that cannot be kept costs no other.

use crate::meters;
use domain::ports::{AttemptFailure, StoreError, StoreResult};
use domain::records::Harvested;
use domain::{Fault, Stores};
use std::time::Instant;

/// Answers on their way to the store.
pub(crate) struct Answers {
    /// What is written at once; the last part comes next.
    parts: Vec<Vec<Harvested>>,
}

impl Answers {
    pub(crate) fn new(answers: Vec<Harvested>) -> Self {
        Self { parts: vec![answers] }
    }

    /// Writes them. What the store refuses together is written in halves, down to the answer that it refuses alone; the
    /// prompt of that one is parked with the reason, and its call stays in doubt.
    ///
    /// # Errors
    /// The store is unavailable: a further call goes on with what is left.
    pub(crate) async fn write(&mut self, stores: &Stores) -> StoreResult<()> {
        while let Some(part) = self.parts.last_mut() {
            let began = Instant::now();
            match stores.prompts.record_harvest(part.clone()).await {
                Ok(outcome) => {
                    meters::written(part, &outcome, began.elapsed());
                    if !outcome.stale.is_empty() {
                        tracing::warn!(
                            count = outcome.stale.len(),
                            "answers came after their leases were lost"
                        );
                    }
                    self.parts.pop();
                }
                Err(error) if error.fault() == Fault::Unavailable => return Err(error),
                Err(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    self.parts.push(rest);
                }
                Err(error) => {
                    for answer in part.iter() {
                        park(stores, answer, &error).await?;
                    }
                    self.parts.pop();
                }
            }
        }
        Ok(())
    }
}

/// Asked again, a teacher would say the same, and be paid again.
async fn park(stores: &Stores, answer: &Harvested, error: &StoreError) -> StoreResult<()> {
    tracing::error!(prompt = %answer.prompt, %error, "an answer cannot be kept: its prompt is parked");
    let error = format!("its answer cannot be kept: {error}");
    let failure = AttemptFailure::Teacher { error, failures_max: 1 };
    match stores.prompts.record_failure(answer.prompt, answer.attempt, failure).await {
        Err(error) if error.fault() == Fault::Unavailable => Err(error),
        Err(error) => {
            tracing::error!(prompt = %answer.prompt, %error, "nor can it be parked: its lease runs out");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conformance::fixtures::{answer, harvest, reserve};
    use domain::PromptStore;
    use domain::state::PromptState::{Answered, Parked};
    use embedded::SqliteStore;
    use std::sync::Arc;
    use std::time::Duration;

    /// The second and the last of five answers cost more than any store can count.
    #[tokio::test]
    async fn one_answer_that_cannot_be_kept_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).await.unwrap());
        let harvest = harvest(store.as_ref(), 5).await;
        let leased =
            store.lease_prompts(&harvest.ids(), "worker", Duration::from_secs(60)).await.unwrap().leased;
        reserve(store.as_ref(), &leased).await;
        let mut answers: Vec<Harvested> = leased.iter().map(answer).collect();
        for bad in [1, 4] {
            answers[bad].completion.tokens_in = u64::MAX;
        }
        Answers::new(answers).write(&Stores::of(&store)).await.unwrap();
        let mut states = Vec::new();
        for prompt in harvest.ids() {
            let prompt = store.prompt(prompt).await.unwrap();
            assert_eq!(prompt.state == Parked, prompt.error.contains("cannot be kept"), "{prompt:?}");
            states.push(prompt.state);
        }
        assert_eq!(states, [Answered, Parked, Answered, Answered, Parked]);
        let progress = store.harvest_progress(harvest.job).await.unwrap();
        assert_eq!((progress.calls, progress.in_doubt.calls), (3, 2));
    }
}
