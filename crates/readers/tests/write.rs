//! What is written is read back, in every format; damaged Parquet is an error and no panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too"
)]

use domain::{Answer, Example, Split};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use readers::{Format, Options, ReadErrors, Source, Writer};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn examples() -> Vec<Example> {
    let rationale =
        |text: &str| Answer::Rationale { teacher: "import".into(), text: text.into(), label: None };
    let mut all = vec![
        Example { input: "plain".into(), ..Example::default() },
        Example {
            key: Some("k,\"1\"".into()),
            split: Split::Test,
            input: "line\nbreak, \"quotes\" and é".into(),
            choices: vec!["a|b".into(), "c, \"d\"".into(), "é".into()],
            label: Some("a|b".into()),
            answers: vec![rationale("Because,\nso.")],
            ..Example::default()
        },
        Example {
            split: Split::Validation,
            premise: Some("p".into()),
            hypothesis: Some("h".into()),
            label: Some("0.50".into()),
            ..Example::default()
        },
        Example {
            key: Some("123456789012345678901".into()),
            input: "control \u{1b}[31m \u{7} \u{9b} \u{202e} \r \t".into(),
            label: Some("-0".into()),
            ..Example::default()
        },
    ];
    // More than one row group, with lists of every length.
    all.extend((0..5_000usize).map(|number| Example {
        key: Some(number.to_string()),
        input: format!("row {number}"),
        choices: (0..number % 4).filter(|_| number % 4 > 1).map(|choice| format!("c{choice}")).collect(),
        ..Example::default()
    }));
    all
}

fn write(format: Format, path: &Path, rows: &[Example]) {
    let mut writer = Writer::create(format, path).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    assert!(!path.exists(), "an unfinished file has its name");
    writer.finish().unwrap();
}

fn read(format: Format, path: &Path) -> Result<Vec<Example>, ReadErrors> {
    readers::rows(vec![Source { path: path.to_owned(), format, split: None }], Options::default()).collect()
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let path = folder.path().join(format.as_str());
        write(*format, &path, &examples());
        let found = read(*format, &path).unwrap();
        assert_eq!(found.len(), examples().len(), "{format:?}");
        for (found, expected) in found.iter().zip(examples()) {
            assert_eq!(*found, expected, "{format:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn raw_completions_stay_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let answers = vec![Answer::Completion { teacher: "palm-540b".into(), text: "The answer is (1).".into() }];
    write(Format::Jsonl, &path, &[Example { input: "a".into(), answers, ..Example::default() }]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"split\":\"train\",\"input\":\"a\"}\n");
}

#[test]
fn what_is_not_finished_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let mut writer = Writer::create(Format::Csv, &path).unwrap();
    writer.write(&examples()[0]).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = Writer::create(Format::Csv, &folder.path().join("no/such.csv")).err().unwrap();
    assert!(error.to_string().contains("no/such.csv: cannot be written: No such file"), "{error}");
}

#[test]
fn mistakes_in_parquet_have_their_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut rows = examples();
    rows[1].split = Split::Train;
    rows[4_500].key = Some("17".into());
    rows[4_095].input = String::new();
    write(Format::Parquet, &path, &rows);
    let account = read(Format::Parquet, &path).unwrap_err().to_string();
    assert!(account.contains("rows.parquet: row 4501 (row group 2): id: `17` on row 4501 (row group 2) stands on row 22 (row group 1) already"), "{account}");
    assert!(account.contains("rows.parquet: row 4096 (row group 1): input: is empty"), "{account}");
}

/// A file of three rows as pandas writes them: inputs, labels as floats of which one is absent, and an index.
fn write_numbers(path: &Path, compression: Compression) {
    let schema = "message schema { OPTIONAL BYTE_ARRAY input (STRING); OPTIONAL DOUBLE label; \
        OPTIONAL INT64 __index_level_0__; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer =
        SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels = [1; 3];
    let mut column = group.next_column().unwrap().unwrap();
    let texts = ["one ".repeat(200), "two".to_owned(), "three".to_owned()];
    let texts: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[0.1, 20.0, f64::NAN], Some(&levels), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[5, 2, 9], Some(&levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_in_every_compression_and_nan_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        write_numbers(&path, compression);
        let found = read(Format::Parquet, &path).unwrap();
        let labels: Vec<Option<&str>> = found.iter().map(|row| row.label.as_deref()).collect();
        assert_eq!(labels, [Some("0.1"), Some("20"), None], "{compression}");
        assert_eq!(found[0].input, "one ".repeat(200));
    }
    let other = folder.path().join("rows.csv");
    fs::rename(&path, &other).unwrap();
    let account = read(Format::Csv, &other).unwrap_err().to_string();
    assert!(account.contains("is a Parquet file: use `distillery import parquet`, or name it"), "{account}");
}

#[test]
fn damaged_parquet_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let check = |bytes: &[u8], part: &str| {
        fs::write(&path, bytes).unwrap();
        let account = read(Format::Parquet, &path).unwrap_err().to_string();
        assert!(account.contains(part), "{account}");
    };
    check(b"", "rows.parquet: is empty");
    check(
        b"{\"input\":\"a\"}\n",
        "is not a readable Parquet file, which begins with PAR1: is it JSON Lines or CSV?",
    );
    check(b"PAR1", "is not a readable Parquet file");
    write(Format::Parquet, &folder.path().join("sound"), &examples()[..50]);
    let sound = fs::read(folder.path().join("sound")).unwrap();
    check(&sound[..sound.len() / 2], "is not a readable Parquet file");
    for place in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let _ = read(Format::Parquet, &path);
    }
}
