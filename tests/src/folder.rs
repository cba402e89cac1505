//! A user's folder with rows and a specification, and the output of the binary run in it.

use crate::binary;
use crate::data::{self, SpecText};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// An address without a server, for commands that call no teacher.
pub const NOBODY: &str = "http://127.0.0.1:9/v1";

/// The result of a finished process.
#[derive(Debug)]
pub struct Said {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Standard output, which must be exactly one JSON object.
    ///
    /// # Errors
    /// It is something else.
    pub fn json(&self) -> anyhow::Result<Value> {
        let value: Value = serde_json::from_str(&self.out).with_context(|| {
            format!("standard output is not one JSON value: {:?}; {}", self.out, self.err)
        })?;
        if !value.is_object() || self.out.trim_end().contains('\n') {
            bail!("standard output is not one object on one line: {:?}", self.out);
        }
        Ok(value)
    }
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    ///
    /// # Errors
    /// The disk fails.
    pub fn empty() -> anyhow::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// A folder with word problems in `train.jsonl`, `validation.jsonl` and `test.jsonl` (`rows` of each) and `spec.toml`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn with_problems(rows: [usize; 3], spec: &SpecText<'_>) -> anyhow::Result<Self> {
        let folder = Self::empty()?;
        for ((name, count), salt) in ["train", "validation", "test"].into_iter().zip(rows).zip(0..) {
            data::write_problems(&folder.join(&format!("{name}.jsonl")), count, salt)?;
        }
        folder.write("spec.toml", spec.to_string())?;
        Ok(folder)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// Runs the binary in this folder to its end, with this teacher as the profile `local`.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn say(&self, teacher_url: &str, arguments: &[&str]) -> anyhow::Result<Said> {
        Ok(binary::run(self.path(), teacher_url, arguments)?.into())
    }
}

/// What a student in `folder` answered to the rows of each split, without the times that they took.
///
/// # Errors
/// A file is absent or is not JSON Lines.
pub fn predictions(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let mut lines = Vec::new();
    for split in ["validation", "test"] {
        let path = folder.join("predictions").join(split).with_extension("jsonl");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for line in text.lines() {
            let mut line: Value = serde_json::from_str(line)?;
            if let Some(row) = line.as_object_mut() {
                row.remove("milliseconds");
            }
            lines.push(line);
        }
    }
    Ok(lines)
}
