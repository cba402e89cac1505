//! The header of a page: the fields of Thrift's compact protocol that say how large the page is, and the length of the whole.

use parquet::errors::{ParquetError, Result};
use std::io::Read;

/// Structures within structures.
const DEPTH_MAX: u32 = 16;
/// The numbers of fields, and of kinds of pages, in `parquet.thrift`.
const KIND: i64 = 1;
const UNPACKED: i64 = 2;
const PACKED: i64 = 3;
const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;

/// The header of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Its own length, in bytes.
    pub(super) length: u64,
    /// Bytes of the page in the file.
    pub(super) packed: u64,
    /// Bytes of the page once it is unpacked.
    pub(super) unpacked: u64,
    pub(super) is_index: bool,
    pub(super) is_dictionary: bool,
}

/// Reads a header from its first byte on.
pub(super) fn read(from: impl Read) -> Result<Header> {
    let mut reader = Reader { from, length: 0 };
    let mut header = Header::default();
    reader.fields(0, &mut |field, number| {
        let bytes = u64::try_from(number).unwrap_or(0);
        match field {
            KIND => {
                (header.is_index, header.is_dictionary) = (number == INDEX_PAGE, number == DICTIONARY_PAGE)
            }
            UNPACKED => header.unpacked = bytes,
            PACKED => header.packed = bytes,
            _ => {}
        }
    })?;
    Ok(Header { length: reader.length, ..header })
}

/// A number of any length at the beginning of `bytes`, and what follows it; `None` where there is none.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7F).checked_shl(u32::try_from(place * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(place + 1..)?));
        }
    }
    None
}

struct Reader<R> {
    from: R,
    length: u64,
}

impl<R: Read> Reader<R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        self.length += 1;
        let [byte] = byte;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let mut bytes = Vec::new();
        loop {
            bytes.push(self.byte()?);
            if let Some((number, _)) = varint(&bytes) {
                return Ok(number);
            }
            if bytes.len() >= 10 {
                return Err(broken());
            }
        }
    }

    /// A number with its sign in the last bit.
    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> Result<()> {
        let passed = std::io::copy(&mut self.from.by_ref().take(bytes), &mut std::io::sink())?;
        self.length += passed;
        if passed == bytes { Ok(()) } else { Err(broken()) }
    }

    /// A structure, up to its end; `seen` gets the integers in it, not those of structures within.
    fn fields(&mut self, depth: u32, seen: &mut dyn FnMut(i64, i64)) -> Result<()> {
        let mut field = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => self.signed()?,
                more => field.saturating_add(more.into()),
            };
            match head & 0x0F {
                4..=6 => seen(field, self.signed()?),
                kind => self.value(kind, depth)?,
            }
        }
    }

    /// A value of the kind, passed over. A truth value of a field is in its kind.
    fn value(&mut self, kind: u8, depth: u32) -> Result<()> {
        if depth >= DEPTH_MAX {
            return Err(broken());
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.pass(1),
            4..=6 => self.number().map(drop),
            7 => self.pass(8),
            8 => self.number().and_then(|bytes| self.pass(bytes)),
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.number()?,
                    count => count.into(),
                };
                for _ in 0..count {
                    self.element(head & 0x0F, depth + 1)?;
                }
                Ok(())
            }
            11 => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.element(kinds >> 4, depth + 1)?;
                    self.element(kinds & 0x0F, depth + 1)?;
                }
                Ok(())
            }
            12 => self.fields(depth + 1, &mut |_, _| {}),
            _ => Err(broken()),
        }
    }

    /// The same in a list, where a truth value is a byte.
    fn element(&mut self, kind: u8, depth: u32) -> Result<()> {
        if matches!(kind, 1 | 2) { self.pass(1) } else { self.value(kind, depth) }
    }
}

fn broken() -> ParquetError {
    ParquetError::General("the header of a page cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_past_what_else_is_in_it() {
        // type: data page; 300 bytes of 100; a structure with a number, a binary and a truth value; a list of two numbers.
        let bytes = [
            0x15, 0, 0x15, 0xD8, 4, 0x15, 0xC8, 1, 0x2C, 0x15, 2, 0x18, 3, 1, 2, 3, 0x11, 0, 0x19, 0x25, 2,
            4, 0, 9,
        ];
        let header = read(bytes.as_slice()).unwrap();
        let expected = Header { length: 23, packed: 100, unpacked: 300, ..Header::default() };
        assert_eq!(header, expected);
        let dictionary = read([0x15, 4, 0].as_slice()).unwrap();
        assert!(dictionary.is_dictionary && !dictionary.is_index);
        for broken in [&bytes[..9], &[0x1C; 40], &[0xFF], &[0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
        assert_eq!(varint(&[0x80; 12]), None);
    }
}
