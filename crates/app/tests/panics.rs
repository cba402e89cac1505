//! Panics in the log of a process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail loudly too"
)]

use app::config::{Config, LogFormat};
use serde_json::Value;
use std::process::Command;

/// How the process of the test is told the form of its log.
const FORM: &str = "PANICS_FORM";
const SECRET: &str = "sk-verysecret";

/// Panics in several ways, and goes on.
#[test]
#[ignore = "a process of the test below, which starts it"]
#[allow(clippy::disallowed_methods, reason = "its caller tells it by the environment what to do")]
fn a_process_that_panics() {
    let mut config = Config::built_in().unwrap();
    config.log.format =
        if std::env::var(FORM).unwrap() == "json" { LogFormat::Json } else { LogFormat::Text };
    let telemetry = app::telemetry::start(&config, "panics").unwrap();
    let work = async {
        assert!(tokio::spawn(async { panic!("plain words") }).await.is_err());
        assert!(tokio::spawn(async { panic!("words with {SECRET}") }).await.is_err());
        let named = std::thread::Builder::new().name("engine".to_owned());
        assert!(named.spawn(|| panic!("in a\nthread")).unwrap().join().is_err());
        Ok(())
    };
    telemetry.block_on(None, work).unwrap();
}

fn said(form: &str) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_panics", "--ignored", "--nocapture"]).env(FORM, form);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_panic_is_one_line_of_the_log_with_its_place_and_no_secret() {
    let lines = said("json");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let words = ["a panic: plain words", "a panic: its words are left out", "a panic: in a\nthread"];
    for (line, words) in lines.iter().zip(words) {
        assert_eq!(line["level"], "ERROR", "{line}");
        let fields = &line["fields"];
        assert!(fields["message"].as_str().unwrap().starts_with(words), "{line}");
        assert!(fields["place"].as_str().unwrap().contains("tests/panics.rs:"), "{line}");
        assert!(!line.to_string().contains(SECRET), "{line}");
    }
    assert_eq!(lines[2]["fields"]["thread"], "engine");
    let lines = said("text");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("ERROR") && !line.contains("panicked at")), "{lines:#?}");
}
