//! Clients in another language: Python's gRPC with code generated from `proto/` only, and the package of `clients/python`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tests::data::teach;
use tests::service::Service;
use tests::teacher::Teacher;

const TOKEN: &str = "a-token-of-the-tests";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The interpreter that a script installs, with the token.
fn python(script: &str) -> Command {
    let installed = Command::new(root().join(script)).stderr(Stdio::inherit()).output().unwrap();
    let mut python = Command::new(String::from_utf8(installed.stdout).unwrap().trim());
    python.env("DISTILLERY_TOKEN", TOKEN);
    python
}

/// All services in one process, which want the token; its folder stays as long as it is held.
fn server(settings: &[(&str, &str)]) -> (TempDir, Service) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = "[server.tokens.python]\nrole = \"operate\"\nenv = \"PYTHON_TOKEN\"\n";
    std::fs::write(folder.path().join("distillery.toml"), tokens).unwrap();
    let settings = [settings, &[("PYTHON_TOKEN", TOKEN)]].concat();
    let service = Service::start(folder.path(), "all", &settings).unwrap();
    (folder, service)
}

#[test]
fn a_python_client_submits_watches_and_predicts() {
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let (_folder, service) = server(&[("DISTILLERY_TEACHER_URL", teacher.url())]);
    let said = python("scripts/grpc.sh")
        .arg(root().join("tests/python/client.py"))
        .args([root().join("proto").as_os_str(), service.address().as_ref()])
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let outcome: Value = serde_json::from_slice(&said.stdout).unwrap();
    println!("{outcome:#}");
    let services = outcome["services"].as_array().unwrap();
    for name in [
        "distillery.v1.DatasetsService",
        "distillery.v1.DistillationsService",
        "distillery.v1.InferenceService",
        "distillery.v1.ModelsService",
        "distillery.v1.RationalesService",
        "distillery.v1.RunsService",
        "grpc.health.v1.Health",
    ] {
        assert!(services.iter().any(|service| service == name), "{name} is not in {services:?}");
    }
    let states: Vec<&str> = outcome["states"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        states,
        ["QUEUED", "HARVESTING", "TRAINING", "EVALUATING", "SUCCEEDED"]
            .map(|state| format!("DISTILLATION_STATE_{state}"))
    );
    assert_eq!(outcome["calls"], teacher.requests());
    assert!(outcome["label"].is_string() && outcome["pieces"].is_u64());
    let refused = &outcome["refused"];
    assert_eq!(
        (&refused["no token"], &refused["wrong token"]),
        (&"UNAUTHENTICATED".into(), &"UNAUTHENTICATED".into())
    );
}

#[test]
fn clients_that_others_wrote_get_the_same_answers_over_http() {
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let (_folder, service) = server(&[("DISTILLERY_TEACHER_URL", teacher.url())]);
    let made = python("scripts/grpc.sh")
        .arg(root().join("tests/python/client.py"))
        .args([root().join("proto").as_os_str(), service.address().as_ref()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = python("scripts/http-clients.sh")
        .arg(root().join("tests/python/http_clients.py"))
        .args([service.address(), "from-python"])
        .arg(root().join("docs/reference/openapi.json"))
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let found: Value = serde_json::from_slice(&said.stdout).unwrap();
    println!("{found:#}");
    assert!(found["paths"].as_u64().unwrap() > 20);
    let openai = &found["openai"];
    assert_eq!(openai["models"], serde_json::json!(["from-python@1"]));
    assert_eq!(openai["whole"], openai["streamed"]);
    assert_eq!(openai["many"], serde_json::json!([openai["whole"], openai["whole"]]));
    assert!(openai["refused"].as_str().unwrap().contains("there is no model `nobody`"));
    for client in ["http", "grpc"] {
        assert_eq!(
            (&found[client]["live"], &found[client]["ready"]),
            (&Value::Bool(true), &Value::Bool(true))
        );
        assert_eq!(found[client]["binary"], found["http"]["json"]);
    }
}

#[test]
fn the_python_package_passes_its_tests_against_a_server() {
    let (_folder, service) = server(&[]);
    let said = python("scripts/python-client.sh")
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(root().join("clients/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DISTILLERY_SERVER", service.url())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&said.stdout);
    println!("{words}{}", String::from_utf8_lossy(&said.stderr));
    // Nothing is skipped here: the server is there, and so is pandas.
    assert!(said.status.success() && !words.contains("skipped"), "{words}");
}
