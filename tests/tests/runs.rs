//! Many runs over the ledger of one job: each with its own rules, rows and seed, and none of them asks the teacher.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::label::{Comparison, same};
use domain::metric::Accuracy;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tests::data::{SpecText, teach};
use tests::folder::{Folder, NOBODY};
use tests::teacher::Teacher;

const ROWS: [usize; 3] = [40, 6, 10];
/// The train rows and the test rows.
const PROMPTS: usize = 50;

/// A verb that asks no teacher.
fn say(folder: &Folder, arguments: &[&str]) -> Value {
    let said = folder.say(NOBODY, &[arguments, &["--json"]].concat()).unwrap();
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    said.json().unwrap()
}

/// The accuracy that the predictions of a split give, each answer compared with the gold label anew.
fn recomputed(checkpoint: &Path, split: &str) -> Accuracy {
    let text = std::fs::read_to_string(checkpoint.join(format!("predictions/{split}.jsonl"))).unwrap();
    let rows: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let correct =
        rows.iter().filter(|row| same(Comparison::Equation, &text(row, "label"), &text(row, "gold"))).count();
    let parsed = rows.iter().filter(|row| !text(row, "label").is_empty()).count();
    Accuracy::measure(rows.len() as u64, correct as u64, parsed as u64)
}

fn provenance(checkpoint: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(checkpoint.join("distillery.json")).unwrap()).unwrap()
}

#[test]
fn runs_with_other_rules_rows_and_seeds_cost_no_call() {
    let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let job = folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap();
    assert_eq!(job.code, 0, "{}", job.err);
    assert_eq!(teacher.requests(), PROMPTS);
    let fin = provenance(&PathBuf::from(job.json().unwrap()["model_dir"].as_str().unwrap()));
    assert_eq!(fin["run"]["purpose"], "final");
    let probes: [&[&str]; 2] = [
        &["train", "job", "--fraction", "0.25", "--seed", "1", "--objective", "standard", "--agree", "false"],
        &["train", "job", "--fraction", "0.5", "--seed", "2", "--agree", "false", "--steps", "6"],
    ];
    let mut fingerprints = vec![fin["ledger_fingerprint"].clone()];
    for (arguments, fraction) in probes.into_iter().zip([0.25, 0.5]) {
        let run = say(&folder, arguments);
        assert_eq!((run["state"].as_str(), run["purpose"].as_str()), (Some("succeeded"), Some("probe")));
        let checkpoint = PathBuf::from(run["checkpoint_dir"].as_str().unwrap());
        for split in ["validation", "test"] {
            let accuracy = recomputed(&checkpoint, split);
            let reported = &run[split];
            assert_eq!(reported["rows"], accuracy.rows, "{run}");
            assert_eq!(reported["value"].as_f64(), Some(accuracy.value()), "{run}");
            assert_eq!(
                (reported["low"].as_f64(), reported["high"].as_f64()),
                (Some(accuracy.low), Some(accuracy.high)),
                "{run}"
            );
        }
        let provenance = provenance(&checkpoint);
        assert_eq!(provenance["run"]["purpose"], "probe");
        assert_eq!(provenance["run"]["rows_fraction"], fraction);
        assert_eq!(provenance["spec"]["judging"]["agree"], false, "the rules of the run");
        assert_eq!(provenance["ledger_fingerprint"], run["ledger_fingerprint"]);
        fingerprints.push(run["ledger_fingerprint"].clone());
        assert_eq!(say(&folder, arguments)["run"], run["run"], "the same command again is the same run");
    }
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 3, "{fingerprints:?}");
    assert_eq!(teacher.requests(), PROMPTS, "no run asks the teacher");
    let runs = say(&folder, &["runs", "job"]);
    let purposes: Vec<&str> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["purpose"].as_str().unwrap()).collect();
    assert_eq!(purposes, ["probe", "probe", "final"], "newest first");
    let models = say(&folder, &["models"]);
    assert_eq!(models["models"].as_array().unwrap().len(), 1, "a probe is not a version of the job's model");
}

#[test]
fn a_run_that_cannot_be_is_bad_usage_with_every_mistake() {
    let folder =
        Folder::with_problems(ROWS, &SpecText { teacher: "profile = \"none\"", ..SpecText::default() });
    let folder = folder.unwrap();
    say(&folder, &["run", "spec.toml"]);
    let refused =
        folder.say(NOBODY, &["train", "job", "--fraction", "2", "--objective", "step_by_step"]).unwrap();
    assert_eq!(refused.code, 2, "{}", refused.err);
    for words in ["rows.fraction", "teacher.profile"] {
        assert!(refused.err.contains(words), "{words}: {}", refused.err);
    }
}
