//! The port of work: ids of prompts to be asked.
//!
//! The queue may lose everything and may deliver twice: the store decides. It holds ids and trace context, nothing else.

use crate::fault::Fault;
use crate::ids::PromptId;
use async_trait::async_trait;
use std::time::Duration;

/// What can go wrong in a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It is full: publish later.
    #[error("the work queue is full ({capacity} entries): publish again when it has drained")]
    Full {
        /// Its bound.
        capacity: usize,
    },
    /// It does not answer.
    #[error("the work queue is unavailable: {0}")]
    Unavailable(String),
}

impl QueueError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Full { .. } => Fault::Overloaded,
            Self::Unavailable(_) => Fault::Unavailable,
        }
    }
}

/// An entry of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedPrompt {
    /// The prompt to be asked.
    pub prompt: PromptId,
    /// W3C trace context of the call that made it; empty for none.
    pub traceparent: String,
}

/// An entry in a worker's hands, until it is acknowledged or its visibility ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The queue's own name for this entry.
    pub handle: String,
    /// What to do.
    pub work: QueuedPrompt,
}

/// The queue.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Appends entries, in order; a prompt that an entry names already, waiting or delivered, gets no second one. All or,
    /// when full, as many as fit: returns how many are published now.
    async fn publish(&self, work: &[QueuedPrompt]) -> Result<usize, QueueError>;
    /// Up to `max` entries for `consumer`, waiting up to `wait` for the first. Entries whose consumer neither
    /// acknowledged nor extended them within the queue's visibility time are delivered again.
    async fn take(&self, consumer: &str, max: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError>;
    /// Done with these.
    async fn acknowledge(&self, handles: &[String]) -> Result<(), QueueError>;
    /// Still at work on these: their visibility begins anew.
    async fn extend(&self, consumer: &str, handles: &[String]) -> Result<(), QueueError>;
    /// Not now: deliver this one again after `delay`.
    async fn postpone(&self, delivery: &Delivery, delay: Duration) -> Result<(), QueueError>;
    /// Those of `prompts` that no entry names, waiting or delivered.
    async fn missing(&self, prompts: &[PromptId]) -> Result<Vec<PromptId>, QueueError>;
    /// Entries waiting and delivered.
    async fn depth(&self) -> Result<usize, QueueError>;
}
