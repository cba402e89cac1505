//! Services among callers that mean harm: whatever they send, nobody panics, no mistake of theirs is called ours, and honest
//! callers are answered as before. `make soak` runs it for long.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::telemetry::RPC_REQUESTS;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::calls::{begin_longest, path, send, served};
use tests::cluster::{alone, done, wait_for};
use tests::data::{SpecText, teach, write_problems};
use tests::dice::Dice;
use tests::effort::Effort;
use tests::folder::{Folder, Said};
use tests::frames::{ATTACKS, Line};
use tests::hostile::{Attempt, Known};
use tests::process::{Memory, OpenFiles, memory, open_files};
use tests::service::Service;
use tests::teacher::Teacher;
use tests::{binary, scrape};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Messages with the other tests, those of one round, and those at once.
const MESSAGES: u64 = 1_200;
const ROUND: u64 = 1_500;
const AT_ONCE: u64 = 16;
/// Frames of one flood.
const FRAMES: u32 = 1_500;
/// Most memory that a process may keep after all that, beyond what it had; and inference, whose tensor library keeps something
/// of each of the many shapes that a long text takes (docs/OPERATIONS.md, Memory).
const KEPT_BYTES_MAX: u64 = 256 << 20;
const KEPT_OF_SHAPES_BYTES_MAX: u64 = 1_536 << 20;
/// Most answers that are read of one call.
const ANSWERS: usize = 16;

/// A service under attack.
struct Target {
    role: &'static str,
    service: Service,
    admin: SocketAddr,
    channel: Channel,
    methods: Vec<MethodDescriptor>,
}

impl Target {
    fn start(runtime: &Runtime, folder: &Folder, role: &'static str, settings: &[(&str, &str)]) -> Self {
        let admin = scrape::free_address().unwrap();
        let listen = admin.to_string();
        let mut all = vec![("DISTILLERY_ADMIN_LISTEN", listen.as_str())];
        all.extend(settings);
        let service = Service::start(folder.path(), role, &all).unwrap();
        let endpoint = Channel::from_shared(service.url().to_owned()).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        let methods = runtime.block_on(served(&channel)).unwrap();
        Self { role, service, admin, channel, methods }
    }

    fn memory(&self) -> Memory {
        memory(self.service.id()).unwrap()
    }

    fn open_files(&self) -> OpenFiles {
        let port = self.service.address().rsplit(':').next().unwrap().parse().unwrap();
        open_files(self.service.id(), port).unwrap()
    }

    /// Calls that ended with a code that says that the server is wrong, as it counts them itself.
    fn own_faults(&self) -> Vec<scrape::Series> {
        let families = scrape::parse(&scrape::get(self.admin, "/metrics").unwrap().1).unwrap();
        let series = &families[RPC_REQUESTS.name].series;
        let is_own = |code: &str| ["INTERNAL", "UNKNOWN", "DATA_LOSS"].contains(&code);
        series.iter().filter(|series| is_own(&series.labels["code"])).cloned().collect()
    }
}

/// Every role as a process, and a student that is to stay.
struct Services {
    targets: Vec<Target>,
    runtime: Runtime,
    teacher: Teacher,
    folder: Folder,
}

impl Services {
    fn start() -> Self {
        let folder =
            Folder::with_problems([24, 6, 6], &SpecText { name: "kept", ..SpecText::default() }).unwrap();
        let (teacher, runtime) =
            (Teacher::start(|asked| teach(&asked.prompt)).unwrap(), Runtime::new().unwrap());
        let taught = [("DISTILLERY_TEACHER_URL", teacher.url())];
        let harvester = Target::start(&runtime, &folder, "harvester", &taught);
        let url = harvester.service.url().to_owned();
        let settings = [("DISTILLERY_CLIENT_HARVESTER_URL", url.as_str())];
        let trainer = Target::start(&runtime, &folder, "trainer", &settings);
        let inference = Target::start(&runtime, &folder, "inference", &settings);
        let services = Self { targets: vec![harvester, trainer, inference], runtime, teacher, folder };
        done(services.say(0, &["submit", "spec.toml", "--watch"]));
        let ask = ["predict", "--model", "kept", "--file", "test.jsonl"];
        wait_for("the student to be served", || (services.say(2, &ask).code == 0).then_some(()));
        services
    }

    fn say(&self, target: usize, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", self.targets[target].service.url());
        binary::output(command).unwrap().into()
    }

    /// Each method with the place of its service.
    fn methods(&self) -> Vec<(usize, MethodDescriptor)> {
        let of = |(place, target): (usize, &Target)| {
            target.methods.iter().map(move |method| (place, method.clone())).collect::<Vec<_>>()
        };
        self.targets.iter().enumerate().flat_map(of).collect()
    }

    /// What the services tell of what is there.
    fn known(&self, dice: &mut Dice) -> Known {
        let mut known = Known::default();
        // Lists first; what they name can be asked for then.
        for _ in 0..3 {
            for (place, method) in self.methods().iter().filter(|(_, method)| tells(method.name())) {
                let (body, _) = Attempt::Valid.body(dice, &known, method);
                let answers =
                    self.runtime.block_on(send(&self.targets[*place].channel, &path(method), &[], body, 1));
                for answer in answers.unwrap_or_default() {
                    known.learn(&DynamicMessage::decode(method.output(), answer.as_slice()).unwrap());
                }
            }
        }
        known
    }

    /// Calls whose answers are the same each time, with their answers.
    fn witnesses(&self, dice: &mut Dice, known: &Known) -> Vec<Witness> {
        let mut found = Vec::new();
        for (place, method) in self.methods().iter().filter(|(_, method)| reads(method.name())) {
            for _ in 0..12 {
                let (body, _) = Attempt::Valid.body(dice, known, method);
                let most = answers_max(method);
                let mut witness =
                    Witness { place: *place, path: path(method), body, most, answers: Vec::new() };
                let first = witness.ask(self);
                if let Ok(first) = first.as_ref()
                    && witness.ask(self).is_ok_and(|second| second == *first)
                {
                    witness.answers.clone_from(first);
                    found.push(witness);
                    break;
                }
            }
        }
        found
    }

    /// Submits a job that may be harmed.
    fn spare(&self, number: u64, to_its_end: bool) {
        let data = format!("train = \"spare-{number}.jsonl\"\nvalidation = \"validation.jsonl\"");
        let name = format!("spare-{number}");
        write_problems(&self.folder.join(&format!("{name}.jsonl")), 12, 100 + number as usize).unwrap();
        let spec = SpecText { name: &name, data: &data, ..SpecText::default() };
        let file = format!("{name}.toml");
        self.folder.write(&file, spec.to_string()).unwrap();
        let watch = if to_its_end { &["submit", &file, "--watch"][..] } else { &["submit", &file] };
        done(self.say(0, watch));
    }

    /// Deletes every job but the one that stays.
    fn tidy_up(&self) {
        let listed = done(self.say(0, &["list", "--limit", "1000", "--json"])).json().unwrap();
        for job in listed["distillations"].as_array().unwrap() {
            let id = job["distillation"].as_str().unwrap();
            if job["name"] != "kept" {
                // One that has ended cannot be cancelled.
                self.say(0, &["cancel", id]);
                self.say(0, &["delete", id]);
            }
        }
    }
}

/// A call, and what is answered to it.
struct Witness {
    place: usize,
    path: String,
    body: Vec<u8>,
    most: usize,
    answers: Vec<Vec<u8>>,
}

impl Witness {
    fn ask(&self, services: &Services) -> Result<Vec<Vec<u8>>, Status> {
        let channel = &services.targets[self.place].channel;
        services.runtime.block_on(send(channel, &self.path, &[], self.body.clone(), self.most))
    }
}

/// Most answers that are read of a call: a watch of what does not change has one.
fn answers_max(method: &MethodDescriptor) -> usize {
    if method.name().starts_with("Watch") { 1 } else { ANSWERS }
}

/// Whether a method of this name tells what is there.
fn tells(name: &str) -> bool {
    ["List", "Get", "Stream", "ModelMetadata"].iter().any(|begin| name.starts_with(begin))
}

/// Whether a method of this name changes nothing. One that is not named here may.
fn reads(name: &str) -> bool {
    let known = ["Watch", "Estimate", "Judge", "Predict", "Explain", "Generate", "Server", "Model", "Check"];
    tells(name) || known.iter().any(|begin| name.starts_with(begin))
}

/// What is wrong with an answer; nothing where it is one that a caller can do something about.
fn fault(attempt: Attempt, status: &Status) -> bool {
    let ours = match status.code() {
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable | Code::Cancelled => true,
        Code::Unauthenticated => true,
        // An encoding that nobody speaks.
        Code::Unimplemented => attempt != Attempt::Misframed,
        _ => false,
    };
    ours || status.message().is_empty()
}

/// How the messages of a storm were answered.
#[derive(Default)]
struct Answered {
    counts: BTreeMap<(Attempt, String), u64>,
    accepted: BTreeSet<String>,
    /// The last refusal of what was to be accepted, by method.
    refused: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Answered {
    fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        self.accepted.extend(other.accepted);
        self.refused.extend(other.refused);
        self.faults.extend(other.faults);
    }
}

/// Sends `count` messages, the first of which is number `from`.
fn storm(services: &Services, dice: &Dice, known: &(Known, Known), from: u64, count: u64) -> Answered {
    let methods = Arc::new(services.methods());
    let channels: Arc<Vec<Channel>> =
        Arc::new(services.targets.iter().map(|target| target.channel.clone()).collect());
    let known = Arc::new(known.clone());
    let lanes: Vec<_> = (0..AT_ONCE)
        .map(|lane| {
            let (methods, channels, known, dice) =
                (Arc::clone(&methods), Arc::clone(&channels), Arc::clone(&known), dice.clone());
            services.runtime.spawn(async move {
                let mut answered = Answered::default();
                for number in (from + lane..from + count).step_by(AT_ONCE as usize) {
                    let mut dice = dice.part(number);
                    let (place, method) = dice.one_of(&methods).unwrap();
                    // What is deleted cannot be reached any more.
                    let ends = ["Delete", "Cancel"].iter().any(|begin| method.name().starts_with(begin));
                    if ends && dice.happens(80) {
                        continue;
                    }
                    let attempt = *dice.one_of(&Attempt::ALL).unwrap();
                    let known = if reads(method.name()) { &known.0 } else { &known.1 };
                    let (body, encoding) = attempt.body(&mut dice, known, method);
                    let headers: Vec<_> = encoding.map(|name| ("grpc-encoding", name)).into_iter().collect();
                    let answers = answers_max(method);
                    let sent = body.clone();
                    let outcome = send(&channels[*place], &path(method), &headers, body, answers).await;
                    let code = match &outcome {
                        Ok(_) => "Ok".to_owned(),
                        Err(status) => format!("{:?}", status.code()),
                    };
                    *answered.counts.entry((attempt, code)).or_default() += 1;
                    match outcome {
                        Ok(_) => drop(answered.accepted.insert(method.full_name().to_owned())),
                        Err(status) if fault(attempt, &status) => answered.faults.push(format!(
                            "message {number}, {attempt:?} to {}: {:?} {:.200} after {}",
                            method.full_name(),
                            status.code(),
                            status.message(),
                            hex::encode(&sent[..sent.len().min(400)])
                        )),
                        Err(status) if attempt == Attempt::Valid => {
                            let words = format!("{:?} {:.150}", status.code(), status.message());
                            answered.refused.insert(method.full_name().to_owned(), words);
                        }
                        Err(_) => {}
                    }
                }
                answered
            })
        })
        .collect();
    let mut all = Answered::default();
    for lane in lanes {
        all.add(services.runtime.block_on(lane).unwrap());
    }
    all
}

/// Every attack on every service, several at once. Returns how many connections the services closed before an attack's end.
fn flood(services: &Services, dice: &Dice, frames: u32) -> usize {
    let address = |target: &Target| target.service.address().to_owned();
    let addresses: Vec<String> = services.targets.iter().map(address).collect();
    let jobs: Vec<(usize, usize)> = (0..addresses.len())
        .flat_map(|target| (0..ATTACKS.len()).map(move |attack| (target, attack)))
        .collect();
    let (jobs, addresses) = (&jobs, &addresses);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..6)
            .map(|lane| {
                scope.spawn(move || {
                    let mut repelled = 0;
                    for (number, (target, attack)) in jobs.iter().enumerate().skip(lane).step_by(6) {
                        let (_, attack) = ATTACKS[*attack];
                        let mut line =
                            Line::open(&addresses[*target], "/grpc.health.v1.Health/Check").unwrap();
                        repelled +=
                            usize::from(attack(&mut line, &mut dice.part(number as u64), frames).is_err());
                    }
                    repelled
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    })
}

/// Checks what holds whatever was sent, and says what it cost.
fn check(services: &mut Services, before: &[(Memory, OpenFiles)], witnesses: &[Witness]) {
    for witness in witnesses {
        assert_eq!(witness.ask(services).unwrap(), witness.answers, "{}", witness.path);
    }
    for (target, (memory, files)) in services.targets.iter_mut().zip(before) {
        let role = target.role;
        assert!(target.service.child().try_wait().unwrap().is_none(), "{role} ended");
        assert_eq!(scrape::get(target.admin, "/readyz").unwrap().0, 200, "{role} is not ready");
        let kept = wait_for("files to be closed", || {
            let now = target.open_files();
            ((now.callers, now.files) == (files.callers, files.files)).then_some(now)
        });
        let now = target.memory();
        println!(
            "{role}: resident {} MiB before, {} MiB after, {} MiB at most; open files before {files:?}, after {kept:?}",
            memory.resident >> 20,
            now.resident >> 20,
            now.peak >> 20,
        );
        let most = if role == "inference" { KEPT_OF_SHAPES_BYTES_MAX } else { KEPT_BYTES_MAX };
        assert!(now.resident < memory.resident + most, "{role} keeps memory");
        assert_eq!(target.own_faults(), [], "{role}");
        let log = std::fs::read_to_string(services.folder.join(&format!("{role}.log"))).unwrap();
        let trouble: Vec<&str> =
            log.lines().filter(|line| line.contains("panicked at") || line.contains("ERROR")).collect();
        assert!(trouble.is_empty(), "{role}: {trouble:#?}");
    }
}

#[test]
fn no_message_and_no_frame_harms_a_service() {
    let _alone = alone();
    let effort = Effort::asked(MESSAGES);
    let mut dice = Dice::new();
    let mut services = Services::start();
    let kept = services.known(&mut dice);
    let mut witnesses = services.witnesses(&mut dice, &kept);
    // What tells of everything changes with another job.
    services.spare(0, true);
    witnesses.retain(|witness| witness.ask(&services).is_ok_and(|answers| answers == witness.answers));
    println!("{} methods, {} of which answer the same each time", services.methods().len(), witnesses.len());
    assert!(witnesses.len() > 15, "too few calls are answered alike");
    // Pools fill, caches are made.
    storm(&services, &dice.part(0), &(kept.clone(), Known::default()), 0, 200);
    flood(&services, &dice, 50);
    let before: Vec<_> =
        services.targets.iter().map(|target| (target.memory(), target.open_files())).collect();

    let began = Instant::now();
    let mut answered = Answered::default();
    for (round, from) in (0..effort.messages).step_by(ROUND as usize).enumerate() {
        services.spare(1 + round as u64, round % 4 == 0);
        let all = services.known(&mut dice);
        let spare = all.without(&kept);
        answered.add(storm(&services, &dice, &(all, spare), from, ROUND.min(effort.messages - from)));
        services.tidy_up();
        if !answered.faults.is_empty() {
            break;
        }
    }
    println!("{} messages within {:.1?}: {:?}", effort.messages, began.elapsed(), answered.counts);
    let mut never = answered.refused.clone();
    never.retain(|name, _| !answered.accepted.contains(name));
    println!("never accepted: {never:#?}");
    assert!(answered.faults.is_empty(), "{} faults: {}", answered.faults.len(), answered.faults.join("\n"));
    assert!(answered.accepted.len() > never.len(), "too few messages were accepted");

    let began = Instant::now();
    let (mut floods, mut repelled) = (0, 0);
    while floods == 0 || began.elapsed() < Duration::from_secs(60 * effort.minutes) {
        repelled += flood(&services, &dice.part(floods), FRAMES);
        floods += 1;
    }
    let attacks = floods as usize * services.targets.len() * ATTACKS.len();
    println!("{attacks} attacks within {:.1?}, {repelled} of which were cut off", began.elapsed());
    check(&mut services, &before, &witnesses);
    println!("the teacher was asked {} times", services.teacher.requests());
}

/// Clients with the other tests, and in `make soak`; calls of each.
const CROWD: [usize; 2] = [20, 100];
const CALLS: usize = 20;
/// Most memory of a process with so many clients at their worst (docs/OPERATIONS.md, Memory).
const CEILING_BYTES: u64 = 1 << 30;
/// Rows of the longest texts.
const LONG_ROWS: usize = 400;

/// The worst that clients do to the service at `place`: half of the calls begin the longest message and do not end it, the
/// others ask for what is long, and read nothing. Returns how many were refused.
fn crowd(services: &Services, place: usize, clients: usize, asks: &[(String, Vec<u8>)]) -> usize {
    let target = &services.targets[place];
    let begins: Vec<String> =
        target.methods.iter().map(path).filter(|path| !path.contains("grpc.")).collect();
    let (mut lines, mut begun) = (Vec::new(), Vec::new());
    for client in 0..clients {
        let (path, message) = &asks[client % asks.len()];
        let mut line = Line::open(target.service.address(), path).unwrap();
        line.ask_and_read_nothing(message, CALLS as u32 / 2).unwrap();
        lines.push(line);
        let endpoint = Channel::from_shared(target.service.url().to_owned()).unwrap();
        let channel = services.runtime.block_on(endpoint.connect()).unwrap();
        begun.extend((0..CALLS / 2).map(|call| {
            let path = begins[(client * CALLS + call) % begins.len()].clone();
            services.runtime.spawn(begin_longest(channel.clone(), path, LONGEST))
        }));
    }
    // Until the service takes no more: its memory has stopped growing.
    let mut seen = (Instant::now(), 0);
    let process = target.service.id();
    wait_for("memory to stop growing", || {
        let now = memory(process).unwrap().peak;
        if now > seen.1 {
            seen = (Instant::now(), now);
        }
        (seen.0.elapsed() > Duration::from_secs(2)).then_some(())
    });
    let refused = begun.iter().filter(|call| call.is_finished()).count();
    begun.iter().for_each(tokio::task::JoinHandle::abort);
    refused
}

/// The longest message that is taken.
const LONGEST: usize = 16 << 20;

#[test]
fn a_crowd_at_its_worst_stays_under_the_ceiling() {
    let _alone = alone();
    let clients = CROWD[usize::from(Effort::asked(0).minutes > 0)];
    let mut dice = Dice::new();
    let mut services = Services::start();
    let (left, right) = ("left ".repeat(3_000), "right ".repeat(2_500));
    let row = |number: usize| {
        format!("{}\n", serde_json::json!({"premise": format!("{number} {left}"), "hypothesis": right}))
    };
    services.folder.write("long.jsonl", (0..LONG_ROWS).map(row).collect::<String>()).unwrap();
    done(services.say(0, &["import", "jsonl", "long.jsonl"]));
    let known = services.known(&mut dice);
    let mut asks: [Vec<(String, Vec<u8>)>; 3] = Default::default();
    for (place, method) in services.methods() {
        // What a caller may ask for, in full: each list, each stream, each text.
        if reads(method.name()) && !method.full_name().starts_with("grpc.") {
            let found = (0..8).map(|_| known.ask(&mut dice, &method));
            asks[place].extend(found.map(|message| (path(&method), message)));
        }
    }
    for (place, asks) in asks.iter().enumerate().filter(|(_, asks)| !asks.is_empty()) {
        let before = services.targets[place].memory();
        let refused = crowd(&services, place, clients, asks);
        let target = &mut services.targets[place];
        let after = target.memory();
        println!(
            "{}: {clients} clients with {CALLS} calls each: {} MiB before, {} MiB at most, {refused} refused",
            target.role,
            before.resident >> 20,
            after.peak >> 20
        );
        assert!(after.peak < CEILING_BYTES, "{} takes {} MiB", target.role, after.peak >> 20);
        assert_eq!(scrape::get(target.admin, "/readyz").unwrap().0, 200);
    }
    let ask = ["predict", "--model", "kept", "--file", "test.jsonl"];
    done(services.say(2, &ask));
    done(services.say(0, &["show", "kept"]));
}
