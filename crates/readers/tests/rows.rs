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
    check("7\n8\n", &["rows:1: is no JSON: if it is the header of a CSV file, use `distillery import csv`"]);
    check("\"a\"\n", &["rows:1:3: is broken JSON: invalid type: string"]);
    check("\ninput,label\na,b\nc,d\n", &["rows:2: is no JSON: if it is the header of a CSV file"]);
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
    check("input;lable\na;b\n", &["rows:1: lable: is not a field of a row: did you mean `label`?"]);
    check("input;label\na\n", &["rows:2: has 1 fields and the header names 2: is a semicolon or a quote"]);
    check("{\"input\": \"a\"}\n", &["rows:1: header: is JSON: use `distillery import jsonl`"]);
    check("sep=;\ninput;label\na;b\n", &["rows:1: header: is a hint for spreadsheets"]);
    check("input,label,\na,b,\n", &["rows:1: header: has no name for column 3: name it, or remove it"]);
    check(
        "input,label\na\n\nb,c,d\n",
        &["rows:2: has 1 fields and the header names 2", "rows:4: has 3 fields"],
    );
    check(
        "input,choices\na,yes|no\n",
        &["rows:2: choices: is broken JSON: expected value; choices are a JSON array"],
    );
    check("input,choices\na,7\n", &["rows:2: choices: must be an array of texts"]);
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
    let gzip = b"\x1F\x8Brest";
    for format in [Format::Jsonl, Format::Csv] {
        let check = |bytes: &[u8], part: &str| check_options(format, bytes, Options::default(), &[part]);
        check(b"{\0\0\0}\0\0\0", "rows: is UTF-32: convert it, with `iconv -f UTF-32 -t UTF-8`");
        check(b"\xFF\xFE\0\0{\0\0\0", "rows: is UTF-32");
        check(b"version https://git-lfs.github.com/spec/v1\n", "rows: is a Git LFS pointer");
        check(b"<!DOCTYPE html>\n", "rows: is a web page: was the download refused?");
        check(gzip, "rows: is compressed (gzip): unpack it first");
        check(b"PAR1....", "rows: is a Parquet file");
    }
    let latin = b"{\"input\":\"a\"}\n{\"input\":\"caf\xE9\"}\n";
    check_options(Format::Jsonl, latin, Options::default(), &["rows:2:14: is not UTF-8 from here"]);
    let latin = b"input,label\ncaf\xE9,b\n";
    check_options(Format::Csv, latin, Options::default(), &["rows:2: input: is not UTF-8"]);
}

#[test]
fn utf16_is_converted_with_a_mark_and_without() {
    let check = |format, text: &str| {
        let expected = rows(format, text);
        for text in [text.to_owned(), format!("\u{feff}{text}")] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [little, big] {
                assert_eq!(read(format, &bytes, Options::default()).unwrap(), expected, "{bytes:?}");
            }
        }
    };
    check(
        Format::Jsonl,
        "{\"input\": \"caf\u{e9} \u{1F980}\", \"label\": \"\u{4e2d}\"}\r\n{\"input\": \"b\"}\n",
    );
    check(Format::Jsonl, "[\n {\"input\": \"\u{4e2d}\"}\n]\n");
    check(Format::Csv, "input,label\r\n\"caf\u{e9},\n\u{1F980}\",b\r\n");
    let half: Vec<u8> = "input\nab".encode_utf16().flat_map(u16::to_le_bytes).chain([0x3D, 0xD8]).collect();
    assert_eq!(read(Format::Csv, &half, Options::default()).unwrap()[0].input, "ab\u{FFFD}");
}

#[test]
fn numbers_keep_their_digits() {
    for number in [
        "123456789012345678901",
        "-98765432109876543210.0",
        "1.10",
        "1e3",
        "1E-05",
        "-0",
        "0.1000000000000000055511151231257827",
        "true",
    ] {
        let json =
            format!("{{\"id\": {number} ,\"input\":\"a\",\"choices\":[{number}, \"b\"],\"label\":{number}}}");
        let choices = json.replace('"', "\"\"");
        let choices = choices.split_once('[').unwrap().1.split_once(']').unwrap().0;
        let csv = format!("id,input,choices,label\n{number},a,\"[{choices}]\",{number}\n");
        for row in [&rows(Format::Jsonl, &json)[0], &rows(Format::Csv, &csv)[0]] {
            assert_eq!(row.key.as_deref(), Some(number));
            assert_eq!(row.label.as_deref(), Some(number));
            assert_eq!(row.choices, [number, "b"]);
        }
    }
    let big =
        "{\"id\":123456789012345678901,\"input\":\"a\"}\n{\"id\":123456789012345678902,\"input\":\"b\"}";
    assert_eq!(rows(Format::Jsonl, big).len(), 2);
    check(Format::Jsonl, "{\"input\":\"a\",\"label\":01}", &["rows:1:23: is broken JSON: invalid number"]);
}

#[test]
fn what_is_absent_in_a_column_of_numbers_has_no_label() {
    let labels = |format, text: &str| -> Vec<Option<String>> {
        rows(format, text).into_iter().map(|row| row.label).collect()
    };
    let words = ["NaN", "nan", "None", "null", "NULL", "<NA>"];
    for word in words {
        let csv = |other: &str| format!("input,label\na,{word}\nb,{other}\nc,{word}\n");
        assert_eq!(labels(Format::Csv, &csv("1.5")), [None, Some("1.5".into()), None], "{word}");
        let kept = [Some(word.into()), Some("some".into()), Some(word.into())];
        assert_eq!(labels(Format::Csv, &csv("some")), kept, "a word among words is a label");
        let json = format!("{{\"input\":\"a\",\"label\":7}}\n{{\"input\":\"b\",\"label\":\"{word}\"}}\n");
        assert_eq!(labels(Format::Jsonl, &json), [Some("7".into()), None], "{word}");
    }
    assert_eq!(labels(Format::Csv, "input,label\na,1\nb,none\n")[1].as_deref(), Some("none"));
    assert_eq!(rows(Format::Csv, "input,label\nnan,1\nb,2\n")[0].input, "nan");
    // Python writes the bare word, which is no JSON.
    let json =
        "{\"input\":\"a NaN \\\"NaN\",\"label\":NaN}\n{\"input\":\"b\", \"label\": \"some\", \"id\" : NaN}";
    let found = rows(Format::Jsonl, json);
    assert_eq!((found[0].input.as_str(), &found[0].label), ("a NaN \"NaN", &None));
    assert_eq!((found[1].label.as_deref(), &found[1].key), (Some("some"), &None));
    check(
        Format::Jsonl,
        "{\"input\":\"a\",\"label\":Infinity}",
        &["rows:1:22: is broken JSON: expected value"],
    );
    check(Format::Jsonl, "{\"input\":\"a\",\"label\":NaN,}", &["rows:1: is broken JSON: trailing comma"]);
}

#[test]
fn half_of_a_surrogate_pair_is_a_replacement_character() {
    for (written, read) in [
        ("x \\ud83d y", "x \u{FFFD} y"),
        ("\\uDE00", "\u{FFFD}"),
        ("\\ud83d\\ud83d\\ude00", "\u{FFFD}\u{1F600}"),
        ("\\ud83d\\u0041", "\u{FFFD}A"),
        ("\\\\ud83d \\ud83d\\n", "\\ud83d \u{FFFD}\n"),
        ("\\ud83d\u{e9}\\\"", "\u{FFFD}\u{e9}\""),
    ] {
        let json = format!("{{\"input\":\"{written}\",\"choices\":[\"{written}\",\"b\"]}}");
        let found = rows(Format::Jsonl, &json);
        assert_eq!((found[0].input.as_str(), found[0].choices[0].as_str()), (read, read), "{written}");
    }
    check(Format::Jsonl, "{\"input\":\"\\ud8\"}", &["rows:1:16: is broken JSON: invalid escape"]);
}

#[test]
fn an_array_of_objects_is_read_however_it_is_broken_into_lines() {
    let expected =
        rows(Format::Jsonl, "{\"input\":\"a ]},\\\\\",\"choices\":[\"b\",\"c\"]}\n{\"input\":\"d\"}\n");
    for text in [
        "[{\"input\":\"a ]},\\\\\",\"choices\":[\"b\",\"c\"]},{\"input\":\"d\"}]",
        "\n [\n  {\n    \"input\": \"a ]},\\\\\",\n    \"choices\": [\n \"b\", \"c\"]\n  },\n  {\"input\":\"d\"}\n]\n",
        "\u{feff}[{\"input\":\"a ]},\\\\\",\"choices\":[\"b\",\"c\"]}\r\n,{\"input\":\"d\"}\r\n]\r\n\r\n",
        "{\n  \"input\": \"a ]},\\\\\",\n  \"choices\": [\"b\", \"c\"]\n}\n{\n \"input\": \"d\"}\n",
    ] {
        assert_eq!(rows(Format::Jsonl, text), expected, "{text}");
    }
    let check = |text: &str, expected: &[&str]| check(Format::Jsonl, text, expected);
    check("[]", &["rows: is empty"]);
    check("[", &["rows:1:2: ends inside an array: is the file cut off?"]);
    check(
        "[{\"input\":\"a\"},\n {\"inp",
        &["rows:2:6: is broken JSON: EOF", "rows:2:7: ends inside an array"],
    );
    check("[{\"input\":\"a\"},]", &["rows:1:16: is broken JSON: trailing comma"]);
    check("[{\"input\":\"a\"} {\"input\":\"b\"}]", &["rows:1:16: is broken JSON: expected `,` or `]`"]);
    check("[{\"input\":\"a\"}]\n[{\"input\":\"b\"}]", &["rows:2:1: stands behind the end of an array"]);
    check(
        "[\n7,\n\"a\"]",
        &["rows:2:1: is broken JSON: invalid type: integer `7`", "rows:3:3: is broken JSON: invalid"],
    );
    check(
        "[{\"id\":1,\"input\":\"a\"},{\"id\":1,\"input\":\"b\"}]",
        &["rows:1:23: id: `1` on line 1, column 23 stands on line 1, column 2 already"],
    );
    // A mistake has its own line and column, and the rows after it are looked at.
    check(
        "[\n  {\"input\": \"a\",\n   \"label\": 01},\n  {\"inptu\": \"b\"}\n]",
        &[
            "rows:3:14: is broken JSON: invalid number",
            "rows:4:3: inptu: is not a field",
            "rows:4:3: input: is empty",
        ],
    );
    let long = format!("[{{\"input\":\"{}\"}},\n{{\"inptu\":\"b\"}}]", "x".repeat(2 * LINE_BYTES_MAX));
    check(&long, &["rows:1:2: is longer than", "rows:2:1: inptu: is not", "rows:2:1: input: is empty"]);
    // Rows inside an object are named with the line that takes them out.
    let wrapped = ["rows:1: data: holds rows: write one a line, with `jq -c '.[\"data\"][]'`"];
    check("{\"version\":1,\"data\":[{\"input\":\"a\"}]}", &wrapped);
    check("{\n  \"data\": [\n    {\"input\": \"a\"}\n  ]\n}\n", &wrapped);
    check(
        "{\"input\":{\"0\":\"a\"}}",
        &["rows:1: input: is an object: it must be text (`df.to_json(f, orient"],
    );
}

#[test]
fn a_csv_file_is_never_half_read() {
    let check = |text: &str, expected: &[&str]| check(Format::Csv, text, expected);
    let after = "has text after a closing quote";
    check(
        "input,label\n\"He said \\\"hi\\\" to me\",greeting\n\"plain\",b\n",
        &[&format!("rows:2: {after}")],
    );
    check(
        "input,label\na,b\n\"x\ny\" ,b\nc,\"d\"e\n",
        &[&format!("rows:4: {after}: write a quote inside a field twice")],
    );
    check("\"input\"x,label\na,b\n", &[&format!("rows:1: {after}")]);
    check("input,label\na,\"b\nc,d\n", &["rows:2: opens a quote that is never closed"]);
    check("input,label\n\"a,b\nc,d\n", &["rows:2: opens a quote that is never closed"]);
    let found = rows(Format::Csv, "input,label\n\"a \"\"b\"\" c\",\"\"\nit's 5\" wide,\"d\"\n");
    assert_eq!((found[0].input.as_str(), &found[0].label), ("a \"b\" c", &None));
    assert_eq!((found[1].input.as_str(), found[1].label.as_deref()), ("it's 5\" wide", Some("d")));
}

#[test]
fn csv_has_any_separator_and_any_end_of_line() {
    let expected = rows(Format::Csv, "input,label\n\"a;|\t\",\"1,5\"\nb,2\n");
    for separator in [";", "\t", "|"] {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["input,label", "\"a;|\t\",\"1,5\"", "b,2", ""].join(end);
            let text = text.replace("input,label", &format!("\"input\"{separator} label"));
            let text =
                text.replace("\",\"", &format!("\"{separator}\"")).replace("b,2", &format!("b{separator}2"));
            assert_eq!(rows(Format::Csv, &text), expected, "{text:?}");
        }
    }
    check(Format::Csv, "input,label\ra\rb,c,d\r", &["rows:2: has 1 fields", "rows:3: has 3 fields"]);
}

#[test]
fn the_index_of_a_table_is_passed_over() {
    let expected = rows(Format::Csv, "input,label\na,x\nb,y\n");
    for text in [
        ",input,label\n0,a,x\n1,b,y\n",
        "Unnamed: 0,input,label\n17,a,x\n-3,b,y\n",
        "Unnamed: 0.1,Unnamed: 0,input,label\n0,0,a,x\n,1,b,y\n",
    ] {
        assert_eq!(rows(Format::Csv, text), expected, "{text}");
    }
    let json = "{\"input\":\"a\",\"label\":\"x\",\"__index_level_0__\":4}\n{\"input\":\"b\",\"label\":\"y\"}";
    assert_eq!(rows(Format::Jsonl, json), expected);
    let named =
        "the first column: has no name, as the index of a table, and holds `q1`: name it, or leave it out";
    check(Format::Csv, ",input\nq1,a\n", &[&format!("rows:2: {named}")]);
}

#[test]
fn integers_are_places_in_a_closed_set() {
    let task =
        |required| Options { task: Task::built_in("nli"), labels_required: required, ..Options::default() };
    let row = |label: &str| format!("{{\"premise\":\"p\",\"hypothesis\":\"h\",\"label\":{label}}}\n");
    let labels_of = |labels: &[&str], options| {
        let text: String = labels.iter().map(|label| row(label)).collect();
        let found = read(Format::Jsonl, text.as_bytes(), options)?;
        Ok::<_, ReadErrors>(found.into_iter().map(|row| row.label.unwrap_or_default()).collect::<Vec<_>>())
    };
    let found = labels_of(&["0", "1", "\"2\"", "-1", "2.0", "\"neutral\"", "NaN"], task(false)).unwrap();
    assert_eq!(found, ["entailment", "neutral", "contradiction", "", "contradiction", "neutral", ""]);
    let account = labels_of(&["0", "-1", "3"], task(true)).unwrap_err().to_string();
    assert!(
        account.contains("rows:2: label: `-1` is no gold label: remove the row, or train on"),
        "{account}"
    );
    assert!(account.contains("rows:3: label: `3` is not one of: entailment, neutral, con"), "{account}");
    // A set that holds integers holds them as they are written, and without a task there is no set.
    let mut stars = task(false);
    if let Some(task) = &mut stars.task {
        task.labels = domain::task::LabelSet::Closed(vec!["1".into(), "2".into(), "0".into()]);
    }
    assert_eq!(labels_of(&["0", "1", "2"], stars).unwrap(), ["0", "1", "2"]);
    assert_eq!(labels_of(&["0", "-1"], Options::default()).unwrap(), ["0", "-1"]);
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
    let task =
        |name: &str| Options { task: Task::built_in(name), labels_required: true, ..Options::default() };
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
