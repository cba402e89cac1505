//! The paper's data in the layout of its official repository (Hsieh et al. 2023, `datasets/`).
//!
//! `NAME_train.json`, `NAME_valid.json` and `NAME_test.json` hold one JSON object a line; `llm/SPLIT_CoT_K.json` holds a
//! JSON array of the teacher's raw completions, which belong to the rows by position, shard after shard. A split may be
//! absent, but not `train`; the completions of a split that is there must be as many as its rows.

mod dataset;
mod layout;
mod official;
mod report;

pub use dataset::PaperDataset;
pub use report::{PaperReport, Share, SplitReport};

use crate::error::{Mistakes, Place, ReadError, ReadErrors};
use crate::row::{build, label_violation, name_label};
use crate::text::{Lines, open as open_file};
use domain::{Answer, Example, Split, Task};
use layout::{Files, Shards};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Who wrote the released completions.
pub const TEACHER: &str = "palm-540b";

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
        name_label(task, true, &mut example).map_err(|violation| vec![at(violation)])?;
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
