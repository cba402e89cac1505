//! Mistakes of a user are reported with file, line, field and remedy; nothing incomplete is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tests::binary;
use tests::data::{SpecText, teach};
use tests::folder::{Folder, NOBODY, Said};
use tests::teacher::Teacher;

const ROWS: [usize; 3] = [8, 2, 2];
const RUN: &[&str] = &["run", "spec.toml", "--json"];
const GOOD: &str = "{\"input\":\"a good row\",\"label\":\"1\"}\n";

fn teacher() -> Teacher {
    Teacher::start(|asked| teach(&asked.prompt)).unwrap()
}

/// Checks a failure: the exit code, an empty standard output, and all of `wanted` on standard error.
fn told(said: &Said, code: i32, wanted: &[&str]) {
    assert_eq!((said.code, said.out.as_str()), (code, ""), "wanted {wanted:?} in {}", said.err);
    for words in wanted {
        assert!(said.err.contains(words), "wanted {words:?} in {}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

fn check(folder: &Folder, arguments: &[&str], code: i32, wanted: &[&str]) {
    told(&folder.say(NOBODY, arguments).unwrap(), code, wanted);
}

// Rows.

/// Imports files under one name: each is refused with its message and leaves nothing; then a good file is imported under
/// the name and is complete.
fn check_rows(cases: &[(&str, Vec<u8>, &[&str])]) {
    let folder = Folder::empty().unwrap();
    let absent = || {
        check(
            &folder,
            &["export", "jsonl", "rows", "-"],
            2,
            &["there is no dataset `rows`", "`distillery import`"],
        )
    };
    for (format, content, wanted) in cases {
        let file = format!("rows.{format}");
        folder.write(&file, content).unwrap();
        check(&folder, &["import", format, &file, "--json"], 2, wanted);
        absent();
    }
    folder.write("rows.jsonl", GOOD).unwrap();
    let said = folder.say(NOBODY, &["import", "jsonl", "rows.jsonl"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let exported = folder.say(NOBODY, &["export", "jsonl", "rows", "-"]).unwrap();
    let row: Value = serde_json::from_str(&exported.out).unwrap();
    assert_eq!(row["input"], "a good row", "what is there is the good file alone");
}

#[test]
fn rows_that_are_wrong_are_named_by_line_and_field_and_leave_nothing_behind() {
    let good_then = |bad: &str| format!("{GOOD}{bad}\n").into_bytes();
    let cases: [(Vec<u8>, &[&str]); 16] = [
        (good_then("{\"input\": oops}"), &["rows.jsonl:2:11: is broken JSON"]),
        (good_then("{\"input\": \"cut"), &["rows.jsonl:2:", "is broken JSON"]),
        (good_then("[1, 2]"), &["rows.jsonl:2:", "one JSON object a line"]),
        (
            [GOOD.as_bytes(), b"{\"input\":\"caf\xe9\"}\n"].concat(),
            &["rows.jsonl:2:14: is not UTF-8", "iconv -f LATIN1"],
        ),
        (b"\xff\xfe{\x00".to_vec(), &["rows.jsonl:", "is broken JSON"]),
        (b"\x1f\x8b\x08\x00".to_vec(), &["rows.jsonl: is compressed (gzip): unpack it first"]),
        (Vec::new(), &["rows.jsonl: is empty: it must hold at least one row"]),
        (b"\n \n\t\n".to_vec(), &["rows.jsonl: is empty: it must hold at least one row"]),
        (
            b"{\"id\":\"x\",\"input\":\"a\"}\n\n{\"id\":\"x\",\"input\":\"b\"}\n".to_vec(),
            &["rows.jsonl:3: id: `x` on line 3 stands on line 1 already: ids must be unique"],
        ),
        (
            good_then("{\"inptu\":\"a\"}"),
            &["rows.jsonl:2: inptu: is not a field of a row: did you mean `input`?"],
        ),
        (
            good_then("{\"question\":\"a\"}"),
            &["rows.jsonl:2: question: is not a field of a row: did you mean `input`?"],
        ),
        (good_then("{\"input\":7}"), &["rows.jsonl:2: input: is `7`: write it as text, in quotes"]),
        (
            good_then("{\"input\":\"a\",\"split\":\"trian\"}"),
            &["rows.jsonl:2: split: `trian` is not one of: train, "],
        ),
        (
            good_then("{\"input\":\"a\",\"choices\":[\"x\",\"y\"],\"label\":\"z\"}"),
            &["rows.jsonl:2: label: `z` is not one of: x, y"],
        ),
        (
            good_then(&json!({"input": "x".repeat(70_000)}).to_string()),
            &["rows.jsonl:2: input: is 70000 bytes long: the limit is 65536"],
        ),
        (good_then(&"x".repeat(1_100_000)), &["rows.jsonl:2: is longer than 1048576 bytes"]),
    ];
    check_rows(&cases.map(|(content, wanted)| ("jsonl", content, wanted)));
}

#[test]
fn other_formats_are_as_exact() {
    let cases: [(&str, &str, &[&str]); 8] = [
        ("csv", "input,labl\na,b\n", &["rows.csv:1: labl: is not a field of a row: did you mean `label`?"]),
        ("csv", "input,label\na,b\nc\n", &["rows.csv:3: has 1 fields and the header names 2"]),
        ("csv", "input;labl\na;b\n", &["rows.csv:1: labl: is not a field of a row: did you mean `label`?"]),
        ("csv", "", &["rows.csv: is empty: it must hold at least one row"]),
        ("csv", "input,label\n", &["rows.csv: is empty: it must hold at least one row"]),
        ("csv", "input,choices\na,x|y\n", &["rows.csv:2: choices: is broken JSON"]),
        ("parquet", "PAR1 and no more", &["rows.parquet: is not a readable Parquet file"]),
        ("parquet", GOOD, &["rows.parquet: is not a readable Parquet file"]),
    ];
    check_rows(&cases.map(|(format, content, wanted)| (format, content.as_bytes().to_vec(), wanted)));
}

#[test]
fn files_and_names_that_cannot_be_are_refused() {
    let folder = Folder::empty().unwrap();
    folder.write("rows.jsonl", GOOD).unwrap();
    std::fs::create_dir(folder.join("sub.jsonl")).unwrap();
    for (arguments, wanted) in [
        (&["import", "jsonl", "absent.jsonl"][..], "absent.jsonl: does not exist: check the path"),
        (&["import", "jsonl", "sub.jsonl"], "sub.jsonl: is a folder: name a file in it"),
        (
            &["import", "jsonl", "rows.jsonl", "--name", "a b"],
            "`a b` cannot name a dataset: use 1 to 64 letters",
        ),
        (&["import", "jsonl", "rows.jsonl", "--name", "../up"], "`../up` cannot name a dataset"),
        (&["import", "paper", "--dataset", "svamp", "--from", "."], "svamp_train.json: does not exist"),
        (
            &["import", "paper", "--dataset", "svmap", "--from", "."],
            "possible values: svamp, cqa, anli1, esnli",
        ),
        (
            &["export", "jsonl", "rows", "-", "--split", "tset"],
            "--split: `tset` is not one of: train, validation, test",
        ),
        (&["export", "xml", "rows", "-"], "possible values: jsonl, csv, parquet"),
        (&["export", "jsonl", "rows", "-"], "there is no dataset `rows`"),
    ] {
        check(&folder, arguments, 2, &[wanted]);
    }
}

// Specifications.

fn check_spec(text: &str, wanted: &[&str]) {
    let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
    folder.write("spec.toml", text).unwrap();
    let teacher = teacher();
    let said = folder.say(teacher.url(), RUN).unwrap();
    told(&said, 2, wanted);
    assert_eq!(teacher.requests(), 0, "a teacher is asked only when all is well");
}

#[test]
fn a_specification_s_mistakes_are_named_with_line_field_and_remedy_all_at_once() {
    let usual = SpecText::default;
    let check = |spec: SpecText<'_>, wanted: &[&str]| check_spec(&spec.to_string(), wanted);
    check_spec("name = \"job\ntask = 1", &["spec.toml:1: file: is not TOML"]);
    check(
        SpecText { training: "stesp = 30", ..usual() },
        &["spec.toml:20: training.stesp: is not a known key", "`steps`"],
    );
    check(
        SpecText { student: "vocab = 3", ..usual() },
        &["spec.toml:16: student.vocab: is not a known key: known are"],
    );
    check_spec(
        &usual().to_string().replace("[training]", "[trainign]"),
        &["spec.toml:19: trainign: ", "`training`?"],
    );
    check(
        SpecText { task: "equaton", ..usual() },
        &["spec.toml:2: task: `equaton` is neither", "`equation`?"],
    );
    check(SpecText { task: "my.toml", ..usual() }, &["spec.toml:2: task: does not exist: check the path"]);
    check(SpecText { name: "../up", ..usual() }, &["spec.toml:1: name: must have 1 to 64 letters"]);
    check(
        SpecText { training: "steps = 0\nalpha = 2\nlearning_rate = \"fast\"", ..usual() },
        &[
            "spec.toml:20: training.steps: is 0: it must lie between 1 and",
            "spec.toml:21: training.alpha: is 2: it must lie between 0 and 1",
            "spec.toml:22: training.learning_rate: is string \"fast\": write a number between 0.000000001 and 10",
        ],
    );
    check(
        SpecText { teacher: "profile = \"local\"\nsamples = 3\ntemperature = 0.0", ..usual() },
        &["spec.toml:12: teacher.temperature: is 0, so that all samples would be the same: raise it"],
    );
    check(
        SpecText { judging: "vote = true", ..usual() },
        &["spec.toml:13: judging.vote: needs `teacher.samples` of 2"],
    );
    check(
        SpecText { judging: "label = \"teacher\"\nagree = true", ..usual() },
        &["spec.toml:14: judging.agree: needs gold labels", "remove one of them"],
    );
    check(
        SpecText { teacher: "profile = \"none\"", training: "objective = \"step_by_step\"", ..usual() },
        &["spec.toml:10: teacher.profile: is `none`, but `training.objective = \"step_by_step\"`"],
    );
    check(
        SpecText { student: "size = \"tiny\"\ninit = \"base\"", ..usual() },
        &["spec.toml:16: student.size: contradicts `student.init`", "remove one of them"],
    );
    check(
        SpecText { student: "size = \"giant\"", ..usual() },
        &["spec.toml:16: student.size: is `giant`: write one of `tiny`, `mini`"],
    );
}

#[test]
fn mistakes_of_every_kind_in_a_specification_and_its_task_are_named_in_one_go() {
    let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
    let sound = include_str!("../../examples/tasks/sentiment.toml");
    let broken = sound
        .replacen("tokens_max = 128", "tokens_max = 0", 1)
        .replacen("metric = \"text\"", "metric = \"text\"\ncolour = 1", 1)
        .replacen("stop = [", "stop = [7, ", 1)
        .replacen("rationale = ", "rational = ", 1);
    let line = |start: &str| broken.lines().position(|line| line.starts_with(start)).unwrap() + 1;
    folder.write("task.toml", &broken).unwrap();
    let spec = SpecText {
        task: "task.toml",
        data: "train = \"train.jsonl\"\nvalidation = \"validation.jsonl\"\ntest = \"tset.jsonl\"",
        training: "stesp = 30\nsteps = \"many\"\nalpha = 2",
        teacher: "profile = \"local\"\n[teacher.budget]\npromts = 1\nprompts = -1",
        ..SpecText::default()
    };
    folder.write("spec.toml", spec.to_string()).unwrap();
    let task = |start: &str, words: &str| format!("task.toml:{}: {words}", line(start));
    let in_task = [
        task("stop", "stop: is integer `7`: write text, in quotes"),
        task("colour", "colour: is not a known key: known are"),
        task("tokens_max", "tokens_max: must lie between 1 and 8192"),
        task("[[exemplars]]", "exemplars[0].rationale: is missing: add"),
        task("rational", "exemplars[0].rational: is not a known key: did you mean `rationale`?"),
    ];
    let in_spec = [
        "spec.toml:7: data.test: tset.jsonl does not exist: check the path",
        "spec.toml:12: teacher.budget.promts: is not a known key: did you mean `prompts`?",
        "spec.toml:13: teacher.budget.prompts: is integer `-1`: write an integer from 0",
        "spec.toml:23: training.stesp: is not a known key: did you mean `steps`?",
        "spec.toml:24: training.steps: is string \"many\": write an integer between 1 and 10000000",
        "spec.toml:25: training.alpha: is 2: it must lie between 0 and 1",
    ];
    for verb in ["plan", "run"] {
        let said = folder.say(NOBODY, &[verb, "spec.toml"]).unwrap();
        told(&said, 2, &in_spec);
        told(&said, 2, &in_task.each_ref().map(String::as_str));
        assert_eq!(said.err.trim().lines().count(), in_spec.len() + in_task.len(), "{}", said.err);
    }
}

#[test]
fn a_specification_s_rows_and_teacher_are_looked_for_before_anything_is_asked() {
    let usual = SpecText::default;
    let check = |spec: SpecText<'_>, wanted: &[&str]| check_spec(&spec.to_string(), wanted);
    check(SpecText { data: "test = \"test.jsonl\"", ..usual() }, &["spec.toml:4: data: has no train rows"]);
    check(
        SpecText { data: "train = \"train.jsonl\"\ndataset = \"x\"", ..usual() },
        &["spec.toml:6: data.dataset: "],
    );
    check(
        SpecText { data: "dataset = \"x\"", ..usual() },
        &["spec.toml:5: data.dataset: there is no dataset `x`"],
    );
    check(
        SpecText { data: "train = \"train.txt\"", ..usual() },
        &["train.txt: its extension names no format: use .jsonl"],
    );
    check(
        SpecText { data: "train = \"absent.jsonl\"", ..usual() },
        &["spec.toml:5: data.train: absent.jsonl does not exist: check the path"],
    );
    check(
        SpecText { teacher: "profile = \"locla\"", ..usual() },
        &[
            "spec.toml:10: teacher.profile: `locla` is not a configured teacher profile",
            "did you mean `local`?",
        ],
    );
    check(
        SpecText { teacher: "profile = \"openai\"", ..usual() },
        &["spec.toml:10: teacher.profile: `openai` has no key here: set OPENAI_API_KEY"],
    );
    check(
        SpecText { teacher: "profile = \"imported\"", ..usual() },
        &["spec.toml:10: teacher.profile: is `imported`, but no train row came with a rationale"],
    );
    check(
        SpecText { task: "choice", ..usual() },
        &["spec.toml:4: rows[0].choices: is missing: the task `choice`"],
    );
}

#[test]
fn a_specification_that_is_not_there_or_no_text_says_so() {
    let folder = Folder::empty().unwrap();
    check(&folder, RUN, 2, &["spec.toml:1: file: does not exist: check the path"]);
    folder.write("spec.toml", [b'n', 0xff]).unwrap();
    check(&folder, RUN, 2, &["spec.toml:1: file: is not UTF-8 (byte 1): save it as UTF-8"]);
}

#[test]
fn a_job_s_rows_are_checked_against_its_task_and_nothing_of_them_stays() {
    for (task, train, wanted) in [
        (
            "equation",
            "{\"input\":\"a\"}",
            "train.jsonl:1: label: is missing: every row needs a gold label here",
        ),
        (
            "equation",
            "{\"input\":\"a\",\"label\":\"many\"}",
            "train.jsonl:1: label: `many` is not an arithmetic expression",
        ),
        (
            "nli",
            "{\"premise\":\"p\",\"hypothesis\":\"h\",\"label\":\"yes\"}",
            "`yes` is not one of: entailment, neutral",
        ),
        (
            "nli",
            "{\"premise\":\"p\",\"label\":\"neutral\"}",
            "train.jsonl:1: hypothesis: `premise` and `hypothesis` go together",
        ),
        ("classify", "{\"input\":\"a\",\"label\":\"\"}", "train.jsonl:1: label: is empty"),
        (
            "equation",
            "{\"input\":\"a\",\"label\":\"1\",\"split\":\"test\"}",
            "train.jsonl:1: split: is `test`, and the whole file",
        ),
    ] {
        let spec = SpecText {
            task,
            data: "train = \"train.jsonl\"",
            judging: "label = \"gold\"",
            ..SpecText::default()
        };
        let folder = Folder::with_problems(ROWS, &spec).unwrap();
        folder.write("train.jsonl", format!("{train}\n")).unwrap();
        check(&folder, RUN, 2, &[wanted]);
        check(&folder, &["export", "jsonl", "job", "-"], 2, &["there is no dataset `job`"]);
    }
}

// Checkpoints to start from, and to predict with.

/// A finished job, with the teacher's answers in its data folder.
fn trained() -> &'static (Folder, PathBuf) {
    static TRAINED: OnceLock<(Folder, PathBuf)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
        let said = folder.say(teacher().url(), RUN).unwrap();
        assert_eq!(said.code, 0, "{}", said.err);
        let model_dir = PathBuf::from(said.json().unwrap()["model_dir"].as_str().unwrap());
        (folder, model_dir)
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        // A link stays one: people find a student by it.
        if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

/// Rewrites a safetensors file: `change` gets its header; a tensor that it removes must be the last in the file.
fn change_header(path: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let end = header.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64()).max().unwrap() as usize;
    let header = serde_json::to_vec(&header).unwrap();
    let data = &bytes[8 + length..8 + length + end];
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()).unwrap();
}

/// The name of the tensor that ends where the file does.
fn last_tensor(header: &serde_json::Map<String, Value>) -> String {
    header.iter().max_by_key(|(_, tensor)| tensor["data_offsets"][1].as_u64()).unwrap().0.clone()
}

/// The base checkpoint, broken by `break_it`, is refused before the teacher is asked anything.
fn check_base(break_it: impl FnOnce(&Path), wanted: &[&str]) {
    let (_, model_dir) = trained();
    let spec = SpecText { student: "init = \"base\"", ..SpecText::default() };
    let folder = Folder::with_problems(ROWS, &spec).unwrap();
    copy(model_dir, &folder.join("base"));
    break_it(&folder.join("base"));
    let teacher = teacher();
    let said = folder.say(teacher.url(), RUN).unwrap();
    told(&said, 2, &["spec.toml:16: student.init: "]);
    told(&said, 2, wanted);
    assert_eq!(teacher.requests(), 0, "a teacher is paid for a student that cannot be");
}

#[test]
fn a_folder_that_no_student_can_start_from_is_refused_before_anything_is_paid() {
    let remove = |base: &Path, name: &str| std::fs::remove_file(base.join(name)).unwrap();
    let weights = |base: &Path| base.join("model.safetensors");
    check_base(|base| std::fs::remove_dir_all(base).unwrap(), &["base: is not a directory with config.json"]);
    check_base(
        |base| {
            std::fs::remove_dir_all(base).unwrap();
            std::fs::write(base, "no folder").unwrap();
        },
        &["base: is not a directory"],
    );
    check_base(
        |base| remove(base, "config.json"),
        &["base: has no config.json", "a checkpoint is a folder with"],
    );
    check_base(|base| remove(base, "tokenizer.json"), &["base: has no tokenizer.json"]);
    check_base(|base| remove(base, "model.safetensors"), &["base: has no model.safetensors: "]);
    check_base(
        |base| std::fs::rename(weights(base), base.join("pytorch_model.bin")).unwrap(),
        &["base: holds pytorch_model.bin, a pickle", "save_pretrained"],
    );
    check_base(
        |base| {
            change_header(&weights(base), |header| {
                let last = last_tensor(header);
                header.remove(&last);
            });
        },
        &["has no tensor `", "which config.json asks for"],
    );
    check_base(
        |base| {
            change_header(&weights(base), |header| {
                let shape = &mut header["encoder.block.0.layer.1.DenseReluDense.wo.weight"]["shape"];
                shape.as_array_mut().unwrap().reverse();
            });
        },
        &["tensor `encoder.block.0.layer.1.DenseReluDense.wo.weight` has shape [", "config.json asks for ["],
    );
    check_base(
        |base| {
            change_header(&weights(base), |header| {
                let last = last_tensor(header);
                let tensor = header.remove(&last).unwrap();
                header.insert("bert.pooler.weight".into(), tensor);
            });
        },
        &["holds the unknown tensor `bert.pooler.weight`: is it the checkpoint of another model?"],
    );
    check_base(
        |base| {
            let bytes = std::fs::read(weights(base)).unwrap();
            std::fs::write(weights(base), &bytes[..bytes.len() / 2]).unwrap();
        },
        &["model.safetensors: is not a whole safetensors file", "copy it again"],
    );
    check_base(|base| std::fs::write(base.join("config.json"), "{").unwrap(), &["config.json: "]);
    check_base(|base| std::fs::write(base.join("tokenizer.json"), "{}").unwrap(), &["tokenizer.json: "]);
    check_base(
        |base| {
            let path = base.join("tokenizer.json");
            let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let vocabulary = json["model"]["vocab"].as_array_mut().unwrap();
            vocabulary.extend((0..2_000).map(|place| json!([format!("more{place}"), -20.0])));
            std::fs::write(path, json.to_string()).unwrap();
        },
        &["tokenizer.json: has the id ", "it belongs to another model"],
    );
}

#[test]
fn predict_says_what_is_wrong_with_its_model_or_its_text() {
    let (folder, model_dir) = trained();
    let model_dir = model_dir.to_str().unwrap();
    folder.write("broken.jsonl", format!("{GOOD}{{\"input\": oops}}\n")).unwrap();
    let long = "word ".repeat(3_000);
    let predict = |arguments: &[&str], code: i32, wanted: &[&str]| {
        check(folder, &[&["predict", "--model"][..], arguments].concat(), code, wanted);
    };
    predict(
        &["jbo", "--input", "x"],
        2,
        &["--model: jbo: is neither a folder nor a published model (published: job@1)"],
    );
    predict(
        &["job@7", "--input", "x"],
        2,
        &["job@7: is neither a folder nor a published model (published: job@1)"],
    );
    predict(&["job@x", "--input", "x"], 2, &["`x` is not a version: write job@1, or job for the newest"]);
    predict(
        &["./absent", "--input", "x"],
        2,
        &["--model: ./absent: is not a directory, and .distillery has no model"],
    );
    predict(&["job", "--input", ""], 2, &["--input: is empty: write the text that the student reads"]);
    predict(&["job", "--input", &long], 2, &["tokens, and the model reads at most 1024: shorten it"]);
    predict(&[model_dir, "--input", &long], 2, &["tokens, and the model reads at most 1024: shorten it"]);
    predict(
        &["job", "--input", "x", "--choice", "one"],
        2,
        &["--choice: has 1 entries: give between 2 and 26"],
    );
    predict(&["job", "--premise", "x"], 2, &["--hypothesis"]);
    predict(&["job"], 2, &["--input <TEXT>"]);
    predict(&["job", "--input", "x", "--file", "broken.jsonl"], 2, &["cannot be used with"]);
    predict(&["job", "--file", "broken.jsonl"], 2, &["broken.jsonl:2:11: is broken JSON"]);
    predict(&["job", "--file", "absent.jsonl"], 2, &["absent.jsonl: does not exist"]);
    predict(&["job", "--file", "rows.txt"], 2, &["rows.txt: its extension names no format"]);
    predict(&["job", "-"], 2, &["standard input: is empty: it must hold at least one row"]);
    let none = Folder::empty().unwrap();
    check(
        &none,
        &["predict", "--model", "job", "--input", "x"],
        2,
        &["job: is not a directory, and .distillery has no model"],
    );
    assert!(!none.join(".distillery").exists(), "looking makes nothing");
    std::fs::create_dir(none.join("hollow")).unwrap();
    check(&none, &["predict", "--model", "hollow", "--input", "x"], 1, &["hollow", "config.json"]);
}

#[test]
fn a_damaged_student_is_found_by_its_name_and_not_believed() {
    let (folder, _) = trained();
    let damaged = Folder::empty().unwrap();
    copy(folder.path(), damaged.path());
    let model = find(damaged.path(), "model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&model, &bytes).unwrap();
    let input = ["predict", "--model", "job", "--input", "x"];
    check(&damaged, &input, 1, &["model.safetensors: its content is not what was published: copy it again"]);
    std::fs::write(&model, &bytes[..middle]).unwrap();
    check(&damaged, &input, 1, &["model.safetensors: its content is not what was published: copy it again"]);
    let model_dir = model.parent().unwrap().to_str().unwrap();
    let by_folder = ["predict", "--model", model_dir, "--input", "x"];
    // Its packed form is served without the weights; without that, they are read.
    let packed = find(damaged.path(), "model.t5packed");
    let whole = std::fs::read(&packed).unwrap();
    std::fs::remove_file(&packed).unwrap();
    check(&damaged, &by_folder, 1, &["model.safetensors: is not a whole safetensors file", "copy it again"]);
    std::fs::write(&packed, whole).unwrap();
    std::fs::remove_file(&model).unwrap();
    check(&damaged, &input, 1, &["is incomplete: model.safetensors is missing"]);
}

/// The one file of this name below `folder`.
fn find(folder: &Path, name: &str) -> PathBuf {
    fn walk(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // Not through the link by which people find a student.
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), name, found);
            } else if entry.file_name() == name {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, name, &mut found);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

#[test]
fn a_damaged_resume_state_is_named_with_the_way_out_of_it() {
    let training = "steps = 40\nbatch_examples = 8\ncheckpoint_every_steps = 5\nevaluate_every_steps = 40\n\
                    target_tokens_max = 32";
    let folder = Folder::with_problems(ROWS, &SpecText { training, ..SpecText::default() }).unwrap();
    let teacher = teacher();
    let mut child = binary::start(folder.path(), teacher.url(), RUN).unwrap();
    let runs = folder.join(".distillery/checkpoints/runs");
    let saved = || std::fs::read_dir(&runs).is_ok_and(|mut runs| runs.next().is_some());
    assert!(
        binary::wait_until(&mut child, Duration::from_secs(60), saved).unwrap(),
        "it ended before it was stopped"
    );
    binary::signal(&child, "INT").unwrap();
    assert_eq!(binary::finish(child).unwrap().status.code(), Some(130));
    let moments = find(&runs, "moments.safetensors");
    let bytes = std::fs::read(&moments).unwrap();
    std::fs::write(&moments, &bytes[..bytes.len() / 2]).unwrap();

    let said = folder.say(teacher.url(), RUN).unwrap();
    let outcome = said.json().unwrap();
    assert_eq!((said.code, &outcome["state"]), (1, &json!("failed")), "{}", said.err);
    let resume = moments.parent().unwrap();
    let way_out = format!("delete the folder {} and run again", resume.canonicalize().unwrap().display());
    for words in ["moments.safetensors: its content is not what was published", &way_out] {
        assert!(outcome["reason"].as_str().unwrap().contains(words), "wanted {words:?} in {outcome}");
        assert!(said.err.contains(words), "{}", said.err);
    }

    std::fs::remove_dir_all(resume).unwrap();
    let said = folder.say(teacher.url(), RUN).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("the resume state is gone: the training begins anew"), "{}", said.err);
    assert_eq!(teacher.requests(), ROWS[0] + ROWS[2], "nothing is asked again");
}

// The configuration and the data folder.

#[test]
fn the_configuration_s_mistakes_are_named_with_line_and_key() {
    let folder = Folder::empty().unwrap();
    for (text, wanted) in [
        (
            "[trainer]\nthraeds = 3\n",
            "c.toml:2: trainer.thraeds: is not a known key: did you mean `threads`?",
        ),
        ("\n[trainr]\nthreads = 3\n", "c.toml:2: trainr: is not a known key: did you mean `trainer`?"),
        ("[trainer]\nthreads = \"3\"\n", "c.toml:2: trainer.threads: must be a whole number, such as 0"),
        ("[trainer\n", "c.toml:1: is not TOML"),
        (
            "[teachers.mine]\nulr = \"x\"\n",
            "c.toml:2: teachers.mine.ulr: is not a known key: did you mean `url`?",
        ),
        ("[log]\nlevel = \"loud,,=\"\n", "log.level: `loud,,=` is not a filter such as"),
        ("[trainer]\ndevice = \"tpu\"\n", "unknown variant `tpu`"),
    ] {
        folder.write("c.toml", text).unwrap();
        check(&folder, &["migrate", "--config", "c.toml"], 2, &[wanted]);
    }
    check(
        &folder,
        &["migrate", "--config", "absent.toml"],
        2,
        &["absent.toml: cannot be read", "`distillery config`"],
    );
    let spec = SpecText { teacher: "profile = \"mine\"", ..SpecText::default() };
    let job = Folder::with_problems(ROWS, &spec).unwrap();
    for (text, wanted) in [
        (
            "[teachers.mine]\nprovider = \"opnai\"\n",
            "teachers.mine.provider: `opnai` is not a provider: use `openai_chat`",
        ),
        (
            "[teachers.mine]\nurl = \"localhost:80\"\n",
            "teachers.mine: teacher `mine`: url `localhost:80`: must begin with http",
        ),
        (
            "[teachers.mine]\napi_key_file = \"absent\"\n",
            "teachers.mine: api_key_file: absent cannot be read",
        ),
    ] {
        job.write("distillery.toml", text).unwrap();
        check(&job, RUN, 2, &[wanted]);
    }
}

#[test]
fn a_variable_that_is_no_setting_is_refused_with_a_suggestion() {
    let folder = Folder::empty().unwrap();
    for (name, value, wanted) in [
        (
            "DISTILLERY_TRAINER_THRAEDS",
            "1",
            "DISTILLERY_TRAINER_THRAEDS: is not a setting: did you mean DISTILLERY_TRAINER_THREADS?",
        ),
        (
            "DISTILLERY_NOTHING_OF_OURS",
            "1",
            "DISTILLERY_NOTHING_OF_OURS: is not a setting; `distillery config` lists them all",
        ),
        (
            "DISTILLERY_TRAINER_THREADS",
            "many",
            "DISTILLERY_TRAINER_THREADS: must be a whole number, such as 0",
        ),
        ("DISTILLERY_CONFIG", "absent.toml", "absent.toml: cannot be read"),
    ] {
        let mut command = binary::command(folder.path(), &["migrate"]).unwrap();
        command.env(name, value);
        told(&binary::output(command).unwrap().into(), 2, &[wanted]);
    }
    assert!(!folder.join(".distillery").exists(), "a mistake makes nothing");
    // Foreign entries may have any content.
    let mut command = binary::command(folder.path(), &["list"]).unwrap();
    command.env("SOMEBODY_ELSE", OsStr::from_bytes(b"caf\xe9"));
    assert!(binary::output(command).unwrap().status.success());
}

#[test]
fn a_migration_needs_a_database_and_says_which_one_it_was() {
    let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
    let wanted = ["database.url: is not given, and .distillery has no database", "DISTILLERY_DATABASE_URL"];
    check(&folder, &["migrate"], 2, &wanted);
    assert!(!folder.join(".distillery").exists(), "none is made");
    assert_eq!(folder.say(NOBODY, &["list"]).unwrap().code, 0);
    let said = folder.say(NOBODY, &["migrate"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with(".distillery: the database is at version "), "{}", said.out);
    folder
        .write("absent.toml", "[database]\nurl = \"postgres://somebody@127.0.0.1:9/distillery\"\n")
        .unwrap();
    let wanted =
        ["127.0.0.1:9/distillery", "is PostgreSQL running there (database.url, DISTILLERY_DATABASE_URL)?"];
    check(&folder, &["migrate", "--config", "absent.toml"], 1, &wanted);
}

#[test]
fn a_data_folder_is_its_owner_s_whichever_verb_makes_it() {
    for (verb, code) in [(&["list"][..], 0), (&["doctor"], 1), (&["import", "jsonl", "train.jsonl"], 0)] {
        let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
        let said = folder.say(NOBODY, verb).unwrap();
        assert_eq!(said.code, code, "{verb:?}: {}", said.err);
        let permissions = folder.join(".distillery").metadata().unwrap().permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
        assert_eq!(mode & 0o777, 0o700, "{verb:?}: its answers are its owner's");
    }
}

#[test]
fn a_data_folder_that_cannot_be_one_says_so() {
    let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
    let verbs: [&[&str]; 4] = [
        &["migrate"],
        RUN,
        &["import", "jsonl", "train.jsonl"],
        &["predict", "--model", "job", "--input", "x"],
    ];
    for verb in verbs {
        let at = |data: &'static str| [verb, &["--data-dir", data]].concat();
        check(&folder, &at("train.jsonl"), 2, &["--data-dir: train.jsonl is a file: name a folder"]);
        std::fs::create_dir_all(folder.join("garbage")).unwrap();
        folder
            .write("garbage/distillery.db", "this is no database, and long enough to be read as one")
            .unwrap();
        check(
            &folder,
            &at("garbage"),
            1,
            &["garbage/distillery.db: ", "is not a database", "use another --data-dir"],
        );
    }
}
