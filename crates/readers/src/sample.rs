//! The first rows of a file whose columns are not known: what a person, or a program for one, looks at to tell what they are.

use crate::columns::{COLUMNS_MAX, Columns};
use crate::error::{Place, ReadError, ReadErrors};
use crate::parquet::ParquetRows;
use crate::row::{Cell, Record, is_index, json_cells};
use crate::rows::records;
use crate::text::open;
use crate::{Format, Source};
use std::collections::HashMap;
use std::path::Path;

/// Most bytes of cells that are held.
const SAMPLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Absent,
    /// A text; in CSV every cell is one.
    Text(String),
    /// A number or a truth value, as it is written.
    Number(String),
    /// A list of texts or numbers; in CSV a cell with a JSON array.
    List(Vec<String>),
    /// Anything else.
    Other,
}

impl Value {
    fn of(cell: Cell, is_csv: bool) -> Self {
        match cell {
            Cell::Null => Self::Absent,
            Cell::Text(text) if is_csv && text.starts_with('[') => match json_cells(&text) {
                Ok(list @ Cell::List(_)) => Self::of(list, false),
                _ => Self::Text(text),
            },
            Cell::Text(text) => Self::Text(text),
            Cell::Bare(text) => Self::Number(text),
            Cell::List(items) => {
                let text = |item| match item {
                    Cell::Text(text) | Cell::Bare(text) => Some(text),
                    Cell::Null | Cell::List(_) | Cell::Other(_) => None,
                };
                items.into_iter().map(text).collect::<Option<_>>().map_or(Self::Other, Self::List)
            }
            Cell::Other(_) => Self::Other,
        }
    }

    /// Its text, where it has one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Absent | Self::List(_) | Self::Other => None,
        }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledColumn {
    /// Its name in the file.
    pub name: String,
    /// Its cells, one for each row of the sample.
    pub cells: Vec<Value>,
}

/// The first rows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The columns, in the order of the file; an index that a table brought along is none of them.
    pub columns: Vec<SampledColumn>,
    /// Rows that were read.
    pub rows: usize,
    /// Whether these are all.
    pub is_whole: bool,
    /// About how many rows the file has.
    pub rows_about: u64,
}

impl Sample {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&SampledColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Reads at most `rows_max` rows.
///
/// # Errors
/// The file cannot be read, is no table, has too many columns, or has no row.
pub fn sample(path: &Path, format: Format, rows_max: usize) -> Result<Sample, ReadErrors> {
    let source = Source { path: path.to_owned(), format, split: None };
    let several = |mistakes| ReadErrors { mistakes, more: false };
    let records = records(&source, None, &Columns::any()).map_err(several)?;
    let mut gathered = Gathered { is_csv: format == Format::Csv, ..Gathered::default() };
    let mut is_whole = true;
    for record in records {
        if gathered.rows >= rows_max || gathered.bytes >= SAMPLE_BYTES_MAX {
            is_whole = false;
            break;
        }
        gathered.push(path, record?)?;
    }
    if gathered.rows == 0 {
        let message = "is empty: it must hold at least one row";
        return Err(ReadError::new(path, Place::File, message).into());
    }
    let rows_about =
        if is_whole { gathered.rows as u64 } else { rows_about(path, format, &gathered).map_err(several)? };
    let Gathered { columns, rows, .. } = gathered;
    Ok(Sample { columns, rows, is_whole, rows_about })
}

/// By the rows that were read: their share of the file's bytes, or what the file says itself.
fn rows_about(path: &Path, format: Format, read: &Gathered) -> Result<u64, Vec<ReadError>> {
    let file = open(path).map_err(|error| vec![error])?;
    if format == Format::Parquet {
        return Ok(ParquetRows::new(path, file, &Columns::any())?.total());
    }
    let bytes = file.metadata().map_err(|error| vec![ReadError::io(path, &error)])?.len();
    let about = u128::from(bytes) * read.rows as u128 / u128::from(read.bytes.max(1));
    Ok(u64::try_from(about).unwrap_or(u64::MAX).max(read.rows as u64))
}

#[derive(Default)]
struct Gathered {
    columns: Vec<SampledColumn>,
    places: HashMap<String, usize>,
    rows: usize,
    bytes: u64,
    is_csv: bool,
}

impl Gathered {
    fn push(&mut self, path: &Path, record: Record) -> Result<(), ReadError> {
        for (name, cell) in record.cells {
            if is_index(&name) {
                continue;
            }
            let place = *self.places.entry(name).or_insert_with_key(|name| {
                let cells = vec![Value::Absent; self.rows];
                self.columns.push(SampledColumn { name: name.clone(), cells });
                self.columns.len() - 1
            });
            if self.columns.len() > COLUMNS_MAX {
                let message =
                    format!("has more than {COLUMNS_MAX} columns: keep those that are fields of a row");
                return Err(ReadError::new(path, record.place, message));
            }
            if let Some(column) = self.columns.get_mut(place) {
                let value = Value::of(cell, self.is_csv);
                // With what separates it from the next one, and in JSON its name.
                let name = if self.is_csv { 1 } else { column.name.len() + 6 };
                self.bytes += (size(&value) + name) as u64;
                column.cells.truncate(self.rows);
                column.cells.push(value);
            }
        }
        self.rows += 1;
        for column in &mut self.columns {
            column.cells.resize(self.rows, Value::Absent);
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Absent | Value::Other => 0,
        Value::Text(text) | Value::Number(text) => text.len(),
        Value::List(items) => items.iter().map(|item| item.len() + 4).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8], rows_max: usize) -> Result<Sample, ReadErrors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        sample(&path, Format::of(&path).unwrap(), rows_max)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn columns_of_any_name_are_read_as_they_are() {
        let found = read("r.csv", b",text,opts\n0,a,\"[\"\"x\"\",2]\"\n1,,[no\n", 9).unwrap();
        assert_eq!((found.rows, found.is_whole, found.rows_about), (2, true, 2));
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["text", "opts"]);
        assert_eq!(found.column("text").unwrap().cells, [text("a"), Value::Absent]);
        let list = Value::List(vec!["x".into(), "2".into()]);
        assert_eq!(found.column("opts").unwrap().cells, [list, text("[no")]);
    }

    #[test]
    fn rows_of_json_name_their_own_columns() {
        let found = read("r.jsonl", b"{\"a\": 1.50}\n{\"b\": {\"c\": 1}, \"a\": \"x\"}\n{}\n", 9).unwrap();
        assert_eq!(
            found.column("a").unwrap().cells,
            [Value::Number("1.50".into()), text("x"), Value::Absent]
        );
        assert_eq!(found.column("b").unwrap().cells, [Value::Absent, Value::Other, Value::Absent]);
    }

    #[test]
    fn parquet_counts_its_own_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.parquet");
        let mut writer = crate::Writer::create(Format::Parquet, &path).unwrap();
        for row in 0..500 {
            let choices = vec!["a".to_owned(), "b".to_owned()];
            let example =
                domain::Example { input: format!("row {row}"), choices, ..domain::Example::default() };
            writer.write(&example).unwrap();
        }
        writer.finish().unwrap();
        let found = sample(&path, Format::Parquet, 7).unwrap();
        assert_eq!((found.rows, found.is_whole, found.rows_about), (7, false, 500));
        assert_eq!(found.column("input").unwrap().cells[6], text("row 6"));
        assert_eq!(found.column("choices").unwrap().cells[0], Value::List(vec!["a".into(), "b".into()]));
        assert_eq!(found.column("label").unwrap().cells, vec![Value::Absent; 7]);
    }

    #[test]
    fn no_more_is_read_than_asked_for() {
        let mut rows = "text,mark\n".to_owned();
        (0..1_000).for_each(|row| rows.push_str(&format!("the text of row {row:04},good\n")));
        // The last row is broken, and is not read.
        rows.push_str("one field\n");
        let found = read("r.csv", rows.as_bytes(), 100).unwrap();
        assert_eq!((found.rows, found.is_whole), (100, false));
        assert!((990..1_020).contains(&found.rows_about), "{}", found.rows_about);
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let check = |name: &str, bytes: &[u8], wanted: &str| {
            let error = read(name, bytes, 100).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
        };
        check("r.csv", b"", "r.csv: is empty");
        check("r.csv", b"text,label\n", "r.csv: is empty");
        check("r.csv", b"text,label\ncaf\xe9,x\n", "r.csv:2: text: is not UTF-8");
        check("r.csv", b"a,a\n1,2\n", "r.csv:1: a: names two columns");
        let many: Vec<String> = (0..100_000).map(|column| format!("c{column}")).collect();
        check("r.csv", many.join(",").as_bytes(), "r.csv:1: header: names 100000 columns, and at most 4096");
        let keys: Vec<String> = (0..5_000).map(|key| format!("\"k{key}\":1")).collect();
        check(
            "r.jsonl",
            format!("{{{}}}", keys.join(",")).as_bytes(),
            "r.jsonl:1: has more than 4096 columns",
        );
    }
}
