//! The tokenizer: the same bytes in every process, texts that come back whole, and files that are refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too, and tests have their own environment"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use student::{StudentError, Tokenizer};

/// The id that ends a text of these tokenizers.
const END: i64 = 1;
/// Set in the processes that this file starts: where they write what they trained.
const CHILD: &str = "DISTILLERY_TEST_TOKENIZER";
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Enough words, many of them as frequent as others, that an order of chance would show.
fn corpus() -> Vec<String> {
    let beginnings = ["gra", "pel", "sto", "mar", "lin", "vek", "tor", "bul", "ces", "dro"];
    let ends = ["nite", "lar", "vish", "tem", "ora", "kin", "wald", "ster", "mund", "pia"];
    let mut texts = Vec::new();
    for (place, beginning) in beginnings.iter().enumerate() {
        for (number, end) in ends.iter().enumerate() {
            texts.push(format!(
                "The {beginning}{end} weighs {} stones and {} pounds.",
                place * 7,
                number * 13
            ));
            texts.push(format!("A {end} of {beginning} stands by the {beginning}{end} since 1999."));
        }
    }
    texts
}

/// Opens the tokenizer of `folder` for a model of so many ids.
fn open(folder: &Path, vocab_size: i64) -> Result<Tokenizer, StudentError> {
    Tokenizer::open(folder, &t5::Config { vocab_size, ..t5::Size::Tiny.config(vocab_size) })
}

fn trained(texts: Vec<String>, folder: &Path) -> Vec<u8> {
    Tokenizer::train(texts, 300).unwrap().save(folder).unwrap();
    std::fs::read(folder.join("tokenizer.json")).unwrap()
}

#[test]
fn training_gives_the_same_bytes_in_every_process_and_order() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let mut texts = corpus();
        texts.reverse();
        texts.rotate_left(77);
        trained(texts, Path::new(&folder));
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let bytes = trained(corpus(), here.path());
    assert!(bytes == trained(corpus().into_iter().rev().collect(), here.path()), "in another order");
    // Other processes, and what other machines would look like to the library.
    for (threads, parallel) in [("1", "true"), ("3", "true"), ("7", "false"), ("2", "false")] {
        let there = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "training_gives_the_same_bytes_in_every_process_and_order"])
            .env(CHILD, there.path())
            .env("RAYON_NUM_THREADS", threads)
            .env("TOKENIZERS_PARALLELISM", parallel)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > WAIT_MAX {
                child.kill().unwrap();
                panic!("the other process did not end in {WAIT_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(child.wait().unwrap().success());
        let theirs = std::fs::read(there.path().join("tokenizer.json")).unwrap();
        assert!(bytes == theirs, "a process of {threads} threads trained another tokenizer");
    }
}

#[test]
fn texts_come_back_whole_and_digits_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let trained = Tokenizer::train(corpus(), 300).unwrap();
    trained.save(folder.path()).unwrap();
    let loaded = open(folder.path(), trained.vocabulary()).unwrap();
    assert_eq!(loaded.vocabulary(), trained.vocabulary());
    for text in [
        "The granite weighs 1307 stones.",
        "since 1999",
        "0 1 22 333 4444",
        "A pellar of 9 and 90",
        "The stonite, weighs: 7.5",
        "granitepellar77vishora",
    ] {
        for tokenizer in [&trained, &loaded] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids.last(), Some(&END));
            assert!(!ids.contains(&0), "no padding");
            let known: String = text.chars().filter(|character| !",:.".contains(*character)).collect();
            let back: String = tokenizer
                .decode(&ids)
                .unwrap()
                .chars()
                .filter(|character| !",:.".contains(*character))
                .collect();
            assert_eq!(back, known);
            // Each digit is a piece of its own, alone or behind the mark of a space.
            for id in &ids {
                let piece = tokenizer.decode(&[*id]).unwrap();
                let digits = piece.chars().filter(char::is_ascii_digit).count();
                assert!(digits == 0 || piece.trim().len() == 1, "`{piece}` in {text}");
            }
        }
        assert_eq!(trained.encode(text).unwrap(), loaded.encode(text).unwrap());
    }
    // Cut texts are ended all the same.
    let (cut, is_cut) = trained.encode_cut("The granite weighs 1307 stones.", 4).unwrap();
    assert_eq!((cut.len(), cut[3], is_cut), (4, END, true));
    let (whole, is_cut) = trained.encode_cut("The granite weighs 1307 stones.", 100).unwrap();
    assert_eq!((whole, is_cut), (trained.encode("The granite weighs 1307 stones.").unwrap(), false));
    assert_eq!(cut[..3], trained.encode("The granite weighs 1307 stones.").unwrap()[..3]);
    assert_eq!(trained.encode("").unwrap(), [END]);
    assert_eq!(trained.encode_cut("granite", 1).unwrap(), (vec![END], true));
    // The paper's pairs are `premise </s> hypothesis`.
    let pair = trained.encode("granite </s> pellar").unwrap();
    assert_eq!(pair.iter().filter(|id| **id == END).count(), 2);
}

#[test]
fn special_tokens_have_the_ids_of_t5_and_the_vocabulary_its_size() {
    let trained = Tokenizer::train(corpus(), 300).unwrap();
    assert!((60..=300).contains(&trained.vocabulary()), "{}", trained.vocabulary());
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path()).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    for (id, token) in ["<pad>", "</s>", "<unk>"].into_iter().enumerate() {
        assert_eq!(json["model"]["vocab"][id][0], token);
        assert_eq!(json["added_tokens"][id]["id"], id);
    }
    // A character that the text never had.
    assert!(trained.encode("granite 漢").unwrap().contains(&2));
    // A text that leaves no room next to its characters.
    let said = Tokenizer::train(["abcdefg".to_owned()], 11).unwrap_err().to_string();
    assert_eq!(said, "tokenizer: the text has 8 characters, and `student.vocabulary` is 11: raise it");
    assert!(Tokenizer::train(["abcdefg".to_owned()], 12).unwrap().vocabulary() <= 12);
    // Few words make few pieces, and no text makes no tokenizer.
    let few = Tokenizer::train(["aa ab".to_owned()], 300).unwrap();
    assert!(few.vocabulary() < 20);
    let said = Tokenizer::train([String::new()], 300).unwrap_err().to_string();
    assert_eq!(said, "tokenizer: there is no text to train on");
}

#[test]
fn files_that_cut_and_pad_by_themselves_do_so_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let trained = Tokenizer::train(corpus(), 300).unwrap();
    trained.save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    std::fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    let loaded = open(folder.path(), trained.vocabulary()).unwrap();
    let text = "The granite weighs 1307 stones.";
    assert_eq!(loaded.encode(text).unwrap(), trained.encode(text).unwrap());
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let refused = |vocabulary: i64, needles: &[&str]| {
        let said = open(folder.path(), vocabulary).unwrap_err().to_string();
        assert!(said.starts_with(&format!("tokenizer: {}: ", path.display())), "{said}");
        for needle in needles {
            assert!(said.contains(needle), "{said}");
        }
    };
    let trained = Tokenizer::train(corpus(), 300).unwrap();
    trained.save(folder.path()).unwrap();
    let size = trained.vocabulary();
    open(folder.path(), size).unwrap();
    let highest = format!("has the id {}, and the model's vocabulary ends at {}", size - 1, size - 2);
    refused(size - 1, &[&highest, "it belongs to another model"]);
    let whole = std::fs::read_to_string(&path).unwrap();
    // At these the library panics.
    let with = |part: &str, value: serde_json::Value| {
        let mut tokenizer: serde_json::Value = serde_json::from_str(&whole).unwrap();
        tokenizer[part] = value;
        tokenizer.to_string()
    };
    let charsmap = |map: &str| {
        with("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": map}))
    };
    for (text, needles) in [
        (charsmap("not base64!"), &["is not a tokenizer: Precompiled"][..]),
        (charsmap("AAAA"), &["is not a tokenizer: Precompiled"]),
        (String::new(), &["is not a tokenizer"]),
        ("{}".to_owned(), &["is not a tokenizer"]),
        (whole.chars().take(whole.len() / 3).collect(), &["is not a tokenizer"]),
        // The settings next to it say otherwise.
        (whole.replace("</s>", "<end>"), &["name the end token `</s>`", "eos_token_id 1, which is `<end>`"]),
        (
            whole.replace("</s>", "<swap>").replace("<unk>", "</s>").replace("<swap>", "<unk>"),
            &["name the end token `</s>`", "eos_token_id 1, which is `<unk>`"],
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        refused(size, needles);
    }
}
