//! A private, empty Redis without persistence: every restart loses everything.

use crate::server::{ProcessOwner, ServerKind, ServerProcess, program, secret};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The longest time for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const SETTINGS: &str = "redis.conf";

/// A server on the loopback address. It stops when dropped, or with the test process.
#[derive(Debug)]
pub struct Redis {
    server: ServerProcess,
    password: String,
}

impl Redis {
    /// Starts an empty server.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let password = secret();
        let redis = program("redis-server", &[]);
        let ready = password.clone();
        let kind = ServerKind {
            name: "Redis",
            kill_signal: "KILL",
            stop_signal: "TERM",
            refuses_root: false,
            command: Box::new(move |folder, port| serve(&redis, folder, port)),
            is_ready: Box::new(move |_, port| {
                command(port, &ready, "PING").is_ok_and(|answer| answer == "+PONG")
            }),
        };
        let settings = format!("bind 127.0.0.1\nrequirepass {password}\nsave \"\"\nappendonly no\n");
        let server = ServerProcess::start(kind, |folder, owner| {
            ProcessOwner::write(owner, &folder.join(SETTINGS), &settings)
        })
        .context("Redis cannot be set up; scripts/services.sh installs it")?;
        Ok(Self { server, password })
    }

    /// The URL of its database 0.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", self.password, self.server.port())
    }

    /// Deletes everything (FLUSHALL).
    ///
    /// # Errors
    /// It does not answer.
    pub fn flush_all(&self) -> anyhow::Result<()> {
        let answer = command(self.server.port(), &self.password, "FLUSHALL")?;
        if answer != "+OK" {
            bail!("FLUSHALL: {answer}");
        }
        Ok(())
    }

    /// Stops it cleanly; its data is lost.
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

    /// Restarts it on the same port, empty. A running server is stopped first.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.server.restart()
    }
}

fn serve(redis: &Path, folder: &Path, port: u16) -> Command {
    let mut command = Command::new(redis);
    command.current_dir(folder).arg(folder.join(SETTINGS)).args(["--port", &port.to_string()]);
    command
}

/// The first line of the answer to one command without arguments.
fn command(port: u16, password: &str, name: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    write!(stream, "AUTH {password}\r\n{name}\r\n")?;
    let mut answers = BufReader::new(stream).lines();
    let mut answer = || anyhow::Ok(answers.next().context("the connection was closed")??);
    let authenticated = answer()?;
    if authenticated != "+OK" {
        bail!("AUTH: {authenticated}");
    }
    answer()
}
