//! The student's tokenizer: read from a checkpoint folder, or trained on the job's own text.

mod training;

use crate::StudentError;
use checkpoints::CheckpointError;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::AddedToken;

/// Its file.
const TOKENIZER: &str = "tokenizer.json";
/// The files in which `transformers` keeps what it knows of special tokens.
const SETTINGS: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// What is encoded to see what a tokenizer adds to a text.
const PROBE: &str = "a";

/// Text to token ids and back. Every text that it encodes is closed by the end token of the model's configuration.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    end: i64,
    pad: i64,
    unknown: Option<u32>,
    /// Whether the file's own post-processor appends the end token.
    appends_end: bool,
}

/// The part of `tokenizer.json` that the library does not expose: Unigram names the unknown token by its id, the other
/// models by its text.
#[derive(Deserialize)]
struct File {
    model: UnknownToken,
}

#[derive(Deserialize)]
struct UnknownToken {
    #[serde(default)]
    unk_id: Option<u32>,
    #[serde(default)]
    unk_token: Option<String>,
}

impl Tokenizer {
    /// Opens `tokenizer.json` of a checkpoint folder for the model that `config` describes. Truncation and padding that the
    /// file asks for are switched off; the special tokens are those of the file and of `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file is absent or cannot be read, an id lies outside the model's vocabulary, or files contradict each other: what
    /// and where is named.
    pub fn open(folder: &Path, config: &t5::Config) -> Result<Self, StudentError> {
        let path = folder.join(TOKENIZER);
        let wrong = |message: String| StudentError::Tokenizer(format!("{}: {message}", path.display()));
        let bytes = std::fs::read(&path).map_err(|source| CheckpointError::io(&path, source))?;
        let invalid = |error: &dyn std::fmt::Display| wrong(format!("is not a tokenizer: {error}"));
        let read = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes));
        let mut inner = read.map_err(|error| invalid(&error))?;
        let file: File = serde_json::from_slice(&bytes).map_err(|error| invalid(&error))?;
        inner.with_truncation(None).map_err(|error| invalid(&error))?;
        inner.with_padding(None);
        let settings = [json(&folder.join(SETTINGS))?, json(&folder.join(SPECIAL_TOKENS))?];
        let special: BTreeSet<String> = settings.iter().flat_map(special_tokens).collect();
        let special = special.into_iter().filter(|token| inner.token_to_id(token).is_some());
        let special: Vec<AddedToken> = special.map(|token| AddedToken::from(token, true)).collect();
        inner.add_special_tokens(special).map_err(|error| invalid(&error))?;
        let highest = inner.get_vocab(true).into_values().max().map_or(0, i64::from);
        if highest >= config.vocab_size {
            return Err(wrong(format!(
                "has the id {highest}, and the model's vocabulary ends at {}: it belongs to another model",
                config.vocab_size - 1
            )));
        }
        let appended = check_end(&inner, config, &settings).map_err(wrong)?;
        let (end, appends_end) = (appended.unwrap_or(config.eos_token_id), appended.is_some());
        let unknown =
            file.model.unk_id.or_else(|| file.model.unk_token.and_then(|token| inner.token_to_id(&token)));
        Ok(Self { inner, end, pad: config.pad_token_id, unknown, appends_end })
    }

    /// How many ids there are.
    pub fn vocabulary(&self) -> i64 {
        self.inner.get_vocab_size(true) as i64
    }

    /// The id that closes every text.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// `text` as ids, closed by the end token.
    ///
    /// # Errors
    /// The library's.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, StudentError> {
        let encoding = guarded(|| self.inner.encode(text, true)).map_err(failed)?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        if !self.appends_end {
            ids.push(self.end);
        }
        Ok(ids)
    }

    /// `text` as at most `tokens_max` ids, closed by the end token, and whether it was cut.
    ///
    /// # Errors
    /// The library's.
    pub fn encode_cut(&self, text: &str, tokens_max: usize) -> Result<(Vec<i64>, bool), StudentError> {
        let mut ids = self.encode(text)?;
        let is_cut = ids.len() > tokens_max;
        if is_cut {
            ids.truncate(tokens_max.saturating_sub(1));
            ids.push(self.end);
        }
        Ok((ids, is_cut))
    }

    /// A label as the ids that a student writes before the end token.
    ///
    /// # Errors
    /// The library's.
    pub fn label(&self, label: &str) -> Result<Vec<i64>, StudentError> {
        let mut ids = self.encode(label)?;
        ids.pop();
        Ok(ids)
    }

    /// Whether `ids` hold the unknown token: what it stands for is lost.
    pub fn has_unknown(&self, ids: &[i64]) -> bool {
        self.unknown.is_some_and(|unknown| ids.contains(&i64::from(unknown)))
    }

    /// Ids as text, without special tokens.
    ///
    /// # Errors
    /// The library's.
    pub fn decode(&self, ids: &[i64]) -> Result<String, StudentError> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        guarded(|| self.inner.decode(&ids, true)).map_err(failed)
    }

    /// Whether an id adds nothing to a text: a special token, or an id without a token.
    pub(crate) fn is_silent(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id));
        token.is_none_or(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Whether an id is a single byte, such as `<0xE2>`.
    pub(crate) fn is_byte(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id)).unwrap_or_default();
        let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
    }

    /// Writes `tokenizer.json`, and the small file that `transformers` reads with it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), StudentError> {
        let path = folder.join(TOKENIZER);
        self.inner
            .save(&path, true)
            .map_err(|error| StudentError::Tokenizer(format!("{}: {error}", path.display())))?;
        let token = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        let settings = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": token(u32::try_from(self.pad).ok()),
            "eos_token": token(u32::try_from(self.end).ok()),
            "unk_token": token(self.unknown),
        });
        let path = folder.join(SETTINGS);
        std::fs::write(&path, format!("{settings:#}\n"))
            .map_err(|source| CheckpointError::io(&path, source).into())
    }
}

/// What the library says. It panics at what it cannot use of a file, such as a damaged `precompiled_charsmap`: some of it is
/// found when the file is read, some when a text needs it.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let words =
            panic.downcast_ref::<String>().map_or("a part of the tokenizer is damaged", String::as_str);
        Err(words.into())
    })
}

fn failed(error: tokenizers::Error) -> StudentError {
    StudentError::Tokenizer(error.to_string())
}

/// A JSON file; null where there is none.
fn json(path: &Path) -> Result<Value, StudentError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| StudentError::Tokenizer(format!("{}: is not JSON: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(CheckpointError::io(path, source).into()),
    }
}

/// The special tokens that a settings file of `transformers` names: each is a text, or an object with its `content`.
fn special_tokens(settings: &Value) -> Vec<String> {
    let named = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        .into_iter();
    let lists = ["additional_special_tokens", "extra_special_tokens"].into_iter();
    let decoder = settings.get("added_tokens_decoder").map(members).unwrap_or_default();
    named
        .filter_map(|name| settings.get(name))
        .chain(lists.filter_map(|name| settings.get(name)).flat_map(members))
        .chain(decoder.into_iter().filter(|token| token.get("special") == Some(&Value::Bool(true))))
        .filter_map(content)
        .collect()
}

fn members(list: &Value) -> Vec<&Value> {
    match list {
        Value::Array(list) => list.iter().collect(),
        Value::Object(list) => list.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// Checks that the tokenizer and its settings mean the end token of the configuration. Returns the end token that the
/// tokenizer appends, if any.
fn check_end(
    inner: &tokenizers::Tokenizer,
    config: &t5::Config,
    settings: &[Value],
) -> Result<Option<i64>, String> {
    let end = config.eos_token_id;
    let token = |id: i64| u32::try_from(id).ok().and_then(|id| inner.id_to_token(id));
    let Some(own) = token(end) else {
        return Err(format!("has no token with the id {end}, which is eos_token_id in config.json"));
    };
    let named = settings.iter().filter_map(|settings| settings.get("eos_token")).find_map(content);
    let is_end = |named: &String| inner.token_to_id(named).is_some_and(|id| config.ends(i64::from(id)));
    if let Some(named) = named.filter(|named| !is_end(named)) {
        return Err(format!(
            "its settings name the end token `{named}`, and config.json says eos_token_id {end}, which is `{own}`: correct \
             the one that is wrong"
        ));
    }
    let ids = |special: bool| -> Result<Vec<u32>, String> {
        guarded(|| inner.encode(PROBE, special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| error.to_string())
    };
    let (plain, whole) = (ids(false)?, ids(true)?);
    let text = (0..=whole.len())
        .rev()
        .find(|start| whole.get(*start..).is_some_and(|rest| rest.starts_with(&plain)));
    let appended = whole.get(text.unwrap_or(0) + plain.len()..).unwrap_or_default();
    match appended.last() {
        None => Ok(None),
        Some(last) if config.ends(i64::from(*last)) => Ok(Some(i64::from(*last))),
        Some(last) => Err(format!(
            "closes every text with the id {last} (`{}`), and config.json says eos_token_id {end}, which is `{own}`: correct \
             the one that is wrong",
            token(i64::from(*last)).unwrap_or_default()
        )),
    }
}
