//! Parquet with columns of the rows' names: texts, numbers for labels and ids, lists of texts for choices.

mod bounded;
mod header;

use crate::columns::Columns;
use crate::error::{Place, ReadError};
use crate::row::{Cell, Record};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row, reader::RowIter};
use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub(crate) struct ParquetRows {
    file: PathBuf,
    rows: RowIter<'static>,
    /// Rows of each row group.
    groups: Vec<u64>,
    row: u64,
    ended: bool,
}

impl ParquetRows {
    /// Reads the schema.
    pub(crate) fn new(path: &Path, file: File, columns: &Columns) -> Result<Self, Vec<ReadError>> {
        let one = |message: String| vec![ReadError::new(path, Place::File, message)];
        let begins = begins(&file).map_err(|error| vec![ReadError::io(path, &error)])?;
        if begins.is_empty() {
            return Err(one("is empty: it must hold at least one row".to_owned()));
        }
        if begins != *MAGIC {
            let message = "is not a readable Parquet file, which begins with PAR1: is it JSON Lines or CSV?";
            return Err(one(message.to_owned()));
        }
        let pages = file.try_clone().map_err(|error| vec![ReadError::io(path, &error)])?;
        let reader = guarded(|| SerializedFileReader::new(file))
            .map_err(|failure| one(format!("is not a readable Parquet file: {}", failure.words())))?;
        let schema = reader.metadata().file_metadata().schema();
        let names: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).collect();
        let mistakes = columns.of_header(&names);
        if !mistakes.is_empty() {
            let of = |violation| ReadError::of(path, Place::File, violation);
            return Err(mistakes.into_iter().map(of).collect());
        }
        let groups =
            reader.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs()).collect();
        let rows = bounded::rows(reader, pages);
        Ok(Self { file: path.to_owned(), rows, groups, row: 0, ended: false })
    }

    /// How many rows there are.
    pub(crate) fn total(&self) -> u64 {
        self.groups.iter().sum()
    }

    /// Where the present row stands.
    fn place(&self) -> Place {
        let mut before = 0;
        let group = self.groups.iter().position(|rows| {
            before += rows;
            self.row <= before
        });
        Place::Row { group: group.unwrap_or(self.groups.len()) as u64 + 1, row: self.row }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.row += 1;
        match guarded(|| self.rows.next().transpose()) {
            Ok(None) => None,
            Ok(Some(row)) => Some(Ok(Record { place: self.place(), cells: cells(row) })),
            Err(failure) => {
                self.ended = true;
                let message = match &failure {
                    Failure::TooLarge(_) => format!("cannot be read: {}", failure.words()),
                    Failure::NotKnown(_) => format!("cannot be read: {}; {ANEW}", failure.words()),
                    Failure::Damaged(_) => {
                        format!("cannot be read, the file is damaged: {}", failure.words())
                    }
                };
                Some(Err(ReadError::new(&self.file, self.place(), message)))
            }
        }
    }
}

/// What every Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";
/// How a file is made that can be read.
const ANEW: &str = "write it anew, `df.to_parquet(f, compression=\"zstd\")`";

/// The first bytes of a file, from which it is read from the start all the same.
fn begins(file: &File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    let mut file = file;
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

/// Why a file cannot be read.
enum Failure {
    /// It is sound, and uses what is not read here.
    NotKnown(String),
    /// It asks for more memory than one row may.
    TooLarge(String),
    /// It breaks the rules of the format.
    Damaged(String),
}

impl Failure {
    fn words(&self) -> &str {
        match self {
            Self::TooLarge(words) | Self::NotKnown(words) | Self::Damaged(words) => words,
        }
    }
}

/// The reader of damaged files must not take the process with it: the crate asserts where it should return an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(ParquetError::External(error))) if error.is::<bounded::TooLarge>() => {
            Err(Failure::TooLarge(error.to_string()))
        }
        Ok(Err(ParquetError::NYI(words))) => Err(Failure::NotKnown(words)),
        Ok(Err(error)) => Err(Failure::Damaged(error.to_string())),
        Err(_) => Err(Failure::Damaged("its structure contradicts itself".to_owned())),
    }
}

fn cells(row: Row) -> Vec<(String, Cell)> {
    row.into_columns().into_iter().map(|(name, field)| (name, cell(&field))).collect()
}

fn cell(field: &Field) -> Cell {
    match field {
        Field::Null => Cell::Null,
        Field::Str(text) => Cell::Text(text.clone()),
        // Older writers do not say that their bytes are text.
        Field::Bytes(bytes) => match str::from_utf8(bytes.data()) {
            Ok(text) => Cell::Text(text.to_owned()),
            Err(_) => Cell::Other("bytes that are no UTF-8"),
        },
        Field::ListInternal(list) => Cell::List(list.elements().iter().map(cell).collect()),
        Field::Bool(truth) => Cell::Bare(truth.to_string()),
        Field::Byte(number) => Cell::Bare(number.to_string()),
        Field::Short(number) => Cell::Bare(number.to_string()),
        Field::Int(number) => Cell::Bare(number.to_string()),
        Field::Long(number) => Cell::Bare(number.to_string()),
        Field::UByte(number) => Cell::Bare(number.to_string()),
        Field::UShort(number) => Cell::Bare(number.to_string()),
        Field::UInt(number) => Cell::Bare(number.to_string()),
        Field::ULong(number) => Cell::Bare(number.to_string()),
        // pandas has no other word for what is absent in a column of numbers.
        Field::Float16(number) if number.is_nan() => Cell::Null,
        Field::Float(number) if number.is_nan() => Cell::Null,
        Field::Double(number) if number.is_nan() => Cell::Null,
        Field::Float16(number) => Cell::Bare(number.to_string()),
        Field::Float(number) => Cell::Bare(number.to_string()),
        Field::Double(number) => Cell::Bare(number.to_string()),
        Field::Decimal(_) => Cell::Bare(field.to_string()),
        Field::Group(_) | Field::MapInternal(_) => Cell::Other("a structure"),
        _ => Cell::Other("a date or a time"),
    }
}
