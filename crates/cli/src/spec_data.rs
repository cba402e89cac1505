//! `[data]` of a specification: which files the rows come from, which column is which field, and what is held out.

use crate::known_keys::{kind, unknown_keys};
use domain::holdout::Shares;
use domain::{Split, Violation};
use readers::{Columns, Format};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Where the rows come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// An imported dataset, by name.
    Imported(String),
    /// Files.
    Files(Files),
}

/// Files of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Each with the split its rows belong to (`None`: the rows say so themselves).
    pub(crate) files: Vec<(Option<Split>, PathBuf)>,
    /// Which column of all of them is which field.
    pub(crate) columns: Columns,
    /// How many of the train rows are held out.
    pub(crate) shares: Option<Shares>,
}

/// Keys that name what the rows come from.
const SOURCES: [&str; 5] = ["dataset", "file", "train", "validation", "test"];
const COLUMNS: &str = "columns";
const VALIDATION_SHARE: &str = "validation_share";
const TEST_SHARE: &str = "test_share";
const SPLIT_SEED: &str = "split_seed";

/// Reads `[data]`; paths are relative to `folder`, and `is_there` says which files are. Returns what it says, where it says
/// enough, and every mistake, by field.
pub(crate) fn read(
    section: Option<&Value>,
    folder: &Path,
    is_there: &dyn Fn(&Path) -> bool,
) -> (Option<Data>, Vec<Violation>) {
    let table = match section {
        Some(Value::Table(table)) => table,
        other => {
            let what = other.map_or_else(|| "is missing".to_owned(), |other| format!("is {}", kind(other)));
            let words = format!("{what}: add [data] with `train = \"...\"` or `dataset = \"...\"`");
            return (None, vec![Violation::new("data", words)]);
        }
    };
    let mut reader = Reader { table, found: Vec::new() };
    let data = reader.data(folder, is_there);
    (data, reader.found)
}

struct Reader<'a> {
    table: &'a Table,
    found: Vec<Violation>,
}

impl Reader<'_> {
    fn data(&mut self, folder: &Path, is_there: &dyn Fn(&Path) -> bool) -> Option<Data> {
        let known: Vec<&str> =
            SOURCES.into_iter().chain([COLUMNS, VALIDATION_SHARE, TEST_SHARE, SPLIT_SEED]).collect();
        self.found.extend(unknown_keys(self.table, "data.", &known));
        let given: Vec<(&str, String)> =
            SOURCES.into_iter().filter_map(|key| self.text(key).map(|text| (key, text))).collect();
        let (columns, shares) = (self.columns(), self.shares());
        if let Some((_, name)) = given.iter().find(|(key, _)| *key == "dataset") {
            let others = known.iter().filter(|key| **key != "dataset" && self.table.contains_key(**key));
            if others.count() > 0 {
                let words =
                    "names an imported dataset, which brings its own splits: remove the other keys of [data]";
                self.refuse("dataset", words);
            }
            return Some(Data::Imported(name.clone()));
        }
        if !given.iter().any(|(key, _)| matches!(*key, "train" | "file")) {
            let words = "has no train rows: add `train = \"rows.jsonl\"` or `file = ...`";
            self.found.push(Violation::new("data", words));
            return None;
        }
        for (key, file) in &given {
            let path = folder.join(file);
            // A name of no format is told of where it is read.
            if Format::of(&path).is_some() && !is_there(&path) {
                let words = if path.exists() { "is no file" } else { "does not exist" };
                self.refuse(key, format!("{} {words}: check the path", path.display()));
            }
        }
        let files = given.iter().map(|(key, file)| (key.parse().ok(), folder.join(file))).collect();
        Some(Data::Files(Files { files, columns, shares }))
    }

    fn refuse(&mut self, key: &str, words: impl Into<String>) {
        self.found.push(Violation::new(format!("data.{key}"), words));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.refuse(key, format!("must be a string, and is {}", kind(other)));
                None
            }
        }
    }

    fn columns(&mut self) -> Columns {
        let pairs = match self.table.get(COLUMNS) {
            None => return Columns::default(),
            Some(Value::Table(pairs)) => pairs,
            Some(other) => {
                let words = format!(
                    "must be a table of fields and columns, such as {{ input = \"text\" }}, and is {}",
                    kind(other)
                );
                self.refuse(COLUMNS, words);
                return Columns::default();
            }
        };
        let mut texts = Vec::new();
        for (field, column) in pairs {
            match column {
                Value::String(column) => texts.push((field.clone(), column.clone())),
                other => {
                    let words = format!("must be the name of a column, and is {}", kind(other));
                    self.refuse(&format!("{COLUMNS}.{field}"), words);
                }
            }
        }
        Columns::new(texts).unwrap_or_else(|violations| {
            violations.into_iter().for_each(|violation| self.refuse(&violation.field, violation.message));
            Columns::default()
        })
    }

    fn shares(&mut self) -> Option<Shares> {
        let validation = self.share(VALIDATION_SHARE, "validation");
        let test = self.share(TEST_SHARE, "test");
        let seed = match self.table.get(SPLIT_SEED) {
            None => 0,
            Some(Value::Integer(seed)) if *seed >= 0 => seed.unsigned_abs(),
            Some(_) => {
                self.refuse(SPLIT_SEED, "must be an integer from 0");
                0
            }
        };
        let is_seeded = self.table.contains_key(SPLIT_SEED);
        if is_seeded && !self.table.contains_key(VALIDATION_SHARE) && !self.table.contains_key(TEST_SHARE) {
            let words = format!("only makes sense with `data.{VALIDATION_SHARE}` or `data.{TEST_SHARE}`");
            self.refuse(SPLIT_SEED, words);
        }
        if validation.is_none() && test.is_none() {
            return None;
        }
        let shares = Shares::new(validation, test, seed);
        shares.map_err(|found| found.into_iter().for_each(|one| self.refuse(&one.field, one.message))).ok()
    }

    /// A share, which holds out rows for the split that has no file of its own.
    fn share(&mut self, key: &str, file: &str) -> Option<f64> {
        let share = match self.table.get(key)? {
            Value::Float(share) => Some(*share),
            Value::Integer(share) => Some(*share as f64),
            other => {
                self.refuse(key, format!("must be a number, and is {}", kind(other)));
                None
            }
        };
        if self.table.contains_key(file) {
            self.refuse(
                key,
                format!("contradicts `data.{file}`, which names these rows: remove one of them"),
            );
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) -> Option<Data> {
        let table: Table = text.parse().unwrap();
        let (data, found) = read(Some(&Value::Table(table)), Path::new("folder"), &|_| true);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
        for (found, wanted) in found.iter().zip(expected) {
            assert!(found.starts_with(wanted), "{text}: wanted {wanted:?} in {found:?}");
        }
        data
    }

    #[test]
    fn columns_and_shares_are_read() {
        let text = "train = \"r.csv\"\ncolumns = { input = \"text\", label = \"mood\" }\ntest_share = 0.2\n\
            validation_share = 0.1\nsplit_seed = 7";
        let Some(Data::Files(files)) = check(text, &[]) else { panic!() };
        assert_eq!(files.files, [(Some(Split::Train), PathBuf::from("folder/r.csv"))]);
        assert_eq!(files.columns.pairs().collect::<Vec<_>>(), [("input", "text"), ("label", "mood")]);
        assert_eq!(files.shares, Shares::new(Some(0.1), Some(0.2), 7).ok());
        let Some(Data::Files(files)) = check("file = \"r.csv\"", &[]) else { panic!() };
        assert_eq!((files.columns, files.shares), (Columns::default(), None));
    }

    #[test]
    fn every_mistake_is_named_by_field() {
        let with = |more: &str, expected: &[&str]| check(&format!("train = \"r.csv\"\n{more}"), expected);
        with("columns = \"text\"", &["data.columns: must be a table of fields and columns"]);
        with(
            "columns = { input = 3 }",
            &["data.columns.input: must be the name of a column, and is an integer"],
        );
        with(
            "columns = { lable = \"mood\" }",
            &["data.columns.lable: is not a field of a row: did you mean `label`?"],
        );
        with(
            "columns = { input = \"text\", label = \"text\" }",
            &["data.columns.label: is column `text`, as is `input`: one column is one field"],
        );
        with("test_share = 1.0", &["data.test_share: is 1: it must be above 0 and below 1"]);
        with("test_share = 0", &["data.test_share: is 0: it must be above 0"]);
        with("test_share = \"many\"", &["data.test_share: must be a number, and is a string"]);
        with(
            "test_share = 0.5\nvalidation_share = 0.5",
            &["data.test_share: leaves no train row together with `validation_share`"],
        );
        with("test = \"t.csv\"\ntest_share = 0.2", &["data.test_share: contradicts `data.test`"]);
        with(
            "validation = \"v.csv\"\nvalidation_share = 0.2",
            &["data.validation_share: contradicts `data.validation`"],
        );
        with("split_seed = 1", &["data.split_seed: only makes sense with"]);
        with("test_share = 0.1\nsplit_seed = -1", &["data.split_seed: must be an integer from 0"]);
        with("test_shar = 0.1", &["data.test_shar: is not a known key: did you mean `test_share`?"]);
        check("dataset = \"d\"\ntest_share = 0.1", &["data.dataset: names an imported dataset"]);
        check(
            "dataset = \"d\"\ncolumns = { input = \"text\" }",
            &["data.dataset: names an imported dataset"],
        );
        check("test = \"t.csv\"", &["data: has no train rows"]);
    }
}
