//! What the tests share: tokenizers in files of others' making.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use serde_json::{Value, json};
use student::{StudentError, Tokenizer};

/// The pieces behind the special tokens, whose ids are 0 to 2.
pub const PIECES: &[&str] = &["▁", "▁pellar", "stone", "▁granite", "▁s", "▁t", "s", "t", "o", "n", "e"];
/// How many ids the models of these tests have.
pub const VOCABULARY: i64 = 64;

/// `tokenizer.json` of a Unigram model; the last of `special` is what unknown characters become where it is `<unk>`.
pub fn unigram(special: [&str; 3], appends_end: bool) -> Value {
    let vocabulary: Vec<Value> = special
        .iter()
        .map(|token| json!([token, 0.0]))
        .chain(PIECES.iter().map(|piece| json!([piece, -1.0])))
        .collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let place = |wanted: &str| special.iter().position(|token| *token == wanted).unwrap();
    let end = place("</s>");
    let processor = json!({
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [end], "tokens": ["</s>"]}},
    });
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": metaspace, "post_processor": if appends_end { processor } else { Value::Null },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": place("<unk>"), "vocab": vocabulary, "byte_fallback": false},
    })
}

/// Opens a tokenizer as it would lie in a folder; `settings` are its `tokenizer_config.json`.
pub fn open(tokenizer: &Value, settings: &Value, end: i64) -> Result<Tokenizer, StudentError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    if !settings.is_null() {
        std::fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    }
    let config = t5::Config { eos_token_id: end, ..t5::Size::Tiny.config(VOCABULARY) };
    Tokenizer::open(folder.path(), &config)
}
