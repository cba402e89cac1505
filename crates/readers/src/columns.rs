//! Which column of a file is which field of a row: one mapping for every format.

use crate::error::{Place, ReadError};
use crate::row::{Cell, Cells, FIELDS, Record, is_index, shown, unknown};
use domain::Violation;
use domain::spec::suggestion;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Most columns of a file.
pub const COLUMNS_MAX: usize = 4_096;
/// Columns that a message names.
const NAMED_MAX: usize = 12;
/// Rows after which a column of texts that stood in none of them is missed.
const AHEAD_ROWS: u64 = 512;

/// Which column of a file is which field of a row. A field that is not mapped is read from the column of its own name, where
/// there is one; where any field is mapped, every other column is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    mapped: Vec<(&'static str, String)>,
    /// Whether every column stays what it is: for a look at a file that is not known.
    any: bool,
}

impl Columns {
    /// A mapping of pairs of field and column.
    ///
    /// # Errors
    /// Every mistake, by field (`columns.label`): an unknown field, one that is mapped twice, a column of two fields.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<Violation>> {
        let (mut mapped, mut found) = (Vec::<(&'static str, String)>::new(), Vec::new());
        for (field, column) in pairs {
            let name = format!("columns.{}", shown(&field));
            let mut refuse = |message: String| found.push(Violation::new(name.as_str(), message));
            let Some(known) = FIELDS.iter().copied().find(|known| *known == field) else {
                refuse(unknown(&field).message);
                continue;
            };
            if column.trim().is_empty() {
                refuse("is empty: name a column of the file".to_owned());
            } else if mapped.iter().any(|(other, _)| *other == known) {
                refuse("is given twice: one field is one column".to_owned());
            } else if let Some((other, _)) = mapped.iter().find(|(_, known)| *known == column) {
                let column = shown(&column);
                refuse(format!("is column `{column}`, as is `{other}`: one column is one field"));
            } else {
                mapped.push((known, column));
            }
        }
        if found.is_empty() { Ok(Self { mapped, any: false }) } else { Err(found) }
    }

    /// Every column under its own name.
    pub(crate) fn any() -> Self {
        Self { mapped: Vec::new(), any: true }
    }

    /// Whether fields are read under their own names alone.
    pub fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    /// Field and column of each that is mapped.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.mapped.iter().map(|(field, column)| (*field, column.as_str()))
    }

    /// The field that a column holds; `None` for one that is passed over.
    pub(crate) fn field_of<'a>(&'a self, column: &'a str) -> Option<&'a str> {
        if self.is_empty() {
            return Some(column);
        }
        let mapped = self.mapped.iter().find(|(_, known)| known == column).map(|(field, _)| *field);
        let is_own = FIELDS.contains(&column) && !self.mapped.iter().any(|(field, _)| *field == column);
        mapped.or(is_own.then_some(column))
    }

    /// Whether a column holds the choices.
    pub(crate) fn is_choices(&self, column: &str) -> bool {
        !self.any && self.field_of(column) == Some("choices")
    }

    /// How a message names a field: with its column, where that has another name.
    pub(crate) fn shown(&self, field: String) -> String {
        let name = field.split('[').next().unwrap_or_default();
        match self.mapped.iter().find(|(known, column)| *known == name && column != name) {
            Some((_, column)) => format!("{field} (column `{}`)", shown(column)),
            None => field,
        }
    }

    /// What is wrong with the names of a file's columns.
    pub(crate) fn of_header(&self, names: &[&str]) -> Vec<Violation> {
        if names.len() > COLUMNS_MAX {
            let message = format!(
                "names {} columns, and at most {COLUMNS_MAX} are read: keep those that are fields of a row",
                names.len()
            );
            return vec![Violation::new("header", message)];
        }
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for (place, name) in names.iter().copied().enumerate() {
            let is_read = self.any || self.field_of(name).is_some();
            if is_read && !is_index(name) && !seen.insert(name) {
                found.push(Violation::new(shown(name), "names two columns: remove one of them"));
            } else if self.is_empty() && !self.any && name.is_empty() && place > 0 {
                let message = format!("has no name for column {}: name it, or remove it", place + 1);
                found.push(Violation::new("header", message));
            } else if self.is_empty() && !self.any && !FIELDS.contains(&name) && !is_index(name) {
                found.push(unknown(name));
            }
        }
        let absent = self.mapped.iter().filter(|(_, column)| !names.contains(&column.as_str()));
        found.extend(absent.map(|(field, column)| is_absent(field, column, names)));
        found
    }

    fn take(&self, cells: Cells) -> Cells {
        if self.is_empty() {
            return cells;
        }
        let taken = |(name, cell): (String, Cell)| self.field_of(&name).map(|field| (field.to_owned(), cell));
        cells.into_iter().filter_map(taken).collect()
    }
}

fn is_absent(field: &str, column: &str, names: &[&str]) -> Violation {
    let near = suggestion(column, names.iter().copied().filter(|name| !name.is_empty()));
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{}`?", shown(near)));
    let mut there: Vec<String> = names.iter().take(NAMED_MAX).map(|name| shown(name)).collect();
    if names.len() > there.len() {
        there.push(format!("and {} more", names.len() - there.len()));
    }
    let (column, there) = (shown(column), there.join(", "));
    Violation::new(
        format!("columns.{field}"),
        format!("there is no column `{column}`: the columns are {there}{near}"),
    )
}

/// Records whose cells are fields of a row.
pub(crate) struct Mapped<I> {
    file: PathBuf,
    records: I,
    columns: Columns,
    /// Where rows name their own columns: what they named so far.
    named: Option<Named>,
}

/// The columns of rows that name them one by one.
#[derive(Default)]
struct Named {
    rows: u64,
    /// The first of them, for a message.
    names: Vec<String>,
    /// Mapped columns that stood in a row.
    found: HashSet<&'static str>,
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Mapped<I> {
    /// `has_header`: the columns are known before the first row, and were looked at.
    pub(crate) fn new(file: &Path, records: I, columns: &Columns, has_header: bool) -> Self {
        let named = (!has_header && !columns.is_empty()).then(Named::default);
        Self { file: file.to_owned(), records, columns: columns.clone(), named }
    }

    /// Notes the columns of a row.
    fn note(&mut self, record: &Record) -> Option<ReadError> {
        let named = self.named.as_mut()?;
        named.rows += 1;
        for (name, _) in &record.cells {
            if named.names.len() <= NAMED_MAX && !named.names.contains(name) {
                named.names.push(name.clone());
            }
            if let Some((field, _)) = self.columns.mapped.iter().find(|(_, column)| column == name) {
                named.found.insert(field);
            }
        }
        (named.rows == AHEAD_ROWS).then(|| self.missed(&["input", "premise", "hypothesis"])).flatten()
    }

    /// The first mapped column of these fields that no row had.
    fn missed(&mut self, fields: &[&str]) -> Option<ReadError> {
        let named = self.named.as_mut().filter(|named| named.rows > 0)?;
        let mut mapped = self.columns.mapped.iter();
        let (field, column) =
            mapped.find(|(field, _)| fields.contains(field) && !named.found.contains(field))?;
        named.found.insert(field);
        let names: Vec<&str> = named.names.iter().map(String::as_str).collect();
        Some(ReadError::of(&self.file, Place::File, is_absent(field, column, &names)))
    }
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Iterator for Mapped<I> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.records.next() {
            None => self.missed(FIELDS).map(Err),
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(record)) => match self.note(&record) {
                Some(missed) => Some(Err(missed)),
                None => Some(Ok(Record { place: record.place, cells: self.columns.take(record.cells) })),
            },
        }
    }
}
