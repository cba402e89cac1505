//! Tries everything that the configuration names, and says of each whether it works and what to do.

use crate::checkpoint_store::{self, BUCKET, Writers};
use crate::config::Config;
#[cfg(feature = "harvester")]
use crate::config::TeacherSection;
#[cfg(feature = "harvester")]
use crate::records::{self, Records};
use crate::{client, ingress};
use std::io::Write;

/// What is written where checkpoints will be, and removed.
const PROBE: &str = ".distillery-doctor";

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: `database`, `teacher local`.
    pub what: String,
    /// Whether it works.
    pub state: State,
    /// What it is; where it does not work, why, and what to do.
    pub words: String,
}

/// Whether something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works.
    Works,
    /// It is not set up, and need not be.
    Off,
    /// It is set up and does not work.
    Fails,
}

impl State {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Off => "off",
            Self::Fails => "fails",
        }
    }
}

impl Finding {
    /// What trying it came to.
    pub fn of(what: impl Into<String>, tried: anyhow::Result<String>) -> Self {
        let (state, words) = match tried {
            Ok(words) => (State::Works, words),
            Err(error) => (State::Fails, format!("{error:#}")),
        };
        Self { what: what.into(), state, words }
    }

    fn off(what: impl Into<String>, words: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Off, words: words.into() }
    }
}

/// Tries database and queue, the store of checkpoints, the device, certificates, and each teacher by one question of a few
/// tokens. To be called on a runtime.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut found = vec![Finding::of("checkpoints", checkpoints(config)), device(config)];
    found.extend(network(config));
    records(config, &mut found).await;
    found
}

/// The database and the queue, and the teachers, whose limits are kept there.
#[cfg(feature = "harvester")]
async fn records(config: &Config, found: &mut Vec<Finding>) {
    // Also while another process works in the data folder.
    let records = match records::open_to_read(config).await {
        Ok(records) => records,
        Err(error) => {
            found.push(Finding::of("database", Err(error)));
            found.push(Finding::off("teachers", "not tried: their limits are kept in the database"));
            return;
        }
    };
    found.push(Finding::of("database", Ok(place(config))));
    for (name, section) in &config.teachers {
        found.push(teacher(config, section, &records, name).await);
    }
    records.close().await;
}

#[cfg(not(feature = "harvester"))]
async fn records(_: &Config, found: &mut Vec<Finding>) {
    found.push(Finding::off("database", "this program was built without the harvester"));
}

#[cfg(feature = "harvester")]
fn place(config: &Config) -> String {
    match records::place(config) {
        Some(place) => format!("{place}, and the queue at Redis"),
        None => format!("SQLite in {}", config.data_dir.display()),
    }
}

/// The store opens, and a folder of this machine takes a file.
fn checkpoints(config: &Config) -> anyhow::Result<String> {
    let root = checkpoint_store::root(config);
    checkpoint_store::open(config, Writers::Many)?;
    let shown = root.display().to_string();
    if !shown.starts_with(BUCKET) {
        let probe = root.join(PROBE);
        let written = std::fs::File::create(&probe).and_then(|mut file| file.write_all(b"distillery"));
        let removed = std::fs::remove_file(&probe);
        written.and(removed).map_err(|error| {
            anyhow::anyhow!("{shown} cannot be written to ({error}): make it this user's")
        })?;
    }
    Ok(shown)
}

#[cfg(feature = "trainer")]
fn device(config: &Config) -> Finding {
    let wants_cuda = config.trainer.device == crate::config::DeviceChoice::Auto;
    match (wants_cuda, trainer::has_cuda()) {
        (true, true) => Finding::of("device", Ok("CUDA".to_owned())),
        (true, false) => Finding::off(
            "device",
            "the processor: no GPU was found (for one, run scripts/libtorch.sh --cuda and build again)",
        ),
        (false, _) => Finding::off("device", "the processor: `[trainer] device` says so"),
    }
}

#[cfg(not(feature = "trainer"))]
fn device(_: &Config) -> Finding {
    Finding::off("device", "this program was built without the trainer")
}

/// What a server shows, and what a caller shows it, where they are named.
fn network(config: &Config) -> [Finding; 2] {
    let server = match ingress::has_tls(&config.server) {
        Ok(true) => Finding::of("server", Ok(format!("TLS at {}", config.server.listen))),
        Ok(false) => Finding::off("server", "no TLS: `[server] tls_certificate` and `tls_key` name it"),
        Err(error) => Finding::of("server", Err(error)),
    };
    let words =
        || "authorities, certificate and token of callers can be read, where they are named".to_owned();
    [server, Finding::of("client", client::check(&config.client).map(|()| words()))]
}

/// Asks one short question.
#[cfg(feature = "harvester")]
async fn teacher(config: &Config, section: &TeacherSection, records: &Records, name: &str) -> Finding {
    let what = format!("teacher {name}");
    if let Some(why) = crate::teachers::without_key(&config.teachers, name) {
        return Finding::off(what, why);
    }
    let tried = async {
        let sections = std::collections::BTreeMap::from([(name.to_owned(), section.clone())]);
        let opened = crate::teachers::open(&sections, &records.rate_limiter)?;
        let Some(teacher) = opened.get(name) else { anyhow::bail!("it has no key") };
        let began = std::time::Instant::now();
        let question = teacher::Question {
            instruction: String::new(),
            prompt: "Q: Is snow white? Answer yes or no.\nA:".to_owned(),
            sampling: teacher::Sampling {
                temperature: 0.0,
                top_p: 1.0,
                tokens_max: 16,
                stop: Vec::new(),
                sample: 0,
            },
        };
        let asked = teacher.ask(question, std::sync::Arc::new(teacher::Unmetered)).await;
        teacher.close();
        let reply = asked.map_err(|error| anyhow::anyhow!("{}: {error}", section.url))?;
        let model = if reply.model.is_empty() { section.model.clone() } else { reply.model };
        Ok(format!("{model} at {} answered in {} ms", section.url, began.elapsed().as_millis()))
    };
    Finding::of(what, tried.await)
}
