//! A private Prometheus, installed by `scripts/watch-tools.sh`: it scrapes every second and is queried over its API.

use crate::server::{ServerKind, ServerProcess};
use anyhow::{Context, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest time for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const CONFIG: &str = "prometheus.yml";

/// The folder of the tools that check dashboards and alerts: it has `bin` and `node_modules`.
///
/// # Errors
/// They cannot be installed.
pub fn tools() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/watch-tools.sh");
    let said = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !said.status.success() {
        bail!("scripts/watch-tools.sh ended with {}", said.status);
    }
    Ok(PathBuf::from(String::from_utf8(said.stdout)?.trim()))
}

/// The processes of a role to scrape.
#[derive(Debug, Clone, Copy)]
pub struct ScrapeJob<'a> {
    /// The label `job`: the role.
    pub role: &'a str,
    /// Addresses and ports.
    pub targets: &'a [String],
}

/// A series of a query result.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its labels.
    pub labels: Value,
    /// Its newest numeric value.
    pub newest: f64,
    /// Its largest value.
    pub largest: f64,
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct Prometheus {
    server: ServerProcess,
}

impl Prometheus {
    /// Starts it with these rules (a file pattern) and these processes to scrape.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(rules: &Path, jobs: &[ScrapeJob<'_>]) -> anyhow::Result<Self> {
        let program = tools()?.join("bin/prometheus");
        let kind = ServerKind {
            name: "Prometheus",
            kill_signal: "KILL",
            stop_signal: "TERM",
            refuses_root: false,
            command: Box::new(move |folder, port| serve(&program, folder, port)),
            is_ready: Box::new(|_, port| get(port, "/-/ready").is_ok()),
        };
        let config = config(rules, jobs)?;
        let server =
            ServerProcess::start(kind, |folder, _| Ok(std::fs::write(folder.join(CONFIG), config)?))?;
        Ok(Self { server })
    }

    /// The series of an expression over the last `span`, one point a second, as a panel queries them. Series without a value
    /// are left out.
    ///
    /// # Errors
    /// The expression is invalid, or the server does not answer.
    pub fn query(&self, expression: &str, span: Duration) -> anyhow::Result<Vec<Series>> {
        let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let start = end - span.as_secs_f64();
        let path = format!("query_range?query={}&start={start}&end={end}&step=1", encoded(expression));
        let answer = self.ask(&path).with_context(|| expression.to_owned())?;
        let series = answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(series.iter().filter_map(read).collect())
    }

    /// All loaded rules: alerts and recorded series.
    ///
    /// # Errors
    /// It does not answer.
    pub fn rules(&self) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask("rules")?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).cloned().unwrap_or_default();
        let rules = groups.iter().filter_map(|group| group.get("rules")?.as_array().cloned());
        Ok(rules.flatten().collect())
    }

    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&get(self.server.port(), &format!("/api/v1/{path}"))?)?)
    }
}

fn config(rules: &Path, jobs: &[ScrapeJob<'_>]) -> anyhow::Result<String> {
    let mut text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
         scrape_configs:\n",
        rules.display()
    );
    for job in jobs {
        let targets = serde_json::to_string(job.targets)?;
        writeln!(text, "  - {{job_name: {}, static_configs: [{{targets: {targets}}}]}}", job.role)?;
    }
    Ok(text)
}

fn serve(program: &Path, folder: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    command.args(["--storage.tsdb.path=data", &format!("--web.listen-address=127.0.0.1:{port}")]);
    command.arg(format!("--config.file={CONFIG}"));
    command
}

/// A series, if it has a numeric value.
fn read(series: &Value) -> Option<Series> {
    let number = |pair: &Value| pair.get(1)?.as_str()?.parse::<f64>().ok().filter(|value| !value.is_nan());
    let values: Vec<f64> = series.get("values")?.as_array()?.iter().filter_map(number).collect();
    let largest = values.iter().copied().reduce(f64::max)?;
    Some(Series { labels: series.get("metric")?.clone(), newest: *values.last()?, largest })
}

/// The body of a successful response. With HTTP 1.0, the end of the connection is the end of the body.
fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{status}: {body}");
    }
    Ok(body.to_owned())
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
