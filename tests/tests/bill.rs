//! The bill of a harvest, lever by lever: PaLM-540B's released completions replayed over HTTP, at gpt-4o-mini's prices.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::data::{SpecText, question, questions};
use tests::folder::{Folder, NOBODY};
use tests::teacher::{Reply, Teacher, TeacherRequest};

/// Train rows that are asked about.
const ROWS: usize = 400;
/// Prices of a million tokens in and out, in dollars.
const PRICES: (f64, f64) = (0.15, 0.6);

/// The folder of a released data set; `None`, with a notice, if it is not available.
fn released(dataset: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/paper");
    let root = std::env::var_os("DISTILLERY_PAPER_DATA").map_or(beside, PathBuf::from);
    let folder = root.join(dataset);
    if !folder.is_dir() {
        eprintln!("SKIPPED: no released {dataset} at {}: set DISTILLERY_PAPER_DATA", folder.display());
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// PaLM's completions of the train rows, by question.
fn completions(folder: &Path, dataset: &str, field: &str) -> HashMap<String, String> {
    let rows = std::fs::read_to_string(folder.join(format!("{dataset}_train.json"))).unwrap();
    let shard = |place: usize| std::fs::read_to_string(folder.join(format!("llm/train_CoT_{place}.json")));
    let texts: Vec<String> = (0..)
        .map_while(|place| shard(place).ok())
        .flat_map(|text| serde_json::from_str::<Vec<String>>(&text).unwrap())
        .collect();
    rows.lines()
        .zip(texts)
        .map(|(line, text)| {
            let row: Value = serde_json::from_str(line).unwrap();
            let asked = row[field].as_str().unwrap().lines().next().unwrap().trim().to_owned();
            (asked, text)
        })
        .collect()
}

/// A teacher that says what PaLM said, running on where no stop sequence is sent; asked about several rows, what it said of each
/// up to the first of `stops`. A token has four bytes.
fn replay(known: &Arc<HashMap<String, String>>, stops: Vec<String>) -> Teacher {
    let known = Arc::clone(known);
    let cut = |said: &str, stops: &[String]| {
        let end = stops.iter().filter_map(|stop| said.find(stop.as_str())).min().unwrap_or(said.len());
        said[..end].to_owned()
    };
    let said = move |prompt: &str, stops: &[String]| {
        cut(known.get(question(prompt)).map_or("", String::as_str), stops)
    };
    Teacher::start(move |asked: &TeacherRequest| {
        let several = questions(&asked.prompt);
        let text = match several.is_empty() {
            true => said(&asked.prompt, &asked.stop),
            false => several
                .iter()
                .map(|(number, question)| format!("[{number}]\n{}\n\n", said(question, &stops).trim()))
                .collect(),
        };
        let text = text.as_str();
        let tokens = |text: &str| text.len().div_ceil(4);
        let body = json!({
            "model": "palm-540b",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": tokens(&asked.prompt), "completion_tokens": tokens(text)},
        });
        Reply::status(200, &body.to_string())
    })
    .unwrap()
}

/// Money of a job, in millionths, and its accepted rationales.
fn bill(folder: &Folder, name: &str, settings: &str, teacher: &Teacher) -> (u64, u64) {
    folder
        .write(
            "profile.toml",
            format!(
                "[teachers.{name}]\nprovider = \"openai_chat\"\nurl = \"{}\"\nmodel = \"{name}\"\nidentity = \"{name}\"\n\
                 concurrency_max = 16\nprice_in_per_million = {}\nprice_out_per_million = {}\n{settings}\n",
                teacher.url(),
                PRICES.0,
                PRICES.1
            ),
        )
        .unwrap();
    let said =
        folder.say(NOBODY, &["run", &format!("{name}.toml"), "--json", "--config", "profile.toml"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let outcome = said.json().unwrap();
    (outcome["teacher"]["money_micros"].as_u64().unwrap(), outcome["teacher"]["accepted"].as_u64().unwrap())
}

fn check(dataset: &str, task: &str, field: &str, most: f64) {
    let Some(from) = released(dataset) else { return };
    let known = Arc::new(completions(&from, dataset, field));
    let folder = Folder::empty().unwrap();
    let import = ["import", "paper", "--dataset", dataset, "--from", from.to_str().unwrap()];
    assert_eq!(folder.say(NOBODY, &import).unwrap().code, 0);
    let mut bills = Vec::new();
    let ladder = [
        ("without-stops", "send_stop = false", "", ROWS),
        ("stops", "", "", ROWS),
        ("together", "", "rows_per_call = 8", ROWS / 8),
    ];
    for (name, settings, lever, calls) in ladder {
        let teacher = replay(&known, domain::Task::built_in(task).unwrap().stop);
        let spec = SpecText {
            name,
            task,
            data: &format!("dataset = \"{dataset}\""),
            teacher: &format!(
                "profile = \"{name}\"\nrows = {ROWS}\nevaluate = false\nsmoke_rows = 0\n{lever}"
            ),
            training: "steps = 1\nbatch_examples = 2\ntarget_tokens_max = 32\nobjective = \"standard\"",
            ..SpecText::default()
        };
        folder.write(&format!("{name}.toml"), spec.to_string()).unwrap();
        bills.push(bill(&folder, name, settings, &teacher));
        assert_eq!(teacher.requests(), calls, "{dataset} {name}");
    }
    let (without, with, together) = (bills[0], bills[1], bills[2]);
    let share = with.0 as f64 / without.0 as f64;
    println!(
        "{dataset}, {ROWS} rows: without stops {} micros, with stops {} micros: {share:.3} of it; accepted {} and {}",
        without.0, with.0, without.1, with.1
    );
    println!(
        "{dataset}, eight rows a call: {} micros, {:.3} of that with stops; accepted {}",
        together.0,
        together.0 as f64 / with.0 as f64,
        together.1
    );
    assert_eq!(without.1, with.1, "stop sequences change no verdict");
    assert_eq!(together.1, with.1, "neither does company");
    assert!(together.0 < with.0, "{dataset}: {together:?} {with:?}");
    assert!(share <= most, "{dataset}: {share}");
}

#[test]
fn stop_sequences_halve_the_bill_of_svamp() {
    check("svamp", "equation", "input", 0.60);
}

#[test]
fn stop_sequences_save_a_third_of_the_bill_of_cqa() {
    // 0.680 at four bytes a token; at a token for each word and mark it is 0.668, and that of SVAMP 0.630.
    check("cqa", "choice", "question", 0.685);
}
