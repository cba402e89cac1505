//! `cargo xtask test [--jobs N] [NAME...]`: every test of the workspace, several test programs at once.
//!
//! `cargo test` runs one test program after another, although most of them wait: for servers, kills, leases. Here one
//! more than there are processors run at a time. Each program's own tests share a process, as with `cargo test`, so what a
//! program sets up once stays set up once. NAME keeps the programs whose `package::target` contains it.

use anyhow::{Context, bail};
use cargo_metadata::Message;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::num::NonZero;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a program may take; one that takes longer hangs, and is killed.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The programs that take longest: they start first, so that none is left alone at the end.
const LONGEST: [&str; 4] = ["tests::faults", "tests::cluster", "xtask::xtask", DOCUMENTATION];
/// The examples in documentation.
const DOCUMENTATION: &str = "documentation";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A command whose output ends with libtest's results.
struct Program {
    /// `package::target`.
    name: String,
    command: Command,
}

/// Counts of tests, as libtest reports them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Runs the tests. The last line of the output is `N passed, N failed, N skipped`.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let Options { jobs, names } = Options::parse(arguments)?;
    let root = crate::repository::root()?;
    let mut programs = programs(&root)?;
    programs.push(documentation(&root));
    programs.sort_by_key(|program| (rank(&program.name), program.name.clone()));
    programs.retain(|program| names.is_empty() || names.iter().any(|name| program.name.contains(name)));
    if programs.is_empty() {
        bail!("no test program is called {}", names.join(" or "));
    }
    let started = Instant::now();
    let totals = run_all(programs.into(), jobs)?;
    report(&format!("{:.0} seconds\n", started.elapsed().as_secs_f64()))?;
    report(&format!("{} passed, {} failed, {} skipped\n", totals.passed, totals.failed, totals.ignored))?;
    if totals.failed > 0 {
        bail!("{} tests failed: their output is above", totals.failed);
    }
    Ok(())
}

struct Options {
    jobs: usize,
    names: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        // One more than there are processors: programs wait for part of their time.
        let jobs = thread::available_parallelism().map_or(1, NonZero::get) + 1;
        let mut options = Self { jobs, names: Vec::new() };
        while let Some(argument) = arguments.next() {
            if argument == "--jobs" {
                let count = arguments.next().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
                options.jobs = count.context("--jobs takes a number of programs, at least 1")?;
            } else if argument.starts_with('-') {
                bail!("test takes [--jobs N] [NAME...], not `{argument}`");
            } else {
                options.names.push(argument);
            }
        }
        Ok(options)
    }
}

/// Builds the test programs.
fn programs(root: &Path) -> anyhow::Result<Vec<Program>> {
    let mut cargo = Command::new("cargo")
        .args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test did not start")?;
    let output = cargo.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        if let (true, Some(path)) = (artifact.profile.test, artifact.executable) {
            let folder =
                artifact.manifest_path.parent().context("a manifest lies in a folder")?.as_std_path();
            let package = folder.file_name().unwrap_or_default().to_string_lossy();
            programs.push(program(
                format!("{package}::{}", artifact.target.name),
                path.as_std_path(),
                folder,
            ));
        }
    }
    if !cargo.wait()?.success() {
        bail!("the tests do not compile: see above");
    }
    Ok(programs)
}

/// Where a program is in the order: the longest, then those over several processes, then the others.
fn rank(name: &str) -> usize {
    let others = if name.starts_with("tests::") { 0 } else { 1 };
    LONGEST.iter().position(|longest| *longest == name).unwrap_or(LONGEST.len() + others)
}

/// A test program, run as cargo would: in its package's folder.
fn program(name: String, path: &Path, folder: &Path) -> Program {
    let mut command = Command::new(path);
    command.current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
    Program { name, command }
}

/// The examples in documentation: rustdoc compiles and runs them.
fn documentation(root: &Path) -> Program {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]).current_dir(root);
    Program { name: DOCUMENTATION.to_owned(), command }
}

fn run_all(programs: VecDeque<Program>, jobs: usize) -> anyhow::Result<Totals> {
    let waiting = Mutex::new(programs);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> anyhow::Result<Totals> {
        let mut totals = Totals::default();
        while let Some(program) = next() {
            totals += run_one(program)?;
        }
        Ok(totals)
    };
    let mut totals = Totals::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            totals += worker.join().unwrap_or_else(|_| bail!("a worker panicked"))?;
        }
        Ok(totals)
    })
}

/// Runs a program to its end and reports it: in a line where all is well, with its output where a test failed.
fn run_one(Program { name, mut command }: Program) -> anyhow::Result<Totals> {
    let started = Instant::now();
    let mut output = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let status = wait(command).with_context(|| name.clone())?;
    let text = read(&mut output)?;
    let totals = totals(&text, status.is_some_and(|status| status.success()));
    let seconds = started.elapsed().as_secs_f64();
    let counts = format!("{} passed, {} failed, {} ignored", totals.passed, totals.failed, totals.ignored);
    if totals.failed == 0 {
        report(&format!("ok      {name}: {counts} ({seconds:.1} s)\n"))?;
    } else {
        let end = status.map_or_else(|| format!("killed after {LIMIT:?}"), |status| status.to_string());
        report(&format!("{text}\nFAILED  {name}: {counts} ({seconds:.1} s, {end})\n"))?;
    }
    Ok(totals)
}

/// How a command ended; None where it took longer than [`LIMIT`] and was killed.
fn wait(mut command: Command) -> anyhow::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("{} did not start", PathBuf::from(command.get_program()).display()))?;
    while started.elapsed() < LIMIT {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn read(output: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The sums over all `test result:` lines. A program that ended badly, or reported nothing, has at least one failure.
fn totals(output: &str, ended_well: bool) -> Totals {
    let mut totals = Totals::default();
    let mut reported = false;
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        reported = true;
        let count = |what: &str| {
            let before = line.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
            before.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
        };
        totals += Totals { passed: count("passed"), failed: count("failed"), ignored: count("ignored") };
    }
    if !(ended_well && reported) {
        totals.failed = totals.failed.max(1);
    }
    totals
}

/// Writes to standard output, whole: several workers report.
#[allow(clippy::disallowed_methods, reason = "a tool of the repository, which prints what is its own")]
fn report(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program { name: name.to_owned(), command }
    }

    #[test]
    fn results_are_added_up_and_no_failure_is_lost() {
        let check = |output: &str, ended_well: bool, passed: usize, failed: usize, ignored: usize| {
            assert_eq!(totals(output, ended_well), Totals { passed, failed, ignored }, "{output}");
        };
        let good = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 4.47s\n";
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        check(good, true, 12, 0, 1);
        check(&format!("noise\n{good}\n{good}"), true, 24, 0, 2);
        check(&format!("{good}{bad}"), false, 13, 2, 1);
        // Killed before it reported, ended badly after it reported, said nothing at all.
        check("running 3 tests\n", false, 0, 1, 0);
        check(good, false, 12, 1, 1);
        check("", true, 0, 1, 0);
    }

    #[test]
    fn the_longest_programs_start_first() {
        let order =
            ["tests::faults", "tests::cluster", "xtask::xtask", "documentation", "tests::serve", "app::app"];
        assert!(order.is_sorted_by_key(|name| rank(name)));
        assert!(rank("tests::serve") < rank("app::app"));
    }

    #[test]
    fn every_program_runs_whatever_fails() {
        let line = |passed: usize| format!("echo 'test result: ok. {passed} passed; 0 failed; 0 ignored'");
        let programs = [
            ("a", line(1)),
            ("b", "exit 3".to_owned()),
            ("c", line(2)),
            ("d", line(4)),
            ("e", "kill $$".to_owned()),
        ];
        for jobs in [1, 2, 9] {
            let programs = programs.iter().map(|(name, script)| shell(name, script)).collect();
            assert_eq!(
                run_all(programs, jobs).unwrap(),
                Totals { passed: 7, failed: 2, ignored: 0 },
                "{jobs} jobs"
            );
        }
    }

    #[test]
    fn programs_run_at_the_same_time() {
        // Each waits for the other: one after the other, neither would end well.
        let folder = tempfile::tempdir().unwrap();
        let meet = |mine: &str, other: &str| {
            let (mine, other) = (folder.path().join(mine), folder.path().join(other));
            let (mine, other) = (mine.display(), other.display());
            format!(
                "touch {mine}; for i in $(seq 500); do [ -e {other} ] && echo 'test result: ok. 1 passed' && exit; sleep 0.02; done; exit 1"
            )
        };
        let programs = VecDeque::from([shell("a", &meet("a", "b")), shell("b", &meet("b", "a"))]);
        assert_eq!(run_all(programs, 2).unwrap(), Totals { passed: 2, failed: 0, ignored: 0 });
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let check =
            |arguments: &[&str]| Options::parse(arguments.iter().map(|argument| (*argument).to_owned()));
        let options = check(&["--jobs", "3", "t5", "tests::"]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((options.jobs, options.names), (3, vec!["t5".to_owned(), "tests::".to_owned()]));
        for arguments in [["--jobs", "0"], ["--jobs", "many"], ["x", "--job"]] {
            assert!(check(&arguments).is_err(), "{arguments:?}");
        }
        assert!(check(&["--jobs"]).is_err());
    }
}
