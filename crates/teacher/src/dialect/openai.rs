//! OpenAI's dialect, as its many servers write it.

use super::reading::{Candidate, Counts, Finish, count, cut, texts};
use crate::Question;
use crate::profile::Profile;
use domain::completion::FinishReason;
use serde_json::{Map, Value, json};

/// Most stop sequences that OpenAI accepts; what stands beyond them is cut when the completion is read.
const STOPS_MAX: usize = 4;

/// The body of a chat's request.
pub(super) fn chat(profile: &Profile, question: &Question) -> Map<String, Value> {
    let mut messages = Vec::new();
    if !question.instruction.is_empty() {
        messages.push(json!({"role": "system", "content": question.instruction}));
    }
    messages.push(json!({"role": "user", "content": question.prompt}));
    body(profile, question, "messages", Value::Array(messages))
}

/// The body of a completion's request.
pub(super) fn completion(profile: &Profile, question: &Question) -> Map<String, Value> {
    body(profile, question, "prompt", Value::String(question.prompt.clone()))
}

fn body(profile: &Profile, question: &Question, key: &str, value: Value) -> Map<String, Value> {
    let (sampling, parameters) = (&question.sampling, &profile.parameters);
    let mut body = Map::new();
    body.insert("model".to_owned(), profile.model.clone().into());
    body.insert(key.to_owned(), value);
    if parameters.send_temperature {
        body.insert("temperature".to_owned(), sampling.temperature.into());
    }
    if parameters.send_top_p {
        body.insert("top_p".to_owned(), sampling.top_p.into());
    }
    body.insert(parameters.tokens_parameter.name().to_owned(), profile.tokens_sent(question).into());
    if parameters.send_stop && !sampling.stop.is_empty() {
        let stop: Vec<&String> = sampling.stop.iter().take(STOPS_MAX).collect();
        body.insert("stop".to_owned(), json!(stop));
    }
    if parameters.send_seed {
        body.insert("seed".to_owned(), sampling.sample.into());
    }
    body
}

/// Tokens in OpenAI's shape. Most servers count thoughts with the completion; where the sum, or the thoughts themselves, are
/// more than that, they do not.
pub(super) fn counts(answer: &Value) -> Counts {
    let number = |pointer: &str| count(answer, pointer);
    let tokens_in = number("/usage/prompt_tokens").or_else(|| number("/usage/input_tokens"));
    let thoughts = number("/usage/completion_tokens_details/reasoning_tokens")
        .or_else(|| number("/usage/reasoning_tokens"))
        .unwrap_or(0);
    let completion =
        number("/usage/completion_tokens").or_else(|| number("/usage/output_tokens")).unwrap_or(0);
    let by_parts = if thoughts > completion { completion.saturating_add(thoughts) } else { completion };
    let by_sum = match (number("/usage/total_tokens"), tokens_in) {
        (Some(total), Some(tokens_in)) => total.saturating_sub(tokens_in),
        _ => 0,
    };
    Counts {
        tokens_in,
        // OpenAI's, and DeepSeek's.
        cached: number("/usage/prompt_tokens_details/cached_tokens")
            .or_else(|| number("/usage/prompt_cache_hit_tokens"))
            .unwrap_or(0),
        written: number("/usage/prompt_tokens_details/cache_write_tokens").unwrap_or(0),
        tokens_out: Some(by_parts.max(by_sum)).filter(|tokens| *tokens > 0),
        thoughts,
    }
}

/// The first choice; the error names what is missing.
pub(super) fn candidate(answer: &Value) -> Result<Candidate, &'static str> {
    let choice = answer.pointer("/choices/0").filter(|choice| choice.is_object()).ok_or("choices")?;
    let message = choice.get("message").unwrap_or(&Value::Null);
    let content = choice.get("text").filter(|text| text.is_string()).or_else(|| message.get("content"));
    let is_thought = |part: &Value| {
        matches!(
            part.get("type").and_then(Value::as_str),
            Some("thinking" | "reasoning" | "redacted_thinking")
        )
    };
    let (text, mut thoughts) = match content {
        Some(Value::String(text)) => (text.clone(), String::new()),
        Some(Value::Array(parts)) => texts(parts, is_thought),
        _ => (String::new(), String::new()),
    };
    let mut thoughts_key = "thinking";
    // vLLM and DeepSeek write the first, OpenRouter, Ollama and newer vLLM the second.
    for key in ["reasoning_content", "reasoning"] {
        let beside = [message, choice].into_iter().find_map(|place| place.get(key).and_then(Value::as_str));
        if let Some(beside) = beside.filter(|beside| !beside.is_empty() && thoughts.is_empty()) {
            thoughts = beside.to_owned();
            thoughts_key = key;
        }
    }
    let refusal_part = content
        .and_then(Value::as_array)
        .and_then(|parts| parts.iter().find_map(|part| part.get("refusal").and_then(Value::as_str)));
    let refusal = message.get("refusal").and_then(Value::as_str).or(refusal_part);
    Ok(Candidate {
        text,
        thoughts,
        thoughts_key,
        refusal: refusal.unwrap_or_default().to_owned(),
        finish: finish(choice.get("finish_reason").and_then(Value::as_str)),
        error: choice.get("error").filter(|error| !error.is_null()).cloned(),
    })
}

/// The names that servers give to the ends of a text. One that is absent is an end of text: older servers write none.
fn finish(reason: Option<&str>) -> Finish {
    let name = reason.unwrap_or_default();
    match name.to_ascii_lowercase().as_str() {
        // TGI writes `eos_token` and `stop_sequence`, Together `eos`, Cohere `complete`, Anthropic behind a proxy `end_turn`.
        "" | "stop" | "eos" | "eos_token" | "stop_sequence" | "end_turn" | "complete" => {
            Finish::Known(FinishReason::Stop)
        }
        "length" | "max_tokens" | "model_length" | "max_output_tokens" | "max_length" | "context_length" => {
            Finish::Known(FinishReason::Length)
        }
        // `sensitive` is GLM's.
        "content_filter" | "content_filtered" | "refusal" | "safety" | "sensitive" | "recitation" => {
            Finish::Known(FinishReason::ContentFilter)
        }
        // vLLM and SGLang write `abort`, DeepSeek `insufficient_system_resource`, GLM `network_error`.
        "error"
        | "abort"
        | "aborted"
        | "cancelled"
        | "timeout"
        | "insufficient_system_resource"
        | "network_error" => Finish::BrokenOff(cut(name)),
        _ => Finish::Unusable(cut(name)),
    }
}
