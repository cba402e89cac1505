//! `distillery bench-serve` against a server: what it counts is what the server counts; a new version comes in while it asks; a
//! server that is asked for twice what it can do refuses the rest quickly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tests::binary;
use tests::cluster::{done, wait_for};
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::scrape;
use tests::service::Service;
use tests::teacher::Teacher;

const LIMIT: Duration = Duration::from_secs(90);
const ROWS: [usize; 3] = [24, 6, 6];

/// A server of one student, `job@1`.
struct Served {
    service: Service,
    admin: SocketAddr,
    folder: Folder,
    _teacher: Teacher,
}

impl Served {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = Folder::with_problems(ROWS, &SpecText::default()).unwrap();
        let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
        done(folder.say(teacher.url(), &["run", "spec.toml"]).unwrap());
        let admin = scrape::free_address().unwrap();
        let address = admin.to_string();
        let mut all =
            vec![("DISTILLERY_TEACHER_URL", teacher.url()), ("DISTILLERY_ADMIN_LISTEN", address.as_str())];
        // The same rows come again and again: what is measured is computed.
        all.push(("DISTILLERY_INFERENCE_CACHE_BYTES_MAX", "0"));
        all.extend(settings);
        let service = Service::start(folder.path(), "all", &all).unwrap();
        let served = Self { service, admin, folder, _teacher: teacher };
        wait_for("the student is served", || {
            let asked = served.say(&["predict", "--model", "job", "--input", "1 + 2"]);
            (asked.code == 0).then_some(())
        });
        served
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", self.service.url());
        command
    }

    fn say(&self, arguments: &[&str]) -> Said {
        binary::output(self.command(arguments)).unwrap().into()
    }

    /// What a load came to, at each of its rates.
    fn loads(&self, arguments: &[&str]) -> Vec<Value> {
        let said = done(self.say(&[&["bench-serve", "--file", "test.jsonl", "--json"], arguments].concat()));
        said.json().unwrap()["rates"].as_array().unwrap().clone()
    }

    /// The same at its only rate.
    fn load(&self, arguments: &[&str]) -> Value {
        self.loads(arguments).remove(0)
    }

    /// Questions that the server answered so far, by how they ended.
    fn requests(&self, outcome: &str) -> u64 {
        let (status, text) = scrape::get(self.admin, "/metrics").unwrap();
        assert_eq!(status, 200);
        let families = scrape::parse(&text).unwrap();
        let series = families["distillery_inference_requests_total"].series.iter();
        let of = series.filter(|series| series.labels["outcome"] == outcome);
        of.map(|series| series.value).sum::<f64>() as u64
    }
}

fn count(rate: &Value, name: &str) -> u64 {
    rate[name].as_u64().unwrap_or_else(|| panic!("{name} in {rate}"))
}

#[test]
fn a_load_counts_what_the_server_counts() {
    let served = Served::start(&[]);
    let before = served.requests("ok");
    let mix = ["--mix", "predict=60,explain=30,generate=10", "--rate", "40", "--seconds", "4", "--seed", "7"];
    let rate = served.load(&mix);
    let answered = count(&rate, "answered");
    assert!((120..=200).contains(&answered), "{rate}");
    assert_eq!((count(&rate, "due"), count(&rate, "failed"), count(&rate, "refused")), (answered, 0, 0));
    assert_eq!(served.requests("ok") - before, answered);
    // Each answer names who gave it, those that are streamed too.
    assert_eq!((&rate["versions"]["job@1"], count(&rate, "unnamed")), (&answered.into(), 0), "{rate}");
    let of = |task: &str| count(&rate["tasks"][task], "answered");
    assert_eq!(of("predict") + of("explain") + of("generate"), answered);
    assert!(of("predict") > of("explain") && of("explain") > of("generate"), "{rate}");
    assert!(rate["tasks"]["explain"]["first_piece_ms"]["p50"].as_f64().unwrap() > 0.0, "{rate}");
    assert!(rate["tasks"]["predict"]["first_piece_ms"].is_null(), "{rate}");
    let [p50, p99, max] = ["p50", "p99", "max"].map(|name| rate["latency_ms"][name].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{rate}");

    // The same seed is the same load, of which some callers leave.
    let (before, left) = (served.requests("ok"), served.requests("cancelled"));
    let cancelled = served.load(&[&mix[..], &["--cancel", "0.5", "--cancel-within", "10"]].concat());
    let (answered_now, dropped) = (count(&cancelled, "answered"), count(&cancelled, "dropped"));
    assert_eq!(count(&cancelled, "due"), answered);
    assert_eq!((answered_now + dropped, count(&cancelled, "failed")), (answered, 0), "{cancelled}");
    assert!(dropped > answered / 5 && answered_now >= answered / 3, "{cancelled}");
    // A caller that leaves may do so before its question is there, or after its answer has left.
    let seen = wait_for("the server has ended them", || {
        let seen = (served.requests("ok") - before, served.requests("cancelled") - left);
        (seen.0 >= answered_now && seen.0 + seen.1 <= answered).then_some(seen)
    });
    assert!(seen.1 > 0, "{seen:?}: nobody was noticed to leave: {cancelled}");
    check_words(&served);
    assert_eq!(served.service.stop(LIMIT).unwrap(), 0);
}

/// What people see, and what is refused before anything is sent.
fn check_words(served: &Served) {
    let seconds = ["bench-serve", "--file", "test.jsonl", "--seconds", "1"];
    let said = done(served.say(&[&seconds[..], &["--rates", "5,10", "--picture", "load.svg"]].concat()));
    for wanted in ["rate/s", "good/s", "1st p99", "answered by job@1: "] {
        assert!(said.out.contains(wanted), "{wanted} is not in:\n{}", said.out);
    }
    let width = said.out.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(width <= 80, "{width}:\n{}", said.out);
    let drawn = std::fs::read_to_string(served.folder.join("load.svg")).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.matches("<circle").count() == 6, "{drawn}");
    // Answers within a microsecond there are none: the first rate is not held.
    let knee = done(served.say(&[&seconds[..], &["--knee", "--p99", "1", "--mix", "explain=1"]].concat()));
    assert!(knee.out.contains("knee: not even the first rate was held"), "{}", knee.out);
    let late = served.load(&["--seconds", "1", "--mix", "explain=1", "--deadline", "1"]);
    assert!(count(&late, "deadline_exceeded") > 0 && count(&late, "failed") == 0, "{late}");
    let check = |url: &str, arguments: &[&str], code: i32, wanted: &str| {
        let mut command = served.command(&[&["bench-serve"], arguments].concat());
        command.env("DISTILLERY_SERVER", url);
        let said = Said::from(binary::output(command).unwrap());
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(wanted), "{arguments:?}: {}", said.err);
    };
    let url = served.service.url();
    served.folder.write("empty.jsonl", "").unwrap();
    check("", &["--file", "test.jsonl"], 2, "--server: name an inference service");
    check("http://127.0.0.1:9", &["--file", "test.jsonl"], 1, "is `distillery serve` running there?");
    check(url, &["--file", "empty.jsonl"], 2, "must hold at least one row");
    check(url, &["--file", "absent.jsonl"], 2, "absent.jsonl");
    check(url, &["--file", "test.jsonl", "--mix", "cook=1"], 2, "write tasks with their weights");
    check(url, &["--file", "test.jsonl", "--rate", "1", "--knee"], 2, "cannot be used with");
    let absent = ["--file", "test.jsonl", "--model", "other", "--rate", "20", "--seconds", "1"];
    check(url, &absent, 1, "no call was answered: NOT_FOUND: there is no model `other`");
}

#[test]
fn a_new_version_comes_in_under_load_and_no_call_fails() {
    let served = Served::start(&[]);
    let mut load = served.command(&["bench-serve", "--file", "test.jsonl", "--json", "--model", "job"]);
    load.args(["--rate", "20", "--seconds", "15", "--mix", "predict=70,explain=30"]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Some answers of the old version come first.
    std::thread::sleep(Duration::from_secs(2));
    let another =
        SpecText { training: "steps = 6\nbatch_examples = 8\ntarget_tokens_max = 32", ..SpecText::default() };
    served.folder.write("another.toml", another.to_string()).unwrap();
    let submitted = done(served.say(&["submit", "another.toml", "--watch", "--json"])).json().unwrap();
    assert_eq!(submitted["model"], "job@2");
    let said = done(Said::from(binary::finish(load).unwrap()));
    let rate = &said.json().unwrap()["rates"][0];
    let answered = count(rate, "answered");
    assert_eq!(
        (count(rate, "due"), count(rate, "failed"), count(rate, "refused")),
        (answered, 0, 0),
        "{rate}"
    );
    let versions = [count(&rate["versions"], "job@1"), count(&rate["versions"], "job@2")];
    assert!(versions.iter().all(|answers| *answers > 10), "{rate}");
    assert_eq!((versions.iter().sum::<u64>(), count(rate, "unnamed")), (answered, 0), "{rate}");
    assert_eq!(served.service.stop(LIMIT).unwrap(), 0);
}

#[test]
fn twice_the_capacity_is_refused_quickly_and_told() {
    let served = Served::start(&[("DISTILLERY_INFERENCE_QUEUE_TOKENS_MAX", "512")]);
    let ask = ["--mix", "predict=70,explain=30", "--arrivals", "constant", "--seconds", "3"];
    // A server that is flooded answers less than it can: the capacity is the most that it answers at any rate.
    let rates = served.loads(&[&ask[..], &["--rates", "100,200,400,800"]].concat());
    let goodput = |rate: &Value| rate["goodput"].as_f64().unwrap();
    let capacity = rates.iter().map(goodput).fold(0.0, f64::max);
    assert!(capacity > 1.0, "{rates:?}");
    let twice = (2.0 * capacity).to_string();
    let over = served.load(&[&ask[..], &["--rate", &twice]].concat());
    assert_eq!((count(&over, "failed"), count(&over, "not_sent")), (0, 0), "{over}");
    assert_eq!(count(&over, "answered") + count(&over, "refused"), count(&over, "due"), "{over}");
    assert!(count(&over, "refused") > count(&over, "due") / 10, "{over}");
    // Who is refused knows at once; who is admitted is answered while the queue is full.
    let [refused, answered] = ["refused_ms", "latency_ms"].map(|name| over[name]["p50"].as_f64().unwrap());
    assert!(refused < 100.0 && refused < answered, "{over}");
    assert!(over["refusal"].as_str().unwrap().contains("tokens already"), "{over}");
    // Afterwards it is as good as before.
    let quiet = served.load(&["--rate", "5", "--seconds", "2"]);
    assert_eq!(count(&quiet, "answered"), count(&quiet, "due"), "{quiet}");
    assert_eq!(served.service.stop(LIMIT).unwrap(), 0);
}
