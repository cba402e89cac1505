//! The services as a cluster: processes that share PostgreSQL, Redis and a folder of checkpoints, any of which may be gone
//! at any instant; the job that they do, and the end that it comes to on one machine that nobody disturbs.
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
use crate::teacher::{Asked, Reply, Teacher};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What everything in these tests may take at most.
pub const LIMIT: Duration = Duration::from_secs(180);
/// Short, so that what a killed process held is free again soon.
pub const LEASE_SECONDS: usize = 2;
/// A harvester has no harvester to call.
pub const NOBODY: &str = "http://127.0.0.1:9";
const FILES: [&str; 5] =
    ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "distillery.json"];

/// What a job works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Rows of train, validation and test.
    pub rows: [usize; 3],
    /// Optimiser steps.
    pub steps: usize,
    /// How long the teacher thinks.
    pub delay: Duration,
    /// Calls in flight at once in one process.
    pub concurrency: usize,
}

impl Work {
    /// A job of some seconds.
    pub const SMALL: Self =
        Self { rows: [24, 6, 6], steps: 30, delay: Duration::from_millis(50), concurrency: 4 };

    /// Train rows for their rationales, test rows to measure the teacher.
    pub fn prompts(self) -> usize {
        self.rows[0] + self.rows[2]
    }

    /// Answers that one harvester can lose: those it asks for, and as many that are answered and not committed yet.
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

    /// A teacher that is careful and slow.
    pub fn teacher(self) -> Teacher {
        Teacher::start(move |asked| teach(&asked.prompt).after(self.delay)).unwrap()
    }

    fn teachers(self) -> String {
        format!("[teachers.local]\nconcurrency_max = {}\n", self.concurrency)
    }

    /// The end of the job on one machine, over SQLite, undisturbed. It depends on rows and steps only, so a test program
    /// computes it once for each, with a teacher that answers at once.
    pub fn on_one_machine(self) -> Arc<End> {
        static ENDS: Mutex<Vec<(Work, Arc<End>)>> = Mutex::new(Vec::new());
        let work = Self { delay: Duration::ZERO, concurrency: Self::SMALL.concurrency, ..self };
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, end)) = ends.iter().find(|(known, _)| *known == work) {
            return Arc::clone(end);
        }
        let end = Arc::new(work.run_on_one_machine());
        ends.push((work, Arc::clone(&end)));
        end
    }

    fn run_on_one_machine(self) -> End {
        let (folder, teacher) = (self.folder(), self.teacher());
        folder.write("distillery.toml", self.teachers()).unwrap();
        done(folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap());
        assert_eq!(teacher.requests(), self.prompts());
        let ledger = done(folder.say(teacher.url(), &["ledger", "job", "--json"]).unwrap());
        End { ledger: entries(&ledger), student: student(&folder.join(".distillery/checkpoints")) }
    }
}

/// How a job ends.
#[derive(Debug)]
pub struct End {
    /// The ledger by what was asked.
    pub ledger: BTreeMap<String, Value>,
    /// The sha256 of the student's files.
    pub student: BTreeMap<&'static str, String>,
}

impl End {
    /// What `wanted` has and this has not.
    pub fn lost<'a>(&self, wanted: &'a Self) -> Vec<&'a String> {
        wanted.ledger.keys().filter(|row| !self.ledger.contains_key(*row)).collect()
    }

    /// Says what differs, and not the whole ledger.
    pub fn check(&self, wanted: &Self) {
        let lost = self.lost(wanted);
        assert!(lost.is_empty(), "lost: {lost:?}");
        for (row, entry) in &self.ledger {
            assert_eq!(Some(entry), wanted.ledger.get(row), "{row}");
        }
        assert_eq!(self.student, wanted.student);
    }
}

/// The ledger by what was asked. No question is there twice, and each has its verdict.
pub fn entries(said: &Said) -> BTreeMap<String, Value> {
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

/// The folders of whole students.
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

/// The whole folders of one kind that trainers left in a store of checkpoints.
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

/// What was said, where it went well.
pub fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    said
}

/// Every event once, in order: snapshots have no number.
pub fn check_order(events: &[Value]) {
    let numbers: Vec<u64> =
        events.iter().map(|event| event["sequence"].as_u64().unwrap()).filter(|number| *number > 0).collect();
    let wanted: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, wanted);
}

/// Waits until `reached`, at most as long as everything in these tests may take.
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

/// One cluster at a time in one test program: together they would be slower, and no more certain.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the services have in common. Services that tests start come before it, so that they end before it.
#[derive(Debug)]
pub struct Cluster {
    /// What its job works on.
    pub work: Work,
    /// Where its services run; checkpoints are in `shared`.
    pub folder: Folder,
    /// Whom they ask.
    pub teacher: Teacher,
    /// The records.
    pub postgres: Postgres,
    /// The work list.
    pub redis: Redis,
}

impl Cluster {
    /// Servers, a teacher and a migrated database.
    pub fn new(work: Work) -> Self {
        Self::taught_by(work, move |asked| teach(&asked.prompt).after(work.delay))
    }

    /// The same, with a teacher that answers as `answer` does.
    pub fn taught_by(work: Work, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (folder, teacher) = (work.folder(), Teacher::start(answer).unwrap());
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let config = format!(
            "[database]\nurl = \"{}\"\nconnections_max = 8\n[redis]\nurl = \"{}\"\n[checkpoints]\nroot = \"shared\"\n\
             [harvester]\nlease_seconds = {LEASE_SECONDS}\n[trainer]\nlease_seconds = {LEASE_SECONDS}\n{}",
            postgres.url(),
            redis.url(),
            work.teachers()
        );
        folder.write("cluster.toml", config).unwrap();
        let cluster = Self { work, folder, teacher, postgres, redis };
        done(cluster.say("", &["migrate", "--config", "cluster.toml"]));
        cluster
    }

    /// A service with these settings beside the cluster's. A trainer and an inference service call the harvester at
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

    /// A service.
    pub fn start(&self, role: &str, harvester: &str) -> Service {
        self.try_start(role, harvester, &[]).unwrap()
    }

    /// So many harvesters.
    pub fn harvesters(&self, count: usize) -> Vec<Service> {
        (0..count).map(|_| self.start("harvester", NOBODY)).collect()
    }

    /// A verb, spoken to the server at `url`.
    pub fn say(&self, url: &str, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", url);
        binary::output(command).unwrap().into()
    }

    /// Hands the job in.
    pub fn submit(&self, url: &str) {
        done(self.say(url, &["submit", "spec.toml", "--json"]));
    }

    /// The job as it is shown, where anybody answers at `url`.
    pub fn shown(&self, url: &str) -> Option<Value> {
        let said = self.say(url, &["show", "job", "--json"]);
        (said.code == 0).then(|| said.json().unwrap())
    }

    /// The job's state, where anybody answers at `url`.
    pub fn state(&self, url: &str) -> Option<String> {
        Some(self.shown(url)?["state"].as_str().unwrap().to_owned())
    }

    /// Waits until the job is in `state`.
    pub fn wait_until(&self, url: &str, state: &str) {
        wait_for(state, || (self.state(url)? == state).then_some(()));
    }

    /// Follows the job to its end; every event is told once and in order.
    pub fn watch(&self, url: &str) -> Vec<Value> {
        let events = lines(&done(self.say(url, &["watch", "job", "--json"])));
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

    /// How the job ended.
    pub fn end(&self, url: &str) -> End {
        assert_eq!(self.models(url), ["job@1"]);
        let ledger = entries(&done(self.say(url, &["ledger", "job", "--json"])));
        End { ledger, student: student(&self.folder.join("shared")) }
    }

    /// The service at `url` answers as the student does from its folder.
    pub fn check_predictions(&self, url: &str) {
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
    pub fn paid_twice(&self) -> usize {
        assert_eq!(self.teacher.counts().len(), self.work.prompts());
        self.teacher.requests() - self.work.prompts()
    }
}

/// Numbers that look random, and come again with the same seed (splitmix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Seeded with `DISTILLERY_TEST_SEED`, else with the time. The seed is printed.
    #[allow(clippy::disallowed_methods, reason = "which accidents happen is the environment's word")]
    #[allow(clippy::print_stdout, reason = "an accident can be had again by its seed")]
    pub fn new() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var("DISTILLERY_TEST_SEED").map_or(now, |seed| seed.parse().unwrap());
        println!("DISTILLERY_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
