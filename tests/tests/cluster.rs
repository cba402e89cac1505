//! The services as a cluster: processes that share PostgreSQL, Redis and a folder of checkpoints, any of which may be gone
//! at any instant. Whatever happens, a job ends as it does on one machine that nobody disturbs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tests::binary;
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::postgres::Postgres;
use tests::redis::Redis;
use tests::service::Service;
use tests::teacher::Teacher;

const LIMIT: Duration = Duration::from_secs(120);
/// Calls in flight at once in one process: the tests' own setting, whatever the default is.
const CONCURRENCY: usize = 4;
/// Answers that one harvester can lose: those it asks for, and as many that are answered and not committed yet.
const LOST_MAX: usize = 2 * CONCURRENCY;
const HARVESTERS: usize = 2;
/// Short, so that what a killed process held is free again soon.
const LEASE_SECONDS: usize = 2;
const FILES: [&str; 5] =
    ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "distillery.json"];

/// What a job works on.
#[derive(Clone, Copy)]
struct Work {
    rows: [usize; 3],
    steps: usize,
    /// How long the teacher thinks.
    delay: Duration,
}

impl Work {
    const SMALL: Self = Self { rows: [24, 6, 6], steps: 30, delay: Duration::from_millis(50) };

    /// Train rows for their rationales, test rows to measure the teacher.
    fn prompts(self) -> usize {
        self.rows[0] + self.rows[2]
    }

    fn folder(self) -> Folder {
        let training = format!(
            "steps = {}\nbatch_examples = 8\ncheckpoint_every_steps = 5\nevaluate_every_steps = {}\n\
             target_tokens_max = 32",
            self.steps,
            self.steps / 2
        );
        Folder::with_problems(self.rows, &SpecText { training: &training, ..SpecText::default() }).unwrap()
    }

    fn teacher(self) -> Teacher {
        Teacher::start(move |asked| teach(&asked.prompt).after(self.delay)).unwrap()
    }

    /// The end of the job on one machine, over SQLite, that nobody disturbs.
    fn on_one_machine(self) -> End {
        let (folder, teacher) = (self.folder(), self.teacher());
        folder.write("distillery.toml", teachers()).unwrap();
        done(folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap());
        assert_eq!(teacher.requests(), self.prompts());
        let ledger = done(folder.say(teacher.url(), &["ledger", "job", "--json"]).unwrap());
        End { ledger: entries(&ledger), student: student(&folder.join(".distillery/checkpoints")) }
    }
}

fn teachers() -> String {
    format!("[teachers.local]\nconcurrency_max = {CONCURRENCY}\n")
}

/// How a job ends: the ledger by row, and the sha256 of the student's files.
#[derive(Debug, PartialEq)]
struct End {
    ledger: BTreeMap<String, Value>,
    student: BTreeMap<&'static str, String>,
}

/// The ledger by what was asked. No question is there twice, and each has its verdict.
fn entries(said: &Said) -> BTreeMap<String, Value> {
    let lines = lines(said);
    let count = lines.len();
    let by_row: BTreeMap<String, Value> = lines
        .into_iter()
        .map(|mut entry| {
            // A number of the database's own.
            entry.as_object_mut().unwrap().remove("prompt");
            assert_ne!(entry["verdict"], "unjudged", "{entry}");
            let key = ["row", "sample", "hinted", "evaluates"].map(|name| entry[name].to_string());
            (key.join(" "), entry)
        })
        .collect();
    assert_eq!(by_row.len(), count, "a question is in the ledger twice");
    by_row
}

/// The student in a store of checkpoints. A trainer that was killed may have left it, too: then in the same bytes.
fn student(store: &Path) -> BTreeMap<&'static str, String> {
    let students = students(store);
    let mut ends: Vec<_> = students
        .iter()
        .map(|student| {
            let sha256 = |name: &&str| hex::encode(Sha256::digest(std::fs::read(student.join(name)).unwrap()));
            FILES.iter().map(|name| (*name, sha256(name))).collect::<BTreeMap<_, _>>()
        })
        .collect();
    ends.dedup();
    assert_eq!(ends.len(), 1, "{students:?}");
    ends.remove(0)
}

/// The folders of whole students.
fn students(store: &Path) -> Vec<PathBuf> {
    let list =
        |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    list(store.join("runs"))
        .flat_map(list)
        .flat_map(list)
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with("-model")))
        .collect()
}

fn lines(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    said
}

/// Every event once, in order: snapshots have no number.
fn check_order(events: &[Value]) {
    let numbers: Vec<u64> =
        events.iter().map(|event| event["sequence"].as_u64().unwrap()).filter(|number| *number > 0).collect();
    let wanted: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, wanted);
}

/// Waits until `reached`, at most as long as everything in these tests may take.
fn wait_for<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Some(value) = reached() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within {LIMIT:?}");
}

/// One cluster at a time: together they would be slower, and no more certain.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the services have in common. Services that tests start come before it, so that they end before it.
struct Cluster {
    work: Work,
    folder: Folder,
    teacher: Teacher,
    postgres: Postgres,
    redis: Redis,
}

impl Cluster {
    fn new(work: Work) -> Self {
        let (folder, teacher) = (work.folder(), work.teacher());
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let config = format!(
            "[database]\nurl = \"{}\"\nconnections_max = 8\n[redis]\nurl = \"{}\"\n[checkpoints]\nroot = \"shared\"\n\
             [harvester]\nlease_seconds = {LEASE_SECONDS}\n[trainer]\nlease_seconds = {LEASE_SECONDS}\n{}",
            postgres.url(),
            redis.url(),
            teachers()
        );
        folder.write("cluster.toml", config).unwrap();
        let cluster = Self { work, folder, teacher, postgres, redis };
        done(cluster.say("", &["migrate", "--config", "cluster.toml"]));
        cluster
    }

    /// A service at this address. A trainer and an inference service call the harvester at `harvester`.
    fn try_start(&self, role: &str, listen: &str, harvester: &str) -> anyhow::Result<Service> {
        let settings = [
            ("DISTILLERY_CONFIG", "cluster.toml"),
            ("DISTILLERY_SERVER_LISTEN", listen),
            ("DISTILLERY_TEACHER_URL", self.teacher.url()),
            ("DISTILLERY_CLIENT_HARVESTER_URL", harvester),
        ];
        Service::start(self.folder.path(), role, &settings)
    }

    fn start(&self, role: &str, harvester: &str) -> Service {
        self.try_start(role, "127.0.0.1:0", harvester).unwrap()
    }

    fn harvesters(&self) -> Vec<Service> {
        (0..HARVESTERS).map(|_| self.start("harvester", "http://127.0.0.1:9")).collect()
    }

    fn say(&self, url: &str, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", url);
        binary::output(command).unwrap().into()
    }

    fn submit(&self, url: &str) {
        done(self.say(url, &["submit", "spec.toml", "--json"]));
    }

    /// The job's state, where anybody answers at `url`.
    fn state(&self, url: &str) -> Option<String> {
        let said = self.say(url, &["show", "job", "--json"]);
        (said.code == 0).then(|| said.json().unwrap()["state"].as_str().unwrap().to_owned())
    }

    /// Follows the job to its end; every event is told once and in order.
    fn watch(&self, url: &str) -> Vec<Value> {
        let events = lines(&done(self.say(url, &["watch", "job", "--json"])));
        check_order(&events);
        assert!(events.iter().any(|event| event["to"] == "succeeded"), "{:?}", events.last());
        events
    }

    fn end(&self, url: &str) -> End {
        let models = done(self.say(url, &["models", "--json"])).json().unwrap();
        let models: Vec<&Value> =
            models["models"].as_array().unwrap().iter().map(|model| &model["model"]).collect();
        assert_eq!(models, ["job@1"]);
        let ledger = entries(&done(self.say(url, &["ledger", "job", "--json"])));
        End { ledger, student: student(&self.folder.join("shared")) }
    }

    /// The service at `url` answers as the student does from its folder.
    fn check_predictions(&self, url: &str) {
        let ask = |url: &str, model: &str| {
            let said = self.say(url, &["predict", "--model", model, "--file", "test.jsonl", "--json"]);
            (said.code == 0).then(|| lines(&said))
        };
        // A model is served a moment after it is published.
        let answers = wait_for("the model is served", || ask(url, "job"));
        assert_eq!(answers.len(), self.work.rows[2]);
        let folder = students(&self.folder.join("shared")).remove(0);
        assert_eq!(ask("", folder.to_str().unwrap()), Some(answers));
    }

    /// Calls beyond one for each prompt.
    fn paid_twice(&self) -> usize {
        assert_eq!(self.teacher.counts().len(), self.work.prompts());
        self.teacher.requests() - self.work.prompts()
    }
}

#[test]
fn a_job_on_a_cluster_ends_as_on_one_machine() {
    let _alone = alone();
    let undisturbed = Work::SMALL.on_one_machine();
    let cluster = Cluster::new(Work::SMALL);
    let harvesters = cluster.harvesters();
    let trainer = cluster.start("trainer", harvesters[0].url());
    let inference = cluster.start("inference", harvesters[1].url());
    cluster.submit(harvesters[0].url());
    cluster.watch(harvesters[1].url());
    // Every replica answers for all.
    for harvester in &harvesters {
        assert_eq!(cluster.end(harvester.url()), undisturbed);
    }
    assert_eq!(cluster.paid_twice(), 0);
    cluster.check_predictions(inference.url());
    for service in [trainer, inference].into_iter().chain(harvesters) {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}

/// Whether a trainer is `step` steps into its run, with a resume state behind it.
fn is_at(events: &[Value], step: u64) -> bool {
    events.iter().any(|event| event["event"] == "training_progress" && event["step"].as_u64() >= Some(step))
}
