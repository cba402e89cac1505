//! JSON Lines: one object a line.

use crate::error::{Place, ReadError};
use crate::row::{Cells, Record, json_cell, json_message};
use crate::text::{Lines, Stream};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::path::{Path, PathBuf};

/// An object's entries, those with the same name too.
pub(crate) struct Entries(pub(crate) Cells);

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
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    entries.push((name, json_cell(value)));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The object on one line.
pub(crate) fn entries(file: &Path, line: u64, text: &str) -> Result<Cells, ReadError> {
    serde_json::from_str::<Entries>(text).map(|entries| entries.0).map_err(|error| {
        let column = (error.column() > 0).then_some(error.column() as u64);
        ReadError::new(file, Place::Line { line, column }, json_message(&error))
    })
}

pub(crate) struct JsonLines {
    file: PathBuf,
    lines: Lines,
}

impl JsonLines {
    pub(crate) fn new(file: &Path, stream: Stream) -> Result<Self, ReadError> {
        Ok(Self { file: file.to_owned(), lines: Lines::new(file, stream)? })
    }
}

impl Iterator for JsonLines {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, text) = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if !text.trim().is_empty() {
                let record = entries(&self.file, line, &text);
                return Some(record.map(|cells| Record { place: Place::line(line), cells }));
            }
        }
    }
}
