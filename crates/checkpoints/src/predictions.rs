//! What a student answered to every row of a measured split, in files next to its weights: `predictions/<split>.jsonl`. The first
//! line is the header, each other line one row. Accuracies are computed from these rows and from nothing else.

use crate::CheckpointError;
use domain::Split;
use domain::metric::Accuracy;
use domain::run::Outcomes;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The folder that holds them.
pub const PREDICTIONS: &str = "predictions";
/// Test rows whose rationales a student writes too, where they are a question of their own.
pub const EXPLAINED_ROWS: usize = 100;
/// The format of the files that are written here.
const FORMAT: u32 = 1;

/// The rows of one split, and what the student answered to each.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// What was measured, and how.
    pub header: Header,
    /// In the order of the split.
    pub rows: Vec<Prediction>,
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub format: u32,
    /// Which rows.
    pub split: Split,
    /// How many rows follow.
    pub rows: u64,
    /// float32 or bfloat16.
    pub precision: String,
    /// Rows whose gold label the student cannot write: the tokenizer does not know all of its characters.
    #[serde(default)]
    pub unwritable_labels: u64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The row's index in the dataset.
    pub row: u64,
    /// What the student wrote, whole; the label where it chose one from a set.
    pub answer: String,
    /// The label that the answer says; empty where it says none.
    pub label: String,
    /// The right label.
    pub gold: String,
    /// Whether the label is the gold one, as the task compares them.
    pub correct: bool,
    /// Whether the answer says a label.
    pub parsed: bool,
    /// The label's probability, where the student chose it from a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The natural logarithm of the answer's probability: among the labels of the set where it chose one, else of the text.
    #[serde(default)]
    pub log_probability: Option<f64>,
    /// Tokens of the answer.
    pub tokens: u64,
    /// From the beginning of the row's pass to its last token. The one number that another measurement changes.
    pub milliseconds: f64,
    /// The student's rationale: in every row where it is written with the label, else in the first [`EXPLAINED_ROWS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
    /// Why the student did not answer; such a row counts as wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Predictions {
    /// The rows of `split`.
    pub fn new(split: Split, precision: &str, unwritable_labels: u64, rows: Vec<Prediction>) -> Self {
        let header = Header {
            format: FORMAT,
            split,
            rows: rows.len() as u64,
            precision: precision.to_owned(),
            unwritable_labels,
        };
        Self { header, rows }
    }

    /// Writes the file of the split into a student's folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let path = file(folder, self.header.split);
        let io = |source| CheckpointError::io(&path, source);
        std::fs::create_dir_all(folder.join(PREDICTIONS)).map_err(io)?;
        let mut to = BufWriter::new(std::fs::File::create(&path).map_err(io)?);
        let json = |error: serde_json::Error| CheckpointError::Json {
            path: path.clone(),
            message: error.to_string(),
        };
        writeln!(to, "{}", serde_json::to_string(&self.header).map_err(json)?).map_err(io)?;
        for row in &self.rows {
            writeln!(to, "{}", serde_json::to_string(row).map_err(json)?).map_err(io)?;
        }
        to.flush().map_err(io)
    }

    /// Reads the file of a split from a student's folder; `None` where there is none. Later formats that only add fields are
    /// read, too.
    ///
    /// # Errors
    /// It cannot be read: the line is named.
    pub fn read(folder: &Path, split: Split) -> Result<Option<Self>, CheckpointError> {
        let path = file(folder, split);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::io(&path, source)),
        };
        let wrong = |line: usize, message: String| CheckpointError::Json {
            path: path.clone(),
            message: format!("line {line}: {message}"),
        };
        let mut lines = (1_usize..).zip(BufReader::new(file).lines());
        let (_, first) = lines.next().ok_or_else(|| wrong(1, "there is no header".to_owned()))?;
        let first = first.map_err(|source| CheckpointError::io(&path, source))?;
        let header: Header = serde_json::from_str(&first).map_err(|error| wrong(1, error.to_string()))?;
        let mut rows = Vec::new();
        for (number, line) in lines {
            let line = line.map_err(|source| CheckpointError::io(&path, source))?;
            rows.push(serde_json::from_str(&line).map_err(|error| wrong(number, error.to_string()))?);
        }
        if rows.len() as u64 != header.rows {
            let words = format!("says {} rows, and {} follow: copy the file again", header.rows, rows.len());
            return Err(wrong(1, words));
        }
        Ok(Some(Self { header, rows }))
    }

    /// Which rows were right.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes::of(self.rows.iter().map(|row| (row.row, row.correct)))
    }

    /// The accuracy over the rows; `None` where there are none.
    pub fn accuracy(&self) -> Option<Accuracy> {
        let count = |of: fn(&Prediction) -> bool| self.rows.iter().filter(|row| of(row)).count() as u64;
        let rows = self.rows.len() as u64;
        (rows > 0).then(|| Accuracy::measure(rows, count(|row| row.correct), count(|row| row.parsed)))
    }
}

fn file(folder: &Path, split: Split) -> PathBuf {
    folder.join(PREDICTIONS).join(format!("{split}.jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(row: u64, label: &str, gold: &str) -> Prediction {
        Prediction {
            row,
            answer: label.to_owned(),
            label: label.to_owned(),
            gold: gold.to_owned(),
            correct: label == gold,
            parsed: !label.is_empty(),
            probability: Some(0.1 + row as f64 / 3.0),
            log_probability: Some(-0.1 - row as f64 / 3.0),
            tokens: 2,
            milliseconds: 1.5,
            rationale: None,
            error: None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Predictions::read(folder.path(), Split::Test).unwrap(), None);
        let rows = vec![row(3, "yes", "yes"), row(5, "no", "yes"), row(9, "", "no")];
        let predictions = Predictions::new(Split::Test, "float32", 1, rows);
        predictions.write(folder.path()).unwrap();
        let read = Predictions::read(folder.path(), Split::Test).unwrap().unwrap();
        assert_eq!(read, predictions);
        assert_eq!(read.accuracy(), Some(Accuracy::measure(3, 1, 2)));
        assert_eq!(Predictions::new(Split::Test, "float32", 0, vec![]).accuracy(), None);
    }

    #[test]
    fn a_file_is_read_in_later_formats_and_refused_in_part() {
        let folder = tempfile::tempdir().unwrap();
        Predictions::new(Split::Validation, "bfloat16", 0, vec![row(1, "a", "a")])
            .write(folder.path())
            .unwrap();
        let path = file(folder.path(), Split::Validation);
        let text = std::fs::read_to_string(&path).unwrap();
        let read = |text: String| {
            std::fs::write(&path, text).unwrap();
            Predictions::read(folder.path(), Split::Validation).map(Option::unwrap)
        };
        let later = text.replace("\"format\":1", "\"format\":2,\"device\":\"cuda\"");
        assert_eq!(read(later).unwrap().rows.len(), 1);
        let refused = |text: String, wanted: &str| {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains("validation.jsonl") && said.contains(wanted), "{said}");
        };
        refused(String::new(), "line 1: there is no header");
        refused(text.lines().take(1).collect(), "line 1: says 1 rows, and 0 follow");
        refused(text.replace("\"gold\"", "\"golden\""), "line 2: ");
    }
}
