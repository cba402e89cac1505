//! Columns of other names than the fields', in every format.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::{Example, Task};
use readers::{Columns, Format, Options, ReadErrors, Source, Writer};

fn columns(pairs: &[(&str, &str)]) -> Columns {
    let pairs = pairs.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned()));
    Columns::new(pairs).unwrap()
}

fn read(format: Format, text: &str, pairs: &[(&str, &str)]) -> Result<Vec<Example>, ReadErrors> {
    let stream = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
    let options = Options { columns: columns(pairs), ..Options::default() };
    readers::rows_from("rows", format, stream, options).collect()
}

fn check(format: Format, text: &str, pairs: &[(&str, &str)], expected: &[&str]) {
    let account = read(format, text, pairs).unwrap_err().to_string();
    let lines: Vec<&str> = account.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{account}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "`{part}` is not in:\n{line}");
    }
}

const MAPPED: &[(&str, &str)] = &[("input", "text"), ("label", "mood")];

#[test]
fn mapped_columns_and_those_of_a_fields_own_name_are_read() {
    let csv = "when,text,mood,split,label,when\n1,Good.,happy,test,7,2\n";
    let json = r#"{"when": {"y": 1}, "text": "Good.", "mood": "happy", "split": "test", "label": 7}"#;
    for (format, text) in [(Format::Csv, csv), (Format::Jsonl, json)] {
        let row = &read(format, text, MAPPED).unwrap()[0];
        // `label` is another column's field here, and is passed over with the rest.
        let expected = Example {
            split: domain::Split::Test,
            input: "Good.".into(),
            label: Some("happy".into()),
            ..Example::default()
        };
        assert_eq!(*row, expected, "{format:?}");
    }
    let choices = "text,input\n\"[\"\"x\"\",\"\"y\"\"]\",q\n";
    let row = &read(Format::Csv, choices, &[("choices", "text")]).unwrap()[0];
    assert_eq!((row.input.as_str(), row.choices.len()), ("q", 2));
}

#[test]
fn parquet_is_mapped_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut writer = Writer::create(Format::Parquet, &path).unwrap();
    let label = Some("a long text".to_owned());
    writer.write(&Example { input: "short".into(), label, ..Example::default() }).unwrap();
    writer.finish().unwrap();
    let read = |pairs: &[(&str, &str)]| {
        let source = Source { path: path.clone(), format: Format::Parquet, split: None };
        let options = Options { columns: columns(pairs), ..Options::default() };
        readers::rows(vec![source], options).collect::<Result<Vec<_>, _>>()
    };
    let row = &read(&[("input", "label"), ("label", "input")]).unwrap()[0];
    assert_eq!((row.input.as_str(), row.label.as_deref()), ("a long text", Some("short")));
    let account = read(MAPPED).unwrap_err().to_string();
    assert!(
        account.contains("columns.input: there is no column `text`: the columns are id, split"),
        "{account}"
    );
}

#[test]
fn a_column_that_is_absent_is_named_with_those_that_are_there() {
    check(
        Format::Csv,
        "txt,mood\na,b\n",
        MAPPED,
        &["rows:1: columns.input: there is no column `text`: the columns are txt, mood; did you mean `txt`?"],
    );
    check(
        Format::Jsonl,
        "{\"text\": \"a\"}\n{\"text\": \"b\", \"other\": 1}\n",
        MAPPED,
        &["rows: columns.label: there is no column `mood`: the columns are text, other"],
    );
    // Rows without the text are wrong themselves; where there are many, the column is missed all the same.
    check(
        Format::Jsonl,
        &"{\"words\": \"a\", \"mood\": \"b\"}\n".repeat(5_000),
        MAPPED,
        &[
            "input (column `text`): is empty",
            "columns.input: there is no column `text`: the columns are words, mood",
            "may be more",
        ],
    );
    // One row with it is enough.
    let rows =
        read(Format::Jsonl, "{\"text\": \"a\"}\n{\"text\": \"b\", \"mood\": \"c\"}\n", MAPPED).unwrap();
    assert_eq!((rows[0].label.as_deref(), rows[1].label.as_deref()), (None, Some("c")));
}

#[test]
fn a_mistake_names_the_column_of_its_field() {
    let options = Options {
        task: Task::built_in("nli"),
        columns: columns(&[("input", "text"), ("label", "mood")]),
        ..Options::default()
    };
    let stream = Box::new(std::io::Cursor::new(b"text,mood\na,bad\n".to_vec()));
    let account = readers::rows_from("rows", Format::Csv, stream, options).next().unwrap().unwrap_err();
    let account = account.to_string();
    assert!(account.contains("rows:2: label (column `mood`): `bad` is not one of"), "{account}");
    check(Format::Csv, "text,mood,text\na,b,c\n", MAPPED, &["rows:1: text: names two columns"]);
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let refused = |pairs: &[(&str, &str)], wanted: &str| {
        let pairs = pairs.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned()));
        let found = Columns::new(pairs).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().starts_with(wanted), "{}", found[0]);
    };
    refused(&[("lable", "x")], "columns.lable: is not a field of a row: did you mean `label`?");
    refused(&[("input", "x"), ("label", "x")], "columns.label: is column `x`, as is `input`");
    refused(&[("input", "x"), ("input", "y")], "columns.input: is given twice");
    refused(&[("input", " ")], "columns.input: is empty");
}
