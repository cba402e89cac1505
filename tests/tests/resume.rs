//! A job that is killed at any time resumes, asks no answered prompt again, and has the same result, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use domain::ids::DistillationId;
use domain::ports::{DistillationFilter, PageRequest};
use domain::state::PromptState;
use domain::{DatasetStore, JobStore, PromptStore, RunStore};
use embedded::SqliteStore;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tests::binary;
use tests::data::{SpecText, question, teach};
use tests::folder::{Folder, NOBODY, Said, predictions};
use tests::teacher::{Reply, Teacher, TeacherRequest};

const ROWS: [usize; 3] = [60, 10, 10];
/// Train rows for rationales, and test rows to measure the teacher.
const PROMPTS: usize = 70;
/// Concurrent calls, set by these tests.
const CONCURRENCY: usize = 4;
const TRAINING: &str = "steps = 30\nbatch_examples = 8\ncheckpoint_every_steps = 5\nevaluate_every_steps = 30\n\
                        target_tokens_max = 32";
const DELAY: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
const RUN: &[&str] = &["run", "spec.toml", "--json"];

fn new_job() -> Folder {
    job_of(&SpecText { training: TRAINING, ..SpecText::default() })
}

fn job_of(spec: &SpecText<'_>) -> Folder {
    let job = Folder::with_problems(ROWS, spec).unwrap();
    job.write("distillery.toml", format!("[teachers.local]\nconcurrency_max = {CONCURRENCY}\n")).unwrap();
    job
}

fn slow_teacher() -> Teacher {
    Teacher::start(|asked| teach(&asked.prompt).after(DELAY)).unwrap()
}

/// The result of a job: sha256 of the student's files, and the outcome without ids, paths and times.
#[derive(Debug, PartialEq)]
struct End {
    files: BTreeMap<String, String>,
    predictions: Vec<Value>,
    teacher: Value,
    student: Value,
}

fn end_of(said: &Said) -> End {
    assert_eq!(said.code, 0, "{}", said.err);
    let outcome = said.json().unwrap();
    assert_eq!(outcome["state"], "succeeded");
    let folder = PathBuf::from(outcome["model_dir"].as_str().unwrap());
    let files =
        ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "distillery.json"];
    let sha256 = |name: &str| hex::encode(Sha256::digest(std::fs::read(folder.join(name)).unwrap()));
    let files = files.into_iter().map(|name| (name.to_owned(), sha256(name))).collect();
    let predictions = predictions(&folder).unwrap();
    let mut teacher = outcome["teacher"].clone();
    // A call that was in flight at a kill may have been paid for.
    teacher.as_object_mut().unwrap().remove("in_doubt");
    End { files, predictions, teacher, student: outcome["student"].clone() }
}

/// The result of the undisturbed job.
fn undisturbed() -> &'static End {
    static END: OnceLock<End> = OnceLock::new();
    END.get_or_init(|| {
        let (job, teacher) = (new_job(), slow_teacher());
        let end = end_of(&job.say(teacher.url(), RUN).unwrap());
        assert_eq!(teacher.requests(), PROMPTS);
        end
    })
}

/// When a process is ended.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// After this number of requests.
    Asked(usize),
    /// After this number of answers.
    Answered(usize),
    /// The resume state of this step or a later one exists; the run may not point to it yet.
    Step(u64),
    /// The same, and the trainer has removed its previous one: the run resumes from this step or a later one.
    Resumable(u64),
    /// The student's folder exists.
    Published,
}

impl Until {
    fn is_reached(self, job: &Folder, teacher: &Teacher) -> bool {
        match self {
            Self::Asked(count) => teacher.requests() >= count,
            Self::Answered(count) => teacher.answered() >= count,
            Self::Step(step) => checkpoints(job, "-resume").iter().any(|(_, there)| *there >= step),
            Self::Resumable(step) => {
                let all = checkpoints(job, "-resume");
                let newest = all.iter().map(|(fence, _)| *fence).max();
                let mut of_newest = all.iter().filter(|(fence, _)| Some(*fence) == newest);
                matches!((of_newest.next(), of_newest.next()), (Some((_, only)), None) if *only >= step)
            }
            Self::Published => !checkpoints(job, "-model").is_empty(),
        }
    }
}

/// Fences and steps of the complete folders of one kind in the data folder.
fn checkpoints(job: &Folder, kind: &str) -> Vec<(u64, u64)> {
    let list =
        |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    list(job.join(".distillery/checkpoints/runs"))
        .flat_map(list)
        .flat_map(list)
        .filter_map(|path| {
            let step = path.file_name()?.to_str()?.strip_suffix(kind)?.parse().ok()?;
            Some((path.parent()?.file_name()?.to_str()?.parse().ok()?, step))
        })
        .collect()
}

/// The questions that a process asked, and the answers committed after its end.
struct ProcessRecord {
    asked: BTreeSet<String>,
    committed: BTreeSet<String>,
}

/// Starts a process with its own teacher, which counts its questions, and ends it with `end`.
fn live(job: &Folder, until: Until, end: impl FnOnce(&mut Child)) -> ProcessRecord {
    let teacher = slow_teacher();
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    let reached = binary::wait_until(&mut child, LIMIT, || until.is_reached(job, &teacher)).unwrap();
    assert!(reached, "the job ended before {until:?}: {}", stderr(job));
    end(&mut child);
    child.wait().unwrap();
    let counts = teacher.counts();
    assert!(counts.values().all(|count| *count == 1), "one process asked a prompt twice: {counts:?}");
    ProcessRecord { asked: questions(counts.keys()), committed: committed(&job.join(".distillery")) }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
}

fn stderr(job: &Folder) -> String {
    std::fs::read_to_string(job.join("stderr.log")).unwrap_or_default()
}

fn questions<'a>(prompts: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    prompts.into_iter().map(|prompt| question(prompt).to_owned()).collect()
}

/// The questions with a committed answer, read from a copy of the database, so that the original is not changed.
fn committed(data: &Path) -> BTreeSet<String> {
    let copy = tempfile::tempdir().unwrap();
    for file in ["distillery.db", "distillery.db-wal"] {
        if data.join(file).exists() {
            std::fs::copy(data.join(file), copy.path().join(file)).unwrap();
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(copy.path()).await.unwrap();
        let all = PageRequest { size: 10, cursor: None };
        let jobs = store.list_distillations(&DistillationFilter::default(), &all).await.unwrap().items;
        let [job] = jobs.as_slice() else { return BTreeSet::new() };
        let rows = store.rows(job.dataset, None, 0, 1_000).await.unwrap();
        let prompts = store.prompts_in_state(job.id, PromptState::Answered, None, 1_000).await.unwrap();
        let answered: BTreeSet<u64> = prompts.iter().map(|prompt| prompt.row).collect();
        store.close().await;
        rows.into_iter().filter(|row| answered.contains(&row.index)).map(|row| row.example.input).collect()
    })
}

/// Ends the job's process with `end` at each of `instants`, then lets the job finish.
fn check(instants: &[Until], end: fn(&mut Child)) {
    let job = new_job();
    let mut known = BTreeSet::new();
    let mut lost = 0;
    for until in instants {
        let life = live(&job, *until, end);
        assert!(life.asked.is_disjoint(&known), "{until:?}: what was answered was asked again");
        assert!(life.committed.is_superset(&known), "{until:?}: a committed answer is gone");
        let unwritten = life.asked.difference(&life.committed).count();
        // In flight: concurrent calls, and answers that are not written yet.
        assert!(unwritten <= 4 * CONCURRENCY, "{until:?}: {unwritten} answers were lost");
        lost += unwritten;
        known.extend(life.asked.intersection(&life.committed).cloned());
        assert_eq!(life.committed, known, "{until:?}: an answer came from nowhere");
    }
    let teacher = slow_teacher();
    let said = job.say(teacher.url(), RUN).unwrap();
    assert_eq!(end_of(&said), *undisturbed(), "{instants:?}");
    let asked = questions(teacher.counts().keys());
    assert_eq!(teacher.requests(), PROMPTS - known.len(), "{instants:?}");
    assert!(asked.is_disjoint(&known), "{instants:?}: what was answered was asked again");
    assert_eq!(asked.len() + known.len(), PROMPTS, "{instants:?}, of which {lost} were lost");
    // A process that is killed right after publishing leaves its temporary files.
    if !instants.iter().any(|until| matches!(until, Until::Published)) {
        assert_eq!(checkpoints(&job, "-resume"), Vec::new(), "{instants:?}: resume state is left behind");
    }
}

#[test]
fn a_job_killed_while_it_harvests_ends_in_the_same_bytes() {
    for until in [Until::Asked(1), Until::Answered(17), Until::Answered(42), Until::Answered(PROMPTS - 1)] {
        check(&[until], kill);
    }
}

#[test]
fn a_job_killed_while_it_trains_ends_in_the_same_bytes() {
    for until in [Until::Step(5), Until::Resumable(10), Until::Resumable(20), Until::Published] {
        check(&[until], kill);
    }
}

#[test]
fn the_best_weights_so_far_survive_a_kill() {
    // The student is always wrong, so the first validation stays the best.
    let training = TRAINING.replace("evaluate_every_steps = 30", "evaluate_every_steps = 10");
    let spec = SpecText { training: &training, ..SpecText::default() };
    let end = |kills: bool| {
        let job = job_of(&spec);
        if kills {
            live(&job, Until::Resumable(15), kill);
        }
        end_of(&job.say(slow_teacher().url(), RUN).unwrap())
    };
    let undisturbed_end = end(false);
    assert_eq!(end(true), undisturbed_end);
    let weights = |end: &End| end.files["model.safetensors"].clone();
    assert_ne!(
        weights(&undisturbed_end),
        weights(undisturbed()),
        "the weights of step 10 are not those of step 30"
    );
}

#[test]
fn a_job_killed_again_and_again_ends_in_the_same_bytes() {
    check(
        &[
            Until::Asked(1),
            Until::Answered(9),
            Until::Answered(20),
            Until::Step(5),
            Until::Resumable(15),
            Until::Step(20),
        ],
        kill,
    );
}

/// Sends a signal, and checks the exit code 130 and the message that says how to resume.
fn interrupt(child: &mut Child, signal: &str) {
    binary::signal(child, signal).unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < LIMIT, "the process does not heed SIG{signal}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{signal}");
}

fn check_interrupted(until: Until, signal: &'static str) {
    let job = new_job();
    let life = live(&job, until, |child| interrupt(child, signal));
    let said = stderr(&job);
    assert!(said.contains("interrupted: run the same command again to resume"), "{said}");
    // Calls in flight are paid for: their answers are awaited and written.
    assert_eq!(life.asked, life.committed, "SIG{signal} at {until:?}");
    if matches!(until, Until::Step(_) | Until::Resumable(_)) {
        assert_eq!(checkpoints(&job, "-resume").len(), 1, "the resume state is written at once");
    }
    let teacher = slow_teacher();
    assert_eq!(end_of(&job.say(teacher.url(), RUN).unwrap()), *undisturbed(), "SIG{signal} at {until:?}");
    assert_eq!(teacher.requests() + life.asked.len(), PROMPTS, "SIG{signal} at {until:?}");
}

#[test]
fn a_signal_ends_the_harvest_in_order_and_nothing_is_asked_twice() {
    check_interrupted(Until::Answered(17), "INT");
    check_interrupted(Until::Answered(33), "TERM");
}

#[test]
fn a_signal_ends_the_training_in_order_and_it_goes_on_to_the_same_bytes() {
    check_interrupted(Until::Step(5), "INT");
    check_interrupted(Until::Resumable(15), "TERM");
}

#[test]
fn a_second_signal_ends_a_process_that_waits_for_its_teacher() {
    let job = new_job();
    let teacher = Teacher::start(|_| Reply::silence()).unwrap();
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    assert!(binary::wait_until(&mut child, LIMIT, || teacher.requests() == CONCURRENCY).unwrap());
    binary::signal(&child, "INT").unwrap();
    // The first signal waits for calls in flight.
    let heeded = || stderr(&job).contains("a second signal exits at once");
    assert!(binary::wait_until(&mut child, LIMIT, heeded).unwrap(), "{}", stderr(&job));
    interrupt(&mut child, "INT");
}

#[test]
fn what_is_in_flight_at_a_kill_is_asked_again_and_nothing_else() {
    const ANSWERED: usize = 24;
    let job = new_job();
    let answer = |asked: &TeacherRequest| {
        if asked.before < ANSWERED { teach(&asked.prompt) } else { Reply::silence() }
    };
    let teacher = Teacher::start(answer).unwrap();
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    let stalled = || {
        let data = job.join(".distillery");
        teacher.requests() == ANSWERED + CONCURRENCY && committed(&data).len() == ANSWERED
    };
    assert!(binary::wait_until(&mut child, LIMIT, stalled).unwrap(), "{}", stderr(&job));
    kill(&mut child);
    child.wait().unwrap();
    let first = questions(teacher.counts().keys());
    assert_eq!((first.len(), teacher.requests()), (ANSWERED + CONCURRENCY, ANSWERED + CONCURRENCY));
    let in_flight: BTreeSet<String> =
        first.difference(&committed(&job.join(".distillery"))).cloned().collect();
    assert_eq!(in_flight.len(), CONCURRENCY);

    let teacher = slow_teacher();
    assert_eq!(end_of(&job.say(teacher.url(), RUN).unwrap()), *undisturbed());
    let again: BTreeSet<String> = questions(teacher.counts().keys()).intersection(&first).cloned().collect();
    assert_eq!((again, teacher.requests()), (in_flight, PROMPTS - ANSWERED));
}

#[test]
fn another_specification_says_that_an_earlier_job_is_unfinished() {
    let (job, teacher) = (new_job(), slow_teacher());
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    assert!(binary::wait_until(&mut child, LIMIT, || teacher.answered() > 20).unwrap());
    kill(&mut child);
    let text = SpecText { training: "steps = 4\nbatch_examples = 8", name: "other", ..SpecText::default() };
    job.write("other.toml", text.to_string()).unwrap();
    let said = job.say(teacher.url(), &["run", "other.toml", "--json"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    let wanted = "an earlier job is worked at too, and first where it is further: job is harvesting (`distillery cancel ";
    assert!(said.err.contains(wanted), "{}", said.err);
}

#[test]
fn a_finished_job_asks_nothing_and_says_the_same_again() {
    let (job, teacher) = (new_job(), slow_teacher());
    let first = job.say(teacher.url(), RUN).unwrap();
    assert_eq!(end_of(&first), *undisturbed());
    let second = job.say(NOBODY, RUN).unwrap();
    assert_eq!((second.code, &second.out), (0, &first.out), "{}", second.err);
    assert_eq!(teacher.requests(), PROMPTS);
    // Another job over the same rows and teacher is answered from the ledger. (A server that does not name its model is known
    // by its host.)
    let spec =
        SpecText { name: "other", training: "steps = 2\ntarget_tokens_max = 32", ..SpecText::default() };
    job.write("other.toml", spec.to_string()).unwrap();
    let other = job.say(teacher.url(), &["run", "other.toml", "--json"]).unwrap();
    assert_eq!(other.code, 0, "{}", other.err);
    assert_eq!(teacher.requests(), PROMPTS);
    let asked = other.json().unwrap()["teacher"].clone();
    assert_eq!(
        (asked["prompts"].as_u64(), asked["cached"].as_u64()),
        (Some(0), Some(PROMPTS as u64)),
        "{asked}"
    );
}

/// Processes that are lost in a row: more than a cluster would lose at one job.
const LOST: usize = 5;

/// Loses processes that work in the data folder of `job`, as `lose` has them lost.
fn lose(job: &Folder, lose: impl AsyncFn(&SqliteStore, DistillationId, &str)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for lost in 0..LOST {
        runtime.block_on(async {
            // To open it ends the leases of the one before.
            let store = SqliteStore::open(&job.join(".distillery")).await.unwrap();
            let all = PageRequest { size: 10, cursor: None };
            let jobs = store.list_distillations(&DistillationFilter::default(), &all).await.unwrap().items;
            lose(&store, jobs[0].id, &format!("lost {lost}")).await;
            store.close().await;
        });
    }
}

#[test]
fn whoever_runs_it_again_tries_again_whatever_was_lost_before() {
    const LEASE: Duration = Duration::from_secs(3_600);
    let (job, teacher) = (new_job(), slow_teacher());
    binary::kill_while_it_asks(job.path(), &teacher, RUN, DELAY).unwrap();
    lose(&job, async |store, job, name| store.note_at_work(name, &[job], LEASE).await.unwrap());
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    let trains = || Until::Step(5).is_reached(&job, &teacher);
    assert!(binary::wait_until(&mut child, LIMIT, trains).unwrap(), "{}", stderr(&job));
    kill(&mut child);
    child.wait().unwrap();
    lose(&job, async |store, _, name| {
        assert!(store.lease_run(name, LEASE, u64::MAX).await.unwrap().is_some());
    });
    assert_eq!(end_of(&job.say(teacher.url(), RUN).unwrap()).files, undisturbed().files);
}

#[test]
fn beside_a_process_that_works_in_the_data_folder_records_are_read_and_not_written() {
    let job = new_job();
    let earlier = SpecText { name: "earlier", ..SpecText::default() };
    job.write("earlier.toml", earlier.to_string()).unwrap();
    let quick = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let done = job.say(quick.url(), &["run", "earlier.toml", "--json"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.err);

    let teacher = Teacher::start(|_| Reply::silence()).unwrap();
    let mut child = binary::start(job.path(), teacher.url(), RUN).unwrap();
    assert!(binary::wait_until(&mut child, LIMIT, || teacher.requests() == CONCURRENCY).unwrap());
    let process = child.id();
    for verb in [
        RUN,
        &["plan", "earlier.toml"],
        &["import", "jsonl", "train.jsonl"],
        &["cancel", "job"],
        &["resume", "job"],
        &["delete", "earlier"],
        &["ledger", "earlier", "--forget", "--yes"],
        &["migrate"],
    ] {
        let said = job.say(teacher.url(), verb).unwrap();
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{verb:?}: {}", said.err);
        let words = format!(
            ".distillery is in use by process {process}: wait for it, end it, or use another --data-dir"
        );
        assert!(said.err.contains(&words), "{verb:?}: {}", said.err);
    }
    for (verb, wanted) in [
        (&["list"][..], "harvesting"),
        (&["show", "job"], "state        harvesting"),
        (&["show", "earlier"], "state        succeeded"),
        (&["models"], "earlier@1"),
        (&["runs", "earlier"], "succeeded"),
        (&["ledger", "earlier"], "accepted"),
        (&["export", "jsonl", "job", "-"], "\"input\""),
        (&["predict", "--model", "earlier", "--input", "Ann has 2 pens."], "label: "),
        (&["models", "export", "earlier@1", "copy"], "earlier@1: copy"),
    ] {
        let said = job.say(teacher.url(), verb).unwrap();
        assert_eq!(said.code, 0, "{verb:?}: {}", said.err);
        assert!(said.out.contains(wanted), "{verb:?}: wanted {wanted:?} in {}", said.out);
    }
    let said = job.say(quick.url(), &["doctor"]).unwrap();
    assert_eq!(said.code, 0, "{}: {}", said.out, said.err);
    assert!(said.out.contains("works  database: SQLite in "), "{}", said.out);
    assert_eq!(teacher.requests(), CONCURRENCY, "another process asked something");
    assert!(child.try_wait().unwrap().is_none(), "the process that works is not disturbed");
    // Another data folder is independent.
    let elsewhere =
        job.say(teacher.url(), &["import", "jsonl", "train.jsonl", "--data-dir", "other"]).unwrap();
    assert_eq!(elsewhere.code, 0, "{}", elsewhere.err);
    kill(&mut child);
    child.wait().unwrap();
}
