//! A job on a cluster has the result of an undisturbed run on one machine, whichever processes are killed.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tests::binary;
use tests::cluster::{
    Cluster, FinalState, LIMIT, NOBODY, Workload, alone, done, resumable, students, wait_for,
};
use tests::data::SpecText;
use tests::dice::Dice;
use tests::effort::Effort;
use tests::service::Service;

/// Harvesters in the smaller tests.
const HARVESTERS: usize = 2;

#[test]
fn a_job_on_a_cluster_ends_as_on_one_machine() {
    let _alone = alone();
    let undisturbed = Workload::SMALL.on_one_machine();
    let cluster = Cluster::new(Workload::SMALL);
    let harvesters = cluster.harvesters(HARVESTERS);
    let trainer = cluster.start("trainer", harvesters[0].url());
    let inference = cluster.start("inference", harvesters[1].url());
    cluster.submit(harvesters[0].url());
    cluster.watch(harvesters[1].url());
    // Every replica knows everything.
    for harvester in &harvesters {
        cluster.end(harvester.url()).check(&undisturbed);
    }
    assert_eq!(cluster.paid_twice(), 0);
    cluster.check_predictions(inference.url());
    for service in [trainer, inference].into_iter().chain(harvesters) {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}

#[test]
fn a_student_on_a_cluster_starts_from_a_folder_of_its_user() {
    let _alone = alone();
    let cluster = Cluster::new(Workload::SMALL);
    let harvester = cluster.start("harvester", NOBODY);
    let _trainer = cluster.start("trainer", harvester.url());
    cluster.submit(harvester.url());
    cluster.watch(harvester.url());
    let base = cluster.folder.join("base");
    std::fs::create_dir(&base).unwrap();
    let student = students(&cluster.folder.join("shared")).remove(0);
    // As published by others: without our own file.
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(student.join(file), base.join(file)).unwrap();
    }
    let next = SpecText { name: "next", student: "init = \"base\"", ..SpecText::default() };
    cluster.folder.write("next.toml", next.to_string()).unwrap();
    let arguments = ["submit", "next.toml", "--watch", "--json", "--config", "cluster.toml"];
    let outcome = done(cluster.say(harvester.url(), &arguments)).json().unwrap();
    assert_eq!((&outcome["state"], &outcome["model"]), (&"succeeded".into(), &"next@1".into()));
    let shown = done(cluster.say(harvester.url(), &["show", "next", "--json"])).json().unwrap();
    let start = shown["spec"]["start"].to_string();
    assert!(start.contains("base-"), "{start}");
}

#[test]
fn two_trainers_fight_for_a_run() {
    let _alone = alone();
    let undisturbed = Workload::SMALL.on_one_machine();
    for step in [5, 25] {
        let cluster = Cluster::new(Workload::SMALL);
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

        // The first still holds its run. It takes the next job only after giving it up.
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
    let work = Workload { rows: [60, 6, 6], delay: Duration::from_millis(200), ..Workload::SMALL };
    let undisturbed = work.on_one_machine();
    let cluster = Cluster::new(work);
    let harvesters = cluster.harvesters(HARVESTERS);
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
    assert!(paid_twice <= work.lost_max() * HARVESTERS, "{paid_twice}");
}

/// A process of the cluster and its replacements.
struct Seat {
    role: &'static str,
    harvester: String,
    service: Service,
}

impl Seat {
    fn new(cluster: &Cluster, role: &'static str, harvester: &str) -> Self {
        Self { role, harvester: harvester.to_owned(), service: cluster.start(role, harvester) }
    }

    /// Restarts it at the same address, with retries, like an orchestrator.
    fn start_again(&mut self, cluster: &Cluster) {
        let address = self.service.address().to_owned();
        let settings = [("DISTILLERY_SERVER_LISTEN", address.as_str())];
        self.service = wait_for(self.role, || cluster.try_start(self.role, &self.harvester, &settings).ok());
    }
}

/// The services of the big job: harvesters, trainers, inference services.
const SEATS: [(&str, usize); 3] = [("harvester", 3), ("trainer", 2), ("inference", 2)];
/// Kills in each of the two stages, harvest and training.
const KILLS: usize = 25;
/// Kills during the harvest after which Redis loses everything, and after which PostgreSQL crashes.
const FLUSH_AFTER: usize = 10;
const CRASH_AFTER: usize = 18;
/// The longest time between two faults.
const CALM_MS_MAX: u64 = 900;

/// Starts every service.
fn seats(cluster: &Cluster) -> Vec<Seat> {
    let mut seats: Vec<Seat> = Vec::new();
    for (role, count) in SEATS {
        for number in 0..count {
            let harvester =
                if role == "harvester" { NOBODY.to_owned() } else { seats[number].service.url().to_owned() };
            seats.push(Seat::new(cluster, role, &harvester));
        }
    }
    seats
}

/// Kills one or two services at a time, at random times. Returns the number of kills by role.
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

/// The result of a job on the whole cluster.
struct ClusterOutcome {
    end: FinalState,
    wall: Duration,
    paid_twice: usize,
}

impl ClusterOutcome {
    fn of(cluster: &Cluster, seats: &[Seat], began: Instant) -> Self {
        let url = seats[1].service.url();
        cluster.watch(url);
        let wall = began.elapsed();
        let outcome = Self { end: cluster.end(url), wall, paid_twice: cluster.paid_twice() };
        for seat in seats.iter().filter(|seat| seat.role == "inference") {
            cluster.check_predictions(seat.service.url());
        }
        outcome
    }
}

fn undisturbed(work: Workload) -> ClusterOutcome {
    let cluster = Cluster::new(work);
    let seats = seats(&cluster);
    let began = Instant::now();
    cluster.submit(seats[0].service.url());
    ClusterOutcome::of(&cluster, &seats, began)
}

#[test]
fn random_kills_change_nothing() {
    let _alone = alone();
    let work =
        Workload { rows: [1_900, 100, 100], steps: 300, delay: Duration::from_millis(300), concurrency: 4 };
    let mut dice = Dice::new();
    // The end does not depend on how long the teacher thinks.
    let calm = undisturbed(Workload { delay: Workload::SMALL.delay, ..work });
    assert_eq!(calm.paid_twice, 0);
    for _ in 0..Effort::rounds() {
        kill_at_random(work, &mut dice, &calm.end);
    }
}

/// Kills the services of a job at random, and compares its end with that of the same job in calm.
fn kill_at_random(work: Workload, dice: &mut Dice, calm: &FinalState) {
    let cluster = Cluster::new(work);
    let mut seats = seats(&cluster);
    let urls: Vec<String> = seats.iter().map(|seat| seat.service.url().to_owned()).collect();
    let began = Instant::now();
    cluster.submit(&urls[0]);
    wait_for("a harvest", || (cluster.teacher.answered() > 0).then_some(()));
    let harvest = disturb(&cluster, &mut seats, dice, |kills| match kills {
        FLUSH_AFTER => cluster.redis.flush_all().unwrap(),
        CRASH_AFTER => {
            cluster.postgres.kill().unwrap();
            cluster.postgres.restart().unwrap();
        }
        _ => {}
    });
    assert_eq!(cluster.state(&urls[0]).as_deref(), Some("harvesting"), "too small a job for so many kills");
    cluster.wait_until(&urls[1], "training");
    let training = disturb(&cluster, &mut seats, dice, |_| {});
    assert_eq!(cluster.state(&urls[0]).as_deref(), Some("training"), "too small a job for so many kills");
    let stormy = ClusterOutcome::of(&cluster, &seats, began);

    let lost = stormy.end.lost(calm).len();
    println!(
        "{} rows, lost {lost}, doubled 0, paid twice {}; kills in the harvest {harvest:?}, in training \
         {training:?}; {:.1?}",
        stormy.end.ledger.len(),
        stormy.paid_twice,
        stormy.wall
    );
    stormy.end.check(calm);
    // Answers in flight when a harvester was killed, and in all harvesters when a server lost data or crashed.
    let losses = harvest.get("harvester").unwrap_or(&0) + 2 * SEATS[0].1;
    assert!(stormy.paid_twice <= losses * work.lost_max(), "{}", stormy.paid_twice);
}
