//! CSV with a header. Empty cells are absent fields; `choices` is a JSON array of texts.

use crate::LINE_BYTES_MAX;
use crate::error::{Place, ReadError};
use crate::row::{Cell, FIELDS, Record, json_cell, json_message, unknown};
use crate::text::{Stream, plain};
use domain::Violation;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that the parser reads ahead of the record that it returns.
const READ_AHEAD: usize = 64 * 1024;

/// A stream that fails when one record takes more bytes than its limit: a quote that is never closed would otherwise
/// gather the rest of the file. It keeps the bytes it gave last, to see how a record ended.
struct Bounded {
    stream: Stream,
    left: usize,
    given: Vec<u8>,
    total: u64,
    ended: bool,
}

impl Bounded {
    /// Whether the record that ends before byte `end` was ended by a line feed, not by a carriage return (whose line
    /// feed comes later) or by the end of the file.
    fn fed_before(&self, end: u64) -> bool {
        let back = usize::try_from(self.total.saturating_sub(end)).unwrap_or(usize::MAX);
        !self.ended && self.given.iter().rev().nth(back) == Some(&b'\n')
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let read = self.stream.read(buffer)?;
        self.left = self.left.saturating_sub(read);
        self.total += read as u64;
        self.ended = read == 0;
        if let Some(given) = buffer.get(..read).filter(|given| !given.is_empty()) {
            self.given.clear();
            self.given.extend_from_slice(given);
        }
        Ok(read)
    }
}

pub(crate) struct CsvRows {
    file: PathBuf,
    reader: csv::Reader<Bounded>,
    header: Vec<String>,
    ended: bool,
}

impl CsvRows {
    /// Reads the header.
    pub(crate) fn new(file: &Path, stream: Stream) -> Result<Self, Vec<ReadError>> {
        let stream = plain(file, stream).map_err(|error| vec![error])?;
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(READ_AHEAD)
            .from_reader(Bounded { stream, left: 0, given: Vec::new(), total: 0, ended: false });
        let mut rows = Self { file: file.to_owned(), reader, header: Vec::new(), ended: false };
        let Some((line, names)) = rows.record().map_err(|error| vec![error])? else {
            return Ok(rows);
        };
        rows.header = names.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        let mistakes = rows.header_mistakes(line);
        if mistakes.is_empty() { Ok(rows) } else { Err(mistakes) }
    }

    fn header_mistakes(&self, line: u64) -> Vec<ReadError> {
        let mut found = Vec::new();
        let mut push = |violation| found.push(ReadError::of(&self.file, Place::line(line), violation));
        for (place, name) in self.header.iter().enumerate() {
            if self.header.iter().take(place).any(|known| known == name) {
                push(Violation::new(name.as_str(), "names two columns: remove one of them"));
            } else if self.header.len() == 1 && name.contains([';', '\t']) {
                push(Violation::new("header", "has no comma: columns are separated by commas"));
            } else if !FIELDS.contains(&name.as_str()) {
                push(unknown(name));
            }
        }
        found
    }

    /// The next record and the line on which it begins. The parser's own number is that of the line on which it looked
    /// for the record: before blank lines, and before the line feed after a carriage return.
    fn record(&mut self) -> Result<Option<(u64, csv::ByteRecord)>, ReadError> {
        self.reader.get_mut().left = LINE_BYTES_MAX + READ_AHEAD;
        let mut record = csv::ByteRecord::new();
        let before = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut record);
        match read {
            Ok(true) => {
                let end = self.reader.position();
                let fed = u64::from(self.reader.get_ref().fed_before(end.byte()));
                let inside = record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
                Ok(Some((end.line().saturating_sub(inside + fed), record)))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                self.ended = true;
                Err(self.failure(before, &error))
            }
        }
    }

    fn failure(&self, line: u64, error: &csv::Error) -> ReadError {
        let place = Place::line(line);
        match error.kind() {
            csv::ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::FileTooLarge => ReadError::new(
                &self.file,
                place,
                format!("begins a row longer than {LINE_BYTES_MAX} bytes: is a quote left open?"),
            ),
            csv::ErrorKind::Io(error) => ReadError { place, ..ReadError::io(&self.file, error) },
            _ => ReadError::new(&self.file, place, format!("is not valid CSV: {error}")),
        }
    }

    fn cells(&self, line: u64, record: &csv::ByteRecord) -> Result<Record, ReadError> {
        let place = Place::line(line);
        if record.len() != self.header.len() {
            let message = format!(
                "has {} fields and the header names {}: is a comma or a quote missing?",
                record.len(),
                self.header.len()
            );
            return Err(ReadError::new(&self.file, place, message));
        }
        let cell = |(name, bytes): (&String, &[u8])| {
            cell(name, bytes)
                .map(|cell| (name.clone(), cell))
                .map_err(|message| ReadError::of(&self.file, place, Violation::new(name.as_str(), message)))
        };
        let cells = self.header.iter().zip(record).map(cell).collect::<Result<_, _>>()?;
        Ok(Record { place, cells })
    }
}

fn cell(name: &str, bytes: &[u8]) -> Result<Cell, String> {
    let text = str::from_utf8(bytes)
        .map_err(|_| "is not UTF-8: convert the file, for example with `iconv -f LATIN1 -t UTF-8`")?;
    if text.is_empty() {
        return Ok(Cell::Null);
    }
    if name != "choices" {
        return Ok(Cell::Text(text.to_owned()));
    }
    let value = serde_json::from_str(text).map_err(|error| {
        format!("{}; choices are a JSON array of texts, such as [\"yes\", \"no\"]", json_message(&error))
    })?;
    Ok(json_cell(value))
}

impl Iterator for CsvRows {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.record() {
            Ok(record) => record.map(|(line, record)| self.cells(line, &record)),
            Err(error) => Some(Err(error)),
        }
    }
}
