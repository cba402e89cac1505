//! Several rows in one call (`teacher.rows_per_call`), counted at the teacher's server.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tests::binary;
use tests::data::{SpecText, questions, teach};
use tests::dice::Dice;
use tests::folder::{Folder, Said};
use tests::teacher::{Reply, Teacher, TeacherRequest};

const RUN: &[&str] = &["run", "spec.toml", "--json", "--config", "short.toml"];

/// Answers all questions of a prompt, those of one row without a number. A token has four bytes.
fn answer_all(asked: &TeacherRequest) -> Reply {
    answer_but(asked, |_| false)
}

/// Answers the questions of a prompt but those with numbers that `omit` picks, where there are several.
fn answer_but(asked: &TeacherRequest, omit: impl Fn(usize) -> bool) -> Reply {
    let asked_for = questions(&asked.prompt);
    let text = match asked_for.as_slice() {
        [] => text_of(&teach(&asked.prompt)),
        several => several
            .iter()
            .filter(|(number, _)| !omit(*number))
            .map(|(number, question)| format!("[{number}]\n{}\n\n", text_of(&teach(question)).trim()))
            .collect(),
    };
    let body = json!({
        "model": "test-teacher",
        "choices": [{"index": 0, "text": text, "message": {"role": "assistant", "content": text},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": asked.prompt.len() / 4, "completion_tokens": text.len() / 4},
    });
    Reply::status(200, &body.to_string())
}

fn text_of(reply: &Reply) -> String {
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    body["choices"][0]["text"].as_str().unwrap().to_owned()
}

fn spec(teacher: &str) -> String {
    let teacher = format!("profile = \"local\"\nevaluate = false\nsmoke_rows = 0\n{teacher}");
    SpecText { teacher: &teacher, ..SpecText::default() }.to_string()
}

fn folder(rows: usize, teacher: &str, concurrency: usize) -> Folder {
    let folder = Folder::with_problems([rows, 2, 2], &SpecText::default()).unwrap();
    folder.write("spec.toml", spec(teacher)).unwrap();
    folder
        .write(
            "short.toml",
            format!(
                "[harvester]\nlease_seconds = 2\n[teachers.local]\nprovider = \"openai_chat\"\n\
                 concurrency_max = {concurrency}\nprice_in_per_million = 1\nprice_out_per_million = 4\n"
            ),
        )
        .unwrap();
    folder
}

fn run(folder: &Folder, teacher: &Teacher) -> (Said, Value) {
    let said = folder.say(teacher.url(), RUN).unwrap();
    let outcome = said.json().unwrap();
    assert_eq!(said.code, 0, "{outcome} {}", said.err);
    (said, outcome["teacher"].clone())
}

/// The whole ledger, without what names a job or a moment.
fn ledger(folder: &Folder, teacher: &Teacher) -> Vec<(u64, String, String, String)> {
    let said = folder.say(teacher.url(), &["ledger", "job", "--json", "--config", "short.toml"]).unwrap();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut entries: Vec<_> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|entry| {
            let entry = &entry;
            let row = entry["row"].as_u64().unwrap_or_default();
            (row, text(entry, "rationale"), text(entry, "label"), text(entry, "verdict"))
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn exemplars_are_paid_for_once_for_several_rows() {
    let bills = [("", 24), ("rows_per_call = 8", 3)].map(|(lines, calls)| {
        let (folder, teacher) = (folder(24, lines, 4), Teacher::start(answer_all).unwrap());
        let (_, outcome) = run(&folder, &teacher);
        assert_eq!((teacher.requests(), &outcome["prompts"]), (calls, &calls.into()), "{outcome}");
        let bytes: usize = teacher.counts().iter().map(|(prompt, count)| prompt.len() / 4 * count).sum();
        assert_eq!(outcome["tokens_in"], bytes, "what the server counted");
        let money = outcome["money_micros"].as_u64().unwrap();
        // Nothing is asked twice, and what is asked alone has an answer of its own.
        run(&folder, &teacher);
        assert_eq!(teacher.requests(), calls);
        (money, outcome["accepted"].clone(), ledger(&folder, &teacher))
    });
    let [(alone, ..), (together, ..)] = bills;
    println!(
        "24 rows: {alone} micros one by one, {together} micros by eights: {:.3}",
        together as f64 / alone as f64
    );
    assert_eq!(bills[0].1, bills[1].1, "as many accepted");
    assert_eq!(bills[0].2, bills[1].2, "the same rationales, labels and verdicts");
    assert_eq!(bills[0].2.len(), 24);
    assert!(20 * together < 11 * alone, "{together} of {alone}");
}

#[test]
fn answers_given_together_are_others_than_those_given_alone() {
    let (folder, teacher) = (folder(16, "rows_per_call = 4", 4), Teacher::start(answer_all).unwrap());
    let mut asked = 0;
    for (lines, calls) in
        [("rows_per_call = 4", 4), ("", 16), ("rows_per_call = 2", 8), ("rows_per_call = 4", 0)]
    {
        folder.write("spec.toml", spec(lines)).unwrap();
        run(&folder, &teacher);
        assert_eq!(teacher.requests() - asked, calls, "{lines:?}");
        asked = teacher.requests();
    }
}

#[test]
fn rows_that_are_left_out_are_asked_about_alone() {
    let folder = folder(24, "rows_per_call = 8", 4);
    let teacher = Teacher::start(|asked| answer_but(asked, |number| number % 4 == 3)).unwrap();
    let (_, outcome) = run(&folder, &teacher);
    assert_eq!(teacher.requests(), 3 + 6, "{outcome}");
    assert_eq!(outcome["prompts"], 9, "{outcome}");
    assert_eq!(ledger(&folder, &teacher).len(), 24);
}

#[test]
fn a_teacher_that_answers_one_question_only_is_asked_row_by_row() {
    let folder = folder(64, "rows_per_call = 8", 1);
    // It answers the last question, as a small model does.
    let teacher = Teacher::start(|asked| match questions(&asked.prompt).pop() {
        Some((_, question)) => teach(&question),
        None => teach(&asked.prompt),
    });
    let teacher = teacher.unwrap();
    let (said, outcome) = run(&folder, &teacher);
    let together = teacher.counts().keys().filter(|prompt| !questions(prompt).is_empty()).count();
    // Rows of one or two more calls were taken together before the fourth had ended.
    assert!((4..=6).contains(&together), "{together}: {outcome}");
    assert_eq!(teacher.requests(), together + 64, "{outcome}");
    assert!(said.err.contains("does not answer several rows at once"), "{}", said.err);
}

#[test]
fn a_teacher_that_refuses_several_rows_is_asked_row_by_row() {
    let folder = folder(64, "rows_per_call = 8", 1);
    let teacher = Teacher::start(|asked| match questions(&asked.prompt).is_empty() {
        true => teach(&asked.prompt),
        false => Reply::status(400, r#"{"error": {"message": "this prompt is longer than the context"}}"#),
    });
    let teacher = teacher.unwrap();
    let (said, outcome) = run(&folder, &teacher);
    let together = teacher.requests() - 64;
    assert!((4..=6).contains(&together), "{together}: {outcome}");
    assert_eq!(outcome["prompts"], 64, "a refusal is no call: {outcome}");
    assert!(said.err.contains("does not answer several rows at once"), "{}", said.err);
}

#[test]
fn a_budget_counts_calls_and_not_rows() {
    let (folder, teacher) =
        (folder(120, "rows_per_call = 8\nbudget = { prompts = 10 }", 4), Teacher::start(answer_all).unwrap());
    let (_, outcome) = run(&folder, &teacher);
    let mut sizes: Vec<usize> = teacher.counts().keys().map(|prompt| questions(prompt).len()).collect();
    sizes.sort_unstable();
    println!("10 calls about {sizes:?} rows");
    assert_eq!(teacher.requests(), 10, "{outcome}");
    // No more rows are leased than calls are left, so that the last calls are smaller.
    let answered = ledger(&folder, &teacher).len();
    assert!((40..=80).contains(&answered), "{answered}: {sizes:?}");
}

/// Processes that are killed.
const KILLS: u64 = 6;

#[test]
fn kills_take_no_job_over_its_budget_and_lose_no_answer() {
    let mut dice = Dice::new();
    // Every second call leaves a row out, some fail, and each takes a while.
    let paid = std::sync::Arc::new((AtomicU64::new(0), AtomicU64::new(0), Mutex::new(())));
    let counted = std::sync::Arc::clone(&paid);
    let teacher = Teacher::start(move |asked| {
        if asked.before % 7 == 6 {
            counted.0.fetch_add(1, Ordering::SeqCst);
            return Reply::status(500, "{}").after(Duration::from_millis(50));
        }
        let reply = answer_but(asked, |number| asked.before % 2 == 1 && number == 2);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        let usage = |name: &str| body["usage"][name].as_u64().unwrap();
        counted.0.fetch_add(1, Ordering::SeqCst);
        counted.1.fetch_add(usage("prompt_tokens") + 4 * usage("completion_tokens"), Ordering::SeqCst);
        reply.after(Duration::from_millis(120))
    });
    let teacher = teacher.unwrap();
    let folder = folder(64, "rows_per_call = 4\nbudget = { prompts = 20, money_micros = 60000 }", 4);
    for kill in 0..KILLS {
        // The first one leaves time for an answer: with every call in doubt there is nothing that could be lost.
        let after = Duration::from_millis(if kill == 0 { 300 } else { dice.below(200) });
        binary::kill_while_it_asks(folder.path(), &teacher, RUN, after).unwrap();
    }
    let (_, outcome) = run(&folder, &teacher);
    let (calls, micros) = (paid.0.load(Ordering::SeqCst), paid.1.load(Ordering::SeqCst));
    let told = |name: &str| outcome[name].as_u64().unwrap();
    let in_doubt = |name: &str| outcome["in_doubt"][name].as_u64().unwrap();
    println!(
        "{KILLS} kills: the server saw {calls} calls and {micros} micros, {} and {} are spent, {} and {} in doubt",
        told("prompts"),
        told("money_micros"),
        in_doubt("calls"),
        in_doubt("money_micros")
    );
    assert!(calls <= 20 && micros <= 60_000, "{outcome}");
    assert!(told("prompts") + in_doubt("calls") >= calls, "{outcome}");
    assert!(told("money_micros") + in_doubt("money_micros") >= micros, "{outcome}");
    let entries = ledger(&folder, &teacher);
    let rows: std::collections::BTreeSet<u64> = entries.iter().map(|entry| entry.0).collect();
    assert_eq!(rows.len(), entries.len(), "no row is answered twice");
}

#[test]
fn a_plan_counts_calls_about_several_rows() {
    let (folder, teacher) = (folder(24, "rows_per_call = 8", 4), Teacher::start(answer_all).unwrap());
    let said = folder.say(teacher.url(), &["plan", "spec.toml", "--json", "--config", "short.toml"]).unwrap();
    let planned = said.json().unwrap();
    let stage = &planned["stages"][0];
    assert_eq!((&stage["prompts"], &stage["expected"]["calls"]), (&24.into(), &3.into()), "{planned}");
    // Two calls for each row, and the three that may bring nothing.
    assert_eq!(stage["at_most"]["calls"], 51, "{planned}");
    let (_, outcome) = run(&folder, &teacher);
    let number = |value: &Value| value.as_u64().unwrap() as f64;
    let (expected, spent) = (number(&stage["expected"]["money_micros"]), number(&outcome["money_micros"]));
    println!("planned {expected} micros, spent {spent}");
    assert!((0.7..1.4).contains(&(expected / spent)), "planned {expected}, spent {spent}");
}
