//! Gives a checkpoint that has none the `tokenizer.json` that a student needs.

use crate::CheckpointError;
use crate::folder::{CONFIG, Folder, TOKENIZER, TOKENIZER_CONFIG, Tokenizer};
use crate::sentencepiece::{SentencePiece, bytes_tokenizer};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// How many sentinels T5's pre-training has.
const EXTRA_IDS: usize = 100;

/// What an import wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The folder, ready for a student.
    pub folder: PathBuf,
    /// What the tokenizer was made from.
    pub source: String,
    /// Tokens of its vocabulary.
    pub tokens: usize,
}

/// Writes `tokenizer.json` for a checkpoint that has a SentencePiece model, or that reads bytes (ByT5): into its folder, or
/// with a copy of the checkpoint into `out`.
///
/// # Errors
/// The checkpoint lacks something else, has a tokenizer already, or its vocabulary cannot be used: nothing is written then.
/// Or a file cannot be written.
pub fn import_checkpoint(from: &Path, out: Option<&Path>) -> Result<Imported, CheckpointError> {
    let folder = Folder::open(from)?;
    folder.check_weights()?;
    let (source, tokenizer) = match folder.tokenizer() {
        Tokenizer::SentencePiece(name) => {
            let tokenizer = from_sentencepiece(&folder, &name)?;
            (name, tokenizer)
        }
        Tokenizer::Bytes => ("the bytes of ByT5".to_owned(), bytes_tokenizer()),
        Tokenizer::Ready => {
            return Err(folder.unusable(format!("has a {TOKENIZER} already: there is nothing to convert")));
        }
        absent => return Err(folder.no_tokenizer(&absent)),
    };
    let tokens = check_vocabulary(&folder, &tokenizer)?;
    let target = out.unwrap_or(from);
    if let Some(out) = out {
        copy(&folder, out)?;
    }
    write(&target.join(TOKENIZER), &tokenizer)?;
    Ok(Imported { folder: target.to_owned(), source, tokens })
}

fn from_sentencepiece(folder: &Folder, name: &str) -> Result<Value, CheckpointError> {
    let wrong = |message: String| CheckpointError::Unusable { path: folder.path().join(name), message };
    let model = SentencePiece::read(&folder.read(name)?).map_err(wrong)?;
    let extra_ids = extra_ids(folder, &model)?;
    model.tokenizer(extra_ids).map_err(wrong)
}

/// How many sentinels stand behind the pieces: as tokenizer_config.json says, else T5's hundred where the model's vocabulary
/// has room for them.
fn extra_ids(folder: &Folder, model: &SentencePiece) -> Result<usize, CheckpointError> {
    if model.has_extra_ids() {
        return Ok(0);
    }
    let room = vocabulary(folder)?.map_or(EXTRA_IDS, |size| size.saturating_sub(model.len()));
    let described = folder.description(TOKENIZER_CONFIG)?.and_then(|description| {
        let count = description.get("extra_ids").and_then(Value::as_u64);
        count.and_then(|count| usize::try_from(count).ok())
    });
    match described {
        Some(count) if count > room => {
            let message = format!("says extra_ids {count}, and the model's vocabulary has room for {room}");
            Err(CheckpointError::Unusable { path: folder.path().join(TOKENIZER_CONFIG), message })
        }
        Some(count) => Ok(count),
        None if room >= EXTRA_IDS => Ok(EXTRA_IDS),
        None => Ok(0),
    }
}

/// `vocab_size` of config.json, where it says one.
fn vocabulary(folder: &Folder) -> Result<Option<usize>, CheckpointError> {
    let config = folder.description(CONFIG)?;
    let size = config.as_ref().and_then(|config| config.get("vocab_size")).and_then(Value::as_u64);
    Ok(size.and_then(|size| usize::try_from(size).ok()))
}

/// How many tokens there are: no more than the model has rows for.
fn check_vocabulary(folder: &Folder, tokenizer: &Value) -> Result<usize, CheckpointError> {
    let ids = tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let ids = ids.filter_map(|token| token.get("id")?.as_u64()).filter_map(|id| usize::try_from(id).ok());
    let pieces = match tokenizer.pointer("/model/vocab") {
        Some(Value::Array(pieces)) => pieces.len(),
        Some(Value::Object(pieces)) => pieces.len(),
        _ => 0,
    };
    let tokens = ids.map(|id| id.saturating_add(1)).fold(pieces, usize::max);
    match vocabulary(folder)? {
        Some(size) if size < tokens => Err(folder.unusable(format!(
            "its tokenizer has {tokens} tokens, and vocab_size in {CONFIG} is {size}: it belongs to another model"
        ))),
        _ => Ok(tokens),
    }
}

/// Copies the files of a checkpoint into a new folder.
fn copy(folder: &Folder, out: &Path) -> Result<(), CheckpointError> {
    fs::create_dir_all(out).map_err(|source| CheckpointError::io(out, source))?;
    let mut entries = fs::read_dir(out).map_err(|source| CheckpointError::io(out, source))?;
    if entries.next().is_some() {
        let message = "is not empty: name a new folder".to_owned();
        return Err(CheckpointError::Unusable { path: out.to_owned(), message });
    }
    for name in folder.checkpoint_files() {
        let from = folder.path().join(&name);
        fs::copy(&from, out.join(&name)).map_err(|source| CheckpointError::io(&from, source))?;
    }
    Ok(())
}

/// Writes a JSON file under another name first, so that it is there whole or not at all.
fn write(path: &Path, value: &Value) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::io(path, source);
    let partial = path.with_extension("partial");
    fs::write(&partial, format!("{value:#}\n")).map_err(io)?;
    fs::rename(&partial, path).map_err(io)
}
