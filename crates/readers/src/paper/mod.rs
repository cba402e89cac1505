//! The paper's data in the layout of its official repository (Hsieh et al. 2023, `datasets/`).
//!
//! `NAME_train.json`, `NAME_valid.json` and `NAME_test.json` hold one JSON object a line; `llm/SPLIT_CoT_K.json` holds a
//! JSON array of the teacher's raw completions, which belong to the rows by position, shard after shard. A split may be
//! absent, but not `train`; the completions of a split that is there must be as many as its rows.

mod layout;
mod official;
mod report;

pub use report::{PaperReport, Share, SplitReport};

use crate::error::{Mistakes, Place, ReadError, ReadErrors};
use crate::row::{build, label_violation, shown};
use crate::text::{Lines, open as open_file};
use domain::task::LabelSet;
use domain::{Answer, Example, Split, Task, Violation};
use layout::{Columns, Files, Shards};
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Who wrote the released completions.
pub const TEACHER: &str = "palm-540b";

/// The paper's datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaperDataset {
    /// SVAMP: word problems.
    Svamp,
    /// CommonsenseQA, through CoS-E.
    Cqa,
    /// ANLI, round 1.
    Anli1,
    /// e-SNLI.
    Esnli,
}

impl PaperDataset {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::Svamp, Self::Cqa, Self::Anli1, Self::Esnli];

    /// Its name, which its files begin with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Svamp => "svamp",
            Self::Cqa => "cqa",
            Self::Anli1 => "anli1",
            Self::Esnli => "esnli",
        }
    }

    /// The built-in task that reads its completions.
    pub fn task_name(self) -> &'static str {
        match self {
            Self::Svamp => "equation",
            Self::Cqa => "choice",
            Self::Anli1 => "nli",
            Self::Esnli => "esnli",
        }
    }

    fn columns(self) -> Columns {
        match self {
            Self::Svamp => &[("input", "input"), ("label", "label")],
            Self::Cqa => &[("id", "id"), ("question", "input"), ("choices", "choices"), ("answer", "label")],
            Self::Anli1 => {
                &[("uid", "id"), ("premise", "premise"), ("hypothesis", "hypothesis"), ("label", "label")]
            }
            Self::Esnli => &[("premise", "premise"), ("hypothesis", "hypothesis"), ("label", "label")],
        }
    }
}

impl fmt::Display for PaperDataset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for PaperDataset {
    type Err = Violation;

    fn from_str(text: &str) -> Result<Self, Violation> {
        let known = Self::ALL.iter().find(|dataset| dataset.as_str() == text);
        known.copied().ok_or_else(|| {
            let message = format!("`{}` is not one of: svamp, cqa, anli1, esnli", shown(text));
            Violation::new("dataset", message)
        })
    }
}

/// A dataset, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperImport {
    /// The rows: train, validation, test; each with the teacher's completion.
    pub examples: Vec<Example>,
    /// What the teacher's completions are worth, by split.
    pub report: PaperReport,
}

/// Reads the whole dataset in folder `from`.
///
/// # Errors
/// All mistakes of its files.
pub fn read(dataset: PaperDataset, from: &Path) -> Result<PaperImport, ReadErrors> {
    let mut rows = open(dataset, from)?;
    let examples = rows.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok(PaperImport { examples, report: rows.into_report() })
}

/// Looks through the files of the dataset in folder `from`, counts rows against completions, and streams the rows: one
/// shard of completions is held at a time.
///
/// # Errors
/// A file that is missing, counts that do not match, broken shards.
pub fn open(dataset: PaperDataset, from: &Path) -> Result<PaperRows, ReadErrors> {
    let Some(task) = Task::built_in(dataset.task_name()) else {
        let message = format!("needs the built-in task `{}`", dataset.task_name());
        return Err(ReadError::new(from, Place::File, message).into());
    };
    let splits = layout::splits(dataset.as_str(), from)?;
    let report = PaperReport { dataset, splits: Vec::new() };
    Ok(PaperRows {
        dataset,
        task,
        waiting: splits.into(),
        current: None,
        report,
        mistakes: Mistakes::default(),
    })
}

/// The rows of a dataset, in order: examples until the first mistake, then one error with all mistakes, then nothing.
pub struct PaperRows {
    dataset: PaperDataset,
    task: Task,
    waiting: VecDeque<Files>,
    current: Option<Current>,
    report: PaperReport,
    mistakes: Mistakes,
}

/// The split that is being read.
struct Current {
    file: PathBuf,
    split: Split,
    lines: Lines,
    completions: Shards,
    report: SplitReport,
}

impl PaperRows {
    /// The task that reads the completions, and that the rows are for.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The report of the splits read so far.
    pub fn report(&self) -> &PaperReport {
        &self.report
    }

    /// See [`PaperRows::report`].
    pub fn into_report(self) -> PaperReport {
        self.report
    }

    fn advance(&mut self) -> Option<Example> {
        while !self.mistakes.is_full() {
            let Some(current) = &mut self.current else {
                let files = self.waiting.pop_front()?;
                match start(files) {
                    Ok(current) => self.current = Some(current),
                    Err(mistake) => self.mistakes.push(mistake),
                }
                continue;
            };
            match current.next(self.dataset, &self.task) {
                None => {
                    let done = self.current.take();
                    self.report.splits.extend(done.map(|current| current.report));
                }
                Some(Ok(example)) if self.mistakes.is_empty() => return Some(example),
                Some(Ok(_)) => {}
                Some(Err(mistakes)) => mistakes.into_iter().for_each(|mistake| self.mistakes.push(mistake)),
            }
        }
        None
    }
}

impl Iterator for PaperRows {
    type Item = Result<Example, ReadErrors>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(example) = self.advance() {
            return Some(Ok(example));
        }
        self.waiting.clear();
        self.current = None;
        self.mistakes.take().map(Err)
    }
}

fn start(files: Files) -> Result<Current, ReadError> {
    let stream = Box::new(open_file(&files.rows)?);
    Ok(Current {
        lines: Lines::new(&files.rows, stream)?,
        file: files.rows,
        split: files.split,
        completions: Shards::new(files.shards),
        report: SplitReport::new(files.split),
    })
}

impl Current {
    fn next(&mut self, dataset: PaperDataset, task: &Task) -> Option<Result<Example, Vec<ReadError>>> {
        let (line, text) = loop {
            match self.lines.next()? {
                Ok((_, text)) if text.trim().is_empty() => {}
                Ok(line) => break line,
                Err(error) => return Some(Err(vec![error])),
            }
        };
        Some(self.example(dataset, task, line, &text))
    }

    fn example(
        &mut self,
        dataset: PaperDataset,
        task: &Task,
        line: u64,
        text: &str,
    ) -> Result<Example, Vec<ReadError>> {
        // A wrong row takes its completion with it, so that the rows after it keep theirs.
        let completion = self.completions.next().transpose().map_err(|error| vec![error])?;
        let place = Place::line(line);
        let at = |violation| ReadError::of(&self.file, place, violation);
        let cells = layout::cells(dataset.columns(), &self.file, line, text)?;
        let mut example = build(cells, Some(self.split))
            .map_err(|violations| violations.into_iter().map(at).collect::<Vec<_>>())?;
        if let LabelSet::Closed(labels) = &task.labels {
            name_label(labels, &mut example);
        }
        if let Some(violation) = label_violation(Some(task), true, &example) {
            return Err(vec![at(violation)]);
        }
        if let Some(text) = completion {
            self.report.count(dataset, task, &example, &text);
            example.answers.push(Answer::Completion { teacher: TEACHER.to_owned(), text });
        }
        Ok(example)
    }
}

/// An integer label is a place in the set.
fn name_label(labels: &[String], example: &mut Example) {
    let place = example.label.as_ref().and_then(|label| label.parse::<usize>().ok());
    if let Some(name) = place.and_then(|place| labels.get(place)) {
        example.label = Some(name.clone());
    }
}
