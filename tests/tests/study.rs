//! A study through the product: its controls, its files, and what it costs; killed at any time it comes to the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::metric::SplitMix;
use domain::objective::Objective;
use domain::spec::Rationales;
use domain::study::{Answered, Answers, Arm, Asked, Grid, Results};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tests::binary;
use tests::data::SpecText;
use tests::folder::{Folder, NOBODY, Said};
use tests::service::Service;
use tests::teacher::{Reply, Teacher, TeacherRequest};

/// Rows of the example's files: the train rows have no label.
const TRAIN: usize = 60;
const TEST: usize = 30;
/// The train rows, and the test rows that measure the teacher.
const CALLS: usize = TRAIN + 16;
const KILLS: u64 = 10;
/// Calls that a kill may repeat.
const CONCURRENCY: usize = 2;
const STUDY: &[&str] = &["study", "spec.toml"];
const FOLDER: &str = ".distillery/studies/job";
const SPEC: SpecText<'_> = SpecText {
    name: "job",
    task: "task.toml",
    data: "train = \"train.jsonl\"\ntest = \"test.jsonl\"",
    teacher: "profile = \"local\"\nevaluate_rows = 16",
    judging: "",
    student: "size = \"tiny\"\nvocabulary = 400",
    training: "steps = 16\nlearning_rate = 0.005\nbatch_examples = 8\nholdout_fraction = 0.2\nevaluate_every_steps = 8",
};

fn example(name: &str, lines: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reviews").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().take(lines).map(|line| format!("{line}\n")).collect()
}

fn folder(study: &str) -> Folder {
    let folder = Folder::empty().unwrap();
    folder.write("spec.toml", format!("{SPEC}\n[study]\n{study}\n")).unwrap();
    folder.write("task.toml", example("task.toml", usize::MAX)).unwrap();
    folder.write("train.jsonl", example("train.jsonl", TRAIN)).unwrap();
    folder.write("test.jsonl", example("test.jsonl", TEST)).unwrap();
    folder.write("distillery.toml", format!("[teachers.local]\nconcurrency_max = {CONCURRENCY}\n")).unwrap();
    folder
}

/// What this teacher says of a review: nothing that its words say.
fn teach(asked: &TeacherRequest) -> Reply {
    let review = asked.prompt.rsplit("Review:").next().unwrap_or_default();
    let input = review.lines().next().unwrap_or_default().trim();
    let label = if input.len().is_multiple_of(2) { "negative" } else { "positive" };
    Reply::completion(&format!(" It has {} letters. So the answer is {label}.", input.len()))
}

/// Labels only, step by step and the control, each on two fractions with two seeds.
fn two_by_two() -> Folder {
    folder("fractions = [0.5, 1]\nseeds = [0, 1]")
}

fn grid() -> Grid {
    let step_by_step = Arm { objective: Objective::StepByStep, rationales: Rationales::Own };
    Grid {
        arms: vec![Arm::NONE, step_by_step, Arm { rationales: Rationales::Shuffled, ..step_by_step }],
        millionths: vec![500_000, 1_000_000],
        seeds: vec![0, 1],
        sizes: vec![None],
        margin: 0.02,
        accuracy: None,
    }
}

fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{}", said.err);
    said
}

fn results(folder: &Folder) -> Vec<u8> {
    std::fs::read(folder.join(FOLDER).join("results.json")).unwrap()
}

/// The header and the rows of a file of predictions.
fn predictions(folder: &Path, name: &str) -> (Value, Vec<Answered>) {
    let text = std::fs::read_to_string(folder.join(format!("predictions/{name}.jsonl"))).unwrap();
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().unwrap()).unwrap();
    (head, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// What the files of predictions say, and nothing else.
fn recomputed(folder: &Path) -> Results {
    let cells: Vec<Answers> = grid()
        .cells()
        .into_iter()
        .map(|cell| {
            let (head, rows) = predictions(folder, &cell.name());
            Answers { cell, parameters: head["parameters"].as_u64().unwrap(), rows }
        })
        .collect();
    let (head, rows) = predictions(folder, "teacher");
    let teacher = Asked { name: head["teacher"].as_str().unwrap().to_owned(), rows };
    Results::of(&grid(), "job", "reviews", &cells, Some(&teacher)).unwrap()
}

fn pretty(results: &Results) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(results).unwrap();
    text.push(b'\n');
    text
}

/// The runs that the job has, without its final one.
fn runs(folder: &Folder) -> Vec<Value> {
    let said = done(folder.say(NOBODY, &["runs", "job", "--json"]).unwrap()).json().unwrap();
    said["runs"].as_array().unwrap().iter().filter(|run| run["purpose"] == "cell").cloned().collect()
}

#[test]
fn a_study_asks_once_has_its_controls_and_follows_from_its_predictions() {
    let (folder, teacher) = (two_by_two(), Teacher::start(teach).unwrap());
    let said = done(folder.say(teacher.url(), &[STUDY, &["--json"]].concat()).unwrap());
    assert_eq!(teacher.requests(), CALLS, "as many as the largest cell needs");
    let printed = said.json().unwrap();
    let out = folder.join(FOLDER);
    assert_eq!(printed["bill"]["calls"], CALLS);
    assert_eq!(results(&folder), pretty(&recomputed(&out)), "every number follows from predictions/");
    assert_eq!(printed["results"], serde_json::to_value(recomputed(&out)).unwrap());
    check_changed(&out);
    check_page(&out);
    check_cells(&folder);
    check_table(&folder, &teacher);
    // Students that are trained are not trained again, and nobody is asked.
    let before = runs(&folder).len();
    done(folder.say(NOBODY, STUDY).unwrap());
    assert_eq!((runs(&folder).len(), before), (12, 12));
    // A smaller study is a part of it.
    let smaller = std::fs::read_to_string(folder.join("spec.toml")).unwrap().replace("[0.5, 1]", "[1]");
    folder.write("spec.toml", smaller).unwrap();
    done(folder.say(NOBODY, STUDY).unwrap());
    assert_eq!(runs(&folder).len(), 12);
    assert_eq!(std::fs::read_dir(out.join("predictions")).unwrap().count(), 6 + 1);
}

/// One answer more or less is another result.
fn check_changed(out: &Path) {
    for name in ["step_by_step-1-student-1", "teacher"] {
        let path = out.join(format!("predictions/{name}.jsonl"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (from, to) = if text.contains("\"right\":true") { ("true", "false") } else { ("false", "true") };
        let changed = text.replacen(&format!("\"right\":{from}"), &format!("\"right\":{to}"), 1);
        std::fs::write(&path, changed).unwrap();
        assert_ne!(std::fs::read(out.join("results.json")).unwrap(), pretty(&recomputed(out)), "{name}");
        std::fs::write(&path, text).unwrap();
    }
}

/// Cells differ in one thing, and those of one fraction and seed have one tokenizer.
fn check_cells(folder: &Folder) {
    let runs = runs(folder);
    let (mut tokenizers, mut students) = (BTreeSet::new(), BTreeMap::new());
    for run in &runs {
        let checkpoint = folder.join(".distillery/checkpoints").join(run["checkpoint"].as_str().unwrap());
        let provenance: Value =
            serde_json::from_slice(&std::fs::read(checkpoint.join("distillery.json")).unwrap()).unwrap();
        let cell = run["cell"].as_str().unwrap();
        let training = &provenance["spec"]["training"];
        let (objective, rationales) = match cell.split('-').next().unwrap() {
            "none" => ("standard", "own"),
            "step_by_step" => ("step_by_step", "own"),
            "shuffled" => ("step_by_step", "shuffled"),
            other => panic!("{other}"),
        };
        assert_eq!(
            (&training["objective"], &training["rationales"]),
            (&objective.into(), &rationales.into())
        );
        assert_eq!(provenance["run"]["rows_seed"], training["seed"], "{cell}");
        tokenizers.insert(std::fs::read(checkpoint.join("tokenizer.json")).unwrap());
        students.insert(cell.to_owned(), std::fs::read(checkpoint.join("model.safetensors")).unwrap());
    }
    assert_eq!((runs.len(), tokenizers.len()), (12, 4), "one for the rows, whatever is learnt of them");
    let weights: BTreeSet<&Vec<u8>> = students.values().collect();
    assert_eq!(weights.len(), 12, "every cell has a student of its own, that of shuffled rationales too");
}

/// Every number of the page follows from the predictions: one changed digit is a fault.
fn check_page(out: &Path) {
    let (page, results) = (std::fs::read_to_string(out.join("report.html")).unwrap(), recomputed(out));
    assert_eq!(numbers(&page), expected_numbers(&results));
    let mut changed = 0;
    for (start, end) in parts(&page) {
        for (offset, digit) in page[start..end].char_indices().filter(|(_, letter)| letter.is_ascii_digit()) {
            let place = start + offset;
            let other = if digit == '7' { "3" } else { "7" };
            let page = format!("{}{other}{}", &page[..place], &page[place + 1..]);
            assert_ne!(numbers(&page), expected_numbers(&results), "at {place}: {}", &page[start..end]);
            changed += 1;
        }
    }
    assert!(changed > 250, "{changed}");
    for outside in ["<script", "http://", "https://", "<img", "<link", " onclick"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for words in
        ["<html lang=\"en\">", "width=device-width", "prefers-color-scheme:dark", "@media print", "[study]"]
    {
        assert!(page.contains(words), "{words}");
    }
}

/// Where the page's numbers are: in its sentences, its curves, its key and its tables.
fn parts(page: &str) -> Vec<(usize, usize)> {
    let shown = page.find("<h2>The bill").unwrap();
    assert!(
        page.contains("<h2>Answer or ask")
            && page.contains("<h2>By label")
            && page.contains("<h2>Can the rationales")
    );
    let mut found = Vec::new();
    for (open, close) in [
        ("<p class=\"lead\">", "</p>"),
        ("</svg>", "</li>"),
        ("<title>", "</title>"),
        ("<td>", "</td>"),
        ("<p id=\"power\">", "</p>"),
    ] {
        for (start, _) in page[..shown].match_indices(open) {
            let start = start + open.len();
            // What closes no list is a drawing's end.
            found.extend(page[start..shown].find(close).map(|length| (start, start + length)));
        }
    }
    found
}

/// The numbers of a page, part by part.
fn numbers(page: &str) -> Vec<String> {
    parts(page).into_iter().flat_map(|(start, end)| numbers_in(&page[start..end])).collect()
}

/// The numbers of a text without its markup, with their signs; a number with a letter before it is a name.
fn numbers_in(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut in_tag = false;
    for letter in text.replace("&lt;", "").replace("&#39;", "").chars() {
        match letter {
            '<' => (in_tag, plain) = (true, plain + " "),
            '>' => in_tag = false,
            letter if !in_tag => plain.push(letter),
            _ => {}
        }
    }
    let is_part = |letter: char| letter.is_ascii_digit() || "+-.,".contains(letter);
    plain
        .split(|letter: char| !is_part(letter))
        .map(|number| number.trim_end_matches(['.', ',']).to_owned())
        .filter(|number| number.contains(|letter: char| letter.is_ascii_digit()))
        .collect()
}

fn expected_numbers(results: &Results) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}", (share * 1000.0).round() / 10.0);
    let points = |share: f64| {
        let points = (share * 1000.0).round() / 10.0;
        format!("{:+.1}", if points == 0.0 { 0.0 } else { points })
    };
    let p_value = |value: f64| if value < 0.001 { "0.001".to_owned() } else { format!("{value:.3}") };
    let fraction = |millionths: u32| (f64::from(millionths) / 1e4).to_string();
    let grouped = |number: u64| {
        let digits = number.to_string();
        let parts = digits.as_bytes().rchunks(3).rev();
        parts.map(|part| String::from_utf8(part.to_vec()).unwrap()).collect::<Vec<_>>().join(",")
    };
    let teacher = results.teacher.as_ref().unwrap();
    let (settings, questions) = (&results.settings, &results.questions);
    // All rows: the fourth setting is labels only, the fifth step by step.
    let (gain, control) = (&questions[3], &questions[4]);
    let mut expected =
        vec![percent(settings[4].accuracy), results.test_rows.to_string(), percent(settings[3].accuracy)];
    expected.push(points(gain.difference.value));
    expected.extend(["95".to_owned(), points(gain.difference.low), points(gain.difference.high)]);
    expected.extend([control.difference.value, control.difference.low, control.difference.high].map(points));
    expected.push(format!("{:.1}", control.smallest_difference * 100.0));
    expected.push(percent(teacher.accuracy));
    for arm in 0..3 {
        for measured in [&settings[arm], &settings[arm + 3]] {
            expected.push(fraction(measured.setting.millionths));
            expected.extend([measured.accuracy, measured.low, measured.high].map(percent));
        }
    }
    expected.extend([teacher.accuracy, teacher.low, teacher.high, teacher.accuracy].map(percent));
    for measured in settings {
        expected.push(fraction(measured.setting.millionths));
        expected.extend([measured.accuracy, measured.low, measured.high, measured.parsed].map(percent));
        expected.extend([percent(measured.on_teachers_rows.unwrap()), grouped(measured.parameters)]);
    }
    for answer in questions {
        expected.push(fraction(answer.first.millionths));
        expected.extend([answer.difference.value, answer.difference.low, answer.difference.high].map(points));
        expected.push(p_value(answer.p_table));
    }
    // All rows are the last three settings: by label, their rationales, and what goes to the teacher.
    let all = &settings[3..];
    for (place, class) in all[0].classes.iter().enumerate() {
        expected.push(grouped(class.rows));
        expected.extend(all.iter().map(|measured| percent(measured.classes[place].accuracy)));
    }
    for trust in all.iter().filter_map(|measured| measured.trust.as_ref()) {
        expected.push(grouped(trust.rationales));
        expected.push(percent(trust.concluding));
        expected.extend([trust.agreeing, trust.overlap].into_iter().flatten().map(percent));
        expected.push(format!("{:.1}", trust.words));
    }
    for routing in &results.routing {
        expected.extend(routing.shares.iter().filter_map(|route| route.answered).map(percent));
        expected.extend(routing.shares.iter().filter_map(|route| route.together).map(percent));
    }
    // The paragraph beneath the tables comes last.
    expected.extend([results.test_rows, results.seeds.len() as u64, questions.len() as u64].map(grouped));
    let smallest = questions.iter().map(|answer| answer.smallest_difference).fold(0.0, f64::max);
    expected.push(format!("{:.1}", smallest * 100.0));
    let rows = questions.iter().map(|answer| answer.rows_for_one_point.unwrap_or(u64::MAX)).max().unwrap();
    expected.extend((rows < u64::MAX).then(|| grouped(rows)));
    expected
}

/// The table is the same numbers, for people.
fn check_table(folder: &Folder, teacher: &Teacher) {
    let said = done(folder.say(teacher.url(), STUDY).unwrap());
    let results = recomputed(&folder.join(FOLDER));
    let line = |words: &str| {
        let found = said.out.lines().find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("{words} is not in\n{}", said.out)).to_owned()
    };
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    assert!(line("teacher local").contains(&percent(results.teacher.as_ref().unwrap().accuracy)));
    let all = &results.settings[4];
    assert!(line("step by step").contains(&percent(results.settings[1].accuracy)), "{}", said.out);
    assert!(said.out.contains(&percent(all.low)) && said.out.contains(&percent(all.high)), "{}", said.out);
    let answer = &results.questions[0];
    let found = line("step by step less labels only");
    assert!(found.contains(&format!("{:+.1}", answer.difference.value * 100.0)), "{found}");
    assert!(found.contains(answer.finding.as_str()), "{found}");
    assert!(said.out.contains("30 test rows, 2 seeds, 7 questions: every difference of "), "{}", said.out);
    assert!(said.out.contains("calls 76 ("), "{}", said.out);
}

#[test]
fn a_study_that_is_killed_comes_to_the_same_bytes() {
    let undisturbed = {
        let (folder, teacher) = (two_by_two(), Teacher::start(teach).unwrap());
        done(folder.say(teacher.url(), STUDY).unwrap());
        results(&folder)
    };
    let folder = two_by_two();
    let slow = Duration::from_millis(15);
    let teacher = Teacher::start(move |asked| teach(asked).after(slow)).unwrap();
    let mut generator = SplitMix::new(10);
    for _ in 0..KILLS {
        let mut child = binary::start(folder.path(), teacher.url(), STUDY).unwrap();
        std::thread::sleep(Duration::from_millis(300 + generator.below(1_200)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    done(folder.say(teacher.url(), STUDY).unwrap());
    assert_eq!(
        String::from_utf8(results(&folder)).unwrap(),
        String::from_utf8(undisturbed).unwrap(),
        "the same bytes"
    );
    let calls = teacher.requests();
    let most = CALLS + usize::try_from(KILLS).unwrap() * CONCURRENCY;
    assert!((CALLS..=most).contains(&calls), "{calls} calls: what was answered is not asked again");
    assert_eq!(runs(&folder).len(), 12, "no cell is trained twice");
}

#[test]
fn a_wrong_study_is_refused_before_any_work() {
    let check = |study: &str, fields: &[&str]| {
        let folder = folder(study);
        let said = folder.say(NOBODY, STUDY).unwrap();
        assert_eq!(said.code, 2, "{study}: {}", said.err);
        for field in fields {
            assert!(said.err.contains(field), "{field}: {}", said.err);
        }
        assert!(!folder.join(".distillery").exists(), "{study}");
    };
    check("objectives = [\"step_by_steps\"]", &["study.objectives", "step_by_steps"]);
    check("objectives = [\"standard\"]", &["study.objectives: names `standard`"]);
    check(
        "fractions = [0, 1.5, 1]\nseeds = [1, 1]",
        &["study.fractions: is 0", "study.fractions: is 1.5", "study.seeds"],
    );
    check("fractions = [0.5]", &["study.fractions: has no 1"]);
    check("sizes = []\nmargin = 200", &["study.sizes", "study.margin"]);
    check("sizes = [\"huge\"]", &["study.sizes"]);
    check("fraction = [1]", &["study.fraction: is not a known key: did you mean `fractions`?"]);
    check("seeds = [0, 1, 2]\nfractions = [0.1, 1]\nsizes = [\"tiny\"]\nmargins = 1", &["study.margins"]);
}

#[test]
fn a_study_needs_test_rows_with_labels() {
    let folder = two_by_two();
    let rows = std::fs::read_to_string(folder.join("test.jsonl")).unwrap();
    let unlabelled: Vec<String> = rows
        .lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row.as_object_mut().unwrap().remove("label");
            row.to_string()
        })
        .collect();
    folder.write("test.jsonl", unlabelled.join("\n")).unwrap();
    let said = folder.say(NOBODY, STUDY).unwrap();
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("data.test: has no row with a label"), "{}", said.err);
    let jobs = done(folder.say(NOBODY, &["list", "--json"]).unwrap()).json().unwrap();
    assert_eq!(jobs["distillations"].as_array().map(Vec::len), Some(0), "{jobs}");
    assert!(!folder.join(FOLDER).exists());
}

#[test]
fn a_study_keeps_to_its_time_or_is_refused() {
    let (folder, teacher) = (two_by_two(), Teacher::start(teach).unwrap());
    let within = |time: &str| folder.say(teacher.url(), &[STUDY, &["--within", time]].concat()).unwrap();
    let said = within("2");
    assert_eq!((said.code, said.err.contains("90s, 40m, 2h")), (2, true), "{}", said.err);
    let said = within("0.01s");
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("--within: 0.0 minutes are left"), "{}", said.err);
    assert!(runs(&folder).iter().all(|run| run["cell"].as_str().unwrap().starts_with("pace-")));
    let said = done(within("1h"));
    assert!(said.err.contains("the grid takes about "), "{}", said.err);
    assert_eq!(results(&folder), pretty(&recomputed(&folder.join(FOLDER))));
}

#[test]
fn a_study_at_a_server_comes_to_the_same_results() {
    let teacher = Teacher::start(teach).unwrap();
    let (served, client) = (Folder::empty().unwrap(), folder("fractions = [1]\nseeds = [0]"));
    let settings = [("DISTILLERY_TEACHER_URL", teacher.url())];
    let service = Service::start(served.path(), "harvester,trainer", &settings).unwrap();
    // As a client has it that calls an inference service too.
    let servers = format!("http://127.0.0.1:9,{}", service.url());
    let arguments = [STUDY, &["--server", &servers, "--out", "study"]].concat();
    // What the students answered is read from the servers' checkpoints.
    let refused: Said = binary::run(client.path(), NOBODY, &arguments).unwrap().into();
    assert_eq!((refused.code, refused.err.contains("`[checkpoints] root`")), (2, true), "{}", refused.err);
    let mut command = binary::command(client.path(), &arguments).unwrap();
    command.env("DISTILLERY_CHECKPOINTS_ROOT", served.join(".distillery/checkpoints"));
    done(binary::output(command).unwrap().into());
    assert_eq!(teacher.requests(), CALLS);
    assert!(!client.join(".distillery").exists(), "nothing is kept on this machine but what was found");
    done(client.say(teacher.url(), STUDY).unwrap());
    let here = results(&client);
    let there = std::fs::read(client.join("study/results.json")).unwrap();
    assert_eq!(String::from_utf8(there).unwrap(), String::from_utf8(here).unwrap());
}
