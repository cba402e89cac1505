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
/// A harvester has no harvester to call.
const NOBODY: &str = "http://127.0.0.1:9";
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
#[derive(Debug)]
struct End {
    ledger: BTreeMap<String, Value>,
    student: BTreeMap<&'static str, String>,
}

impl End {
    /// Says what differs, and not the whole ledger.
    fn check(&self, wanted: &Self) {
        let lost: Vec<&String> = wanted.ledger.keys().filter(|row| !self.ledger.contains_key(*row)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        for (row, entry) in &self.ledger {
            assert_eq!(Some(entry), wanted.ledger.get(row), "{row}");
        }
        assert_eq!(self.student, wanted.student);
    }
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
fn students(store: &Path) -> Vec<PathBuf> {
    folders(store, "-model")
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
        (0..HARVESTERS).map(|_| self.start("harvester", NOBODY)).collect()
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

    /// Every published version, by name.
    fn models(&self, url: &str) -> Vec<String> {
        let models = done(self.say(url, &["models", "--json"])).json().unwrap();
        let name = |model: &Value| model["model"].as_str().unwrap().to_owned();
        let mut names: Vec<String> = models["models"].as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }

    fn end(&self, url: &str) -> End {
        assert_eq!(self.models(url), ["job@1"]);
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
        cluster.end(harvester.url()).check(&undisturbed);
    }
    assert_eq!(cluster.paid_twice(), 0);
    cluster.check_predictions(inference.url());
    for service in [trainer, inference].into_iter().chain(harvesters) {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}

/// Steps of the resume states in a store of checkpoints.
fn resumable(store: &Path) -> Vec<u64> {
    folders(store, "-resume")
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix("-resume")?.parse().ok())
        .collect()
}

#[test]
fn two_trainers_fight_for_a_run() {
    let _alone = alone();
    let undisturbed = Work::SMALL.on_one_machine();
    for step in [5, 25] {
        let cluster = Cluster::new(Work::SMALL);
        let harvester = cluster.start("harvester", NOBODY);
        let mut first = cluster.start("trainer", harvester.url());
        cluster.submit(harvester.url());
        let store = cluster.folder.join("shared");
        wait_for("a resume state", || resumable(&store).iter().any(|there| *there >= step).then_some(()));
        binary::signal(first.child(), "STOP").unwrap();
        assert_eq!(cluster.state(harvester.url()).as_deref(), Some("training"), "stopped too late");
        let second = cluster.start("trainer", harvester.url());
        cluster.watch(harvester.url());
        cluster.end(harvester.url()).check(&undisturbed);

        // The first still believes in its run. It takes the next job only when it has given the run up.
        assert_eq!(second.stop(LIMIT).unwrap(), 0);
        binary::signal(first.child(), "CONT").unwrap();
        let next = SpecText { name: "next", ..SpecText::default() };
        cluster.folder.write("next.toml", next.to_string()).unwrap();
        done(cluster.say(harvester.url(), &["submit", "next.toml", "--watch"]));
        assert_eq!(cluster.models(harvester.url()), ["job@1", "next@1"]);
        assert_eq!(cluster.state(harvester.url()).as_deref(), Some("succeeded"));
        assert_eq!(first.stop(LIMIT).unwrap(), 0);
    }
}

#[test]
fn a_database_that_is_away_during_a_harvest_loses_nothing() {
    let _alone = alone();
    let work = Work { rows: [60, 6, 6], delay: Duration::from_millis(200), ..Work::SMALL };
    let undisturbed = work.on_one_machine();
    let cluster = Cluster::new(work);
    let harvesters = cluster.harvesters();
    let _trainer = cluster.start("trainer", harvesters[0].url());
    cluster.submit(harvesters[0].url());
    wait_for("a harvest", || (cluster.teacher.answered() >= 10).then_some(()));
    cluster.postgres.stop().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    assert!(cluster.teacher.requests() < work.prompts(), "the harvest was over before");
    cluster.postgres.restart().unwrap();
    cluster.watch(harvesters[1].url());
    cluster.end(harvesters[0].url()).check(&undisturbed);
    let paid_twice = cluster.paid_twice();
    println!("PostgreSQL away for 10 s: {} prompts, lost 0, paid twice {paid_twice}", work.prompts());
    assert!(paid_twice <= LOST_MAX * HARVESTERS, "{paid_twice}");
}

/// Numbers that look random, and come again with the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// Seeded with `DISTILLERY_TEST_SEED`, else with the time.
    #[allow(clippy::disallowed_methods, reason = "which accidents happen is the environment's word")]
    fn new() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var("DISTILLERY_TEST_SEED").map_or(now, |seed| seed.parse().unwrap());
        println!("DISTILLERY_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// One process of the cluster, and who follows it when it is killed.
struct Seat {
    role: &'static str,
    harvester: String,
    service: Service,
}

impl Seat {
    fn new(cluster: &Cluster, role: &'static str, harvester: &str) -> Self {
        Self { role, harvester: harvester.to_owned(), service: cluster.start(role, harvester) }
    }

    /// As an orchestrator does: at the same address, and again where it does not come up.
    fn start_again(&mut self, cluster: &Cluster) {
        let address = self.service.address().to_owned();
        self.service = wait_for(self.role, || cluster.try_start(self.role, &address, &self.harvester).ok());
    }
}

/// Kills in each of the two stages, harvest and training.
const KILLS: usize = 25;
/// Kills of the harvest after which Redis forgets everything, and after which PostgreSQL crashes.
const FLUSH_AFTER: usize = 10;
const CRASH_AFTER: usize = 18;
/// The longest time between two accidents.
const CALM_MS_MAX: u64 = 900;

/// Kills one service, or two at once, at random instants.
fn disturb(
    cluster: &Cluster,
    seats: &mut [Seat],
    dice: &mut Dice,
    mut after: impl FnMut(usize),
) -> BTreeMap<&'static str, usize> {
    let mut kills = BTreeMap::new();
    let mut count = 0;
    while count < KILLS {
        std::thread::sleep(Duration::from_millis(dice.below(CALM_MS_MAX)));
        let mut dead = BTreeSet::new();
        for _ in 0..=dice.below(2).min((KILLS - count - 1) as u64) {
            dead.insert(dice.below(seats.len() as u64) as usize);
        }
        for index in &dead {
            seats[*index].service.kill().unwrap();
            *kills.entry(seats[*index].role).or_default() += 1;
            count += 1;
            after(count);
        }
        for index in dead {
            seats[index].start_again(cluster);
        }
    }
    kills
}

#[test]
fn random_kills_change_nothing() {
    let _alone = alone();
    let work = Work { rows: [500, 20, 20], steps: 300, delay: Duration::from_millis(300) };
    let mut dice = Dice::new();
    let began = Instant::now();
    let undisturbed = work.on_one_machine();
    let wall_undisturbed = began.elapsed();

    let cluster = Cluster::new(work);
    let mut seats: Vec<Seat> = (0..HARVESTERS).map(|_| Seat::new(&cluster, "harvester", NOBODY)).collect();
    let urls: Vec<String> = seats.iter().map(|seat| seat.service.url().to_owned()).collect();
    for role in ["trainer", "inference"] {
        seats.extend(urls.iter().map(|url| Seat::new(&cluster, role, url)));
    }
    let began = Instant::now();
    cluster.submit(&urls[0]);
    wait_for("a harvest", || (cluster.teacher.answered() > 0).then_some(()));
    let harvest = disturb(&cluster, &mut seats, &mut dice, |kills| match kills {
        FLUSH_AFTER => cluster.redis.flush_all().unwrap(),
        CRASH_AFTER => {
            cluster.postgres.kill().unwrap();
            cluster.postgres.restart().unwrap();
        }
        _ => {}
    });
    assert_eq!(
        cluster.state(&urls[0]).as_deref(),
        Some("harvesting"),
        "the job is too small for so many kills"
    );
    wait_for("training", || (cluster.state(&urls[1])? == "training").then_some(()));
    let training = disturb(&cluster, &mut seats, &mut dice, |_| {});
    assert_eq!(
        cluster.state(&urls[0]).as_deref(),
        Some("training"),
        "the job is too small for so many kills"
    );
    cluster.watch(&urls[1]);
    let wall = began.elapsed();

    let end = cluster.end(&urls[0]);
    let paid_twice = cluster.paid_twice();
    let lost = undisturbed.ledger.keys().filter(|row| !end.ledger.contains_key(*row)).count();
    println!(
        "{} rows, lost {lost}, doubled 0, paid twice {paid_twice}; kills in the harvest {harvest:?}, in training \
         {training:?}; {wall_undisturbed:?} undisturbed, {wall:?} with kills",
        end.ledger.len()
    );
    end.check(&undisturbed);
    // What was in flight when a harvester was killed, and everywhere when a server forgot or crashed.
    assert!(paid_twice <= (harvest["harvester"] + 2 * HARVESTERS) * LOST_MAX, "{paid_twice}");
    for seat in seats.iter().filter(|seat| seat.role == "inference") {
        cluster.check_predictions(seat.service.url());
    }
}
