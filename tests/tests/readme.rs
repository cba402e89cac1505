//! The commands of `README.md` and `deploy/README.md` are run as they stand there: every block of shell, line by line, in a folder
//! with what the text speaks of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tests::binary;
use tests::folder::{Folder, Said};
use tests::service::Service;
use tests::teacher::{Reply, Teacher};

/// Commands that are not run here, by their beginnings, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("make demo", "fetches a teacher, and trains for minutes: its commands are those of scripts/demo.sh"),
    ("make test", "is what runs this test"),
    ("make soak", "runs for an hour or two: tests/tests/soak.rs is its short form"),
    ("make lint", "runs for minutes, and is checked next to this test"),
    ("make bench", "measures for an hour, and fetches its peers"),
    (
        "distillery import paper",
        "reads the authors' data, which is not carried along: tests/tests/paper.rs imports it",
    ),
    (
        "distillery serve --role",
        "serves until it is ended, over PostgreSQL and Redis: tests/tests/cluster.rs runs every role",
    ),
    (
        "export DISTILLERY_SERVER=",
        "names hosts and ports of a deployment: a server of this test takes their place",
    ),
    (
        "distillery submit examples/word-problems/spec.toml",
        "trains for minutes with a teacher that runs beside it",
    ),
    ("distillery predict --model word-problems", "asks the student of the line before"),
    ("docker ", "needs a container engine: tests/tests/deploy.rs checks images and compositions without one"),
    ("for target in", "builds images"),
    ("kubectl ", "needs a cluster: tests/tests/deploy.rs checks the manifests without one"),
    ("s() { kubectl", "needs a cluster"),
    ("s distillery-", "needs a cluster"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The contents of the blocks of `language`.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some((wanted, block)), Some(_)) => {
                if *wanted {
                    found.push(std::mem::take(block));
                }
                open = None;
            }
            (None, Some(info)) => open = Some((info == language, String::new())),
            (Some((_, block)), None) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    found
}

/// The commands of a block: a line, with those that it is continued on, or a loop.
fn commands(block: &str) -> Vec<String> {
    let (mut found, mut command) = (Vec::new(), String::new());
    for line in block.lines().filter(|line| !line.trim_start().starts_with('#')) {
        command += &format!("{line}\n");
        let is_open = line.ends_with('\\') || (command.starts_with("for ") && line != "done");
        if !is_open {
            found.push(std::mem::take(&mut command));
        }
    }
    assert!(command.is_empty(), "a command without an end: {command}");
    found.retain(|command| !command.trim().is_empty());
    found
}

/// The blocks of a document without the commands that are skipped; which of [`SKIPPED`] were is added to `skipped`.
fn scripts(path: &str, skipped: &mut Vec<&'static str>) -> Vec<String> {
    let mut kept = |command: &String| {
        let skip = SKIPPED.iter().find(|(begins, _)| command.starts_with(begins));
        skipped.extend(skip.map(|(begins, _)| *begins));
        skip.is_none()
    };
    let blocks = blocks(&read(path), "sh");
    assert!(!blocks.is_empty(), "{path}");
    let scripts =
        blocks.iter().map(|block| commands(block).into_iter().filter(&mut kept).collect::<String>());
    scripts.filter(|script| !script.is_empty()).collect()
}

/// The folder of somebody who reads on: the specification that stands in `README.md`, with a short training, and its files.
fn reader(teacher: &Teacher) -> Folder {
    let folder = Folder::empty().unwrap();
    let spec = blocks(&read("README.md"), "toml").into_iter().find(|block| block.contains("[data]")).unwrap();
    let short = spec.replace("size = \"mini\"", "size = \"tiny\"\nvocabulary = 400");
    assert_ne!(spec, short);
    let training = "[training]\nsteps = 4\nbatch_examples = 8\ntarget_tokens_max = 32\n";
    folder.write("spec.toml", format!("{short}\n{training}")).unwrap();
    fs::create_dir(folder.join("tasks")).unwrap();
    folder.write("tasks/sentiment.toml", read("examples/tasks/sentiment.toml")).unwrap();
    let row = |place: usize| {
        let (word, label) = [("great", "positive"), ("terrible", "negative")][place % 2];
        (format!("The kettle of box {place} was {word}, and so was the soup."), label)
    };
    let json =
        |(input, label): (String, &str)| format!("{}\n", serde_json::json!({"input": input, "label": label}));
    let lines = |rows: std::ops::Range<usize>| rows.map(|place| json(row(place))).collect::<String>();
    folder.write("train.jsonl", lines(0..40)).unwrap();
    folder.write("test.jsonl", lines(40..50)).unwrap();
    folder.write("rows.jsonl", lines(50..54)).unwrap();
    let cells = (0..60).map(row).map(|(input, label)| format!("\"{input}\",{label}\n"));
    folder.write("reviews.csv", format!("text,sentiment\n{}", cells.collect::<String>())).unwrap();
    let url = format!("[teachers.openai]\nurl = \"{}\"\n", teacher.url());
    folder.write("distillery.toml", url).unwrap();
    for place in ["bin", "target/release"] {
        fs::create_dir_all(folder.join(place)).unwrap();
        symlink(binary::path().unwrap(), folder.join(place).join("distillery")).unwrap();
    }
    // The script writes next to itself.
    fs::create_dir(folder.join("scripts")).unwrap();
    fs::copy(root().join("scripts/deploy-secrets.sh"), folder.join("scripts/deploy-secrets.sh")).unwrap();
    folder
}

/// Runs one block as a shell does that ends at the first failure.
fn run(folder: &Folder, teacher: &Teacher, script: &str, settings: &[(&str, &str)]) {
    let mut command = binary::command_of("sh", folder.path());
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    command.args(["-e", "-u", "-c", script]).env("PATH", path).env("OPENAI_API_KEY", "of nobody");
    command.env("DISTILLERY_TEACHER_URL", teacher.url()).envs(settings.iter().copied());
    let said: Said = binary::output(command).unwrap().into();
    assert_eq!(said.code, 0, "{script}\n{}\n{}", said.out, said.err);
}

fn answer(prompt: &str) -> Reply {
    let row = prompt.rsplit("Review:").next().unwrap_or_default();
    let label = if row.contains("great") { "positive" } else { "negative" };
    Reply::completion(&format!(" The kettle is said to be so. So the answer is {label}."))
}

#[test]
fn every_command_of_the_documents_does_what_it_says() {
    let teacher = Teacher::start(|asked| answer(&asked.prompt)).unwrap();
    let folder = reader(&teacher);
    let mut skipped = Vec::new();
    let (readme, deploy) = (scripts("README.md", &mut skipped), scripts("deploy/README.md", &mut skipped));
    // `make demo` leaves a student of this name; a deployment has served its own for a while.
    run(&folder, &teacher, "distillery run spec.toml", &[]);
    let elsewhere = reader(&teacher);
    let settings = [("OPENAI_API_KEY", "of nobody"), ("DISTILLERY_TEACHER_URL", teacher.url())];
    let service = Service::start(elsewhere.path(), "all", &settings).unwrap();
    let server = [("DISTILLERY_SERVER", service.url())];
    let served = "until distillery predict --model reviews --input x; do sleep 0.1; done";
    run(&folder, &teacher, &format!("distillery submit spec.toml --watch\n{served}"), &server);
    let mut ran = 0;
    for script in readme.iter().chain(&deploy) {
        let is_client = script.contains("distillery submit") || script.contains("$DISTILLERY_SERVER");
        run(&folder, &teacher, script, if is_client { &server } else { &[] });
        ran += commands(script).len();
    }
    assert!(ran >= 12, "{ran} commands were run");
    assert!(folder.join("reviews/spec.toml").exists() && folder.join("deploy/secrets/cli_token").exists());
    for (begins, _) in SKIPPED {
        assert!(skipped.contains(begins), "no command begins with {begins:?} any more");
    }
}

#[test]
fn blocks_are_taken_apart_as_a_shell_reads_them() {
    let text =
        "```\nno shell\n```\n```sh\none \\\n  more\n# nothing\nfor a in b; do\n  c\ndone\ntwo; three\n```\n";
    let blocks = blocks(text, "sh");
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    assert_eq!(commands(&blocks[0]), ["one \\\n  more\n", "for a in b; do\n  c\ndone\n", "two; three\n"]);
}
