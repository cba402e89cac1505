//! The grammar of serving, and of speaking to a server.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use domain::state::{DistillationState, Verdict};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Parses a domain enumeration by its names, which are also the help.
macro_rules! names {
    ($enumeration:ty) => {{
        let value = |known: &$enumeration| {
            PossibleValue::new(known.as_str()).help(known.documentation().trim_end_matches('.'))
        };
        PossibleValuesParser::new(<$enumeration>::ALL.iter().map(value))
            .try_map(|name| name.parse::<$enumeration>().map_err(|violation| violation.message))
    }};
}
pub(super) use names;

/// Which server a verb speaks to.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArguments {
    /// The server to speak to, such as https://host:7070 [default: the data folder on this machine]
    #[arg(long, value_name = "URL", env = "DISTILLERY_SERVER", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// The file that holds the token [default: the variable DISTILLERY_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authorities to trust, a PEM file [default: those of the operating system]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) ca: Option<PathBuf>,
}

impl ServerArguments {
    /// The server's URL, where one is given.
    pub(crate) fn url(&self) -> Option<&str> {
        self.server.as_deref().filter(|url| !url.is_empty())
    }
}

/// Which job is meant, and where it is.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// Its id, or its name: the newest job of that name
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: String,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const SERVE_EXAMPLES: &str = "Examples:
  distillery serve --role all
  distillery serve --role harvester --config harvester.toml
  DISTILLERY_CLIENT_HARVESTER_URL=https://harvester:7070 distillery serve --role trainer,inference

It says where it listens on standard output. SIGTERM and SIGINT end it in order: the health service says so, calls finish,
the trainer writes its resume state and hands its run back; a second signal exits at once.";

/// See [`super::Verb::Serve`].
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// What this process does; several are separated by commas
    #[arg(long, value_enum, required = true, value_delimiter = ',', value_name = "ROLE")]
    pub(crate) role: Vec<RoleName>,
    /// Where to listen, before the configuration's server.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// A role by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Owns the records, asks teachers, answers the API
    Harvester,
    /// Trains students
    Trainer,
    /// Serves students
    Inference,
    /// All of them
    All,
}

pub(crate) const SUBMIT_EXAMPLES: &str = "Examples:
  distillery submit spec.toml --server https://distillery.example:7070
  DISTILLERY_SERVER=localhost:7070 distillery submit spec.toml --watch

The rows are uploaded by their content: what is there already is not sent again, and the same specification over the same
rows is the same job.";

/// See [`super::Verb::Submit`].
#[derive(Debug, Args)]
pub(crate) struct SubmitArguments {
    /// The specification, a TOML file
    pub(crate) spec: PathBuf,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Follow the job to its end, and report as `run` does
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const WATCH_EXAMPLES: &str = "Examples:
  distillery watch word-problems --server localhost:7070
  distillery watch 018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11 --json > events.jsonl

It ends when the job does (exit code 0 where it succeeded, else 1), and goes on where it was after a lost connection.";

/// See [`super::Verb::Watch`].
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Its id, or its name: the newest job of that name
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: String,
    /// JSON Lines on standard output, one event each, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const LIST_EXAMPLES: &str = "Examples:
  distillery list --server localhost:7070
  distillery list --state training --state paused --json";

/// See [`super::Verb::List`].
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only jobs in this state; give several
    #[arg(long, value_parser = names!(DistillationState))]
    pub(crate) state: Vec<DistillationState>,
    /// Only jobs of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Most jobs, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) limit: usize,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const SHOW_EXAMPLES: &str = "Examples:
  distillery show word-problems
  distillery show word-problems --server localhost:7070 --json";

pub(crate) const CANCEL_EXAMPLES: &str = "Examples:
  distillery cancel word-problems --server localhost:7070 --reason 'wrong labels'";

/// See [`super::Verb::Cancel`].
#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    #[command(flatten)]
    pub(crate) job: JobArguments,
    /// Why, for the records
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

pub(crate) const RESUME_EXAMPLES: &str = "Examples:
  distillery resume word-problems --server localhost:7070

Prompts that the teacher failed on too often are asked again.";

pub(crate) const DELETE_EXAMPLES: &str = "Examples:
  distillery delete word-problems --server localhost:7070
  distillery delete --model word-problems@2
  distillery delete --dataset word-problems";

/// See [`super::Verb::Delete`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["job", "model", "dataset"]))]
pub(crate) struct DeleteArguments {
    /// A job that ended or is paused: its id, or its name. Its model stays, and so does what was paid for
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: Option<String>,
    /// A model: servers unload it
    #[arg(long, value_name = "NAME@VERSION")]
    pub(crate) model: Option<String>,
    /// A dataset that no unfinished job reads: the newest of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const LEDGER_EXAMPLES: &str = "Examples:
  distillery ledger word-problems --verdict rejected
  distillery ledger word-problems --server localhost:7070 --json > ledger.jsonl";

/// See [`super::Verb::Ledger`].
#[derive(Debug, Args)]
pub(crate) struct LedgerArguments {
    /// Its id, or its name: the newest job of that name
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: String,
    /// Only entries of this verdict
    #[arg(long, value_parser = names!(Verdict))]
    pub(crate) verdict: Option<Verdict>,
    /// Most entries [default: 50 in a table, all with --json]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<usize>,
    /// JSON Lines on standard output, one entry each, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const HEALTH_EXAMPLES: &str = "Examples:
  distillery health
  distillery health --server https://host:7070 --service distillery.v1.InferenceService

Without --server it asks the server of this machine, where its own configuration says that it listens.";

/// See [`super::Verb::Health`].
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// Only this service, such as distillery.v1.InferenceService [default: the whole server]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const MODELS_EXAMPLES: &str = "Examples:
  distillery models --server localhost:7070
  distillery models --name word-problems --json";

/// See [`super::Verb::Models`].
#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    /// Only models of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Most models, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) limit: usize,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}
