//! What a small Parquet file may take in memory. One test: the process's own peak is measured.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail loudly too"
)]

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use readers::{Format, Options, Source, rows};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const MB: u64 = 1024 * 1024;
/// What reading may take beyond what the process has.
const PEAK_MAX: u64 = 128 * MB;
const TEXTS: &str = "message schema { REQUIRED BYTE_ARRAY input (STRING); }";
const LISTS: &str = "message schema { REQUIRED GROUP choices (LIST) { REPEATED GROUP list { REQUIRED BYTE_ARRAY element (STRING); } } }";
const NUMBERS: &str =
    "message schema { REQUIRED GROUP choices (LIST) { REPEATED GROUP list { REQUIRED INT64 element; } } }";

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
}

/// Writes one row group of one column, with its levels of repetition where it is a list.
fn write<T: DataType>(
    path: &Path,
    schema: &str,
    builder: WriterPropertiesBuilder,
    values: &[T::T],
    repetitions: Option<&[i16]>,
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(builder.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let definitions = repetitions.map(|repetitions| vec![1; repetitions.len()]);
    column.typed::<T>().write_batch(values, definitions.as_deref(), repetitions).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// A value of the process's status, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Reads a file: how many rows it has or what is wrong with it, checked against what reading it takes.
fn read(path: &Path) -> Result<usize, String> {
    assert!(fs::metadata(path).unwrap().len() < 300_000, "{}", fs::metadata(path).unwrap().len());
    // The peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let source = Source { path: path.to_owned(), format: Format::Parquet, split: None };
    let mut count = 0;
    let read = rows(vec![source], Options::default()).try_for_each(|row| row.map(|_| count += 1));
    let peak = status("VmHWM").saturating_sub(before);
    println!("{} bytes of a file: {} MB at most", fs::metadata(path).unwrap().len(), peak / MB);
    assert!(peak < PEAK_MAX, "{} MB were held", peak / MB);
    read.map(|()| count).map_err(|errors| errors.to_string())
}

#[test]
fn a_small_file_takes_little_memory_whatever_it_stands_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let refused = |wanted: &str| {
        let said = read(&path).unwrap_err();
        assert!(said.contains(wanted) && said.contains("rows.parquet: row 1"), "wanted {wanted:?} in {said}");
    };
    let text = |bytes: u64| ByteArray::from(vec![b'a'; usize::try_from(bytes).unwrap()]);
    // A value, and with it a page, that is large.
    write::<ByteArrayType>(&path, TEXTS, properties(), &[text(80 * MB)], None);
    refused("column `input` unpacks to 81 MB at once, and the limit of a page is 64 MB: write the file anew");
    // A list of one large value, many times.
    let begins_with_row = |elements: usize| {
        let mut repetitions = vec![1; elements];
        repetitions[0] = 0;
        repetitions
    };
    let values = vec![text(4 * MB); 80];
    write::<ByteArrayType>(&path, LISTS, properties(), &values, Some(&begins_with_row(values.len())));
    refused("column `choices.list.element` has values of up to 4194304 bytes in lists of up to 80");
    // A long list of one small value.
    let values = vec![7_i64; 2_000_000];
    write::<Int64Type>(&path, NUMBERS, properties(), &values, Some(&begins_with_row(values.len())));
    refused("in lists of up to");
    // Values that are the same as the one before, which are long.
    let builder = properties().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
    write::<ByteArrayType>(&path, TEXTS, builder, &vec![text(MB); 300], None);
    let said = read(&path).unwrap_err();
    assert!(said.contains("input: is 1048576 bytes long: the limit is 65536"), "{said}");
    // What is read one row after the other is read, whatever it comes to.
    write::<ByteArrayType>(&path, TEXTS, properties(), &vec![text(60_000); 4_000], None);
    assert_eq!(read(&path), Ok(4_000));
    let rows_of_five: Vec<i16> = (0..50_000).map(|place| i16::from(place % 5 > 0)).collect();
    write::<ByteArrayType>(&path, LISTS, properties(), &vec![text(20); 50_000], Some(&rows_of_five));
    let said = read(&path).unwrap_err();
    assert!(said.contains("input") && !said.contains("cannot be read"), "{said}");
}
