//! Tries everything that the configuration names, and says of each whether it works and what to do.

use crate::checkpoint_store::{self, Writers};
use crate::config::Config;
#[cfg(feature = "harvester")]
use crate::records::{self, Records};
use std::io::Write;
use std::path::Path;

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
    fn of(what: impl Into<String>, tried: anyhow::Result<String>) -> Self {
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
    let mut found = Vec::new();
    found.push(Finding::of("checkpoints", checkpoints(config)));
    found.push(device(config));
    found.extend(certificates(config));
    #[cfg(feature = "harvester")]
    {
        match records::open(config).await {
            Ok(records) => {
                found.insert(0, Finding::of("database", Ok(place(config))));
                for name in config.teachers.keys() {
                    found.push(teacher(config, &records, name).await);
                }
                records.close().await;
            }
            Err(error) => {
                found.insert(0, Finding::of("database", Err(error)));
                let words = "not tried: the database comes first, where its limits are shared";
                found.push(Finding::off("teachers", words));
            }
        }
    }
    #[cfg(not(feature = "harvester"))]
    found.push(Finding::off("database", "this program was built without the harvester"));
    found
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
    let root = match config.checkpoints.root.as_str() {
        "" => config.data_dir.join("checkpoints").display().to_string(),
        root => root.to_owned(),
    };
    checkpoint_store::open(config, Writers::Many)?;
    if !root.contains("://") {
        let probe = Path::new(&root).join(PROBE);
        let written = std::fs::File::create(&probe).and_then(|mut file| file.write_all(b"distillery"));
        let removed = std::fs::remove_file(&probe);
        written
            .and(removed)
            .map_err(|error| anyhow::anyhow!("{root} cannot be written to ({error}): make it this user's"))?;
    }
    Ok(root)
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

/// The files that are named can be read.
fn certificates(config: &Config) -> Vec<Finding> {
    let files = [
        ("server.tls_certificate", &config.server.tls_certificate),
        ("server.tls_key", &config.server.tls_key),
        ("server.tls_client_ca", &config.server.tls_client_ca),
        ("client.ca", &config.client.ca),
        ("client.certificate", &config.client.certificate),
    ];
    let named = files.into_iter().filter(|(_, path)| !path.as_os_str().is_empty());
    named
        .map(|(setting, path)| {
            let read = std::fs::read_to_string(path);
            let tried = match read {
                Ok(text) if text.contains("-----BEGIN ") => Ok(path.display().to_string()),
                Ok(_) => Err(anyhow::anyhow!("{} holds no PEM: name the file that does", path.display())),
                Err(error) => Err(anyhow::anyhow!("{} cannot be read ({error})", path.display())),
            };
            Finding::of(setting, tried)
        })
        .collect()
}

/// Asks one short question.
#[cfg(feature = "harvester")]
async fn teacher(config: &Config, records: &Records, name: &str) -> Finding {
    let what = format!("teacher {name}");
    if let Some(why) = crate::teachers::without_key(&config.teachers, name) {
        return Finding::off(what, why);
    }
    let Some(section) = config.teachers.get(name) else { return Finding::off(what, "is not configured") };
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
