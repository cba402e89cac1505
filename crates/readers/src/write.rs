//! Rows written out, in the formats that they are read in.

use crate::Format;
use crate::row::FIELDS;
use domain::{Answer, Example};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of one Parquet row group.
const GROUP_ROWS: usize = 4096;
/// Bytes of one Parquet row group, about: long rows make it shorter.
const GROUP_BYTES: usize = 32 * 1024 * 1024;

const SCHEMA: &str = "message row {
    OPTIONAL BYTE_ARRAY id (STRING);
    OPTIONAL BYTE_ARRAY split (STRING);
    OPTIONAL BYTE_ARRAY input (STRING);
    OPTIONAL GROUP choices (LIST) { REPEATED GROUP list { REQUIRED BYTE_ARRAY element (STRING); } }
    OPTIONAL BYTE_ARRAY premise (STRING);
    OPTIONAL BYTE_ARRAY hypothesis (STRING);
    OPTIONAL BYTE_ARRAY label (STRING);
    OPTIONAL BYTE_ARRAY rationale (STRING);
}";

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {message}", file.display())]
pub struct WriteError {
    /// The file; `-` for a stream.
    pub file: PathBuf,
    /// The message of the operating system or the format.
    pub message: String,
}

/// Where bytes go.
type Sink = Box<dyn Write + Send>;

/// Writes rows one by one. A file appears under its name only when [`Writer::finish`] has been called; before that its
/// rows are written next to it, under the name with `.part` appended, and go when the writer is dropped.
///
/// A row's `rationale` is its first [`Answer::Rationale`]; raw completions are the ledger's, and not written.
pub struct Writer {
    file: PathBuf,
    part: Option<Part>,
    inner: Inner,
}

enum Inner {
    Jsonl(Sink),
    Csv(Box<csv::Writer<Sink>>),
    Parquet(Box<Columns>),
}

impl Writer {
    /// A writer of the file `path`, which is replaced where it exists.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(format: Format, path: &Path) -> Result<Self, WriteError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = Part(PathBuf::from(name));
        let file = File::create(&part.0).map_err(|error| failure(path, &error))?;
        let sink = Box::new(BufWriter::new(file));
        Ok(Self { part: Some(part), ..Self::open(format, path, sink)? })
    }

    /// A writer to a stream such as standard output.
    ///
    /// # Errors
    /// The format's beginning cannot be written.
    pub fn to_stream(format: Format, sink: Sink) -> Result<Self, WriteError> {
        Self::open(format, Path::new("-"), sink)
    }

    fn open(format: Format, path: &Path, sink: Sink) -> Result<Self, WriteError> {
        let inner = match format {
            Format::Jsonl => Inner::Jsonl(sink),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(sink);
                writer.write_record(FIELDS).map_err(|error| failure(path, &error))?;
                Inner::Csv(Box::new(writer))
            }
            Format::Parquet => {
                Inner::Parquet(Box::new(Columns::new(sink).map_err(|error| failure(path, &error))?))
            }
        };
        Ok(Self { file: path.to_owned(), part: None, inner })
    }

    /// Writes one row.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn write(&mut self, example: &Example) -> Result<(), WriteError> {
        let file = &self.file;
        match &mut self.inner {
            Inner::Jsonl(sink) => {
                writeln!(sink, "{}", Value::Object(object(example))).map_err(|error| failure(file, &error))
            }
            Inner::Csv(writer) => {
                let texts = Texts::of(example);
                let choices = if example.choices.is_empty() {
                    String::new()
                } else {
                    Value::from(example.choices.clone()).to_string()
                };
                let cells = FIELDS.iter().map(|field| match *field {
                    "choices" => choices.as_str(),
                    name => texts.get(name).unwrap_or_default(),
                });
                writer.write_record(cells).map_err(|error| failure(file, &error))
            }
            Inner::Parquet(columns) => columns.push(example).map_err(|error| failure(file, &error)),
        }
    }

    /// Writes what is left, and gives the file its name.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn finish(self) -> Result<(), WriteError> {
        let Self { file, part, inner } = self;
        match inner {
            Inner::Jsonl(mut sink) => sink.flush().map_err(|error| failure(&file, &error))?,
            Inner::Csv(mut writer) => writer.flush().map_err(|error| failure(&file, &error))?,
            Inner::Parquet(columns) => columns.finish().map_err(|error| failure(&file, &error))?,
        }
        match part {
            Some(part) => std::fs::rename(&part.0, &file).map_err(|error| failure(&file, &error)),
            None => Ok(()),
        }
    }
}

fn failure(file: &Path, error: &dyn std::error::Error) -> WriteError {
    WriteError { file: file.to_owned(), message: error.to_string() }
}

/// A file that is not finished; gone when dropped.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // After `finish` it has its own name, and there is nothing left to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The fields of a row that are plain text.
struct Texts<'a>(&'a Example);

impl<'a> Texts<'a> {
    fn of(example: &'a Example) -> Self {
        Self(example)
    }

    fn get(&self, field: &str) -> Option<&'a str> {
        match field {
            "id" => self.0.key.as_deref(),
            "split" => Some(self.0.split.as_str()),
            "input" => Some(self.0.input.as_str()).filter(|input| !input.is_empty()),
            "premise" => self.0.premise.as_deref(),
            "hypothesis" => self.0.hypothesis.as_deref(),
            "label" => self.0.label.as_deref(),
            "rationale" => self.0.answers.iter().find_map(|answer| match answer {
                Answer::Rationale { text, .. } => Some(text.as_str()),
                Answer::Completion { .. } => None,
            }),
            _ => None,
        }
    }
}

fn object(example: &Example) -> Map<String, Value> {
    let texts = Texts::of(example);
    let value = |field: &str| match field {
        "choices" => (!example.choices.is_empty()).then(|| Value::from(example.choices.clone())),
        name => texts.get(name).map(Value::from),
    };
    FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), value(field)?))).collect()
}

/// Rows gathered into a Parquet row group.
struct Columns {
    writer: SerializedFileWriter<Sink>,
    rows: Vec<Example>,
    bytes: usize,
}

impl Columns {
    fn new(sink: Sink) -> Result<Self, ParquetError> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = SerializedFileWriter::new(sink, schema, Arc::new(properties))?;
        Ok(Self { writer, rows: Vec::new(), bytes: 0 })
    }

    fn push(&mut self, example: &Example) -> Result<(), ParquetError> {
        let texts = Texts::of(example);
        self.bytes += FIELDS.iter().filter_map(|field| texts.get(field)).map(str::len).sum::<usize>();
        self.bytes += example.choices.iter().map(String::len).sum::<usize>();
        self.rows.push(example.clone());
        if self.rows.len() < GROUP_ROWS && self.bytes < GROUP_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for field in FIELDS {
            match *field {
                "choices" => write_choices(&mut group, &self.rows)?,
                name => write_texts(&mut group, &self.rows, name)?,
            }
        }
        group.close()?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(), ParquetError> {
        self.flush()?;
        self.writer.finish()?;
        Ok(self.writer.inner_mut().flush()?)
    }
}

fn write_texts(
    group: &mut SerializedRowGroupWriter<'_, Sink>,
    rows: &[Example],
    field: &str,
) -> Result<(), ParquetError> {
    let cells: Vec<Option<&str>> = rows.iter().map(|row| Texts::of(row).get(field)).collect();
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<ByteArray> = cells.into_iter().flatten().map(ByteArray::from).collect();
    write_column(group, &values, &levels, None)
}

/// Definition levels: 0 no list, 2 an element. Repetition levels: 0 begins a row, 1 continues its list.
fn write_choices(
    group: &mut SerializedRowGroupWriter<'_, Sink>,
    rows: &[Example],
) -> Result<(), ParquetError> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if row.choices.is_empty() {
            definitions.push(0);
            repetitions.push(0);
        }
        for (place, choice) in row.choices.iter().enumerate() {
            values.push(ByteArray::from(choice.as_str()));
            definitions.push(2);
            repetitions.push(i16::from(place > 0));
        }
    }
    write_column(group, &values, &definitions, Some(&repetitions))
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, Sink>,
    values: &[ByteArray],
    definitions: &[i16],
    repetitions: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has too few columns".to_owned()));
    };
    column.typed::<ByteArrayType>().write_batch(values, Some(definitions), repetitions)?;
    column.close()
}
