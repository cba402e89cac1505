//! Gemini's dialect: `generateContent`.

use super::reading::{Candidate, Counts, Finish, count, cut, texts};
use crate::Question;
use crate::profile::{Profile, Thinking};
use domain::completion::FinishReason;
use serde_json::{Map, Value, json};

/// Most stop sequences that Gemini accepts; what stands beyond them is cut when the completion is read.
const STOPS_MAX: usize = 5;
/// The request's body.
pub(super) fn request(profile: &Profile, question: &Question) -> Map<String, Value> {
    let (sampling, parameters) = (&question.sampling, &profile.parameters);
    let mut generation = Map::new();
    if parameters.send_temperature {
        generation.insert("temperature".to_owned(), sampling.temperature.into());
    }
    if parameters.send_top_p {
        generation.insert("topP".to_owned(), sampling.top_p.into());
    }
    generation.insert("maxOutputTokens".to_owned(), profile.tokens_sent(question).into());
    if parameters.send_stop {
        let stop: Vec<&String> = sampling.stop.iter().take(STOPS_MAX).collect();
        generation.insert("stopSequences".to_owned(), json!(stop));
    }
    if parameters.send_seed {
        generation.insert("seed".to_owned(), sampling.sample.into());
    }
    match profile.gemini_thinking() {
        Thinking::None => {}
        Thinking::Budget(tokens) => {
            generation.insert("thinkingConfig".to_owned(), json!({"thinkingBudget": tokens}));
        }
        Thinking::Level(level) => {
            generation.insert("thinkingConfig".to_owned(), json!({"thinkingLevel": level}));
        }
    }
    let mut body = Map::new();
    body.insert("contents".to_owned(), json!([{"role": "user", "parts": [{"text": question.prompt}]}]));
    body.insert("generationConfig".to_owned(), Value::Object(generation));
    if !question.instruction.is_empty() {
        body.insert("systemInstruction".to_owned(), json!({"parts": [{"text": question.instruction}]}));
    }
    body
}

/// Tokens; thoughts are counted beside the candidates, whose count is absent where there is no text.
pub(super) fn counts(answer: &Value) -> Counts {
    let number = |name: &str| count(answer, &format!("/usageMetadata/{name}"));
    let tokens_in = number("promptTokenCount")
        .map(|tokens| tokens.saturating_add(number("toolUsePromptTokenCount").unwrap_or(0)));
    let thoughts = number("thoughtsTokenCount").unwrap_or(0);
    let by_parts = number("candidatesTokenCount").unwrap_or(0).saturating_add(thoughts);
    let by_sum = match (number("totalTokenCount"), tokens_in) {
        (Some(total), Some(tokens_in)) => total.saturating_sub(tokens_in),
        _ => 0,
    };
    Counts {
        tokens_in,
        cached: number("cachedContentTokenCount").unwrap_or(0),
        written: 0,
        tokens_out: Some(by_parts.max(by_sum)).filter(|tokens| *tokens > 0),
        thoughts,
    }
}

/// The first candidate, or that the prompt was blocked; the error names what is missing.
pub(super) fn candidate(answer: &Value) -> Result<Candidate, &'static str> {
    let blocked = answer.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
    let candidate = answer.pointer("/candidates/0");
    if candidate.is_none() && blocked.is_none() {
        return Err("candidates");
    }
    let parts = candidate.and_then(|candidate| candidate.pointer("/content/parts")).and_then(Value::as_array);
    let is_thought = |part: &Value| part.get("thought").and_then(Value::as_bool) == Some(true);
    let (text, thoughts) = parts.map(|parts| texts(parts, is_thought)).unwrap_or_default();
    let reason = candidate.and_then(|candidate| candidate.get("finishReason")).and_then(Value::as_str);
    let message = candidate.and_then(|candidate| candidate.get("finishMessage")).and_then(Value::as_str);
    Ok(Candidate {
        text,
        thoughts,
        thoughts_key: "thought",
        refusal: message.unwrap_or_default().to_owned(),
        finish: if blocked.is_some() { Finish::Known(FinishReason::ContentFilter) } else { finish(reason) },
        error: None,
    })
}

fn finish(reason: Option<&str>) -> Finish {
    match reason.unwrap_or_default() {
        "" | "STOP" | "FINISH_REASON_UNSPECIFIED" => Finish::Known(FinishReason::Stop),
        "MAX_TOKENS" => Finish::Known(FinishReason::Length),
        // `OTHER` is what Gemini says of prompts and answers that it does not like for reasons it does not name.
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "MODEL_ARMOR" | "OTHER" => Finish::Known(FinishReason::ContentFilter),
        name => Finish::Unusable(cut(name)),
    }
}
