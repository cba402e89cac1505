//! A Redis of the test's own: empty, private, and forgetful, so that every restart loses everything.

use crate::server::{Kind, Owner, Server, program, secret};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// No answer takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const SETTINGS: &str = "redis.conf";

/// A server on the loopback address. It ends with this value, or with the test process.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    password: String,
}

impl Redis {
    /// Starts an empty one.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let password = secret();
        let redis = program("redis-server", &[]);
        let ready = password.clone();
        let kind = Kind {
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
        let server =
            Server::start(kind, |folder, owner| Owner::write(owner, &folder.join(SETTINGS), &settings))
                .context("Redis cannot be set up; scripts/services.sh installs it where it is absent")?;
        Ok(Self { server, password })
    }

    /// The URL of its database 0.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", self.password, self.server.port())
    }

    /// Forgets everything, in the middle of whatever happens.
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

    /// Ends it in order, with everything it holds.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.server.stop()
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.server.kill()
    }

    /// Starts it again on the same port, empty. One that runs is stopped first.
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
