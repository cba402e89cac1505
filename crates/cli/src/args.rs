//! The command line's grammar: a contract that scripts rely on.

mod runs;
mod server;

pub(crate) use runs::{RunsArguments, TrainArguments};
pub(crate) use server::{
    CancelArguments, DeleteArguments, HealthArguments, JobArguments, LedgerArguments, ListArguments,
    ModelsArguments, RoleName, ServeArguments, ServerArguments, SubmitArguments, WatchArguments,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Distils a large teacher language model into a small T5 student, step by step.
///
/// The teacher is asked for a rationale and a label for every example; the student is trained on both, and then answers
/// on its own.
#[derive(Debug, Parser)]
#[command(name = "distillery", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "Examples:
  distillery run examples/word-problems/spec.toml
  distillery predict --model word-problems --explain --input 'Ann has 3 pens and buys 4. How many pens has she?'
  distillery import jsonl rows.jsonl --name my-task
  distillery serve --role all
  distillery submit spec.toml --server localhost:7070 --watch

Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted.";

/// Where a local verb finds its things.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Database and checkpoints of the local verbs [default: .distillery]
    #[arg(long, global = true, value_name = "DIR", display_order = 100)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings and teacher profiles [default: ./distillery.toml where it exists, else built-in]
    #[arg(long, global = true, value_name = "FILE", env = "DISTILLERY_CONFIG", display_order = 101)]
    pub(crate) config: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// One distillation on this machine, resumable: run it again and it goes on where it stopped
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// Labels (and rationales) from a checkpoint
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(PredictArguments),
    /// Brings rows into the local store, or to a server
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        #[command(subcommand)]
        format: ImportFormat,
    },
    /// Writes a dataset's rows to a file
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArguments),
    /// The services: one role of them or several, behind one address
    #[command(after_help = server::SERVE_EXAMPLES)]
    Serve(ServeArguments),
    /// Hands a distillation to a server
    #[command(after_help = server::SUBMIT_EXAMPLES)]
    Submit(SubmitArguments),
    /// Follows a job on a server to its end
    #[command(after_help = server::WATCH_EXAMPLES)]
    Watch(WatchArguments),
    /// Lists jobs, newest first
    #[command(after_help = server::LIST_EXAMPLES)]
    List(ListArguments),
    /// Shows one job
    #[command(after_help = server::SHOW_EXAMPLES)]
    Show(JobArguments),
    /// Ends a job; nothing that was paid for is lost
    #[command(after_help = server::CANCEL_EXAMPLES)]
    Cancel(CancelArguments),
    /// Lets a paused or failed job go on where it stopped
    #[command(after_help = server::RESUME_EXAMPLES)]
    Resume(JobArguments),
    /// Deletes a job, a model or a dataset
    #[command(after_help = server::DELETE_EXAMPLES)]
    Delete(DeleteArguments),
    /// Lists what the teacher answered, with each verdict and its reason
    #[command(after_help = server::LEDGER_EXAMPLES)]
    Ledger(LedgerArguments),
    /// Lists the runs over a job's ledger, newest first
    #[command(after_help = runs::RUNS_EXAMPLES)]
    Runs(RunsArguments),
    /// Trains one more student over a job's ledger, with its own rules, rows, seed or objective
    #[command(after_help = runs::TRAIN_EXAMPLES)]
    Train(TrainArguments),
    /// Lists published models, newest first
    #[command(after_help = server::MODELS_EXAMPLES)]
    Models(ModelsArguments),
    /// Whether a server serves: exit code 0 where it does, 1 where it does not; for probes too
    #[command(after_help = server::HEALTH_EXAMPLES)]
    Health(HealthArguments),
    /// Brings the local database to this program's version
    #[command(after_help = "Example:\n  distillery migrate --data-dir /data/distillery")]
    Migrate {
        /// One JSON object on standard output and nothing else there
        #[arg(long)]
        json: bool,
    },
    /// Prints every setting with its default and its documentation
    #[command(after_help = "Example:\n  distillery config > distillery.toml")]
    Config,
    /// Prints a completion script for a shell
    #[command(
        after_help = "Example:\n  distillery completions bash > ~/.local/share/bash-completion/completions/distillery"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

impl Verb {
    /// What a trace calls it; `None` for what lasts.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Self::Run(_) => Some("run"),
            Self::Predict(_) => Some("predict"),
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
            Self::Health(_) => Some("health"),
            Self::Migrate { .. } => Some("migrate"),
            Self::Config => Some("config"),
            Self::Completions { .. } => Some("completions"),
        }
    }
}

const RUN_EXAMPLES: &str = "Examples:
  distillery run examples/word-problems/spec.toml
  distillery run spec.toml --data-dir /data/distillery --json > result.json";

const PREDICT_EXAMPLES: &str = "Examples:
  distillery predict --model word-problems --input 'Ann has 3 pens and buys 4. How many pens has she?'
  distillery predict --model ./checkpoint --explain --file rows.jsonl
  cat rows.jsonl | distillery predict --model my-task@2 --json -
  distillery predict --server localhost:7070 --model my-task --file rows.jsonl";

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
    /// The specification, a TOML file
    pub(crate) spec: PathBuf,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`Verb::Predict`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["input", "premise", "file", "stdin"]))]
pub(crate) struct PredictArguments {
    /// A checkpoint folder, or the name of a model, in the data folder or at the server (`name` for the newest, `name@2`
    /// for a version)
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// The rationale too
    #[arg(long)]
    pub(crate) explain: bool,
    /// JSON on standard output: one object for --input, one a line for rows
    #[arg(long)]
    pub(crate) json: bool,
    /// One text to label
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// An option of a multiple-choice --input; give each of them
    #[arg(long, value_name = "TEXT", requires = "input")]
    pub(crate) choice: Vec<String>,
    /// The premise of a pair
    #[arg(long, value_name = "TEXT", requires = "hypothesis")]
    pub(crate) premise: Option<String>,
    /// The hypothesis of a pair
    #[arg(long, value_name = "TEXT", requires = "premise")]
    pub(crate) hypothesis: Option<String>,
    /// Rows to label, JSON Lines (CSV and Parquet by their endings)
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// `-`: rows from standard input, JSON Lines
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// What is imported.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportFormat {
    /// The official data layout of the paper, with its rationales as the ledger
    #[command(after_help = "Example:\n  distillery import paper --dataset svamp --from datasets/svamp")]
    Paper(ImportPaper),
    /// JSON Lines: {"input", "label"?, "rationale"?, "split"?, "choices"?, "premise"?, "hypothesis"?, "id"?}
    #[command(after_help = "Example:\n  distillery import jsonl rows.jsonl --name my-task")]
    Jsonl(ImportFile),
    /// CSV with a header of the same names
    #[command(after_help = "Example:\n  distillery import csv rows.csv --name my-task")]
    Csv(ImportFile),
    /// Parquet with columns of the same names
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
    /// Print one JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`ImportFormat::Paper`].
#[derive(Debug, Args)]
pub(crate) struct ImportPaper {
    /// Which of the four
    #[arg(long)]
    pub(crate) dataset: PaperDataset,
    /// The folder with NAME_train.json and llm/
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The dataset's name here [default: that of the dataset]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// One JSON object on standard output and nothing else there
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
    /// The file
    pub(crate) file: PathBuf,
    /// The dataset's name [default: the file's, without its ending]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// One JSON object on standard output and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// See [`Verb::Export`].
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The format
    pub(crate) format: FileFormat,
    /// The dataset's name
    pub(crate) dataset: String,
    /// The file to write, or `-` for standard output
    pub(crate) file: PathBuf,
    /// Only this split: train, validation or test
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
