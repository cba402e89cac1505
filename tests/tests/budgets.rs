//! Budgets are hard limits: what a job may spend, counted at the teacher's server, through retries, cuts, faults and kills.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tests::binary;
use tests::cluster::{Cluster, NOBODY, Workload, alone, wait_for};
use tests::data::{SpecText, teach};
use tests::dice::Dice;
use tests::folder::Folder;
use tests::teacher::{Reply, Teacher, TeacherRequest};

/// Train rows, and none to measure the teacher.
const ROWS: [usize; 3] = [24, 2, 2];

/// What the server answered, and was paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bill {
    calls: u64,
    tokens: u64,
    micros: u64,
}

/// Prices of a million tokens, in and out.
const PRICES: (u64, u64) = (2, 8);

/// A teacher that counts what it answers, with the usage that its answers name.
fn counting(
    answer: impl Fn(&TeacherRequest) -> Reply + Send + Sync + 'static,
) -> (Teacher, Arc<Mutex<Bill>>) {
    let bill = Arc::new(Mutex::new(Bill::default()));
    let counted = Arc::clone(&bill);
    let teacher = Teacher::start(move |asked| {
        let reply = answer(asked);
        add(&counted, &reply);
        reply
    });
    (teacher.unwrap(), bill)
}

fn add(bill: &Mutex<Bill>, reply: &Reply) {
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let count = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
    let (tokens_in, tokens_out) = (count("prompt_tokens"), count("completion_tokens"));
    let mut bill = bill.lock().unwrap();
    // A refusal (429) is no call.
    bill.calls += u64::from(reply.status != 429);
    bill.tokens += tokens_in + tokens_out;
    bill.micros += tokens_in * PRICES.0 + tokens_out * PRICES.1;
}

/// An answer with this text and usage.
fn answer(text: Option<&str>, finish: &str, usage: (u64, u64)) -> Reply {
    let body = json!({
        "model": "test-teacher",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "reasoning_content": "We add."},
                     "finish_reason": finish}],
        "usage": {"prompt_tokens": usage.0, "completion_tokens": usage.1},
    });
    Reply::status(200, &body.to_string())
}

/// The right answer with a usage.
fn right(asked: &TeacherRequest, usage: (u64, u64)) -> Reply {
    let body: Value = serde_json::from_str(&teach(&asked.prompt).body).unwrap();
    let text = body["choices"][0]["text"].as_str().unwrap().to_owned();
    answer(Some(&text), "stop", usage)
}

/// Runs a job of [`ROWS`] within a budget to its end, whatever that is; returns its outcome and what was said.
fn run_within(budget: &str, concurrency: usize, teacher: &Teacher) -> (Value, String) {
    let folder = folder(budget, concurrency);
    let said = folder.say(teacher.url(), &["run", "spec.toml", "--json", "--config", "short.toml"]).unwrap();
    (said.json().unwrap(), said.err)
}

fn folder(budget: &str, concurrency: usize) -> Folder {
    let teacher = format!("profile = \"local\"\nevaluate = false\nsmoke_rows = 0\nbudget = {{ {budget} }}");
    let spec = SpecText { teacher: &teacher, ..SpecText::default() };
    let folder = Folder::with_problems(ROWS, &spec).unwrap();
    folder
        .write(
            "short.toml",
            format!(
                "[harvester]\noutage_seconds = 1\nlease_seconds = 2\n[teachers.local]\nprovider = \"openai_chat\"\n\
                 concurrency_max = {concurrency}\nprice_in_per_million = {}\nprice_out_per_million = {}\n",
                PRICES.0, PRICES.1
            ),
        )
        .unwrap();
    folder
}

/// What the product says it spent.
fn told(outcome: &Value) -> Bill {
    let number = |name: &str| outcome["teacher"][name].as_u64().unwrap();
    Bill {
        calls: number("prompts"),
        tokens: number("tokens_in") + number("tokens_out"),
        micros: number("money_micros"),
    }
}

/// Runs a job and checks that the server saw no more than the limits, and what the product says.
fn check(
    budget: &str,
    limit: Bill,
    concurrency: usize,
    answer: impl Fn(&TeacherRequest) -> Reply + Send + Sync + 'static,
) -> (Bill, Value, String) {
    let (teacher, bill) = counting(answer);
    let (outcome, err) = run_within(budget, concurrency, &teacher);
    let bill = *bill.lock().unwrap();
    println!("{budget}, {concurrency} at once: the server saw {bill:?}");
    let within = bill.calls <= limit.calls && bill.tokens <= limit.tokens && bill.micros <= limit.micros;
    assert!(within, "{budget}, {concurrency} at once: the server saw {bill:?}: {err}");
    assert_eq!(told(&outcome), bill, "{budget}: what the product says: {outcome} {err}");
    (bill, outcome, err)
}

const NONE: Bill = Bill { calls: u64::MAX, tokens: u64::MAX, micros: u64::MAX };

#[test]
fn money_is_never_overrun() {
    for (limit, concurrency) in [(60_000, 8), (16_161, 16), (8_080, 64)] {
        let budget = format!("money_micros = {limit}");
        let most = Bill { micros: limit, ..NONE };
        // A call costs 1,000 of the 5,000 or so that it may cost.
        let (bill, ..) = check(&budget, most, concurrency, |asked| right(asked, (300, 50)));
        assert!(bill.calls > 0, "some calls fit into {limit}");
    }
}

#[test]
fn money_without_prices_is_refused() {
    let folder = folder("money_micros = 1000", 4);
    folder.write("short.toml", "[teachers.local]\nconcurrency_max = 4\n").unwrap();
    let said = folder.say("http://127.0.0.1:9/v1", &["run", "spec.toml", "--config", "short.toml"]).unwrap();
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("teacher.budget.money_micros") && said.err.contains("price"), "{}", said.err);
}

#[test]
fn answers_without_text_are_counted() {
    let limit = Bill { calls: 3, ..NONE };
    let (bill, outcome, err) = check("prompts = 3", limit, 8, |_| answer(None, "stop", (50, 20)));
    assert_eq!(
        bill,
        Bill { calls: 3, tokens: 210, micros: 3 * (50 * PRICES.0 + 20 * PRICES.1) },
        "{outcome}"
    );
    assert!(err.contains("reasoning_content"), "the message says what there was: {err}");
}

#[test]
fn calls_for_more_room_are_calls() {
    let limit = Bill { calls: 10, ..NONE };
    let (bill, ..) = check("prompts = 10", limit, 4, |_| answer(Some("We count"), "length", (50, 20)));
    assert_eq!(bill.calls, 10, "all of the budget is used");
}

#[test]
fn retries_are_calls() {
    let limit = Bill { calls: 5, ..NONE };
    let (bill, ..) = check("prompts = 5", limit, 2, |asked| match asked.asked_before {
        0..4 => Reply::status(500, "busy"),
        _ => right(asked, (50, 20)),
    });
    assert_eq!(bill.calls, 5, "all of the budget is used");
}

#[test]
fn a_refusal_costs_nothing() {
    let limit = Bill { calls: 5, ..NONE };
    let (bill, outcome, _) = check("prompts = 5", limit, 2, |asked| match asked.before {
        0..2 => Reply::status(429, "slow down").header("retry-after", "0"),
        _ => right(asked, (50, 20)),
    });
    assert_eq!((bill.calls, outcome["teacher"]["skipped"].as_u64()), (5, Some(19)));
}

#[test]
fn tokens_are_never_overrun() {
    // Two bytes a token, and more tokens out than were asked for in text.
    for limit in [3_000, 9_000] {
        let most = Bill { tokens: limit, ..NONE };
        let budget = format!("tokens = {limit}");
        check(&budget, most, 8, |asked| right(asked, (asked.prompt.len() as u64 / 2, 200)));
    }
}

#[test]
fn thoughts_are_counted_where_a_teacher_counts_them_apart() {
    let limit = 6_000;
    let seen = Arc::new(Mutex::new(0_u64));
    let counted = Arc::clone(&seen);
    let teacher = Teacher::start(move |_| {
        *counted.lock().unwrap() += 172;
        let body = json!({
            "candidates": [{"content": {"parts": [{"text": "Hm.", "thought": true}]}, "finishReason": "MAX_TOKENS"}],
            "usageMetadata": {"promptTokenCount": 50, "thoughtsTokenCount": 122},
        });
        Reply::status(200, &body.to_string())
    })
    .unwrap();
    let folder = folder(&format!("tokens = {limit}"), 4);
    folder.write("short.toml", "[teachers.local]\nprovider = \"gemini\"\nconcurrency_max = 4\n").unwrap();
    let arguments = &["run", "spec.toml", "--json", "--config", "short.toml"];
    let said = folder.say(teacher.url(), arguments).unwrap();
    let (seen, told) = (*seen.lock().unwrap(), told(&said.json().unwrap()));
    println!("tokens = {limit}: the server saw {seen}");
    assert!(seen > 0 && seen <= limit && told.tokens == seen, "{seen} {told:?} {}", said.err);
}

/// Kills of one process.
const KILLS: usize = 4;

#[test]
fn kills_take_no_job_over_its_budget() {
    let mut dice = Dice::new();
    let (teacher, bill) = counting(|asked| right(asked, (50, 20)).after(Duration::from_millis(150)));
    let folder = folder("prompts = 10", 4);
    let arguments = &["run", "spec.toml", "--json", "--config", "short.toml"];
    for _kill in 0..KILLS {
        let after = Duration::from_millis(dice.below(150));
        binary::kill_while_it_asks(folder.path(), &teacher, arguments, after).unwrap();
    }
    let said = folder.say(teacher.url(), arguments).unwrap();
    let outcome = said.json().unwrap();
    let (bill, told) = (*bill.lock().unwrap(), told(&outcome));
    let in_doubt = outcome["teacher"]["in_doubt"]["calls"].as_u64().unwrap();
    println!(
        "{KILLS} kills of prompts = 10: the server saw {}, {} are spent and {in_doubt} in doubt",
        bill.calls, told.calls
    );
    assert!(bill.calls <= 10, "{bill:?}: {outcome}");
    assert!(told.calls + in_doubt >= bill.calls && told.calls + in_doubt <= 10, "{outcome}");
}

/// The kills of many replicas.
const REPLICAS: usize = 4;
const REPLICA_KILLS: usize = 20;

/// A cluster whose job has this budget, and the bill at its teacher's server.
fn cluster(budget: &str, work: Workload, delay: Duration) -> (Cluster, Arc<Mutex<Bill>>) {
    let bill = Arc::new(Mutex::new(Bill::default()));
    let counted = Arc::clone(&bill);
    let cluster = Cluster::taught_by(work, move |asked| {
        let reply = right(asked, (300, 50)).after(delay);
        add(&counted, &reply);
        reply
    });
    let teacher = format!("profile = \"local\"\nevaluate = false\nsmoke_rows = 0\nbudget = {{ {budget} }}");
    let spec = SpecText { teacher: &teacher, ..SpecText::default() };
    cluster.folder.write("spec.toml", spec.to_string()).unwrap();
    let config = std::fs::read_to_string(cluster.folder.join("cluster.toml")).unwrap();
    let prices = format!(
        "provider = \"openai_chat\"\nprice_in_per_million = {}\nprice_out_per_million = {}\n",
        PRICES.0, PRICES.1
    );
    cluster.folder.write("cluster.toml", config + &prices).unwrap();
    (cluster, bill)
}

fn ended(cluster: &Cluster, url: &str) -> Option<Value> {
    let shown = cluster.shown(url)?;
    (!matches!(shown["state"].as_str(), Some("queued" | "harvesting"))).then_some(shown)
}

#[test]
fn two_harvesters_share_a_budget_in_money() {
    let _alone = alone();
    let work = Workload { rows: [60, 2, 2], concurrency: 8, ..Workload::SMALL };
    let (cluster, bill) = cluster("money_micros = 20000", work, Duration::from_millis(20));
    let services = cluster.harvesters(2);
    let url = services[0].url();
    cluster.submit(url);
    let shown = wait_for("the end of the harvest", || ended(&cluster, url));
    let (bill, spent) = (*bill.lock().unwrap(), shown["harvest"]["money_micros"].as_u64().unwrap());
    println!("two harvesters, money_micros = 20000: the server saw {bill:?}");
    assert!(bill.calls > 0 && bill.micros <= 20_000 && bill.micros == spent, "{bill:?} {shown}");
}

#[test]
fn replicas_that_are_killed_stay_within_a_budget() {
    let _alone = alone();
    let mut dice = Dice::new();
    let work = Workload { rows: [600, 2, 2], concurrency: 4, ..Workload::SMALL };
    let (cluster, bill) = cluster("prompts = 400", work, Duration::from_millis(100));
    let witness = cluster.try_start("harvester", NOBODY, &[("DISTILLERY_HARVESTER_WORKERS", "0")]).unwrap();
    let mut replicas = cluster.harvesters(REPLICAS);
    cluster.submit(witness.url());
    let mut kills = 0;
    while kills < REPLICA_KILLS && ended(&cluster, witness.url()).is_none() {
        std::thread::sleep(Duration::from_millis(dice.below(200)));
        let place = dice.below(REPLICAS as u64) as usize;
        replicas[place].kill().unwrap();
        replicas[place] = cluster.start("harvester", NOBODY);
        kills += 1;
    }
    let shown = wait_for("the end of the harvest", || ended(&cluster, witness.url()));
    let bill = *bill.lock().unwrap();
    let number = |pointer: &str| shown.pointer(pointer).and_then(Value::as_u64).unwrap();
    let (spent, in_doubt) = (number("/harvest/calls"), number("/harvest/in_doubt/calls"));
    println!(
        "{REPLICAS} replicas, {kills} kills, prompts = 400: the server saw {}, {spent} are spent and {in_doubt} in doubt",
        bill.calls
    );
    assert!(bill.calls <= 400, "the server saw {bill:?}: {shown}");
    assert!(spent + in_doubt >= bill.calls && spent + in_doubt <= 400, "{bill:?} {shown}");
}
