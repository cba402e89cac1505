//! What a provider's answer is read into, and how its parts are read.

use domain::completion::FinishReason;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// Most tokens that a count is believed: no model reads or writes as many at once. What is more is no count, and would use up
/// a budget, or run over in a sum.
const TOKENS_MAX: u64 = 100_000_000;
/// The longest piece of a server's text that our own words repeat, such as the name of a finish reason.
const NAME_CHARACTERS: usize = 64;

/// What a server sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) status: u16,
    /// Empty where there is none.
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
    /// The wait that the headers ask for.
    pub(crate) wait: Option<Duration>,
    pub(crate) now: SystemTime,
}

/// Words for a person: our own, and the server's, which are quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) what: String,
    pub(crate) said: String,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A text, whole or cut, or a refusal.
    Answered { text: String, thoughts: String, finish_reason: FinishReason },
    /// Ask again after a wait.
    Wait { words: Words, wait: Option<Duration> },
    /// Ask again in a moment.
    Unavailable(Words),
    /// Never ask this again: a parameter that the model does not take, or else the prompt.
    WrongRequest { words: Words, parameter: Option<String> },
    /// No answer that can be used.
    Malformed(Words),
    /// Nothing is answered until a person acts.
    Permanent(Words),
}

/// The tokens that a server counted; `None` and 0 where it did not, or counted what no model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Of the prompt, all together.
    pub(crate) tokens_in: Option<u64>,
    /// Of these, those in the server's cache.
    pub(crate) cached: u64,
    /// Of these, those written into it.
    pub(crate) written: u64,
    /// Of the completion, thoughts included.
    pub(crate) tokens_out: Option<u64>,
    /// Of these, thoughts.
    pub(crate) thoughts: u64,
}

/// An answer as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) meaning: Meaning,
    pub(crate) counts: Counts,
    pub(crate) model: Option<String>,
    /// Whether the server made an answer, whatever it is worth: it is paid, counted or not.
    pub(crate) answered: bool,
}

/// Why a provider says that a text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finish {
    Known(FinishReason),
    /// The provider broke off; its own name for that.
    BrokenOff(String),
    /// Anything else is no answer; its name.
    Unusable(String),
}

/// The first candidate of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) text: String,
    pub(super) thoughts: String,
    /// Where the thoughts stood.
    pub(super) thoughts_key: &'static str,
    /// What the model says instead of an answer.
    pub(super) refusal: String,
    pub(super) finish: Finish,
    pub(super) error: Option<Value>,
}

/// A count at `pointer`; a count of 0, or of more than [`TOKENS_MAX`], is none.
pub(super) fn count(answer: &Value, pointer: &str) -> Option<u64> {
    let number = answer.pointer(pointer)?;
    let count = number.as_u64().or_else(|| {
        number.as_f64().filter(|count| count.is_finite() && *count >= 0.0).map(|count| count as u64)
    });
    count.filter(|count| (1..=TOKENS_MAX).contains(count))
}

/// A server's name for something, cut.
pub(super) fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARACTERS).collect()
}

/// A text, or the texts of a list of parts joined, thoughts left out; what `thought` says is one goes to the second.
pub(super) fn texts(parts: &[Value], is_thought: impl Fn(&Value) -> bool) -> (String, String) {
    let (mut text, mut thoughts) = (String::new(), String::new());
    for part in parts {
        let place = if is_thought(part) { &mut thoughts } else { &mut text };
        collect_text(part, place, 0);
    }
    (text, thoughts)
}

/// Appends the text of a part: a string, a list of parts, or an object with a `text` or with `thinking`.
fn collect_text(part: &Value, into: &mut String, depth: usize) {
    const DEPTH_MAX: usize = 8;
    match part {
        Value::String(text) => into.push_str(text),
        Value::Array(parts) if depth < DEPTH_MAX => {
            parts.iter().for_each(|part| collect_text(part, into, depth + 1));
        }
        Value::Object(fields) if depth < DEPTH_MAX => {
            for key in ["text", "thinking", "reasoning"] {
                if let Some(inner) = fields.get(key) {
                    return collect_text(inner, into, depth + 1);
                }
            }
        }
        _ => {}
    }
}
