//! Rows without labels: every label that a student learns, or is stopped by, is its teacher's. And students on the same labelled
//! rows: measured, and compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::paired::Pairs;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tests::data::SpecText;
use tests::folder::{Folder, NOBODY, Said};
use tests::teacher::{Reply, Teacher};

const TRAIN: usize = 60;
const TEST: usize = 24;
const SPEC: SpecText<'_> = SpecText {
    name: "reviews",
    task: "task.toml",
    data: "train = \"train.jsonl\"\ntest = \"test.jsonl\"",
    teacher: "profile = \"local\"",
    judging: "",
    student: "size = \"tiny\"\nvocabulary = 400",
    training: "steps = 6\nbatch_examples = 8\nholdout_fraction = 0.3\nevaluate_every_steps = 3",
};

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reviews").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The first rows of the example's file, each with what `label` makes of its input.
fn rows(name: &str, count: usize, label: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut text = String::new();
    for line in example(name).lines().take(count) {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if let Some(label) = label(row["input"].as_str().unwrap()) {
            row["label"] = json!(label);
        }
        writeln!(text, "{row}").unwrap();
    }
    text
}

fn folder(spec: &SpecText<'_>, train: &str) -> Folder {
    let folder = Folder::empty().unwrap();
    folder.write("spec.toml", spec.to_string()).unwrap();
    folder.write("task.toml", example("task.toml")).unwrap();
    folder.write("train.jsonl", train).unwrap();
    folder.write("test.jsonl", rows("test.jsonl", TEST, |_| None)).unwrap();
    folder
}

/// What this teacher says of a review: nothing that its words say.
fn opinion(input: &str) -> &'static str {
    if input.len().is_multiple_of(3) { "negative" } else { "positive" }
}

fn other(label: &str) -> &'static str {
    if label == "positive" { "negative" } else { "positive" }
}

fn teacher() -> Teacher {
    Teacher::start(|asked| {
        let review = asked.prompt.rsplit("Review:").next().unwrap_or_default();
        let input = review.lines().next().unwrap_or_default().trim();
        Reply::completion(&format!(" It has {} letters. So the answer is {}.", input.len(), opinion(input)))
    })
    .unwrap()
}

fn say(folder: &Folder, url: &str, arguments: &[&str]) -> Said {
    let said = folder.say(url, arguments).unwrap();
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    said
}

/// What a student in `folder` answered to the rows of a split.
fn predictions(folder: &Path, split: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(format!("predictions/{split}.jsonl"))).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn model_dir(outcome: &Value) -> PathBuf {
    PathBuf::from(outcome["model_dir"].as_str().unwrap())
}

/// Trains over `train`, and checks that what the student was measured against while training is the teacher's label.
fn check(spec: &SpecText<'_>, train: &str) -> (Folder, Said) {
    let (folder, teacher) = (folder(spec, train), teacher());
    let said = say(&folder, teacher.url(), &["run", "spec.toml", "--json"]);
    assert_eq!(teacher.requests(), TRAIN + TEST);
    let outcome = said.json().unwrap();
    let validation = predictions(&model_dir(&outcome), "validation");
    assert!((5..=35).contains(&validation.len()), "{} rows are held out", validation.len());
    let inputs: Vec<Value> = train.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &validation {
        let input = inputs[row["row"].as_u64().unwrap() as usize]["input"].as_str().unwrap();
        assert_eq!(row["gold"], opinion(input), "the teacher's: {input}");
    }
    assert_eq!(predictions(&model_dir(&outcome), "test").len(), TEST);
    let provenance = std::fs::read(model_dir(&outcome).join("distillery.json")).unwrap();
    let provenance: Value = serde_json::from_slice(&provenance).unwrap();
    assert_eq!(provenance["spec"]["judging"]["label"], "teacher");
    (folder, said)
}

#[test]
fn the_reviews_have_no_gold_label_to_learn() {
    for line in example("train.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), ["input"], "{line}");
    }
    for spec in ["spec.toml", "labels-only.toml"] {
        let spec = example(spec);
        let files: Vec<&str> = spec.lines().filter(|line| line.ends_with(".jsonl\"")).collect();
        assert_eq!(files, ["train = \"train.jsonl\"", "test = \"test.jsonl\""]);
        assert!(spec.contains("label = \"teacher\""));
    }
}

#[test]
fn where_no_row_has_a_label_the_student_learns_the_teachers() {
    let (folder, said) = check(&SPEC, &rows("train.jsonl", TRAIN, |_| None));
    let line = "no train row has a label: the student learns the teacher's (judging.label = \"teacher\")";
    assert!(said.err.contains(line), "{}", said.err);
    // The same specification again is the same job: nothing is asked.
    let again = say(&folder, NOBODY, &["run", "spec.toml", "--json"]);
    let id = |said: &Said| said.json().unwrap()["distillation"].clone();
    assert_eq!(id(&again), id(&said));
}

#[test]
fn a_gold_label_that_is_not_asked_for_is_not_read() {
    // Gold says the opposite of the teacher, everywhere.
    let train = rows("train.jsonl", TRAIN, |input| Some(other(opinion(input))));
    let (folder, _) = check(&SpecText { judging: "label = \"teacher\"", ..SPEC }, &train);
    // Without that, labels that are there are learnt: one is enough.
    let refused = |label: fn(&str) -> Option<&'static str>| {
        folder.write("train.jsonl", rows("train.jsonl", TRAIN, label)).unwrap();
        folder.write("spec.toml", SPEC.to_string()).unwrap();
        folder.say(NOBODY, &["run", "spec.toml"]).unwrap()
    };
    let some = refused(|input| input.starts_with('I').then_some("positive"));
    assert_eq!(some.code, 2, "{}", some.err);
    assert!(some.err.contains("label"), "{}", some.err);
}

#[test]
fn students_are_measured_and_compared_on_the_same_rows() {
    let (folder, said) = check(&SPEC, &rows("train.jsonl", TRAIN, |_| None));
    let outcome = said.json().unwrap();
    let further =
        say(&folder, NOBODY, &["train", "reviews", "--objective", "standard", "--seed", "3", "--json"]);
    let further = further.json().unwrap()["checkpoint_dir"].as_str().unwrap().to_owned();
    // The rows have the labels that they were made for, and one has none.
    let unlabelled = "{\"input\": \"It was Tuesday.\"}\n";
    folder.write("rows.jsonl", rows("test.jsonl", TEST, |_| None) + unlabelled).unwrap();
    let measured = say(&folder, NOBODY, &["evaluate", "reviews", "rows.jsonl", "--json"]).json().unwrap();
    assert_eq!((&measured["rows"], &measured["parsed"]), (&json!(TEST), &json!(TEST)));
    assert_eq!(measured["accuracy"], outcome["student"]["accuracy"]);
    let counted = |field: &str, value: &str| -> u64 {
        let counts = measured["confusion"].as_array().unwrap().iter();
        counts.filter(|count| count[field] == value).map(|count| count["rows"].as_u64().unwrap()).sum()
    };
    assert_eq!(counted("expected", "positive") + counted("expected", "negative"), TEST as u64);

    let compared = ["compare", "reviews", &further, "rows.jsonl", "--json"];
    let compared = say(&folder, NOBODY, &compared).json().unwrap();
    let rights = |folder: &Path| -> Vec<bool> {
        predictions(folder, "test").iter().map(|row| row["correct"].as_bool().unwrap()).collect()
    };
    let (first, second) = (rights(&model_dir(&outcome)), rights(Path::new(&further)));
    let pairs: Pairs = first.into_iter().zip(second).collect();
    assert_eq!(compared["pairs"], json!(pairs));
    assert_eq!(compared["difference"], json!(pairs.difference()));
    assert_eq!(compared["finding"], json!(pairs.difference().finding(0.02)));
    let itself = ["compare", "reviews", "reviews", "rows.jsonl", "--margin", "50"];
    let itself = say(&folder, NOBODY, &itself).out;
    assert!(itself.contains("difference +0.0 points (95% interval "), "{itself}");
    assert!(itself.contains("reviews: no difference (margin 50 points)"), "{itself}");

    let summary = "accuracy ";
    let machine = say(&folder, NOBODY, &["predict", "--model", "reviews", "--file", "rows.jsonl", "--json"]);
    assert_eq!(machine.out.lines().count(), TEST + 1);
    assert!(machine.out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", machine.out);
    assert!(machine.err.contains(summary) && machine.err.contains("label \\ answer"), "{}", machine.err);
    let people = say(&folder, NOBODY, &["predict", "--model", "reviews", "--file", "rows.jsonl"]);
    assert!(people.out.contains(summary) && !people.err.contains(summary), "{}", people.out);

    folder.write("none.jsonl", unlabelled).unwrap();
    let none = folder.say(NOBODY, &["evaluate", "reviews", "none.jsonl"]).unwrap();
    assert_eq!(none.code, 2, "{}", none.err);
    assert!(none.err.contains("none.jsonl: no row has a label to measure against"), "{}", none.err);
}
