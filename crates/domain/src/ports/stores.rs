//! The ports of the records together, as a service is given them.

use super::batches::BatchStore;
use super::calls::CallStore;
use super::datasets::DatasetStore;
use super::jobs::JobStore;
use super::models::ModelStore;
use super::prompts::PromptStore;
use super::runs::RunStore;
use std::sync::Arc;

/// The records by subject. A function takes the one port that it needs; only what composes a service holds all of them.
#[derive(Clone)]
pub struct Stores {
    /// Datasets and their rows.
    pub datasets: Arc<dyn DatasetStore>,
    /// Distillations and their events.
    pub jobs: Arc<dyn JobStore>,
    /// Prompts and the ledger.
    pub prompts: Arc<dyn PromptStore>,
    /// Calls and what they cost.
    pub calls: Arc<dyn CallStore>,
    /// Batches of calls.
    pub batches: Arc<dyn BatchStore>,
    /// Training runs.
    pub runs: Arc<dyn RunStore>,
    /// Published students and base checkpoints.
    pub models: Arc<dyn ModelStore>,
}

impl Stores {
    /// The ports of one database, which an adapter implements all of.
    pub fn of<Adapter>(adapter: &Arc<Adapter>) -> Self
    where
        Adapter: DatasetStore + JobStore + PromptStore + CallStore + BatchStore + RunStore + ModelStore,
    {
        Self {
            datasets: Arc::clone(adapter) as _,
            jobs: Arc::clone(adapter) as _,
            prompts: Arc::clone(adapter) as _,
            calls: Arc::clone(adapter) as _,
            batches: Arc::clone(adapter) as _,
            runs: Arc::clone(adapter) as _,
            models: Arc::clone(adapter) as _,
        }
    }
}
