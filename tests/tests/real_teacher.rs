//! A real language model as the teacher: SmolLM2-135M on llama.cpp's server, as `make demo` starts it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail loudly too")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::binary;

const ROWS: usize = 8;

/// The teacher; it stops when dropped.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the teacher on a free port and waits for its line with the base URL.
fn serve() -> (Served, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/teacher.sh");
    let mut child = Command::new(script)
        .args(["--port", "0", "--parallel", "4"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("scripts/teacher.sh cannot be started");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("http://127.0.0.1:"), "the teacher did not start: {line:?}");
    (Served(child), line.trim().to_owned())
}

#[test]
fn a_real_model_answers_in_the_asked_form_and_stops_where_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/word-problems/train.jsonl");
    let text = std::fs::read_to_string(example).unwrap();
    let rows: Vec<&str> = text.lines().take(ROWS).collect();
    std::fs::write(folder.path().join("train.jsonl"), rows.join("\n")).unwrap();
    let spec = "name = \"real\"\ntask = \"equation\"\n[data]\ntrain = \"train.jsonl\"\n[teacher]\nprofile = \"local\"\n\
                [judging]\nagree = false\n[student]\nsize = \"tiny\"\nvocabulary = 300\n[training]\nsteps = 2\n";
    std::fs::write(folder.path().join("spec.toml"), spec).unwrap();
    let (_served, url) = serve();
    let output = binary::run(folder.path(), &url, &["run", "spec.toml", "--json"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let teacher = &outcome["teacher"];
    // One that reaches the limit is asked once more.
    assert!((ROWS..=2 * ROWS).contains(&(teacher["prompts"].as_u64().unwrap() as usize)), "{outcome}");
    // It parses nearly always; which rows it fails on depends on the processor.
    assert!(teacher["accepted"].as_u64().unwrap() >= 5, "{outcome}");
    // A completion is two sentences long. Without stop sequences every one would run to its limit of 128 tokens.
    let tokens = teacher["tokens_out"].as_u64().unwrap() / ROWS as u64;
    assert!((5..100).contains(&tokens), "{tokens} tokens a completion: {outcome}");
}
