//! What the store keeps. Records are plain data: a store fills them, a service reads them.

use crate::budget::{Amount, CallBound, CallEnd};
use crate::completion::{FinishReason, Parsed};
use crate::example::Example;
use crate::ids::{
    BatchId, CallId, CompletionKey, DatasetId, DistillationId, ModelId, PromptId, RequestId, RunId,
};
use crate::metric::Accuracy;
use crate::run::{RunPlan, RunResult};
use crate::spec::Spec;
use crate::state::{
    BatchState, DatasetState, DistillationState, PromptState, Purpose, Reason, RunState, Verdict,
};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A set of examples, immutable once committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its id.
    pub id: DatasetId,
    /// A name for people; several datasets may share it, the newest committed one is meant.
    pub name: String,
    /// Staged or committed.
    pub state: DatasetState,
    /// Rows so far: the offset at which an interrupted upload continues.
    pub rows: u64,
    /// Rows by split: train, validation, test.
    pub rows_by_split: [u64; 3],
    /// Rows with a gold label.
    pub rows_labelled: u64,
    /// sha256 (hex) over the rows in order; empty until committed.
    pub fingerprint: String,
    /// When its upload began.
    pub created_at: Timestamp,
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Distillation {
    /// Its id.
    pub id: DistillationId,
    /// What was asked for.
    pub spec: Spec,
    /// The rows it reads.
    pub dataset: DatasetId,
    /// Where it stands.
    pub state: DistillationState,
    /// Why it is paused, failed or cancelled; empty otherwise.
    pub reason: String,
    /// The state that a paused distillation goes back to.
    pub resume_state: Option<DistillationState>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its state last changed.
    pub updated_at: Timestamp,
    /// Its training run, once there is one.
    pub run: Option<RunId>,
    /// Its model, once there is one.
    pub model: Option<ModelId>,
    /// The teacher on the test rows, once judged.
    pub teacher_accuracy: Option<Accuracy>,
    /// Seconds of each phase so far.
    pub seconds: PhaseSeconds,
    /// W3C trace context of the call that submitted it; empty for none.
    pub traceparent: String,
}

/// Wall-clock seconds of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PhaseSeconds {
    /// From the first prompt to the last verdict.
    pub harvest: f64,
    /// From the lease of the run to the last step.
    pub train: f64,
    /// From the last step to the published model.
    pub evaluate: f64,
}

/// A new distillation, with every prompt it begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDistillation {
    /// The id it will have.
    pub id: DistillationId,
    /// The caller's name for this call.
    pub request: RequestId,
    /// What was asked for.
    pub spec: Spec,
    /// The rows it reads: must be committed.
    pub dataset: DatasetId,
    /// W3C trace context of the call that submitted it; empty for none.
    pub traceparent: String,
}

/// A question to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPrompt {
    /// The id it will have.
    pub id: PromptId,
    /// The row it asks about.
    pub row: u64,
    /// Which sample of the row, from 0; those of a further profile, and then a hinted one, count on after the others.
    pub sample: u32,
    /// Which of the job's profiles is asked, by its place.
    pub profile: u32,
    /// Whether the gold label is given.
    pub hinted: bool,
    /// Why it is asked.
    pub purpose: Purpose,
    /// Its completion's content address.
    pub key: CompletionKey,
    /// The most that asking it once can cost, as far as that is known when it is planned.
    pub bound: CallBound,
}

/// A question and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its id.
    pub id: PromptId,
    /// Its job.
    pub distillation: DistillationId,
    /// The row it asks about.
    pub row: u64,
    /// Which sample.
    pub sample: u32,
    /// Which of the job's profiles is asked, by its place.
    pub profile: u32,
    /// Whether the gold label is given.
    pub hinted: bool,
    /// Why it is asked.
    pub purpose: Purpose,
    /// Its completion's content address.
    pub key: CompletionKey,
    /// Where it stands.
    pub state: PromptState,
    /// Leases taken so far: the fencing token of the present one.
    pub attempt: u32,
    /// Failures that were the teacher's own.
    pub failures: u32,
    /// The last failure, or why it is parked.
    pub error: String,
}

/// A prompt that the teacher failed on too often, as a user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedPrompt {
    /// Its id.
    pub id: PromptId,
    /// The row it asks about.
    pub row: u64,
    /// Which sample.
    pub sample: u32,
    /// Failures that were the teacher's own.
    pub failures: u32,
    /// The last failure.
    pub error: String,
}

impl From<Prompt> for ParkedPrompt {
    fn from(prompt: Prompt) -> Self {
        let Prompt { id, row, sample, failures, error, .. } = prompt;
        Self { id, row, sample, failures, error }
    }
}

/// A prompt in a worker's hands.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedPrompt {
    /// The prompt, with `attempt` as its fencing token.
    pub prompt: Prompt,
    /// The row it asks about.
    pub example: Example,
    /// The completion, where this very question was answered before: nothing is to be asked.
    pub cached: Option<Completion>,
}

/// Calls that are made together, through a provider's batch API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Its job.
    pub distillation: DistillationId,
    /// Which of the job's profiles is asked, by its place.
    pub profile: u32,
    /// Where it stands.
    pub state: BatchState,
    /// How often it was made ready again: what is submitted is marked with it.
    pub submission: u32,
    /// How the provider calls it; empty where that is not known.
    pub name: String,
    /// Lines that went into it.
    pub lines: u64,
    /// Why it ended, where that is not plain.
    pub note: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// For how long it has been in its state, in milliseconds.
    pub in_state_ms: u64,
}

/// What a teacher answered, kept for ever under its content address.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its content address.
    pub key: CompletionKey,
    /// The words.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The model that answered, as the server names it.
    pub model: String,
    /// Tokens of the prompt, as the server counts them (estimated where it does not).
    pub tokens_in: u64,
    /// Tokens of the completion.
    pub tokens_out: u64,
    /// What the call cost, in millionths of the profile's currency.
    pub money_micros: u64,
    /// Seconds that the call took.
    pub seconds: f64,
}

/// What a worker brings back for one leased prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Harvested {
    /// The prompt.
    pub prompt: PromptId,
    /// The lease it was asked under.
    pub attempt: u32,
    /// The completion; also a cached one.
    pub completion: Completion,
    /// Whether the completion came from the store instead of a call.
    pub cached: bool,
    /// Calls that end with this answer, and how.
    pub calls: Vec<(CallId, CallEnd)>,
    /// What the task reads in it.
    pub parsed: Parsed,
    /// The provisional verdict, for the funnel; the final one is given when the row is judged whole.
    pub verdict: Verdict,
    /// Its reason.
    pub reason: Option<Reason>,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerEntry {
    /// Its job.
    pub distillation: DistillationId,
    /// Its prompt.
    pub prompt: PromptId,
    /// The row.
    pub row: u64,
    /// The sample.
    pub sample: u32,
    /// Whether the gold label was given.
    pub hinted: bool,
    /// Why it was asked.
    pub purpose: Purpose,
    /// What the task read.
    pub parsed: Parsed,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<Reason>,
    /// Its share in the row's rationale loss; 1 unless votes say otherwise.
    pub weight: f64,
    /// The raw completion.
    pub completion: String,
    /// Who answered.
    pub model: String,
}

/// A verdict to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictUpdate {
    /// Which entry.
    pub prompt: PromptId,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<Reason>,
    /// Its weight.
    pub weight: f64,
}

/// Numbers of a distillation's harvest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HarvestProgress {
    /// All prompts, by state, in the order of [`PromptState::ALL`].
    pub prompts: [u64; 5],
    /// Entries by verdict (train rows only), in the order of [`Verdict::ALL`].
    pub verdicts: [u64; 3],
    /// Rejected entries (train rows only) by reason, in the order of [`Reason::ALL`].
    pub reasons: [u64; 8],
    /// Calls paid for (cache hits not counted).
    pub calls: u64,
    /// Prompts answered from the store.
    pub cache_hits: u64,
    /// Answers that came after their lease was lost, and were paid for again.
    pub calls_paid_twice: u64,
    /// Tokens in, of calls paid for.
    pub tokens_in: u64,
    /// Tokens out, of calls paid for.
    pub tokens_out: u64,
    /// Money spent, in millionths.
    pub money_micros: u64,
    /// Calls that are being made, at their bounds.
    pub open: Amount,
    /// Calls whose end is not known, at their bounds: as good as spent.
    pub in_doubt: Amount,
    /// Prompts that the whole harvest is expected to have; 0 where nobody has counted.
    pub expected: u64,
    /// Why the teacher answers nothing at present; empty where it does.
    pub obstacle: String,
}

impl HarvestProgress {
    /// Counts prompts that are alike; the verdicts of rows that measure the teacher are not counted.
    pub fn count(
        &mut self,
        state: PromptState,
        purpose: Purpose,
        verdict: Option<Verdict>,
        reason: Option<Reason>,
        prompts: u64,
    ) {
        add(PromptState::ALL, &mut self.prompts, Some(state), prompts);
        if purpose == Purpose::Train {
            add(Verdict::ALL, &mut self.verdicts, verdict, prompts);
            add(Reason::ALL, &mut self.reasons, reason, prompts);
        }
    }

    /// All prompts.
    pub fn total(&self) -> u64 {
        self.prompts.iter().sum()
    }

    /// Prompts in one state.
    pub fn in_state(&self, state: PromptState) -> u64 {
        PromptState::ALL
            .iter()
            .zip(self.prompts)
            .find(|(known, _)| **known == state)
            .map_or(0, |(_, count)| count)
    }

    /// Entries with one verdict, of train rows.
    pub fn with_verdict(&self, verdict: Verdict) -> u64 {
        let counts = Verdict::ALL.iter().zip(self.verdicts);
        counts.filter(|(known, _)| **known == verdict).map(|(_, count)| count).sum()
    }

    /// Prompts that the whole harvest has, as far as is known: those that were planned, or more where more are expected.
    pub fn total_expected(&self) -> u64 {
        self.total().max(self.expected)
    }

    /// What the whole harvest will have spent, if the rest costs what was spent so far: `None` before the first call.
    pub fn projected(&self) -> Option<Amount> {
        let asked =
            self.in_state(PromptState::Answered).checked_sub(self.cache_hits).filter(|asked| *asked > 0)?;
        let left = self.total_expected().saturating_sub(self.done());
        let scaled =
            |spent: u64| spent.saturating_add((spent as f64 / asked as f64 * left as f64).round() as u64);
        Some(Amount {
            calls: scaled(self.calls),
            tokens: scaled(self.tokens_in.saturating_add(self.tokens_out)),
            money_micros: scaled(self.money_micros),
        })
    }

    /// Prompts that need nothing more: answered, parked or skipped.
    pub fn done(&self) -> u64 {
        [PromptState::Answered, PromptState::Parked, PromptState::Skipped]
            .into_iter()
            .map(|state| self.in_state(state))
            .sum()
    }
}

/// Adds to the total of one value, in the order of all of them.
fn add<T: PartialEq + Copy>(all: &[T], totals: &mut [u64], value: Option<T>, count: u64) {
    for (known, total) in all.iter().zip(totals) {
        if Some(*known) == value {
            *total += count;
        }
    }
}

/// One training of one student.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its job.
    pub distillation: DistillationId,
    /// Where it stands.
    pub state: RunState,
    /// Leases taken so far: the fencing token of the present one.
    pub fence: u64,
    /// Who holds it; empty when it is not leased.
    pub trainer: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Where its newest resume state lies in the object store; empty where there is none.
    pub resume_path: String,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it does.
    pub plan: RunPlan,
    /// sha256 (hex) over the rationales of the ledger that its rules accept in its rows.
    pub ledger_fingerprint: String,
    /// What it came to, once it succeeded.
    pub result: Option<RunResult>,
}

/// A run to be created over the ledger of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The id it will have.
    pub id: RunId,
    /// The caller's name for this call.
    pub request: RequestId,
    /// The job.
    pub distillation: DistillationId,
    /// What it does.
    pub plan: RunPlan,
    /// See [`Run::ledger_fingerprint`].
    pub ledger_fingerprint: String,
}

/// What a trainer needs to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedRun {
    /// The run, with `fence` as its fencing token.
    pub run: Run,
    /// What it carries out: its job's specification, with the run's own settings in place.
    pub spec: Spec,
    /// The dataset's fingerprint, for the provenance.
    pub dataset: Dataset,
    /// W3C trace context of its job; empty for none.
    pub traceparent: String,
}

/// One number at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// The optimiser step.
    pub step: u64,
    /// The metric's name, such as `loss_label`, `loss_rationale`, `validation_accuracy`, `examples_per_second`.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// A published student.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// Its name: the specification's.
    pub name: String,
    /// Counts up by name, from 1.
    pub version: u64,
    /// The job that made it.
    pub distillation: DistillationId,
    /// The run that made it.
    pub run: RunId,
    /// Its folder in the object store.
    pub path: String,
    /// sha256 (hex) of its manifest.
    pub manifest_sha256: String,
    /// How many parameters it has.
    pub parameters: u64,
    /// On the validation rows.
    pub validation: Option<Accuracy>,
    /// On the test rows.
    pub test: Option<Accuracy>,
    /// When it was published.
    pub created_at: Timestamp,
    /// W3C trace context of its job; empty for none.
    pub traceparent: String,
}

/// A registered base checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Its name, and its folder under `base/`.
    pub name: String,
    /// sha256 (hex) of its manifest.
    pub manifest_sha256: String,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// Counts of rows of a committed dataset that a distillation would use: for its checks at submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// Rows of the split.
    pub rows: u64,
    /// Those with a gold label.
    pub labelled: u64,
    /// Those with at least one imported answer.
    pub answered: u64,
}
