//! Rows of one or several files, in order, with every mistake that they hold.

use crate::columns::{Columns, Mapped};
use crate::csv::CsvRows;
use crate::error::{Mistakes, Place, ReadError, ReadErrors};
use crate::jsonl::JsonRows;
use crate::missing::Missing;
use crate::parquet::ParquetRows;
use crate::row::{Record, build, label_violation, name_label, shown};
use crate::text::{Stream, open};
use crate::{Format, ROWS_MAX, Source};
use domain::{Example, Split, Task, Violation};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// What is asked of rows beyond their form.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The task that the rows are for: labels must be of its set, or have a value where it compares equations.
    pub task: Option<Task>,
    /// Whether every row needs a gold label.
    pub labels_required: bool,
    /// Which column is which field.
    pub columns: Columns,
}

/// The records of one file; after a failure of the file itself there are no more.
type Records = Box<dyn Iterator<Item = Result<Record, ReadError>> + Send>;

/// The rows of `sources`, one file after another. Nothing is opened before the first row is asked for.
pub fn rows(sources: Vec<Source>, options: Options) -> Rows {
    Rows::new(sources.into_iter().map(|source| (source, None)).collect(), options)
}

/// The rows of a stream such as standard input, called `name` in errors.
pub fn rows_from(name: &str, format: Format, stream: Stream, options: Options) -> Rows {
    let source = Source { path: PathBuf::from(name), format, split: None };
    Rows::new(vec![(source, Some(stream))], options)
}

/// See [`rows`]: examples until the first mistake, then one error with all mistakes, then nothing.
pub struct Rows {
    waiting: std::vec::IntoIter<(Source, Option<Stream>)>,
    current: Option<Current>,
    options: Options,
    ids: Ids,
    mistakes: Mistakes,
    rows: u64,
}

struct Current {
    file: PathBuf,
    split: Option<Split>,
    records: Records,
    empty: bool,
}

impl Rows {
    fn new(sources: Vec<(Source, Option<Stream>)>, options: Options) -> Self {
        Self {
            waiting: sources.into_iter(),
            current: None,
            options,
            ids: Ids::default(),
            mistakes: Mistakes::default(),
            rows: 0,
        }
    }

    /// The next row, or `None` at the end of all files or of the search for mistakes.
    fn advance(&mut self) -> Option<Example> {
        while !self.mistakes.is_full() {
            let Some(current) = &mut self.current else {
                self.open_next()?;
                continue;
            };
            match current.records.next() {
                None => self.close(),
                Some(Err(mistake)) => {
                    current.empty = false;
                    self.mistakes.push(mistake);
                }
                Some(Ok(record)) => {
                    current.empty = false;
                    let (file, split) = (current.file.clone(), current.split);
                    let example = self.check(&file, split, record);
                    if self.mistakes.is_empty() && example.is_some() {
                        return example;
                    }
                }
            }
        }
        None
    }

    /// Opens the next file; `None` where there is none.
    fn open_next(&mut self) -> Option<()> {
        let (source, stream) = self.waiting.next()?;
        match records(&source, stream, &self.options.columns) {
            Ok(records) => {
                let records = Box::new(Missing::new(records));
                self.current = Some(Current { file: source.path, split: source.split, records, empty: true });
            }
            Err(mistakes) => mistakes.into_iter().for_each(|mistake| self.mistakes.push(mistake)),
        }
        Some(())
    }

    fn close(&mut self) {
        if let Some(current) = self.current.take()
            && current.empty
        {
            let message = "is empty: it must hold at least one row";
            self.mistakes.push(ReadError::new(&current.file, Place::File, message));
        }
    }

    /// The example in `record`, where it is sound; its mistakes are noted.
    fn check(&mut self, file: &Path, split: Option<Split>, record: Record) -> Option<Example> {
        let place = record.place;
        self.rows += 1;
        if self.rows > ROWS_MAX {
            let message = format!("is beyond the limit of {ROWS_MAX} rows: split the data");
            self.mistakes.push(ReadError::new(file, place, message));
            self.current = None;
            self.waiting = Vec::new().into_iter();
            return None;
        }
        let mut example = match build(record.cells, split) {
            Ok(example) => example,
            Err(violations) => {
                self.note(file, place, violations);
                return None;
            }
        };
        if let Some(task) = &self.options.task
            && let Err(violation) = name_label(task, self.options.labels_required, &mut example)
        {
            self.note(file, place, vec![violation]);
            return None;
        }
        let label = label_violation(self.options.task.as_ref(), self.options.labels_required, &example);
        let twice = example.key.as_ref().and_then(|key| self.ids.insert(file, place, key));
        let violations: Vec<Violation> = label.into_iter().chain(twice).collect();
        let sound = violations.is_empty();
        self.note(file, place, violations);
        sound.then_some(example)
    }

    fn note(&mut self, file: &Path, place: Place, violations: Vec<Violation>) {
        for violation in violations {
            let field = self.options.columns.shown(violation.field);
            self.mistakes.push(ReadError::of(file, place, Violation { field, ..violation }));
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Example, ReadErrors>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(example) = self.advance() {
            return Some(Ok(example));
        }
        self.current = None;
        self.waiting = Vec::new().into_iter();
        self.mistakes.take().map(Err)
    }
}

/// The records of a file, their cells named by field.
pub(crate) fn records(
    source: &Source,
    stream: Option<Stream>,
    columns: &Columns,
) -> Result<Records, Vec<ReadError>> {
    let path = source.path.as_path();
    let one = |error| vec![error];
    if source.format == Format::Parquet {
        let file = match stream {
            None => open(path).map_err(one)?,
            Some(_) => {
                let message = "cannot be read as a stream: Parquet needs a file";
                return Err(one(ReadError::new(path, Place::File, message)));
            }
        };
        return Ok(Box::new(Mapped::new(path, ParquetRows::new(path, file, columns)?, columns, true)));
    }
    let stream = match stream {
        Some(stream) => stream,
        None => Box::new(open(path).map_err(one)?),
    };
    match source.format {
        Format::Csv => Ok(Box::new(Mapped::new(path, CsvRows::new(path, stream, columns)?, columns, true))),
        Format::Jsonl | Format::Parquet => {
            Ok(Box::new(Mapped::new(path, JsonRows::new(path, stream).map_err(one)?, columns, false)))
        }
    }
}

/// Where every id stood first: by two hashes of it, so that long ids cost no more than short ones.
#[derive(Default)]
struct Ids {
    hashers: [RandomState; 2],
    files: Vec<PathBuf>,
    first: HashMap<(u64, u64), (usize, Place)>,
}

impl Ids {
    /// What is wrong with `key`, where it was there before.
    fn insert(&mut self, file: &Path, place: Place, key: &str) -> Option<Violation> {
        if self.files.last().map(PathBuf::as_path) != Some(file) {
            self.files.push(file.to_owned());
        }
        let here = (self.files.len() - 1, place);
        let [one, other] = &self.hashers;
        let (at, first) = match self.first.entry((one.hash_one(key), other.hash_one(key))) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(here);
                return None;
            }
            std::collections::hash_map::Entry::Occupied(entry) => *entry.get(),
        };
        let elsewhere = self.files.get(at).filter(|_| at != here.0);
        let of = elsewhere.map(|file| format!(" of {}", file.display())).unwrap_or_default();
        let message = format!(
            "`{}` on {} stands on {}{of} already: ids must be unique",
            shown(key),
            place.in_words(),
            first.in_words()
        );
        Some(Violation::new("id", message))
    }
}
