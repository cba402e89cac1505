//! The grammar of serving, and of calling a server.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use domain::state::DistillationState;
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

/// The server that a verb calls.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerArguments {
    /// Call this server, such as https://host:7070; where harvester and inference run apart, both, with a comma between
    /// [default: use the data directory on this machine]
    #[arg(long, value_name = "URL", env = "DISTILLERY_SERVER", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// Read the token from this file [default: the variable DISTILLERY_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file [default: those of the operating system]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) ca: Option<PathBuf>,
}

impl ServerArguments {
    /// What is given, where something is: a URL, or several with commas between.
    pub(crate) fn url(&self) -> Option<&str> {
        self.server.as_deref().filter(|url| !url.is_empty())
    }
}

/// Which job is meant, and where it is.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// Id of the job, or its name: the newest job of that name (for `cancel`, the one that is not over)
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: String,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const SERVE_EXAMPLES: &str = "Examples:
  distillery serve --role all
  distillery serve --role harvester --config harvester.toml
  DISTILLERY_CLIENT_HARVESTER_URL=https://harvester:7070 distillery serve --role trainer,inference

It prints where it listens on standard output. SIGTERM and SIGINT shut it down in order: the health service reports it,
calls finish, the trainer writes its resume state and releases its run; a second signal exits at once.";

/// See [`super::Verb::Serve`].
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Roles of this process, separated by commas
    #[arg(long, value_enum, required = true, value_delimiter = ',', value_name = "ROLE")]
    pub(crate) role: Vec<RoleName>,
    /// Listen at this address instead of the configuration's server.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// A role by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// Own the database, ask teachers, answer the API
    Harvester,
    /// Train students
    Trainer,
    /// Serve students
    Inference,
    /// All of them
    All,
}

pub(crate) const SUBMIT_EXAMPLES: &str = "Examples:
  distillery submit spec.toml --server https://distillery.example:7070
  DISTILLERY_SERVER=localhost:7070 distillery submit spec.toml --watch

Rows are identified by their content: rows that the server has are not sent again, and the same specification over the
same rows is the same job.";

/// See [`super::Verb::Submit`].
#[derive(Debug, Args)]
pub(crate) struct SubmitArguments {
    /// Specification, a TOML file
    pub(crate) spec: PathBuf,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Forget what the teacher answered to the newest job of this specification, and ask again
    #[arg(long, conflicts_with = "again")]
    pub(crate) refresh: bool,
    /// Make another job where this specification was submitted before, over the answers that there are
    #[arg(long)]
    pub(crate) again: bool,
    /// Follow the job to its end, and print the report of `run`
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const WATCH_EXAMPLES: &str = "Examples:
  distillery watch word-problems --server localhost:7070
  distillery watch 018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11 --json > events.jsonl

It ends when the job ends (exit code 0 if it succeeded, else 1), and resumes after a lost connection.";

/// See [`super::Verb::Watch`].
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Id of the job, or its name: the newest job of that name
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: String,
    /// Print JSON Lines on standard output, one event each, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only events after this sequence number
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
    /// List only jobs in this state; repeat for several
    #[arg(long, value_parser = names!(DistillationState))]
    pub(crate) state: Vec<DistillationState>,
    /// List only jobs of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// List at most this many jobs, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Print one JSON object on standard output, and nothing else
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
    /// Reason to record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

pub(crate) const RESUME_EXAMPLES: &str = "Examples:
  distillery resume word-problems --server localhost:7070

Parked prompts, on which the teacher failed too often, are retried.";

pub(crate) const DELETE_EXAMPLES: &str = "Examples:
  distillery delete word-problems --server localhost:7070
  distillery delete --model word-problems@2
  distillery delete --dataset word-problems";

/// See [`super::Verb::Delete`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["job", "model", "dataset"]))]
pub(crate) struct DeleteArguments {
    /// Delete a job that ended or is paused, by id or name; its model and its completions stay
    #[arg(value_name = "ID|NAME")]
    pub(crate) job: Option<String>,
    /// Delete a model; servers unload it
    #[arg(long, value_name = "NAME@VERSION")]
    pub(crate) model: Option<String>,
    /// Delete a dataset that no unfinished job reads: the newest of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const HEALTH_EXAMPLES: &str = "Examples:
  distillery health
  distillery health --server https://host:7070 --service distillery.v1.InferenceService
  distillery health --admin

Without --server it checks the server on this machine, at the address that its configuration listens at.";

/// See [`super::Verb::Health`].
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// Check only this service, such as distillery.v1.InferenceService [default: the whole server]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) service: String,
    /// Ask the admin port on this machine (admin.listen), as probes do, and no server: it answers however many callers there are
    #[arg(long, conflicts_with = "service")]
    pub(crate) admin: bool,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

pub(crate) const MODELS_EXAMPLES: &str = "Examples:
  distillery models --server localhost:7070
  distillery models --name word-problems --json
  distillery models export reviews@1 reviews-student";

/// See [`super::Verb::Models`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    pub(crate) action: Option<ModelsAction>,
    /// List only models of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// List at most this many models, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) limit: usize,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// What is done with models besides listing them.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// Copy a student's checkpoint, which `transformers` reads too, into a folder of its own
    Export(ModelsExportArguments),
}

/// See [`ModelsAction::Export`].
#[derive(Debug, Args)]
pub(crate) struct ModelsExportArguments {
    /// Name of the model (`name` for the newest version, `name@2` for version 2)
    #[arg(value_name = "NAME")]
    pub(crate) model: String,
    /// Folder to make; it must not be there yet
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}
