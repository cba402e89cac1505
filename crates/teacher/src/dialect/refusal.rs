//! What an error means: which of them a wait helps, which a person, and which are this request's own fault.
//!
//! Statuses come first where they are clear; 400, 403, 422 and 429 mean many things, and are told apart by the codes, types
//! and words that providers put into the body.

use super::reading::{Meaning, Received, Words, cut};
use crate::headers;
use domain::completion::FinishReason;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// A quota that is whole again later than this is a matter for a person.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// How much of a body without a known shape is kept.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The prompt, or what the model made of it, went against the provider's policy.
const POLICY: &[&str] = &[
    "content_filter",
    "content_policy",
    "content management policy",
    "responsibleaipolicyviolation",
    "content exists risk",
    "data_inspection_failed",
    "requires moderation",
    "flagged",
    "prohibited_content",
];
/// The account has no money left.
const MONEY: &[&str] = &[
    "insufficient_quota",
    "insufficient balance",
    "insufficient_balance",
    "insufficient credit",
    "insufficient_credit",
    "credit balance",
    "billing_hard_limit_reached",
    "billing_not_active",
    "payment required",
    "arrears",
];
/// As before, in words that also stand in the refusals of a busy minute (429).
const MONEY_ELSEWHERE: &[&str] = &["billing", "usage limits", "more credits"];
/// The key, or the place it is used from.
const KEY: &[&str] = &[
    "api_key_invalid",
    "api key not valid",
    "api key expired",
    "invalid_api_key",
    "invalid api key",
    "incorrect api key",
    "authentication",
    "user location is not supported",
];
/// The prompt has more tokens than the model takes.
const TOO_LONG: &[&str] = &[
    "context_length_exceeded",
    "context length",
    "context window",
    "context size",
    "context limit",
    "exceed_context_size",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "too many tokens",
    "input token count",
    "string_above_max_length",
    "tokens_limit_reached",
    "must have less than",
    "inputs` tokens",
    "request too large",
    "request_too_large",
    "too large for",
];
const DAY: &[&str] = &["per day", "perday", "per-day", "per_day", "daily", "(rpd)", "(tpd)"];
/// Keys of a request that hold the prompt: an error that names them is the prompt's.
const PROMPT: &[&str] = &[
    "messages",
    "prompt",
    "input",
    "inputs",
    "input_tokens",
    "contents",
    "content",
    "system",
    "systemInstruction",
];

/// An error as servers write it, of whatever shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ServerError {
    /// What it says; the body where no message is found.
    message: String,
    /// Codes, types, reasons and the message, in lower case.
    words: String,
    /// A status that it names.
    status: Option<u16>,
    parameter: Option<String>,
    /// The wait that it asks for.
    wait: Option<Duration>,
}

impl ServerError {
    pub(super) fn of(answer: &Value, received: &Received<'_>) -> Self {
        let error = match answer.get("error") {
            Some(error) if !error.is_null() => error,
            _ => answer,
        };
        let text = |value: &Value, keys: &[&str]| {
            keys.iter().find_map(|key| value.get(*key).and_then(Value::as_str)).map(str::to_owned)
        };
        let message = error
            .as_str()
            .map(str::to_owned)
            .or_else(|| text(error, &["message", "detail", "msg"]))
            .or_else(|| error.pointer("/detail/0/msg").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| body_text(received.body));
        let code =
            error.get("code").map(|code| code.as_str().map_or_else(|| code.to_string(), str::to_owned));
        let named =
            ["/type", "/status", "/innererror/code", "/metadata/reasons", "/metadata/raw", "/error_type"];
        let mut words: Vec<String> = named
            .iter()
            .filter_map(|pointer| error.pointer(pointer))
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        words.extend(text(answer, &["error_type"]));
        words.extend(code.clone());
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        words.extend(details.iter().map(Value::to_string));
        words.push(message.clone());
        Self {
            words: words.join(" ").to_lowercase(),
            status: code.and_then(|code| code.parse().ok()).filter(|code| (400..600).contains(code)),
            parameter: text(error, &["param"]).or_else(|| location(error)),
            wait: details.iter().find_map(retry_info).or_else(|| reset(error, received.now)),
            message,
        }
    }

    fn says(&self, any: &[&str]) -> bool {
        any.iter().any(|word| self.words.contains(word))
    }

    fn words(&self, what: impl Into<String>) -> Words {
        Words { what: what.into(), said: self.message.clone() }
    }
}

fn body_text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..TEXT_BYTES_MAX).unwrap_or(body)).into_owned()
}

/// The field that FastAPI (Mistral, older vLLM) or Google names.
fn location(error: &Value) -> Option<String> {
    let fast_api = error.pointer("/detail/0/loc").or_else(|| error.pointer("/message/detail/0/loc"));
    let named = fast_api.and_then(Value::as_array).and_then(|places| places.last()).and_then(Value::as_str);
    let google = error.get("details").and_then(Value::as_array).and_then(|details| {
        details.iter().find_map(|detail| detail.pointer("/fieldViolations/0/field")).and_then(Value::as_str)
    });
    named.or(google).map(str::to_owned)
}

/// Google's RetryInfo.
fn retry_info(detail: &Value) -> Option<Duration> {
    let kind = detail.get("@type").and_then(Value::as_str)?;
    let delay = detail.get("retryDelay").and_then(Value::as_str)?;
    kind.ends_with("google.rpc.RetryInfo").then(|| headers::duration(delay)).flatten()
}

/// The time, in milliseconds, at which OpenRouter's limit is whole again.
fn reset(error: &Value, now: SystemTime) -> Option<Duration> {
    let reset = error.pointer("/metadata/headers/X-RateLimit-Reset")?;
    let milliseconds = reset.as_u64().or_else(|| reset.as_str()?.parse().ok())?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    at.duration_since(now).ok().filter(|wait| !wait.is_zero())
}

/// What an error inside a body of the status 200 means: the same as under the status that it names.
pub(super) fn inside(answer: &Value, request: &Value, received: &Received<'_>) -> Meaning {
    let error = ServerError::of(answer, received);
    match error.status.or_else(|| status_in_words(&error)) {
        Some(status) => classify(status, &error, request, received),
        None => Meaning::Malformed(error.words("answered with an error")),
    }
}

/// The status that an error's codes and words stand for.
fn status_in_words(error: &ServerError) -> Option<u16> {
    let table: &[(&[&str], u16)] = &[
        (POLICY, 400),
        (MONEY, 402),
        (KEY, 401),
        (
            &[
                "rate_limit",
                "rate limit",
                "too_many_requests",
                "too many requests",
                "resource_exhausted",
                "throttl",
            ],
            429,
        ),
        (&["overloaded", "unavailable", "at capacity", "over capacity"], 503),
        (&["permission"], 403),
        (&["not_found", "not found"], 404),
        (TOO_LONG, 400),
        (&["invalid_request", "invalid_argument", "unsupported_parameter", "bad_request", "badrequest"], 400),
        (&["server_error", "server error", "internal", "api_error", "timeout", "timed out", "deadline"], 500),
    ];
    table.iter().find(|(words, _)| error.says(words)).map(|(_, status)| *status)
}

/// What an error under this status means.
pub(super) fn classify(
    status: u16,
    error: &ServerError,
    request: &Value,
    received: &Received<'_>,
) -> Meaning {
    if matches!(status, 400 | 403 | 422) && error.says(POLICY) {
        let text = error.message.clone();
        return Meaning::Answered {
            text,
            thoughts: String::new(),
            finish_reason: FinishReason::ContentFilter,
        };
    }
    let is_money = error.says(MONEY) || (status != 429 && error.says(MONEY_ELSEWHERE));
    if status == 402 || (matches!(status, 400 | 403 | 422 | 429) && is_money) {
        return Meaning::Permanent(error.words(format!(
            "reports an exhausted quota or balance ({status}): add money or raise the quota, then resume"
        )));
    }
    match status {
        400 | 422 => wrong_request(status, error, request),
        413 | 414 | 431 => too_long(status, error),
        429 if error.says(&["request too large"]) => too_long(status, error),
        429 => wait(error, received),
        401 | 403 => Meaning::Permanent(error.words(format!(
            "rejects the key, or forbids the model to it ({status}): check the profile's api_key_env or api_key_file, then resume"
        ))),
        407 => Meaning::Permanent(error.words(
            "cannot be asked: the proxy wants a user and a password (407): write them into the proxy's address, then resume",
        )),
        404 | 405 | 410 => Meaning::Permanent(
            error.words(format!("has no such address or model ({status}): check the profile's url and model")),
        ),
        300..=399 => Meaning::Permanent(
            error.words(format!("redirects ({status}): set the profile's url to the final address")),
        ),
        // 424 is TGI's broken generation, 498 Groq's lack of capacity, 499 Gemini's cancelled call, 529 Anthropic's overload;
        // gateways have 520 to 527 and 530 of their own.
        408 | 409 | 424 | 425 | 498 | 499 | 500..=599 => {
            Meaning::Unavailable(error.words(format!("answered {status}")))
        }
        _ => Meaning::Permanent(
            error.words(format!("refuses every request ({status}): check the profile's url and provider")),
        ),
    }
}

fn wait(error: &ServerError, received: &Received<'_>) -> Meaning {
    let wait = received.wait.or(error.wait);
    // A quota of a day whose end is near, or that says when to come back, is waited for like any other.
    if error.says(DAY) && wait.is_none_or(|wait| wait >= WAIT_MAX) {
        return Meaning::Permanent(error.words(
            "reports that its quota of a day is used up (429): raise it or wait until it is renewed, then resume",
        ));
    }
    Meaning::Wait { words: error.words("asks to wait (429)"), wait }
}

fn too_long(status: u16, error: &ServerError) -> Meaning {
    let words = error.words(format!(
        "refuses the prompt as too long ({status}): shorten the row or the exemplars, or lower teacher.tokens_max"
    ));
    Meaning::WrongRequest { words, parameter: None }
}

fn wrong_request(status: u16, error: &ServerError, request: &Value) -> Meaning {
    let model = request.get("model").and_then(Value::as_str).unwrap_or_default();
    if error.says(KEY) {
        return Meaning::Permanent(error.words(format!(
            "rejects the key ({status}): check the profile's api_key_env or api_key_file, then resume"
        )));
    }
    let is_model = error.parameter.as_deref() == Some("model")
        || error.says(&[
            "model_not_found",
            "invalid model",
            "unknown model",
            "not a valid model",
            "invalid_model",
        ])
        || (error.says(&["model"]) && error.says(&["does not exist", "not found"]));
    if is_model {
        return Meaning::Permanent(
            error.words(format!("has no model `{}` ({status}): check the profile's model", cut(model))),
        );
    }
    if error.says(TOO_LONG) {
        return too_long(status, error);
    }
    if let Some(parameter) = parameter(error, request) {
        let what = format!("does not take the parameter `{parameter}` ({status}): {}", remedy(&parameter));
        return Meaning::WrongRequest { words: error.words(what), parameter: Some(parameter) };
    }
    Meaning::WrongRequest { words: error.words(format!("refuses the prompt ({status})")), parameter: None }
}

/// The parameter that an error is about; `None` where it is about the prompt.
fn parameter(error: &ServerError, request: &Value) -> Option<String> {
    let sent = sent_names(request);
    let by_field = error.parameter.as_deref().map(|field| {
        field.split(['.', '[', '/']).map(|part| part.trim_end_matches(']').to_owned()).collect::<Vec<_>>()
    });
    let is_same = |left: &str, right: &str| plain(left) == plain(right);
    let known = by_field.iter().flatten().rev().find_map(|part| sent.iter().find(|name| is_same(name, part)));
    let about_prompt = by_field
        .iter()
        .flatten()
        .any(|part| part.is_empty() || PROMPT.iter().any(|prompt| is_same(prompt, part)));
    if let Some(known) = known {
        return Some(known.clone());
    }
    if about_prompt {
        return None;
    }
    // In a quotation; else on its own, where it is not an everyday word.
    let in_message = sent.iter().find(|name| quotes(&error.message, name));
    let in_words = || sent.iter().find(|name| !is_everyday(name) && has_word(&error.message, name));
    let unknown = by_field.as_ref().and_then(|parts| parts.last());
    in_message.or_else(in_words).or(unknown).map(|name| cut(name))
}

/// The parameters of a request: its keys, and those of the tables in it, without the ones that hold the prompt.
fn sent_names(request: &Value) -> Vec<String> {
    let mut names = Vec::new();
    let mut tables = vec![request];
    while let Some(table) = tables.pop() {
        let Value::Object(fields) = table else { continue };
        for (name, value) in fields {
            if name != "model" && !PROMPT.contains(&name.as_str()) {
                names.push(name.clone());
                tables.push(value);
            }
        }
    }
    // `thinkingBudget` before `thinkingConfig` before `generationConfig`.
    names.reverse();
    names
}

/// `maxOutputTokens` and `max_output_tokens` are the same.
fn plain(name: &str) -> String {
    name.chars().filter(|character| *character != '_').flat_map(char::to_lowercase).collect()
}

fn quotes(message: &str, name: &str) -> bool {
    let message = plain(message);
    let name = plain(name);
    ["'", "\"", "`"].iter().any(|quote| {
        message.contains(&format!("{quote}{name}{quote}")) || message.contains(&format!(".{name}{quote}"))
    }) || message.starts_with(&format!("{name}:"))
}

fn is_everyday(name: &str) -> bool {
    name.chars().all(|character| character.is_ascii_lowercase()) && name != "temperature"
}

/// Also `thinking budget` is `thinkingBudget`.
fn has_word(message: &str, name: &str) -> bool {
    plain(message).replace(' ', "").contains(&plain(name))
}

/// What to write into the profile.
fn remedy(parameter: &str) -> &'static str {
    match parameter {
        "max_tokens" => {
            "write `tokens_parameter = \"max_completion_tokens\"` into the profile, or lower teacher.tokens_max"
        }
        "max_completion_tokens" => {
            "write `tokens_parameter = \"max_tokens\"` into the profile, or lower teacher.tokens_max"
        }
        "maxOutputTokens" => "lower teacher.tokens_max",
        "temperature" => {
            "write `send_temperature = false` into the profile, or set teacher.temperature to what it takes"
        }
        "top_p" | "topP" => {
            "write `send_top_p = false` into the profile, or set teacher.top_p to what it takes"
        }
        "stop" | "stop_sequences" | "stopSequences" => "write `send_stop = false` into the profile",
        "seed" => "write `send_seed = false` into the profile",
        "thinking" | "thinkingConfig" | "thinkingBudget" | "thinkingLevel" => {
            "set `thinking` and `thinking_tokens_max` in the profile to what the model takes"
        }
        _ => "change `body` in the profile",
    }
}
