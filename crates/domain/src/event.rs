//! What happens to a distillation, in order: the stream that `watch` shows and can resume.

use crate::ids::{DistillationId, ModelId, RunId};
use crate::metric::Accuracy;
use crate::share::{End, Gain, Share};
use crate::state::DistillationState;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its job.
    pub distillation: DistillationId,
    /// Counts up from 1 within the job, without holes.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// The things that can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The state changed.
    StateChanged {
        /// The state before; `None` at submit.
        from: Option<DistillationState>,
        /// The state now.
        to: DistillationState,
        /// Why, for paused, failed and cancelled; empty otherwise.
        reason: String,
    },
    /// A trainer reported numbers.
    TrainingProgress {
        /// The run.
        run: RunId,
        /// Optimiser steps done.
        step: u64,
        /// Optimiser steps at most.
        steps: u64,
        /// Names and values, such as `loss_label`.
        metrics: Vec<(String, f64)>,
    },
    /// The student was measured on the validation or test rows.
    Evaluated {
        /// The run.
        run: RunId,
        /// The step of the checkpoint.
        step: u64,
        /// `validation` or `test`.
        split: String,
        /// The result.
        accuracy: Accuracy,
    },
    /// The teacher was measured on the test rows.
    TeacherMeasured {
        /// The result.
        accuracy: Accuracy,
    },
    /// A probe begins: a short training over the rationales of a share of the rows.
    Probing {
        /// The run.
        run: RunId,
        /// Whose rationales it reads.
        share: Share,
    },
    /// A probe has ended, and it is decided what the teacher is asked next.
    Probed {
        /// The run.
        run: RunId,
        /// Whose rationales it read.
        share: Share,
        /// On the validation rows.
        accuracy: Accuracy,
        /// Over the probe before it; `None` for the first.
        gain: Option<Gain>,
        /// The share that is asked about next; `None` where asking ends.
        next: Option<Share>,
        /// Why asking ends.
        end: Option<End>,
    },
    /// A model was published.
    Published {
        /// The model.
        model: ModelId,
        /// Its name.
        name: String,
        /// Its version.
        version: u64,
    },
}
