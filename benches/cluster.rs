//! The cluster part of `scripts/bench.sh`: how much of a teacher's capacity the harvester uses, and the speed of imports.
//!
//! A teacher with a latency of 200 ms gets 256 concurrent calls: first from one and from three harvesters over PostgreSQL and
//! Redis, then from a bare load generator that sends the same bodies over as many connections. Then 500,000 rows are imported
//! into a data folder and over the network. Prints one JSON object a line. An argument selects a part: `harvest-1`,
//! `harvest-3` or `import`.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tests::binary;
use tests::data::{SpecText, teach, write_problems};
use tests::folder::Folder;
use tests::postgres::Postgres;
use tests::redis::Redis;
use tests::service::Service;
use tests::teacher::Teacher;
use tokio::net::TcpStream;

/// The latency of the teacher, and the number of concurrent calls.
const THINKS: Duration = Duration::from_millis(200);
const AT_ONCE: usize = 256;
/// Prompts of one measurement: about a quarter of a minute.
const PROMPTS: usize = 20_000;
const ROWS: usize = 500_000;
/// The longest time for anything here.
const LIMIT: Duration = Duration::from_secs(240);
/// The clock that the kernel counts processor time by.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    for replicas in [1, 3] {
        if wanted(&format!("harvest-{replicas}")) {
            harvest(replicas)?;
        }
    }
    if wanted("import") {
        import_here()?;
        import_there()?;
    }
    Ok(())
}

fn thinker() -> anyhow::Result<Teacher> {
    Teacher::start(|asked| teach(&asked.prompt).after(THINKS))
}

/// The services' database, queue and configuration.
struct Cluster {
    folder: Folder,
    // They stop when dropped.
    _servers: (Postgres, Redis),
}

impl Cluster {
    fn start(concurrency: usize) -> anyhow::Result<Self> {
        let folder = Folder::with_problems([PROMPTS, 0, 0], &spec())?;
        let (postgres, redis) = (Postgres::start()?, Redis::start()?);
        let config = format!(
            "[database]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n[teachers.local]\nconcurrency_max = {concurrency}\n",
            postgres.url(),
            redis.url()
        );
        folder.write("distillery.toml", config)?;
        let cluster = Self { folder, _servers: (postgres, redis) };
        cluster.say("", &["migrate"])?;
        Ok(cluster)
    }

    fn say(&self, url: &str, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut command = binary::command(self.folder.path(), arguments)?;
        command.env("DISTILLERY_SERVER", url);
        let said = binary::output(command)?;
        if !said.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(serde_json::from_slice(&said.stdout).unwrap_or_default())
    }

    fn harvester(&self, teacher: &str) -> anyhow::Result<Service> {
        Service::start(self.folder.path(), "harvester", &[("DISTILLERY_TEACHER_URL", teacher)])
    }
}

fn spec() -> SpecText<'static> {
    SpecText { data: "train = \"train.jsonl\"", ..SpecText::default() }
}

/// Harvesters against the teacher, then the bare load generator against the same one.
fn harvest(replicas: usize) -> anyhow::Result<()> {
    let teacher = thinker()?;
    let cluster = Cluster::start(AT_ONCE / replicas)?;
    let mut harvesters: Vec<Service> =
        (0..replicas).map(|_| cluster.harvester(teacher.url())).collect::<anyhow::Result<_>>()?;
    let url = harvesters.first().map(|harvester| harvester.url().to_owned()).unwrap_or_default();
    let mut processor =
        || harvesters.iter_mut().map(|service| processor_seconds(service.child())).sum::<f64>();
    let before = processor();
    let began = Instant::now();
    cluster.say(&url, &["submit", "spec.toml", "--json"])?;
    while cluster.say(&url, &["show", "job", "--json"])?.get("state") != Some(&"training".into()) {
        if began.elapsed() > LIMIT {
            bail!("the harvest did not end");
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    let (job_seconds, used) = (began.elapsed().as_secs_f64(), processor() - before);
    let (asked, span) = (teacher.requests(), teacher.span());
    drop(harvesters);
    drop(cluster);
    let harvested = asked as f64 / span.as_secs_f64();

    let bodies: Vec<String> = teacher.counts().into_keys().collect();
    let bare = thinker()?;
    let (bare_asked, bare_span) = load(&bare, bodies)?;
    let generated = bare_asked as f64 / bare_span.as_secs_f64();
    println!(
        "{}",
        json!({
            "what": format!("harvest, {replicas} replicas"), "prompts": asked,
            "prompts_per_second": harvested, "bare_prompts_per_second": generated,
            "ratio": harvested / generated, "at_once": teacher.at_once_max(), "bare_at_once": bare.at_once_max(),
            "processor_ms_per_prompt": used * 1000.0 / asked as f64, "job_seconds": job_seconds,
        })
    );
    Ok(())
}

/// One connection per concurrent call, each with one call after another.
fn load(teacher: &Teacher, prompts: Vec<String>) -> anyhow::Result<(usize, Duration)> {
    let address = teacher.url().trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let prompts = Arc::new(Mutex::new(VecDeque::from(prompts)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let lanes: Vec<_> =
            (0..AT_ONCE).map(|_| tokio::spawn(lane(address.clone(), Arc::clone(&prompts)))).collect();
        for lane in lanes {
            lane.await??;
        }
        anyhow::Ok(())
    })?;
    Ok((teacher.requests(), teacher.span()))
}

async fn lane(address: String, prompts: Arc<Mutex<VecDeque<String>>>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(&address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let next = || prompts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(prompt) = next() {
        let body =
            json!({"model": "local", "prompt": prompt, "max_tokens": 256, "temperature": 0.7}).to_string();
        let request = Request::post("/v1/completions")
            .header("host", &address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = sender.send_request(request).await?.into_body().collect().await?;
        let _: serde_json::Value = serde_json::from_slice(&answer.to_bytes())?;
    }
    Ok(())
}

/// Processor time of a process so far, of all threads.
fn processor_seconds(child: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // After the name, which may contain anything, user and system time are fields 12 and 13.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

/// The peak memory of a process so far, in bytes.
fn peak_bytes(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Runs an import to its end. Returns its seconds and its peak memory.
fn import(folder: &Path, url: Option<&str>) -> anyhow::Result<(f64, u64)> {
    let mut command = binary::command(folder, &["import", "jsonl", "rows.jsonl", "--json"])?;
    if let Some(url) = url {
        command.env("DISTILLERY_SERVER", url);
    }
    let began = Instant::now();
    let mut child = command.stdout(fs::File::create(folder.join("said"))?).spawn()?;
    let mut peak = 0;
    let status = loop {
        // An ended process has no memory, but still a status.
        peak = peak_bytes(&child).unwrap_or(peak).max(peak);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let seconds = began.elapsed().as_secs_f64();
    let said: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join("said"))?)?;
    if !status.success() || said.get("rows") != Some(&ROWS.into()) {
        bail!("the import went wrong: {said}");
    }
    Ok((seconds, peak))
}

fn import_here() -> anyhow::Result<()> {
    let folder = Folder::empty()?;
    write_problems(&folder.join("rows.jsonl"), ROWS, 0)?;
    let (seconds, peak) = import(folder.path(), None)?;
    println!(
        "{}",
        json!({
            "what": "import into a data folder", "rows": ROWS, "rows_per_second": ROWS as f64 / seconds,
            "seconds": seconds, "peak_megabytes": peak / 1_000_000,
        })
    );
    Ok(())
}

fn import_there() -> anyhow::Result<()> {
    let cluster = Cluster::start(1)?;
    let mut harvester = cluster.harvester("http://127.0.0.1:9/v1")?;
    write_problems(&cluster.folder.join("rows.jsonl"), ROWS, 0)?;
    let (seconds, peak) = import(cluster.folder.path(), Some(harvester.url()))?;
    let served = peak_bytes(harvester.child()).context("the harvester is gone")?;
    println!(
        "{}",
        json!({
            "what": "import over the network into PostgreSQL", "rows": ROWS, "rows_per_second": ROWS as f64 / seconds,
            "seconds": seconds, "peak_megabytes": peak / 1_000_000, "harvester_peak_megabytes": served / 1_000_000,
        })
    );
    Ok(())
}
