//! What earlier versions stored is read by this one, and what they paid for is not asked again. See `compat/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use checkpoints::Provenance;
use domain::event::EventKind;
use domain::fingerprint::RowsHash;
use domain::judge::Fingerprint;
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::{Example, Spec, Task};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::path::{Path, PathBuf};
use tests::folder::{Folder, Said};
use tests::teacher::{Reply, Teacher};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat/0.1.0").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(sample(name)).unwrap()
}

/// Reads a stored document as it is, and with a key in every object that this version does not know.
fn check<T: DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str) -> T {
    let stored: Value = serde_json::from_str(&text(name)).unwrap();
    let read: T = serde_json::from_value(stored.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let planted: T =
        serde_json::from_value(planted(stored)).unwrap_or_else(|error| panic!("{name}, planted: {error}"));
    assert_eq!(planted, read, "{name}");
    read
}

fn planted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            // An enumeration with content has one key, its name: nothing can be added next to it.
            let is_variant = object.len() == 1;
            let mut object: serde_json::Map<String, Value> =
                object.into_iter().map(|(key, value)| (key, planted(value))).collect();
            if !is_variant {
                object.insert("planted".to_owned(), json!({ "by": "a newer version" }));
            }
            Value::Object(object)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(planted).collect()),
        other => other,
    }
}

#[test]
fn every_sample_has_a_test() {
    let mut names: Vec<String> = std::fs::read_dir(sample(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // `manifest.json` and `progress.json` are opened by the tests of `checkpoints` and `trainer`.
    let known = [
        "distillery.json",
        "events.json",
        "manifest.json",
        "progress.json",
        "records.sql",
        "spec.json",
        "spec.toml",
        "task.json",
        "task.toml",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ];
    assert_eq!(names, known);
}

#[test]
fn stored_documents_are_read() {
    let spec: Spec = check("spec.json");
    assert_eq!((spec.training.steps, spec.training.clip_norm), (12, 1.0));
    let task: Task = check("task.json");
    assert_eq!(task, spec.task);
    let events: Vec<EventKind> = check("events.json");
    assert_eq!(events.len(), 18);
    let provenance: Provenance = check("distillery.json");
    assert_eq!(provenance.spec, spec);
    assert_eq!(Provenance::read(&sample("")).unwrap(), Some(provenance));
}

#[test]
fn a_missing_key_of_a_provenance_has_its_default() {
    let folder = Folder::empty().unwrap();
    let mut stored: Value = serde_json::from_str(&text("distillery.json")).unwrap();
    let training = stored["spec"]["training"].as_object_mut().unwrap();
    assert_eq!(training.remove("clip_norm"), Some(json!(1.0)));
    folder.write("distillery.json", stored.to_string()).unwrap();
    assert_eq!(Provenance::read(folder.path()).unwrap(), Provenance::read(&sample("")).unwrap());
    stored["format"] = json!(1_000);
    folder.write("distillery.json", stored.to_string()).unwrap();
    let error = Provenance::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has format 1000, of a newer version"), "{error}");
}

async fn restore(folder: &Path) -> SqliteConnection {
    // A dump creates tables after the rows that refer to them.
    let options = SqliteConnectOptions::new()
        .filename(folder.join("distillery.db"))
        .create_if_missing(true)
        .foreign_keys(false);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(text("records.sql"))).execute(&mut connection).await.unwrap();
    connection
}

#[tokio::test]
async fn fingerprints_have_the_values_that_were_recorded() {
    let folder = Folder::empty().unwrap();
    let mut records = restore(folder.path()).await;
    let mut rows = RowsHash::default();
    for row in
        sqlx::query("SELECT example FROM examples ORDER BY row_index").fetch_all(&mut records).await.unwrap()
    {
        let example: Example = serde_json::from_str(row.get("example")).unwrap();
        rows.add(&example);
    }
    let recorded: String =
        sqlx::query_scalar("SELECT fingerprint FROM datasets").fetch_one(&mut records).await.unwrap();
    assert_eq!(hex::encode(rows.finish()), recorded);
    let mut ledger = Fingerprint::default();
    let accepted = "SELECT row_index, sample, rationale, label, weight FROM prompts
                    WHERE verdict = 'accepted' AND purpose = 'train' ORDER BY row_index, sample";
    for row in sqlx::query(accepted).fetch_all(&mut records).await.unwrap() {
        let (index, sample): (i64, i64) = (row.get("row_index"), row.get("sample"));
        ledger.add(&TrainingExample {
            row: domain::example::Row { index: index as u64, example: Example::default() },
            target: None,
            rationales: vec![AcceptedRationale {
                sample: sample as u32,
                text: row.get("rationale"),
                label: row.get("label"),
                weight: row.get("weight"),
            }],
        });
    }
    let recorded: String = sqlx::query_scalar("SELECT ledger_fingerprint FROM distillations")
        .fetch_one(&mut records)
        .await
        .unwrap();
    assert_eq!(ledger.finish(), recorded);
}

fn succeeds(folder: &Folder, teacher: &Teacher, arguments: &[&str]) -> Said {
    let said = folder.say(teacher.url(), arguments).unwrap();
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    said
}

#[test]
fn answers_that_were_paid_for_are_found_again() {
    let folder = Folder::empty().unwrap();
    for name in ["task.toml", "train.jsonl", "validation.jsonl", "test.jsonl"] {
        folder.write(name, text(name)).unwrap();
    }
    let spec =
        text("spec.toml").replace("name = \"boxes\"", "name = \"again\"").replace("steps = 12", "steps = 1");
    folder.write("spec.toml", spec).unwrap();
    std::fs::create_dir(folder.join(".distillery")).unwrap();
    // The teacher has a runtime of its own, so this test has none around it.
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { restore(&folder.join(".distillery")).await.close().await })
        .unwrap();
    let teacher = Teacher::start(|_| Reply::status(500, "nothing is to be asked")).unwrap();
    let listed = succeeds(&folder, &teacher, &["list"]).out;
    assert!(listed.contains("boxes") && listed.contains("succeeded"), "{listed}");
    let outcome = succeeds(&folder, &teacher, &["run", "spec.toml", "--json"]).json().unwrap();
    let calls = (&outcome["teacher"]["prompts"], &outcome["teacher"]["cached"]);
    assert_eq!(calls, (&json!(0), &json!(15)), "{outcome}");
    assert_eq!(teacher.requests(), 0);
}
