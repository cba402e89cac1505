//! The paper's layout: the released files against the figures measured on them, and small files made here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail loudly too"
)]

use domain::state::Reason;
use domain::{Answer, Example, Split};
use readers::paper::{self, PaperDataset, PaperImport};
use std::fs;
use std::path::{Path, PathBuf};

/// The released files; `None`, said loudly, where they are not at hand.
#[allow(clippy::disallowed_methods, reason = "where the data lies is this test's own setting")]
fn released(dataset: PaperDataset) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/paper");
    let root = std::env::var_os("DISTILLERY_PAPER_DATA").map_or(beside, PathBuf::from);
    let folder = root.join(dataset.as_str());
    if !folder.is_dir() {
        eprintln!("SKIPPED: no released {dataset} at {}: set DISTILLERY_PAPER_DATA", folder.display());
        return None;
    }
    Some(folder)
}

/// Rows, official and careful accuracy, rows without an answer, labels outside the set.
type Facts = (u64, &'static str, &'static str, u64, u64);

fn check_facts(dataset: PaperDataset, facts: [Facts; 2]) {
    let Some(folder) = released(dataset) else { return };
    let import = paper::read(dataset, &folder).unwrap();
    for (split, (rows, official, careful, failures, outside)) in import.report.splits.iter().zip(facts) {
        assert_eq!(split.rows, rows, "{split:?}");
        assert_eq!(split.accuracy_official().to_string(), official, "{split:?}");
        assert_eq!(split.accuracy_careful().to_string(), careful, "{split:?}");
        assert_eq!(split.of(Reason::NoAnswer), failures, "{split:?}");
        assert_eq!(split.parse_failures(), failures, "{split:?}");
        assert_eq!(split.labels_not_in_set(), outside, "{split:?}");
    }
    assert_eq!(
        import.report.splits.iter().map(|split| split.split).collect::<Vec<_>>(),
        [Split::Train, Split::Test]
    );
    let count = |split| import.examples.iter().filter(|example| example.split == split).count() as u64;
    assert_eq!([count(Split::Train), count(Split::Test)], facts.map(|(rows, ..)| rows));
}

#[test]
fn svamp_has_the_measured_figures() {
    check_facts(PaperDataset::Svamp, [(800, "73.3%", "74.1%", 11, 23), (200, "74.0%", "77.5%", 2, 5)]);
}

#[test]
fn cqa_has_the_measured_figures() {
    check_facts(PaperDataset::Cqa, [(9741, "74.3%", "74.3%", 3, 315), (1221, "77.2%", "77.2%", 0, 31)]);
}

#[test]
fn what_the_text_says_in_other_letters_is_judged_right() {
    let Some(folder) = released(PaperDataset::Cqa) else { return };
    let report = paper::read(PaperDataset::Cqa, &folder).unwrap().report;
    let judged: Vec<String> = report.splits.iter().map(|split| split.accuracy_judged().to_string()).collect();
    assert_eq!(judged, ["75.3%", "78.2%"]);
}

#[test]
fn completions_belong_to_rows_by_position() {
    let Some(folder) = released(PaperDataset::Svamp) else { return };
    let import = paper::read(PaperDataset::Svamp, &folder).unwrap();
    let texts = |place: usize| {
        let Example { input, answers, .. } = &import.examples[place];
        let [Answer::Completion { teacher, text }] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(teacher, "palm-540b");
        (input.clone(), text.clone())
    };
    // The first rows of both shards of train, and of test.
    for place in [0, 500, 800] {
        let (input, text) = texts(place);
        let number = input.split(' ').find(|word| word.parse::<u64>().is_ok()).unwrap();
        assert!(text.contains(number), "{place}: {input} / {text}");
    }
    assert_eq!(import.examples[0].label.as_deref(), Some("( 84.0 / 2.0 )"));
}

/// Official split, rows, completions by shard.
type Made<'a> = (&'a str, &'a [String], &'a [&'a [&'a str]]);

/// A folder of small files.
fn folder(name: &str, splits: &[Made<'_>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("llm")).unwrap();
    for (split, rows, shards) in splits {
        fs::write(folder.path().join(format!("{name}_{split}.json")), rows.join("\n")).unwrap();
        for (number, shard) in shards.iter().enumerate() {
            let path = folder.path().join(format!("llm/{split}_CoT_{number}.json"));
            fs::write(path, serde_json::to_string(shard).unwrap()).unwrap();
        }
    }
    folder
}

fn pairs(labels: &[&str]) -> Vec<String> {
    let row = |(place, label): (usize, &&str)| {
        format!(
            "{{\"uid\":\"u{place}\",\"premise\":\"P{place}\",\"hypothesis\":\"H\",\"label\":{label},\"reason\":\"r\"}}"
        )
    };
    labels.iter().enumerate().map(row).collect()
}

fn labels(import: &PaperImport) -> Vec<&str> {
    import.examples.iter().map(|example| example.label.as_deref().unwrap()).collect()
}

#[test]
fn anli_labels_have_names_and_its_splits_an_order() {
    let ends = |label: &str| format!("It may.\nSo the answer is {label}.\n\nPremise: A\nSo the answer is");
    let (neutral, entailment) = (ends("neutral"), ends("Entailment"));
    let folder = folder(
        "anli1",
        &[
            ("train", &pairs(&["0", "1", "2"]), &[&[&neutral, &neutral], &["It may."]]),
            ("valid", &pairs(&["0"]), &[&[&entailment]]),
            ("test", &pairs(&["2"]), &[&["It is. So the answer is maybe."]]),
        ],
    );
    let import = paper::read(PaperDataset::Anli1, folder.path()).unwrap();
    assert_eq!(labels(&import), ["entailment", "neutral", "contradiction", "entailment", "contradiction"]);
    let splits: Vec<Split> = import.examples.iter().map(|example| example.split).collect();
    assert_eq!(splits, [Split::Train, Split::Train, Split::Train, Split::Validation, Split::Test]);
    let [train, valid, test] = import.report.splits.as_slice() else { panic!() };
    assert_eq!((train.rows, train.careful, train.official, train.of(Reason::NoAnswer)), (3, 1, 1, 1));
    assert_eq!((valid.rows, valid.careful, valid.judged), (1, 0, 1));
    assert_eq!((test.judged, test.labels_not_in_set(), test.parse_failures()), (0, 1, 0));
    assert_eq!(import.examples[1].key.as_deref(), Some("u1"));
    assert_eq!(import.examples[1].premise.as_deref(), Some("P1"));
}

#[test]
fn esnli_runs_on_into_its_premise() {
    let rows = vec![
        r#"{"premise":"A dog runs.","hypothesis":"It moves.","label":0,"explanation_1":"To run is to move."}"#.to_owned(),
        r#"{"premise":"A dog runs.","hypothesis":"It sleeps.","label":2}"#.to_owned(),
    ];
    let shard: &[&str] =
        &["Running is moving.\nAnswer: entailment\n\nPremise: A\nAnswer: no", "It runs.\nAnswer: neutral"];
    let folder = folder("esnli", &[("train", &rows, &[shard])]);
    let import = paper::read(PaperDataset::Esnli, folder.path()).unwrap();
    assert_eq!(labels(&import), ["entailment", "contradiction"]);
    let [train] = import.report.splits.as_slice() else { panic!() };
    assert_eq!(
        (train.rows, train.judged, train.careful, train.official, train.parse_failures()),
        (2, 1, 1, 1, 0)
    );
}

#[test]
fn a_run_on_behind_one_space_is_cut_for_both_figures() {
    let row = |place: usize| {
        format!(
            "{{\"id\":\"r{place}\",\"question\":\"Where?\",\"choices\":[\"lake\",\"barn\"],\"answer\":\"lake\"}}"
        )
    };
    let rows: Vec<String> = (0..4).map(row).collect();
    let shard: &[&str] = &[
        "It swims. So the answer is (a) lake. Q: Where is hay?\nAnswer Choices:\n(a) lake A: So the answer is (b) barn",
        "It swims. So the answer is (a) lake.\n\nQ: And? So the answer is (b) barn",
        "It eats. So the answer is (b) barn. Q: Where? So the answer is (a) lake",
        "An FAQ: it swims. So the answer is (a) lake.",
    ];
    let folder = folder("cqa", &[("train", &rows, &[shard])]);
    let import = paper::read(PaperDataset::Cqa, folder.path()).unwrap();
    let [train] = import.report.splits.as_slice() else { panic!() };
    assert_eq!((train.careful, train.judged, train.parse_failures()), (3, 3, 0));
    // The released code cuts at `Q:` wherever it stands, inside `FAQ:` too.
    assert_eq!(train.official, 2);
}

fn check_error(dataset: PaperDataset, folder: &Path, parts: &[&str]) {
    let error = paper::read(dataset, folder).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
}

fn problems(count: usize) -> Vec<String> {
    vec![r#"{"input":"1 + 1?","label":"( 1.0 + 1.0 )"}"#.to_owned(); count]
}

#[test]
fn counts_that_do_not_match_are_named() {
    let svamp = PaperDataset::Svamp;
    let few = folder("svamp", &[("train", &problems(3), &[&["a", "b"]])]);
    check_error(svamp, few.path(), &["svamp_train.json: has 3 rows", "2 completions", "1 files"]);
    let many =
        folder("svamp", &[("train", &problems(2), &[&["a", "b"], &["c"]]), ("test", &problems(2), &[])]);
    check_error(
        svamp,
        many.path(),
        &["svamp_train.json: has 2 rows", "3 completions", "svamp_test.json: has 2 rows", "0 completions"],
    );
    let gap = folder("svamp", &[("train", &problems(3), &[&["a"], &["b"], &["c"]])]);
    fs::remove_file(gap.path().join("llm/train_CoT_1.json")).unwrap();
    check_error(svamp, gap.path(), &["has 3 rows", "2 completions", "train_CoT_1.json is missing"]);
    fs::rename(gap.path().join("llm/train_CoT_2.json"), gap.path().join("llm/train_CoT_9.json")).unwrap();
    fs::write(gap.path().join("llm/train_CoT_9.json"), r#"["b", "c"]"#).unwrap();
    check_error(svamp, gap.path(), &["has 3 rows", "3 completions", "train_CoT_1.json is missing"]);
}

#[test]
fn shards_are_read_by_number_not_by_name() {
    let shards: Vec<Vec<String>> = (0..12).map(|number| vec![format!("shard {number}")]).collect();
    let shards: Vec<Vec<&str>> =
        shards.iter().map(|shard| shard.iter().map(String::as_str).collect()).collect();
    let shards: Vec<&[&str]> = shards.iter().map(Vec::as_slice).collect();
    let folder = folder("svamp", &[("train", &problems(12), &shards)]);
    let import = paper::read(PaperDataset::Svamp, folder.path()).unwrap();
    let texts: Vec<&str> = import.examples.iter().map(|example| example.answers[0].text()).collect();
    assert_eq!(texts, (0..12).map(|number| format!("shard {number}")).collect::<Vec<_>>());
}

#[test]
fn broken_files_are_named_with_line_and_field() {
    let svamp = PaperDataset::Svamp;
    let nowhere = Path::new("/no/such/folder");
    check_error(svamp, nowhere, &["/no/such/folder/svamp_train.json", "train rows", "the folder of `svamp`"]);
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("svamp")).unwrap();
    fs::write(above.path().join("svamp/svamp_train.json"), "").unwrap();
    check_error(svamp, above.path(), &["one folder too high", "/svamp"]);
    check_error(svamp, &above.path().join("svamp"), &["llm", "does not exist"]);

    let rows = vec![
        r#"{"input":"1 + 1?","label":"( 1.0 + 1.0 )"}"#.to_owned(),
        r#"{"input":"1 + 1?","label":"( 1.0 "#.to_owned(),
        r#"{"input":"1 + 1?"}"#.to_owned(),
        r#"{"input":"1 + 1?","label":"two"}"#.to_owned(),
    ];
    let wrong = folder("svamp", &[("train", &rows, &[&["a", "b", "c", "d"]])]);
    check_error(
        svamp,
        wrong.path(),
        &[
            "svamp_train.json:2:",
            "broken JSON",
            ":3: label: is missing",
            ":4: label: `two` is not an arithmetic expression",
        ],
    );
    let anli = folder("anli1", &[("train", &pairs(&["3", "-1"]), &[&["a", "b"]])]);
    check_error(
        PaperDataset::Anli1,
        anli.path(),
        &[":1: label: `3` is not one of: entailment", ":2: label: `-1`"],
    );

    let shard = folder("svamp", &[("train", &problems(1), &[&["a"]])]);
    fs::write(shard.path().join("llm/train_CoT_0.json"), "[\"a\",\n 7").unwrap();
    check_error(svamp, shard.path(), &["train_CoT_0.json:2:", "broken JSON", "array of texts"]);
    fs::write(shard.path().join("llm/train_CoT_0.json"), "[7]").unwrap();
    check_error(svamp, shard.path(), &["train_CoT_0.json:1:", "invalid type"]);
    let empty = folder("svamp", &[("train", &[], &[&[]])]);
    check_error(svamp, empty.path(), &["svamp_train.json: is empty"]);
}

#[test]
fn datasets_have_names() {
    for dataset in PaperDataset::ALL {
        assert_eq!(dataset.to_string().parse(), Ok(*dataset));
        assert!(domain::Task::built_in(dataset.task_name()).is_some());
    }
    assert!("gsm8k".parse::<PaperDataset>().unwrap_err().message.contains("svamp, cqa"));
}
