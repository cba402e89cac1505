//! The command line's grammar: a contract that scripts rely on.

mod bench;
mod columns;
mod init;
mod ledger;
mod runs;
mod server;
mod study;

pub(crate) use bench::{Arrival, Ask, BenchServeArguments, RATE_MAX};
pub(crate) use columns::ColumnArguments;
pub(crate) use init::InitArguments;
pub(crate) use ledger::LedgerArguments;
pub(crate) use runs::{RunsArguments, TrainArguments};
pub(crate) use server::{
    CancelArguments, DeleteArguments, HealthArguments, JobArguments, ListArguments, ModelsAction,
    ModelsArguments, ModelsExportArguments, RoleName, ServeArguments, ServerArguments, SubmitArguments,
    WatchArguments,
};

pub(crate) use study::StudyArguments;

use clap::builder::styling::{AnsiColor, Style, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Distil a large teacher language model into a small T5 student, step by step.
///
/// The teacher gives a rationale and a label for every example; the student is trained on both, and then answers without
/// the teacher.
#[derive(Debug, Parser)]
#[command(name = "distillery", version, max_term_width = 100, after_help = EXAMPLES, styles = STYLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Readable on light and on dark: no yellow, and no colour but the one of errors.
const STYLES: Styles = Styles::styled()
    .header(Style::new().bold())
    .usage(Style::new().bold())
    .literal(Style::new().bold())
    .valid(Style::new().bold())
    .invalid(Style::new().bold())
    .error(AnsiColor::Red.on_default().bold());

const EXAMPLES: &str = "Examples:
  distillery init reviews.csv
  distillery run examples/word-problems/spec.toml
  distillery predict --model word-problems --explain --input 'Ann has 3 pens and buys 4. How many pens has she?'
  distillery import jsonl rows.jsonl --name my-task
  distillery serve --role all
  distillery submit spec.toml --server localhost:7070 --watch

Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted.";

/// Where a local verb finds its data and settings.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Directory of the database and the checkpoints of local verbs [default: .distillery]
    #[arg(long, global = true, value_name = "DIR", display_order = 100)]
    pub(crate) data_dir: Option<PathBuf>,
    /// File of settings and teacher profiles [default: ./distillery.toml if it exists, else built-in]
    #[arg(long, global = true, value_name = "FILE", env = "DISTILLERY_CONFIG", display_order = 101)]
    pub(crate) config: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Propose a specification and a task for a file of rows, and write them with comments
    #[command(after_help = init::INIT_EXAMPLES)]
    Init(InitArguments),
    /// Run a distillation on this machine; run it again to resume where it stopped
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// Estimate what a distillation would ask and cost; asks nothing, or --probe rows
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArguments),
    /// Say whether a teacher's rationales help, on how many rows and in how large a student; run it again to resume
    #[command(after_help = study::STUDY_EXAMPLES)]
    Study(StudyArguments),
    /// Predict labels (and rationales) with a student
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(PredictArguments),
    /// Measure a student on the labelled rows of a file
    #[command(after_help = EVALUATE_EXAMPLES)]
    Evaluate(EvaluateArguments),
    /// Compare two students on the same labelled rows
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArguments),
    /// Import rows into the local database or a server
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        #[command(subcommand)]
        format: ImportFormat,
    },
    /// Export the rows of a dataset to a file
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArguments),
    /// Serve one or several roles at one address
    #[command(after_help = server::SERVE_EXAMPLES)]
    Serve(ServeArguments),
    /// Submit a distillation to a server
    #[command(after_help = server::SUBMIT_EXAMPLES)]
    Submit(SubmitArguments),
    /// Follow a job on a server to its end
    #[command(after_help = server::WATCH_EXAMPLES)]
    Watch(WatchArguments),
    /// List jobs, newest first
    #[command(after_help = server::LIST_EXAMPLES)]
    List(ListArguments),
    /// Show a job
    #[command(after_help = server::SHOW_EXAMPLES)]
    Show(JobArguments),
    /// Cancel a job; answers that were paid for are kept
    #[command(after_help = server::CANCEL_EXAMPLES)]
    Cancel(CancelArguments),
    /// Resume a paused or failed job where it stopped
    #[command(after_help = server::RESUME_EXAMPLES)]
    Resume(JobArguments),
    /// Delete a job, a model or a dataset
    #[command(after_help = server::DELETE_EXAMPLES)]
    Delete(DeleteArguments),
    /// List the teacher's answers, each with its verdict and the reason; judge them again, or ask for them again
    #[command(after_help = ledger::LEDGER_EXAMPLES)]
    Ledger(LedgerArguments),
    /// List the runs over a job's ledger, newest first
    #[command(after_help = runs::RUNS_EXAMPLES)]
    Runs(RunsArguments),
    /// Train another student over a job's ledger, with its own rules, rows, seed or objective
    #[command(after_help = runs::TRAIN_EXAMPLES)]
    Train(TrainArguments),
    /// List published models, newest first
    #[command(after_help = server::MODELS_EXAMPLES)]
    Models(ModelsArguments),
    /// Send a load to a served student, and measure how it answers
    #[command(after_help = bench::BENCH_SERVE_EXAMPLES)]
    BenchServe(Box<BenchServeArguments>),
    /// Check that a server is serving: exit code 0 if it is, 1 if it is not
    #[command(after_help = server::HEALTH_EXAMPLES)]
    Health(HealthArguments),
    /// Try what the configuration names: database, queue, checkpoints, device, certificates, servers, teachers (by one question each)
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor {
        /// Print one JSON object on standard output, and nothing else
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Migrate the database to this program's version
    #[command(after_help = "Example:\n  distillery migrate --data-dir /data/distillery")]
    Migrate {
        /// Print one JSON object on standard output, and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Print every setting with its default and its documentation
    #[command(after_help = "Example:\n  distillery config > distillery.toml")]
    Config,
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  distillery completions bash > ~/.local/share/bash-completion/completions/distillery"
    )]
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

impl Verb {
    /// Its name in traces; `None` for a long-running one.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Init(_) => Some("init"),
            Self::Run(_) => Some("run"),
            Self::Plan(_) => Some("plan"),
            Self::Study(_) => Some("study"),
            Self::Predict(_) => Some("predict"),
            Self::Evaluate(_) => Some("evaluate"),
            Self::Compare(_) => Some("compare"),
            Self::Import { .. } => Some("import"),
            Self::Export(_) => Some("export"),
            Self::Serve(_) => None,
            Self::Submit(_) => Some("submit"),
            Self::Watch(_) => Some("watch"),
            Self::List(_) => Some("list"),
            Self::Show(_) => Some("show"),
            Self::Cancel(_) => Some("cancel"),
            Self::Resume(_) => Some("resume"),
            Self::Delete(_) => Some("delete"),
            Self::Ledger(_) => Some("ledger"),
            Self::Runs(_) => Some("runs"),
            Self::Train(_) => Some("train"),
            Self::Models(_) => Some("models"),
            // Thousands of calls are no trace.
            Self::BenchServe(_) => None,
            Self::Health(_) => Some("health"),
            Self::Doctor { .. } => Some("doctor"),
            Self::Migrate { .. } => Some("migrate"),
            Self::Config => Some("config"),
            Self::Completions { .. } => Some("completions"),
        }
    }
}

const RUN_EXAMPLES: &str = "Examples:
  distillery run examples/word-problems/spec.toml
  distillery run spec.toml --data-dir /data/distillery --json > result.json
  distillery run spec.toml --refresh";

const DOCTOR_EXAMPLES: &str = "Examples:
  distillery doctor
  distillery doctor --config distillery.toml --json";

const PLAN_EXAMPLES: &str = "Examples:
  distillery plan examples/word-problems/spec.toml
  distillery plan spec.toml --probe 8
  distillery plan spec.toml --server localhost:7070 --json";

const PREDICT_EXAMPLES: &str = "Examples:
  distillery predict --model word-problems --input 'Ann has 3 pens and buys 4. How many pens has she?'
  distillery predict --model ./checkpoint --explain --file rows.jsonl
  cat rows.jsonl | distillery predict --model my-task@2 --json -
  distillery predict --model reviews --file reviews.csv --columns input=text,label=sentiment
  distillery predict --server localhost:7070 --model my-task --file rows.jsonl";

const EVALUATE_EXAMPLES: &str = "Examples:
  distillery evaluate word-problems test.jsonl
  distillery evaluate ./checkpoint test.csv --json";

const COMPARE_EXAMPLES: &str = "Examples:
  distillery compare reviews@2 reviews@1 test.jsonl
  distillery compare ./one ./another test.jsonl --margin 1 --json

The difference is the first student's accuracy less the second one's, over the same rows. better, worse: its 95% interval is
above, below zero; no difference: it is inside the margin; not decided: none of these.";

const IMPORT_EXAMPLES: &str = "Examples:
  distillery import jsonl rows.jsonl --name my-task
  distillery import paper --dataset svamp --from datasets/svamp
  distillery import csv rows.csv --server localhost:7070";

const EXPORT_EXAMPLES: &str = "Examples:
  distillery export jsonl my-task rows.jsonl
  distillery export parquet my-task rows.parquet --split train
  distillery export csv my-task - --server localhost:7070";

/// See [`Verb::Run`].
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Specification, a TOML file
    pub(crate) spec: PathBuf,
    /// Forget what the teacher answered to the newest job of this specification, and ask again; interrupted, it is resumed
    /// without this option
    #[arg(long, conflicts_with = "again")]
    pub(crate) refresh: bool,
    /// Make another job where this specification was run before, over the answers that there are
    #[arg(long)]
    pub(crate) again: bool,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`Verb::Plan`].
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// Specification, a TOML file
    pub(crate) spec: PathBuf,
    /// Ask the teacher about this many rows now, and show what comes back; the answers are kept
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) probe: Option<u32>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// See [`Verb::Predict`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["input", "premise", "file", "stdin"]))]
pub(crate) struct PredictArguments {
    /// Checkpoint directory, or name of a model in the data directory or at the server (`name` for the newest version,
    /// `name@2` for version 2)
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// Print the rationale too
    #[arg(long)]
    pub(crate) explain: bool,
    /// Print JSON on standard output: one object for --input, JSON Lines for rows
    #[arg(long)]
    pub(crate) json: bool,
    /// Mark answers whose log-probability is below this: they are the teacher's to give (`distillery study` finds a good one)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) route_below: Option<f64>,
    /// Text to label
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// Option of a multiple-choice --input; repeat for each option
    #[arg(long, value_name = "TEXT", requires = "input")]
    pub(crate) choice: Vec<String>,
    /// Premise of a pair to label
    #[arg(long, value_name = "TEXT", requires = "hypothesis")]
    pub(crate) premise: Option<String>,
    /// Hypothesis of a pair to label
    #[arg(long, value_name = "TEXT", requires = "premise")]
    pub(crate) hypothesis: Option<String>,
    /// File of rows to label: JSON Lines, or CSV or Parquet by extension
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// `-`: read rows to label from standard input, JSON Lines
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,
    #[command(flatten)]
    pub(crate) columns: ColumnArguments,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// See [`Verb::Evaluate`].
#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Checkpoint directory, or name of a model in the data directory or at the server (`name` or `name@2`)
    #[arg(value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// File of rows with labels: JSON Lines, or CSV or Parquet by extension
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArguments,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// See [`Verb::Compare`].
#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Checkpoint directory, or name of a model in the data directory or at the server (`name` or `name@2`)
    #[arg(value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// The one it is compared with
    #[arg(value_name = "DIR|NAME")]
    pub(crate) other: String,
    /// File of rows with labels: JSON Lines, or CSV or Parquet by extension
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArguments,
    /// A difference of up to this many points does not matter
    #[arg(long, value_name = "POINTS", default_value_t = 2.0, value_parser = points)]
    pub(crate) margin: f64,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// Percentage points.
fn points(text: &str) -> Result<f64, String> {
    let points = text.parse::<f64>().ok().filter(|points| (0.0..=100.0).contains(points));
    points.ok_or_else(|| "a margin is a number of points between 0 and 100".to_owned())
}

/// What is imported.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportFormat {
    /// Import the paper's official data layout, with its rationales as the ledger
    #[command(after_help = "Example:\n  distillery import paper --dataset svamp --from datasets/svamp")]
    Paper(ImportPaper),
    /// Import JSON Lines: {"input", "label"?, "rationale"?, "split"?, "choices"?, "premise"?, "hypothesis"?, "id"?}
    #[command(after_help = "Example:\n  distillery import jsonl rows.jsonl --name my-task")]
    Jsonl(ImportFile),
    /// Import CSV with a header of the same names
    #[command(after_help = "Example:\n  distillery import csv rows.csv --name my-task")]
    Csv(ImportFile),
    /// Import Parquet with columns of the same names
    #[command(after_help = "Example:\n  distillery import parquet rows.parquet --name my-task")]
    Parquet(ImportFile),
    /// Write the tokenizer.json of a checkpoint that has a SentencePiece model (spiece.model), or that reads bytes (ByT5)
    #[command(
        after_help = "Example:\n  distillery import checkpoint t5-v1_1-small --out t5-v1_1-small-ready"
    )]
    Checkpoint(ImportCheckpoint),
}

/// See [`ImportFormat::Checkpoint`].
#[derive(Debug, Args)]
pub(crate) struct ImportCheckpoint {
    /// The checkpoint's folder
    pub(crate) folder: PathBuf,
    /// Copy the checkpoint here, with its tokenizer [default: write into its folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`ImportFormat::Paper`].
#[derive(Debug, Args)]
pub(crate) struct ImportPaper {
    /// Dataset to import
    #[arg(long)]
    pub(crate) dataset: PaperDataset,
    /// Directory with NAME_train.json and llm/
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Name of the imported dataset [default: the paper's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// The paper's datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PaperDataset {
    /// Word problems (equation)
    Svamp,
    /// CommonsenseQA (choice)
    Cqa,
    /// ANLI round 1 (nli)
    Anli1,
    /// e-SNLI (esnli)
    Esnli,
}

/// A file to import.
#[derive(Debug, Args)]
pub(crate) struct ImportFile {
    /// File to import
    pub(crate) file: PathBuf,
    /// Name of the dataset [default: the file's, without its extension]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Check labels for this task, built in or a .toml file; integers become the labels in their place
    #[arg(long)]
    pub(crate) task: Option<String>,
    #[command(flatten)]
    pub(crate) columns: ColumnArguments,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// See [`Verb::Export`].
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Format to write
    pub(crate) format: FileFormat,
    /// Name of the dataset
    pub(crate) dataset: String,
    /// File to write, or `-` for standard output
    pub(crate) file: PathBuf,
    /// Export only this split: train, validation or test
    #[arg(long)]
    pub(crate) split: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// The formats of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// JSON Lines
    Jsonl,
    /// CSV
    Csv,
    /// Parquet
    Parquet,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn predict_takes_exactly_one_source() {
        let check = |words: &[&str], fits: bool| {
            let all = ["distillery", "predict", "--model", "m"].iter().chain(words);
            assert_eq!(Arguments::try_parse_from(all).is_ok(), fits, "{words:?}");
        };
        check(&[], false);
        check(&["--input", "x"], true);
        check(&["--file", "f.jsonl", "--json"], true);
        check(&["-"], true);
        check(&["--input", "x", "-"], false);
        check(&["--premise", "p", "--hypothesis", "h"], true);
        check(&["--premise", "p"], false);
    }

    #[test]
    fn roles_are_separated_by_commas_and_delete_takes_one_thing() {
        let parse = |words: &[&str]| Arguments::try_parse_from(["distillery"].iter().chain(words));
        let Verb::Serve(serve) = parse(&["serve", "--role", "trainer,inference"]).unwrap().verb else {
            panic!()
        };
        assert_eq!(serve.role, [RoleName::Trainer, RoleName::Inference]);
        assert!(parse(&["serve"]).is_err());
        assert!(parse(&["serve", "--role", "cook"]).is_err());
        assert!(parse(&["delete"]).is_err());
        assert!(parse(&["delete", "job"]).is_ok());
        assert!(parse(&["delete", "job", "--model", "m"]).is_err());
        assert!(parse(&["import", "jsonl", "f", "--server", "localhost:1"]).is_ok());
    }
}
