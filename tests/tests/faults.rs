//! Faults of a cluster other than kills: broken connections, full disks, vanished clients, outages of teacher and servers,
//! many jobs at once. The result of the job does not change.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::binary;
use tests::cluster::{
    Cluster, FinalState, LEASE_SECONDS, NOBODY, Workload, alone, done, resumable, wait_for,
};
use tests::data::{SpecText, question, teach, write_problems};
use tests::dice::Dice;
use tests::effort::Effort;
use tests::proxy::Proxy;
use tests::teacher::Reply;

/// Long enough to be disturbed.
const LONG: Workload =
    Workload { rows: [100, 10, 10], steps: 120, delay: Duration::from_millis(200), concurrency: 4 };

fn after_scheme(url: &str) -> &str {
    let rest = url.split("://").nth(1).unwrap();
    rest.rsplit('@').next().unwrap().split('/').next().unwrap()
}

fn outlive_the_lease() {
    std::thread::sleep(Duration::from_secs(2 * LEASE_SECONDS as u64 + 1));
}

/// Cuts random connections at random times while the job is in `state`, at most `cuts` times.
fn cut(cluster: &Cluster, url: &str, state: &str, lines: &[&Proxy], dice: &mut Dice, cuts: usize) -> usize {
    for count in 0..cuts {
        std::thread::sleep(Duration::from_millis(dice.below(250)));
        if count % 5 == 0 && cluster.state(url).as_deref() != Some(state) {
            return count;
        }
        lines[dice.below(lines.len() as u64) as usize].cut();
    }
    cuts
}

#[test]
fn lines_that_are_cut_slow_and_dead_change_nothing() {
    let _alone = alone();
    let mut dice = Dice::new();
    let undisturbed = LONG.on_one_machine();
    for _ in 0..Effort::rounds() {
        cut_lines(&mut dice, &undisturbed);
    }
}

/// Cuts, slows and stalls the lines between services while they work at a job.
fn cut_lines(dice: &mut Dice, undisturbed: &FinalState) {
    let cluster = Cluster::new(LONG);
    let (database, redis) = (cluster.postgres.url(), cluster.redis.url());
    let postgres_line = Proxy::start(after_scheme(&database)).unwrap();
    let redis_line = Proxy::start(after_scheme(&redis)).unwrap();
    let (database, redis) = (postgres_line.url(&database), redis_line.url(&redis));
    let lines = [("DISTILLERY_DATABASE_URL", database.as_str()), ("DISTILLERY_REDIS_URL", &redis)];
    let harvester = cluster.try_start("harvester", NOBODY, &lines).unwrap();
    // Queries about the job do not go through the broken connections.
    let witness = cluster.try_start("harvester", NOBODY, &[("DISTILLERY_HARVESTER_WORKERS", "0")]).unwrap();
    let trainer_line = Proxy::start(harvester.address()).unwrap();
    let _trainer = cluster.start("trainer", &format!("http://{}", trainer_line.address()));
    trainer_line.slow(Duration::from_millis(20));
    cluster.submit(witness.url());

    wait_for("a harvest", || (cluster.teacher.answered() > 0).then_some(()));
    let in_harvest = cut(&cluster, witness.url(), "harvesting", &[&postgres_line, &redis_line], dice, 20);
    // The database accepts connections and does not answer.
    postgres_line.stall();
    outlive_the_lease();
    postgres_line.open();
    cluster.wait_until(witness.url(), "training");
    let all = [&postgres_line, &redis_line, &trainer_line];
    let in_training = cut(&cluster, witness.url(), "training", &all, dice, 20);
    assert_eq!(cluster.state(witness.url()).as_deref(), Some("training"), "too small a job for so many cuts");
    // The harvester does not answer for longer than a lease.
    trainer_line.stall();
    outlive_the_lease();
    trainer_line.open();
    cluster.watch(witness.url());

    cluster.end(witness.url()).check(undisturbed);
    let ended: usize = all.iter().map(|line| line.cuts()).sum();
    let paid_twice = cluster.paid_twice();
    println!(
        "{} cuts in the harvest and {in_training} in training, {ended} connections ended, lines silent for longer \
         than a lease: lost 0, doubled 0, paid twice {paid_twice}",
        in_harvest
    );
    assert!(in_harvest > 5 && ended > in_harvest, "{in_harvest} {ended}");
    // Answers in flight while the database was silent for longer than a lease.
    assert!(paid_twice <= LONG.lost_max(), "{paid_twice}");
}

/// A small disk that can be filled; unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// `None` if this user may not mount.
    fn mount(place: &'a Path, megabytes: usize) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(place)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(place))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_fails_a_job_which_goes_on_when_it_is_not() {
    let _alone = alone();
    let work = Workload { steps: 60, ..Workload::SMALL };
    let undisturbed = work.on_one_machine();
    let cluster = Cluster::new(work);
    let shared = cluster.folder.join("shared");
    let Some(_disk) = Disk::mount(&shared, 24) else {
        println!("SKIPPED: this user may not mount a small disk to fill");
        return;
    };
    let harvester = cluster.start("harvester", NOBODY);
    let _trainer = cluster.start("trainer", harvester.url());
    cluster.submit(harvester.url());
    wait_for("a resume state", || (!resumable(&shared).is_empty()).then_some(()));
    let ballast = shared.join("ballast");
    // As much as fits: it ends with an error.
    let _ = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&ballast).unwrap());
    let shown = wait_for("the disk is full", || {
        let shown = cluster.shown(harvester.url())?;
        (shown["state"] != "training" && shown["state"] != "evaluating").then_some(shown)
    });
    let reason = shown["reason"].as_str().unwrap();
    println!("{}: {reason}", shown["state"]);
    assert_eq!(shown["state"], "failed");
    assert!(reason.contains("No space left on device") && reason.contains("shared"), "{reason}");
    assert!(cluster.models(harvester.url()).is_empty());

    std::fs::remove_file(&ballast).unwrap();
    done(cluster.say(harvester.url(), &["resume", "job"]));
    cluster.watch(harvester.url());
    cluster.end(harvester.url()).check(&undisturbed);
    assert_eq!(cluster.paid_twice(), 0);
    // No incomplete folder is left, and no resume state.
    assert_eq!(resumable(&shared), Vec::<u64>::new());
    let staged = std::fs::read_dir(shared.join("staging")).into_iter().flatten().count();
    assert_eq!(staged, 0);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let _alone = alone();
    let undisturbed = LONG.on_one_machine();
    let cluster = Cluster::new(LONG);
    let harvester = cluster.start("harvester", NOBODY);
    let trainer = cluster.start("trainer", harvester.url());
    let big: usize = 60_000;
    write_problems(&cluster.folder.join("big.jsonl"), big, 0).unwrap();
    cluster.submit(harvester.url());
    let verbs: [&[&str]; 3] =
        [&["watch", "job", "--json"], &["export", "jsonl", "job", "-"], &["import", "jsonl", "big.jsonl"]];
    for round in 0..8 {
        let mut clients: Vec<_> = verbs
            .iter()
            .map(|verb| {
                let mut command = binary::command(cluster.folder.path(), verb).unwrap();
                command.env("DISTILLERY_SERVER", harvester.url());
                // A client that never reads.
                command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200 + 100 * round));
        for client in &mut clients {
            client.kill().unwrap();
            client.wait().unwrap();
        }
    }
    // An incomplete upload is invisible and can be resumed.
    let absent = cluster.say(harvester.url(), &["export", "jsonl", "big", "-"]);
    assert!(absent.code == 2 && absent.err.contains("there is no dataset `big`"), "{}", absent.err);
    let imported = done(cluster.say(harvester.url(), &["import", "jsonl", "big.jsonl", "--json"]));
    assert_eq!(imported.json().unwrap()["rows"], big as u64);
    cluster.watch(harvester.url());
    cluster.end(harvester.url()).check(&undisturbed);
    assert_eq!(cluster.paid_twice(), 0);
    // Streams of vanished clients do not delay the shutdown.
    let began = Instant::now();
    for service in [trainer, harvester] {
        assert_eq!(service.stop(Duration::from_secs(20)).unwrap(), 0);
    }
    println!("stopped within {:.1?}", began.elapsed());
}

#[test]
fn a_teacher_that_is_away_for_long_pauses_a_job_which_goes_on() {
    let _alone = alone();
    let undisturbed = LONG.on_one_machine();
    let away = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&away);
    let cluster = Cluster::taught_by(LONG, move |asked| {
        if answers.load(Ordering::SeqCst) {
            return Reply::status(503, "gone fishing");
        }
        teach(&asked.prompt).after(LONG.delay)
    });
    let patience = [("DISTILLERY_HARVESTER_OUTAGE_SECONDS", "2")];
    let harvesters: Vec<_> =
        (0..2).map(|_| cluster.try_start("harvester", NOBODY, &patience).unwrap()).collect();
    let url = harvesters[0].url();
    let _trainer = cluster.start("trainer", url);
    cluster.submit(url);
    wait_for("a harvest", || (cluster.teacher.answered() >= 20).then_some(()));
    away.store(true, Ordering::SeqCst);
    cluster.wait_until(url, "paused");
    let shown = cluster.shown(url).unwrap();
    let reason = shown["reason"].as_str().unwrap();
    println!("{reason}");
    assert!(reason.contains("teacher `local`") && reason.contains("503"), "{reason}");
    let answered = shown["harvest"]["prompts"]["answered"].as_u64().unwrap();
    assert!(answered >= 20 && answered < LONG.prompts() as u64, "{answered}");

    away.store(false, Ordering::SeqCst);
    done(cluster.say(url, &["resume", "job"]));
    cluster.watch(url);
    cluster.end(url).check(&undisturbed);
    // Failed calls are calls and cost no tokens: every prompt was paid for once.
    assert_eq!(cluster.shown(url).unwrap()["harvest"]["tokens_out"], 20 * LONG.prompts() as u64);
}

#[test]
fn a_work_list_that_is_away_and_comes_back_empty_loses_nothing() {
    let _alone = alone();
    let undisturbed = LONG.on_one_machine();
    let cluster = Cluster::new(LONG);
    let harvesters = cluster.harvesters(2);
    let url = harvesters[0].url();
    let _trainer = cluster.start("trainer", url);
    cluster.submit(url);
    for answered in [10, 50] {
        wait_for("a harvest", || (cluster.teacher.answered() >= answered).then_some(()));
        cluster.redis.kill().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        cluster.redis.restart().unwrap();
    }
    cluster.watch(url);
    cluster.end(url).check(&undisturbed);
    let paid_twice = cluster.paid_twice();
    println!("Redis away twice, and empty afterwards: lost 0, paid twice {paid_twice}");
    assert!(paid_twice <= 2 * 2 * LONG.lost_max(), "{paid_twice}");
}

/// Concurrent jobs, and the sets of rows that they share.
const JOBS: usize = 100;
const SETS: usize = 10;

#[test]
fn a_hundred_jobs_at_once_pay_for_each_question_once() {
    let _alone = alone();
    // So slow that jobs with the same rows arrive while a call is in flight.
    let work = Workload { rows: [6, 2, 2], delay: Duration::from_secs(3), ..Workload::SMALL };
    let cluster = Cluster::new(work);
    let mut questions = BTreeSet::new();
    for set in 0..SETS {
        for (split, rows) in ["train", "validation", "test"].into_iter().zip(work.rows) {
            let path = cluster.folder.join(&format!("{split}-{set}.jsonl"));
            write_problems(&path, rows, 10 * set + split.len()).unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            if split != "validation" {
                questions.extend(rows.map(|row| row["input"].as_str().unwrap().to_owned()));
            }
        }
    }
    let harvesters = cluster.harvesters(2);
    let _trainers: Vec<_> =
        harvesters.iter().map(|harvester| cluster.start("trainer", harvester.url())).collect();
    let began = Instant::now();
    let submit = |job: usize| {
        let data = ["train", "validation", "test"]
            .map(|split| format!("{split} = \"{split}-{}.jsonl\"", job % SETS));
        let spec = SpecText {
            name: &format!("job-{job}"),
            data: &data.join("\n"),
            training: "steps = 1\nbatch_examples = 8\ntarget_tokens_max = 32",
            ..SpecText::default()
        };
        let file = format!("spec-{job}.toml");
        cluster.folder.write(&file, spec.to_string()).unwrap();
        done(cluster.say(harvesters[job % 2].url(), &["submit", &file, "--json"]));
    };
    std::thread::scope(|scope| {
        for lane in 0..10 {
            scope.spawn(move || (lane..JOBS).step_by(10).for_each(submit));
        }
    });
    let submitted = began.elapsed();
    let states = || {
        let list =
            done(cluster.say(harvesters[1].url(), &["list", "--limit", "200", "--json"])).json().unwrap();
        let jobs = list["distillations"].as_array().unwrap();
        for job in jobs {
            let state = job["state"].as_str().unwrap();
            assert!(!["failed", "paused", "cancelled"].contains(&state), "{job}");
        }
        jobs.iter().map(|job| job["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_for("all jobs", || {
        let states = states();
        (states.len() == JOBS && states.iter().all(|state| state == "succeeded")).then_some(())
    });
    println!("{JOBS} jobs: submitted within {submitted:.1?}, done within {:.1?}", began.elapsed());
    let models: BTreeSet<String> = cluster.models(harvesters[0].url()).into_iter().collect();
    assert_eq!(models, (0..JOBS).map(|job| format!("job-{job}@1")).collect());
    let asked: BTreeSet<String> =
        cluster.teacher.counts().keys().map(|prompt| question(prompt).to_owned()).collect();
    assert_eq!(asked, questions);
    assert_eq!(cluster.teacher.requests(), questions.len(), "a question was paid for twice");
}

/// Of the question that nobody survives who asks it.
const DEADLY: &str = "deadly";

#[test]
fn a_job_at_which_harvesters_are_lost_is_set_aside_and_no_other() {
    let _alone = alone();
    let work = Workload::SMALL;
    let cluster = Cluster::taught_by(work, move |asked| match question(&asked.prompt).contains(DEADLY) {
        true => Reply::silence(),
        false => teach(&asked.prompt).after(work.delay),
    });
    let row = serde_json::json!({"input": "Which box is the deadly one?", "label": "( 1 + 1 )"});
    cluster.folder.write("deadly.jsonl", row.to_string()).unwrap();
    let spec = SpecText { name: DEADLY, data: "train = \"deadly.jsonl\"", ..SpecText::default() };
    cluster.folder.write("deadly.toml", spec.to_string()).unwrap();
    let witness = cluster.try_start("harvester", NOBODY, &[("DISTILLERY_HARVESTER_WORKERS", "0")]).unwrap();
    for spec in ["deadly.toml", "spec.toml"] {
        done(cluster.say(witness.url(), &["submit", spec, "--json"]));
    }
    let asked = || -> usize {
        let counts = cluster.teacher.counts();
        counts.iter().filter(|(prompt, _)| question(prompt).contains(DEADLY)).map(|(_, count)| count).sum()
    };
    let start = || {
        let settings = [("DISTILLERY_HARVESTER_LOST_HARVESTERS_MAX", "3")];
        cluster.try_start("harvester", NOBODY, &settings).unwrap()
    };
    for _ in 0..3 {
        let (before, mut harvester) = (asked(), start());
        wait_for("the deadly question", || (asked() > before).then_some(()));
        harvester.kill().unwrap();
    }
    let _harvester = start();
    let reason = wait_for("a pause", || {
        let said = cluster.say(witness.url(), &["show", DEADLY, "--json"]);
        let shown = said.json().ok()?;
        (shown["state"] == "paused").then(|| shown["reason"].as_str().unwrap().to_owned())
    });
    assert!(reason.starts_with("3 harvesters in a row were lost"), "{reason}");
    cluster.wait_until(witness.url(), "training");
    assert_eq!(asked(), 3, "nobody asks it any more");
    done(cluster.say(witness.url(), &["resume", DEADLY]));
    wait_for("it is tried again", || (asked() > 3).then_some(()));
}
