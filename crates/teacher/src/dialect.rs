//! The dialects: for each provider, the request that is sent and how its answer is read.
//!
//! OpenAI's API is that of OpenAI, vLLM, llama.cpp, Ollama and TGI. Anthropic and Gemini have dialects of their own,
//! because their compatibility layers ignore some parameters.

use crate::Question;
use crate::profile::{Profile, Provider};
use domain::completion::FinishReason;
use serde_json::{Map, Value, json};

/// Most stop sequences that Gemini accepts.
const GEMINI_STOPS_MAX: usize = 5;
/// The version of Anthropic's API that this is written against.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// An answer as read from a provider's body; counts are `None` where the server reports none.
#[derive(Debug, PartialEq)]
pub(crate) struct ProviderAnswer {
    pub(crate) text: String,
    pub(crate) finish_reason: FinishReason,
    pub(crate) model: Option<String>,
    pub(crate) tokens_in: Option<u64>,
    pub(crate) tokens_out: Option<u64>,
}

/// The address that requests are posted to.
pub(crate) fn endpoint(profile: &Profile) -> String {
    let base = profile.url.trim_end_matches('/');
    match profile.provider {
        Provider::OpenAiChat => format!("{base}/chat/completions"),
        Provider::OpenAiCompletions => format!("{base}/completions"),
        Provider::Anthropic => format!("{base}/messages"),
        Provider::Gemini => format!("{base}/models/{}:generateContent", profile.model),
    }
}

/// Tokens that the model may think, beside those of its answer.
pub(crate) fn thinking_tokens(profile: &Profile) -> u32 {
    if profile.parameters.thinking { profile.parameters.thinking_tokens_max } else { 0 }
}

/// Request headers: the key in the provider's header, and the API version where one is required.
pub(crate) fn headers(profile: &Profile) -> Vec<(&'static str, String)> {
    let key = profile.api_key.expose().to_owned();
    let mut headers = match profile.provider {
        Provider::OpenAiChat | Provider::OpenAiCompletions => {
            vec![("authorization", format!("Bearer {key}"))]
        }
        Provider::Anthropic => vec![("x-api-key", key)],
        Provider::Gemini => vec![("x-goog-api-key", key)],
    };
    if profile.api_key.is_empty() {
        headers.clear();
    }
    if profile.provider == Provider::Anthropic {
        headers.push(("anthropic-version", ANTHROPIC_VERSION.to_owned()));
    }
    headers
}

/// The request's body.
pub(crate) fn body(profile: &Profile, question: &Question) -> Value {
    match profile.provider {
        Provider::OpenAiChat => {
            let mut messages = Vec::new();
            if !question.instruction.is_empty() {
                messages.push(json!({"role": "system", "content": question.instruction}));
            }
            messages.push(json!({"role": "user", "content": question.prompt}));
            openai(profile, question, "messages", Value::Array(messages))
        }
        Provider::OpenAiCompletions => {
            openai(profile, question, "prompt", Value::String(question.prompt.clone()))
        }
        Provider::Anthropic => anthropic(profile, question),
        Provider::Gemini => gemini(question),
    }
}

fn openai(profile: &Profile, question: &Question, key: &str, value: Value) -> Value {
    let sampling = &question.sampling;
    let mut body = Map::new();
    body.insert("model".to_owned(), profile.model.clone().into());
    body.insert(key.to_owned(), value);
    body.insert("temperature".to_owned(), sampling.temperature.into());
    body.insert("top_p".to_owned(), sampling.top_p.into());
    body.insert("max_tokens".to_owned(), sampling.tokens_max.into());
    body.insert("stop".to_owned(), sampling.stop.clone().into());
    body.insert("seed".to_owned(), sampling.sample.into());
    Value::Object(body)
}

fn anthropic(profile: &Profile, question: &Question) -> Value {
    let sampling = &question.sampling;
    // The API refuses stop sequences of white space alone; completions are cut at them when they are read.
    let stop: Vec<&String> = sampling.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    let mut body = json!({
        "model": profile.model,
        "max_tokens": sampling.tokens_max,
        "messages": [{"role": "user", "content": question.prompt}],
        "stop_sequences": stop,
        "temperature": sampling.temperature.min(1.0),
    });
    if let Value::Object(fields) = &mut body {
        if !question.instruction.is_empty() {
            fields.insert("system".to_owned(), question.instruction.clone().into());
        }
        // Newer models refuse a request with both.
        if sampling.top_p < 1.0 {
            fields.remove("temperature");
            fields.insert("top_p".to_owned(), sampling.top_p.into());
        }
    }
    body
}

fn gemini(question: &Question) -> Value {
    let sampling = &question.sampling;
    let stop: Vec<&String> = sampling.stop.iter().take(GEMINI_STOPS_MAX).collect();
    let mut body = json!({
        "contents": [{"role": "user", "parts": [{"text": question.prompt}]}],
        "generationConfig": {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "maxOutputTokens": sampling.tokens_max,
            "stopSequences": stop,
            "seed": sampling.sample,
        },
    });
    if let (false, Value::Object(fields)) = (question.instruction.is_empty(), &mut body) {
        fields.insert("systemInstruction".to_owned(), json!({"parts": [{"text": question.instruction}]}));
    }
    body
}

/// Reads an answer; the error names the missing part.
pub(crate) fn read(provider: Provider, answer: &Value) -> Result<ProviderAnswer, &'static str> {
    match provider {
        Provider::OpenAiChat | Provider::OpenAiCompletions => read_openai(answer),
        Provider::Anthropic => read_anthropic(answer),
        Provider::Gemini => read_gemini(answer),
    }
}

fn read_openai(answer: &Value) -> Result<ProviderAnswer, &'static str> {
    let choice = answer.pointer("/choices/0").ok_or("choices")?;
    let text = choice.get("text").or_else(|| choice.pointer("/message/content")).and_then(Value::as_str);
    Ok(ProviderAnswer {
        text: text.unwrap_or_default().to_owned(),
        finish_reason: match choice.get("finish_reason").and_then(Value::as_str) {
            Some("length") => FinishReason::Length,
            Some("content_filter") => FinishReason::ContentFilter,
            _ => FinishReason::Stop,
        },
        model: named(answer, "/model"),
        tokens_in: count(answer, &["/usage/prompt_tokens"]),
        tokens_out: count(answer, &["/usage/completion_tokens"]),
    })
}

fn read_anthropic(answer: &Value) -> Result<ProviderAnswer, &'static str> {
    let content = answer.get("content").and_then(Value::as_array).ok_or("content")?;
    Ok(ProviderAnswer {
        text: joined(content),
        finish_reason: match answer.get("stop_reason").and_then(Value::as_str) {
            Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
            Some("refusal") => FinishReason::ContentFilter,
            _ => FinishReason::Stop,
        },
        model: named(answer, "/model"),
        tokens_in: count(
            answer,
            &["/usage/input_tokens", "/usage/cache_read_input_tokens", "/usage/cache_creation_input_tokens"],
        ),
        tokens_out: count(answer, &["/usage/output_tokens"]),
    })
}

fn read_gemini(answer: &Value) -> Result<ProviderAnswer, &'static str> {
    let blocked = answer.pointer("/promptFeedback/blockReason").is_some();
    let candidate = answer.pointer("/candidates/0");
    if candidate.is_none() && !blocked {
        return Err("candidates");
    }
    let parts = candidate.and_then(|candidate| candidate.pointer("/content/parts")).and_then(Value::as_array);
    let finished = candidate.and_then(|candidate| candidate.get("finishReason")).and_then(Value::as_str);
    Ok(ProviderAnswer {
        text: parts.map(|parts| joined(parts)).unwrap_or_default(),
        finish_reason: match finished {
            Some("STOP") => FinishReason::Stop,
            Some("MAX_TOKENS") => FinishReason::Length,
            Some("SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII") => {
                FinishReason::ContentFilter
            }
            _ if blocked => FinishReason::ContentFilter,
            _ => FinishReason::Stop,
        },
        model: named(answer, "/modelVersion"),
        tokens_in: count(answer, &["/usageMetadata/promptTokenCount"]),
        tokens_out: count(
            answer,
            &["/usageMetadata/candidatesTokenCount", "/usageMetadata/thoughtsTokenCount"],
        ),
    })
}

/// The text parts of an answer, joined. Thoughts are left out.
fn joined(parts: &[Value]) -> String {
    let answered = parts.iter().filter(|part| part.get("thought").and_then(Value::as_bool) != Some(true));
    answered.filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
}

fn named(answer: &Value, pointer: &str) -> Option<String> {
    answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// The sum of the counts at `pointers`; `None` where the first is absent.
fn count(answer: &Value, pointers: &[&str]) -> Option<u64> {
    let number = |pointer: &&str| answer.pointer(pointer).and_then(Value::as_u64);
    let first = pointers.first().and_then(number)?;
    Some(pointers.iter().skip(1).filter_map(number).fold(first, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(provider: Provider, answer: Value, expected: (&str, FinishReason, Option<u64>, Option<u64>)) {
        let answered = read(provider, &answer).unwrap();
        let found = (answered.text.as_str(), answered.finish_reason, answered.tokens_in, answered.tokens_out);
        assert_eq!(found, expected, "{answer}");
    }

    #[test]
    fn openai_is_read() {
        let text = |reason: &str| json!({"choices": [{"text": "two", "finish_reason": reason}]});
        check(Provider::OpenAiCompletions, text("stop"), ("two", FinishReason::Stop, None, None));
        check(Provider::OpenAiCompletions, text("length"), ("two", FinishReason::Length, None, None));
        check(
            Provider::OpenAiChat,
            json!({"choices": [{"message": {"content": "two"}, "finish_reason": "content_filter"}],
                   "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
            ("two", FinishReason::ContentFilter, Some(7), Some(3)),
        );
        assert_eq!(read(Provider::OpenAiChat, &json!({})), Err("choices"));
    }

    #[test]
    fn anthropic_is_read() {
        let said = |reason: &str| {
            json!({"content": [{"type": "text", "text": "t"}, {"type": "text", "text": "wo"}], "stop_reason": reason,
                   "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 3}})
        };
        check(Provider::Anthropic, said("stop_sequence"), ("two", FinishReason::Stop, Some(7), Some(3)));
        check(Provider::Anthropic, said("max_tokens"), ("two", FinishReason::Length, Some(7), Some(3)));
        check(Provider::Anthropic, said("refusal"), ("two", FinishReason::ContentFilter, Some(7), Some(3)));
        assert_eq!(read(Provider::Anthropic, &json!({"choices": []})), Err("content"));
    }

    #[test]
    fn gemini_is_read() {
        let said = |reason: &str| {
            json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}, {"text": "two"}]},
                                   "finishReason": reason}],
                   "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1, "thoughtsTokenCount": 2}})
        };
        check(Provider::Gemini, said("STOP"), ("two", FinishReason::Stop, Some(7), Some(3)));
        check(Provider::Gemini, said("MAX_TOKENS"), ("two", FinishReason::Length, Some(7), Some(3)));
        check(Provider::Gemini, said("SAFETY"), ("two", FinishReason::ContentFilter, Some(7), Some(3)));
        let blocked =
            json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}});
        check(Provider::Gemini, blocked, ("", FinishReason::ContentFilter, Some(7), None));
        assert_eq!(read(Provider::Gemini, &json!({})), Err("candidates"));
    }
}
