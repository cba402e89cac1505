//! Configuration: one TOML file over the documented defaults, environment variables over the file. Read once, here.

mod error;
mod network;
mod watching;

pub use error::ConfigError;
pub use network::{
    Address, CheckpointsSection, ClientSection, DatabaseSection, RedisSection, S3Section, ServerSection,
    TokenSection,
};
pub use watching::{AdminSection, JobsReaders, TelemetrySection};

use crate::toml_lines::TomlLines;
use domain::Secret;
use domain::spec::{is_name, suggestion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Every setting with its default and its documentation: what `distillery config` prints, and the schema that a user's
/// file is checked against.
pub const DEFAULTS: &str = include_str!("default.toml");

const PREFIX: &str = "DISTILLERY_";
const TEACHER_URL: &str = "DISTILLERY_TEACHER_URL";
/// Variables that belong to set-up scripts and tests, not to this file.
const FOREIGN: &[&str] = &[
    TEACHER_URL,
    "DISTILLERY_PAPER_DATA",
    "DISTILLERY_TEST_DEVICE",
    "DISTILLERY_CONFIG",
    "DISTILLERY_SERVER",
    "DISTILLERY_TOKEN",
];

/// The whole configuration, typed; each service gets its own section.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Where the local verbs keep their things.
    pub data_dir: PathBuf,
    /// Where the records are.
    pub database: DatabaseSection,
    /// Where the queue and the teachers' shared limits are.
    pub redis: RedisSection,
    /// Where checkpoints are.
    pub checkpoints: CheckpointsSection,
    /// Where services listen, and whom they let in.
    pub server: ServerSection,
    /// How services are reached.
    pub client: ClientSection,
    /// Logging.
    pub log: Log,
    /// Where metrics and probes are answered.
    pub admin: AdminSection,
    /// Where traces go.
    pub telemetry: TelemetrySection,
    /// The harvester's section.
    pub harvester: HarvesterSection,
    /// The trainer's section.
    pub trainer: TrainerSection,
    /// The inference service's section.
    pub inference: InferenceSection,
    /// Teacher profiles by name.
    pub teachers: BTreeMap<String, TeacherSection>,
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    /// A filter in the syntax of `tracing`.
    pub level: String,
    /// For whom.
    pub format: LogFormat,
}

/// For whom logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// People.
    Text,
    /// Collectors.
    Json,
}

/// The harvester's section.
#[derive(Debug, Clone, Deserialize)]
pub struct HarvesterSection {
    /// Prompts that this process asks at once; 0 where it only answers the API.
    pub workers: usize,
    /// Seconds of a prompt's lease.
    pub lease_seconds: u64,
    /// Failures after which a prompt is parked.
    pub failures_max: u32,
    /// Trainers in a row, without a step forward, that may be lost at a run before it fails.
    pub lost_trainers_max: u64,
    /// Harvesters in a row that may be lost at a job, without its coming further, before it pauses.
    pub lost_harvesters_max: u64,
    /// Seconds that a teacher may be away before its jobs pause.
    pub outage_seconds: u64,
    /// Entries of the work queue.
    pub queue_capacity: usize,
}

/// The trainer's section.
#[derive(Debug, Clone, Deserialize)]
pub struct TrainerSection {
    /// Threads of the tensor library; 0 for one per core.
    pub threads: usize,
    /// Seconds of a run's lease.
    pub lease_seconds: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Seconds without a run after which a trainer on its own ends; 0 for never.
    pub idle_seconds_max: u64,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// CUDA where it is found.
    Auto,
    /// Never CUDA.
    Cpu,
}

/// The inference service's section.
#[derive(Debug, Clone, Deserialize)]
pub struct InferenceSection {
    /// Tokens that requests may hold at once.
    pub queue_tokens_max: usize,
    /// Padded tokens of one batch.
    pub batch_tokens_max: usize,
    /// Bytes of the answers that are kept to be given again; 0 to keep none.
    pub cache_bytes_max: usize,
}

/// A teacher profile as the operator writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct TeacherSection {
    /// `openai_chat`, `openai_completions`, `anthropic` or `gemini`.
    pub provider: String,
    /// The API's base.
    pub url: String,
    /// The model as the server names it.
    pub model: String,
    /// The environment variable that holds the key.
    pub api_key_env: String,
    /// The file that holds the key.
    pub api_key_file: String,
    /// 0 for no limit.
    pub requests_per_minute: u64,
    /// 0 for no limit.
    pub tokens_per_minute: u64,
    /// 0 for no limit.
    pub tokens_in_per_minute: u64,
    /// 0 for no limit.
    pub tokens_out_per_minute: u64,
    /// 0 for no limit.
    pub requests_per_day: u64,
    /// 0 for no limit.
    pub tokens_per_day: u64,
    /// Calls in flight at once.
    pub concurrency_max: usize,
    /// Calls for one attempt at a prompt.
    pub attempts_max: u32,
    /// Seconds to connect.
    pub connect_seconds: u64,
    /// Seconds without a byte.
    pub idle_seconds: u64,
    /// Seconds of a whole call.
    pub total_seconds: u64,
    /// Price of a million tokens in.
    pub price_in_per_million: f64,
    /// Price of a million tokens out.
    pub price_out_per_million: f64,
    /// Price of a million tokens in from the server's cache; -1 for the price of tokens in.
    pub price_cached_per_million: f64,
    /// Price of a million tokens in that are written into the server's cache; -1 for the price of tokens in.
    pub price_written_per_million: f64,
    /// Whether an OpenAI-compatible server has OpenAI's batch API.
    pub batch: bool,
    /// The part of the prices that a question in a batch costs.
    pub price_batch_factor: f64,
    /// Which model answers, where the server does not tell.
    pub identity: String,
    /// The header of the key; empty for the provider's own.
    pub key_header: String,
    /// Further headers; their values are secrets.
    #[serde(deserialize_with = "secrets")]
    pub headers: BTreeMap<String, Secret>,
    /// Further headers, by the environment variables that hold their values.
    pub headers_env: BTreeMap<String, String>,
    /// `max_tokens` or `max_completion_tokens`.
    pub tokens_parameter: String,
    /// Whether the temperature is sent.
    pub send_temperature: bool,
    /// Whether the nucleus mass is sent.
    pub send_top_p: bool,
    /// Whether stop sequences are sent.
    pub send_stop: bool,
    /// Whether the number of the sample is sent as a seed.
    pub send_seed: bool,
    /// Whether the model may think before it answers.
    pub thinking: bool,
    /// Tokens for thoughts, beside those of the answer.
    pub thinking_tokens_max: u32,
    /// Further keys of the request's body.
    pub body: Table,
}

/// Values that are never printed.
fn secrets<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(from)?;
    Ok(texts.into_iter().map(|(name, text)| (name, Secret::new(&text))).collect())
}

impl Config {
    /// [`Config::load`] with this process's environment.
    ///
    /// # Errors
    /// See [`Config::load`].
    #[allow(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn load_here(file: Option<&Path>) -> Result<Self, ConfigError> {
        // A variable of somebody else's may hold anything.
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::load(file, std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))))
    }

    /// Reads the defaults, then `file` (else `./distillery.toml`, where it exists), then `environment`.
    ///
    /// # Errors
    /// An unreadable file, an unknown key or variable (with a suggestion), a value of the wrong type.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let schema = defaults()?;
        let mut values = schema.clone();
        if let Some((place, text)) = read_file(file)? {
            let given = parse(&place, &text)?;
            let lines = TomlLines::of(&text);
            merge(&mut values, &schema, given, &Place { file: &place, lines: &lines, path: String::new() })?;
        }
        let mut teacher_url = None;
        for (name, value) in environment {
            if name == TEACHER_URL {
                teacher_url = Some(value);
            } else if name.starts_with(PREFIX) && !FOREIGN.contains(&name.as_str()) {
                set_from_environment(&mut values, &name, &value)?;
            }
        }
        if let (Some(url), Some(Value::Table(local))) =
            (teacher_url, values.get_mut("teachers").and_then(|teachers| teachers.get_mut("local")))
        {
            local.insert("url".to_owned(), Value::String(url));
        }
        Self::of(values)
    }

    /// The defaults alone, whatever files and variables there are.
    ///
    /// # Errors
    /// None: the defaults are this program's own.
    pub fn built_in() -> Result<Self, ConfigError> {
        Self::of(defaults()?)
    }

    fn of(values: Table) -> Result<Self, ConfigError> {
        Self::deserialize(Value::Table(values))
            .map_err(|error| ConfigError::new("configuration", error.to_string().trim().to_owned()))
    }
}

/// Every setting with its default.
fn defaults() -> Result<Table, ConfigError> {
    let mut schema = parse("the built-in defaults", DEFAULTS)?;
    fill_teachers(&mut schema);
    Ok(schema)
}

fn parse(place: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        ConfigError::new(format!("{place}:{line}"), format!("is not TOML: {}", error.message()))
    })
}

/// In the defaults, profiles other than `local` leave out what they share with it.
fn fill_teachers(table: &mut Table) {
    let Some(Value::Table(teachers)) = table.get_mut("teachers") else { return };
    let Some(Value::Table(full)) = teachers.get("local").cloned() else { return };
    if full.len() < 2 {
        return;
    }
    for (_, profile) in teachers.iter_mut() {
        if let Value::Table(profile) = profile {
            for (key, value) in &full {
                if !profile.contains_key(key) {
                    profile.insert(key.clone(), value.clone());
                }
            }
        }
    }
}

fn read_file(file: Option<&Path>) -> Result<Option<(String, String)>, ConfigError> {
    let (path, asked) = match file {
        Some(path) => (path, true),
        None => (Path::new("distillery.toml"), false),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.display().to_string(), text))),
        Err(error) if !asked && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::new(
            path.display().to_string(),
            format!("cannot be read: {error}; `distillery config` prints a file to begin with"),
        )),
    }
}

/// Where in a user's file something stands.
struct Place<'a> {
    file: &'a str,
    lines: &'a TomlLines,
    /// The keys down to it, joined by full stops; empty for the whole file.
    path: String,
}

impl Place<'_> {
    fn of(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Place { path, ..*self }
    }

    fn wrong(&self, message: impl Into<String>) -> ConfigError {
        let line = self.lines.line(&self.path);
        ConfigError::new(format!("{}:{line}: {}", self.file, self.path), message)
    }
}

/// Lays `given` over `values`; every key must stand in `schema`, but for the names of teacher profiles and tokens.
fn merge(values: &mut Table, schema: &Table, given: Table, around: &Place<'_>) -> Result<(), ConfigError> {
    for (key, value) in given {
        let place = around.of(&key);
        let Some(known) = schema.get(&key) else { return Err(place.wrong(unknown(&key, schema))) };
        match (known, value) {
            (Value::Table(inner_schema), Value::Table(inner)) => {
                let Some(Value::Table(section)) = values.get_mut(&key) else { continue };
                if let Some(what) = free_table(&place.path) {
                    *section = what.checked(inner, &place)?;
                    continue;
                }
                match shape_of_entries(&place.path, inner_schema) {
                    Some(shape) => merge_entries(section, &shape, inner, &place)?,
                    None => merge(section, inner_schema, inner, &place)?,
                }
            }
            (Value::Table(_), _) => {
                return Err(place.wrong("is a section: write it as a table"));
            }
            (known, value) => {
                let value = fitting(known, value).ok_or_else(|| place.wrong(wrong_type(known)))?;
                values.insert(key, value);
            }
        }
    }
    Ok(())
}

/// A table of a teacher profile whose keys are the user's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FreeTable {
    /// Names and texts.
    Texts,
    /// Whatever a server takes.
    Anything,
}

fn free_table(path: &str) -> Option<FreeTable> {
    let (_, key) = path.strip_prefix("teachers.")?.rsplit_once('.')?;
    match key {
        "headers" | "headers_env" => Some(FreeTable::Texts),
        "body" => Some(FreeTable::Anything),
        _ => None,
    }
}

impl FreeTable {
    fn checked(self, given: Table, around: &Place<'_>) -> Result<Table, ConfigError> {
        let wrong = given.iter().find(|(_, value)| self == Self::Texts && !value.is_str());
        match wrong {
            Some((key, _)) => Err(around.of(key).wrong("must be a string")),
            None => Ok(given),
        }
    }
}

/// What every entry of a section of named entries may hold; `None` where the section has keys of its own.
fn shape_of_entries(path: &str, section: &Table) -> Option<Table> {
    match path {
        "teachers" => section.get("local").and_then(Value::as_table).cloned(),
        "server.tokens" => network::TOKEN.parse().ok(),
        _ => None,
    }
}

/// Lays named entries over those that are there; a new one begins as `shape`.
fn merge_entries(
    section: &mut Table,
    shape: &Table,
    entries: Table,
    around: &Place<'_>,
) -> Result<(), ConfigError> {
    for (name, entry) in entries {
        let place = around.of(&name);
        if !is_name(&name) || matches!(name.as_str(), "imported" | "none") {
            return Err(place.wrong("cannot name an entry: use letters, digits, `-`, `_` or `.`"));
        }
        let Value::Table(entry) = entry else {
            return Err(place.wrong("is an entry of its own: write it as a table"));
        };
        if let Value::Table(present) = section.entry(name).or_insert_with(|| Value::Table(shape.clone())) {
            merge(present, shape, entry, &place)?;
        }
    }
    Ok(())
}

fn unknown(key: &str, schema: &Table) -> String {
    match suggestion(key, schema.keys().map(String::as_str)) {
        Some(near) => format!("is not a known key: did you mean `{near}`?"),
        None => "is not a known key: `distillery config` lists them all".to_owned(),
    }
}

fn wrong_type(known: &Value) -> String {
    format!("must be {}, such as {known}", a_kind(known))
}

fn a_kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        _ => "a string",
    }
}

/// `value` as the type that `known` has.
fn fitting(known: &Value, value: Value) -> Option<Value> {
    match (known, value) {
        (Value::Float(_), Value::Integer(whole)) => Some(Value::Float(whole as f64)),
        (Value::Integer(_), Value::Integer(whole)) if whole < 0 => None,
        (known, value) if known.same_type(&value) => Some(value),
        _ => None,
    }
}

fn set_from_environment(values: &mut Table, name: &str, text: &str) -> Result<(), ConfigError> {
    let wanted = name.trim_start_matches(PREFIX).to_ascii_lowercase();
    let mut known = Vec::new();
    collect_leaves(values, &[], &mut known);
    let Some((_, path)) = known.iter().find(|(variable, _)| *variable == wanted) else {
        let near = suggestion(&wanted, known.iter().map(|(variable, _)| variable.as_str()));
        let hint = near.map_or_else(String::new, |near| {
            format!(": did you mean {PREFIX}{}?", near.to_ascii_uppercase())
        });
        return Err(ConfigError::new(
            name,
            format!("is not a setting{hint}; `distillery config` lists them all"),
        ));
    };
    let Some(place) = leaf(values, path) else { return Ok(()) };
    let parsed = match place {
        Value::Integer(_) => text.parse::<i64>().ok().filter(|whole| *whole >= 0).map(Value::Integer),
        Value::Float(_) => text.parse::<f64>().ok().map(Value::Float),
        Value::Boolean(_) => text.parse::<bool>().ok().map(Value::Boolean),
        _ => Some(Value::String(text.to_owned())),
    };
    *place = parsed.ok_or_else(|| ConfigError::new(name, wrong_type(place)))?;
    Ok(())
}

/// Every setting as (variable without prefix, path).
fn collect_leaves(table: &Table, path: &[String], found: &mut Vec<(String, Vec<String>)>) {
    for (key, value) in table {
        let mut here = path.to_vec();
        here.push(key.clone());
        match value {
            // Keys that are the user's own are no settings.
            Value::Table(_) if here.len() == 3 && free_table(&here.join(".")).is_some() => {}
            Value::Table(inner) => collect_leaves(inner, &here, found),
            _ => found.push((here.join("_").replace(['-', '.'], "_").to_ascii_lowercase(), here)),
        }
    }
}

fn leaf<'a>(table: &'a mut Table, path: &[String]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get_mut(first)?;
    if rest.is_empty() {
        return Some(value);
    }
    match value {
        Value::Table(inner) => leaf(inner, rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("distillery.toml");
        std::fs::write(&path, file).unwrap();
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&path), pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_file_and_environment_lie_over_each_other() {
        let config = load("", &[]).unwrap();
        assert_eq!((config.trainer.threads, config.harvester.failures_max), (0, 5));
        assert_eq!(config.teachers["openai"].idle_seconds, 120, "profiles share local's other settings");
        let config = load(
            "[trainer]\nthreads = 3\n[teachers.mine]\nurl = \"http://host/v1\"\nprice_in_per_million = 2\n",
            &[("DISTILLERY_TRAINER_THREADS", "7"), ("DISTILLERY_TEACHER_URL", "http://other/v1")],
        )
        .unwrap();
        assert_eq!(config.trainer.threads, 7);
        assert_eq!(config.teachers["mine"].price_in_per_million, 2.0);
        assert_eq!(config.teachers["local"].url, "http://other/v1");
        let config = load(
            "[teachers.local]\nurl = \"http://mine/v1\"\nmodel = \"m\"\n[teachers.openai]\nmodel = \"large\"\n\
             [teachers.azure]\nkey_header = \"api-key\"\nthinking_tokens_max = 9\n[teachers.azure.headers]\nX-Title = \"s3cret\"\n\
             [teachers.azure.body.chat_template_kwargs]\nenable_thinking = false\n",
            &[("DISTILLERY_TEACHERS_AZURE_SEND_STOP", "false")],
        )
        .unwrap();
        assert_eq!(
            config.teachers["openai"].url, "https://api.openai.com/v1",
            "what a user says of `local` is local's"
        );
        let azure = &config.teachers["azure"];
        assert_eq!(
            (azure.key_header.as_str(), azure.thinking_tokens_max, azure.send_stop),
            ("api-key", 9, false)
        );
        assert_eq!((azure.send_seed, azure.tokens_parameter.as_str()), (true, "max_tokens"));
        assert_eq!(azure.headers["X-Title"].expose(), "s3cret");
        assert_eq!(azure.body["chat_template_kwargs"]["enable_thinking"], Value::Boolean(false));
        assert!(!format!("{config:?}").contains("s3cret"), "a header in Debug output");
        let config = load(
            "[server.tokens.ci]\nrole = \"read\"\nenv = \"A\"\n",
            &[
                ("DISTILLERY_SERVER_TOKENS_CI_ROLE", "submit"),
                ("DISTILLERY_TOKEN", "x"),
                ("DISTILLERY_SERVER", "y"),
            ],
        )
        .unwrap();
        let token = &config.server.tokens["ci"];
        assert_eq!((token.role.as_str(), token.env.as_str(), token.expires.as_str()), ("submit", "A", ""));
    }

    #[test]
    fn mistakes_say_where_and_what_to_do() {
        let check = |file: &str, environment: &[(&str, &str)], wanted: &str| {
            let message = load(file, environment).unwrap_err();
            assert!(message.contains(wanted), "wanted {wanted:?} in {message:?}");
        };
        check(
            "[trainer]\nthraeds = 3\n",
            &[],
            "distillery.toml:2: trainer.thraeds: is not a known key: did you mean `threads`?",
        );
        check(
            "[trainer]\nthreads = \"3\"\n",
            &[],
            "distillery.toml:2: trainer.threads: must be a whole number, such as 0",
        );
        check("[trainer]\nthreads = -3\n", &[], "must be a whole number");
        check(
            "[teachers.local]\nurl = \"x\"\n[teachers.local.headers]\nA = 3\n",
            &[],
            "distillery.toml:4: teachers.local.headers.A: must be a string",
        );
        check("[teachers.local]\nbody = 3\n", &[], "distillery.toml:2: teachers.local.body: is a section");
        check("trainer = 3\n", &[], "distillery.toml:1: trainer: is a section");
        check("[trainer\n", &[], "distillery.toml:1: is not TOML");
        check(
            "[teachers.imported]\nurl = \"x\"\n",
            &[],
            "distillery.toml:1: teachers.imported: cannot name an entry",
        );
        check("", &[("DISTILLERY_TRAINER_THREAD", "1")], "did you mean DISTILLERY_TRAINER_THREADS?");
        check(
            "",
            &[("DISTILLERY_TRAINER_THREADS", "x")],
            "DISTILLERY_TRAINER_THREADS: must be a whole number",
        );
        check("[trainer]\ndevice = \"tpu\"\n", &[], "unknown variant `tpu`");
        check("[server]\nlisten = \"here\"\n", &[], "invalid socket address");
        check(
            "[server.tokens.ci]\nrule = \"x\"\n",
            &[],
            "server.tokens.ci.rule: is not a known key: did you mean `role`?",
        );
        check(
            "[server.tokens]\nci = \"x\"\n",
            &[],
            "distillery.toml:2: server.tokens.ci: is an entry of its own",
        );
        check("[[server.tokens]]\nrole = \"x\"\n", &[], "server.tokens: is a section");
    }
}
