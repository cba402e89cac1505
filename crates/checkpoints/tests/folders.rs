//! Folders that people bring: what is wrong is named with the line that helps, and what can be converted is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too"
)]

use checkpoints::{Checkpoints, check_folder, import_checkpoint};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 307867048\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// What is said of a folder with these files, `{}` in place of its path; both of a folder that is served and of a base.
fn said(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let message = check_folder(folder.path()).unwrap_err().to_string();
    let store = tempfile::tempdir().unwrap();
    let base = Checkpoints::open(store.path()).unwrap().register_base("t5", folder.path()).unwrap_err();
    assert_eq!(base.to_string(), message);
    message.replace(folder.path().to_str().unwrap(), "{}")
}

fn check(files: &[(&str, &str)], expected: &str) {
    assert_eq!(said(files), format!("{{}}: {expected}"));
}

const CONFIG: (&str, &str) = ("config.json", r#"{"vocab_size": 384}"#);
const WEIGHTS: (&str, &str) = ("model.safetensors", "weights");
const TOKENIZER: (&str, &str) = ("tokenizer.json", "{}");

#[test]
fn a_whole_checkpoint_is_good() {
    for weights in ["model.safetensors", "model.safetensors.index.json"] {
        let pickle = ("pytorch_model.bin", "left from a conversion");
        let whole = folder(&[CONFIG, (weights, "weights"), TOKENIZER, pickle, ("spiece.model", "pieces")]);
        check_folder(whole.path()).unwrap();
    }
    let said = check_folder(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(said.starts_with("/nowhere/at/all: ") && said.contains("No such file"), "{said}");
}

#[test]
fn pickles_come_with_the_line_that_converts_them() {
    let line = "convert it with: python -c \"from transformers import AutoModelForSeq2SeqLM as M; \
                M.from_pretrained('{}').save_pretrained('{}', safe_serialization=True)\"";
    for file in ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"] {
        check(
            &[CONFIG, TOKENIZER, (file, "x"), ("tf_model.h5", "x")],
            &format!("holds {file}, a pickle, which can run code when it is read; {line}"),
        );
    }
}

#[test]
fn weights_of_other_programs_are_named() {
    let check = |file: &str, needles: &[&str]| {
        let said = said(&[CONFIG, TOKENIZER, (file, "x")]);
        for needle in [&format!("{{}}: holds {file}"), "{}"].iter().chain(needles) {
            assert!(said.contains(needle), "`{needle}` is not in: {said}");
        }
    };
    check(
        "tf_model.h5",
        &["weights of TensorFlow", "M.from_pretrained('{}', from_tf=True).save_pretrained('{}'"],
    );
    check("flax_model.msgpack", &["weights of Flax", "from_flax=True"]);
    check(
        "adapter_model.safetensors",
        &["an adapter without its model", "from peft import", ".merge_and_unload()"],
    );
    check("t5-small-Q8_0.gguf", &["llama.cpp", "download the model's safetensors"]);
    check("model-00001-of-00002.safetensors", &["and no model.safetensors.index.json", "copy it"]);
}

#[test]
fn what_is_not_there_is_named() {
    let layout =
        "a checkpoint is a folder with config.json, model.safetensors (or its index) and tokenizer.json";
    check(&[WEIGHTS, TOKENIZER], &format!("has no config.json: {layout}"));
    check(&[CONFIG, TOKENIZER], &format!("has no model.safetensors: {layout}"));
    let copy = "has no tokenizer.json: copy it, or spiece.model, from where the checkpoint comes from";
    check(&[CONFIG, WEIGHTS], copy);
}

#[test]
fn git_lfs_pointers_are_recognised_in_every_file() {
    let all = [CONFIG, WEIGHTS, TOKENIZER, ("model-00001-of-00002.safetensors", "x"), ("spiece.model", "x")];
    for (place, (name, _)) in all.iter().enumerate() {
        let mut files = all.to_vec();
        files[place].1 = POINTER;
        check(
            &files,
            &format!(
                "1 of its files hold Git LFS pointers in place of their content ({name}): fetch them with: git -C '{{}}' lfs pull"
            ),
        );
    }
}

#[test]
fn a_checkpoint_further_down_is_pointed_to() {
    let snapshot = |hash: &str| format!("snapshots/{hash}/config.json");
    let (one, two) = (snapshot("aa11"), snapshot("bb22"));
    // A model in the hub's cache, as the hub's clients lay it out.
    let blobs = ("blobs/0a", "x");
    check(&[blobs, (&one, "{}")], "has no config.json: the checkpoint is the folder {}/snapshots/aa11");
    check(
        &[blobs, ("refs/main", "bb22\n"), (&one, "{}"), (&two, "{}")],
        "has no config.json: the checkpoint is the folder {}/snapshots/bb22",
    );
    check(
        &[blobs, (&one, "{}"), (&two, "{}")],
        "has no config.json: name one folder in it, such as {}/snapshots/aa11 or {}/snapshots/bb22",
    );
    // The cache itself.
    let model = format!("models--google--flan-t5-small/{two}");
    check(
        &[("version.txt", "1"), ("models--google--flan-t5-small/refs/main", "bb22"), (&model, "{}")],
        "has no config.json: the checkpoint is the folder {}/models--google--flan-t5-small/snapshots/bb22",
    );
    // What a training of transformers writes.
    check(
        &[("checkpoint-500/config.json", "{}"), ("checkpoint-900/config.json", "{}"), ("runs/events", "x")],
        "has no config.json: name one folder in it, such as {}/checkpoint-500 or {}/checkpoint-900",
    );
}

#[test]
fn what_there_is_of_a_tokenizer_comes_with_the_line_that_writes_the_rest() {
    let import = "write it with: distillery import checkpoint '{}'";
    check(
        &[CONFIG, WEIGHTS, ("spiece.model", "x")],
        &format!("holds spiece.model and no tokenizer.json; {import}"),
    );
    let bytes = format!("is a ByT5, which reads bytes, and has no tokenizer.json; {import}");
    let class = r#"{"tokenizer_class": "ByT5Tokenizer"}"#;
    check(&[CONFIG, WEIGHTS, ("tokenizer_config.json", class)], &bytes);
    check(&[("config.json", class), WEIGHTS], &bytes);
    check(
        &[CONFIG, WEIGHTS, ("vocab.json", "{}"), ("merges.txt", "")],
        "holds vocab.json and merges.txt and no tokenizer.json; write it with: python -c \"from transformers import \
         AutoTokenizer as T; T.from_pretrained('{}').save_pretrained('{}')\"",
    );
}

/// Builds the kind of folder that docs/MODELS.md calls so.
fn kind(name: &str) -> Option<TempDir> {
    let with = |file: &str| folder(&[CONFIG, TOKENIZER, (file, "x")]);
    let snapshot = "snapshots/aa11/config.json";
    Some(match name {
        "whole" => folder(&[CONFIG, WEIGHTS, TOKENIZER]),
        "spiece" => brought("t5"),
        "spiece-bytes" => brought("mt5"),
        "spiece-madlad" => brought("madlad"),
        "byt5" => brought("byt5"),
        "spiece-bpe" => brought("bpe"),
        "merges" => folder(&[CONFIG, WEIGHTS, ("vocab.json", "{}"), ("merges.txt", "")]),
        "no-tokenizer" => folder(&[CONFIG, WEIGHTS]),
        "pickle" => with("pytorch_model.bin"),
        "pickle-shards" => with("pytorch_model-00001-of-00002.bin"),
        "tensorflow" => with("tf_model.h5"),
        "flax" => with("flax_model.msgpack"),
        "adapter" => with("adapter_model.safetensors"),
        "gguf" => with("t5-small-Q8_0.gguf"),
        "no-index" => with("model-00001-of-00002.safetensors"),
        "no-weights" => folder(&[CONFIG, TOKENIZER]),
        "lfs" => folder(&[CONFIG, TOKENIZER, ("model.safetensors", POINTER)]),
        "cache" => folder(&[("refs/main", "aa11"), (snapshot, "{}")]),
        "training" => folder(&[("checkpoint-500/config.json", "{}")]),
        _ => return None,
    })
}

/// What is in docs/MODELS.md is what happens, line by line.
#[test]
fn the_table_of_folders_says_what_happens() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/MODELS.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, table) = document.split_once("## What lies in the folder").unwrap();
    let mut lines = 0;
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, verdict) = (cells[1].trim_matches('`'), cells[3]);
        let folder = kind(name).unwrap_or_else(|| panic!("{name}: no test makes such a folder"));
        let happens = if check_folder(folder.path()).is_ok() {
            "opens"
        } else if import_checkpoint(folder.path(), None).is_ok() {
            "converts"
        } else {
            "refused"
        };
        assert_eq!(verdict, happens, "{name}");
        lines += 1;
    }
    assert_eq!(lines, 19, "every kind of folder that is tested stands in the table");
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A copy of a golden checkpoint, with weights.
fn brought(name: &str) -> TempDir {
    let folder = folder(&[WEIGHTS]);
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "expected.json" {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn converted_tokenizers_read_and_write_as_transformers_does() {
    for name in ["t5", "mt5", "madlad", "byt5"] {
        let folder = brought(name);
        let imported = import_checkpoint(folder.path(), None).unwrap();
        check_folder(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = tokenizers::Tokenizer::from_file(&path).unwrap();
        assert_eq!(tokenizer.get_vocab_size(true), imported.tokens, "{name}");
        let expected = json_of(&golden(name).join("expected.json"));
        for row in expected["texts"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(json!(encoding.get_ids()), row["ids"], "{name}: {text:?}");
            if let Some(decoded) = row.get("decoded") {
                assert_eq!(
                    &json!(tokenizer.decode(encoding.get_ids(), true).unwrap()),
                    decoded,
                    "{name}: {text:?}"
                );
            }
        }
        assert!(expected["texts"].as_array().unwrap().len() > 6, "{name}");
        if let Some(theirs) = expected.get("tokenizer") {
            assert_eq!(&json_of(&path), theirs, "{name}");
        }
    }
}

/// The sentinels of pre-training stand where the embedding has rows for them.
#[test]
fn sentinels_are_added_as_the_checkpoint_says() {
    let tokens = |name: &str, token: &str| {
        let folder = brought(name);
        import_checkpoint(folder.path(), None).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        tokenizer.token_to_id(token)
    };
    assert_eq!(tokens("t5", "<extra_id_0>"), Some(190));
    assert_eq!(tokens("t5", "<extra_id_99>"), Some(91));
    assert_eq!(tokens("mt5", "<extra_id_0>"), None);
    assert_eq!(tokens("byt5", "<extra_id_0>"), Some(259));
    let refused = |name: &str, file: &str, content: &str, needles: &[&str]| {
        let folder = brought(name);
        fs::write(folder.path().join(file), content).unwrap();
        let said = import_checkpoint(folder.path(), None).unwrap_err().to_string();
        for needle in needles {
            assert!(said.contains(needle), "`{needle}` is not in: {said}");
        }
        assert!(!folder.path().join("tokenizer.json").exists());
    };
    refused(
        "t5",
        "tokenizer_config.json",
        r#"{"extra_ids": 1000000000000}"#,
        &["tokenizer_config.json: says extra_ids 1000000000000, and the model's vocabulary has room for 165"],
    );
    refused(
        "t5",
        "config.json",
        r#"{"vocab_size": 50}"#,
        &["its tokenizer has 91 tokens, and vocab_size in config.json is 50: it belongs to another model"],
    );
    refused("t5", "spiece.model", "no model at all", &["spiece.model: is not a SentencePiece model"]);
    refused("t5", "spiece.model", "", &["spiece.model: is a SentencePiece model without a vocabulary"]);
    refused(
        "bpe",
        "other",
        "",
        &["spiece.model: is a SentencePiece model of the Bpe algorithm: those of T5 are Unigram"],
    );
}

#[test]
fn a_checkpoint_is_copied_with_its_tokenizer() {
    let folder = brought("t5");
    fs::write(folder.path().join("README.md"), "a card").unwrap();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("new/t5");
    let imported = import_checkpoint(folder.path(), Some(&out)).unwrap();
    assert_eq!((imported.folder.as_path(), imported.source.as_str()), (out.as_path(), "spiece.model"));
    let mut names: Vec<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert!(!folder.path().join("tokenizer.json").exists());
    let said = |from: &Path, out: Option<&Path>| import_checkpoint(from, out).unwrap_err().to_string();
    assert!(said(folder.path(), Some(&out)).contains("is not empty: name a new folder"));
    assert!(said(&out, None).contains("has a tokenizer.json already: there is nothing to convert"));
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("pytorch_model.bin")).unwrap();
    assert!(said(folder.path(), None).contains("a pickle"));
}

/// Files that are damaged anywhere are refused or converted, and nothing else.
#[test]
fn a_damaged_vocabulary_is_never_the_end_of_the_process() {
    let whole = fs::read(golden("t5").join("spiece.model")).unwrap();
    for cut in (0..whole.len()).step_by(7) {
        let folder = brought("t5");
        fs::write(folder.path().join("spiece.model"), &whole[..cut]).unwrap();
        let _ = import_checkpoint(folder.path(), None);
        let mut flipped = whole.clone();
        flipped[cut] ^= 0x55;
        let folder = brought("t5");
        fs::write(folder.path().join("spiece.model"), &flipped).unwrap();
        let _ = import_checkpoint(folder.path(), None);
    }
}
