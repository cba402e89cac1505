//! `distillery serve` as a process.

use crate::binary;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The longest time for a service to listen.
const START_MAX: Duration = Duration::from_secs(60);

/// A running service; it is killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    url: String,
}

impl Service {
    /// Starts the roles in `folder` with these settings added to the environment's, and waits until they listen. Their log is
    /// `ROLES.log`.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(folder: &Path, roles: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let log = folder.join(format!("{roles}.log"));
        let mut command = binary::command(folder, &["serve", "--role", roles])?;
        if !settings.iter().any(|(name, _)| *name == "DISTILLERY_SERVER_LISTEN") {
            command.env("DISTILLERY_SERVER_LISTEN", "127.0.0.1:0");
        }
        let mut child = command
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().append(true).create(true).open(&log)?)
            .spawn()
            .context("the binary cannot be started")?;
        let output = child.stdout.take().context("no standard output")?;
        // A thread reads, so the wait has a limit.
        let (line, read) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(output).read_line(&mut text);
            let _ = line.send(text);
        });
        let text = read.recv_timeout(START_MAX).unwrap_or_default();
        let mut service = Self { child, url: String::new() };
        match text.trim().strip_prefix("listening at ") {
            Some(url) => service.url = url.to_owned(),
            None => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("{roles} did not start: {text:?}: {said}");
            }
        }
        Ok(service)
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address and port.
    pub fn address(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end. Returns the exit code; -1 if a signal ended it.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn stop(mut self, limit: Duration) -> anyhow::Result<i32> {
        binary::signal(&self.child, "TERM")?;
        binary::wait_until(&mut self.child, limit, || false)?;
        Ok(self.child.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
