//! The services as processes, used by the command line over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tests::binary;
use tests::cluster::{check_order, done, lines, wait_for};
use tests::data::{SpecText, teach};
use tests::folder::{Folder, NOBODY, Said};
use tests::service::Service;
use tests::teacher::Teacher;

const ROWS: [usize; 3] = [24, 6, 6];
const LIMIT: Duration = Duration::from_secs(90);
/// Long enough to be killed in between.
const LONG: &str = "steps = 60\nbatch_examples = 8\ncheckpoint_every_steps = 5\nevaluate_every_steps = 20\n\
                    target_tokens_max = 32";

fn teacher() -> Teacher {
    Teacher::start(|asked| teach(&asked.prompt)).unwrap()
}

fn problems(spec: &SpecText<'_>) -> Folder {
    Folder::with_problems(ROWS, spec).unwrap()
}

/// Runs a command against the server at `url`.
fn say(folder: &Folder, url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Said {
    let mut command = binary::command(folder.path(), arguments).unwrap();
    command.env("DISTILLERY_SERVER", url).envs(settings.iter().copied());
    binary::output(command).unwrap().into()
}

#[test]
fn one_process_serves_a_job_from_its_rows_to_its_predictions() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    let settings = [("DISTILLERY_TEACHER_URL", teacher.url())];
    let service = Service::start(folder.path(), "all", &settings).unwrap();
    let server = |arguments: &[&str]| say(&folder, service.url(), arguments, &[]);

    let submitted = done(server(&["submit", "spec.toml", "--json"])).json().unwrap();
    assert_eq!((submitted["name"].as_str(), submitted["state"].as_str()), (Some("job"), Some("queued")));
    let id = submitted["distillation"].as_str().unwrap();
    let events = lines(&done(server(&["watch", "job", "--json"])));
    check_order(&events);
    let states: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "state_changed")
        .map(|event| event["to"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["queued", "harvesting", "training", "evaluating", "succeeded"]);
    assert!(events.iter().any(|event| event["event"] == "published" && event["model"] == "job@1"));
    // After a sequence number, earlier events are not repeated.
    let last = events.last().unwrap()["sequence"].to_string();
    let after = lines(&done(server(&["watch", id, "--json", "--after", &last])));
    assert!(after.iter().all(|event| event["sequence"] == 0), "{after:?}");

    // The same specification over the same rows is the same job.
    let again = done(server(&["submit", "spec.toml", "--watch", "--json"])).json().unwrap();
    assert_eq!((again["distillation"].as_str(), again["model"].as_str()), (Some(id), Some("job@1")));
    assert_eq!(teacher.requests(), ROWS[0] + ROWS[2]);

    let list = done(server(&["list", "--json"])).json().unwrap();
    assert_eq!(list["distillations"].as_array().unwrap().len(), 1);
    assert_eq!(list["distillations"][0]["distillation"], id);
    let none = done(server(&["list", "--state", "failed", "--json"])).json().unwrap();
    assert_eq!(none["distillations"], Value::Array(vec![]));
    let shown = done(server(&["show", "job", "--json"])).json().unwrap();
    assert_eq!(shown["harvest"]["prompts"]["answered"], (ROWS[0] + ROWS[2]) as u64);
    assert_eq!(shown["spec"]["name"], "job");
    assert!(done(server(&["show", id])).out.contains("succeeded"));

    let ledger = lines(&done(server(&["ledger", "job", "--json"])));
    assert_eq!(ledger.len(), ROWS[0] + ROWS[2]);
    let rejected = lines(&done(server(&["ledger", "job", "--verdict", "rejected", "--json"])));
    assert!(!rejected.is_empty() && rejected.len() < ledger.len());
    assert!(rejected.iter().all(|entry| entry["reason"] == "disagrees"), "{rejected:?}");
    assert!(done(server(&["ledger", "job", "--limit", "3"])).err.contains("the first 3 entries"));

    let models = done(server(&["models", "--json"])).json().unwrap();
    assert_eq!(models["models"][0]["model"], "job@1");
    check_predictions(&folder, service.url(), &[]);
    check_rows(&folder, service.url());
    assert_eq!(service.stop(LIMIT).unwrap(), 0);
}

/// A student whose folder is away while its server starts is served as soon as the folder is back: nothing else has to happen.
#[test]
fn a_student_that_cannot_be_loaded_is_tried_again() {
    let (folder, teacher) = (problems(&SpecText::default()), teacher());
    done(folder.say(teacher.url(), &["run", "spec.toml"]).unwrap());
    let model = student(folder.path()).parent().unwrap().to_owned();
    let away = folder.join("away");
    std::fs::rename(&model, &away).unwrap();
    let service = Service::start(folder.path(), "all", &[("DISTILLERY_TEACHER_URL", teacher.url())]).unwrap();
    let asked = || say(&folder, service.url(), &["predict", "--model", "job", "--input", "1 + 2"], &[]);
    let said = wait_for("the failure is told", || {
        let log = std::fs::read_to_string(folder.join("all.log")).unwrap();
        log.contains("a model cannot be served").then(asked)
    });
    assert_eq!(said.code, 2, "{}", said.err);
    std::fs::rename(&away, &model).unwrap();
    wait_for("the model is served", || (asked().code == 0).then_some(()));
    assert_eq!(service.stop(LIMIT).unwrap(), 0);
}

/// Checks that a server's student answers as it does from its folder.
fn check_predictions(folder: &Folder, url: &str, settings: &[(&str, &str)]) {
    let arguments = ["predict", "--model", "job", "--file", "test.jsonl", "--json"];
    // A model is served a moment after it is published.
    let answers = wait_for("the model is served", || {
        let said = say(folder, url, &arguments, settings);
        (said.code == 0).then(|| lines(&said))
    });
    assert_eq!(answers.len(), ROWS[2]);
    assert!(answers.iter().all(|answer| answer["label"].is_string()));
    let unknown = say(folder, url, &["predict", "--model", "job@7", "--input", "x"], settings);
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    assert!(unknown.err.contains("there is no model `job@7` here (there are: job@1)"), "{}", unknown.err);
    let model = student(folder.path());
    let model = model.parent().unwrap().to_str().unwrap();
    let arguments = ["predict", "--model", model, "--file", "test.jsonl", "--json"];
    let alone = done(folder.say(NOBODY, &arguments).unwrap());
    assert_eq!(lines(&alone), answers);
}

fn check_rows(folder: &Folder, url: &str) {
    let server = |arguments: &[&str]| say(folder, url, arguments, &[]);
    let imported =
        done(server(&["import", "jsonl", "test.jsonl", "--name", "mine", "--json"])).json().unwrap();
    assert_eq!(imported["rows"], ROWS[2] as u64);
    done(server(&["export", "jsonl", "mine", "back.jsonl"]));
    let rows = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().lines().count();
    assert_eq!(rows("back.jsonl"), ROWS[2]);
    assert_eq!(
        done(server(&["delete", "--dataset", "mine", "--json"])).json().unwrap()["deleted"],
        "dataset"
    );
    let gone = server(&["export", "jsonl", "mine", "back.jsonl"]);
    assert_eq!(gone.code, 2, "{}", gone.err);
}

/// The newest student's weights, in the store of checkpoints below `folder`.
fn student(folder: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![folder.join(".distillery/checkpoints/runs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("model.safetensors") && path.parent().unwrap().ends_with_model() {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

trait EndsWithModel {
    fn ends_with_model(&self) -> bool;
}

impl EndsWithModel for Path {
    fn ends_with_model(&self) -> bool {
        self.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-model"))
    }
}

#[test]
fn a_job_is_cancelled_resumed_and_deleted_over_the_network() {
    let folder = problems(&SpecText { training: LONG, ..SpecText::default() });
    // A teacher that never answers keeps the job in its state.
    let silent = Teacher::start(|_| tests::teacher::Reply::silence()).unwrap();
    let settings = [("DISTILLERY_TEACHER_URL", silent.url())];
    let service = Service::start(folder.path(), "harvester", &settings).unwrap();
    let server = |arguments: &[&str]| say(&folder, service.url(), arguments, &[]);
    done(server(&["submit", "spec.toml"]));
    let busy = server(&["delete", "job"]);
    assert_eq!(busy.code, 2, "{}", busy.err);
    let cancelled = done(server(&["cancel", "job", "--reason", "wrong rows", "--json"])).json().unwrap();
    assert_eq!(
        (cancelled["state"].as_str(), cancelled["reason"].as_str()),
        (Some("cancelled"), Some("wrong rows"))
    );
    let ended = server(&["watch", "job"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("the distillation is cancelled: wrong rows"), "{}", ended.err);
    assert_eq!(server(&["resume", "job"]).code, 2);
    // It stays cancelled, and says what to do; another job is made on purpose.
    let refused = server(&["submit", "spec.toml"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("was cancelled and stays so: --again makes another job"), "{}", refused.err);
    let again = done(server(&["submit", "spec.toml", "--again", "--json"])).json().unwrap();
    assert_eq!(again["state"], "queued");
    assert_ne!(again["distillation"], cancelled["distillation"]);
    let unfinished = server(&["submit", "spec.toml", "--again"]);
    assert_eq!(unfinished.code, 2);
    assert!(unfinished.err.contains("without --again, or cancel it"), "{}", unfinished.err);
    let same = done(server(&["submit", "spec.toml", "--json"])).json().unwrap();
    assert_eq!(same["distillation"], again["distillation"]);
    // Another specification of that name: two jobs go on, and the name says neither.
    folder
        .write("edited.toml", SpecText { training: "steps = 61", ..SpecText::default() }.to_string())
        .unwrap();
    let edited = done(server(&["submit", "edited.toml", "--json"])).json().unwrap();
    let (again, edited) = (again["distillation"].as_str().unwrap(), edited["distillation"].as_str().unwrap());
    let either = server(&["cancel", "job"]);
    assert_eq!(either.code, 2, "{}", either.err);
    for wanted in ["`job` is the name of several jobs", again, edited] {
        assert!(either.err.contains(wanted), "{}", either.err);
    }
    done(server(&["cancel", edited]));
    // The newest is over: the name is the older one's, which is not.
    let cancelled_by_name = done(server(&["cancel", "job", "--json"])).json().unwrap();
    assert_eq!(cancelled_by_name["distillation"], again);
    done(server(&["delete", edited]));
    done(server(&["delete", again]));
    done(server(&["delete", cancelled["distillation"].as_str().unwrap()]));
    let gone = server(&["show", "job"]);
    assert_eq!(gone.code, 2);
    assert!(gone.err.contains("there is no job `job`"), "{}", gone.err);
}

#[test]
fn mistakes_are_told_before_anything_is_sent() {
    let folder = problems(&SpecText::default());
    let check = |arguments: &[&str], url: &str, code: i32, wanted: &str| {
        let said = say(&folder, url, arguments, &[]);
        assert_eq!(said.code, code, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(wanted), "{arguments:?}: {}", said.err);
    };
    check(&["submit", "spec.toml"], "", 2, "--server: name a server");
    check(&["watch", "job"], "", 2, "--server: name a server");
    check(&["list"], "http://127.0.0.1:9", 1, "is `distillery serve` running there?");
    check(&["list"], "ftp://host", 2, "is not a URL such as");
    check(&["list", "--token-file", "absent"], "http://127.0.0.1:9", 2, "absent cannot be read");
    check(&["list", "--ca", "absent"], "https://127.0.0.1:9", 2, "absent cannot be read");
    let with_init = SpecText { student: "init = \"folder\"", ..SpecText::default() };
    folder.write("init.toml", with_init.to_string()).unwrap();
    check(&["submit", "init.toml"], "http://127.0.0.1:9", 2, "student.init: is a folder of this machine");
    let serve = |settings: &[(&str, &str)]| {
        let mut command = binary::command(folder.path(), &["serve", "--role", "all"]).unwrap();
        Said::from(
            binary::output({
                command.envs(settings.iter().copied());
                command
            })
            .unwrap(),
        )
    };
    let open = serve(&[("DISTILLERY_SERVER_LISTEN", "0.0.0.0:0")]);
    assert_eq!(open.code, 2);
    assert!(open.err.contains("server.plaintext = true"), "{}", open.err);
    folder.write("distillery.toml", "[server.tokens.ci]\nrole = \"submit\"\nenv = \"CI_TOKEN\"\n").unwrap();
    let no_secret = serve(&[]);
    assert_eq!(no_secret.code, 2);
    assert!(no_secret.err.contains("server.tokens.ci: has no secret: set CI_TOKEN"), "{}", no_secret.err);
}

#[test]
fn a_server_that_says_nothing_holds_nobody() {
    let folder = problems(&SpecText::default());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let verbs: [&[&str]; 4] =
        [&["list"], &["watch", "job"], &["predict", "--model", "job", "--input", "1 + 1?"], &["health"]];
    let start = |arguments: &[&str]| {
        let mut command = binary::command(folder.path(), arguments).unwrap();
        command.args(["--server", &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // Whoever presses Ctrl-C is heard at once.
    for arguments in verbs {
        let child = start(arguments);
        std::thread::sleep(Duration::from_millis(1_500));
        let began = Instant::now();
        binary::signal(&child, "INT").unwrap();
        let said = Said::from(binary::finish(child).unwrap());
        assert_eq!(said.code, 130, "{arguments:?}: {}", said.err);
        assert!(began.elapsed() < Duration::from_secs(5), "{arguments:?}: {:?}", began.elapsed());
    }
    // And who waits is told.
    let began = Instant::now();
    let said = Said::from(binary::finish(start(&["list"])).unwrap());
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("no connection within 15 s: what listens there says nothing"), "{}", said.err);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    // Its own, without TLS.
    let service = Service::start(folder.path(), "harvester", &[]).unwrap();
    let said = say(&folder, &service.url().replace("http://", "https://"), &["list"], &[]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("it does not speak TLS there: write http://"), "{}", said.err);
    // The doctor calls what verbs call.
    let examined = |url: &str| say(&folder, url, &["doctor"], &[]).out;
    let said = examined(service.url());
    assert!(said.contains(&format!("works  server {}: serves", service.url())), "{said}");
    let said = examined("http://127.0.0.1:9");
    assert!(
        said.contains("fails  server http://127.0.0.1:9: ") && said.contains("`distillery serve`"),
        "{said}"
    );
}

#[test]
fn a_job_without_a_trainer_says_since_when_it_waits() {
    let folder = problems(&SpecText { training: LONG, ..SpecText::default() });
    let teacher = teacher();
    let settings = [("DISTILLERY_TEACHER_URL", teacher.url())];
    let service = Service::start(folder.path(), "harvester", &settings).unwrap();
    let mut command = binary::command(folder.path(), &["submit", "spec.toml", "--watch"]).unwrap();
    command.args(["--server", service.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let watching = command.spawn().unwrap();
    let shown = wait_for("a job that waits", || {
        let said = say(&folder, service.url(), &["show", "job"], &[]);
        said.out.contains("waiting for a trainer since 20").then_some(said.out)
    });
    assert!(shown.contains("pending, waiting for a trainer since 20"), "{shown}");
    // Looked at every five seconds.
    std::thread::sleep(Duration::from_secs(12));
    binary::signal(&watching, "INT").unwrap();
    let said = Said::from(binary::finish(watching).unwrap());
    assert_eq!(said.err.matches("training: waiting for a trainer since 20").count(), 1, "{}", said.err);
    assert!(said.err.contains("is one there (`distillery serve --role trainer`), and free?"), "{}", said.err);
}

/// The configuration of a cluster, with tokens for a user and for workers.
const TOKENS: &str = "[server.tokens.person]\nrole = \"submit\"\nenv = \"PERSON\"\n\
                      [server.tokens.workers]\nrole = \"worker\"\nenv = \"WORKERS\"\n";
const PERSON: &str = "the-token-of-a-person";
const WORKERS: &str = "the-token-of-the-workers";

struct Cluster {
    folder: Folder,
    teacher: Teacher,
}

impl Cluster {
    fn new() -> Self {
        let folder = problems(&SpecText { training: LONG, ..SpecText::default() });
        folder.write("harvester.toml", TOKENS).unwrap();
        Self { folder, teacher: teacher() }
    }

    fn harvester(&self, listen: &str) -> Service {
        let config = self.folder.join("harvester.toml");
        let settings = [
            ("DISTILLERY_TEACHER_URL", self.teacher.url()),
            ("DISTILLERY_CONFIG", config.to_str().unwrap()),
            ("DISTILLERY_SERVER_LISTEN", listen),
            ("PERSON", PERSON),
            ("WORKERS", WORKERS),
        ];
        Service::start(self.folder.path(), "harvester", &settings).unwrap()
    }

    fn worker(&self, role: &str, harvester: &Service) -> Service {
        self.worker_that_ends(role, harvester, "0")
    }

    /// A worker that may end by itself.
    fn worker_that_ends(&self, role: &str, harvester: &Service, idle_seconds_max: &str) -> Service {
        let settings = [
            ("DISTILLERY_CLIENT_HARVESTER_URL", harvester.url()),
            ("DISTILLERY_TOKEN", WORKERS),
            ("DISTILLERY_TRAINER_LEASE_SECONDS", "2"),
            ("DISTILLERY_TRAINER_IDLE_SECONDS_MAX", idle_seconds_max),
        ];
        Service::start(self.folder.path(), role, &settings).unwrap()
    }

    fn say(&self, url: &str, arguments: &[&str]) -> Said {
        say(&self.folder, url, arguments, &[("DISTILLERY_TOKEN", PERSON)])
    }

    fn state(&self, harvester: &Service) -> String {
        let job = done(self.say(harvester.url(), &["show", "job", "--json"])).json().unwrap();
        job["state"].as_str().unwrap().to_owned()
    }

    /// Submits the job and watches it in another process.
    fn submit_and_watch(&self, harvester: &Service) -> Watching {
        done(self.say(harvester.url(), &["submit", "spec.toml", "--json"]));
        let mut command = binary::command(self.folder.path(), &["watch", "job", "--json"]).unwrap();
        command.env("DISTILLERY_SERVER", harvester.url()).env("DISTILLERY_TOKEN", PERSON);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (seen, events) = std::sync::mpsc::channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = seen.send(serde_json::from_str(&line).unwrap());
            }
        });
        Watching { child, events, seen: Vec::new() }
    }

    /// The weights of the undisturbed student.
    fn undisturbed() -> &'static [u8] {
        static WEIGHTS: OnceLock<Vec<u8>> = OnceLock::new();
        WEIGHTS.get_or_init(|| {
            let folder = problems(&SpecText { training: LONG, ..SpecText::default() });
            let teacher = teacher();
            done(folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap());
            std::fs::read(student(folder.path())).unwrap()
        })
    }
}

/// A process of `distillery watch --json`.
struct Watching {
    child: std::process::Child,
    events: std::sync::mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watching {
    fn until(&mut self, reached: impl Fn(&Value) -> bool) {
        loop {
            let event = self.events.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{:?}", self.seen.last()));
            self.seen.push(event);
            if self.seen.last().is_some_and(&reached) {
                return;
            }
        }
    }

    /// All events to the end, which must be a success.
    fn finish(mut self) -> Vec<Value> {
        self.until(|event| event["to"] == "succeeded");
        assert!(binary::wait_until(&mut self.child, LIMIT, || false).is_ok_and(|reached| !reached));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.seen.extend(self.events.try_iter());
        std::mem::take(&mut self.seen)
    }
}

/// Whether a trainer has reached `step`, after its first resume state.
fn is_at(step: u64) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "training_progress" && event["step"].as_u64() >= Some(step)
}

#[test]
fn a_trainer_that_is_killed_is_followed_by_another_one() {
    let cluster = Cluster::new();
    let harvester = cluster.harvester("127.0.0.1:0");
    let mut first = cluster.worker("trainer", &harvester);
    let inference = cluster.worker("inference", &harvester);
    let mut watching = cluster.submit_and_watch(&harvester);
    watching.until(is_at(6));
    first.kill().unwrap();
    assert_eq!(cluster.state(&harvester), "training");
    let second = cluster.worker("trainer", &harvester);
    check_order(&watching.finish());
    assert_eq!(std::fs::read(student(cluster.folder.path())).unwrap(), Cluster::undisturbed());
    check_predictions(&cluster.folder, inference.url(), &[]);
    // Calls without a token, and beyond its role, are refused.
    let nobody = say(&cluster.folder, harvester.url(), &["list"], &[]);
    assert_eq!(nobody.code, 1);
    assert!(
        nobody.err.contains("a token is needed") && nobody.err.contains("DISTILLERY_TOKEN"),
        "{}",
        nobody.err
    );
    let beyond = cluster.say(harvester.url(), &["delete", "job"]);
    assert_eq!(beyond.code, 1);
    assert!(beyond.err.contains("the token `person` has the role `submit`"), "{}", beyond.err);
    for service in [second, inference, harvester] {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}

#[test]
fn a_trainer_that_is_told_to_end_hands_its_run_to_another_one_at_once() {
    let cluster = Cluster::new();
    let harvester = cluster.harvester("127.0.0.1:0");
    let first = cluster.worker("trainer", &harvester);
    let mut watching = cluster.submit_and_watch(&harvester);
    watching.until(is_at(6));
    assert_eq!(first.stop(LIMIT).unwrap(), 0);
    assert_eq!(cluster.state(&harvester), "training");
    let _second = cluster.worker("trainer", &harvester);
    check_order(&watching.finish());
    assert_eq!(std::fs::read(student(cluster.folder.path())).unwrap(), Cluster::undisturbed());
}

#[test]
fn a_trainer_on_its_own_ends_well_when_there_is_nothing_to_train() {
    let cluster = Cluster::new();
    let harvester = cluster.harvester("127.0.0.1:0");
    let mut watching = cluster.submit_and_watch(&harvester);
    watching.until(|event| event["to"] == "training");
    let mut trainer = cluster.worker_that_ends("trainer", &harvester, "1");
    watching.finish();
    let reached = binary::wait_until(trainer.child(), LIMIT, || false).unwrap();
    assert!(!reached, "it did not end by itself");
    assert_eq!(trainer.child().wait().unwrap().code(), Some(0));
    // With another role in the process it keeps running.
    let mut both = cluster.worker_that_ends("trainer,inference", &harvester, "1");
    std::thread::sleep(Duration::from_secs(4));
    assert!(both.child().try_wait().unwrap().is_none(), "it ended");
    assert_eq!(both.stop(LIMIT).unwrap(), 0);
}

#[test]
fn one_setting_names_harvester_and_inference_and_each_verb_finds_its_own() {
    let folder = problems(&SpecText { training: "steps = 4\nbatch_examples = 8", ..SpecText::default() });
    folder.write("harvester.toml", TOKENS).unwrap();
    let cluster = Cluster { folder, teacher: teacher() };
    let harvester = cluster.harvester("127.0.0.1:0");
    let _trainer = cluster.worker("trainer", &harvester);
    let inference = cluster.worker("inference", &harvester);
    cluster.submit_and_watch(&harvester).finish();
    let predict =
        ["predict", "--model", "job", "--input", "Ann has 2 pens in box 1 and buys 3 more. How many?"];
    // It answers as soon as it has loaded the student.
    let both = format!("{},{}", harvester.url(), inference.url());
    wait_for("the student to be served", || (cluster.say(&both, &predict).code == 0).then_some(()));
    assert_eq!(done(cluster.say(&both, &["list", "--json"])).code, 0);
    assert_eq!(done(cluster.say(&both, &["health"])).code, 0);
    let one_away = format!("{},http://127.0.0.1:9", harvester.url());
    assert_eq!(cluster.say(&one_away, &["health"]).code, 1, "all of them have to serve");
    // In any order, and where one of them is away.
    let away = format!("http://127.0.0.1:9, {}, {}", inference.url(), harvester.url());
    assert_eq!(done(cluster.say(&away, &["list", "--json"])).code, 0);
    assert_eq!(done(cluster.say(&away, &predict)).code, 0);
    for (url, arguments, wanted) in [
        (
            harvester.url(),
            &predict[..],
            "is not an inference service, which this verb calls: name an inference service too",
        ),
        (inference.url(), &["list"], "is not a harvester, which this verb calls: name a harvester too"),
    ] {
        let said = cluster.say(url, arguments);
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains(wanted), "{}", said.err);
    }
}

#[test]
fn a_trainer_without_a_harvester_is_not_ready_and_says_so_once() {
    let cluster = Cluster::new();
    let harvester = cluster.harvester("127.0.0.1:0");
    let start = |url: &str, token: &str| {
        let _ = std::fs::remove_file(cluster.folder.join("trainer.log"));
        let settings = [("DISTILLERY_CLIENT_HARVESTER_URL", url), ("DISTILLERY_TOKEN", token)];
        Service::start(cluster.folder.path(), "trainer", &settings).unwrap()
    };
    for (url, token) in [("http://127.0.0.1:9", WORKERS), (harvester.url(), "another-token-than-that-one")] {
        let trainer = start(url, token);
        std::thread::sleep(Duration::from_secs(5));
        let said = cluster.say(trainer.url(), &["health"]);
        assert_eq!(said.code, 1, "{url}: {}", said.out);
        let log = std::fs::read_to_string(cluster.folder.join("trainer.log")).unwrap();
        assert_eq!(log.matches("no run can be leased").count(), 1, "{log}");
        assert!(log.contains("client.harvester_url, its token"), "{log}");
    }
    let trainer = start(harvester.url(), WORKERS);
    wait_for("the trainer to be ready", || (cluster.say(trainer.url(), &["health"]).code == 0).then_some(()));
}

#[test]
fn a_harvester_that_is_away_for_a_while_costs_no_run() {
    let cluster = Cluster::new();
    let mut harvester = cluster.harvester("127.0.0.1:0");
    let address = harvester.address().to_owned();
    let settings = [
        ("DISTILLERY_CLIENT_HARVESTER_URL", harvester.url()),
        ("DISTILLERY_TOKEN", WORKERS),
        ("DISTILLERY_TRAINER_LEASE_SECONDS", "30"),
    ];
    let _trainer = Service::start(cluster.folder.path(), "trainer", &settings).unwrap();
    let mut watching = cluster.submit_and_watch(&harvester);
    watching.until(is_at(6));
    harvester.kill().unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let _harvester = cluster.harvester(&address);
    check_order(&watching.finish());
    let log = std::fs::read_to_string(cluster.folder.join("trainer.log")).unwrap();
    assert!(!log.contains("handing the run back"), "{log}");
    assert_eq!(std::fs::read(student(cluster.folder.path())).unwrap(), Cluster::undisturbed());
}

#[test]
fn a_harvester_that_is_killed_and_started_again_loses_nothing() {
    let cluster = Cluster::new();
    let mut harvester = cluster.harvester("127.0.0.1:0");
    let address = harvester.address().to_owned();
    let _trainer = cluster.worker("trainer", &harvester);
    let mut watching = cluster.submit_and_watch(&harvester);
    watching.until(|event| event["event"] == "harvest_progress" || event["to"] == "training");
    harvester.kill().unwrap();
    let mut harvester = cluster.harvester(&address);
    watching.until(is_at(6));
    assert_eq!(cluster.state(&harvester), "training");
    harvester.kill().unwrap();
    let _harvester = cluster.harvester(&address);
    let events = watching.finish();
    check_order(&events);
    assert_eq!(std::fs::read(student(cluster.folder.path())).unwrap(), Cluster::undisturbed());
}
