//! Reading a body: JSON as servers write it, and event streams that nobody asked for.

use super::reading::{Received, cut};
use crate::profile::Provider;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The first bytes of a gzip file.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The answer in a body; an event stream of OpenAI's dialect is put together into the answer that it stands for.
///
/// # Errors
/// What is wrong with it, with its content type.
pub(super) fn parse(provider: Provider, received: &Received<'_>) -> Result<Value, String> {
    let body = received.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(received.body).trim_ascii();
    let kind = match received.content_type {
        "" => "without a content type".to_owned(),
        named => format!("of the content type `{}`", cut(named)),
    };
    if body.starts_with(GZIP) {
        return Err(format!(
            "sent a body {kind} that is compressed (gzip) and does not say so in `content-encoding`"
        ));
    }
    if received.content_type.starts_with("text/event-stream") || body.starts_with(b"data:") {
        return match provider {
            Provider::OpenAiChat | Provider::OpenAiCompletions => Ok(events(&String::from_utf8_lossy(body))),
            Provider::Anthropic | Provider::Gemini => Err(format!(
                "sent an event stream (a body {kind}) although none was asked for: check the profile's url"
            )),
        };
    }
    let answer: Value = json(body)
        .map_err(|error| format!("sent a body {kind} that is not JSON ({error}): check the profile's url"))?;
    // Gemini's gateway wraps some errors in a list of one.
    Ok(match answer {
        Value::Array(mut answers) if answers.len() == 1 => answers.swap_remove(0),
        answer => answer,
    })
}

/// Reads JSON; a text that is not Unicode, as of a model that stopped within a character, is kept with U+FFFD in its place.
fn json(body: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(body).or_else(|error| {
        let text = String::from_utf8_lossy(body);
        let whole = without_lone_surrogates(&text);
        if matches!((&text, &whole), (Cow::Borrowed(_), Cow::Borrowed(_))) {
            return Err(error);
        }
        serde_json::from_str(&whole)
    })
}

/// `text` with U+FFFD in the place of every escape of half a surrogate pair.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut rest = text;
    let mut is_changed = false;
    while let Some((before, escape)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        kept.push_str(before);
        let (length, replaced) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, false),
            (Some(0xD800..=0xDFFF), _) => (6, true),
            (Some(_), _) => (6, false),
            // Any other escape is a backslash and one character.
            (None, _) => (1 + escape.chars().nth(1).map_or(0, char::len_utf8), false),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        kept.push_str(if replaced { "\\ufffd" } else { escape });
        is_changed |= replaced;
        rest = after;
    }
    if !is_changed {
        return Cow::Borrowed(text);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// The UTF-16 unit that an escape such as `\ud83d` at the beginning of `text` stands for.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The answer that the events of a stream add up to.
fn events(text: &str) -> Value {
    let mut stream = Stream::default();
    let mut data = String::new();
    // A line of its own, so that the last event ends also where the empty line after it is missing.
    for line in text.lines().chain([""]) {
        if let Some(more) = line.strip_prefix("data:") {
            data.push_str(more.strip_prefix(' ').unwrap_or(more));
            data.push('\n');
        } else if line.is_empty() && !data.is_empty() {
            stream.take(data.trim());
            data.clear();
        }
    }
    stream.answer()
}

#[derive(Default)]
struct Stream {
    content: String,
    reasoning: String,
    refusal: String,
    finish_reason: Option<String>,
    is_done: bool,
    /// Keys beside the choices, such as the model, the usage and an error; the last one that is not null counts.
    beside: Map<String, Value>,
}

impl Stream {
    fn take(&mut self, data: &str) {
        if data == "[DONE]" {
            self.is_done = true;
            return;
        }
        let Ok(Value::Object(chunk)) = json(data.as_bytes()) else { return };
        let choice = chunk.get("choices").and_then(|choices| choices.get(0)).cloned().unwrap_or_default();
        let delta = choice.get("delta").or_else(|| choice.get("message")).unwrap_or(&choice);
        let text = |key: &str| delta.get(key).and_then(Value::as_str).unwrap_or_default();
        self.content.push_str(text("content"));
        self.content.push_str(text("text"));
        let reasoning = text("reasoning_content");
        self.reasoning.push_str(if reasoning.is_empty() { text("reasoning") } else { reasoning });
        self.refusal.push_str(text("refusal"));
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish_reason = Some(reason.to_owned());
        }
        self.beside.extend(chunk.into_iter().filter(|(key, value)| key != "choices" && !value.is_null()));
    }

    fn answer(self) -> Value {
        let mut answer = self.beside;
        let finish_reason = match self.finish_reason {
            Some(reason) => reason,
            None if self.is_done => "stop".to_owned(),
            // The stream was cut.
            None => "error".to_owned(),
        };
        let choice = json!({
            "message": {"content": self.content, "reasoning_content": self.reasoning, "refusal": self.refusal},
            "finish_reason": finish_reason,
        });
        answer.insert("choices".to_owned(), Value::Array(vec![choice]));
        Value::Object(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_is_replaced_and_nothing_else() {
        let check = |written: &str, read: &str| {
            let found = json(format!("\"{written}\"").as_bytes());
            assert_eq!(found.unwrap(), Value::String(read.to_owned()), "{written}");
        };
        check(r"a \ud83d b", "a \u{fffd} b");
        check(r"a \udE00 b", "a \u{fffd} b");
        check(r"\ud83d\ude00", "😀");
        check(r"\ud83d\ud83d\ude00\ud83d", "\u{fffd}😀\u{fffd}");
        check(r"\\ud83d \ud83d", "\\ud83d \u{fffd}");
        check(r"\n\u00e9\ud83d", "\né\u{fffd}");
        check(r"\ud83d\n", "\u{fffd}\n");
        assert!(json(br#""\u12"#).is_err());
        assert!(json(br#""\ud83d"#).is_err(), "a body that was cut stays one");
        assert!(json(b"{\"a\": \"\\ud83d\", \"b\": }").is_err());
        assert_eq!(json(b"\"a \xff\"").unwrap(), Value::String("a \u{fffd}".to_owned()));
    }

    #[test]
    fn a_stream_is_the_answer_that_it_adds_up_to() {
        let check = |text: &str, content: &str, reason: &str| {
            let answer = events(text);
            let choice = &answer["choices"][0];
            assert_eq!(
                (&choice["message"]["content"], &choice["finish_reason"]),
                (&json!(content), &json!(reason))
            );
            answer
        };
        let piece =
            |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
        check(&format!(": hello\n{}{}{end}data: [DONE]\n\n", piece("a"), piece("b")), "ab", "length");
        check(&format!("{}data: [DONE]", piece("a")), "a", "stop");
        check(&piece("a"), "a", "error");
        check("data: {\"choices\":[{\"text\":\"a\"}]}\r\n\r\ndata: [DONE]\r\n\r\n", "a", "stop");
        let usage = "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":7}}\n\n";
        let answer = check(&format!("{}{usage}{end}", piece("a")), "a", "length");
        assert_eq!((&answer["model"], &answer["usage"]["prompt_tokens"]), (&json!("m"), &json!(7)));
        let error = "data: {\"error\":{\"code\":429,\"message\":\"slow down\"}}\n\n";
        assert_eq!(check(error, "", "error")["error"]["code"], 429);
    }
}
