//! The paper's data through the whole binary: imported, distilled with its rationales, and fine-tuned from a folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tests::data::SpecText;
use tests::folder::{Folder, NOBODY};

const RUN: &[&str] = &["run", "spec.toml", "--json"];

/// The folder of a released data set; `None`, with a notice, if it is not available.
fn released(dataset: &str) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/paper");
    let root = std::env::var_os("DISTILLERY_PAPER_DATA").map_or(beside, PathBuf::from);
    let folder = root.join(dataset);
    if !folder.is_dir() {
        eprintln!("SKIPPED: no released {dataset} at {}: set DISTILLERY_PAPER_DATA", folder.display());
        return None;
    }
    Some(folder.canonicalize().unwrap().to_str().unwrap().to_owned())
}

fn import(folder: &Folder, dataset: &str, from: &str) -> Value {
    let said =
        folder.say(NOBODY, &["import", "paper", "--dataset", dataset, "--from", from, "--json"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    said.json().unwrap()
}

/// Split, rows, rows without an answer, labels outside the set, own and official accuracy in tenths of a percent.
type Facts = (&'static str, u64, u64, u64, u64, u64);

fn check_import(dataset: &str, facts: [Facts; 2]) {
    let Some(from) = released(dataset) else { return };
    let folder = Folder::empty().unwrap();
    let imported = import(&folder, dataset, &from);
    let tenths = |share: &Value| (share.as_f64().unwrap() * 1000.0 + 1e-9).round() as u64;
    for (split, (name, rows, no_answer, outside, careful, official)) in
        imported["splits"].as_array().unwrap().iter().zip(facts)
    {
        assert_eq!((&split["split"], &split["rows"]), (&json!(name), &json!(rows)), "{split}");
        let failures = &split["failures"];
        assert_eq!(
            (&failures["no_answer"], &failures["label_not_in_set"]),
            (&json!(no_answer), &json!(outside))
        );
        let others = ["truncated", "refused", "empty_rationale"]
            .iter()
            .map(|reason| failures[reason].as_u64().unwrap());
        assert_eq!(others.sum::<u64>(), 0, "{split}");
        assert_eq!(tenths(&split["teacher_accuracy"]), careful, "{split}");
        assert_eq!(tenths(&split["teacher_accuracy_official"]), official, "{split}");
    }
    let rows = facts.map(|facts| facts.1);
    let wanted = json!({"dataset": dataset, "rows": rows[0] + rows[1], "train": rows[0], "validation": 0,
                        "test": rows[1], "labelled": rows[0] + rows[1]});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&imported["dataset"][name], value, "{imported}");
    }
}

#[test]
fn svamp_is_imported_with_the_measured_figures() {
    check_import("svamp", [("train", 800, 11, 23, 741, 733), ("test", 200, 2, 5, 775, 740)]);
}

#[test]
fn cqa_is_imported_with_the_measured_figures() {
    check_import("cqa", [("train", 9741, 3, 315, 743, 743), ("test", 1221, 0, 31, 772, 772)]);
}

fn sha256(folder: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(folder.join("model.safetensors")).unwrap()))
}

/// Runs `spec`, which must succeed with these figures of the teacher and report accuracies. Returns the student's folder.
fn distil(folder: &Folder, spec: &SpecText<'_>) -> PathBuf {
    folder.write("spec.toml", spec.to_string()).unwrap();
    let said = folder.say(NOBODY, RUN).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let outcome = said.json().unwrap();
    let teacher = &outcome["teacher"];
    assert_eq!((&teacher["name"], &teacher["prompts"]), (&json!("imported"), &json!(0)), "{outcome}");
    assert_eq!(teacher["accuracy"], 0.775, "{outcome}");
    // 74.1% of 800 rationales argue for the gold label.
    assert_eq!(teacher["accepted"], 593, "{outcome}");
    for measured in ["validation_accuracy", "accuracy", "accuracy_low", "accuracy_high"] {
        let share = outcome["student"][measured].as_f64().unwrap_or_else(|| panic!("{measured}: {outcome}"));
        assert!((0.0..=1.0).contains(&share), "{measured}: {outcome}");
    }
    PathBuf::from(outcome["model_dir"].as_str().unwrap())
}

fn provenance(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("distillery.json")).unwrap()).unwrap()
}

#[test]
fn a_student_is_distilled_from_svamp_and_another_is_fine_tuned_from_its_folder() {
    let Some(from) = released("svamp") else { return };
    let folder = Folder::empty().unwrap();
    import(&folder, "svamp", &from);
    let common =
        "objective = \"step_by_step\"\nbatch_examples = 16\ninput_tokens_max = 128\ntarget_tokens_max = 24\n";
    let scratch = SpecText {
        data: "dataset = \"svamp\"",
        teacher: "profile = \"imported\"",
        training: &format!("{common}steps = 36\nevaluate_every_steps = 18"),
        ..SpecText::default()
    };
    let base = distil(&folder, &scratch);
    let made = provenance(&base);
    assert_eq!((&made["started_from"], &made["steps"]), (&json!("scratch"), &json!(36)));
    // The dataset has no validation rows: some train rows are held out; every test row is measured.
    assert_eq!(made["test"]["rows"], 200);
    let held_out = made["validation"]["rows"].as_u64().unwrap();
    assert!((40..=120).contains(&held_out), "{held_out} rows are held out");

    // As published by others: without our provenance, card and manifest.
    let foreign = folder.join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(base.join(file), foreign.join(file)).unwrap();
    }
    let mut tuned = Vec::new();
    for init in [base.to_str().unwrap(), "foreign"] {
        let tuning = SpecText {
            name: "tuned",
            student: &format!("init = \"{init}\""),
            training: &format!("{common}steps = 6\nevaluate_every_steps = 6"),
            ..scratch.clone()
        };
        let student = distil(&folder, &tuning);
        let started_from = provenance(&student)["started_from"]["base"]["name"].clone();
        let name = Path::new(init).file_name().unwrap().to_str().unwrap();
        assert!(started_from.as_str().unwrap().starts_with(&format!("{name}-")), "{started_from}");
        assert_eq!(provenance(&student)["parameters"], made["parameters"]);
        tuned.push(sha256(&student));
    }
    assert_eq!(tuned[0], tuned[1], "the weights decide, not what lies beside them");
    assert_ne!(tuned[0], sha256(&base), "six steps have changed the weights");
    let answer =
        folder.say(NOBODY, &["predict", "--model", "foreign", "--input", "1 + 1?", "--json"]).unwrap();
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.json().unwrap()["label"].is_string(), "{}", answer.out);
}
