//! Telemetry of a job: one trace from submit to a served answer over all processes; the metrics of every role, which are
//! exactly those of the table; and trace ids in the log.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::telemetry::{self, Kind, METRICS, Metric, Owner, span};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tests::binary;
use tests::cluster::{done, wait_for};
use tests::collector::{Collector, Span, tree};
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::postgres::Postgres;
use tests::redis::Redis;
use tests::scrape::{self, Family};
use tests::service::Service;
use tests::teacher::Teacher;

const LIMIT: Duration = Duration::from_secs(120);
const ROWS: [usize; 3] = [24, 6, 6];
const TRAINING: &str = "steps = 20\nbatch_examples = 8\ncheckpoint_every_steps = 10\nevaluate_every_steps = 10\n\
                        target_tokens_max = 32";
/// The trace of the script that submits the job and calls predict.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SCRIPT: &str = "00f067aa0ba902b7";

/// A service and its admin port.
struct Watched {
    service: Service,
    admin: SocketAddr,
}

/// A cluster whose spans go to one collector.
struct Cluster {
    folder: Folder,
    teacher: Teacher,
    collector: Collector,
    _postgres: Postgres,
    _redis: Redis,
}

impl Cluster {
    fn new() -> Self {
        let folder =
            Folder::with_problems(ROWS, &SpecText { training: TRAINING, ..SpecText::default() }).unwrap();
        let teacher = Teacher::start(|asked| teach(&asked.prompt).after(Duration::from_millis(10))).unwrap();
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let collector = Collector::start().unwrap();
        let config = format!(
            "[database]\nurl = \"{}\"\nconnections_max = 8\n[redis]\nurl = \"{}\"\n[checkpoints]\n\
             root = \"shared\"\n[log]\nlevel = \"info\"\nformat = \"json\"\n[teachers.local]\n\
             concurrency_max = 4\nprice_in_per_million = 2.0\n",
            postgres.url(),
            redis.url(),
        );
        folder.write("cluster.toml", config).unwrap();
        let cluster = Self { folder, teacher, collector, _postgres: postgres, _redis: redis };
        done(cluster.say("", &["migrate", "--config", "cluster.toml"], &[]));
        cluster
    }

    fn start(&self, role: &str, harvester: &str) -> Watched {
        let admin = scrape::free_address().unwrap();
        let service = Service::start(
            self.folder.path(),
            role,
            &[
                ("DISTILLERY_CONFIG", "cluster.toml"),
                ("DISTILLERY_TEACHER_URL", self.teacher.url()),
                ("DISTILLERY_CLIENT_HARVESTER_URL", harvester),
                ("DISTILLERY_TELEMETRY_OTLP_ENDPOINT", self.collector.url()),
                ("DISTILLERY_ADMIN_LISTEN", &admin.to_string()),
            ],
        );
        Watched { service: service.unwrap(), admin }
    }

    fn say(&self, url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", url).envs(settings.iter().copied());
        binary::output(command).unwrap().into()
    }

    /// A command of the script, with its trace.
    fn say_traced(&self, url: &str, arguments: &[&str]) -> Said {
        let traceparent = format!("00-{TRACE}-{SCRIPT}-01");
        let settings = [
            ("TRACEPARENT", traceparent.as_str()),
            ("DISTILLERY_TELEMETRY_OTLP_ENDPOINT", self.collector.url()),
        ];
        done(self.say(url, arguments, &settings))
    }

    fn log(&self, role: &str) -> String {
        std::fs::read_to_string(self.folder.join(&format!("{role}.log"))).unwrap()
    }
}

#[test]
fn a_job_is_seen_from_its_submit_to_a_served_answer() {
    let cluster = Cluster::new();
    let harvester = cluster.start("harvester", "http://127.0.0.1:9");
    let url = harvester.service.url();
    let trainer = cluster.start("trainer", url);
    let inference = cluster.start("inference", url);
    cluster.say_traced(url, &["submit", "spec.toml", "--json"]);
    done(cluster.say(url, &["watch", "job", "--json"], &[]));
    check_health(&cluster, inference.service.url());
    let asked = ["predict", "--model", "job", "--file", "test.jsonl", "--explain", "--json"];
    let answers = cluster.say_traced(inference.service.url(), &asked);
    assert_eq!(answers.out.lines().count(), ROWS[2]);

    let roles = [
        ("harvester", Owner::Harvester, &harvester),
        ("trainer", Owner::Trainer, &trainer),
        ("inference", Owner::Inference, &inference),
    ];
    for (role, owner, watched) in roles {
        let families = scraped(watched.admin);
        check_table(role, owner, &families);
        check_work(owner, &families);
    }
    for watched in [inference, trainer, harvester] {
        assert_eq!(watched.service.stop(LIMIT).unwrap(), 0);
        // It does not answer any more.
        assert!(scrape::get(watched.admin, "/healthz").is_err());
    }
    check_trace(&cluster);
    check_logs(&cluster);
}

/// The messages and exit codes of the probe.
fn check_health(cluster: &Cluster, url: &str) {
    let probe = |arguments: &[&str]| cluster.say(url, &[&["health"], arguments].concat(), &[]);
    let served = || (probe(&["--service", "distillery.v1.InferenceService/job"]).code == 0).then_some(());
    wait_for("the model is served", served);
    let said = done(probe(&[]));
    assert!(said.out.contains(": serving"), "{}", said.out);
    let json = done(probe(&["--json"])).json().unwrap();
    assert_eq!((json["state"].as_str(), json["service"].as_str()), (Some("serving"), Some("")));
    let unknown = probe(&["--service", "distillery.v1.RunsService"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("there is no service `distillery.v1.RunsService`"), "{}", unknown.err);
    assert_eq!(cluster.say("http://127.0.0.1:9", &["health"], &[]).code, 1, "nobody is there");
}

fn scraped(admin: SocketAddr) -> BTreeMap<String, Family> {
    let (status, text) = scrape::get(admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    scrape::parse(&text).unwrap()
}

/// Checks that the role exports exactly its metrics of the table.
fn check_table(role: &str, owner: Owner, families: &BTreeMap<String, Family>) {
    let is_of_role = |metric: &&Metric| metric.owner == Owner::Process || metric.owner == owner;
    let wanted: BTreeSet<&str> = METRICS.iter().filter(is_of_role).map(|metric| metric.name).collect();
    let found: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    let missing: Vec<&&str> = wanted.difference(&found).collect();
    let unknown: Vec<&&str> = found.difference(&wanted).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{role}: missing {missing:?}, not in the table {unknown:?}"
    );
    println!("{role}: {} metrics", found.len());
    for metric in METRICS.iter().filter(is_of_role) {
        let family = &families[metric.name];
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!((family.kind.as_str(), family.help.as_str()), (kind, metric.help), "{}", metric.name);
        assert!(!family.series.is_empty(), "{role}: {} has no series", metric.name);
        for series in &family.series {
            let labels: BTreeSet<&str> =
                series.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert_eq!(labels, metric.labels.iter().copied().collect(), "{}", series.name);
        }
        check_bounds(metric, family);
        println!("  {} {} ({} series)", metric.name, family.sum(), family.series.len());
    }
}

fn check_bounds(metric: &Metric, family: &Family) {
    let Kind::Histogram(bounds) = metric.kind else { return };
    let mut found: Vec<f64> = family
        .series
        .iter()
        .filter(|series| series.name.ends_with("_bucket"))
        .map(|series| series.labels["le"].parse::<f64>().unwrap())
        .collect();
    found.sort_by(f64::total_cmp);
    found.dedup();
    let wanted: Vec<f64> = bounds.iter().copied().chain([f64::INFINITY]).collect();
    assert_eq!(found, wanted, "{}", metric.name);
}

/// Counts of the job.
fn check_work(owner: Owner, families: &BTreeMap<String, Family>) {
    let value = |metric: Metric, labels: &[(&str, &str)]| -> f64 {
        let fits = |series: &&scrape::Series| {
            let is_sum = !series.name.ends_with("_bucket") && !series.name.ends_with("_sum");
            is_sum && labels.iter().all(|(name, value)| series.labels[*name] == *value)
        };
        families[metric.name].series.iter().filter(fits).map(|series| series.value).sum()
    };
    let prompts = (ROWS[0] + ROWS[2]) as f64;
    assert_eq!(value(telemetry::BUILD_INFO, &[]), 1.0);
    assert!(value(telemetry::PROCESS_CPU, &[]) > 0.0 && value(telemetry::PROCESS_MEMORY, &[]) > 1e6);
    match owner {
        Owner::Harvester => {
            assert_eq!(
                value(telemetry::TEACHER_REQUESTS, &[("profile", "local"), ("outcome", "ok")]),
                prompts
            );
            assert_eq!(value(telemetry::TEACHER_REQUESTS, &[("outcome", "malformed")]), 0.0);
            assert_eq!(value(telemetry::TEACHER_DURATION, &[]), prompts);
            assert_eq!(value(telemetry::TEACHER_IN_FLIGHT, &[]), 0.0);
            assert_eq!(value(telemetry::TEACHER_TOKENS, &[("direction", "in")]), 100.0 * prompts);
            assert_eq!(value(telemetry::TEACHER_COST, &[]), 200.0 * prompts);
            assert_eq!(value(telemetry::PROMPTS_HARVESTED, &[("cached", "false")]), prompts);
            assert!(value(telemetry::QUEUE_PUBLISHED, &[("by", "relay")]) >= prompts);
            assert!(value(telemetry::HARVEST_WRITE_ROWS, &[]) >= 1.0);
            let submit = [("method", "SubmitDistillation"), ("code", "OK")];
            assert_eq!(value(telemetry::RPC_REQUESTS, &submit), 1.0);
            assert_eq!(value(telemetry::RPC_REQUESTS, &[("method", "DeleteDataset")]), 0.0);
        }
        Owner::Trainer => {
            assert_eq!(value(telemetry::TRAINING_STEPS, &[]), 20.0);
            assert_eq!(value(telemetry::TRAINING_STEP_DURATION, &[]), 20.0);
            assert_eq!(value(telemetry::TRAINING_RUNS, &[("outcome", "succeeded")]), 1.0);
            assert_eq!(value(telemetry::TRAINING_RUNS, &[("outcome", "failed")]), 0.0);
            assert_eq!(value(telemetry::CHECKPOINT_DURATION, &[("kind", "model")]), 1.0);
            assert_eq!(value(telemetry::CHECKPOINT_DURATION, &[("kind", "resume")]), 2.0);
            assert_eq!(value(telemetry::TRAINING_ACTIVE, &[]), 0.0);
            assert!(value(telemetry::TRAINING_LOSS, &[("task", "label")]) > 0.0);
        }
        Owner::Inference => {
            let rows = ROWS[2] as f64;
            assert_eq!(
                value(telemetry::INFERENCE_REQUESTS, &[("outcome", "ok")]),
                2.0 * rows,
                "labels and texts"
            );
            assert_eq!(value(telemetry::INFERENCE_DURATION, &[]), 2.0 * rows);
            assert_eq!(value(telemetry::INFERENCE_QUEUE_DURATION, &[]), 2.0 * rows);
            assert_eq!(value(telemetry::INFERENCE_MODELS, &[]), 1.0);
            assert_eq!(value(telemetry::INFERENCE_LOADS, &[("outcome", "ok")]), 1.0);
            assert_eq!(value(telemetry::INFERENCE_QUEUE_TOKENS, &[]), 0.0);
            assert!(value(telemetry::INFERENCE_TOKENS, &[("direction", "in")]) > rows);
            assert_eq!(
                value(telemetry::RPC_REQUESTS, &[("method", "PredictAndExplain"), ("code", "OK")]),
                rows
            );
        }
        Owner::Process => {}
    }
}

/// Checks that every span of the table is in the script's trace below an existing span, and that none contains a prompt.
fn check_trace(cluster: &Cluster) {
    let all = cluster.collector.spans();
    let spans: Vec<Span> = all.iter().filter(|span| span.trace == TRACE).cloned().collect();
    println!("{}", tree(&spans));
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, span::SPANS.iter().copied().collect(), "in the trace, and in the table");
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "an id stands twice");
    for span in &spans {
        let is_root = span.parent == SCRIPT;
        assert_eq!(is_root, span.name == span::COMMAND, "{span:?}");
        assert!(is_root || ids.contains(span.parent.as_str()), "its parent is nowhere: {span:?}");
    }
    let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert_eq!(count(span::HARVEST), ROWS[0] + ROWS[2]);
    assert_eq!(count(span::CHAT), ROWS[0] + ROWS[2]);
    assert_eq!((count(span::COMMAND), count(span::PLAN), count(span::RUN), count(span::LOAD)), (2, 1, 1, 1));
    assert_eq!(count(span::CHECKPOINT), 3);
    assert_eq!(count(span::ANSWER), 2 * ROWS[2]);
    let by_id = |id: &str| spans.iter().find(|span| span.id == id).unwrap();
    let below = |name: &str, parent: &str| {
        for span in spans.iter().filter(|span| span.name == name) {
            assert_eq!(by_id(&span.parent).name, parent, "{span:?}");
        }
    };
    below(span::CHAT, span::HARVEST);
    below(span::WRITE, span::HARVEST);
    below(span::HARVEST, span::SERVER);
    below(span::RUN, span::SERVER);
    below(span::CHECKPOINT, span::RUN);
    below(span::LOAD, span::SERVER);
    below(span::ANSWER, span::SERVER);
    let submit = spans.iter().find(|span| {
        span.name == span::SERVER
            && span.attributes.get("rpc.method").is_some_and(|method| method == "SubmitDistillation")
    });
    let submit = submit.unwrap();
    for answer in spans.iter().filter(|span| span.name == span::ANSWER) {
        assert_eq!(answer.links, [(TRACE.to_owned(), submit.id.clone())], "the model's own trace");
    }
    check_attributes(cluster, &spans);
    check_teacher(cluster, &spans);
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let wanted = ["distillery-cli", "distillery-harvester", "distillery-inference", "distillery-trainer"];
    assert_eq!(services, wanted.into());
    // Polling starts no traces: the others are of commands without a trace.
    let strays = all.iter().filter(|span| span.trace != TRACE).filter(|span| {
        span.attributes.get("rpc.method").is_some_and(|method| method == "LeaseRun" || method == "Check")
    });
    assert_eq!(strays.count(), 0);
}

fn check_attributes(cluster: &Cluster, spans: &[Span]) {
    let rows = std::fs::read_to_string(cluster.folder.join("test.jsonl")).unwrap();
    assert!(rows.contains("pens"), "every row speaks of pens");
    for span in spans {
        assert!(!span.is_error, "{span:?}");
        let said = span.attributes.values().chain(&span.events).find(|text| text.contains("pens"));
        assert_eq!(said, None, "{} tells what was asked", span.name);
        let has = |key: &str| {
            assert!(span.attributes.get(key).is_some_and(|text| !text.is_empty()), "{key}: {span:?}");
        };
        match span.name.as_str() {
            span::CLIENT | span::SERVER => {
                ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"]
                    .iter()
                    .for_each(|key| has(key));
            }
            span::CHAT => {
                has("gen_ai.provider.name");
                has("gen_ai.request.model");
                assert_eq!(span.attributes["gen_ai.usage.input_tokens"], "100");
            }
            span::HARVEST => has("distillery.prompt"),
            span::PLAN => has("distillery.job"),
            span::RUN => {
                has("distillery.job");
                has("distillery.run");
                assert_eq!(span.attributes["distillery.outcome"], "succeeded");
            }
            span::LOAD | span::ANSWER => has("distillery.model"),
            _ => {}
        }
    }
}

/// Checks that every call to the teacher's server had its own span.
fn check_teacher(cluster: &Cluster, spans: &[Span]) {
    let chats: BTreeSet<String> =
        spans.iter().filter(|span| span.name == span::CHAT).map(|span| span.id.clone()).collect();
    let heard: BTreeSet<String> = cluster
        .teacher
        .traceparents()
        .iter()
        .map(|text| text.strip_prefix(&format!("00-{TRACE}-")).unwrap_or_else(|| panic!("{text:?}")))
        .map(|rest| rest.trim_end_matches("-01").to_owned())
        .collect();
    assert_eq!(heard, chats);
}

/// Checks that log lines of the job have its trace and span.
fn check_logs(cluster: &Cluster) {
    let spans = cluster.collector.spans();
    for (role, words) in [("trainer", "published"), ("inference", "serving")] {
        let log = cluster.log(role);
        let lines: Vec<Value> = log
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{role} logs no JSON: {line:?}"))
            })
            .collect();
        let line = lines.iter().find(|line| line["fields"]["message"] == words);
        let line = line.unwrap_or_else(|| panic!("{role} does not say that it is {words}: {log}"));
        assert_eq!(line["trace_id"], TRACE, "{line}");
        let span = spans.iter().find(|span| line["span_id"] == span.id.as_str());
        assert!(span.is_some_and(|span| span.trace == TRACE), "{line}");
    }
}
