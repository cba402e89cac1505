//! A private, empty PostgreSQL, with settings for speed over durability.

use crate::server::{ProcessOwner, ServerKind, ServerProcess, program, secret};
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
const USER: &str = "distillery";
const DATA: &str = "data";
const LOCK: &str = "postmaster.pid";

/// A server on the loopback address. It stops when dropped, or with the test process.
#[derive(Debug)]
pub struct Postgres {
    server: ServerProcess,
    password: String,
}

impl Postgres {
    /// Starts an empty server. Committed data survives [`Postgres::kill`], but not the drop of this value.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let password = secret();
        let folders = folders();
        let postgres = program("postgres", &folders);
        let kind = ServerKind {
            name: "PostgreSQL",
            kill_signal: "QUIT",
            stop_signal: "INT",
            refuses_root: true,
            command: Box::new(move |folder, port| serve(&postgres, folder, port)),
            is_ready: Box::new(|folder, _| is_ready(folder)),
        };
        let initdb = program("initdb", &folders);
        let server =
            ServerProcess::start(kind, |folder, owner| initialise(&initdb, folder, owner, &password))?;
        Ok(Self { server, password })
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database, which need not exist yet.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.server.port())
    }

    /// Stops it cleanly and closes every connection.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.server.stop()
    }

    /// Kills it, like a crash.
    ///
    /// # Errors
    /// It does not stop.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.server.kill()
    }

    /// Restarts it on the same port with the committed data. A running server is stopped first.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.server.restart()
    }
}

fn initialise(
    initdb: &Path,
    folder: &Path,
    owner: Option<&ProcessOwner>,
    password: &str,
) -> anyhow::Result<()> {
    let secret = folder.join("password");
    ProcessOwner::write(owner, &secret, password)?;
    let mut command = Command::new(initdb);
    command.current_dir(folder).arg("--pgdata").arg(folder.join(DATA)).arg("--pwfile").arg(&secret);
    command.args(["--username", USER, "--encoding", "UTF8", "--locale", "C", "--no-sync"]);
    // Plain-text passwords, on the loopback address: the rounds of SCRAM would dominate a short test in a debug build.
    command.args(["--auth", "password"]);
    ProcessOwner::run(owner, &mut command)
        .context("PostgreSQL cannot be set up; scripts/services.sh installs it")
}

fn serve(postgres: &Path, folder: &Path, port: u16) -> Command {
    // The file of a killed server would report this one as ready.
    let _ = fs::remove_file(folder.join(DATA).join(LOCK));
    let mut command = Command::new(postgres);
    command.current_dir(folder).arg("-D").arg(folder.join(DATA)).args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
        "fsync=off",
        "full_page_writes=off",
    ] {
        command.args(["-c", setting]);
    }
    command
}

/// The server writes its status into the last line of its lock file, which `pg_ctl` reads, too.
fn is_ready(folder: &Path) -> bool {
    let lock = fs::read_to_string(folder.join(DATA).join(LOCK)).unwrap_or_default();
    lock.lines().nth(7).is_some_and(|status| status.trim() == "ready")
}

/// The folders of installed versions, newest first.
fn folders() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir(DEBIAN) else { return Vec::new() };
    let mut versions: Vec<u32> =
        versions.flatten().filter_map(|version| version.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions.into_iter().map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin")).collect()
}
