//! The command line as a contract for scripts: standard output, exit codes, and the effect of every option of a job.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::objective::Objective;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::OnceLock;
use tests::binary;
use tests::data::{SpecText, is_hinted, question, teach};
use tests::folder::{Folder, NOBODY, Said};
use tests::teacher::{Reply, Teacher};

const ROWS: [usize; 3] = [12, 3, 5];
/// The rows that the teacher gets wrong: boxes 0, 5 and 10 of the train rows, and 5 of the test rows (2 to 6).
const WRONG: [usize; 2] = [3, 1];
const RUN: &[&str] = &["run", "spec.toml", "--json"];

fn problems(spec: &SpecText<'_>) -> Folder {
    Folder::with_problems(ROWS, spec).unwrap()
}

fn teacher() -> Teacher {
    Teacher::start(|asked| teach(&asked.prompt)).unwrap()
}

fn succeeds(folder: &Folder, teacher_url: &str) -> Value {
    let said = folder.say(teacher_url, RUN).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let outcome = said.json().unwrap();
    assert_eq!(outcome["state"], "succeeded", "{outcome}");
    outcome
}

/// A command that succeeds.
fn say(folder: &Folder, arguments: &[&str]) -> Said {
    let said = folder.say(NOBODY, arguments).unwrap();
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    said
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// The output of `run`.

/// Every path of the outcome with the kind of its value.
fn kinds(value: &Value, path: &str, found: &mut Vec<(String, &'static str)>) {
    let kind = match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                kinds(field, &format!("{path}.{name}"), found);
            }
            return;
        }
        Value::Null => "null",
        Value::Bool(_) => "truth",
        Value::Number(number) if number.is_u64() => "whole",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
    };
    found.push((path.trim_start_matches('.').to_owned(), kind));
}

#[test]
fn run_prints_one_object_with_the_fields_of_the_contract() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    let outcome = succeeds(&folder, teacher.url());
    let mut found = Vec::new();
    kinds(&outcome, "", &mut found);
    let wanted = [
        ("state", "text"),
        ("distillation", "text"),
        ("model_dir", "text"),
        ("page", "text"),
        ("teacher.name", "text"),
        ("teacher.accuracy", "number"),
        ("teacher.accuracy_rows", "whole"),
        ("teacher.prompts", "whole"),
        ("teacher.accepted", "whole"),
        ("teacher.tokens_in", "whole"),
        ("teacher.tokens_out", "whole"),
        ("student.parameters", "whole"),
        ("student.accuracy", "number"),
        ("student.accuracy_low", "number"),
        ("student.accuracy_high", "number"),
        ("seconds.harvest", "number"),
        ("seconds.train", "number"),
        ("seconds.evaluate", "number"),
    ];
    for (path, kind) in wanted {
        assert!(found.contains(&(path.to_owned(), kind)), "wanted {path} as {kind} in {found:?}");
    }
    let prompts = ROWS[0] + ROWS[2];
    assert_eq!(teacher.requests(), prompts);
    let expected = json!({"name": "local", "accuracy": 0.8, "prompts": prompts, "accepted": ROWS[0] - WRONG[0],
                          "tokens_in": 100 * prompts, "tokens_out": 20 * prompts, "cached": 0, "parked": 0, "skipped": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&outcome["teacher"][name], value, "{name}: {outcome}");
    }
    let student = &outcome["student"];
    let of = |name: &str| student[name].as_f64().unwrap();
    assert!(of("accuracy_low") <= of("accuracy") && of("accuracy") <= of("accuracy_high"), "{student}");
    let model_dir = std::path::Path::new(outcome["model_dir"].as_str().unwrap());
    assert!(model_dir.is_absolute() && model_dir.join("model.safetensors").is_file(), "{model_dir:?}");
    check_page(&folder, &outcome);
    check_export(&folder, model_dir);
}

/// The job's page says what was printed, and fetches and runs nothing.
fn check_page(folder: &Folder, outcome: &Value) {
    let page = std::fs::read_to_string(folder.join(outcome["page"].as_str().unwrap())).unwrap();
    let share = |who: &str, name: &str| format!("{:.1}%", outcome[who][name].as_f64().unwrap() * 100.0);
    let accepted = outcome["teacher"]["accepted"].as_u64().unwrap();
    for words in [
        share("teacher", "accuracy"),
        share("student", "accuracy"),
        format!("<td>accepted</td><td>{accepted}</td>"),
        format!("<td>calls to the teacher</td><td>{}</td>", outcome["teacher"]["prompts"]),
        "<h2>How it learnt</h2>".to_owned(),
        "<polyline".to_owned(),
        "<h2>Examples</h2>".to_owned(),
        "width=device-width".to_owned(),
    ] {
        assert!(page.contains(&words), "{words}");
    }
    for outside in ["<script", "http://", "https://", "<img", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// A student is copied out whole, and never over something.
fn check_export(folder: &Folder, model_dir: &std::path::Path) {
    let exported = say(folder, &["models", "export", "job", "student", "--json"]).json().unwrap();
    assert_eq!(exported, json!({"model": "job@1", "folder": "student"}));
    for name in ["config.json", "model.safetensors", "tokenizer.json", "distillery.json"] {
        let (there, here) =
            (std::fs::read(model_dir.join(name)), std::fs::read(folder.join("student").join(name)));
        assert_eq!(there.unwrap(), here.unwrap(), "{name}");
    }
    let input = ["--input", "Box 1 holds 2 pens and 3 more."];
    let answered =
        |model: &str| say(folder, &[&["predict", "--model", model, "--json"][..], &input[..]].concat()).out;
    assert_eq!(answered("student"), answered("job"));
    for (arguments, words) in [
        (["models", "export", "job", "student"], "is there already"),
        (["models", "export", "nobody", "other"], "there is no model `nobody`"),
    ] {
        let said = folder.say(NOBODY, &arguments).unwrap();
        assert_eq!((said.code, said.err.contains(words)), (2, true), "{}", said.err);
    }
    assert!(!folder.join("other").exists());
}

#[test]
fn the_doctor_says_what_works_and_what_to_do() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    let said = folder.say(teacher.url(), &["doctor"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    for words in [
        "works  database: SQLite in ",
        "works  checkpoints: ",
        "works  teacher local: ",
        "off    teacher openai: ",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    assert_eq!(teacher.requests(), 1, "one question");
    let said = folder.say(NOBODY, &["doctor", "--json"]).unwrap();
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("do not work: teacher local"), "{}", said.err);
    let findings = said.json().unwrap();
    let local =
        findings["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == "teacher local");
    assert_eq!(local.unwrap()["state"], "fails");
    folder
        .write("distillery.toml", "[client]\nca = \"nowhere.pem\"\n[checkpoints]\nroot = \"spec.toml\"\n")
        .unwrap();
    let said = folder.say(teacher.url(), &["doctor"]).unwrap();
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.out.contains("fails  client: client.ca: nowhere.pem cannot be read"), "{}", said.out);
    assert!(said.out.contains("fails  checkpoints: "), "{}", said.out);
}

#[test]
fn answers_of_which_a_student_is_not_sure_are_marked() {
    const ROW: &[&str] =
        &["predict", "--model", "job", "--input", "Lamp 7 is blue.", "--choice", "red", "--choice", "blue"];
    let folder = classifier();
    let ask =
        |border: &str| say(folder, &[ROW, &["--json", "--route-below", border]].concat()).json().unwrap();
    let sure = ask("-1e9");
    let border = sure["log_probability"].as_f64().unwrap();
    assert_eq!(sure["ask_teacher"], false);
    assert_eq!(ask("0.1")["ask_teacher"], true, "no answer is as sure as that");
    assert_eq!(ask(&border.to_string())["ask_teacher"], false, "below, not at");
    let plain = say(folder, &[ROW, &["--json"]].concat()).json().unwrap();
    assert!(plain.get("ask_teacher").is_none(), "{plain}");
    let said = say(folder, &[ROW, &["--route-below", "0.1"]].concat());
    assert!(said.out.contains("ask the teacher: the student is not sure"), "{}", said.out);
}

#[test]
fn without_json_a_table_and_the_folder_are_printed_and_progress_goes_to_standard_error() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    let said = folder.say(teacher.url(), &["run", "spec.toml"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    for words in [
        "teacher local",
        "80.0%",
        "student",
        "prompts 17 (0 from the store), rationales accepted 9",
        "\nstudent: ",
    ] {
        assert!(said.out.contains(words), "wanted {words:?} in {}", said.out);
    }
    let progress =
        ["harvest: accepted 9, rejected 3 (disagrees 3), tokens 2,040", "training: ", "published: job@1"];
    for words in progress {
        assert!(said.err.contains(words) && !said.out.contains(words), "wanted {words:?} in {}", said.err);
    }
}

#[test]
fn exit_codes_tell_success_failure_and_mistakes_apart() {
    let folder = problems(&SpecText { teacher: "profile = \"local\"\nsamples = 1", ..SpecText::default() });
    let unsure = Teacher::start(|_| Reply::completion(" I do not know.")).unwrap();
    let failed = folder.say(unsure.url(), RUN).unwrap();
    assert_eq!(failed.code, 1, "{}", failed.err);
    let outcome = failed.json().unwrap();
    assert_eq!((&outcome["state"], &outcome["model_dir"]), (&json!("paused"), &Value::Null));
    assert!(outcome["reason"].as_str().unwrap().contains("no rationale was accepted"), "{outcome}");
    for mistake in [&["run"][..], &["run", "absent.toml"], &["run", "spec.toml", "--jsn"], &["rnu"], &[]] {
        let said = folder.say(NOBODY, mistake).unwrap();
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{mistake:?}: {}", said.err);
        assert!(!said.err.is_empty(), "{mistake:?}");
    }
    for fine in [&["--version"][..], &["--help"], &["migrate"]] {
        assert_eq!(folder.say(NOBODY, fine).unwrap().code, 0, "{fine:?}");
    }
}

// The options of a job.

#[test]
fn several_samples_vote_and_the_outvoted_one_is_rejected() {
    let folder = problems(&SpecText {
        teacher: "profile = \"local\"\nsamples = 3",
        judging: "vote = true\nagree = false",
        ..SpecText::default()
    });
    // The third sample of every row disagrees.
    let teacher = Teacher::start(|asked| match asked.sample {
        2 => Reply::completion(" She has one. The answer is (1)."),
        _ => teach(&asked.prompt),
    })
    .unwrap();
    let outcome = succeeds(&folder, teacher.url());
    assert_eq!(teacher.requests(), 3 * ROWS[0] + ROWS[2], "the test rows are asked once");
    assert_eq!(outcome["teacher"]["accepted"], 2 * ROWS[0], "{outcome}");
}

#[test]
fn where_no_sample_agrees_a_hint_is_given_once() {
    let folder = problems(&SpecText { judging: "hint = true", ..SpecText::default() });
    let teacher = teacher();
    let outcome = succeeds(&folder, teacher.url());
    let hinted = teacher.counts().into_keys().filter(|prompt| is_hinted(prompt)).count();
    assert_eq!((hinted, teacher.requests()), (WRONG[0], ROWS[0] + ROWS[2] + WRONG[0]));
    assert_eq!(outcome["teacher"]["accepted"], ROWS[0], "{outcome}");
}

#[test]
fn a_budget_is_never_passed_and_the_job_goes_on_with_what_it_has() {
    let check = |budget: &str, calls: usize| {
        let teacher_lines = format!("profile = \"local\"\ntokens_max = 64\nbudget = {{ {budget} }}");
        let folder = problems(&SpecText { teacher: &teacher_lines, ..SpecText::default() });
        let teacher = teacher();
        let outcome = succeeds(&folder, teacher.url());
        assert_eq!(teacher.requests(), calls, "{budget}");
        let told = &outcome["teacher"];
        assert_eq!(
            (&told["prompts"], &told["skipped"]),
            (&json!(calls), &json!(ROWS[0] + ROWS[2] - calls)),
            "{budget}"
        );
        let said = folder.say(NOBODY, &["run", "spec.toml"]).unwrap();
        assert!(said.out.contains("skipped (budget exhausted)"), "{}", said.out);
    };
    check("prompts = 5", 5);
    // A call takes 120 tokens; none starts if the most that it can take, a token for each byte, would exceed the budget.
    let folder = problems(&SpecText {
        teacher: "profile = \"local\"\ntokens_max = 64\nbudget = { tokens = 3000 }",
        ..SpecText::default()
    });
    let teacher = teacher();
    let outcome = succeeds(&folder, teacher.url());
    let tokens = outcome["teacher"]["tokens_in"].as_u64().unwrap()
        + outcome["teacher"]["tokens_out"].as_u64().unwrap();
    assert_eq!(tokens, 120 * teacher.requests() as u64);
    assert!((240..=3000).contains(&tokens), "{tokens} tokens: {outcome}");
}

#[test]
fn a_teacher_s_labels_need_no_gold() {
    let folder = Folder::empty().unwrap();
    for (name, count) in [("train", 10), ("validation", 2), ("test", 2)] {
        let row =
            |place| format!("{{\"input\": \"Ann has 1 pens in box {place} and buys 2 more. How many?\"}}\n");
        folder.write(&format!("{name}.jsonl"), (1..=count).map(row).collect::<String>()).unwrap();
    }
    let spec = |judging| SpecText { judging, ..SpecText::default() }.to_string();
    folder.write("spec.toml", spec("label = \"gold\"")).unwrap();
    let refused = folder.say(NOBODY, RUN).unwrap();
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("train.jsonl:1: label: is missing"), "{}", refused.err);

    folder.write("spec.toml", spec("label = \"teacher\"")).unwrap();
    let teacher = teacher();
    let outcome = succeeds(&folder, teacher.url());
    // Without labels, accuracy is unknown.
    assert_eq!(
        (&outcome["teacher"]["accuracy"], &outcome["student"]["accuracy"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(outcome["teacher"]["accepted"], 10, "{outcome}");
}

#[test]
fn every_objective_trains_and_label_and_rationale_are_read_apart() {
    for objective in Objective::ALL {
        let training = format!(
            "objective = \"{objective}\"\nsteps = 60\nbatch_examples = 8\nlearning_rate = 5e-3\nwarmup_steps = 5\n\
             target_tokens_max = 64\nevaluate_every_steps = 20\ncheckpoint_every_steps = 60"
        );
        let folder = Folder::empty().unwrap();
        // Even the smallest student learns a constant answer.
        let row = |place| {
            json!({"input": format!("Which lamp is number {place}?"), "label": "left lamp"}).to_string()
        };
        let rows: Vec<String> = (0..16).map(row).collect();
        folder.write("train.jsonl", rows.join("\n")).unwrap();
        folder.write("validation.jsonl", &rows[0]).unwrap();
        folder.write("test.jsonl", &rows[1]).unwrap();
        let spec = SpecText { task: "generate", training: &training, ..SpecText::default() };
        folder.write("spec.toml", spec.to_string()).unwrap();
        let teacher =
            Teacher::start(|_| Reply::completion(" It hangs there. So the answer is left lamp.")).unwrap();
        let outcome = succeeds(&folder, teacher.url());
        assert_eq!(outcome["student"]["accuracy"], 1.0, "{objective}: {outcome}");
        let said =
            say(&folder, &["predict", "--model", "job", "--explain", "--json", "--file", "test.jsonl"]);
        let answer = said.json().unwrap();
        assert_eq!(answer["label"], "left lamp", "{objective}: {answer}");
        if objective.needs_rationales() {
            assert_eq!(answer["rationale"], "It hangs there.", "{objective}: {answer}");
        }
        let plain = say(&folder, &["predict", "--model", "job", "--input", "Which lamp is number 3?"]).out;
        assert_eq!(plain, "Which lamp is number 3?\n  label: left lamp\n", "{objective}");
    }
}

// The output of `predict`.

/// The answer of the teacher about lamps, for each task.
fn lamps(prompt: &str) -> Reply {
    let (_, last) = prompt.rsplit_once("Lamp ").unwrap();
    let colour = if last.contains("is red") { "red" } else { "blue" };
    let answer = match prompt.rsplit_once("\n(a) ") {
        Some((_, options)) if options.starts_with(colour) => format!("(a) {colour}"),
        Some(_) => format!("(b) {colour}"),
        None if prompt.contains("Hypothesis:") => "neutral".to_owned(),
        None => colour.to_owned(),
    };
    Reply::completion(&format!(" The lamp is {colour}. So the answer is {answer}."))
}

/// A folder with two versions of a model for `task`, trained on lamps.
fn lamp_models(task: &str) -> Folder {
    let folder = Folder::empty().unwrap();
    let row = |place: usize| {
        let colour = ["red", "blue"][place % 2];
        let text = format!("Lamp {place} is {colour}.");
        match task {
            "nli" => {
                json!({"id": format!("r{place}"), "premise": text, "hypothesis": "Lamp 1 is on.", "label": "neutral"})
            }
            _ => {
                json!({"id": format!("r{place}"), "input": text, "choices": ["red", "blue"], "label": colour})
            }
        }
    };
    for (name, rows) in [("train", 0..16), ("validation", 16..20), ("test", 20..24)] {
        let text: Vec<String> = rows.map(|place| row(place).to_string()).collect();
        folder.write(&format!("{name}.jsonl"), text.join("\n")).unwrap();
    }
    let teacher = Teacher::start(|asked| lamps(&asked.prompt)).unwrap();
    for seed in ["seed = 1", "seed = 2"] {
        let training = format!("{seed}\nsteps = 3\nbatch_examples = 8\ntarget_tokens_max = 16");
        let spec = SpecText { task, training: &training, ..SpecText::default() };
        folder.write("spec.toml", spec.to_string()).unwrap();
        let outcome = succeeds(&folder, teacher.url());
        assert_eq!(outcome["teacher"]["accuracy"], 1.0, "{task}: {outcome}");
        folder.write(&format!("{seed}.path"), outcome["model_dir"].as_str().unwrap()).unwrap();
    }
    folder
}

fn classifier() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| lamp_models("classify"))
}

/// The label is the likeliest of the set, and the probabilities of all labels sum to one.
fn check_closed(answer: &Value, set: &[&str]) {
    let shares = answer["probabilities"].as_object().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(shares.keys().map(String::as_str).collect::<Vec<_>>(), set, "{answer}");
    let shares: Vec<f64> = shares.values().map(|share| share.as_f64().unwrap()).collect();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{answer}");
    let place = set.iter().position(|label| answer["label"] == **label).unwrap_or_else(|| panic!("{answer}"));
    assert!(shares.iter().all(|share| *share <= shares[place]), "{answer}");
}

#[test]
fn a_model_is_found_by_folder_by_name_and_by_version() {
    let folder = classifier();
    let ask = |model: &str| {
        let input = ["--input", "Lamp 7 is blue.", "--choice", "red", "--choice", "blue"];
        let arguments = [&["predict", "--model", model, "--json"][..], &input].concat();
        let answer = say(folder, &arguments).json().unwrap();
        check_closed(&answer, &["red", "blue"]);
        answer
    };
    let path = |seed: &str| std::fs::read_to_string(folder.join(&format!("{seed}.path"))).unwrap();
    let (first, second) = (ask("job@1"), ask("job@2"));
    assert_ne!(first, second, "the two versions were trained apart");
    assert_eq!(ask("job"), second, "the newest version stands behind the bare name");
    assert_eq!((ask(&path("seed = 1")), ask(&path("seed = 2"))), (first, second));
}

#[test]
fn rows_are_answered_in_order_whatever_they_come_from() {
    let folder = classifier();
    let from_file = say(folder, &["predict", "--model", "job", "--json", "--file", "test.jsonl"]);
    let answers = lines(&from_file.out);
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, ["r20", "r21", "r22", "r23"]);
    for answer in &answers {
        check_closed(answer, &["red", "blue"]);
        assert!(answer["expected"] == "red" || answer["expected"] == "blue", "{answer}");
        assert!(answer["input"].as_str().unwrap().starts_with("Lamp "), "{answer}");
        assert_eq!(answer.get("rationale"), None);
    }
    let mut command = binary::command(folder.path(), &["predict", "--model", "job", "--json", "-"]).unwrap();
    command.stdin(std::fs::File::open(folder.join("test.jsonl")).unwrap());
    let from_stdin = Said::from(binary::output(command).unwrap());
    assert_eq!((from_stdin.code, &from_stdin.out), (0, &from_file.out), "{}", from_stdin.err);
    // Other formats, by file name extension.
    say(folder, &["import", "jsonl", "test.jsonl", "--name", "rows"]);
    for format in ["csv", "parquet"] {
        let file = format!("rows.{format}");
        say(folder, &["export", format, "rows", &file]);
        assert_eq!(
            say(folder, &["predict", "--model", "job", "--json", "--file", &file]).out,
            from_file.out,
            "{format}"
        );
    }
    let explained =
        say(folder, &["predict", "--model", "job", "--json", "--explain", "--file", "test.jsonl"]);
    assert!(lines(&explained.out).iter().all(|answer| answer["rationale"].is_string()), "{}", explained.out);
    let plain = say(folder, &["predict", "--model", "job", "--explain", "--file", "test.jsonl"]).out;
    let labels =
        plain.lines().filter(|line| line.starts_with("  label: ") && line.contains("(expected ")).count();
    let rationales = plain.lines().filter(|line| line.starts_with("  rationale:")).count();
    assert_eq!((labels, rationales), (4, 4), "{plain}");
}

#[test]
fn lettered_choices_and_pairs_have_their_own_label_sets() {
    let folder = lamp_models("choice");
    let input = ["--input", "Lamp 9 is blue.", "--choice", "blue", "--choice", "green", "--choice", "red"];
    let answer =
        say(&folder, &[&["predict", "--model", "job", "--json"][..], &input].concat()).json().unwrap();
    check_closed(&answer, &["blue", "green", "red"]);

    let folder = lamp_models("nli");
    let pair = ["--premise", "Lamp 9 is blue.", "--hypothesis", "It is on."];
    let answer =
        say(&folder, &[&["predict", "--model", "job", "--json"][..], &pair].concat()).json().unwrap();
    check_closed(&answer, &["entailment", "neutral", "contradiction"]);
    assert_eq!((&answer["premise"], &answer["hypothesis"]), (&json!("Lamp 9 is blue."), &json!("It is on.")));
}

#[test]
fn a_task_of_one_s_own_is_a_file_beside_the_specification() {
    let task = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tasks/sentiment.toml");
    let folder = Folder::empty().unwrap();
    std::fs::create_dir(folder.join("tasks")).unwrap();
    std::fs::copy(task, folder.join("tasks/sentiment.toml")).unwrap();
    let rows: Vec<String> = (0..8)
        .map(|place| json!({"input": format!("Soup {place} is great."), "label": "positive"}).to_string())
        .collect();
    for name in ["train.jsonl", "validation.jsonl", "test.jsonl"] {
        folder.write(name, rows.join("\n")).unwrap();
    }
    let spec = SpecText { task: "tasks/sentiment.toml", ..SpecText::default() };
    folder.write("spec.toml", spec.to_string()).unwrap();
    let teacher =
        Teacher::start(|_| Reply::completion(" It is praised. So the answer is positive.")).unwrap();
    succeeds(&folder, teacher.url());
    let answer =
        say(&folder, &["predict", "--model", "job", "--json", "--input", "Soup 9 is great."]).json().unwrap();
    check_closed(&answer, &["positive", "negative", "mixed"]);
}

// The other commands.

#[test]
fn the_printed_configuration_loads_back() {
    let folder = Folder::empty().unwrap();
    let printed = say(&folder, &["config"]).out;
    assert!(
        printed.contains("\n[teachers.local]\n") && printed.contains("data_dir = \".distillery\""),
        "{printed}"
    );
    folder.write("all.toml", &printed).unwrap();
    say(&folder, &["migrate", "--config", "all.toml", "--data-dir", "here"]);
    folder.write("distillery.toml", printed.replace("\".distillery\"", "\"elsewhere\"")).unwrap();
    let said = say(&folder, &["migrate", "--json"]).json().unwrap();
    assert_eq!(said, json!({"database": "elsewhere", "data_dir": "elsewhere", "version": said["version"]}));
    assert!(said["version"].as_u64().unwrap() >= 1);
    assert!(folder.join("elsewhere/distillery.db").is_file());
}

#[test]
fn global_options_stand_before_or_after_the_verb_and_variables_behind_them() {
    let folder = Folder::empty().unwrap();
    folder.write("c.toml", "data_dir = \"of-the-file\"\n").unwrap();
    let check = |arguments: &[&str], variables: &[(&str, &str)], data_dir: &str| {
        let mut command = binary::command(folder.path(), arguments).unwrap();
        command.envs(variables.iter().copied());
        let said = Said::from(binary::output(command).unwrap());
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        assert_eq!(said.json().unwrap()["data_dir"], data_dir, "{arguments:?} {variables:?}");
    };
    say(&folder, &["list"]);
    check(&["migrate", "--json"], &[], ".distillery");
    check(&["--data-dir", "a", "migrate", "--json"], &[], "a");
    check(&["migrate", "--json", "--data-dir", "b"], &[], "b");
    check(&["--config", "c.toml", "migrate", "--json"], &[], "of-the-file");
    check(&["migrate", "--json", "--config", "c.toml"], &[], "of-the-file");
    check(&["--config", "c.toml", "migrate", "--json", "--data-dir", "d"], &[], "d");
    check(&["migrate", "--json"], &[("DISTILLERY_CONFIG", "c.toml")], "of-the-file");
    check(
        &["--config", "c.toml", "migrate", "--json"],
        &[("DISTILLERY_DATA_DIR", "of-the-variable")],
        "of-the-variable",
    );
}

#[test]
fn completions_know_every_verb() {
    let folder = Folder::empty().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = say(&folder, &["completions", shell]).out;
        for verb in ["run", "predict", "import", "export", "migrate", "config", "completions"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
}

#[test]
fn the_help_of_every_verb_has_an_example() {
    let folder = Folder::empty().unwrap();
    let top = say(&folder, &["--help"]).out;
    let listed = top.split_once("Commands:").unwrap().1.split_once("\n\n").unwrap().0;
    // Continuation lines of a description are indented.
    let names =
        listed.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let verbs: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 6 && verbs.contains(&"run"), "{verbs:?}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let help = say(&folder, &[verb, "--help"]).out;
        assert!(help.contains(&format!("\n  distillery {verb}")), "{verb} shows no example: {help}");
        assert_eq!(say(&folder, &["help", verb]).out, help, "{verb}");
    }
    for format in ["paper", "jsonl", "csv", "parquet"] {
        let help = say(&folder, &["import", format, "--help"]).out;
        assert!(help.contains(&format!("\n  distillery import {format} ")), "{format}: {help}");
    }
    assert!(top.contains("Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted."));
}

#[test]
fn rows_survive_every_format_and_the_store() {
    let folder = Folder::empty().unwrap();
    let rows = [
        json!({"id": "a", "split": "train", "input": "One, \"two\"\nthree; \u{2603}", "label": "1"}),
        json!({"id": "b", "split": "validation", "input": "Which?", "choices": ["yes, it is", "n\"o"], "label": "n\"o"}),
        json!({"id": "c", "split": "test", "premise": "P", "hypothesis": " H ", "label": "neutral", "rationale": "Because."}),
        json!({"split": "train", "input": "  without a label"}),
    ];
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    folder.write("rows.jsonl", text.join("\n")).unwrap();
    let imported = say(&folder, &["import", "jsonl", "rows.jsonl", "--json"]).json().unwrap();
    let wanted = json!({"dataset": "rows", "rows": 4, "train": 2, "validation": 1, "test": 1, "labelled": 3});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&imported[name], value, "{imported}");
    }
    let exported = say(&folder, &["export", "jsonl", "rows", "-"]).out;
    assert_eq!(lines(&exported), rows);
    for format in ["jsonl", "csv", "parquet"] {
        let (file, name) = (format!("out.{format}"), format!("from-{format}"));
        say(&folder, &["export", format, "rows", &file]);
        let again = say(&folder, &["import", format, &file, "--name", &name, "--json"]).json().unwrap();
        assert_eq!(&again["fingerprint"], &imported["fingerprint"], "{format}");
        assert_eq!(&say(&folder, &["export", "jsonl", &name, "-"]).out, &exported, "{format}");
    }
    let test_rows = say(&folder, &["export", "jsonl", "rows", "-", "--split", "test"]).out;
    assert_eq!(lines(&test_rows), &rows[2..3]);
}

#[test]
fn an_imported_dataset_is_a_job_s_data_by_its_name() {
    let folder = Folder::empty().unwrap();
    let row = |place: usize| {
        let split = ["train", "train", "validation", "test"][place % 4];
        json!({"input": format!("Ann has 2 pens in box {place} and buys 3 more."), "label": "(2 + 3)", "split": split,
               "rationale": format!("Box {place} holds 2 pens, and 3 come to them.")})
        .to_string()
    };
    folder.write("pens.jsonl", (0..24).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    say(&folder, &["import", "jsonl", "pens.jsonl"]);
    let spec =
        SpecText { data: "dataset = \"pens\"", teacher: "profile = \"imported\"", ..SpecText::default() };
    folder.write("spec.toml", spec.to_string()).unwrap();
    let outcome = succeeds(&folder, NOBODY);
    let told = &outcome["teacher"];
    assert_eq!(
        (&told["name"], &told["prompts"], &told["accepted"]),
        (&json!("imported"), &json!(0), &json!(12))
    );
    // Labels alone need no teacher.
    let spec = SpecText { data: "dataset = \"pens\"", teacher: "profile = \"none\"", ..SpecText::default() };
    folder.write("spec.toml", spec.to_string()).unwrap();
    let outcome = succeeds(&folder, NOBODY);
    assert_eq!(
        (&outcome["teacher"]["name"], &outcome["teacher"]["accuracy"]),
        (&json!("none"), &Value::Null)
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = Folder::empty().unwrap();
    let rows: Vec<String> = (0..4_000)
        .map(|place| json!({"input": format!("Row {place} {}", "x".repeat(60))}).to_string())
        .collect();
    folder.write("many.jsonl", rows.join("\n")).unwrap();
    say(&folder, &["import", "jsonl", "many.jsonl"]);
    let mut command = binary::command(folder.path(), &["export", "jsonl", "many", "-"]).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let said = Said::from(binary::finish(child).unwrap());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn what_is_asked_is_the_row_after_the_worked_examples() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    succeeds(&folder, teacher.url());
    let prompts = teacher.counts();
    let prefix = |prompt: &str| prompt.rsplit_once("Q:").unwrap().0.to_owned();
    let first = prefix(prompts.keys().next().unwrap());
    assert!(first.contains("The answer is (84 / 2)."), "{first}");
    assert!(
        prompts.keys().all(|prompt| prefix(prompt) == first),
        "prompts share all but their last question"
    );
    let mut asked: Vec<&str> = prompts.keys().map(|prompt| question(prompt)).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), ROWS[0] + ROWS[2]);
}
