//! From a file of rows to a student: `distillery init`, and what it says of files that it cannot make anything of; columns of
//! other names, and rows that are held out.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use tests::binary;
use tests::data::SpecText;
use tests::folder::{Folder, NOBODY, Said};
use tests::teacher::{Reply, Teacher};

const ROWS: usize = 300;

/// A review, and what it says: two thirds are positive.
fn review(row: usize) -> (String, &'static str) {
    let thing = ["soup", "lamp", "room", "train", "book"][row % 5];
    let (word, mood) = if row.is_multiple_of(3) { ("dreadful", "negative") } else { ("lovely", "positive") };
    (format!("The {thing} of day {row}, \"the {word} one\", was {word}."), mood)
}

/// As a spreadsheet writes it, by hand: quotes doubled, a column that is nobody's business.
fn reviews() -> String {
    let mut text = "text,sentiment\n".to_owned();
    for row in 0..ROWS {
        let (review, mood) = review(row);
        writeln!(text, "\"{}\",{mood}", review.replace('"', "\"\"")).unwrap();
    }
    text
}

/// The last text that a prompt asks about.
fn asked_about(prompt: &str) -> &str {
    prompt.rsplit("Text:").next().unwrap_or_default().lines().next().unwrap_or_default().trim()
}

fn is_hinted(prompt: &str) -> bool {
    prompt.contains("Hint: the correct answer is")
}

/// Says why, and is right.
fn teacher() -> Teacher {
    Teacher::start(|asked| {
        let text = asked_about(&asked.prompt);
        let (why, mood) =
            if text.contains("dreadful") { ("dreadful", "negative") } else { ("lovely", "positive") };
        Reply::completion(&format!(" The writer calls it {why}. So the answer is {mood}."))
    })
    .unwrap()
}

fn say(folder: &Folder, url: &str, command: &str) -> Said {
    let words: Vec<&str> = command.split_whitespace().collect();
    println!("distillery {command}");
    let said = folder.say(url, &words).unwrap();
    assert_eq!(said.code, 0, "{command}: {}{}", said.out, said.err);
    said
}

fn refused(folder: &Folder, arguments: &[&str], wanted: &[&str]) {
    let said = folder.say(NOBODY, arguments).unwrap();
    assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.out, said.err);
    for words in wanted {
        assert!(said.err.contains(words), "wanted {words:?} in {}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

/// The rows of a split of the job's dataset, by their texts.
fn exported(folder: &Folder, name: &str, split: &str) -> BTreeMap<String, String> {
    let said = folder.say(NOBODY, &["export", "jsonl", name, "-", "--split", split]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["input"].as_str().unwrap().to_owned(), row["label"].as_str().unwrap_or_default().to_owned())
    };
    said.out.lines().map(row).collect()
}

#[test]
fn a_csv_made_by_hand_becomes_a_student_in_four_commands() {
    let (folder, teacher) = (Folder::empty().unwrap(), teacher());
    folder.write("reviews.csv", reviews()).unwrap();
    let init = say(&folder, teacher.url(), "init reviews.csv --yes --size tiny");
    for words in [
        "reviews.csv: 300 rows, with the columns text, sentiment",
        "text:     column `text`",
        "label:    column `sentiment`, a closed set of 2: negative 100, positive 200",
        "split:    10% validation, 20% test by a hash of the text, stratified",
        "wrote reviews/spec.toml and reviews/task.toml",
        "  distillery plan reviews/spec.toml",
        "  distillery run reviews/spec.toml",
        "  distillery predict --model reviews --explain --input 'a text of your own'",
    ] {
        assert!(init.out.contains(words), "wanted {words:?} in {}", init.out);
    }
    let asked = teacher.counts();
    assert_eq!((teacher.requests(), asked.len()), (3, 3), "three rationales are asked for");
    assert!(asked.keys().all(|prompt| is_hinted(prompt)), "each with its label: {asked:?}");
    let task = std::fs::read_to_string(folder.join("reviews/task.toml")).unwrap();
    assert_eq!(task.matches("rationale = \"The writer calls it ").count(), 3, "{task}");

    let plan = say(&folder, teacher.url(), "plan reviews/spec.toml");
    assert!(plan.err.contains("next: distillery run reviews/spec.toml"), "{}", plan.err);
    assert_eq!(teacher.requests(), 3, "a plan asks nothing");
    let run = say(&folder, teacher.url(), "run reviews/spec.toml");
    let next = "next: distillery predict --model reviews@1 --explain --input 'a text of your own'";
    assert!(run.err.contains(next), "{}", run.err);
    let predicted = say(
        &folder,
        NOBODY,
        "predict --model reviews --file reviews.csv --columns input=text,label=sentiment",
    );
    assert!(predicted.out.contains("accuracy "), "{}", predicted.out);
    check_rows(&folder, &teacher, &task);
}

/// What the job read: every row once, in the proportions of the labels, and no exemplar among the rows that measure.
fn check_rows(folder: &Folder, teacher: &Teacher, task: &str) {
    let splits = ["train", "validation", "test"].map(|split| exported(folder, "reviews", split));
    for (rows, [negative, positive]) in splits.iter().zip([[70, 140], [10, 20], [20, 40]]) {
        let count = |label: &str| rows.values().filter(|mood| *mood == label).count();
        assert_eq!((count("negative"), count("positive")), (negative, positive));
    }
    let together: BTreeMap<&String, &String> = splits.iter().flatten().collect();
    assert_eq!(together.len(), ROWS, "no row is in two splits");
    let exemplars: toml::Table = task.parse().unwrap();
    for exemplar in exemplars["exemplars"].as_array().unwrap() {
        let input = exemplar["input"].as_str().unwrap();
        assert_eq!(
            splits[0].get(input).map(String::as_str),
            exemplar["label"].as_str(),
            "{input} is a train row"
        );
    }
    let of_test =
        teacher.counts().keys().filter(|prompt| splits[2].contains_key(asked_about(prompt))).count();
    assert_eq!((teacher.requests(), of_test), (3 + 210 + 60, 60));
}

#[test]
fn without_a_teacher_the_rationales_are_placeholders_that_are_refused_by_line() {
    let folder = Folder::empty().unwrap();
    folder.write("reviews.csv", reviews()).unwrap();
    let init = say(&folder, NOBODY, "init reviews.csv --yes --out my/task");
    assert!(init.err.contains("`local` gave no rationale: "), "{}", init.err);
    let task = std::fs::read_to_string(folder.join("my/task/task.toml")).unwrap();
    assert!(task.contains("# TO BE EDITED: nobody has said why yet."), "{task}");
    let lines = task.lines().zip(1..).filter(|(line, _)| line.starts_with("rationale = \"EDIT ME: "));
    let lines: Vec<usize> = lines.map(|(_, number)| number).collect();
    assert_eq!(lines.len(), 3);
    for (place, line) in lines.iter().enumerate() {
        let words =
            format!("my/task/task.toml:{line}: exemplars[{place}].rationale: is a placeholder: write in a");
        assert!(init.out.contains(&words), "wanted {words:?} in {}", init.out);
        for verb in ["plan", "run"] {
            // It stands in the task's file, which is the one to be edited.
            let said = folder.say(NOBODY, &[verb, "my/task/spec.toml"]).unwrap();
            assert_eq!(said.code, 2, "{}", said.err);
            assert!(said.err.contains(&words) && !said.err.contains("spec.toml"), "{}", said.err);
        }
    }
    // Nothing is overwritten, unless that is asked for.
    refused(
        &folder,
        &["init", "reviews.csv", "--yes", "--out", "my/task"],
        &["my/task/spec.toml and my/task/task.toml exists: nothing is overwritten without --force"],
    );
    let edited = task.replace("EDIT ME: say", "The writer would say");
    folder.write("my/task/task.toml", &edited).unwrap();
    say(&folder, NOBODY, "plan my/task/spec.toml");
    say(&folder, NOBODY, "init reviews.csv --yes --out my/task --force --profile none");
    let labels_only = std::fs::read_to_string(folder.join("my/task/spec.toml")).unwrap();
    assert!(labels_only.contains("profile = \"none\""), "{labels_only}");
    say(&folder, NOBODY, "plan my/task/spec.toml");
}

#[test]
fn other_kinds_of_rows_are_proposed_for_too() {
    let check = |name: &str, rows: &dyn Fn(usize) -> Value, wanted: &[&str]| {
        let folder = Folder::empty().unwrap();
        let lines: Vec<String> = (0..40).map(|row| rows(row).to_string()).collect();
        folder.write(name, lines.join("\n")).unwrap();
        let said = say(&folder, NOBODY, &format!("init {name} --yes --profile none"));
        for words in wanted {
            assert!(said.out.contains(words), "wanted {words:?} in {}", said.out);
        }
        let stem = Path::new(name).file_stem().unwrap().to_string_lossy().into_owned();
        say(&folder, NOBODY, &format!("plan {stem}/spec.toml"));
    };
    check(
        "sums.jsonl",
        &|row| serde_json::json!({"question": format!("Ann has {row} pens and buys 3 more."), "equation": format!("( {row} + 3 )")}),
        &["label:    column `equation`, an expression", "task:     word problems"],
    );
    check(
        "quiz.jsonl",
        &|row| serde_json::json!({"stem": format!("What is in box {row}?"), "options": [format!("a {row}"), "nothing"], "key": format!("a {row}")}),
        &[
            "choices:  column `options`",
            "label:    column `key`, one of the row's choices",
            "multiple choice",
        ],
    );
    check(
        "answers.jsonl",
        &|row| serde_json::json!({"q": format!("Who lives in house number {row}?"), "answer": format!("neighbour {row}")}),
        &["label:    column `answer`, free text", "questions and answers"],
    );
    check(
        "parts.jsonl",
        &|row| {
            let (kind, part) = (["a", "b"][row / 4 % 2], ["train", "train", "dev", "test"][row % 4]);
            serde_json::json!({"body": format!("A text of {row} words or so."), "kind": kind, "part": part})
        },
        &["split:    column `part`\n", "label:    column `kind`, a closed set of 2"],
    );
}

#[test]
fn files_that_nothing_can_be_made_of_say_what_where_and_what_to_do() {
    let folder = Folder::empty().unwrap();
    std::fs::create_dir(folder.join("folder.csv")).unwrap();
    let lines = |header: &str, row: &dyn Fn(usize) -> String| {
        let rows: Vec<String> = (0..40).map(row).collect();
        format!("{header}\n{}\n", rows.join("\n")).into_bytes()
    };
    let many: Vec<String> = (0..100_000).map(|column| format!("c{column}")).collect();
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("empty.csv", Vec::new(), &["empty.csv: is empty: it must hold at least one row"]),
        (
            "header.csv",
            b"text,sentiment\n".to_vec(),
            &["header.csv: is empty: it must hold at least one row"],
        ),
        (
            "one.csv",
            lines("text", &|row| format!("the review of day {row}")),
            &["one.csv: there is no column for the label beside `text`: add one", "examples/reviews"],
        ),
        (
            "distinct.csv",
            lines("text,sentiment", &|row| format!("the review of day {row},mood {row}")),
            &[
                "distinct.csv: no column looks like a label",
                "`sentiment` has 40 values in 40 rows",
                "--label",
            ],
        ),
        (
            "same.csv",
            lines("text,label", &|row| format!("the review of day {row},good")),
            &["same.csv: no column looks like a label", "`label` has 1 values in 40 rows", "--label"],
        ),
        (
            "latin.csv",
            b"text,label\ncaf\xe9,good\n".to_vec(),
            &["latin.csv:2: text: is not UTF-8", "iconv -f LATIN1 -t UTF-8"],
        ),
        ("folder.csv", Vec::new(), &["folder.csv: is a folder: name a file in it"]),
        ("absent.csv", Vec::new(), &["absent.csv: does not exist: check the path"]),
        (
            "wide.csv",
            many.join(",").into_bytes(),
            &["wide.csv:1: header: names 100000 columns, and at most 4096 are read: keep those"],
        ),
        ("rows.txt", b"text\n".to_vec(), &["rows.txt: its extension names no format"]),
        (
            "odd.csv",
            lines("n\u{1b}[2J,m", &|row| format!("{row},{row}")),
            &["odd.csv: no column looks like a text", "n\\u{1b}[2J, m"],
        ),
    ];
    for (name, content, wanted) in cases {
        if !["folder.csv", "absent.csv"].contains(&name) {
            folder.write(name, content).unwrap();
        }
        refused(&folder, &["init", name, "--yes"], wanted);
        let (stem, _) = name.split_once('.').unwrap();
        assert!(!folder.join(stem).exists(), "{name}: nothing is written");
    }
}

#[test]
fn a_flag_that_names_nothing_is_refused() {
    let folder = Folder::empty().unwrap();
    let same: String = (0..9).map(|row| format!("the review of day {row},good\n")).collect();
    folder.write("same.csv", format!("text,label\n{same}")).unwrap();
    folder.write("reviews.csv", reviews()).unwrap();
    let init = |more: &[&str], wanted: &str| {
        let arguments: Vec<&str> = ["init", "reviews.csv", "--yes"].iter().chain(more).copied().collect();
        refused(&folder, &arguments, &[wanted]);
    };
    init(
        &["--label", "sentimnt"],
        "--label: there is no column `sentimnt`: the columns are text, sentiment; did you",
    );
    init(&["--label", "text", "--input", "text"], "column `text` is named for two fields");
    init(&["--profile", "nobody"], "--profile: ");
    init(&["--profile", "im ported"], "--profile: `im ported` is not the name");
    init(&["--out", "reviews.csv"], "reviews.csv: is a file: name a folder with --out");
    refused(&folder, &["init", "same.csv", "--label", "label"], &["column `label` has one value, `good`"]);
}

/// A person who mistypes an answer is asked again, and loses nothing of what was said before.
#[test]
fn a_wrong_answer_is_asked_again() {
    let folder = Folder::empty().unwrap();
    folder.write("reviews.csv", reviews()).unwrap();
    let mut command = binary::command_on_terminal(folder.path(), 80, &["init", "reviews.csv"]).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    // The text as proposed; the label after a slip; the teacher after another.
    keys.write_all(b"\nsentimnt\nsentiment\nlocl\nnone\n").unwrap();
    keys.flush().unwrap();
    let said: Said = binary::finish(child).unwrap().into();
    drop(keys);
    assert_eq!(said.code, 0, "{}", said.out);
    for wanted in [
        "there is no column `sentimnt`",
        "there is no teacher profile `locl`: there are ",
        "wrote reviews/spec.toml",
    ] {
        assert!(said.out.contains(wanted), "wanted {wanted:?} in\n{}", said.out);
    }
}

/// `[data]` of a specification over rows of two columns.
fn spec(data: &str) -> String {
    let spec = SpecText { data, task: "classify.toml", teacher: "profile = \"none\"", ..SpecText::default() };
    spec.to_string()
}

const CLASSIFY: &str = "name = \"moods\"\ntemplate = \"Text: {{ example.input }}\\nA:\"\nstop = [\"\\nText:\"]\nmetric = \"text\"\n\
    labels = { closed = [\"negative\", \"positive\"] }\nanswer = { marker = \"So the answer is\", shape = \"text\" }\n";

#[test]
fn data_of_any_specification_maps_columns_and_holds_rows_out() {
    let folder = Folder::empty().unwrap();
    folder.write("reviews.csv", reviews()).unwrap();
    folder.write("classify.toml", CLASSIFY).unwrap();
    let mapped = "train = \"reviews.csv\"\ncolumns = { input = \"text\", label = \"sentiment\" }";
    let plan = |data: &str| {
        folder.write("spec.toml", spec(data)).unwrap();
        folder.say(NOBODY, &["plan", "spec.toml"]).unwrap()
    };
    let sides = |data: &str| {
        let said = plan(data);
        assert_eq!(said.code, 0, "{data}: {}", said.err);
        let rows = exported(&folder, "job", "test");
        folder.say(NOBODY, &["delete", "--dataset", "job"]).unwrap();
        rows.into_keys().collect::<Vec<String>>()
    };
    let test_rows = sides(&format!("{mapped}\ntest_share = 0.2"));
    assert_eq!(test_rows.len(), 60);
    assert_eq!(sides(&format!("{mapped}\ntest_share = 0.2\nvalidation_share = 0.3")), test_rows);
    assert_ne!(sides(&format!("{mapped}\ntest_share = 0.2\nsplit_seed = 1")), test_rows);
    // The same rows in another order, and another format.
    let mut lines: Vec<String> = (0..ROWS)
        .map(review)
        .map(|(text, mood)| serde_json::json!({"sentiment": mood, "text": text, "page": 7}).to_string())
        .collect();
    lines.reverse();
    folder.write("rows.jsonl", lines.join("\n")).unwrap();
    assert_eq!(
        sides(&format!("{}\ntest_share = 0.2", mapped.replace("reviews.csv", "rows.jsonl"))),
        test_rows
    );

    let check = |data: &str, wanted: &[&str]| {
        let said = plan(data);
        assert_eq!(said.code, 2, "{data}: {}", said.err);
        for words in wanted {
            assert!(said.err.contains(words), "{data}: wanted {words:?} in {}", said.err);
        }
    };
    check(
        &mapped.replace("sentiment", "mood"),
        &["reviews.csv:1: columns.label: there is no column `mood`: the columns are text, sentiment"],
    );
    check(
        &format!("{mapped}\ntest = \"reviews.csv\"\ntest_share = 1.5"),
        &["spec.toml:8: data.test_share: contradicts `data.test`", "spec.toml:8: data.test_share: is 1.5"],
    );
    folder.write("parts.csv", "text,sentiment,split\na,negative,train\nb,positive,test\n").unwrap();
    check(
        "file = \"parts.csv\"\ncolumns = { input = \"text\", label = \"sentiment\" }\ntest_share = 0.5",
        &["spec.toml:7: data.test_share: contradicts the rows, some of which say that they are `test` rows"],
    );
}
