//! Records column by column, as one statement writes many of them.

use crate::row::{Text, text};
use domain::ports::StoreResult;
use domain::records::{Harvested, NewPrompt};
use domain::rows::integer;
use uuid::Uuid;

/// New prompts, column by column.
pub(crate) struct PromptColumns {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) rows: Vec<i64>,
    pub(crate) samples: Vec<i32>,
    pub(crate) profiles: Vec<i32>,
    pub(crate) hinted: Vec<bool>,
    pub(crate) purposes: Vec<&'static str>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) tokens_max: Vec<i64>,
    pub(crate) money_micros_max: Vec<i64>,
}

impl PromptColumns {
    pub(crate) fn of<'a>(prompts: impl Iterator<Item = &'a NewPrompt> + Clone) -> StoreResult<Self> {
        Ok(Self {
            ids: prompts.clone().map(|prompt| prompt.id.as_uuid()).collect(),
            rows: prompts.clone().map(|prompt| integer(prompt.row)).collect::<StoreResult<_>>()?,
            samples: prompts.clone().map(|prompt| integer(prompt.sample)).collect::<StoreResult<_>>()?,
            profiles: prompts.clone().map(|prompt| integer(prompt.profile)).collect::<StoreResult<_>>()?,
            hinted: prompts.clone().map(|prompt| prompt.hinted).collect(),
            purposes: prompts.clone().map(|prompt| prompt.purpose.as_str()).collect(),
            keys: prompts.clone().map(|prompt| prompt.key.0.to_vec()).collect(),
            tokens_max: prompts
                .clone()
                .map(|prompt| integer(prompt.bound.tokens))
                .collect::<StoreResult<_>>()?,
            money_micros_max: prompts
                .map(|prompt| integer(prompt.bound.money_micros))
                .collect::<StoreResult<_>>()?,
        })
    }
}

/// What was read in answers, column by column.
pub(crate) struct ParsedColumns<'a> {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) rationales: Vec<Text<'a>>,
    pub(crate) labels: Vec<Option<Text<'a>>>,
    pub(crate) parse_reasons: Vec<Option<&'static str>>,
    pub(crate) verdicts: Vec<&'static str>,
    pub(crate) reasons: Vec<Option<&'static str>>,
}

impl<'a> ParsedColumns<'a> {
    pub(crate) fn of(answers: &[&'a Harvested]) -> Self {
        Self {
            ids: answers.iter().map(|answer| answer.prompt.as_uuid()).collect(),
            rationales: answers.iter().map(|answer| text(&answer.parsed.rationale)).collect(),
            labels: answers.iter().map(|answer| answer.parsed.label.as_deref().map(text)).collect(),
            parse_reasons: answers
                .iter()
                .map(|answer| answer.parsed.reason.map(|reason| reason.as_str()))
                .collect(),
            verdicts: answers.iter().map(|answer| answer.verdict.as_str()).collect(),
            reasons: answers.iter().map(|answer| answer.reason.map(|reason| reason.as_str())).collect(),
        }
    }
}
