//! The binary under test.

use crate::teacher::Teacher;
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest time a process may take; one that takes longer hangs.
pub const LIMIT: Duration = Duration::from_secs(180);
/// How often a process is polled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The binary that `cargo build --workspace` made, or the one that `DISTILLERY_BINARY` names.
///
/// # Errors
/// The binary is not built.
#[allow(clippy::disallowed_methods, reason = "the environment may choose the binary under test")]
pub fn path() -> anyhow::Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/distillery");
    let path = std::env::var_os("DISTILLERY_BINARY").map_or(built, PathBuf::from);
    if !path.exists() {
        bail!("{} is not built: run `cargo build --workspace` first, as `make test` does", path.display());
    }
    Ok(path.canonicalize()?)
}

/// A command of the binary in `folder`, without settings of this environment, and with one thread for tensors.
///
/// # Errors
/// The binary is not built.
pub fn command(folder: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = command_of(path()?, folder);
    command.args(arguments);
    Ok(command)
}

/// The same on a terminal of so many columns. What is on it comes out at standard output; what is written into standard input is
/// typed.
///
/// # Errors
/// The binary is not built.
pub fn command_on_terminal(folder: &Path, columns: usize, arguments: &[&str]) -> anyhow::Result<Command> {
    let words: Vec<String> = std::iter::once(path()?.display().to_string().as_str())
        .chain(arguments.iter().copied())
        .map(|word| format!("'{word}'"))
        .collect();
    let line = format!("stty cols {columns} rows 40 && exec {}", words.join(" "));
    let mut command = command_of("script", folder);
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    Ok(command)
}

/// A command of another program in `folder`, which may run the binary: without settings of this environment.
#[allow(clippy::disallowed_methods, reason = "settings of this environment are kept from the binary")]
pub fn command_of(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_foreign = name_text == "TRACEPARENT" || name_text.starts_with("OTEL_");
        if is_foreign || name_text.starts_with("DISTILLERY_") || name_text.ends_with("_API_KEY") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).env("DISTILLERY_TRAINER_THREADS", "1");
    command
}

/// Runs the binary to its end.
///
/// # Errors
/// It cannot be started, or does not end.
pub fn run(folder: &Path, teacher_url: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = command(folder, arguments)?;
    command.env("DISTILLERY_TEACHER_URL", teacher_url);
    output(command)
}

/// Runs a command to its end and captures its output.
///
/// # Errors
/// It cannot be started, or does not end within [`LIMIT`].
pub fn output(command: Command) -> anyhow::Result<Output> {
    output_within(command, LIMIT)
}

/// The same for a command that may take as long as `limit`.
///
/// # Errors
/// It cannot be started, or does not end in time: what it said last is in the error.
pub fn output_within(mut command: Command, limit: Duration) -> anyhow::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    finish_within(command.spawn().context("the binary cannot be started")?, limit)
}

/// Starts the binary in the background; its standard error goes to `stderr.log` in its folder.
///
/// # Errors
/// It cannot be started.
pub fn start(folder: &Path, teacher_url: &str, arguments: &[&str]) -> anyhow::Result<Child> {
    command(folder, arguments)?
        .env("DISTILLERY_TEACHER_URL", teacher_url)
        .stdout(Stdio::null())
        .stderr(std::fs::File::options().append(true).create(true).open(folder.join("stderr.log"))?)
        .spawn()
        .context("the binary cannot be started")
}

/// Starts a command that asks `teacher`, and kills it (SIGKILL) so long after it has asked once more, or after some seconds.
///
/// # Errors
/// It cannot be started or killed.
pub fn kill_while_it_asks(
    folder: &Path,
    teacher: &Teacher,
    arguments: &[&str],
    after: Duration,
) -> anyhow::Result<()> {
    let before = teacher.requests();
    let mut child = start(folder, teacher.url(), arguments)?;
    // What asks nothing more is killed as well.
    let _ = wait_until(&mut child, Duration::from_secs(3), || teacher.requests() > before);
    std::thread::sleep(after);
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// Waits until `child` ends.
///
/// # Errors
/// It does not end within [`LIMIT`], and is killed.
pub fn finish(child: Child) -> anyhow::Result<Output> {
    finish_within(child, LIMIT)
}

fn finish_within(mut child: Child, limit: Duration) -> anyhow::Result<Output> {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let (told, errors) = (joined(stdout), joined(stderr));
            let told = String::from_utf8_lossy(&told).into_owned();
            let last: Vec<&str> = told.lines().rev().take(3).collect();
            bail!(
                "the process did not end within {limit:?}; it said last (newest first): {last:#?}; its errors: {}",
                String::from_utf8_lossy(&errors)
            );
        }
        std::thread::sleep(LOOK_EVERY);
    };
    Ok(Output { status, stdout: joined(stdout), stderr: joined(stderr) })
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe has no more output.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

fn joined(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

/// Sends a signal by its name, such as `INT`.
///
/// # Errors
/// There is no such process.
pub fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status()?;
    if !status.success() {
        bail!("process {} cannot be sent SIG{name}", child.id());
    }
    Ok(())
}

/// Waits until `reached` while `child` runs. Returns false if the child ended first.
///
/// # Errors
/// Neither happened within `limit`.
pub fn wait_until(
    child: &mut Child,
    limit: Duration,
    mut reached: impl FnMut() -> bool,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if reached() {
            return Ok(true);
        }
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("nothing happened within {limit:?}")
}
