//! The states things are in. Each is stored by its name, with a CHECK in the database.

use crate::named::named;

named!(
    /// A dataset is invisible until it is committed.
    DatasetState {
        /// Rows may still be appended.
        Staged = "staged",
        /// Complete and immutable.
        Committed = "committed",
    }
);

named!(
    /// The life of a distillation: queued, harvesting, training, evaluating, then one of the three ends; or paused.
    DistillationState {
        /// Accepted, not yet planned.
        Queued = "queued",
        /// The teacher is being asked.
        Harvesting = "harvesting",
        /// The student is being trained.
        Training = "training",
        /// The selected checkpoint is being measured on the test rows.
        Evaluating = "evaluating",
        /// A model was published.
        Succeeded = "succeeded",
        /// It ended without a model; the reason says why.
        Failed = "failed",
        /// A user ended it.
        Cancelled = "cancelled",
        /// It waits for a person: the reason says for what. `resume` continues where it stopped.
        Paused = "paused",
    }
);

impl DistillationState {
    /// Whether nothing will change any more without a user's call.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

named!(
    /// The life of one question to the teacher.
    PromptState {
        /// To be asked.
        Pending = "pending",
        /// A worker holds a lease on it.
        Leased = "leased",
        /// Its completion is stored.
        Answered = "answered",
        /// The teacher failed on it too often: a dead letter, which a user can inspect and retry.
        Parked = "parked",
        /// The budget ended before its turn.
        Skipped = "skipped",
    }
);

named!(
    /// The life of a batch.
    BatchState {
        /// It is being filled.
        Preparing = "preparing",
        /// It waits to be submitted.
        Ready = "ready",
        /// It is being submitted: the provider may have it.
        Submitting = "submitting",
        /// The provider has it: it is waited for, then collected.
        Submitted = "submitted",
        /// Every line of it is settled, or in doubt.
        Ended = "ended",
    }
);

named!(
    /// Why a prompt exists.
    Purpose {
        /// Its rationale may train the student.
        Train = "train",
        /// It measures the teacher on a validation or test row.
        Evaluate = "evaluate",
    }
);

named!(
    /// What became of a completion.
    Verdict {
        /// Stored, and not judged yet.
        Unjudged = "unjudged",
        /// Its rationale trains the student.
        Accepted = "accepted",
        /// Kept in the ledger, and not used; the reason says why.
        Rejected = "rejected",
    }
);

named!(
    /// Why a completion was rejected.
    Reason {
        /// The answer marker is absent, or stands more than once.
        NoAnswer = "no_answer",
        /// The teacher ran out of room (`finish_reason` length), also when asked again with more.
        Truncated = "truncated",
        /// A content filter or the teacher itself refused.
        Refused = "refused",
        /// There is a label and no rationale before it.
        EmptyRationale = "empty_rationale",
        /// The label is not one of the task's, or of the example's choices.
        LabelNotInSet = "label_not_in_set",
        /// The label is not the gold label, and `agree` asks that it be.
        Disagrees = "disagrees",
        /// Another label got more votes.
        Outvoted = "outvoted",
        /// There are no votes to count: samples tie, or none parsed.
        NoMajority = "no_majority",
    }
);

named!(
    /// The life of a training run.
    RunState {
        /// Waits for a trainer.
        Pending = "pending",
        /// A trainer holds a lease on it.
        Leased = "leased",
        /// Its model is published.
        Succeeded = "succeeded",
        /// It stopped with a reason.
        Failed = "failed",
        /// Its distillation was cancelled.
        Cancelled = "cancelled",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_name() {
        for state in DistillationState::ALL {
            assert_eq!(state.as_str().parse::<DistillationState>().as_ref(), Ok(state));
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{state}\""));
        }
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
        let error = "done".parse::<RunState>().unwrap_err();
        assert!(error.message.contains("pending, leased, succeeded"), "{error}");
    }
}
