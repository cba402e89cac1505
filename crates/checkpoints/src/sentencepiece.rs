//! SentencePiece models as `tokenizer.json`, in the form that `transformers` gives those of T5; and ByT5's, which are bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};

/// What stands for a space.
const SPACE: &str = "▁";
/// ByT5's special tokens, in order of id.
const BYTES_SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];
/// How many tokens ByT5 adds to its bytes.
const BYTES_EXTRA: usize = 125;

/// `ModelProto` of sentencepiece_model.proto, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(enumeration = "Kind", optional, tag = "3", default = "Normal")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(enumeration = "Algorithm", optional, tag = "3", default = "Unigram")]
    algorithm: Option<i32>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum Algorithm {
    Unigram = 1,
    Bpe = 2,
    Word = 3,
    Char = 4,
}

/// A vocabulary that was read.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    model: Model,
}

impl SentencePiece {
    /// Reads a `spiece.model`.
    ///
    /// # Errors
    /// It is not one, or not one of the Unigram algorithm.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let model = Model::decode(bytes).map_err(|error| format!("is not a SentencePiece model: {error}"))?;
        let algorithm = model.trainer.as_ref().map_or(Algorithm::Unigram, Trainer::algorithm);
        if algorithm != Algorithm::Unigram {
            return Err(format!(
                "is a SentencePiece model of the {algorithm:?} algorithm: those of T5 are Unigram models"
            ));
        }
        if model.pieces.is_empty() {
            return Err("is a SentencePiece model without a vocabulary".to_owned());
        }
        Ok(Self { model })
    }

    /// How many pieces there are.
    pub(crate) fn len(&self) -> usize {
        self.model.pieces.len()
    }

    /// Whether the sentinels of pre-training are among the pieces.
    pub(crate) fn has_extra_ids(&self) -> bool {
        self.model.pieces.iter().any(|piece| piece.piece().starts_with("<extra_id_"))
    }

    /// `tokenizer.json`, with so many sentinels behind the pieces.
    ///
    /// # Errors
    /// The model has no unknown piece or no end.
    pub(crate) fn tokenizer(&self, extra_ids: usize) -> Result<Value, String> {
        let (unknown, end) = self.marks()?;
        let mut pieces: Vec<(String, f32, Kind)> = Vec::with_capacity(self.len() + extra_ids);
        for piece in &self.model.pieces {
            pieces.push((piece.piece().to_owned(), piece.score(), piece.kind()));
        }
        pieces.extend((0..extra_ids).rev().map(|id| (format!("<extra_id_{id}>"), 0.0, Kind::Control)));
        let added = pieces.iter().enumerate().filter(|(_, (_, _, kind))| is_added(*kind));
        let added = added.map(|(id, (piece, _, kind))| added_token(id, piece, *kind != Kind::UserDefined));
        let charsmap = self.model.normalizer.as_ref().map_or(&[][..], Normalizer::precompiled_charsmap);
        let normalizer = match charsmap {
            [] => Value::Null,
            map => json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(map)}),
        };
        let metaspace =
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace.clone()]},
            "post_processor": ending(&end),
            "decoder": metaspace,
            "model": {
                "type": "Unigram",
                "unk_id": unknown,
                "vocab": pieces.iter().map(|(piece, score, _)| json!([piece, f64::from(*score)])).collect::<Vec<_>>(),
                "byte_fallback": false,
            },
        }))
    }

    /// The id of the unknown piece, and the end with its id.
    fn marks(&self) -> Result<(usize, (String, usize)), String> {
        let trainer = self.model.trainer.clone().unwrap_or_default();
        let place = |id: i32, what: &str| {
            let place = usize::try_from(id).ok().filter(|place| *place < self.len());
            place.ok_or_else(|| format!("is a SentencePiece model without {what}: those of T5 have one"))
        };
        let unknown = place(trainer.unk_id(), "an unknown piece")?;
        let end = place(trainer.eos_id(), "an end of sentence")?;
        let name = self.model.pieces.get(end).map(|piece| piece.piece().to_owned());
        Ok((unknown, (name.unwrap_or_default(), end)))
    }
}

/// Pieces that are found in a text as they stand, before it is split.
fn is_added(kind: Kind) -> bool {
    matches!(kind, Kind::Unknown | Kind::Control | Kind::UserDefined)
}

fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

/// Ends every text with the end token.
fn ending((end, id): &(String, usize)) -> Value {
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let end_token = json!({"SpecialToken": {"id": end, "type_id": 0}});
    json!({
        "type": "TemplateProcessing",
        "single": [text("A"), end_token],
        "pair": [text("A"), end_token, text("B"), end_token],
        "special_tokens": {end: {"id": end, "ids": [id], "tokens": [end]}},
    })
}

/// `tokenizer.json` of ByT5: every byte is a token, its id 3 more than the byte.
pub(crate) fn bytes_tokenizer() -> Value {
    let first = BYTES_SPECIAL.len();
    let mut vocabulary = serde_json::Map::new();
    for (id, token) in BYTES_SPECIAL.iter().enumerate() {
        vocabulary.insert((*token).to_owned(), id.into());
    }
    for byte in 0..=u8::MAX {
        vocabulary.insert(byte_letter(byte).to_string(), (first + usize::from(byte)).into());
    }
    let extra = first + usize::from(u8::MAX) + 1;
    let special = BYTES_SPECIAL.iter().enumerate().map(|(id, token)| (id, (*token).to_owned()));
    let special = special.chain((0..BYTES_EXTRA).map(|id| (extra + id, format!("<extra_id_{id}>"))));
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.map(|(id, token)| added_token(id, &token, true)).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": level.clone(),
        "post_processor": ending(&("</s>".to_owned(), 1)),
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [],
        },
    })
}

/// The letter that stands for a byte in byte-level vocabularies (GPT-2): printable bytes stand for themselves, the others
/// for the letters from U+0100 on, in order.
fn byte_letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(*byte)).count();
    u32::try_from(before)
        .ok()
        .and_then(|before| char::from_u32(0x100 + before))
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}
