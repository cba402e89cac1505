//! CSV with a header. Empty cells are absent fields; `choices` is a JSON array of texts.
//!
//! The records are cut here and not by the `csv` crate: it reads on behind a closing quote, and takes the rest of the file
//! into a quote that is never closed, without a word. Fields are separated by what separates the names of the header:
//! a comma, a semicolon, a tab or a bar. Lines end with a line feed, a carriage return, or both.

use crate::LINE_BYTES_MAX;
use crate::columns::Columns;
use crate::error::{Place, ReadError};
use crate::row::{Cell, Record, json_cells, json_message};
use crate::text::{Bytes, Stream, buffered};
use domain::Violation;
use std::path::{Path, PathBuf};

const SEPARATORS: &[u8] = b",;\t|";

pub(crate) struct CsvRows {
    file: PathBuf,
    bytes: Bytes,
    /// What separates fields; `None` until the header has shown it.
    separator: Option<u8>,
    header: Vec<String>,
    /// The column of the choices, whose cells are arrays.
    choices: Option<String>,
    ended: bool,
}

/// A record as it is cut.
#[derive(Default)]
struct Cut {
    /// The line on which it begins.
    line: u64,
    fields: Vec<Vec<u8>>,
    /// Where it breaks the rules of quotes first.
    mistake: Option<(u64, &'static str)>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A field that begins.
    Start,
    /// A field without quotes.
    Bare,
    /// A quoted field.
    Quoted,
    /// Behind a quote that closes the field, unless one more follows.
    Closed,
}

const AFTER_QUOTE: &str = "has text after a closing quote: write a quote inside a field twice, \"\"; where a backslash \
    stands before it: `pandas.read_csv(f, escapechar=\"\\\\\").to_csv(g, index=False)`";
const OPEN_QUOTE: &str =
    "opens a quote that is never closed: close it, or write it twice inside a field, \"\"";

impl CsvRows {
    /// Reads the header.
    pub(crate) fn new(file: &Path, stream: Stream, columns: &Columns) -> Result<Self, Vec<ReadError>> {
        let bytes = Bytes::after(buffered(file, stream).map_err(|error| vec![error])?, 0);
        let mut rows = Self {
            file: file.to_owned(),
            bytes,
            separator: None,
            header: Vec::new(),
            choices: None,
            ended: false,
        };
        let Some(cut) = rows.cut().map_err(|error| vec![error])? else {
            return Ok(rows);
        };
        if let Some((line, message)) = cut.mistake {
            return Err(vec![ReadError::new(file, Place::line(line), message)]);
        }
        rows.header = cut.fields.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        rows.separator.get_or_insert(b',');
        rows.choices = rows.header.iter().find(|name| columns.is_choices(name)).cloned();
        let mistakes = rows.header_mistakes(cut.line, columns);
        if mistakes.is_empty() { Ok(rows) } else { Err(mistakes) }
    }

    fn header_mistakes(&self, line: u64, columns: &Columns) -> Vec<ReadError> {
        let of = |violation| ReadError::of(&self.file, Place::line(line), violation);
        let one = |message| vec![of(Violation::new("header", message))];
        match self.header.first() {
            Some(name) if name.starts_with(['{', '[']) => {
                return one("is JSON: use `distillery import jsonl`, or name the file .jsonl");
            }
            Some(name) if name.starts_with("sep=") => {
                return one("is a hint for spreadsheets, and names no columns: remove the first line");
            }
            _ => {}
        }
        let names: Vec<&str> = self.header.iter().map(String::as_str).collect();
        columns.of_header(&names).into_iter().map(of).collect()
    }

    /// The next record; blank lines are none.
    fn cut(&mut self) -> Result<Option<Cut>, ReadError> {
        let mut cut = Cut { line: self.bytes.line, ..Cut::default() };
        let cut_out = self.cut_into(&mut cut).map_err(|error| {
            self.ended = true;
            let place = Place::line(cut.line);
            if error.kind() == std::io::ErrorKind::FileTooLarge {
                let message =
                    format!("begins a row longer than {LINE_BYTES_MAX} bytes: is a quote left open?");
                return ReadError::new(&self.file, place, message);
            }
            ReadError { place, ..ReadError::io(&self.file, &error) }
        })?;
        Ok(cut_out.then_some(cut))
    }

    /// Whether there was a record to fill `cut`.
    fn cut_into(&mut self, cut: &mut Cut) -> std::io::Result<bool> {
        let (mut state, mut field, mut opened, mut size) = (State::Start, Vec::new(), 0, 0_usize);
        while let Some(byte) = self.bytes.peek()? {
            let line = self.bytes.line;
            self.bytes.take(byte)?;
            size += 1;
            if size > LINE_BYTES_MAX {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            state = match (state, byte) {
                (State::Quoted, b'"') => State::Closed,
                (State::Closed, b'"') => {
                    field.push(b'"');
                    State::Quoted
                }
                (State::Quoted, byte) => {
                    field.push(byte);
                    State::Quoted
                }
                (State::Start, b'"') => {
                    opened = line;
                    State::Quoted
                }
                (_, b'\n' | b'\r') => {
                    if byte == b'\r' && self.bytes.peek()? == Some(b'\n') {
                        self.bytes.take(b'\n')?;
                    }
                    if state != State::Start || !cut.fields.is_empty() {
                        cut.fields.push(field);
                        return Ok(true);
                    }
                    (cut.line, size) = (self.bytes.line, 0);
                    State::Start
                }
                (_, byte) if self.separates(byte) => {
                    cut.fields.push(std::mem::take(&mut field));
                    State::Start
                }
                (state, byte) => {
                    if state == State::Closed {
                        cut.mistake.get_or_insert((line, AFTER_QUOTE));
                    }
                    field.push(byte);
                    State::Bare
                }
            };
        }
        if state == State::Quoted {
            cut.mistake.get_or_insert((opened, OPEN_QUOTE));
        }
        let any = state != State::Start || !cut.fields.is_empty();
        cut.fields.push(field);
        Ok(any)
    }

    /// Whether `byte` separates fields. The first that does in the header does in the whole file.
    fn separates(&mut self, byte: u8) -> bool {
        match self.separator {
            Some(separator) => byte == separator,
            None if SEPARATORS.contains(&byte) => {
                self.separator = Some(byte);
                true
            }
            None => false,
        }
    }

    fn cells(&self, cut: &Cut) -> Result<Record, ReadError> {
        let place = Place::line(cut.line);
        if let Some((line, message)) = cut.mistake {
            return Err(ReadError::new(&self.file, Place::line(line), message));
        }
        if cut.fields.len() != self.header.len() {
            let separator = match self.separator {
                Some(b';') => "semicolon",
                Some(b'\t') => "tab",
                Some(b'|') => "bar",
                _ => "comma",
            };
            let message = format!(
                "has {} fields and the header names {}: is a {separator} or a quote missing?",
                cut.fields.len(),
                self.header.len()
            );
            return Err(ReadError::new(&self.file, place, message));
        }
        let cell = |(name, bytes): (&String, &Vec<u8>)| {
            cell(self.choices.as_ref() == Some(name), bytes)
                .map(|cell| (name.clone(), cell))
                .map_err(|message| ReadError::of(&self.file, place, Violation::new(name.as_str(), message)))
        };
        let cells = self.header.iter().zip(&cut.fields).map(cell).collect::<Result<_, _>>()?;
        Ok(Record { place, cells })
    }
}

fn cell(is_choices: bool, bytes: &[u8]) -> Result<Cell, String> {
    let text = str::from_utf8(bytes)
        .map_err(|_| "is not UTF-8: convert the file, for example with `iconv -f LATIN1 -t UTF-8`")?;
    if text.is_empty() {
        return Ok(Cell::Null);
    }
    if !is_choices {
        return Ok(Cell::Text(text.to_owned()));
    }
    json_cells(text).map_err(|error| {
        format!("{}; choices are a JSON array of texts, such as [\"yes\", \"no\"]", json_message(&error))
    })
}

impl Iterator for CsvRows {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.cut() {
            Ok(cut) => cut.map(|cut| self.cells(&cut)),
            Err(error) => Some(Err(error)),
        }
    }
}
