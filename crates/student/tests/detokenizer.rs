//! Pieces, joined, are the text of the whole, whatever the tokens are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use common::{PIECES, open, unigram};
use proptest::prelude::*;
use serde_json::{Value, json};
use student::{IncrementalDetokenizer, Tokenizer};

fn joined(tokenizer: &Tokenizer, ids: &[i64]) -> String {
    let mut detokenizer = IncrementalDetokenizer::default();
    let mut text: String = ids.iter().map(|id| detokenizer.push(tokenizer, *id).unwrap()).collect();
    text.push_str(&detokenizer.finish(tokenizer).unwrap());
    text
}

fn t5() -> Tokenizer {
    open(&unigram(["<pad>", "</s>", "<unk>"], true), &Value::Null, 1).unwrap()
}

/// The same model with bytes as pieces, as SentencePiece writes them: ids 14 to 29.
fn with_bytes() -> Tokenizer {
    let mut file = unigram(["<pad>", "</s>", "<unk>"], true);
    let bytes =
        ["E6", "BC", "A2", "C3", "A9", "F0", "9F", "98", "80", "0A", "61", "62", "FF", "20", "E2", "82"];
    let vocabulary = file["model"]["vocab"].as_array_mut().unwrap();
    vocabulary.extend(bytes.iter().map(|byte| json!([format!("<0x{byte}>"), -5.0])));
    file["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    open(&file, &Value::Null, 1).unwrap()
}

/// A byte-level BPE, whose tokens are parts of characters.
fn byte_level() -> Tokenizer {
    // `é` is Ã and ©, `漢` is æ, ¼ and ¢ in the alphabet of byte-level models.
    let pieces = ["<pad>", "</s>", "<unk>", "Ã", "©", "æ", "¼", "¢", "a", "Ġa", "Ġ", "ab", "ĠÃ"];
    let vocabulary: serde_json::Map<String, Value> =
        pieces.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), json!(id))).collect();
    let mut file = unigram(["<pad>", "</s>", "<unk>"], true);
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    file["pre_tokenizer"] = level.clone();
    file["decoder"] = level;
    file["model"] = json!({"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": []});
    open(&file, &Value::Null, 1).unwrap()
}

#[test]
fn a_space_behind_special_tokens_is_kept() {
    let tokenizer = t5();
    let (pellar, granite) = (4, 6);
    assert_eq!(PIECES[1], "▁pellar");
    // A special token at every place, the 16th and 17th among them.
    for place in 0..40 {
        let mut ids: Vec<i64> = (0..40).map(|place| if place % 2 == 0 { pellar } else { granite }).collect();
        for special in [0, 1, 2] {
            ids.insert(place, special);
            assert_eq!(joined(&tokenizer, &ids), tokenizer.decode(&ids).unwrap(), "{place}");
        }
    }
}

#[test]
fn what_is_left_of_a_character_comes_last() {
    let tokenizer = byte_level();
    let mut detokenizer = IncrementalDetokenizer::default();
    let pieces: Vec<String> = [8, 5, 6].iter().map(|id| detokenizer.push(&tokenizer, *id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", ""]);
    assert_eq!(detokenizer.finish(&tokenizer).unwrap(), "\u{FFFD}");
    assert_eq!(joined(&tokenizer, &[8, 5, 6, 7, 9]), "a漢 a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn joined_pieces_are_the_whole_text(ids in proptest::collection::vec(0_i64..34, 0..90)) {
        for tokenizer in [t5(), with_bytes(), byte_level()] {
            prop_assert_eq!(joined(&tokenizer, &ids), tokenizer.decode(&ids).unwrap());
        }
    }
}
