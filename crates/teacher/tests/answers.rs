//! What every provider's answers and errors mean. The documents follow the providers' public references; each is sent by a
//! server of this test, and read through the whole client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test that cannot be set up has failed; a table is as long as what it lists"
)]

mod common;

use common::{ask, profile, server};
use domain::budget::CallEnd;
use teacher::Provider::{Anthropic, Gemini, OpenAiChat, OpenAiCompletions};
use teacher::{Profile, Provider, Reply, TeacherError};

/// A result in one line: its class, its text or wait, and what was paid as tokens in / tokens out.
fn summary(result: &Result<Reply, TeacherError>, expected: &str) -> String {
    let end = |error: &TeacherError| match error.end() {
        CallEnd::Charged(usage) => format!("{}/{}", usage.tokens_in, usage.tokens_out),
        CallEnd::Failed => "failed".to_owned(),
        CallEnd::Refused => "refused".to_owned(),
        CallEnd::InDoubt => "in doubt".to_owned(),
    };
    match result {
        Ok(reply) => {
            let thoughts =
                if reply.thoughts.is_empty() { String::new() } else { format!(" ({})", reply.thoughts) };
            let usage = reply.usage;
            let reason = reply.finish_reason.as_str();
            format!("{reason} `{}`{thoughts} {}/{}", reply.text, usage.tokens_in, usage.tokens_out)
        }
        Err(error) => {
            let class = match error {
                TeacherError::Wait { wait, .. } => {
                    // It has some jitter on top.
                    let wanted = expected.strip_prefix("wait ").and_then(|rest| rest.split('s').next());
                    let wanted = wanted.and_then(|wanted| wanted.parse::<f64>().ok()).unwrap_or(0.0);
                    let within = (wanted..=wanted * 1.1).contains(&wait.as_secs_f64());
                    if within { format!("wait {wanted}s") } else { format!("wait {wait:?}") }
                }
                TeacherError::Unavailable { .. } => "unavailable".to_owned(),
                TeacherError::WrongRequest { parameter: Some(parameter), .. } => {
                    format!("parameter {parameter}")
                }
                TeacherError::WrongRequest { parameter: None, .. } => "prompt".to_owned(),
                TeacherError::Malformed(_) => "malformed".to_owned(),
                TeacherError::Permanent(_) => "permanent".to_owned(),
                other => format!("{other:?}"),
            };
            format!("{class} {}", end(error))
        }
    }
}

/// Sends `body` with `status`; the result has to be `expected`, and its text or error has to say `words`. What is not so is
/// returned, so that one run shows every wrong line.
async fn check(provider: Provider, status: u16, body: &str, expected: &str, words: &str) -> Option<String> {
    let (url, requests) = server(vec![(status, &[], body.as_bytes().to_vec())]).await;
    let asked = ask(Profile { provider, attempts_max: 1, ..profile(&url) }).await;
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 1, "{body}");
    let found = summary(&asked, expected);
    let said = asked.map_or_else(|error| error.to_string(), |reply| reply.text);
    let is_right = found == expected && said.contains(words);
    (!is_right)
        .then(|| format!("{status} {body}\n  wanted {expected}, {words:?}\n  found {found}, {said:?}\n"))
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An answer of OpenAI's shape with `message` and `finish_reason`.
fn chat(message: &str, finish_reason: &str) -> String {
    format!(
        r#"{{"id": "c", "object": "chat.completion", "model": "m-1", "choices": [{{"index": 0, "message": {message},
        "finish_reason": {finish_reason}}}], "usage": {{"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}}}}"#
    )
}

#[tokio::test]
async fn texts_of_every_shape_are_read() {
    let mut wrong = Vec::new();
    let text = r#"{"role": "assistant", "content": "two"}"#;
    for (message, reason, expected, words) in [
        (text, r#""stop""#, "stop `two` 40/9", ""),
        (text, "null", "stop `two` 40/9", ""),
        (text, r#""eos_token""#, "stop `two` 40/9", ""),
        (text, r#""stop_sequence""#, "stop `two` 40/9", ""),
        (text, r#""length""#, "length `two` 40/9", ""),
        (text, r#""model_length""#, "length `two` 40/9", ""),
        (text, r#""max_tokens""#, "length `two` 40/9", ""),
        (text, r#""content_filter""#, "content_filter `two` 40/9", ""),
        (text, r#""error""#, "unavailable 40/9", "broke off (`error`)"),
        (text, r#""abort""#, "unavailable 40/9", "broke off (`abort`)"),
        (text, r#""insufficient_system_resource""#, "unavailable 40/9", "insufficient_system_resource"),
        (text, r#""tool_calls""#, "malformed 40/9", "`tool_calls`"),
        (text, r#""something_new""#, "malformed 40/9", "`something_new`"),
        // OpenAI: a refusal of the model's own.
        (
            r#"{"role": "assistant", "content": null, "refusal": "I will not."}"#,
            r#""stop""#,
            "content_filter `I will not.` 40/9",
            "",
        ),
        (
            r#"{"content": [{"type": "refusal", "refusal": "I will not."}]}"#,
            r#""stop""#,
            "content_filter `I will not.` 40/9",
            "",
        ),
        (r#"{"role": "assistant", "content": ""}"#, r#""content_filter""#, "content_filter `` 40/9", ""),
        // Mistral: a list of parts, thoughts among them.
        (
            r#"{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                            {"type": "text", "text": "t"}, {"type": "text", "text": "wo"}]}"#,
            r#""stop""#,
            "stop `two` (Hm.) 40/9",
            "",
        ),
        // DeepSeek, vLLM and llama.cpp; then OpenRouter and Ollama.
        (r#"{"content": "two", "reasoning_content": "Hm."}"#, r#""stop""#, "stop `two` (Hm.) 40/9", ""),
        (r#"{"content": "two", "reasoning": "Hm."}"#, r#""stop""#, "stop `two` (Hm.) 40/9", ""),
        (
            r#"{"content": null, "reasoning_content": "Hm, two."}"#,
            r#""stop""#,
            "malformed 40/9",
            "answered with `reasoning_content` alone",
        ),
        (r#"{"content": "", "reasoning": "Hm."}"#, r#""stop""#, "malformed 40/9", "`reasoning` alone"),
        (r#"{"content": null, "reasoning_content": "Hm"}"#, r#""length""#, "length `` (Hm) 40/9", ""),
        (r#"{"content": null}"#, r#""stop""#, "malformed 40/9", "without text"),
        (r#"{"content": "a \ud83d b"}"#, r#""stop""#, "stop `a \u{fffd} b` 40/9", ""),
    ] {
        wrong.extend(check(OpenAiChat, 200, &chat(message, reason), expected, words).await);
    }
    let events = "data: {\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\n\n\
                  data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    wrong.extend(check(OpenAiChat, 200, events, "stop `two` 3/1", "").await);
    wrong.extend(check(Anthropic, 200, events, "malformed 3/16", "sent an event stream").await);
    none(&wrong);
}

#[tokio::test]
async fn every_server_s_counts_are_read() {
    let mut wrong = Vec::new();
    for (usage, expected) in [
        (r#"{"prompt_tokens": 40, "completion_tokens": 9}"#, "stop `two` 40/9"),
        // OpenAI counts thoughts with the completion, xAI beside it.
        (
            r#"{"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49,
                "completion_tokens_details": {"reasoning_tokens": 8}}"#,
            "stop `two` 40/9",
        ),
        (
            r#"{"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 149,
                "completion_tokens_details": {"reasoning_tokens": 100}}"#,
            "stop `two` 40/109",
        ),
        (
            r#"{"prompt_tokens": 40, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 100}}"#,
            "stop `two` 40/109",
        ),
        // What a server does not count, or counts as nothing, is estimated.
        (r#"{"prompt_tokens": 0, "completion_tokens": 0}"#, "stop `two` 3/1"),
        ("null", "stop `two` 3/1"),
        (r#"{"prompt_tokens": "many", "completion_tokens": -9}"#, "stop `two` 3/1"),
        (r#"{"prompt_tokens": 40.0, "total_tokens": 49}"#, "stop `two` 40/9"),
        // Counts that no model has: estimated like those that are absent.
        (r#"{"prompt_tokens": 18446744073709551615, "completion_tokens": 9}"#, "stop `two` 3/9"),
        (r#"{"prompt_tokens": 40, "completion_tokens": 18446744073709551615}"#, "stop `two` 40/1"),
        (
            r#"{"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 18446744073709551615}"#,
            "stop `two` 40/9",
        ),
        (r#"{"prompt_tokens": 1e300, "completion_tokens": 100000001}"#, "stop `two` 3/1"),
        (r#"{"prompt_tokens": 100000000, "completion_tokens": 9}"#, "stop `two` 100000000/9"),
    ] {
        let body =
            format!(r#"{{"choices": [{{"text": "two", "finish_reason": "stop"}}], "usage": {usage}}}"#);
        wrong.extend(check(OpenAiCompletions, 200, &body, expected, "").await);
    }
    none(&wrong);
}

#[tokio::test]
async fn errors_of_openai_s_dialect_are_classified() {
    let mut wrong = Vec::new();
    let error = |fields: &str| format!(r#"{{"error": {{{fields}}}}}"#);
    let openai = |code: &str, param: &str, message: &str| {
        error(&format!(
            r#""message": "{message}", "type": "invalid_request_error", "param": {param}, "code": "{code}""#
        ))
    };
    for (status, body, expected, words) in [
        // OpenAI.
        (
            400,
            openai("unsupported_parameter", r#""max_tokens""#, "Unsupported parameter: 'max_tokens' is not supported with this \
                    model. Use 'max_completion_tokens' instead."),
            "parameter max_tokens refused",
            "tokens_parameter = \"max_completion_tokens\"",
        ),
        (
            400,
            openai("unsupported_value", r#""temperature""#, "'temperature' does not support 0 with this model."),
            "parameter temperature refused",
            "send_temperature = false",
        ),
        (400, openai("unsupported_parameter", r#""stop""#, "no"), "parameter stop refused", "send_stop = false"),
        (400, openai("unsupported_parameter", r#""seed""#, "no"), "parameter seed refused", "send_seed = false"),
        (400, openai("unknown_parameter", r#""new_key""#, "no"), "parameter new_key refused", "`body`"),
        (
            400,
            openai("context_length_exceeded", r#""messages""#, "This model's maximum context length is 8192 tokens."),
            "prompt refused",
            "too long",
        ),
        (400, openai("invalid_value", r#""messages[0].content""#, "Invalid 'content'."), "prompt refused", "refuses the prompt"),
        (400, openai("invalid_prompt", "null", "Your prompt was flagged."), "content_filter `Your prompt was flagged.` 3/0", ""),
        (400, openai("billing_hard_limit_reached", "null", "no"), "permanent refused", "add money"),
        (401, openai("invalid_api_key", "null", "Incorrect API key provided."), "permanent refused", "api_key_env"),
        (403, openai("unsupported_country_region_territory", "null", "no"), "permanent refused", "403"),
        (404, openai("model_not_found", "null", "The model `x` does not exist"), "permanent refused", "model"),
        (429, openai("rate_limit_exceeded", "null", "Rate limit reached"), "wait 2s refused", "429"),
        (429, openai("insufficient_quota", "null", "You exceeded your quota"), "permanent refused", "quota"),
        (
            429,
            openai("rate_limit_exceeded", "null", "Request too large for m on tokens per min (TPM): Limit 9, Requested 10"),
            "prompt refused",
            "too long",
        ),
        (
            429,
            openai("rate_limit_exceeded", "null", "Rate limit reached on requests per day (RPD): Limit 200"),
            "permanent refused",
            "quota of a day",
        ),
        // Azure.
        (
            400,
            r#"{"error": {"message": "The response was filtered", "type": null, "param": "prompt", "code": "content_filter",
                "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}"#.to_owned(),
            "content_filter `The response was filtered` 3/0",
            "",
        ),
        (401, r#"{"statusCode": 401, "message": "Access denied due to invalid key."}"#.to_owned(), "permanent refused", "invalid key"),
        // Mistral.
        (
            422,
            r#"{"object": "error", "message": {"detail": [{"type": "less_than_equal", "loc": ["body", "temperature"],
                "msg": "Input should be less than 1.5"}]}, "type": "invalid_request_error"}"#.to_owned(),
            "parameter temperature refused",
            "",
        ),
        (
            422,
            r#"{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}"#
                .to_owned(),
            "parameter seed refused",
            "Extra inputs",
        ),
        (400, r#"{"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}"#.to_owned(),
            "permanent refused", "model"),
        (429, r#"{"message": "Requests rate limit exceeded"}"#.to_owned(), "wait 2s refused", "Requests rate limit"),
        // DeepSeek.
        (402, error(r#""message": "Insufficient Balance", "code": "invalid_request_error""#), "permanent refused", "Balance"),
        (400, error(r#""message": "Content Exists Risk""#), "content_filter `Content Exists Risk` 3/0", ""),
        // vLLM, older and newer; llama.cpp; TGI; Ollama.
        (
            400,
            r#"{"object": "error", "message": "This model's maximum context length is 2048 tokens. However, you requested 2100 tokens",
                "type": "BadRequestError", "param": null, "code": 400}"#.to_owned(),
            "prompt refused",
            "too long",
        ),
        (
            400,
            error(r#""message": "max_tokens must be at least 1, got 0.", "type": "BadRequestError", "param": null, "code": 400"#),
            "parameter max_tokens refused",
            "",
        ),
        (404, error(r#""message": "The model `x` does not exist.", "type": "NotFoundError""#), "permanent refused", "model"),
        (
            400,
            error(r#""code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error""#),
            "prompt refused",
            "too long",
        ),
        (503, error(r#""message": "Loading model", "type": "unavailable_error", "code": 503"#), "unavailable failed", "Loading model"),
        (
            422,
            r#"{"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"}"#
                .to_owned(),
            "prompt refused",
            "too long",
        ),
        (424, r#"{"error": "Request failed during generation", "error_type": "generation"}"#.to_owned(), "unavailable failed", ""),
        (429, r#"{"error": "Model is overloaded", "error_type": "overloaded"}"#.to_owned(), "wait 2s refused", "overloaded"),
        (404, error(r#""message": "model 'x' not found, try pulling it first""#), "permanent refused", "try pulling"),
        // OpenRouter, whose errors may come with the status 200.
        (
            403,
            error(r#""code": 403, "message": "Input was flagged", "metadata": {"reasons": ["violence"]}"#),
            "content_filter `Input was flagged` 3/0",
            "",
        ),
        (200, error(r#""code": 429, "message": "Rate limit exceeded""#), "wait 2s refused", "(429)"),
        (200, error(r#""code": "429", "message": "busy""#), "wait 2s refused", "(429)"),
        (200, error(r#""type": "rate_limit_error", "message": "busy""#), "wait 2s refused", "(429)"),
        (200, error(r#""code": 502, "message": "Provider returned error""#), "unavailable failed", "answered 502"),
        (200, error(r#""code": 402, "message": "More credits are required""#), "permanent refused", "add money"),
        (200, error(r#""type": "overloaded_error", "message": "busy""#), "unavailable failed", "answered 503"),
        (200, error(r#""message": "who knows""#), "malformed failed", "answered with an error"),
        (
            200,
            error(r#""code": 429, "message": "Rate limit exceeded: free-models-per-day""#),
            "permanent refused",
            "quota of a day",
        ),
        (
            200,
            r#"{"choices": [{"message": {"content": null}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0}, "error": {"code": 429, "message": "busy"}}"#.to_owned(),
            "wait 2s refused",
            "(429)",
        ),
        (
            200,
            r#"{"choices": [{"message": {"content": "tw"}, "finish_reason": "error", "error": {"code": 502, "message": "idle"}}],
                "usage": {"prompt_tokens": 40, "completion_tokens": 9}}"#.to_owned(),
            "unavailable 40/9",
            "idle",
        ),
        // Gateways.
        (524, "<html>524: A timeout occurred</html>".to_owned(), "unavailable failed", "answered 524"),
        (413, "<html>too large</html>".to_owned(), "prompt refused", "too long"),
        (400, String::new(), "prompt refused", "refuses the prompt (400)"),
    ] {
        wrong.extend(check(OpenAiChat, status, &body, expected, words).await);
    }
    none(&wrong);
}

#[tokio::test]
async fn anthropic_is_read() {
    let mut wrong = Vec::new();
    let said = |reason: &str, content: &str| {
        format!(
            r#"{{"type": "message", "model": "c-1", "content": {content}, "stop_reason": {reason},
               "usage": {{"input_tokens": 5, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 5, "output_tokens": 9}}}}"#
        )
    };
    let text = r#"[{"type": "text", "text": "t"}, {"type": "text", "text": "wo"}]"#;
    let error = |kind: &str, message: &str| {
        format!(r#"{{"type": "error", "error": {{"type": "{kind}", "message": "{message}"}}}}"#)
    };
    for (status, body, expected, words) in [
        (200, said(r#""end_turn""#, text), "stop `two` 40/9", ""),
        (200, said(r#""stop_sequence""#, text), "stop `two` 40/9", ""),
        (200, said(r#""max_tokens""#, text), "length `two` 40/9", ""),
        (200, said(r#""model_context_window_exceeded""#, text), "length `two` 40/9", ""),
        (200, said(r#""refusal""#, "[]"), "content_filter `` 40/9", ""),
        (200, said(r#""tool_use""#, "[]"), "malformed 40/9", "`tool_use`"),
        (200, said(r#""pause_turn""#, text), "malformed 40/9", "`pause_turn`"),
        (
            200,
            said(
                r#""end_turn""#,
                r#"[{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "two"}]"#,
            ),
            "stop `two` (Hm.) 40/9",
            "",
        ),
        (200, r#"{"choices": []}"#.to_owned(), "malformed 3/4", "without `content`"),
        (
            400,
            error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            "permanent refused",
            "credit balance",
        ),
        (
            400,
            error("invalid_request_error", "You have reached your specified API usage limits."),
            "permanent refused",
            "usage limits",
        ),
        (
            400,
            error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            "prompt refused",
            "too long",
        ),
        (
            400,
            error("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 9 > 10"),
            "prompt refused",
            "too long",
        ),
        (
            400,
            error(
                "invalid_request_error",
                "max_tokens: 9999 > 8192, which is the maximum allowed number of output tokens",
            ),
            "parameter max_tokens refused",
            "teacher.tokens_max",
        ),
        (
            400,
            error("invalid_request_error", "temperature: range: 0..1"),
            "parameter temperature refused",
            "",
        ),
        (
            400,
            error("invalid_request_error", "messages: text content blocks must be non-empty"),
            "prompt refused",
            "",
        ),
        (401, error("authentication_error", "invalid x-api-key"), "permanent refused", "api_key_env"),
        (403, error("permission_error", "no"), "permanent refused", "403"),
        (404, error("not_found_error", "model: x"), "permanent refused", "check the profile's url and model"),
        (413, error("request_too_large", "no"), "prompt refused", "too long"),
        (429, error("rate_limit_error", "no"), "wait 2s refused", "429"),
        (500, error("api_error", "no"), "unavailable failed", "500"),
        (529, error("overloaded_error", "Overloaded"), "unavailable failed", "Overloaded"),
        (200, error("overloaded_error", "Overloaded"), "unavailable failed", "503"),
    ] {
        wrong.extend(check(Anthropic, status, &body, expected, words).await);
    }
    none(&wrong);
}

#[tokio::test]
async fn gemini_is_read() {
    let mut wrong = Vec::new();
    let said = |reason: &str, parts: &str| {
        format!(
            r#"{{"candidates": [{{"content": {{"parts": {parts}, "role": "model"}}, "finishReason": "{reason}"}}],
               "usageMetadata": {{"promptTokenCount": 40, "candidatesTokenCount": 2, "thoughtsTokenCount": 7,
               "totalTokenCount": 49}}, "modelVersion": "g-1"}}"#
        )
    };
    let parts = r#"[{"text": "Hm.", "thought": true}, {"text": "two"}]"#;
    let error = |code: u16, status: &str, message: &str, details: &str| {
        format!(
            r#"{{"error": {{"code": {code}, "message": "{message}", "status": "{status}", "details": {details}}}}}"#
        )
    };
    let info = r#"{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "41.5s"}"#;
    let day = r#"{"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                  "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}"#;
    for (status, body, expected, words) in [
        (200, said("STOP", parts), "stop `two` (Hm.) 40/9", ""),
        (200, said("MAX_TOKENS", parts), "length `two` (Hm.) 40/9", ""),
        (200, said("SAFETY", parts), "content_filter `two` (Hm.) 40/9", ""),
        (200, said("RECITATION", "[]"), "content_filter `` 40/9", ""),
        (200, said("OTHER", "[]"), "content_filter `` 40/9", ""),
        (200, said("MALFORMED_FUNCTION_CALL", "[]"), "malformed 40/9", "`MALFORMED_FUNCTION_CALL`"),
        (200, said("STOP", r#"[{"text": "Hm.", "thought": true}]"#), "malformed 40/9", "`thought` alone"),
        // Thoughts took all the room: there is no count of candidates.
        (
            200,
            r#"{"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}],
                "usageMetadata": {"promptTokenCount": 40, "totalTokenCount": 149, "thoughtsTokenCount": 109}}"#.to_owned(),
            "length `` 40/109",
            "",
        ),
        (
            200,
            r#"{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 40}}"#.to_owned(),
            "content_filter `` 40/0",
            "",
        ),
        (200, r#"{"candidates": [], "usageMetadata": {"promptTokenCount": 40}}"#.to_owned(), "malformed 40/15", "`candidates`"),
        (400, error(400, "INVALID_ARGUMENT", "API key not valid.", r#"[{"reason": "API_KEY_INVALID"}]"#), "permanent refused", "key"),
        (400, error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "[]"), "permanent refused", ""),
        (
            400,
            error(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8).", "[]"),
            "prompt refused",
            "too long",
        ),
        (
            400,
            error(400, "INVALID_ARGUMENT", "Invalid value", r#"[{"fieldViolations": [{"field": "generation_config.top_p"}]}]"#),
            "parameter topP refused",
            "send_top_p = false",
        ),
        (
            400,
            error(400, "INVALID_ARGUMENT", r#"Unknown name \"seed\" at 'generation_config': Cannot find field."#, "[]"),
            "parameter seed refused",
            "send_seed = false",
        ),
        (403, error(403, "PERMISSION_DENIED", "no", "[]"), "permanent refused", "403"),
        (404, error(404, "NOT_FOUND", "models/x is not found", "[]"), "permanent refused", "model"),
        (429, error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details", &format!("[{info}]")),
            "wait 41.5s refused", "current quota"),
        (429, error(429, "RESOURCE_EXHAUSTED", "no", &format!("[{day}, {info}]")), "wait 41.5s refused", ""),
        (429, error(429, "RESOURCE_EXHAUSTED", "no", &format!("[{day}]")), "permanent refused", "quota of a day"),
        (429, error(429, "RESOURCE_EXHAUSTED", "no", "[]"), "wait 2s refused", ""),
        (500, error(500, "INTERNAL", "no", "[]"), "unavailable failed", "500"),
        (503, format!("[{}]", error(503, "UNAVAILABLE", "The model is overloaded.", "[]")), "unavailable failed", "overloaded"),
        (504, error(504, "DEADLINE_EXCEEDED", "no", "[]"), "unavailable failed", "504"),
    ] {
        wrong.extend(check(Gemini, status, &body, expected, words).await);
    }
    none(&wrong);
}
