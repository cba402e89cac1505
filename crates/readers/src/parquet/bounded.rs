//! A Parquet file whose pages are looked at before they are unpacked and before values are made of them: a few bytes of a file can
//! stand for any number of bytes, values and elements of a list.

use super::header::{self, Header};
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type as SchemaType;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of one page, unpacked.
const PAGE_BYTES_MAX: u64 = 64 * MB;
/// Most bytes of all pages that are held, which are a page and a dictionary of every column.
const PAGES_BYTES_MAX: u64 = 256 * MB;
/// Most bytes that the fields of one row can have, by the longest value and the longest list of every column.
const ROW_BYTES_MAX: u64 = 64 * MB;
/// What a value takes at least, however short it is.
const VALUE_BYTES_MIN: u64 = 64;
/// Most bytes and values of a page whose values are written as differences: every one of them may be as long as the page.
const DIFFERENCES_BYTES_MAX: u64 = 4 * MB;
const DIFFERENCES_VALUES_MAX: u32 = 4_000_000;
/// Values of a column that are made at once.
const BATCH_VALUES: usize = 32;
const MB: u64 = 1024 * 1024;

/// What a file asks for beyond these limits.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TooLarge(String);

fn too_large(words: String) -> ParquetError {
    ParquetError::External(Box::new(TooLarge(words)))
}

/// The rows of `file`, within the limits.
pub(super) fn rows(reader: SerializedFileReader<File>, file: File) -> RowIter<'static> {
    let bounded = Bounded { reader, file: Arc::new(file), held: Arc::default() };
    RowIter::from_file_into(Box::new(bounded)).with_batch_size(BATCH_VALUES)
}

/// What all columns hold together, in bytes.
#[derive(Default)]
struct Held {
    pages: AtomicU64,
    row: AtomicU64,
}

struct Bounded {
    reader: SerializedFileReader<File>,
    file: Arc<File>,
    held: Arc<Held>,
}

impl FileReader for Bounded {
    fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    fn get_row_group(&self, group: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        let (file, held) = (Arc::clone(&self.file), Arc::clone(&self.held));
        Ok(Box::new(Group { reader: self.reader.get_row_group(group)?, file, held }))
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct Group<'a> {
    reader: Box<dyn RowGroupReader + 'a>,
    file: Arc<File>,
    held: Arc<Held>,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.reader.metadata()
    }

    fn num_columns(&self) -> usize {
        self.reader.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let chunk = self.reader.metadata().column(column);
        let pages = self.reader.get_column_page_reader(column)?;
        Ok(Box::new(Pages::new(chunk, pages, Arc::clone(&self.file), Arc::clone(&self.held))))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&parquet::bloom_filter::Sbbf> {
        self.reader.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of one column in one row group.
struct Pages {
    inner: Box<dyn PageReader>,
    file: Arc<File>,
    held: Arc<Held>,
    column: String,
    physical: Type,
    /// Bytes of a value, where all have the same number.
    fixed: u64,
    levels: Levels,
    /// Where the next header is, and how many bytes follow.
    offset: u64,
    left: u64,
    dictionary_bytes: u64,
    page_bytes: u64,
    /// The longest value so far, in bytes, and the longest list so far.
    value: u64,
    list: u64,
    /// Elements of the list that is not ended yet.
    open: u64,
    /// Of a row, by these.
    row_bytes: u64,
}

/// The greatest level of repetition, and whether there are levels of definition.
#[derive(Clone, Copy)]
struct Levels {
    repetition: u64,
    is_optional: bool,
}

impl Pages {
    fn new(
        chunk: &ColumnChunkMetaData,
        inner: Box<dyn PageReader>,
        file: Arc<File>,
        held: Arc<Held>,
    ) -> Self {
        let column = chunk.column_descr();
        let (offset, left) = chunk.byte_range();
        Self {
            inner,
            file,
            held,
            column: column.path().string(),
            physical: column.physical_type(),
            fixed: u64::try_from(column.type_length()).unwrap_or(0),
            levels: Levels {
                repetition: u64::try_from(column.max_rep_level()).unwrap_or(0),
                is_optional: column.max_def_level() > 0,
            },
            offset,
            left,
            dictionary_bytes: 0,
            page_bytes: 0,
            value: VALUE_BYTES_MIN,
            list: 1,
            open: 0,
            row_bytes: 0,
        }
    }

    /// The header of the next page that holds values; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        while self.left > 0 {
            let header = header::read(self.file.get_read(self.offset)?)?;
            let length = header.length.saturating_add(header.packed);
            self.offset = self.offset.saturating_add(length);
            self.left = self.left.saturating_sub(length);
            if !header.is_index {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Makes room for a page.
    fn hold_page(&mut self, header: &Header) -> Result<()> {
        let bytes = if header.is_dictionary { &mut self.dictionary_bytes } else { &mut self.page_bytes };
        let before = std::mem::replace(bytes, header.unpacked);
        let held = replace(&self.held.pages, before, header.unpacked);
        if header.unpacked <= PAGE_BYTES_MAX && held <= PAGES_BYTES_MAX {
            return Ok(());
        }
        let (most, whose) = match header.unpacked > PAGE_BYTES_MAX {
            true => (PAGE_BYTES_MAX, "a page"),
            false => (PAGES_BYTES_MAX, "its pages together"),
        };
        Err(too_large(format!(
            "column `{}` unpacks to {} MB at once, and the limit of {whose} is {} MB: write the file anew with smaller \
             pages, `df.to_parquet(f)`",
            self.column,
            header.unpacked.div_ceil(MB),
            most / MB
        )))
    }

    /// Checks what rows can be made of a page, before they are.
    fn hold_row(&mut self, page: &Page) -> Result<()> {
        let bytes = page.buffer().len() as u64;
        let values = values(page, self.levels)?;
        let longest = match (self.physical, page.encoding()) {
            (Type::BYTE_ARRAY, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) if values.are_plain => {
                longest_value(values.bytes)
            }
            (
                _,
                Encoding::DELTA_BYTE_ARRAY
                | Encoding::DELTA_LENGTH_BYTE_ARRAY
                | Encoding::DELTA_BINARY_PACKED,
            ) => {
                if bytes > DIFFERENCES_BYTES_MAX || page.num_values() > DIFFERENCES_VALUES_MAX {
                    return Err(too_large(format!(
                        "column `{}` has a page of {} values in {} MB, written as differences: the limit is \
                         {DIFFERENCES_VALUES_MAX} values in {} MB: write the file anew, `df.to_parquet(f)`",
                        self.column,
                        page.num_values(),
                        bytes.div_ceil(MB),
                        DIFFERENCES_BYTES_MAX / MB
                    )));
                }
                if self.physical == Type::INT32 || self.physical == Type::INT64 { 0 } else { bytes }
            }
            (Type::FIXED_LEN_BYTE_ARRAY, _) => self.fixed,
            _ => 0,
        };
        self.value = self.value.max(longest);
        if let Some(repetitions) = values.repetitions {
            self.list =
                self.list.max(longest_list(repetitions, self.levels, page.num_values(), &mut self.open));
        }
        let row = self.value.saturating_mul(self.list);
        let before = std::mem::replace(&mut self.row_bytes, row);
        if replace(&self.held.row, before, row) <= ROW_BYTES_MAX {
            return Ok(());
        }
        Err(too_large(format!(
            "column `{}` has values of up to {} bytes in lists of up to {}: a row can have {} MB: shorten or split what is in it",
            self.column,
            self.value,
            self.list,
            ROW_BYTES_MAX / MB
        )))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        replace(&self.held.pages, self.dictionary_bytes.saturating_add(self.page_bytes), 0);
        replace(&self.held.row, self.row_bytes, 0);
    }
}

/// Puts `after` in the place of `before` in a sum, which is returned.
fn replace(sum: &AtomicU64, before: u64, after: u64) -> u64 {
    let replaced = |sum: u64| sum.saturating_sub(before).saturating_add(after);
    let earlier = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| Some(replaced(sum)));
    replaced(earlier.unwrap_or_default())
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        if let Some(header) = self.header()? {
            self.hold_page(&header)?;
        }
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.hold_row(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.get_next_page().map(drop)
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}

/// The parts of a page.
struct Values<'a> {
    /// The levels of repetition, where there are any.
    repetitions: Option<&'a [u8]>,
    /// What follows the levels.
    bytes: &'a [u8],
    /// Whether these are the values themselves, and not their places in the dictionary.
    are_plain: bool,
}

fn values(page: &Page, levels: Levels) -> Result<Values<'_>> {
    let cut = || ParquetError::EOF("a page ends within its levels".to_owned());
    let (has_repetitions, buffer) = (levels.repetition > 0, page.buffer().as_ref());
    match page {
        Page::DictionaryPage { .. } => Ok(Values { repetitions: None, bytes: buffer, are_plain: true }),
        Page::DataPage { rep_level_encoding, encoding, .. } => {
            if has_repetitions && *rep_level_encoding != Encoding::RLE {
                return Err(ParquetError::NYI(format!("levels in {rep_level_encoding}")));
            }
            let mut rest = buffer;
            let mut level = || {
                let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                let length = usize::try_from(u32::from_le_bytes(*length))?;
                let (level, after) = after.split_at_checked(length).ok_or_else(cut)?;
                rest = after;
                Ok::<_, ParquetError>(level)
            };
            let repetitions = if has_repetitions { Some(level()?) } else { None };
            // Levels of definition in the older form have no length; they are no longer than the page, as values are not.
            let are_plain = *encoding == Encoding::PLAIN;
            if levels.is_optional && matches!(page, Page::DataPage { def_level_encoding: Encoding::RLE, .. })
            {
                level()?;
            }
            Ok(Values { repetitions, bytes: rest, are_plain })
        }
        Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, encoding, .. } => {
            let (repetitions, rest) =
                buffer.split_at_checked(usize::try_from(*rep_levels_byte_len)?).ok_or_else(cut)?;
            let (_, bytes) = rest.split_at_checked(usize::try_from(*def_levels_byte_len)?).ok_or_else(cut)?;
            let repetitions = has_repetitions.then_some(repetitions);
            Ok(Values { repetitions, bytes, are_plain: *encoding == Encoding::PLAIN })
        }
    }
}

/// The longest of values that are written one after the other, each after its length.
fn longest_value(mut bytes: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        let after = usize::try_from(length).ok().and_then(|length| rest.get(length..));
        // What is longer than the page is refused where it is read.
        let Some(after) = after else { break };
        longest = longest.max(u64::from(length));
        bytes = after;
    }
    longest
}

/// The longest list that levels of repetition tell of; `open` elements of the last one were told of before, and are after.
///
/// The levels are runs: a header, odd for `header / 2 * 8` levels packed into bits, even for `header / 2` times the same one.
fn longest_list(mut runs: &[u8], levels: Levels, count: u32, open: &mut u64) -> u64 {
    let width = u64::from(u64::BITS - levels.repetition.leading_zeros()).max(1);
    let (mut longest, mut left) = (*open, u64::from(count));
    let mut end = |is_next: bool, times: u64, open: &mut u64| {
        // A level of zero begins a row.
        if is_next {
            *open = 1;
        } else {
            *open = open.saturating_add(times);
        }
        longest = longest.max(*open);
    };
    while left > 0 {
        let Some((header, rest)) = header::varint(runs) else { break };
        runs = rest;
        if header % 2 == 0 {
            let times = (header / 2).min(left);
            let bytes = usize::try_from(width.div_ceil(8)).unwrap_or(usize::MAX);
            let Some((value, rest)) = runs.split_at_checked(bytes) else { break };
            runs = rest;
            if times > 0 {
                end(value.iter().all(|byte| *byte == 0), times, open);
            }
            left -= times;
        } else {
            let times = (header / 2).saturating_mul(8);
            let bytes = usize::try_from(times.saturating_mul(width) / 8).unwrap_or(usize::MAX);
            let (packed, rest) = runs.split_at(bytes.min(runs.len()));
            runs = rest;
            for place in 0..times.min(left) {
                let mut bits = (place * width..(place + 1) * width).map(|bit| {
                    let byte = usize::try_from(bit / 8).ok().and_then(|byte| packed.get(byte));
                    byte.is_some_and(|byte| (byte >> (bit % 8)) & 1 == 1)
                });
                end(!bits.any(|bit| bit), 1, open);
            }
            left -= times.min(left);
            if times == 0 {
                break;
            }
        }
    }
    longest
}
