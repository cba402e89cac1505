//! Bytes that are almost what a reader expects.

use crate::dice::Dice;

/// What numbers and texts are replaced by: the ends of their ranges, and what readers stumble over.
const PIECES: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1e999",
    b"-0.0",
    b"NaN",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967296",
    b"null",
    b"true",
    b"\"\"",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n\n",
    b"\\u0000",
    b"\\ud800",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"\"",
    b"'",
    b"\\",
    b",",
    b";",
    b"\t",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"../",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
];
/// The longest run of one piece.
const RUN_BYTES: u64 = 20_000;

/// `bytes` with one thing changed.
#[must_use]
pub fn changed(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    let place = dice.place(bytes.len());
    let end = place + dice.place((bytes.len() - place).min(64));
    match dice.below(10) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = dice.any() as u8;
            }
        }
        2 => bytes.truncate(place),
        3 => {
            let count = dice.place(8);
            bytes.splice(place..place, dice.bytes(count));
        }
        4 => drop(bytes.drain(place..end)),
        // A part of it, elsewhere or again.
        5 | 6 => {
            let part = bytes.get(place..end).unwrap_or_default().to_vec();
            let times = if dice.happens(5) { dice.below(RUN_BYTES / (part.len() as u64 + 1)) } else { 1 };
            let to = dice.place(bytes.len() + 1);
            bytes.splice(to..to, part.repeat(times as usize));
        }
        // Something else in its place, or within it; once or very often.
        7 | 8 => {
            let piece = dice.one_of(PIECES).copied().unwrap_or_default();
            let times = if dice.happens(5) { dice.below(RUN_BYTES / piece.len() as u64) } else { 1 };
            let end = if dice.happens(50) { place } else { end };
            bytes.splice(place..end, piece.repeat(times as usize));
        }
        _ => {
            if let Some(part) = bytes.get_mut(place..end) {
                part.reverse();
            }
        }
    }
    bytes
}

/// A new input made of `seeds`: one of them, or the beginning of one and the end of another, changed a few times.
#[must_use]
pub fn made_of(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = dice.one_of(seeds).cloned().unwrap_or_default();
    if dice.happens(15)
        && let Some(other) = dice.one_of(seeds)
    {
        bytes.truncate(dice.place(bytes.len() + 1));
        bytes.extend(other.get(dice.place(other.len() + 1)..).unwrap_or_default());
    }
    for _ in 0..=dice.below(6) {
        bytes = changed(dice, bytes);
    }
    bytes
}
