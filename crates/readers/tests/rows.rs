//! JSONL and CSV: what is read, and what is said of what cannot be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too"
)]

use domain::example::FIELD_BYTES_MAX;
use domain::{Answer, Example, Fault, Split, Task};
use readers::{Format, LINE_BYTES_MAX, Options, Place, ReadErrors, Source};
use std::fs;
use std::io::Read;
use std::path::Path;

fn read(format: Format, bytes: &[u8], options: Options) -> Result<Vec<Example>, ReadErrors> {
    let stream = Box::new(std::io::Cursor::new(bytes.to_vec()));
    readers::rows_from("rows", format, stream, options).collect()
}

fn rows(format: Format, text: &str) -> Vec<Example> {
    read(format, text.as_bytes(), Options::default()).unwrap()
}

/// `expected`: every line of the account, each by what it contains.
fn check_options(format: Format, bytes: &[u8], options: Options, expected: &[&str]) {
    let account = read(format, bytes, options).unwrap_err().to_string();
    let lines: Vec<&str> = account.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{account}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "`{part}` is not in:\n{line}");
    }
}

fn check(format: Format, text: &str, expected: &[&str]) {
    check_options(format, text.as_bytes(), Options::default(), expected);
}

#[test]
fn every_field_is_read() {
    let expected = Example {
        key: Some("7".into()),
        split: Split::Test,
        input: "Which?".into(),
        choices: vec!["a, b".into(), "2".into()],
        label: Some("2".into()),
        answers: vec![Answer::Rationale { teacher: "import".into(), text: "Two.".into(), label: None }],
        ..Example::default()
    };
    let json =
        r#"{"id":7,"split":"test","input":"Which?","choices":["a, b",2],"label":2,"rationale":"Two."}"#;
    assert_eq!(rows(Format::Jsonl, json), std::slice::from_ref(&expected));
    let csv = "id,split,input,choices,label,rationale\n7,test,Which?,\"[\"\"a, b\"\",2]\",2,Two.\n";
    assert_eq!(rows(Format::Csv, csv), [expected]);
}

#[test]
fn absent_fields_and_kinder_spellings_are_fine() {
    let json = "\u{feff}{\"input\":\"a\",\"label\":null,\"choices\":[],\"rationale\":\" \"}\r\n\n  \n\
        {\"premise\":\"p\",\"hypothesis\":\"h\",\"split\":\"dev\",\"label\":true}";
    let found = rows(Format::Jsonl, json);
    assert_eq!(found[0], Example { input: "a".into(), ..Example::default() });
    assert_eq!((found[1].split, found[1].label.as_deref()), (Split::Validation, Some("true")));
    let found = rows(Format::Csv, "\u{feff}input , label\r\n\"line\nbreak\",1.50\r\nb,\r\n");
    assert_eq!((found[0].input.as_str(), found[0].label.as_deref()), ("line\nbreak", Some("1.50")));
    assert_eq!(found[1], Example { input: "b".into(), ..Example::default() });
}

#[test]
fn mistakes_of_jsonl_are_named() {
    let check = |text: &str, expected: &[&str]| check(Format::Jsonl, text, expected);
    check("", &["rows: is empty: it must hold at least one row"]);
    check("\n \n", &["rows: is empty"]);
    check("{\"input\": \"a\", }", &["rows:1:16: is broken JSON: trailing comma"]);
    check("{\"input\": \"a\"}\n{\"input\": ", &["rows:2:10: is broken JSON: EOF while parsing a value"]);
    check(
        "[{\"input\": \"a\"}]",
        &["rows:1: is broken JSON: invalid type: sequence, expected one JSON object a line"],
    );
    check("{\"input\":\"a\"} {\"input\":\"b\"}", &["rows:1:15: is broken JSON: trailing characters"]);
    check(
        "{\"input\":\"a\",\"lable\":\"b\"}",
        &["rows:1: lable: is not a field of a row: did you mean `label`?"],
    );
    check(
        "{\"Question\":\"a\"}",
        &["Question: is not a field of a row: did you mean `input`?", "input: is empty"],
    );
    check(
        "{\"input\":\"a\",\"zebra\":1}",
        &["zebra: is not a field of a row: the fields are id, split, input"],
    );
    check("{\"input\":\"a\",\"input\":\"b\"}", &["rows:1: input: stands twice in one row"]);
    check("{\"input\":7}", &["rows:1: input: is `7`: write it as text, in quotes"]);
    check("{\"input\":\"a\",\"label\":{}}", &["rows:1: label: is an object: it must be text"]);
    check("{\"input\":\"a\",\"choices\":\"b\"}", &["rows:1: choices: must be an array of texts"]);
    check("{\"input\":\"a\",\"choices\":[\"b\",null]}", &["rows:1: choices[1]: is null"]);
    check("{\"input\":\"a\",\"choices\":[\"b\",[]]}", &["rows:1: choices[1]: is an array"]);
    check("{\"input\":\"a\",\"choices\":[\"b\"]}", &["rows:1: choices: has 1 entries"]);
    check(
        "{\"input\":\"a\",\"split\":\"tset\"}",
        &["rows:1: split: `tset` is not one of: train, validation, test"],
    );
    check(
        "{\"input\":\"a\",\"premise\":\"b\",\"hypothesis\":\"c\"}",
        &["rows:1: input: a row has either `input`, or"],
    );
    check(
        "{\"input\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":\"d\"}",
        &["rows:1: label: `d` is not one of: b, c"],
    );
    let long = format!("{{\"input\":\"{}\"}}", "x".repeat(FIELD_BYTES_MAX + 1));
    check(&long, &["rows:1: input: is 65537 bytes long: the limit is 65536"]);
}

#[test]
fn mistakes_of_csv_are_named() {
    let check = |text: &str, expected: &[&str]| check(Format::Csv, text, expected);
    check("", &["rows: is empty"]);
    check("input,label\n", &["rows: is empty"]);
    check("input,lable\na,b\n", &["rows:1: lable: is not a field of a row: did you mean `label`?"]);
    check("input,input\na,b\n", &["rows:1: input: names two columns"]);
    check("input;label\na;b\n", &["rows:1: header: has no comma: columns are separated by commas"]);
    check(
        "input,label\na\n\nb,c,d\n",
        &["rows:2: has 1 fields and the header names 2", "rows:4: has 3 fields"],
    );
    check(
        "input,choices\na,yes|no\n",
        &["rows:2: choices: is broken JSON: expected value; choices are a JSON array"],
    );
    check("input,choices\na,7\n", &["rows:2: choices: must be an array of texts"]);
    check(
        "input,label\n\"a,b\nc,d\n",
        &["rows:2: has 1 fields and the header names 2: is a comma or a quote missing?"],
    );
    check("label\na\n", &["rows:2: input: is empty"]);
}

#[test]
fn csv_lines_are_counted_as_an_editor_does() {
    let check = |text: &str, lines: &[u64]| {
        let errors = read(Format::Csv, text.as_bytes(), Options::default()).unwrap_err();
        let found: Vec<Place> = errors.mistakes.iter().map(|mistake| mistake.place).collect();
        let expected: Vec<Place> =
            lines.iter().map(|line| Place::Line { line: *line, column: None }).collect();
        assert_eq!(found, expected, "{text:?}\n{errors}");
    };
    // One field is too few; the others are too many, so that no two mistakes are equal.
    for end in ["\n", "\r\n"] {
        let lines = |lines: &[&str]| lines.join(end);
        check(&lines(&["input,label", "a", "b,c,d", ""]), &[2, 3]);
        check(&lines(&["input,label", "a", "b,c,d"]), &[2, 3]);
        check(&lines(&["", "input,label", "", "", "a", "", "b,c,d"]), &[5, 7]);
        check(&lines(&["input,label", "\"x", "", "y\",z", "a", "\"b", "\",c,d", "e,f,g,h"]), &[5, 6, 8]);
        check(&lines(&["input,label", "\"a,b", "c,d", ""]), &[2]);
    }
    let long = format!("input,label\n{}a\n", "\"x\ny\",z\r\n".repeat(50_000));
    check(&long, &[100_002]);
}

#[test]
fn other_encodings_are_called_by_name() {
    let utf16: Vec<u8> = "\u{feff}{\"input\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (mut gzip, mut big) = (vec![0x1F, 0x8B], vec![0xFE, 0xFF]);
    gzip.extend_from_slice(b"rest");
    big.extend_from_slice(b"\0{");
    for format in [Format::Jsonl, Format::Csv] {
        let check = |bytes: &[u8], part: &str| check_options(format, bytes, Options::default(), &[part]);
        check(&utf16, "rows: is UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`");
        check(&big, "rows: is UTF-16");
        check(&gzip, "rows: is compressed (gzip): unpack it first");
        check(b"PAR1....", "rows: is a Parquet file");
    }
    let latin = b"{\"input\":\"a\"}\n{\"input\":\"caf\xE9\"}\n";
    check_options(Format::Jsonl, latin, Options::default(), &["rows:2:14: is not UTF-8 from here"]);
    let latin = b"input,label\ncaf\xE9,b\n";
    check_options(Format::Csv, latin, Options::default(), &["rows:2: input: is not UTF-8"]);
}

#[test]
fn ids_are_unique_over_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let source = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Source { format: Format::of(&path).unwrap(), path, split: None }
    };
    let one = source(
        "one.jsonl",
        "{\"id\":\"x\",\"input\":\"a\"}\n\n{\"id\":\"y\",\"input\":\"a\"}\n{\"id\":\"x\",\"input\":\"b\"}",
    );
    let two = source("two.csv", "id,input\ny,c\nz,d\n");
    let account =
        readers::rows(vec![one, two], Options::default()).collect::<Result<Vec<_>, _>>().unwrap_err();
    let account = account.to_string();
    assert!(account.contains("one.jsonl:4: id: `x` on line 4 stands on line 1 already"), "{account}");
    assert!(account.contains("two.csv:2: id: `y` on line 2 stands on line 3 of "), "{account}");
    assert!(account.contains("one.jsonl already"), "{account}");
}

#[test]
fn mistakes_are_reported_together_and_rows_stop_at_the_first() {
    let text = "{\"input\":\"a\"}\n{\"inptu\":\"b\"}\n{\"input\":\"c\"}\n{\"input\":\n";
    let stream = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
    let mut rows = readers::rows_from("rows", Format::Jsonl, stream, Options::default());
    assert_eq!(rows.next().unwrap().unwrap().input, "a");
    let errors = rows.next().unwrap().unwrap_err();
    let fields: Vec<Option<&str>> = errors.mistakes.iter().map(|mistake| mistake.field.as_deref()).collect();
    assert_eq!(fields, [Some("inptu"), Some("input"), None]);
    assert!(!errors.more);
    assert!(rows.next().is_none());
}

#[test]
fn equal_mistakes_are_counted_and_different_ones_are_bounded() {
    let equal = "{\"input\":\"a\",\"lable\":\"b\"}\n".repeat(30);
    check(
        Format::Jsonl,
        &equal,
        &["rows:1: lable: is not a field of a row: did you mean `label`? (and in 29 more places)"],
    );
    let different: String =
        (0..30).map(|number| format!("{{\"input\":\"a\",\"zebra{number}\":1}}\n")).collect();
    let errors = read(Format::Jsonl, different.as_bytes(), Options::default()).unwrap_err();
    assert_eq!((errors.mistakes.len(), errors.more), (20, true));
    assert!(errors.to_string().ends_with("there may be more mistakes: the search ended here"));
}

#[test]
fn a_task_asks_for_its_labels() {
    let task = |name: &str| Options { task: Task::built_in(name), labels_required: true };
    let (equation, nli) = (task("equation"), task("nli"));
    assert!(equation.task.is_some() && nli.task.is_some());
    let check = |options: &Options, text: &str, expected: &[&str]| {
        check_options(Format::Jsonl, text.as_bytes(), options.clone(), expected);
    };
    check(&equation, "{\"input\":\"a\"}", &["rows:1: label: is missing: every row needs a gold label here"]);
    check(
        &equation,
        "{\"input\":\"a\",\"label\":\"some\"}",
        &["rows:1: label: `some` is not an arithmetic expression"],
    );
    check(
        &nli,
        "{\"input\":\"a\",\"label\":\"maybe\"}",
        &["rows:1: label: `maybe` is not one of: entailment, neutral, con"],
    );
    assert!(read(Format::Jsonl, b"{\"input\":\"a\",\"label\":\" Neutral\"}", nli).is_ok());
    assert!(read(Format::Jsonl, b"{\"input\":\"a\",\"label\":42}", equation).is_ok());
}

#[test]
fn a_file_can_have_one_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.ndjson");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let source =
            Source { path: path.clone(), format: Format::of(&path).unwrap(), split: Some(Split::Test) };
        readers::rows(vec![source], Options::default()).collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(check("{\"input\":\"a\"}").unwrap()[0].split, Split::Test);
    assert_eq!(check("{\"input\":\"a\",\"split\":\"test\"}").unwrap()[0].split, Split::Test);
    let account = check("{\"input\":\"a\",\"split\":\"train\"}").unwrap_err().to_string();
    assert!(account.contains(":1: split: is `train`, and the whole file was given as `test`"), "{account}");
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &Path, format: Format, part: &str, fault: Fault| {
        let source = Source { path: path.to_owned(), format, split: None };
        let errors = readers::rows(vec![source], Options::default()).next().unwrap().unwrap_err();
        assert!(errors.to_string().contains(part), "{errors}");
        assert_eq!(errors.fault(), fault);
    };
    for format in Format::ALL {
        check(folder.path(), *format, "is a folder: name a file in it", Fault::Invalid);
        check(
            &folder.path().join("absent"),
            *format,
            "absent: does not exist: check the path",
            Fault::NotFound,
        );
    }
    assert_eq!(Format::of(Path::new("rows.JSONL")), Some(Format::Jsonl));
    assert_eq!(Format::of(Path::new("rows.txt")), None);
}

/// Endless bytes, as far as a reader cares.
struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = buffer.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
        buffer[..bytes].fill(b'x');
        self.0 -= bytes as u64;
        Ok(bytes)
    }
}

#[test]
fn lines_without_end_are_refused_and_not_held() {
    // Ten times what a machine could hold twice over would not be a test; 256 MiB shows the bound well enough.
    let bytes = 256 * 1024 * 1024;
    let json = Endless(bytes).chain(std::io::Cursor::new(b"\n{\"inptu\":\"a\"}\n".to_vec()));
    let errors =
        readers::rows_from("rows", Format::Jsonl, Box::new(json), Options::default()).next().unwrap();
    let account = errors.unwrap_err().to_string();
    assert!(account.contains(&format!("rows:1: is longer than {LINE_BYTES_MAX} bytes")), "{account}");
    assert!(account.contains("rows:2: inptu:"), "{account}");

    let csv = std::io::Cursor::new(b"input,label\na,b\n\"c,d\n".to_vec()).chain(Endless(bytes));
    let mut rows = readers::rows_from("rows", Format::Csv, Box::new(csv), Options::default());
    assert!(rows.next().unwrap().is_ok());
    let account = rows.next().unwrap().unwrap_err().to_string();
    assert!(
        account.contains(&format!("rows:3: begins a row longer than {LINE_BYTES_MAX} bytes: is a quote")),
        "{account}"
    );
    assert!(rows.next().is_none());
}

#[test]
fn a_line_as_long_as_the_limit_is_read() {
    let frame = "{\"input\":\"a\",\"label\":null".len() + 1;
    let fits = format!("{{\"input\":\"a\",\"label\":null{}}}", " ".repeat(LINE_BYTES_MAX - frame));
    assert_eq!(fits.len(), LINE_BYTES_MAX);
    assert_eq!(rows(Format::Jsonl, &format!("{fits}\n{fits}")).len(), 2);
    check(Format::Jsonl, &format!("{fits} "), &["rows:1: is longer than"]);
}
