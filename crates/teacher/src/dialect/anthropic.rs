//! Anthropic's dialect: the Messages API.

use super::reading::{Candidate, Counts, Finish, count, cut, texts};
use crate::Question;
use crate::profile::Profile;
use domain::completion::FinishReason;
use serde_json::{Map, Value, json};

/// The version of Anthropic's API that this is written against.
pub(super) const VERSION: &str = "2023-06-01";
/// Fewest tokens that a model which thinks is given for it.
const THINKING_TOKENS_MIN: u32 = 1_024;

/// That a model which thinks has the room that the API asks for.
///
/// # Errors
/// What to write.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    let parameters = &profile.parameters;
    if parameters.thinking && parameters.thinking_tokens_max < THINKING_TOKENS_MIN {
        return Err(format!(
            "thinking_tokens_max: is {}, and Anthropic's models think with {THINKING_TOKENS_MIN} tokens or more: raise it, or \
             write `thinking = false`",
            parameters.thinking_tokens_max
        ));
    }
    Ok(())
}

/// The request's body.
pub(super) fn request(profile: &Profile, question: &Question) -> Map<String, Value> {
    let (sampling, parameters) = (&question.sampling, &profile.parameters);
    let mut body = Map::new();
    body.insert("model".to_owned(), profile.model.clone().into());
    body.insert("max_tokens".to_owned(), profile.tokens_sent(question).into());
    body.insert("messages".to_owned(), json!([{"role": "user", "content": question.prompt}]));
    if !question.instruction.is_empty() {
        body.insert("system".to_owned(), question.instruction.clone().into());
    }
    if parameters.send_stop {
        // The API refuses stop sequences of white space alone; completions are cut at them when they are read.
        let stop: Vec<&String> = sampling.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
        body.insert("stop_sequences".to_owned(), json!(stop));
    }
    if parameters.thinking {
        // A model that thinks takes no temperature.
        let room = parameters.thinking_tokens_max;
        body.insert("thinking".to_owned(), json!({"type": "enabled", "budget_tokens": room}));
    } else if sampling.top_p < 1.0 && parameters.send_top_p {
        // Newer models refuse a request with both.
        body.insert("top_p".to_owned(), sampling.top_p.into());
    } else if parameters.send_temperature {
        body.insert("temperature".to_owned(), sampling.temperature.min(1.0).into());
    }
    body
}

/// Tokens; those of the cache are counted beside `input_tokens`, thoughts with `output_tokens`.
pub(super) fn counts(answer: &Value) -> Counts {
    let number = |pointer: &str| count(answer, pointer);
    let cached = number("/usage/cache_read_input_tokens").unwrap_or(0);
    let written = number("/usage/cache_creation_input_tokens").unwrap_or(0);
    let plain = number("/usage/input_tokens").unwrap_or(0);
    Counts {
        tokens_in: Some(plain.saturating_add(cached).saturating_add(written)).filter(|tokens| *tokens > 0),
        cached,
        written,
        tokens_out: number("/usage/output_tokens"),
        thoughts: 0,
    }
}

/// The message; the error names what is missing.
pub(super) fn candidate(answer: &Value) -> Result<Candidate, &'static str> {
    let content = answer.get("content").and_then(Value::as_array).ok_or("content")?;
    let is_thought = |part: &Value| {
        matches!(part.get("type").and_then(Value::as_str), Some("thinking" | "redacted_thinking"))
    };
    let (text, thoughts) = texts(content, is_thought);
    Ok(Candidate {
        text,
        thoughts,
        thoughts_key: "thinking",
        refusal: String::new(),
        finish: finish(answer.get("stop_reason").and_then(Value::as_str)),
        error: None,
    })
}

fn finish(reason: Option<&str>) -> Finish {
    match reason.unwrap_or_default() {
        "" | "end_turn" | "stop_sequence" => Finish::Known(FinishReason::Stop),
        "max_tokens" | "model_context_window_exceeded" => Finish::Known(FinishReason::Length),
        "refusal" => Finish::Known(FinishReason::ContentFilter),
        name => Finish::Unusable(cut(name)),
    }
}
