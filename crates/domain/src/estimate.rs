//! What a job would ask, and what that would cost, before it asks anything.

use crate::budget::Amount;
use crate::completion::Parsed;
use crate::named::named;
use crate::state::{Reason, Verdict};

named!(
    /// A stage of a harvest.
    Stage {
        /// The samples of the train rows.
        Train = "train",
        /// A further profile, where gold shows that the ones before are wrong.
        Stronger = "stronger",
        /// Once more with the gold label, where no sample agrees with it.
        Hints = "hints",
        /// Test rows that measure the teacher.
        Evaluate = "evaluate",
    }
);

/// What one stage would ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageEstimate {
    /// The stage.
    pub stage: Stage,
    /// The profile that it asks.
    pub profile: String,
    /// Prompts that are expected.
    pub prompts: u64,
    /// Prompts of them that the store answers, for nothing.
    pub from_store: u64,
    /// What the others are expected to cost.
    pub expected: Amount,
    /// What they can cost at most, before the budget: every answer at its bound, and every truncated one asked again.
    pub at_most: Amount,
}

/// A prompt as the teacher would be given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedPrompt {
    /// The row it asks about.
    pub row: u64,
    /// The system message; empty for none.
    pub instruction: String,
    /// The prompt.
    pub prompt: String,
}

/// A row that was asked about to see what comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The prompt.
    pub asked: RenderedPrompt,
    /// The answer; empty where there is none.
    pub completion: String,
    /// What was read in it; `None` where there is no answer.
    pub parsed: Option<Parsed>,
    /// The gold label, where there is one.
    pub gold: Option<String>,
    /// What would become of it.
    pub verdict: Verdict,
    /// Why it would be rejected.
    pub reason: Option<Reason>,
    /// Why there is no answer; empty where there is one.
    pub error: String,
    /// Whether the store had the answer.
    pub from_store: bool,
}

/// What a job would ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Its stages, in order.
    pub stages: Vec<StageEstimate>,
    /// The first prompts of the first stage.
    pub prompts: Vec<RenderedPrompt>,
    /// Rows that were asked about.
    pub probed: Vec<Probed>,
}
