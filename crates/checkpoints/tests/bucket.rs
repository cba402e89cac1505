//! The store in a bucket of a real S3-compatible server: what is published by one machine is fetched whole by another.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use checkpoints::{CheckpointError, Checkpoints, MANIFEST, S3Settings};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tests::s3::S3Server as Server;

/// Larger than one part of a multipart upload.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

fn settings(server: &Server) -> S3Settings {
    S3Settings {
        bucket: Server::BUCKET.into(),
        prefix: "team/distillery".into(),
        endpoint: server.endpoint(),
        region: "us-east-1".into(),
        access_key: "test".into(),
        secret_key: "hunter2".into(),
    }
}

/// A machine with a cache of its own.
fn machine(runtime: &tokio::runtime::Runtime, settings: &S3Settings) -> (TempDir, Checkpoints) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cache = tempfile::tempdir().unwrap();
    let _guard = runtime.enter();
    let store = Checkpoints::open_bucket(settings, cache.path()).unwrap();
    (cache, store)
}

fn publish(store: &Checkpoints, path: &str, weights: &[u8]) -> Result<String, CheckpointError> {
    let staged = store.stage()?;
    fs::write(staged.path().join("model.safetensors"), weights).unwrap();
    fs::write(staged.path().join("config.json"), "{}").unwrap();
    fs::create_dir(staged.path().join("predictions")).unwrap();
    fs::write(staged.path().join("predictions/test.jsonl"), "rows").unwrap();
    store.publish(staged, path)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn what_one_machine_publishes_another_fetches_whole() {
    let (server, runtime) = (Server::start().unwrap(), runtime());
    let settings = settings(&server);
    let ((_first, trainer), (second, inference)) =
        (machine(&runtime, &settings), machine(&runtime, &settings));
    let large: Vec<u8> = (0..LARGE_BYTES).map(|place| (place % 251) as u8).collect();
    let sha256 = publish(&trainer, "runs/a/1/5-model", &large).unwrap();

    let folder = inference.fetch("runs/a/1/5-model", Some(&sha256)).unwrap();
    assert!(folder.starts_with(second.path().canonicalize().unwrap()));
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == large);
    assert_eq!(fs::read_to_string(folder.join("predictions/test.jsonl")).unwrap(), "rows");

    // What is there is not fetched again, and what was damaged on this disk is.
    fs::write(folder.join("config.json"), "[]").unwrap();
    inference.fetch("runs/a/1/5-model", Some(&sha256)).unwrap();
    assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), "{}");

    // The same path again, under the same fence, takes the place of the first.
    let again = publish(&trainer, "runs/a/1/5-model", b"other").unwrap();
    let folder = inference.fetch("runs/a/1/5-model", Some(&again)).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), b"other");
    let old = inference.fetch("runs/a/1/5-model", Some(&sha256)).unwrap_err().to_string();
    assert!(old.contains(MANIFEST), "{old}");

    // A run that is over keeps its model and nothing else.
    publish(&trainer, "runs/a/1/3-resume", b"moments").unwrap();
    publish(&trainer, "runs/b/1/3-resume", b"another run's").unwrap();
    trainer.prune_run("a", "runs/a/1/5-model").unwrap();
    assert!(inference.fetch("runs/a/1/3-resume", None).is_err());
    inference.fetch("runs/a/1/5-model", Some(&again)).unwrap();
    inference.fetch("runs/b/1/3-resume", None).unwrap();

    trainer.delete("runs/a/1/5-model").unwrap();
    let gone = inference.fetch("runs/a/1/5-model", None).unwrap_err().to_string();
    assert!(gone.contains("is incomplete: manifest.json is missing"), "{gone}");
    trainer.delete("runs/a/1/5-model").unwrap();
}

#[test]
fn a_base_is_registered_once_and_found_by_another_machine() {
    let (server, runtime) = (Server::start().unwrap(), runtime());
    let settings = settings(&server);
    let ((first, store), (_second, other)) = (machine(&runtime, &settings), machine(&runtime, &settings));
    let source = first.path().join("source");
    fs::create_dir(&source).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::write(source.join(file), file).unwrap();
    }
    let (name, sha256) = store.register_base("t5", &source).unwrap();
    assert_eq!(store.register_base("t5", &source).unwrap(), (name.clone(), sha256.clone()));
    let folder = other.fetch(&format!("base/{name}"), Some(&sha256)).unwrap();
    assert_eq!(fs::read_to_string(folder.join("tokenizer.json")).unwrap(), "tokenizer.json");
}

#[test]
fn a_bucket_that_is_not_there_is_named_and_the_secret_is_not() {
    let (server, runtime) = (Server::start().unwrap(), runtime());
    let absent = S3Settings { bucket: "nowhere".into(), ..settings(&server) };
    let (cache, store) = machine(&runtime, &absent);
    let error = publish(&store, "runs/a/1/1-model", b"x").unwrap_err();
    assert_eq!(error.fault(), domain::Fault::Unavailable);
    let message = error.to_string();
    assert!(message.starts_with("s3://nowhere/team/distillery: "), "{message}");
    assert!(!message.contains("hunter2") && !format!("{absent:?}").contains("hunter2"), "{message}");
    assert!(
        !Path::new(cache.path()).join("runs/a/1/1-model").exists(),
        "nothing appears where nothing was published"
    );
}
