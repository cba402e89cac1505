//! Estimates: what a job would ask, and what that would cost.

use crate::convert::{Checked, present};
use crate::enums::Named;
use crate::v1;
use domain::Violation;
use domain::budget::Amount;
use domain::completion::Parsed;
use domain::estimate::{Estimate, Probed, RenderedPrompt, StageEstimate};
use domain::state::Reason;

impl From<Estimate> for v1::EstimateDistillationResponse {
    fn from(estimate: Estimate) -> Self {
        Self {
            stages: estimate.stages.into_iter().map(Into::into).collect(),
            prompts: estimate.prompts.into_iter().map(Into::into).collect(),
            probed: estimate.probed.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::EstimateDistillationResponse> for Estimate {
    type Error = Vec<Violation>;

    fn try_from(message: v1::EstimateDistillationResponse) -> Checked<Self> {
        Ok(Self {
            stages: message.stages.into_iter().map(TryInto::try_into).collect::<Checked<_>>()?,
            prompts: message.prompts.into_iter().map(Into::into).collect(),
            probed: message.probed.into_iter().map(TryInto::try_into).collect::<Checked<_>>()?,
        })
    }
}

impl From<StageEstimate> for v1::StageEstimate {
    fn from(stage: StageEstimate) -> Self {
        Self {
            stage: stage.stage.number(),
            profile: stage.profile,
            prompts: stage.prompts,
            from_store: stage.from_store,
            expected: Some(stage.expected.into()),
            at_most: Some(stage.at_most.into()),
        }
    }
}

impl TryFrom<v1::StageEstimate> for StageEstimate {
    type Error = Vec<Violation>;

    fn try_from(message: v1::StageEstimate) -> Checked<Self> {
        let amount = |amount: Option<v1::CallAmount>| amount.map(Amount::from).unwrap_or_default();
        Ok(Self {
            stage: Named::required("stage", message.stage)?,
            profile: message.profile,
            prompts: message.prompts,
            from_store: message.from_store,
            expected: amount(message.expected),
            at_most: amount(message.at_most),
        })
    }
}

impl From<RenderedPrompt> for v1::RenderedPrompt {
    fn from(prompt: RenderedPrompt) -> Self {
        let RenderedPrompt { row, instruction, prompt } = prompt;
        Self { row, instruction, prompt }
    }
}

impl From<v1::RenderedPrompt> for RenderedPrompt {
    fn from(message: v1::RenderedPrompt) -> Self {
        let v1::RenderedPrompt { row, instruction, prompt } = message;
        Self { row, instruction, prompt }
    }
}

impl From<Probed> for v1::ProbedRow {
    fn from(probed: Probed) -> Self {
        let (rationale, label) =
            probed.parsed.map(|parsed| (parsed.rationale, parsed.label)).unwrap_or_default();
        Self {
            asked: Some(probed.asked.into()),
            completion: probed.completion,
            rationale,
            label,
            gold: probed.gold,
            verdict: probed.verdict.number(),
            reason: probed.reason.map_or(0, Named::number),
            error: probed.error,
            from_store: probed.from_store,
        }
    }
}

impl TryFrom<v1::ProbedRow> for Probed {
    type Error = Vec<Violation>;

    fn try_from(message: v1::ProbedRow) -> Checked<Self> {
        let reason = Reason::read("reason", message.reason)?;
        let (rationale, label) = (message.rationale, message.label);
        let parsed = message.error.is_empty().then_some(Parsed { rationale, label, reason });
        Ok(Self {
            asked: present("asked", message.asked)?.into(),
            completion: message.completion,
            parsed,
            gold: message.gold,
            verdict: Named::required("verdict", message.verdict)?,
            reason,
            error: message.error,
            from_store: message.from_store,
        })
    }
}
