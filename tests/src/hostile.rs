//! Messages that no honest caller would send, made from a server's own descriptors and answers: a method that is new is
//! covered by itself.

use crate::calls::framed;
use crate::dice::Dice;
use crate::mutation;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, ReflectMessage, Value,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How deep messages nest.
const DEPTH: usize = 5;
/// Most known texts of one field, and known messages of one type.
const TEXTS_MAX: usize = 64;
const MESSAGES_MAX: usize = 16;
/// The longest text and the most bytes that are put into a message.
const LONG: u64 = 40_000;
/// Words of the protocols, and what parsers stumble over.
const WORDS: &[&str] = &[
    "rows",
    "input",
    "choices",
    "BYTES",
    "FP64",
    "label",
    "rationale",
    "1",
    "../..",
    "a\0b",
    "row-1",
    "none",
    "{{ x }}",
    "{% for a in range(99999999) %}{% endfor %}",
    "\u{202e}\u{fffd}",
    "2026-01-01",
    "NaN",
    "-0",
    "1e999",
    "9999999999999999999999",
    "\u{1b}[2J",
    "' OR 1=1 --",
    "%s%n",
    "é",
];

/// What is there: texts by the field that they stand in, and messages by their type.
#[derive(Debug, Clone, Default)]
pub struct Known {
    texts: BTreeMap<String, BTreeSet<String>>,
    messages: BTreeMap<String, Vec<DynamicMessage>>,
}

impl Known {
    /// Remembers what `answer` says.
    pub fn learn(&mut self, answer: &DynamicMessage) {
        let descriptor = answer.descriptor();
        let kept = self.messages.entry(descriptor.full_name().to_owned()).or_default();
        if kept.len() < MESSAGES_MAX && !kept.contains(answer) {
            kept.push(answer.clone());
        }
        for (field, value) in answer.fields() {
            let values = match value {
                Value::List(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in values {
                match value {
                    Value::Message(message) => self.learn(message),
                    Value::String(text) => self.learn_text(&descriptor, &field, text),
                    _ => {}
                }
            }
        }
    }

    fn learn_text(&mut self, message: &MessageDescriptor, field: &FieldDescriptor, text: &str) {
        // The `id` of a `Dataset` is the `dataset_id` of others.
        let name = match field.name() {
            name @ ("id" | "name") => {
                [name.to_owned(), format!("{}_{name}", snake(message.name())), snake(message.name())]
            }
            name => [name.to_owned(), name.to_owned(), name.to_owned()],
        };
        for name in name {
            let known = self.texts.entry(name).or_default();
            if known.len() < TEXTS_MAX {
                known.insert(text.to_owned());
            }
        }
    }

    /// What is known here and not in `other`: what may be changed where that is to stay.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let is_other =
            |name: &String, text: &String| other.texts.get(name).is_some_and(|known| known.contains(text));
        let texts = self.texts.iter().map(|(name, texts)| {
            (name.clone(), texts.iter().filter(|text| !is_other(name, text)).cloned().collect())
        });
        let is_old =
            |name: &String, message| other.messages.get(name).is_some_and(|known| known.contains(message));
        let messages = self.messages.iter().map(|(name, messages)| {
            (name.clone(), messages.iter().filter(|message| !is_old(name, message)).cloned().collect())
        });
        Self { texts: texts.collect(), messages: messages.collect() }
    }

    /// A message for `method` that would be accepted, as far as is known.
    pub fn ask(&self, dice: &mut Dice, method: &MethodDescriptor) -> Vec<u8> {
        valid(dice, self, &method.input(), 0).encode_to_vec()
    }

    fn text(&self, dice: &mut Dice, name: &str) -> Option<String> {
        let known = self.texts.get(name)?;
        known.iter().nth(dice.place(known.len())).cloned()
    }

    fn any_text(&self, dice: &mut Dice) -> Option<String> {
        let all: Vec<&String> = self.texts.values().flatten().collect();
        dice.one_of(&all).map(|text| (*text).clone())
    }
}

/// `DatasetShard` as `dataset_shard`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// A kind of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// Bytes that are no message but by chance.
    Bytes,
    /// Fields of the right kind with any values.
    Fields,
    /// What would be accepted, as far as is known.
    Valid,
    /// The same, with some of its bytes changed.
    Mutated,
    /// A message that is not framed as messages are.
    Misframed,
}

impl Attempt {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Bytes, Self::Fields, Self::Valid, Self::Mutated, Self::Misframed];

    /// A call of `method`: its body, and the header that says how that is compressed, where it does.
    pub fn body(
        self,
        dice: &mut Dice,
        known: &Known,
        method: &MethodDescriptor,
    ) -> (Vec<u8>, Option<&'static str>) {
        let input = method.input();
        let message = match self {
            Self::Bytes => {
                let count = if dice.happens(2) { dice.below(LONG) } else { dice.below(200) };
                dice.bytes(usize::try_from(count).unwrap_or(0))
            }
            Self::Fields => fields(dice, known, &input, 0).encode_to_vec(),
            Self::Valid | Self::Misframed => valid(dice, known, &input, 0).encode_to_vec(),
            Self::Mutated => {
                let mut bytes = valid(dice, known, &input, 0).encode_to_vec();
                for _ in 0..=dice.below(4) {
                    bytes = mutated(dice, bytes);
                }
                bytes
            }
        };
        if self == Self::Misframed {
            return misframed(dice, message);
        }
        let more = if method.is_client_streaming() { dice.place(3) } else { 0 };
        (framed(&vec![message; 1 + more]), None)
    }
}

/// A message in a body that is not one of a call.
fn misframed(dice: &mut Dice, message: Vec<u8>) -> (Vec<u8>, Option<&'static str>) {
    let mut body = framed(std::slice::from_ref(&message));
    let mut flag = |flag: u8| {
        if let Some(first) = body.first_mut() {
            *first = flag;
        }
    };
    match dice.below(9) {
        0 => flag(dice.below(255) as u8 + 1),
        1 => flag(1),
        2 => {
            flag(1);
            return (body, Some("gzip"));
        }
        3 => body.truncate(dice.place(body.len())),
        4 => body.clear(),
        5 => return (body, Some("br")),
        6 => body.extend(framed(&[message])),
        7 => {
            if let Some(length) = body.get_mut(1..5) {
                length.copy_from_slice(&dice.any().to_be_bytes()[..4]);
            }
        }
        _ if dice.happens(20) => {
            let mut body = framed(&[zip_bomb()]);
            body.splice(..1, [1]);
            return (body, Some("gzip"));
        }
        _ => body.extend(dice.bytes(3)),
    }
    (body, None)
}

/// Some 200 kB of gzip that hold 32 MiB of zeros: a literal, and matches of the longest length (RFC 1951, fixed codes).
fn zip_bomb() -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut count) = (0_u32, 0);
    let mut put = |code: u32, length: u32| {
        bits |= code << count;
        count += length;
        while count >= 8 {
            bytes.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    // The last block, of fixed codes; 0 is 00110000, a match of 258 is 11000101 and its distance 1 is 00000, first bit first.
    put(0b011, 3);
    put(0b0000_1100, 8);
    for _ in 0..(32 << 20) / 258 {
        put(0b1010_0011, 8);
        put(0, 5);
    }
    put(0, 8 + 7);
    bytes.extend([0; 8]);
    bytes
}

fn text(dice: &mut Dice, known: &Known, name: &str) -> String {
    match dice.below(10) {
        0..3 => known.text(dice, name).unwrap_or_default(),
        3 => known.any_text(dice).unwrap_or_default(),
        4 => String::new(),
        5 => request_id(dice),
        6 => "x".repeat(dice.place(20_000)),
        7 => dice.one_of(WORDS).map_or_else(String::new, |word| (*word).to_owned()),
        _ => (0..dice.below(40)).filter_map(|_| char::from_u32(dice.below(0x11_0000) as u32)).collect(),
    }
}

/// A UUID.
fn request_id(dice: &mut Dice) -> String {
    let (high, low) = (dice.any(), dice.any());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

fn number(dice: &mut Dice) -> u64 {
    match dice.below(6) {
        0 => u64::MAX,
        1 => i64::MAX as u64,
        2 => u64::from(u32::MAX),
        3 => dice.any(),
        _ => dice.below(20),
    }
}

fn scalar(dice: &mut Dice, number: u64, kind: &Kind) -> Value {
    match kind {
        Kind::Double => Value::F64(number as f64),
        Kind::Float => Value::F32(number as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number),
        Kind::Bytes => Value::Bytes(dice.bytes((number % 40) as usize).into()),
        Kind::Bool | Kind::String | Kind::Enum(_) | Kind::Message(_) => Value::Bool(dice.happens(50)),
    }
}

/// A message whose fields have any values of their kinds.
fn fields(dice: &mut Dice, known: &Known, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let value = |dice: &mut Dice, field: &FieldDescriptor| match field.kind() {
        Kind::String => Value::String(text(dice, known, field.name())),
        Kind::Enum(_) => Value::EnumNumber(dice.below(16) as i32 - 2),
        Kind::Message(message) => Value::Message(fields(dice, known, &message, depth + 1)),
        Kind::Double if dice.happens(60) => {
            let edge = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 0.5];
            Value::F64(dice.one_of(&edge).copied().unwrap_or(0.5))
        }
        // A student that writes for long tells nothing more, and takes its time.
        kind if field.name() == "tokens_max" => scalar(dice, 1, &kind),
        kind => {
            let number = number(dice);
            scalar(dice, number, &kind)
        }
    };
    fill(dice, descriptor, |dice, field| {
        let is_deep = depth >= DEPTH && matches!(field.kind(), Kind::Message(_));
        (!is_deep && !dice.happens(25)).then(|| value(dice, field))
    })
}

/// A message that would be accepted, as far as is known.
fn valid(dice: &mut Dice, known: &Known, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let seen = known.messages.get(descriptor.full_name()).filter(|seen| depth > 0 && !seen.is_empty());
    if let Some(seen) = seen.and_then(|seen| dice.one_of(seen)) {
        return seen.clone();
    }
    fill(dice, descriptor, |dice, field| {
        let name = field.name();
        Some(match field.kind() {
            Kind::String if name == "request_id" => Value::String(request_id(dice)),
            Kind::String if name == "page_token" => return None,
            Kind::String => {
                let word = dice.happens(50).then(|| "word".to_owned());
                Value::String(known.text(dice, name).or(word)?)
            }
            Kind::Enum(values) => {
                // Zero is none, which filters take for all.
                let more = dice.happens(40);
                let numbers: Vec<i32> =
                    values.values().map(|value| value.number()).filter(|one| *one > 0).collect();
                Value::EnumNumber(dice.one_of(&numbers).copied().filter(|_| field.is_list() || more)?)
            }
            Kind::Message(_) if depth >= DEPTH || dice.happens(15) => return None,
            Kind::Message(message) => Value::Message(valid(dice, known, &message, depth + 1)),
            kind if name == "tokens_max" => scalar(dice, 2, &kind),
            _ if dice.happens(70) => return None,
            kind => {
                let small = dice.below(3);
                scalar(dice, small, &kind)
            }
        })
    })
}

/// A message with the fields for which `value` has one.
fn fill(
    dice: &mut Dice,
    descriptor: &MessageDescriptor,
    mut value: impl FnMut(&mut Dice, &FieldDescriptor) -> Option<Value>,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let filled = if field.is_map() {
            // Of a map's entry no value is made: its keys are of many kinds.
            Some(Value::Map(HashMap::<MapKey, Value>::new()))
        } else if field.is_list() {
            let count = dice.below(4);
            Some(Value::List((0..count).filter_map(|_| value(dice, &field)).collect()))
        } else {
            value(dice, &field)
        };
        if let Some(filled) = filled {
            let _ = message.try_set_field(&field, filled);
        }
    }
    message
}

/// A field of an encoded message: where its key begins, its content begins, and it ends.
#[derive(Debug, Clone, Copy)]
struct Field {
    begin: usize,
    content: usize,
    end: usize,
    has_length: bool,
}

/// The fields of an encoded message, as far as it can be read.
fn split(bytes: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    let mut begin = 0;
    while begin < bytes.len() {
        let Some((key, after_key)) = varint(bytes, begin) else { break };
        let field = match key & 7 {
            0 => varint(bytes, after_key).map(|(_, end)| (after_key, end, false)),
            1 => Some((after_key, after_key + 8, false)),
            2 => varint(bytes, after_key).and_then(|(length, content)| {
                Some((content, content.checked_add(usize::try_from(length).ok()?)?, true))
            }),
            5 => Some((after_key, after_key + 4, false)),
            _ => None,
        };
        let Some((content, end, has_length)) = field.filter(|(_, end, _)| *end <= bytes.len()) else { break };
        found.push(Field { begin, content, end, has_length });
        begin = end;
    }
    found
}

fn varint(bytes: &[u8], from: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (place, byte) in bytes.get(from..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * place as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value, from + place + 1));
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The same message with one thing changed: bits, bytes, lengths, fields.
fn mutated(dice: &mut Dice, bytes: Vec<u8>) -> Vec<u8> {
    let fields = split(&bytes);
    match (dice.below(10), dice.one_of(&fields).copied()) {
        (0, _) => nested(dice, bytes),
        (kind @ 1..6, Some(field)) => changed(dice, bytes, kind, field),
        _ => mutation::changed(dice, bytes),
    }
}

/// The same message with a field that nests deeper than anyone reads.
fn nested(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    let key = (1 + dice.below(15) as u8) << 3 | 2;
    let mut nested = Vec::new();
    for _ in 0..dice.below(1_000) {
        let mut outer = vec![key];
        put_varint(&mut outer, nested.len() as u64);
        outer.append(&mut nested);
        nested = outer;
    }
    bytes.append(&mut nested);
    bytes
}

/// The same message with one of its fields changed.
fn changed(dice: &mut Dice, bytes: Vec<u8>, kind: u64, field: Field) -> Vec<u8> {
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let (before, whole, after) =
        (part(0, field.begin), part(field.begin, field.end), part(field.end, bytes.len()));
    let key = varint(&bytes, field.begin).map_or(field.begin, |(_, end)| end);
    let mut made = before.to_vec();
    match kind {
        // Again, many times.
        1 => {
            let times = if dice.happens(5) { dice.below(2_000) } else { dice.below(4) };
            let times = times.min(LONG / (whole.len() as u64).max(1));
            made.extend(whole.repeat(1 + times as usize));
        }
        // Another length, the same content.
        2 if field.has_length => {
            made.extend(part(field.begin, key));
            let length = number(dice);
            put_varint(&mut made, length);
            made.extend(part(field.content, field.end));
        }
        // Longer content, and its length.
        3 if field.has_length => {
            made.extend(part(field.begin, key));
            let more = dice.below(LONG);
            put_varint(&mut made, (field.end - field.content) as u64 + more);
            made.extend(part(field.content, field.end));
            made.resize(made.len() + more as usize, b'x');
        }
        // Something changed within it.
        _ if field.has_length => {
            let inner = mutated(dice, part(field.content, field.end).to_vec());
            made.extend(part(field.begin, key));
            put_varint(&mut made, inner.len() as u64);
            made.extend(inner);
        }
        // Another number.
        _ => {
            made.extend(part(field.begin, key));
            let number = number(dice);
            put_varint(&mut made, number);
        }
    }
    made.extend(after);
    made
}
