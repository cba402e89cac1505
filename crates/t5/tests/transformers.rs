//! `transformers` opens what we save, and answers the same. It needs the Python environment of
//! `scripts/golden.sh --install-only`; where that is absent, the test says so and checks nothing.
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

mod common;

use common::{Golden, chance, close, device, kinds, pass, rows, tolerance};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use t5::{Compute, Config, FeedForwardKind, GenerateOptions, Model, Size, Strategy};
use tch::{Kind, Tensor};

/// A cold start of Python and torch on a busy machine takes tens of seconds.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The interpreter that `scripts/golden.sh` sets up.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let python = cache.join("distillery/python/bin/python");
    python.is_file().then_some(python)
}

fn asked(python: &Path, folders: &[PathBuf]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answer.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(folders)
        .env("HF_HUB_OFFLINE", "1")
        .env("TRANSFORMERS_VERBOSITY", "error")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > WAIT_MAX {
            child.kill().unwrap();
            panic!("Python did not answer in {WAIT_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
}

/// Ids between the start token and the end.
fn text(config: &Config, row: &[i64]) -> Vec<i64> {
    row[1..].iter().copied().take_while(|id| !config.ends(*id)).collect()
}

#[test]
fn transformers_opens_what_we_save_and_answers_the_same() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python with transformers; `scripts/golden.sh --install-only` sets it up");
        return;
    };
    let _turn = chance();
    let v1_0 = Config {
        own_head: false,
        scale_decoder_outputs: true,
        feed_forward: FeedForwardKind::RELU,
        num_decoder_layers: 3,
        ..Size::Tiny.config(64)
    };
    let fresh = |config: Config, seed: i64| Model::from_scratch(config, seed, device()).unwrap();
    let models = [
        ("v1_0 from scratch", fresh(v1_0, 3), u64::MAX),
        ("v1_1 from scratch", fresh(Size::Tiny.config(128), 4), u64::MAX),
        ("v1_1 from scratch in shards", fresh(Size::Tiny.config(128), 5), 200_000),
        ("v1_0 that was theirs", Golden::open("v1_0").model, u64::MAX),
        ("v1_1 that was theirs", Golden::open("v1_1").model, u64::MAX),
        ("bfloat16 that was theirs", Golden::open("bfloat16").model, 50_000),
    ];
    let models =
        models.map(|(what, model, bytes_max)| (what.to_owned(), model, bytes_max, "v1_0".to_owned()));
    let models = models.into_iter().chain(kinds().into_iter().map(|kind| {
        let model = Golden::open(&kind).model;
        (format!("{kind} that was theirs"), model, u64::MAX, kind)
    }));
    let models: Vec<_> = models.collect();
    let root = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for (what, model, bytes_max, golden) in &models {
        let folder = root.path().join(what.replace([' ', '/'], "-"));
        model.save(&folder, *bytes_max).unwrap();
        let batch = Golden::open(golden).batch();
        let given = [
            ("input_ids", batch.input_ids.shallow_clone()),
            ("input_mask", batch.input_mask.to_kind(Kind::Int64)),
            ("labels", batch.labels.shallow_clone()),
        ];
        Tensor::write_safetensors(&given, folder.join("given.safetensors")).unwrap();
        folders.push(folder);
    }
    asked(&python, &folders);
    for ((what, model, _, golden), folder) in models.iter().zip(&folders) {
        let batch = Golden::open(golden).batch();
        let answered: HashMap<String, Tensor> =
            Tensor::read_safetensors(folder.join("answered.safetensors")).unwrap().into_iter().collect();
        let logits = model.forward(&batch, &pass(Compute::Float32)).unwrap();
        close(what, &logits, &answered["logits"], tolerance());
        let options =
            GenerateOptions { tokens_max: 12, strategy: Strategy::Greedy, compute: Compute::Float32 };
        let texts = t5::generate(model, &batch.input_ids, &batch.input_mask, &options).unwrap();
        let expected: Vec<Vec<i64>> =
            rows(&answered["greedy"]).iter().map(|row| text(model.config(), row)).collect();
        assert!(texts.iter().any(|text| text.len() > 2), "{what}: {texts:?}");
        assert_eq!(texts, expected, "{what}");
    }
}
