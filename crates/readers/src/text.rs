//! Text files: encodings, and lines of bounded length.

use crate::LINE_BYTES_MAX;
use crate::error::{Place, ReadError};
use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};
use encoding_rs_io::DecodeReaderBytesBuilder;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// First bytes of files that are not text, or not the rows themselves, and what to do about them.
const FOREIGN: &[(&[u8], &str)] = &[
    (&[0xFF, 0xFE, 0x00, 0x00], UTF_32),
    (&[0x00, 0x00, 0xFE, 0xFF], UTF_32),
    (&[0x1F, 0x8B], "is compressed (gzip): unpack it first, with `gzip -d`"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "is compressed (zstd): unpack it first, with `zstd -d`"),
    (&[0xFD, b'7', b'z', b'X', b'Z'], "is compressed (xz): unpack it first, with `xz -d`"),
    (b"BZh", "is compressed (bzip2): unpack it first, with `bzip2 -d`"),
    (&[0x04, 0x22, 0x4D, 0x18], "is compressed (LZ4): unpack it first, with `lz4 -d`"),
    (b"PK\x03\x04", "is an archive (zip, or a spreadsheet): unpack it, or export it as CSV"),
    (&[0xD0, 0xCF, 0x11, 0xE0], "is an old spreadsheet or document: export it as CSV"),
    (b"PAR1", "is a Parquet file: use `distillery import parquet`, or name it .parquet"),
    (b"ARROW1", "is an Arrow file: write it as Parquet"),
    (b"SQLite format 3", "is an SQLite database: export the table as CSV"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the data: fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "is a web page: was the download refused?"),
    (b"<!doctype", "is a web page: was the download refused?"),
    (b"<html", "is a web page: was the download refused?"),
];
const UTF_32: &str = "is UTF-32: convert it, with `iconv -f UTF-32 -t UTF-8`";
/// Bytes that tell what a file is.
const START_BYTES: u64 = 32;

/// Something to read.
pub(crate) type Stream = Box<dyn Read + Send>;

/// Opens a file that is not a directory.
pub(crate) fn open(path: &Path) -> Result<File, ReadError> {
    let file = File::open(path).map_err(|error| ReadError::io(path, &error))?;
    let metadata = file.metadata().map_err(|error| ReadError::io(path, &error))?;
    if metadata.is_dir() {
        return Err(ReadError::io(path, &ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

/// `stream` as UTF-8 without a byte order mark, or what it is instead of text. UTF-16 is converted, with a mark or
/// without: rows begin with a character of ASCII, whose other byte is zero.
pub(crate) fn plain(path: &Path, mut stream: Stream) -> Result<Stream, ReadError> {
    let mut start = Vec::new();
    stream.by_ref().take(START_BYTES).read_to_end(&mut start).map_err(|error| ReadError::io(path, &error))?;
    let foreign = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, message)| *message);
    if let Some(message) = foreign.or_else(|| is_utf32(&start).then_some(UTF_32)) {
        return Err(ReadError::new(path, Place::File, message));
    }
    let (mark, encoding) = encoding(&start);
    let rest = Cursor::new(start.get(mark..).unwrap_or_default().to_vec()).chain(stream);
    Ok(match encoding {
        None => Box::new(rest),
        wide => Box::new(DecodeReaderBytesBuilder::new().encoding(wide).build(rest)),
    })
}

/// The length of the byte order mark, and what is to be converted.
fn encoding(start: &[u8]) -> (usize, Option<&'static Encoding>) {
    match start {
        [0xEF, 0xBB, 0xBF, ..] => (3, None),
        [0xFF, 0xFE, ..] => (2, Some(UTF_16LE)),
        [0xFE, 0xFF, ..] => (2, Some(UTF_16BE)),
        [one, 0, other, 0, ..] if *one > 0 && *other > 0 => (0, Some(UTF_16LE)),
        [0, one, 0, other, ..] if *one > 0 && *other > 0 => (0, Some(UTF_16BE)),
        _ => (0, None),
    }
}

fn is_utf32(start: &[u8]) -> bool {
    matches!(start, [one, 0, 0, 0, ..] | [0, 0, 0, one, ..] if *one > 0)
}

/// `bytes` as text, or the place in it from which it is none, from 1, and what to do.
pub(crate) fn utf8(bytes: Vec<u8>) -> Result<String, (u64, &'static str)> {
    String::from_utf8(bytes).map_err(|wrong| {
        let column = wrong.utf8_error().valid_up_to() as u64 + 1;
        (column, "is not UTF-8 from here: convert the file, for example with `iconv -f LATIN1 -t UTF-8`")
    })
}

/// Lines of UTF-8 text, each with its number. A wrong line is an error and the next one follows; after a failure of the
/// file itself nothing does.
pub(crate) struct Lines {
    file: PathBuf,
    reader: BufReader<Stream>,
    number: u64,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(file: &Path, stream: Stream) -> Result<Self, ReadError> {
        Ok(Self::after(file, buffered(file, stream)?, 0))
    }

    /// The lines of `reader`, of which `number` were read already.
    pub(crate) fn after(file: &Path, reader: BufReader<Stream>, number: u64) -> Self {
        Self { file: file.to_owned(), reader, number, ended: false }
    }

    /// What is left to read, and how many lines were read.
    pub(crate) fn into_rest(self) -> (BufReader<Stream>, u64) {
        (self.reader, self.number)
    }

    /// The bytes of the next line without its end, `None` in place of a line beyond the limit; nothing at the end.
    /// What is too long is read past, and never held.
    fn take(&mut self) -> std::io::Result<Option<Option<Vec<u8>>>> {
        let (mut line, mut any, mut too_long) = (Vec::new(), false, false);
        loop {
            let available = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            let taken = part.len() + usize::from(end.is_some());
            any |= taken > 0;
            too_long |= line.len() + part.len() > LINE_BYTES_MAX;
            if too_long {
                line = Vec::new();
            } else {
                line.extend_from_slice(part);
            }
            self.reader.consume(taken);
            if end.is_some() || taken == 0 {
                return Ok(any.then_some((!too_long).then_some(line)));
            }
        }
    }

    fn text(&self, bytes: Option<Vec<u8>>) -> Result<(u64, String), ReadError> {
        let error = |column, message: String| {
            ReadError::new(&self.file, Place::Line { line: self.number, column }, message)
        };
        let Some(bytes) = bytes else {
            return Err(error(None, too_long()));
        };
        utf8(bytes)
            .map(|text| (self.number, text))
            .map_err(|(column, message)| error(Some(column), message.to_owned()))
    }
}

/// A reader of the text in `stream`.
pub(crate) fn buffered(file: &Path, stream: Stream) -> Result<BufReader<Stream>, ReadError> {
    Ok(BufReader::with_capacity(64 * 1024, plain(file, stream)?))
}

/// What is said of a row beyond the limit.
pub(crate) fn too_long() -> String {
    format!(
        "is longer than {LINE_BYTES_MAX} bytes: split or shorten the row; rows inside one object are written one a line \
         with `jq -c '.data[]'`"
    )
}

impl Iterator for Lines {
    type Item = Result<(u64, String), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.number += 1;
        match self.take() {
            Ok(line) => line.map(|bytes| self.text(bytes)),
            Err(error) => {
                self.ended = true;
                Some(Err(ReadError { place: Place::line(self.number), ..ReadError::io(&self.file, &error) }))
            }
        }
    }
}

/// The bytes of a text, one by one, with the place of the next one.
pub(crate) struct Bytes {
    reader: BufReader<Stream>,
    /// The line of the next byte, from 1.
    pub(crate) line: u64,
    /// Its column, a byte of the line, from 1.
    pub(crate) column: u64,
}

impl Bytes {
    /// The bytes of `reader`, of which `lines` lines were read already.
    pub(crate) fn after(reader: BufReader<Stream>, lines: u64) -> Self {
        Self { reader, line: lines + 1, column: 1 }
    }

    /// The next byte, not taken; `None` at the end.
    pub(crate) fn peek(&mut self) -> std::io::Result<Option<u8>> {
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return Ok(other?.first().copied()),
            }
        }
    }

    /// Takes `byte`, which is the next one. A line ends as editors see it: with a line feed, or a carriage return alone.
    pub(crate) fn take(&mut self, byte: u8) -> std::io::Result<()> {
        self.reader.consume(1);
        self.column += 1;
        if byte == b'\n' || (byte == b'\r' && self.peek()? != Some(b'\n')) {
            self.line += 1;
            self.column = 1;
        }
        Ok(())
    }

    /// The place of the next byte.
    pub(crate) fn place(&self) -> Place {
        Place::Line { line: self.line, column: Some(self.column) }
    }

    /// What is left to read, and how many lines were read: to be asked at the beginning of a line.
    pub(crate) fn into_rest(self) -> (BufReader<Stream>, u64) {
        (self.reader, self.line - 1)
    }
}
