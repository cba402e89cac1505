//! What private servers have in common: a temporary folder, a free port, and a lifetime bound to the test's.
//!
//! No server outlives its test. When the value is dropped, also by a panic, the server is stopped and its folder removed. If
//! it is not dropped (a `static`, a killed test process), a guard process that waits for the end of the test process does it.

use anyhow::{Context, bail};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest time for a server to become ready.
const START_MAX: Duration = Duration::from_secs(30);
/// The longest time for a server to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Attempts: another process may take the port between finding and using it.
const PORTS_TRIED: usize = 5;
const POLL: Duration = Duration::from_millis(10);
/// The file in which the guard finds the process to stop.
const PROCESS: &str = "process";
/// The server's output, for the error of a failed start.
const LOG: &str = "log";

/// Waits until standard input ends, which is when the test process ends; then stops the server in folder `$1` with signal
/// `$2` and removes the folder. The test process keeps the server's id in a file while it runs.
const GUARD: &str = r#"
cat >/dev/null
if process=$(cat "$1/process" 2>/dev/null); then
    kill "-$2" "$process" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$process" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$process" 2>/dev/null
fi
rm -rf "$1"
"#;

type Serve = dyn Fn(&Path, u16) -> Command + Send + Sync;
type Answers = dyn Fn(&Path, u16) -> bool + Send + Sync;

/// How to run a kind of server.
pub(crate) struct ServerKind {
    /// Name, for errors.
    pub(crate) name: &'static str,
    /// The signal that kills it without leaving children or shared memory behind.
    pub(crate) kill_signal: &'static str,
    /// The signal that stops it cleanly.
    pub(crate) stop_signal: &'static str,
    /// Whether it refuses to run as root.
    pub(crate) refuses_root: bool,
    /// The command that serves a folder on a port.
    pub(crate) command: Box<Serve>,
    /// Whether it is ready.
    pub(crate) is_ready: Box<Answers>,
}

/// A server that runs, or can be restarted on the same port.
pub(crate) struct ServerProcess {
    kind: ServerKind,
    port: u16,
    owner: Option<ProcessOwner>,
    process: Mutex<Option<Child>>,
    // Drop order matters: the folder is removed before the guard reads it.
    folder: TempDir,
    _guard: ProcessGuard,
}

impl std::fmt::Debug for ServerProcess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} on port {}", self.kind.name, self.port)
    }
}

impl ServerProcess {
    /// Starts it on a free port, in a folder that `prepare` filled for its owner.
    pub(crate) fn start(
        kind: ServerKind,
        prepare: impl FnOnce(&Path, Option<&ProcessOwner>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("distillery-").tempdir()?;
        let owner = if kind.refuses_root { ProcessOwner::of_server(folder.path())? } else { None };
        let guard = ProcessGuard::over(folder.path(), kind.kill_signal)?;
        prepare(folder.path(), owner.as_ref())?;
        let mut server = Self { kind, port: 0, owner, process: Mutex::new(None), folder, _guard: guard };
        for tried in 1..=PORTS_TRIED {
            server.port = free_port()?;
            match server.run() {
                Err(error) if tried == PORTS_TRIED => return Err(error),
                Err(_) => {}
                Ok(()) => break,
            }
        }
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it cleanly; it can be restarted.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.end(self.kind.stop_signal)
    }

    /// Kills it, like a crash; it can be restarted.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.end(self.kind.kill_signal)
    }

    /// Starts it on its port with the data in its folder. A running server is stopped first.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        self.stop()?;
        self.run()
    }

    fn run(&self) -> anyhow::Result<()> {
        let log = fs::File::create(self.folder.path().join(LOG))?;
        let mut command = (self.kind.command)(self.folder.path(), self.port);
        if let Some(owner) = &self.owner {
            command.uid(owner.user).gid(owner.group);
        }
        // In its own process group: an interrupt from the terminal is for the test.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", self.kind.name))?;
        fs::write(self.folder.path().join(PROCESS), child.id().to_string())?;
        let started = Instant::now();
        while !(self.kind.is_ready)(self.folder.path(), self.port) {
            if let Some(status) = child.try_wait()? {
                fs::remove_file(self.folder.path().join(PROCESS))?;
                bail!("{} ended with {status}: {}", self.kind.name, self.log());
            }
            if started.elapsed() > START_MAX {
                *self.process() = Some(child);
                self.kill()?;
                bail!("{} is not ready after {START_MAX:?}: {}", self.kind.name, self.log());
            }
            std::thread::sleep(POLL);
        }
        *self.process() = Some(child);
        Ok(())
    }

    fn end(&self, signal: &str) -> anyhow::Result<()> {
        let Some(mut child) = self.process().take() else { return Ok(()) };
        send(signal, child.id())?;
        let asked = Instant::now();
        while child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_MAX {
                child.kill()?;
                child.wait()?;
            }
            std::thread::sleep(POLL);
        }
        fs::remove_file(self.folder.path().join(PROCESS))?;
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of its output.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // If it cannot be stopped here, the guard does it.
        let _ = self.kill();
    }
}

/// The guard process: a shell that waits for the end of this process.
struct ProcessGuard {
    shell: Child,
    lifeline: Option<ChildStdin>,
}

impl ProcessGuard {
    fn over(folder: &Path, signal: &str) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(folder)
            .arg(signal)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sh cannot be started")?;
        let lifeline = shell.stdin.take();
        Ok(Self { shell, lifeline })
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // It ends within seconds by itself, so a failure to wait needs no handling.
        let _ = self.shell.wait();
    }
}

/// The user that a server runs as.
pub(crate) struct ProcessOwner {
    user: u32,
    group: u32,
}

impl ProcessOwner {
    /// An unprivileged user, who gets the folder, if this process runs as root; otherwise the current user.
    fn of_server(folder: &Path) -> anyhow::Result<Option<Self>> {
        if fs::metadata(folder)?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let ids = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some(Self { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
        };
        let owner = ids("postgres")
            .or_else(|| ids("nobody"))
            .context("no user to run the server as: neither `postgres` nor `nobody` exists")?;
        chown(folder, Some(owner.user), Some(owner.group))?;
        Ok(Some(owner))
    }

    /// Runs a command as this user.
    pub(crate) fn run(owner: Option<&Self>, command: &mut Command) -> anyhow::Result<()> {
        if let Some(owner) = owner {
            command.uid(owner.user).gid(owner.group);
        }
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Gives a file to this user, readable by no other.
    pub(crate) fn write(owner: Option<&Self>, path: &Path, text: &str) -> anyhow::Result<()> {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        if let Some(owner) = owner {
            chown(path, Some(owner.user), Some(owner.group))?;
        }
        Ok(())
    }
}

/// A random secret.
pub(crate) fn secret() -> String {
    domain::ids::RequestId::generate().to_string().replace('-', "")
}

/// A program by name: from the first of `folders` that has it, otherwise from PATH.
pub(crate) fn program(name: &str, folders: &[PathBuf]) -> PathBuf {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn send(signal: &str, process: u32) -> anyhow::Result<()> {
    let command = format!("kill -{signal} {process}");
    let status = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status()?;
    // An ended process that was not waited for accepts the signal, too.
    if !status.success() {
        bail!("`{command}` ended with {status}");
    }
    Ok(())
}
