//! Checkpoint folders of others: end tokens, special tokens, and files that contradict each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use common::{PIECES, open, unigram};
use serde_json::{Value, json};

/// MADLAD's order: `<unk>` 0, `<s>` 1, `</s>` 2.
const ENDS_WITH_2: [&str; 3] = ["<unk>", "<s>", "</s>"];
const T5: [&str; 3] = ["<pad>", "</s>", "<unk>"];

#[test]
fn texts_are_closed_by_the_end_token_of_the_configuration() {
    let check = |special: [&str; 3], end: i64, appends: bool| {
        let tokenizer = open(&unigram(special, appends), &Value::Null, end).unwrap();
        let ids = tokenizer.encode("pellar stone").unwrap();
        assert_eq!(ids.iter().filter(|id| **id == end).count(), 1, "{special:?}: {ids:?}");
        assert_eq!(ids.last(), Some(&end), "{special:?}");
        assert!(ids.iter().all(|id| *id == end || *id > 2), "{special:?}: {ids:?}");
        assert_eq!(tokenizer.label("pellar stone").unwrap(), ids[..ids.len() - 1]);
        // A text that says the end itself is closed all the same.
        let said = tokenizer.encode("pellar </s>").unwrap();
        let ends = usize::from(special[usize::try_from(end).unwrap()] == "</s>") + 1;
        assert_eq!(said.iter().filter(|id| **id == end).count(), ends, "{special:?}: {said:?}");
    };
    for appends in [true, false] {
        check(T5, 1, appends);
        check(ENDS_WITH_2, 2, appends);
    }
    // Only the configuration says which it is.
    check(ENDS_WITH_2, 1, false);
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    let refused = |tokenizer: Value, settings: Value, end: i64, needles: &[&str]| {
        let said = open(&tokenizer, &settings, end).unwrap_err().to_string();
        assert!(said.starts_with("tokenizer: ") && said.contains("tokenizer"), "{said}");
        for needle in needles {
            assert!(said.contains(needle), "{said}");
        }
    };
    let wanted = ["closes every text with the id 2 (`</s>`)", "eos_token_id 1, which is `<s>`"];
    refused(unigram(ENDS_WITH_2, true), Value::Null, 1, &wanted);
    let named = json!({"eos_token": {"content": "</s>"}});
    refused(unigram(ENDS_WITH_2, false), named, 1, &["name the end token `</s>`", "`<s>`"]);
    let absent = json!({"eos_token": "<eos>"});
    refused(unigram(T5, true), absent, 1, &["name the end token `<eos>`"]);
    refused(unigram(T5, true), Value::Null, 63, &["has no token with the id 63, which is eos_token_id"]);
    let mut other = unigram(T5, true);
    other["model"]["vocab"]
        .as_array_mut()
        .unwrap()
        .extend((0..64).map(|place| json!([format!("x{place}"), -9])));
    refused(other, Value::Null, 1, &["the model's vocabulary ends at 63: it belongs to another model"]);
}

#[test]
fn what_transformers_takes_for_special_is_not_in_a_text() {
    let settings = json!({
        "additional_special_tokens": ["stone"],
        "added_tokens_decoder": {
            "6": {"content": PIECES[3], "special": false},
            "7": {"content": PIECES[4], "special": true},
        },
        "mask_token": {"content": "<is nowhere>"},
    });
    let ids = [0, 4, 5, 2, 6, 7, 1];
    let decoded = |settings: &Value| open(&unigram(T5, true), settings, 1).unwrap().decode(&ids).unwrap();
    assert_eq!(decoded(&Value::Null), "pellarstone granite s");
    assert_eq!(decoded(&settings), "pellar granite");
}
