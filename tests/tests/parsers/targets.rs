//! Everything that reads bytes from outside, as functions of bytes. `fuzz/` has a target for each.

use checkpoints::{Checkpoints, import_checkpoint};
use domain::completion::{self, FinishReason};
use domain::ids::CallId;
use domain::{Example, Spec, Task, equation, template};
use embedded::MemoryRateLimiter;
use readers::paper::PaperDataset;
use readers::{Format, Options, rows_from};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use teacher::{BatchAnswer, BatchTeacher, LineSaid, Profile, Provider, Question, Renderer, Teacher};
use tempfile::TempDir;

/// The repository, from the crate that uses this file.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A model of a few kilobytes.
const MODEL: &str = "crates/t5/tests/golden/kinds/head-only";
/// A SentencePiece model of its kind.
const PIECES: &str = "crates/checkpoints/tests/golden/t5";
/// Words of a vocabulary of that model.
const VOCABULARY: i64 = 256;

/// A reader of bytes.
pub(crate) struct Target {
    /// Its name, which is that of its target in `fuzz/`.
    pub(crate) name: &'static str,
    /// Reads.
    pub(crate) read: fn(&[u8]),
    /// Files and folders, relative to the repository, of what it reads well.
    pub(crate) seeds: &'static [&'static str],
}

/// Every one.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "rows_jsonl",
        read: rows_jsonl,
        seeds: &["fuzz/seeds/rows_jsonl", "examples/reviews/test.jsonl"],
    },
    Target { name: "rows_csv", read: rows_csv, seeds: &["fuzz/seeds/rows_csv"] },
    Target { name: "rows_parquet", read: rows_parquet, seeds: &["fuzz/seeds/rows_parquet"] },
    Target { name: "completions", read: completions, seeds: &["fuzz/seeds/completions"] },
    Target { name: "answers", read: answers, seeds: &["fuzz/seeds/answers"] },
    Target { name: "batches", read: batches, seeds: &["fuzz/seeds/batches"] },
    Target { name: "paper", read: paper, seeds: &["fuzz/seeds/paper"] },
    Target { name: "templates", read: templates, seeds: &["fuzz/seeds/templates"] },
    Target { name: "tasks", read: tasks, seeds: &["crates/domain/tasks", "examples/tasks"] },
    Target { name: "specs", read: specs, seeds: &["tests/compat/0.1.0/spec.json"] },
    Target {
        name: "configs",
        read: configs,
        seeds: &[MODEL_CONFIG, "crates/checkpoints/tests/golden/t5/config.json"],
    },
    Target {
        name: "weights",
        read: weights,
        seeds: &["crates/t5/tests/golden/kinds/head-only/model.safetensors"],
    },
    Target { name: "tokenizers", read: tokenizers, seeds: &["fuzz/seeds/tokenizers"] },
    Target {
        name: "pieces",
        read: pieces,
        seeds: &["crates/checkpoints/tests/golden/t5/spiece.model", "fuzz/seeds/pieces"],
    },
    Target { name: "manifests", read: manifests, seeds: &["tests/compat/0.1.0/manifest.json"] },
];
const MODEL_CONFIG: &str = "crates/t5/tests/golden/kinds/head-only/config.json";

fn rows(format: Format, bytes: &[u8]) {
    for task in [None, Task::built_in("choice")] {
        let options = Options { task, ..Options::default() };
        rows_from("rows", format, Box::new(Cursor::new(bytes.to_vec())), options).for_each(drop);
    }
}

fn rows_jsonl(bytes: &[u8]) {
    rows(Format::Jsonl, bytes);
}

fn rows_csv(bytes: &[u8]) {
    rows(Format::Csv, bytes);
}

fn rows_parquet(bytes: &[u8]) {
    rows(Format::Parquet, bytes);
}

/// A completion of each built-in task, which its example's options may be part of.
fn completions(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let choices = vec!["oven".to_owned(), "shelf".to_owned(), "the answer is (a)".to_owned()];
    let example = Example { input: "Where?".to_owned(), choices, ..Example::default() };
    for name in domain::task::BUILT_IN {
        let Some(task) = Task::built_in(name) else { continue };
        for finish in [FinishReason::Stop, FinishReason::Length] {
            let _ = completion::parse(&task, &example, &text, finish);
        }
        let _ = completion::label_as_written(&task, &example, &text);
    }
    let _ = completion::split_answers(&text, 3);
    let _ = completion::split_thoughts(&text);
    let _ = equation::value(&text);
}

/// Calls `read` with the batch API of each provider.
fn with_batch_teachers(read: impl Fn(&BatchTeacher)) {
    thread_local! {
        static TEACHERS: Vec<Teacher> = {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let limits = Arc::new(MemoryRateLimiter::default());
            [Provider::OpenAiChat, Provider::OpenAiCompletions, Provider::Anthropic, Provider::Gemini]
                .into_iter()
                .filter_map(|provider| {
                    let profile = Profile::new("fuzzed", provider, "http://127.0.0.1:9/v1", "small");
                    Teacher::new(Profile { batch: true, ..profile }, limits.clone()).ok()
                })
                .collect()
        };
    }
    TEACHERS.with(|teachers| teachers.iter().filter_map(Teacher::batches).for_each(read));
}

/// The answer of a teacher of each provider, good or not.
fn answers(bytes: &[u8]) {
    let question = Question { prompt: "1 + 1?".to_owned(), ..Question::default() };
    with_batch_teachers(|batches| {
        for status in [200, 400, 429, 500] {
            let _ = batches.read(CallId::generate(), status, bytes, &question);
        }
    });
}

/// The file that a batch of each provider brought.
fn batches(bytes: &[u8]) {
    let question = Question { prompt: "1 + 1?".to_owned(), ..Question::default() };
    with_batch_teachers(|batches| {
        for line in bytes.split(|byte| *byte == b'\n') {
            if let BatchAnswer { call, said: LineSaid::Answer { status, body } } = batches.answer_of(line) {
                let _ = batches.read(call.unwrap_or_else(CallId::generate), status, &body, &question);
            }
        }
    });
}

/// A folder in the paper's layout: up to the first line that is empty, its rows, and behind it the completions.
fn paper(bytes: &[u8]) {
    let rows = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (rows, completions) = bytes.split_at(rows);
    let Ok(folder) = tempfile::tempdir() else { return };
    let llm = folder.path().join("llm");
    let _ = fs::create_dir(&llm);
    let _ = fs::write(llm.join("train_CoT_0.json"), completions);
    for dataset in PaperDataset::ALL {
        let _ = fs::write(folder.path().join(format!("{dataset}_train.json")), rows);
        let _ = readers::paper::read(*dataset, folder.path());
    }
}

/// The template of a task.
fn templates(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = template::check(&text);
    let Some(task) = Task::built_in("equation") else { return };
    render(&Task { template: text.into_owned(), ..task });
}

fn render(task: &Task) {
    let Ok(renderer) = Renderer::new(task) else { return };
    let choices = vec!["a".to_owned(), "b".to_owned()];
    let example = Example { input: "2 + 3?".to_owned(), choices, ..Example::default() };
    let _ = renderer.render(&example, Some("5"));
    let _ = renderer.render_together(&[(&example, None), (&example, Some("5"))]);
}

/// A task's file.
fn tasks(bytes: &[u8]) {
    let Ok(task) = toml::from_str::<Task>(&String::from_utf8_lossy(bytes)) else { return };
    let _ = task.placeholders();
    if task.violations().is_empty() {
        let _ = completion::exemplar_violations(&task);
        render(&task);
        let _ = completion::parse(&task, &Example::default(), "So the answer is (a).", FinishReason::Stop);
    }
}

/// A stored specification.
fn specs(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Spec>(bytes) else { return };
    let _ = spec.violations();
    let _ = spec.probe_violations();
    let _ = serde_json::to_vec(&spec);
}

/// A folder of a model, of which one file is any bytes.
fn with_file(from: &str, name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    for file in files(&Path::new(ROOT).join(from)) {
        let Some(of) = file.file_name().filter(|of| *of != "expected.json" && *of != "expected.safetensors")
        else {
            continue;
        };
        let _ = fs::copy(&file, folder.path().join(of));
    }
    let _ = fs::write(folder.path().join(name), bytes);
    read(folder.path());
}

/// The model and the tokenizer in a folder, and what uses them.
fn open(folder: &Path) {
    let _ = checkpoints::check_folder(folder);
    let Ok(config) = t5::Config::load(folder) else { return };
    if let Ok(tokenizer) = student::Tokenizer::open(folder, &config) {
        let ids = tokenizer.encode("Ann has 3 pens, and buys 4 \u{fffd}é.").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    }
    let _ = t5::Model::load(folder, student::Device::Cpu);
}

fn configs(bytes: &[u8]) {
    with_file(MODEL, "config.json", bytes, open);
}

fn weights(bytes: &[u8]) {
    with_file(MODEL, "model.safetensors", bytes, open);
}

fn tokenizers(bytes: &[u8]) {
    with_file(MODEL, "tokenizer.json", bytes, |folder| {
        let config = t5::Size::Tiny.config(VOCABULARY);
        let Ok(tokenizer) = student::Tokenizer::open(folder, &config) else { return };
        let ids = tokenizer.encode("Ann has 3 pens, and buys 4 \u{fffd}é.").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    });
}

/// A vocabulary that is imported, and then used.
fn pieces(bytes: &[u8]) {
    with_file(PIECES, "spiece.model", bytes, |folder| {
        let _ = fs::write(folder.join("model.safetensors"), []);
        if import_checkpoint(folder, None).is_ok() {
            let _ = student::Tokenizer::open(folder, &t5::Size::Tiny.config(VOCABULARY))
                .and_then(|tokenizer| tokenizer.encode("Ann has 3 pens."));
        }
    });
}

fn manifests(bytes: &[u8]) {
    thread_local! {
        static STORE: Option<(TempDir, Checkpoints)> = tempfile::tempdir().ok().and_then(|folder| {
            let store = Checkpoints::open(folder.path()).ok()?;
            fs::create_dir_all(store.folder("base/fuzzed").ok()?).ok()?;
            Some((folder, store))
        });
    }
    STORE.with(|store| {
        let Some((_, store)) = store else { return };
        let Ok(folder) = store.folder("base/fuzzed") else { return };
        let _ = fs::write(folder.join("manifest.json"), bytes);
        let _ = store.fetch("base/fuzzed", None);
    });
}

/// The files at `path`: itself, or those in it.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}
