//! Text files: encodings, and lines of bounded length.

use crate::LINE_BYTES_MAX;
use crate::error::{Place, ReadError};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// First bytes of files that are not text, and what to do about them.
const FOREIGN: &[(&[u8], &str)] = &[
    (&[0xFF, 0xFE], "is UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`"),
    (&[0xFE, 0xFF], "is UTF-16: convert it, for example with `iconv -f UTF-16 -t UTF-8`"),
    (&[0x1F, 0x8B], "is compressed (gzip): unpack it first"),
    (b"PK\x03\x04", "is an archive (zip, or a spreadsheet): unpack it, or export it as CSV"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "is compressed (zstd): unpack it first"),
    (b"PAR1", "is a Parquet file: import it as such"),
];
const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];

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

/// `stream` without a UTF-8 byte order mark, or what it is instead of text.
pub(crate) fn plain(path: &Path, mut stream: Stream) -> Result<Stream, ReadError> {
    let mut start = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut start).map_err(|error| ReadError::io(path, &error))?;
    if let Some((_, message)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ReadError::new(path, Place::File, *message));
    }
    let start = start.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec).unwrap_or(start);
    Ok(Box::new(Cursor::new(start).chain(stream)))
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
        let reader = BufReader::with_capacity(64 * 1024, plain(file, stream)?);
        Ok(Self { file: file.to_owned(), reader, number: 0, ended: false })
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
            Err(ReadError::new(&self.file, Place::Line { line: self.number, column }, message))
        };
        let Some(bytes) = bytes else {
            return error(None, format!("is longer than {LINE_BYTES_MAX} bytes: split or shorten the row"));
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok((self.number, text)),
            Err(wrong) => error(
                Some(wrong.utf8_error().valid_up_to() as u64 + 1),
                "is not UTF-8 from here: convert the file, for example with `iconv -f LATIN1 -t UTF-8`"
                    .to_owned(),
            ),
        }
    }
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
