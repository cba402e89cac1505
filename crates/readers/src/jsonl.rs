//! JSON: one object a line, or one array of objects, however it is broken into lines. Objects over several lines without
//! an array around them are read too, if the first of them begins with a line of its own.
//!
//! Numbers keep their digits: they are cut out of the text and never become a float. What Python writes and JSON has not
//! is read as it is meant: `NaN` is absent, and half of a surrogate pair (`\ud83d`) is U+FFFD.

use crate::LINE_BYTES_MAX;
use crate::error::{Place, ReadError};
use crate::row::{Cells, Record, json_cell, json_message};
use crate::text::{Bytes, Lines, Stream, buffered, too_long, utf8};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::path::{Path, PathBuf};

/// An object's entries, those with the same name too.
struct Entries(Cells);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter
                    .write_str("one JSON object a line, such as {\"input\": \"...\", \"label\": \"...\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    let cell = json_cell(value).map_err(|error| A::Error::custom(words(&error)))?;
                    entries.push((name, cell));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// What is wrong, without where: the place is one inside a cell.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// The object in `text`, which begins at `place`.
pub(crate) fn entries(file: &Path, place: Place, text: &str) -> Result<Cells, ReadError> {
    let read = |text: &str| serde_json::from_str::<Entries>(text).map(|entries| entries.0);
    read(text).or_else(|error| {
        let Some(mended) = mended(text) else {
            return Err(ReadError::new(file, inside(place, &error), json_message(&error)));
        };
        // The column is that of the mended text, and says nothing to who looks at the file.
        read(&mended).map_err(|error| ReadError::new(file, place, json_message(&error)))
    })
}

/// The place of `error` in a text that begins at `place`.
fn inside(place: Place, error: &serde_json::Error) -> Place {
    let Place::Line { line, column } = place else { return place };
    let (down, across) = (error.line() as u64, error.column() as u64);
    let before = if down <= 1 { column.unwrap_or(1).saturating_sub(1) } else { 0 };
    Place::Line { line: line + down.saturating_sub(1), column: (across > 0).then_some(before + across) }
}

/// `text` with `null` for `NaN`, and U+FFFD for halves of surrogate pairs; `None` where it has neither.
fn mended(text: &str) -> Option<String> {
    let (mut out, mut rest, mut quoted, mut any) = (String::with_capacity(text.len()), text, false, false);
    while let Some(next) = rest.chars().next() {
        let taken = if quoted && next == '\\' {
            let (length, half) = escape(rest);
            any |= half;
            out.push_str(if half { "\\ufffd" } else { rest.get(..length).unwrap_or_default() });
            length
        } else if !quoted && rest.starts_with("NaN") {
            any = true;
            out.push_str("null");
            3
        } else {
            quoted ^= next == '"';
            out.push(next);
            next.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    any.then_some(out)
}

/// How long the escape at the start of `text` is, a pair of surrogates being one, and whether it is half of a pair.
fn escape(text: &str) -> (usize, bool) {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    match unit(0) {
        Some(0xD800..0xDC00) if matches!(unit(6), Some(0xDC00..0xE000)) => (12, false),
        Some(0xD800..0xE000) => (6, true),
        Some(_) => (6, false),
        None => (1 + text.chars().nth(1).map_or(0, char::len_utf8), false),
    }
}

/// The rows of a JSON file.
pub(crate) struct JsonRows {
    file: PathBuf,
    layout: Layout,
    /// Whether a row was read, or refused.
    begun: bool,
}

/// How the objects lie in the file.
enum Layout {
    /// One a line.
    Lines(Lines),
    /// One after another, over any number of lines.
    Values(Values),
    /// There are no more.
    Ended,
}

impl JsonRows {
    /// Looks at how the file begins.
    pub(crate) fn new(file: &Path, stream: Stream) -> Result<Self, ReadError> {
        let mut bytes = Bytes::after(buffered(file, stream)?, 0);
        let failed = |error: std::io::Error| ReadError::io(file, &error);
        blanks(&mut bytes).map_err(failed)?;
        let layout = if bytes.peek().map_err(failed)? == Some(b'[') {
            bytes.take(b'[').map_err(failed)?;
            Layout::Values(Values { bytes, expected: Expected::FirstItem })
        } else {
            let (reader, lines) = bytes.into_rest();
            Layout::Lines(Lines::after(file, reader, lines))
        };
        Ok(Self { file: file.to_owned(), layout, begun: false })
    }

    fn line(&mut self, line: u64, text: &str) -> Result<Record, ReadError> {
        let (place, first) = (Place::line(line), !std::mem::replace(&mut self.begun, true));
        match entries(&self.file, place, text) {
            Ok(cells) => Ok(Record { place, cells }),
            Err(_) if first && !text.trim_start().starts_with(['{', '"']) => {
                // The lines after it would say the same.
                self.layout = Layout::Ended;
                let message = "is no JSON: if it is the header of a CSV file, use `distillery import csv`, or name \
                    the file .csv";
                Err(ReadError::new(&self.file, place, message))
            }
            Err(error) => Err(error),
        }
    }

    fn value(&self, place: Place, text: Option<Vec<u8>>) -> Result<Record, ReadError> {
        let error = |place, message: String| ReadError::new(&self.file, place, message);
        let bytes = text.ok_or_else(|| error(place, too_long()))?;
        let text = utf8(bytes).map_err(|(_, message)| error(place, message.to_owned()))?;
        Ok(Record { place, cells: entries(&self.file, place, &text)? })
    }
}

impl Iterator for JsonRows {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match &mut self.layout {
                Layout::Ended => return None,
                Layout::Values(values) => match values.next()? {
                    Ok((place, text)) => return Some(self.value(place, text)),
                    Err(broken) => {
                        let place = values.bytes.place();
                        self.layout = Layout::Ended;
                        return Some(Err(broken.at(&self.file, place)));
                    }
                },
                Layout::Lines(lines) => match lines.next()? {
                    Err(error) => {
                        self.begun = true;
                        return Some(Err(error));
                    }
                    Ok((line, text)) if !self.begun && text.trim_end() == "{" => {
                        if let Layout::Lines(lines) = std::mem::replace(&mut self.layout, Layout::Ended) {
                            let bytes = Bytes::after(lines.into_rest().0, line);
                            self.layout = Layout::Values(Values { bytes, expected: Expected::Opened(line) });
                        }
                    }
                    Ok((_, text)) if text.trim().is_empty() => {}
                    Ok((line, text)) => return Some(self.line(line, &text)),
                },
            }
        }
    }
}

/// JSON values one after another, cut at their ends and not read: memory is that of one value.
struct Values {
    bytes: Bytes,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The rest of an object whose `{` was taken, on this line.
    Opened(u64),
    /// An object, or the end of the file.
    Object,
    /// The first item of an array, or its end.
    FirstItem,
    /// An item of an array.
    Item,
    /// A comma and an item, or the end of an array.
    Comma,
    /// The end of the file.
    End,
}

const BEHIND_ARRAY: &str = "stands behind the end of an array: a file holds one array, or one object a line \
    (`jq -c '.[]'` writes an array so)";

/// Why nothing can be cut any more.
enum Broken {
    /// The text is no JSON here.
    Text(&'static str),
    /// The file cannot be read.
    File(std::io::Error),
}

impl Broken {
    fn at(&self, file: &Path, place: Place) -> ReadError {
        match self {
            Self::Text(message) => ReadError::new(file, place, *message),
            Self::File(error) => ReadError { place, ..ReadError::io(file, error) },
        }
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

/// A value and where it begins; `None` in place of one beyond the limit.
type Value = (Place, Option<Vec<u8>>);

fn blanks(bytes: &mut Bytes) -> std::io::Result<()> {
    while let Some(blank @ (b' ' | b'\t' | b'\n' | b'\r')) = bytes.peek()? {
        bytes.take(blank)?;
    }
    Ok(())
}

impl Values {
    /// The next value; nothing at the end.
    fn next(&mut self) -> Option<Result<Value, Broken>> {
        self.cut().transpose()
    }

    fn cut(&mut self) -> Result<Option<Value>, Broken> {
        loop {
            if let Expected::Opened(line) = self.expected {
                self.expected = Expected::Object;
                return Ok(Some((Place::line(line), self.value(true)?)));
            }
            blanks(&mut self.bytes)?;
            match (self.expected, self.bytes.peek()?) {
                (Expected::Object | Expected::End, None) => return Ok(None),
                (_, None) => return Err(Broken::Text("ends inside an array: is the file cut off?")),
                (Expected::FirstItem | Expected::Comma, Some(b']')) => {
                    self.bytes.take(b']')?;
                    self.expected = Expected::End;
                }
                (Expected::Comma, Some(b',')) => {
                    self.bytes.take(b',')?;
                    self.expected = Expected::Item;
                }
                (Expected::Comma, Some(_)) => {
                    return Err(Broken::Text("is broken JSON: expected `,` or `]`"));
                }
                (Expected::End, Some(_)) => return Err(Broken::Text(BEHIND_ARRAY)),
                (Expected::Item, Some(b']')) => return Err(Broken::Text("is broken JSON: trailing comma")),
                (_, Some(b',' | b']' | b'}' | b':')) => {
                    return Err(Broken::Text("is broken JSON: expected value"));
                }
                (expected, Some(_)) => {
                    if expected != Expected::Object {
                        self.expected = Expected::Comma;
                    }
                    let place = self.bytes.place();
                    return Ok(Some((place, self.value(false)?)));
                }
            }
        }
    }

    /// The value that begins here, or whose brace was taken. Whether it is one is seen when it is read.
    fn value(&mut self, opened: bool) -> std::io::Result<Option<Vec<u8>>> {
        let (mut text, mut depth) = (if opened { b"{\n".to_vec() } else { Vec::new() }, usize::from(opened));
        let (mut quoted, mut escaped, mut too_long) = (false, false, false);
        while let Some(byte) = self.bytes.peek()? {
            if depth == 0 && !quoted && !text.is_empty() && b",]} \t\r\n".contains(&byte) {
                break;
            }
            self.bytes.take(byte)?;
            too_long |= text.len() >= LINE_BYTES_MAX;
            if !too_long {
                text.push(byte);
            }
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => continue,
                }
            }
            if depth == 0 && !quoted {
                break;
            }
        }
        Ok((!too_long).then_some(text))
    }
}
