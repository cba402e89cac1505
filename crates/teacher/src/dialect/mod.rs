//! The dialects: for each provider, the request that is sent, and what an answer means.
//!
//! OpenAI's API is that of OpenAI, Azure, Mistral, DeepSeek, OpenRouter, vLLM, llama.cpp, Ollama, TGI and many more. Anthropic
//! and Gemini have dialects of their own, because their compatibility layers ignore some parameters.
//!
//! An answer is classified once, here, by [`read`]; everybody else goes by the [`Meaning`].

mod anthropic;
mod body;
mod gemini;
mod openai;
mod reading;
mod refusal;

pub(crate) use reading::{Counts, Meaning, Reading, Received, Words};

use crate::Question;
use crate::profile::{Profile, Provider};
use domain::completion::FinishReason;
use http::{HeaderMap, HeaderName, HeaderValue};
use reading::{Candidate, Finish};
use refusal::ServerError;
use reqwest::Url;
use serde_json::{Map, Value};

/// The address that requests are posted to: the provider's path, before the query of the profile's URL.
///
/// # Errors
/// Why the profile's URL is none.
pub(crate) fn endpoint(profile: &Profile) -> Result<Url, String> {
    match profile.provider {
        Provider::OpenAiChat => address(profile, &["chat", "completions"]),
        Provider::OpenAiCompletions => address(profile, &["completions"]),
        Provider::Anthropic => address(profile, &["messages"]),
        Provider::Gemini => gemini_address(profile, "generateContent"),
    }
}

/// The address that batches of Gemini's are created at.
///
/// # Errors
/// Why the profile's URL is none.
pub(crate) fn batch_endpoint(profile: &Profile) -> Result<Url, String> {
    gemini_address(profile, "batchGenerateContent")
}

fn gemini_address(profile: &Profile, method: &str) -> Result<Url, String> {
    let call = format!("{}:{method}", profile.model.trim_matches('/'));
    let mut path: Vec<&str> = call.split('/').collect();
    // A model may be written with its collection, such as `models/x` or `tunedModels/x`.
    if path.len() == 1 {
        path.insert(0, "models");
    }
    address(profile, &path)
}

/// The address of the list of models, where the dialect has one.
pub(crate) fn models_address(profile: &Profile) -> Option<Url> {
    match profile.provider {
        Provider::OpenAiChat | Provider::OpenAiCompletions => address(profile, &["models"]).ok(),
        Provider::Anthropic | Provider::Gemini => None,
    }
}

/// An address of the API: a path behind the profile's URL, before its query.
///
/// # Errors
/// Why the profile's URL is none.
pub(crate) fn address(profile: &Profile, path: &[&str]) -> Result<Url, String> {
    let mut url = Url::parse(profile.url.trim()).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password: send them by api_key_env or headers_env".to_owned());
    }
    url.set_fragment(None);
    let mut segments = url.path_segments_mut().map_err(|()| "has no path".to_owned())?;
    segments.pop_if_empty().extend(path);
    drop(segments);
    Ok(url)
}

/// Request headers: the key in the provider's header or the profile's, and what else the profile names. Values are marked
/// as sensitive, so that no layer below prints them.
///
/// # Errors
/// Which header cannot be sent, without its value.
pub(crate) fn headers(profile: &Profile) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut insert = |name: &str, value: &str| {
        let wrong = |error: &dyn std::fmt::Display| format!("header `{name}`: {error}");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| wrong(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| wrong(&error))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<(), String>(())
    };
    if profile.provider == Provider::Anthropic {
        insert("anthropic-version", anthropic::VERSION)?;
    }
    if !profile.api_key.is_empty() {
        let key = profile.api_key.expose();
        match (profile.key_header.as_str(), profile.provider) {
            ("", Provider::OpenAiChat | Provider::OpenAiCompletions) => {
                insert("authorization", &format!("Bearer {key}"))?;
            }
            ("", Provider::Anthropic) => insert("x-api-key", key)?,
            ("", Provider::Gemini) => insert("x-goog-api-key", key)?,
            (header, _) => insert(header, key)?,
        }
    }
    for (name, value) in &profile.headers {
        insert(name, value.expose())?;
    }
    Ok(headers)
}

/// What of a profile its provider would refuse.
///
/// # Errors
/// The key and what to write.
pub(crate) fn check(profile: &Profile) -> Result<(), String> {
    match profile.provider {
        Provider::Anthropic => anthropic::check(profile),
        Provider::OpenAiChat | Provider::OpenAiCompletions | Provider::Gemini => Ok(()),
    }
}

/// The request's body.
pub(crate) fn request(profile: &Profile, question: &Question) -> Value {
    let mut body = match profile.provider {
        Provider::OpenAiChat => openai::chat(profile, question),
        Provider::OpenAiCompletions => openai::completion(profile, question),
        Provider::Anthropic => anthropic::request(profile, question),
        Provider::Gemini => gemini::request(profile, question),
    };
    merge(&mut body, &profile.parameters.body);
    Value::Object(body)
}

/// Lays `over` over `body`; tables are laid over each other key by key.
fn merge(body: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (body.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(over)) => merge(below, over),
            _ => {
                body.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What a server's answer to `request` means.
pub(crate) fn read(provider: Provider, request: &Value, received: &Received<'_>) -> Reading {
    let is_success = (200..300).contains(&received.status);
    let parsed = body::parse(provider, received);
    let answer = parsed.as_ref().unwrap_or(&Value::Null);
    let (counts, model) = match provider {
        Provider::OpenAiChat | Provider::OpenAiCompletions => {
            (openai::counts(answer), named(answer, "/model"))
        }
        Provider::Anthropic => (anthropic::counts(answer), named(answer, "/model")),
        Provider::Gemini => (gemini::counts(answer), named(answer, "/modelVersion")),
    };
    let reading = |meaning, answered| Reading { meaning, counts, model, answered };
    if !is_success {
        let error = ServerError::of(answer, received);
        return reading(refusal::classify(received.status, &error, request, received), false);
    }
    if let Err(what) = &parsed {
        let said = String::from_utf8_lossy(received.body).into_owned();
        return reading(Meaning::Malformed(Words { what: what.clone(), said }), true);
    }
    if let Some(error) = error_of(answer) {
        return reading(refusal::inside(error, request, received), false);
    }
    let candidate = match provider {
        Provider::OpenAiChat | Provider::OpenAiCompletions => openai::candidate(answer),
        Provider::Anthropic => anthropic::candidate(answer),
        Provider::Gemini => gemini::candidate(answer),
    };
    match candidate {
        Ok(candidate) => reading(meaning(candidate, request, received), true),
        Err(missing) => {
            let what = format!("sent an answer without `{missing}`: check the profile's provider and url");
            reading(Meaning::Malformed(Words { what, said: answer.to_string() }), true)
        }
    }
}

/// The error that stands in the place of an answer.
fn error_of(answer: &Value) -> Option<&Value> {
    let error = answer.get("error")?;
    let is_one = match error {
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    };
    is_one.then_some(answer)
}

fn meaning(candidate: Candidate, request: &Value, received: &Received<'_>) -> Meaning {
    let Candidate { text, thoughts, thoughts_key, refusal, finish, error } = candidate;
    let said = if text.is_empty() { thoughts.clone() } else { text.clone() };
    match finish {
        Finish::BrokenOff(name) => {
            let said = error.as_ref().map_or(said, Value::to_string);
            let what = format!("broke off (`{name}`) before its answer was complete");
            Meaning::Unavailable(Words { what, said })
        }
        // An error beside a text: the provider behind the server failed.
        _ if error.is_some() => {
            let error = serde_json::json!({ "error": error });
            refusal::inside(&error, request, received)
        }
        Finish::Unusable(name) => {
            let what = format!("ended its answer with `{name}`, which is no reason to use it");
            Meaning::Malformed(Words { what, said })
        }
        Finish::Known(FinishReason::Stop) if text.is_empty() && !refusal.is_empty() => {
            Meaning::Answered { text: refusal, thoughts, finish_reason: FinishReason::ContentFilter }
        }
        Finish::Known(FinishReason::Stop) if text.is_empty() && !thoughts.is_empty() => {
            let what = format!(
                "answered with `{thoughts_key}` alone and no text: switch the model's thinking off (see `thinking` and `body` of \
                 the profile), or check the server's reasoning parser"
            );
            Meaning::Malformed(Words { what, said })
        }
        Finish::Known(FinishReason::Stop) if text.is_empty() => {
            let what = "sent an answer without text".to_owned();
            Meaning::Malformed(Words { what, said: String::from_utf8_lossy(received.body).into_owned() })
        }
        Finish::Known(FinishReason::ContentFilter) if text.is_empty() => {
            Meaning::Answered { text: refusal, thoughts, finish_reason: FinishReason::ContentFilter }
        }
        Finish::Known(finish_reason) => Meaning::Answered { text, thoughts, finish_reason },
    }
}

fn named(answer: &Value, pointer: &str) -> Option<String> {
    answer.pointer(pointer).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;
    use crate::profile::{Parameters, TokensParameter};
    use serde_json::json;

    fn profile(provider: Provider, model: &str, parameters: Parameters) -> Profile {
        Profile { parameters, ..Profile::new("test", provider, "http://host/v1", model) }
    }

    fn question() -> Question {
        let stop = ["a", "b", "c", "d", " ", "f"].map(str::to_owned).to_vec();
        Question {
            instruction: "Be brief.".to_owned(),
            prompt: "1 + 1?".to_owned(),
            sampling: Sampling { temperature: 0.5, top_p: 1.0, tokens_max: 128, stop, sample: 3 },
        }
    }

    #[test]
    fn the_path_goes_before_the_query() {
        let check = |provider, url: &str, model: &str, expected: &str| {
            let found = endpoint(&Profile::new("test", provider, url, model));
            assert_eq!(found.map(String::from).as_deref(), Ok(expected), "{url}");
        };
        let azure = "http://h/openai/deployments/g?api-version=2024-10-21";
        let posted = "http://h/openai/deployments/g/chat/completions?api-version=2024-10-21";
        check(Provider::OpenAiChat, azure, "m", posted);
        check(Provider::OpenAiChat, "http://h/v1/", "m", "http://h/v1/chat/completions");
        check(Provider::OpenAiChat, "http://h", "m", "http://h/chat/completions");
        check(Provider::OpenAiCompletions, "http://h/v1?a=b#c", "m", "http://h/v1/completions?a=b");
        check(Provider::Anthropic, "http://h/v1", "m", "http://h/v1/messages");
        check(Provider::Gemini, "http://h/v1beta", "g-1", "http://h/v1beta/models/g-1:generateContent");
        check(
            Provider::Gemini,
            "http://h/v1beta",
            "models/g-1",
            "http://h/v1beta/models/g-1:generateContent",
        );
        check(
            Provider::Gemini,
            "http://h/v1beta",
            "tunedModels/a",
            "http://h/v1beta/tunedModels/a:generateContent",
        );
        let refused = endpoint(&Profile::new("test", Provider::OpenAiChat, "http://me:s3cret@h/v1", "m"));
        assert!(refused.is_err_and(|error| error.contains("password") && !error.contains("s3cret")));
    }

    #[test]
    fn a_request_holds_what_its_model_takes() {
        let check = |provider, parameters: Parameters, expected: Value| {
            assert_eq!(request(&profile(provider, "m", parameters), &question()), expected);
        };
        let messages =
            json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]);
        check(
            Provider::OpenAiChat,
            Parameters::default(),
            json!({"model": "m", "messages": messages, "temperature": 0.5, "top_p": 1.0, "max_tokens": 128,
                   "stop": ["a", "b", "c", "d"], "seed": 3}),
        );
        let bare = Parameters {
            tokens_parameter: TokensParameter::MaxCompletionTokens,
            send_temperature: false,
            send_top_p: false,
            send_stop: false,
            send_seed: false,
            thinking: true,
            thinking_tokens_max: 1_024,
            body: json!({"reasoning_effort": "low", "model": "n"}).as_object().unwrap().clone(),
        };
        check(
            Provider::OpenAiChat,
            bare.clone(),
            json!({"model": "n", "messages": messages, "max_completion_tokens": 1_152, "reasoning_effort": "low"}),
        );
        let user = json!([{"role": "user", "content": "1 + 1?"}]);
        check(
            Provider::Anthropic,
            Parameters::default(),
            json!({"model": "m", "max_tokens": 128, "messages": user, "system": "Be brief.",
                   "stop_sequences": ["a", "b", "c", "d", "f"], "temperature": 0.5}),
        );
        check(
            Provider::Anthropic,
            Parameters { body: Map::new(), ..bare.clone() },
            json!({"model": "m", "max_tokens": 1_152, "messages": user, "system": "Be brief.",
                   "thinking": {"type": "enabled", "budget_tokens": 1_024}}),
        );
        let short = Parameters { thinking_tokens_max: 9, ..bare.clone() };
        assert!(check_profile(Provider::Anthropic, short.clone()).is_err_and(|error| error.contains("1024")));
        assert_eq!(check_profile(Provider::OpenAiChat, short), Ok(()));
        let deep = json!({"generationConfig": {"candidateCount": 1}}).as_object().unwrap().clone();
        check(
            Provider::Gemini,
            Parameters { body: deep, ..bare },
            json!({"contents": [{"role": "user", "parts": [{"text": "1 + 1?"}]}],
                   "generationConfig": {"maxOutputTokens": 1_152, "candidateCount": 1},
                   "systemInstruction": {"parts": [{"text": "Be brief."}]}}),
        );
    }

    fn check_profile(provider: Provider, parameters: Parameters) -> Result<(), String> {
        check(&profile(provider, "m", parameters))
    }

    #[test]
    fn gemini_thinks_as_little_as_its_model_can() {
        let check = |model: &str, thinking_tokens_max: Option<u32>, config: Value, sent: u32| {
            let parameters = Parameters {
                thinking: thinking_tokens_max.is_some(),
                thinking_tokens_max: thinking_tokens_max.unwrap_or(0),
                ..Parameters::default()
            };
            let profile = profile(Provider::Gemini, model, parameters);
            let body = request(&profile, &question());
            let generation = &body["generationConfig"];
            let found =
                (generation.get("thinkingConfig").unwrap_or(&Value::Null), &generation["maxOutputTokens"]);
            assert_eq!(found, (&config, &json!(sent)), "{model}");
            assert_eq!(profile.bound(&question()).tokens, 15 + 128 + u64::from(sent), "{model}");
        };
        check("gemini-2.5-flash", None, json!({"thinkingBudget": 0}), 128);
        check("models/gemini-2.5-flash-lite", None, json!({"thinkingBudget": 0}), 128);
        check("gemini-2.5-flash", Some(512), json!({"thinkingBudget": 512}), 640);
        check("gemini-2.5-pro", None, json!({"thinkingBudget": 128}), 256);
        check("gemini-3-pro-preview", None, json!({"thinkingLevel": "low"}), 128);
        check("gemini-3-flash", None, json!({"thinkingLevel": "minimal"}), 128);
        check("gemini-3-flash", Some(512), Value::Null, 640);
        check("gemini-2.0-flash", None, Value::Null, 128);
    }
}
