//! The binary under test.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where `cargo build --workspace` leaves it; `DISTILLERY_BINARY` names another one.
///
/// # Errors
/// It is not built.
pub fn path() -> anyhow::Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/distillery");
    let path = std::env::var_os("DISTILLERY_BINARY").map_or(built, PathBuf::from);
    if !path.exists() {
        bail!("{} is not built: run `cargo build --workspace` first, as `make test` does", path.display());
    }
    Ok(path.canonicalize()?)
}

/// A command of the binary in `folder`, with no settings from outside and one thread of the tensor library's work.
///
/// # Errors
/// The binary is not built.
pub fn command(folder: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(path()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISTILLERY_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env("DISTILLERY_TRAINER_THREADS", "1");
    Ok(command)
}

/// Runs it to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(folder: &Path, teacher_url: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    command(folder, arguments)?
        .env("DISTILLERY_TEACHER_URL", teacher_url)
        .output()
        .context("the binary cannot be started")
}

/// Starts it and leaves it running.
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

/// Waits until `reached`, while `child` runs. Says whether it was reached; `false` when the child ended first.
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
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("nothing happened within {limit:?}")
}
