//! Which files there are, and whether they fit together.

use crate::error::{Mistakes, Place, ReadError, ReadErrors};
use crate::jsonl::entries;
use crate::row::{Cells, json_message};
use crate::text::{Lines, open, plain};
use domain::{Split, Violation};
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file of completions.
const SHARD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Official names and ours of the columns that are read; the others are passed over.
pub(super) type Columns = &'static [(&'static str, &'static str)];

/// The files of one split.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) split: Split,
    pub(super) rows: PathBuf,
    /// By number, ascending.
    pub(super) shards: Vec<PathBuf>,
}

/// The splits in folder `from`, in order, each with as many completions as rows.
pub(super) fn splits(name: &str, from: &Path) -> Result<Vec<Files>, ReadErrors> {
    let mut mistakes = Mistakes::default();
    let mut found = Vec::new();
    for (split, official) in [(Split::Train, "train"), (Split::Validation, "valid"), (Split::Test, "test")] {
        let rows = from.join(format!("{name}_{official}.json"));
        if rows.exists() {
            match files(split, official, rows, from) {
                Ok(files) => found.push(files),
                Err(error) => error.mistakes.into_iter().for_each(|mistake| mistakes.push(mistake)),
            }
        } else if split == Split::Train {
            mistakes.push(no_train(name, from, &rows));
        }
    }
    mistakes.take().map_or(Ok(found), Err)
}

fn no_train(name: &str, from: &Path, rows: &Path) -> ReadError {
    let inside = from.join(name);
    if inside.join(format!("{name}_train.json")).exists() {
        let message = format!("is one folder too high: name {}", inside.display());
        return ReadError::new(from, Place::File, message);
    }
    let absent = ReadError::io(rows, &std::io::ErrorKind::NotFound.into());
    let message = format!(
        "does not exist, and no import goes without train rows: is {} the folder of `{name}`?",
        from.display()
    );
    ReadError { message, ..absent }
}

fn files(split: Split, official: &str, rows: PathBuf, from: &Path) -> Result<Files, ReadErrors> {
    let count = count_rows(&rows)?;
    let folder = from.join("llm");
    let numbered = shards(&folder, official)?;
    let mut completions = 0;
    let mut mistakes = Mistakes::default();
    for (_, shard) in &numbered {
        match read_array::<serde::de::IgnoredAny>(shard) {
            Ok(items) => completions += items.len() as u64,
            Err(error) => mistakes.push(error),
        }
    }
    let gap = (0..).zip(&numbered).find(|(place, (number, _))| place != number).map(|(place, _)| place);
    if mistakes.is_empty() && (completions != count || gap.is_some()) {
        let absent = gap.map(|place| format!(", {official}_CoT_{place}.json is missing")).unwrap_or_default();
        let message = format!(
            "has {count} rows, and {} holds {completions} completions for them in {} files named \
             {official}_CoT_K.json{absent}: they belong together by position, so the numbers must be equal",
            folder.display(),
            numbered.len(),
        );
        mistakes.push(ReadError::new(&rows, Place::File, message));
    }
    if mistakes.is_empty() && count == 0 {
        mistakes.push(ReadError::new(&rows, Place::File, "is empty: it must hold at least one row"));
    }
    let shards = numbered.into_iter().map(|(_, shard)| shard).collect();
    mistakes.take().map_or(Ok(Files { split, rows, shards }), Err)
}

/// Rows that are wrong count too: their mistakes are reported when they are read.
fn count_rows(path: &Path) -> Result<u64, ReadError> {
    let lines = Lines::new(path, Box::new(open(path)?))?;
    let blank =
        |line: &Result<(u64, String), ReadError>| line.as_ref().is_ok_and(|(_, text)| text.trim().is_empty());
    Ok(lines.filter(|line| !blank(line)).count() as u64)
}

/// The shards of a split with their numbers, ascending.
fn shards(folder: &Path, official: &str) -> Result<Vec<(u64, PathBuf)>, ReadError> {
    let entries = std::fs::read_dir(folder).map_err(|error| ReadError::io(folder, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| ReadError::io(folder, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(official).and_then(|rest| rest.strip_prefix("_CoT_"));
        let number =
            number.and_then(|rest| rest.strip_suffix(".json")).and_then(|number| number.parse().ok());
        found.extend(number.map(|number: u64| (number, path)));
    }
    found.sort();
    Ok(found)
}

/// A file with one JSON array.
fn read_array<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReadError> {
    let io = |error: std::io::Error| ReadError::io(path, &error);
    let file = open(path)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > SHARD_BYTES_MAX {
        let message = format!("is {bytes} bytes long: the limit is {SHARD_BYTES_MAX}");
        return Err(ReadError::new(path, Place::File, message));
    }
    let mut held = Vec::new();
    plain(path, Box::new(file))?.take(SHARD_BYTES_MAX).read_to_end(&mut held).map_err(io)?;
    let text = str::from_utf8(&held).map_err(|error| {
        ReadError::new(path, Place::File, format!("is not UTF-8 from byte {} on", error.valid_up_to() + 1))
    })?;
    serde_json::from_str(text).map_err(|error| {
        let place = Place::Line { line: error.line() as u64, column: Some(error.column() as u64) };
        let message = format!("{}; completions are one JSON array of texts", json_message(&error));
        ReadError::new(path, place, message)
    })
}

/// Completions, shard after shard.
#[derive(Debug)]
pub(super) struct Shards {
    waiting: std::vec::IntoIter<PathBuf>,
    current: std::vec::IntoIter<String>,
}

impl Shards {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        Self { waiting: files.into_iter(), current: Vec::new().into_iter() }
    }
}

impl Iterator for Shards {
    type Item = Result<String, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(completion) = self.current.next() {
                return Some(Ok(completion));
            }
            match read_array(&self.waiting.next()?) {
                Ok(completions) => self.current = completions.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The cells of one official row, by our names.
pub(super) fn cells(columns: Columns, file: &Path, line: u64, text: &str) -> Result<Cells, Vec<ReadError>> {
    let mut entries = entries(file, Place::line(line), text).map_err(|error| vec![error])?;
    let absent: Vec<ReadError> = columns
        .iter()
        .filter(|(official, _)| !entries.iter().any(|(name, _)| name == official))
        .map(|(official, _)| {
            ReadError::of(
                file,
                Place::line(line),
                Violation::new(*official, "is missing: the official files have it"),
            )
        })
        .collect();
    if !absent.is_empty() {
        return Err(absent);
    }
    entries.retain_mut(|(name, _)| match columns.iter().find(|(official, _)| official == name) {
        Some((_, ours)) => {
            *name = (*ours).to_owned();
            true
        }
        None => false,
    });
    Ok(entries)
}
