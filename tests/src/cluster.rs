//! The services as a cluster: processes that share PostgreSQL, Redis and a folder of checkpoints, any of which may fail at
//! any time; their job, and its undisturbed result on one machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail loudly too"
)]

use crate::binary;
use crate::data::{SpecText, teach};
use crate::folder::{Folder, Said};
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::service::Service;
use crate::teacher::{Reply, Teacher, TeacherRequest};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest time for anything in these tests.
pub const LIMIT: Duration = Duration::from_secs(180);
/// The longest time for a whole job, of which some take minutes on a slow machine; one that takes longer hangs.
const JOB_LIMIT: Duration = Duration::from_secs(600);
/// Short, so that leases of killed processes expire soon.
pub const LEASE_SECONDS: usize = 2;
/// The cluster's processes are killed faster than they come further, by the test and not by what they work at.
const LOST_MAX: usize = 100;
/// An address without a server: a harvester calls no harvester.
pub const NOBODY: &str = "http://127.0.0.1:9";
const FILES: [&str; 5] =
    ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "distillery.json"];

/// The size of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Rows of train, validation and test.
    pub rows: [usize; 3],
    /// Optimiser steps.
    pub steps: usize,
    /// The delay of the teacher.
    pub delay: Duration,
    /// Concurrent calls of one process.
    pub concurrency: usize,
}

impl Workload {
    /// A job of a few seconds.
    pub const SMALL: Self =
        Self { rows: [24, 6, 6], steps: 30, delay: Duration::from_millis(50), concurrency: 4 };

    /// Train rows for rationales, and test rows to measure the teacher.
    pub fn prompts(self) -> usize {
        self.rows[0] + self.rows[2]
    }

    /// Answers that one harvester can lose: those in flight, and as many that are not committed yet.
    pub fn lost_max(self) -> usize {
        2 * self.concurrency
    }

    /// A folder with its rows and its specification.
    pub fn folder(self) -> Folder {
        let training = format!(
            "steps = {}\nbatch_examples = 8\ncheckpoint_every_steps = 5\nevaluate_every_steps = {}\n\
             target_tokens_max = 32",
            self.steps,
            self.steps / 2
        );
        Folder::with_problems(self.rows, &SpecText { training: &training, ..SpecText::default() }).unwrap()
    }

    /// A teacher with this delay.
    pub fn teacher(self) -> Teacher {
        Teacher::start(move |asked| teach(&asked.prompt).after(self.delay)).unwrap()
    }

    fn teachers(self) -> String {
        format!("[teachers.local]\nconcurrency_max = {}\n", self.concurrency)
    }

    /// The end of the job on one machine, over SQLite, undisturbed. It depends on rows and steps only, so a test program
    /// computes it once for each, with a teacher that answers at once.
    pub fn on_one_machine(self) -> Arc<FinalState> {
        static ENDS: Mutex<Vec<(Workload, Arc<FinalState>)>> = Mutex::new(Vec::new());
        let work = Self { delay: Duration::ZERO, concurrency: Self::SMALL.concurrency, ..self };
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, end)) = ends.iter().find(|(known, _)| *known == work) {
            return Arc::clone(end);
        }
        let end = Arc::new(work.run_on_one_machine());
        ends.push((work, Arc::clone(&end)));
        end
    }

    fn run_on_one_machine(self) -> FinalState {
        let (folder, teacher) = (self.folder(), self.teacher());
        folder.write("distillery.toml", self.teachers()).unwrap();
        done(folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap());
        assert_eq!(teacher.requests(), self.prompts());
        let ledger = done(folder.say(teacher.url(), &["ledger", "job", "--json"]).unwrap());
        FinalState { ledger: entries(&ledger), student: student(&folder.join(".distillery/checkpoints")) }
    }
}

/// The result of a job.
#[derive(Debug)]
pub struct FinalState {
    /// The ledger by prompt.
    pub ledger: BTreeMap<String, Value>,
    /// The sha256 of the student's files.
    pub student: BTreeMap<&'static str, String>,
}

impl FinalState {
    /// Prompts of `wanted` that are missing here.
    pub fn lost<'a>(&self, wanted: &'a Self) -> Vec<&'a String> {
        wanted.ledger.keys().filter(|row| !self.ledger.contains_key(*row)).collect()
    }

    /// Fails with the differences only: the ledger is large.
    pub fn check(&self, wanted: &Self) {
        let lost = self.lost(wanted);
        assert!(lost.is_empty(), "lost: {lost:?}");
        for (row, entry) in &self.ledger {
            assert_eq!(Some(entry), wanted.ledger.get(row), "{row}");
        }
        assert_eq!(self.student, wanted.student);
    }
}

/// The ledger by prompt. Checks that no prompt is there twice and each has a verdict.
pub fn entries(said: &Said) -> BTreeMap<String, Value> {
    let lines = lines(said);
    let count = lines.len();
    let by_row: BTreeMap<String, Value> = lines
        .into_iter()
        .map(|mut entry| {
            // The database's own number.
            entry.as_object_mut().unwrap().remove("prompt");
            assert_ne!(entry["verdict"], "unjudged", "{entry}");
            let key = ["row", "sample", "hinted", "evaluates"].map(|name| entry[name].to_string());
            (key.join(" "), entry)
        })
        .collect();
    assert_eq!(by_row.len(), count, "a question is in the ledger twice");
    by_row
}

/// The student in a store of checkpoints. A killed trainer may have left another copy: it must have the same bytes.
pub fn student(store: &Path) -> BTreeMap<&'static str, String> {
    let students = students(store);
    let mut ends: Vec<_> = students
        .iter()
        .map(|student| {
            let sha256 =
                |name: &&str| hex::encode(Sha256::digest(std::fs::read(student.join(name)).unwrap()));
            FILES.iter().map(|name| (*name, sha256(name))).collect::<BTreeMap<_, _>>()
        })
        .collect();
    ends.dedup();
    assert_eq!(ends.len(), 1, "{students:?}");
    ends.remove(0)
}

/// The folders of complete students.
pub fn students(store: &Path) -> Vec<PathBuf> {
    folders(store, "-model")
}

/// Steps of the resume states in a store of checkpoints.
pub fn resumable(store: &Path) -> Vec<u64> {
    folders(store, "-resume")
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix("-resume")?.parse().ok())
        .collect()
}

/// The complete folders of one kind in a store of checkpoints.
fn folders(store: &Path, kind: &str) -> Vec<PathBuf> {
    let list =
        |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    list(store.join("runs"))
        .flat_map(list)
        .flat_map(list)
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(kind)))
        .collect()
}

/// Standard output as JSON Lines.
pub fn lines(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

/// A successful result.
pub fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    said
}

/// Checks that every event comes once and in order. Snapshots have no number.
pub fn check_order(events: &[Value]) {
    let numbers: Vec<u64> =
        events.iter().map(|event| event["sequence"].as_u64().unwrap()).filter(|number| *number > 0).collect();
    let wanted: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, wanted);
}

/// Waits until `reached`, at most [`LIMIT`].
pub fn wait_for<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if let Some(value) = reached() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within {LIMIT:?}");
}

/// One cluster at a time in a test program: several would only slow each other down.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the services share. Tests drop their services before it.
#[derive(Debug)]
pub struct Cluster {
    /// The size of its job.
    pub work: Workload,
    /// The folder in which services run; checkpoints are in `shared`.
    pub folder: Folder,
    /// The teacher.
    pub teacher: Teacher,
    /// The records.
    pub postgres: Postgres,
    /// The queue.
    pub redis: Redis,
}

impl Cluster {
    /// Servers, a teacher and a migrated database.
    pub fn new(work: Workload) -> Self {
        Self::taught_by(work, move |asked| teach(&asked.prompt).after(work.delay))
    }

    /// With a teacher that answers as `answer` does.
    pub fn taught_by(
        work: Workload,
        answer: impl Fn(&TeacherRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (folder, teacher) = (work.folder(), Teacher::start(answer).unwrap());
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let config = format!(
            "[database]\nurl = \"{}\"\nconnections_max = 8\n[redis]\nurl = \"{}\"\n[checkpoints]\nroot = \"shared\"\n\
             [harvester]\nlease_seconds = {LEASE_SECONDS}\nlost_trainers_max = {LOST_MAX}\nlost_harvesters_max = {LOST_MAX}\n\
             [trainer]\nlease_seconds = {LEASE_SECONDS}\n{}",
            postgres.url(),
            redis.url(),
            work.teachers()
        );
        folder.write("cluster.toml", config).unwrap();
        let cluster = Self { work, folder, teacher, postgres, redis };
        done(cluster.say("", &["migrate", "--config", "cluster.toml"]));
        cluster
    }

    /// Starts a service with these settings added to the cluster's. A trainer and an inference service call the harvester at
    /// `harvester`.
    ///
    /// # Errors
    /// It does not start.
    pub fn try_start(
        &self,
        role: &str,
        harvester: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Service> {
        let mut all = vec![
            ("DISTILLERY_CONFIG", "cluster.toml"),
            ("DISTILLERY_SERVER_LISTEN", "127.0.0.1:0"),
            ("DISTILLERY_TEACHER_URL", self.teacher.url()),
            ("DISTILLERY_CLIENT_HARVESTER_URL", harvester),
        ];
        all.extend(settings);
        Service::start(self.folder.path(), role, &all)
    }

    /// Starts a service.
    pub fn start(&self, role: &str, harvester: &str) -> Service {
        self.try_start(role, harvester, &[]).unwrap()
    }

    /// Starts `count` harvesters.
    pub fn harvesters(&self, count: usize) -> Vec<Service> {
        (0..count).map(|_| self.start("harvester", NOBODY)).collect()
    }

    /// Runs a command against the server at `url`.
    pub fn say(&self, url: &str, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", url);
        binary::output(command).unwrap().into()
    }

    /// Submits the job.
    pub fn submit(&self, url: &str) {
        done(self.say(url, &["submit", "spec.toml", "--json"]));
    }

    /// The job as `show` prints it; None if there is no answer at `url`.
    pub fn shown(&self, url: &str) -> Option<Value> {
        let said = self.say(url, &["show", "job", "--json"]);
        (said.code == 0).then(|| said.json().unwrap())
    }

    /// The job's state; None if there is no answer at `url`.
    pub fn state(&self, url: &str) -> Option<String> {
        Some(self.shown(url)?["state"].as_str().unwrap().to_owned())
    }

    /// Waits until the job is in `state`.
    pub fn wait_until(&self, url: &str, state: &str) {
        let mut shown = None;
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            shown = self.shown(url);
            if shown.as_ref().is_some_and(|shown| shown["state"] == state) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{state}: not within {LIMIT:?}: {shown:?}");
    }

    /// Watches the job to its end; every event must come once and in order.
    pub fn watch(&self, url: &str) -> Vec<Value> {
        let mut command = binary::command(self.folder.path(), &["watch", "job", "--json"]).unwrap();
        command.env("DISTILLERY_SERVER", url);
        let events = lines(&done(binary::output_within(command, JOB_LIMIT).unwrap().into()));
        check_order(&events);
        assert!(events.iter().any(|event| event["to"] == "succeeded"), "{:?}", events.last());
        events
    }

    /// Every published version, by name.
    pub fn models(&self, url: &str) -> Vec<String> {
        let models = done(self.say(url, &["models", "--json"])).json().unwrap();
        let name = |model: &Value| model["model"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = models["models"].as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }

    /// The result of the job.
    pub fn end(&self, url: &str) -> FinalState {
        assert_eq!(self.models(url), ["job@1"]);
        let ledger = entries(&done(self.say(url, &["ledger", "job", "--json"])));
        FinalState { ledger, student: student(&self.folder.join("shared")) }
    }

    /// Checks that the service at `url` answers as the student does from its folder.
    pub fn check_predictions(&self, url: &str) {
        let ask = |url: &str, model: &str| {
            let said = self.say(url, &["predict", "--model", model, "--file", "test.jsonl", "--json"]);
            (said.code == 0).then(|| lines(&said))
        };
        // A model is served shortly after it is published.
        let answers = wait_for("the model is served", || ask(url, "job"));
        assert_eq!(answers.len(), self.work.rows[2]);
        let folder = students(&self.folder.join("shared")).remove(0);
        assert_eq!(ask("", folder.to_str().unwrap()), Some(answers));
    }

    /// The number of calls beyond one per prompt.
    pub fn paid_twice(&self) -> usize {
        assert_eq!(self.teacher.counts().len(), self.work.prompts());
        self.teacher.requests() - self.work.prompts()
    }
}
