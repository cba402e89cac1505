//! The grammar of `distillery init`.

use clap::{Args, ValueEnum};
use domain::spec::StudentSize;
use std::path::PathBuf;

/// See [`crate::args::Verb::Init`].
#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// File of rows: JSON Lines, CSV or Parquet, with columns of any names
    pub(crate) data: PathBuf,
    /// Take every proposal without asking; so it is too where there is no terminal
    #[arg(long)]
    pub(crate) yes: bool,
    /// Column that holds the text
    #[arg(long, value_name = "COLUMN")]
    pub(crate) input: Option<String>,
    /// Column that holds the label
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// Column that holds the options of each row
    #[arg(long, value_name = "COLUMN")]
    pub(crate) choices: Option<String>,
    /// Teacher profile to ask, three times now, for the exemplars' rationales; `none` learns labels only [default: local]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Size of the student [default: by the number of rows]
    #[arg(long)]
    pub(crate) size: Option<SizeName>,
    /// Folder to write spec.toml and task.toml into [default: one named like the file, in the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Overwrite spec.toml and task.toml where they exist
    #[arg(long)]
    pub(crate) force: bool,
}

/// The sizes of a student that starts from scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SizeName {
    /// About a million parameters: for tests
    Tiny,
    /// About three million parameters
    Mini,
    /// T5 v1.1 small
    Small,
    /// T5 v1.1 base
    Base,
    /// T5 v1.1 large
    Large,
}

impl From<SizeName> for StudentSize {
    fn from(size: SizeName) -> Self {
        match size {
            SizeName::Tiny => Self::Tiny,
            SizeName::Mini => Self::Mini,
            SizeName::Small => Self::Small,
            SizeName::Base => Self::Base,
            SizeName::Large => Self::Large,
        }
    }
}

pub(super) const INIT_EXAMPLES: &str = "Examples:
  distillery init reviews.csv
  distillery init reviews.csv --yes --input text --label sentiment --profile openai
  distillery init rows.jsonl --yes --size mini --out my-task --force

It looks at the first rows (at most 10,000), proposes which column is the text, the label and the choices, a task, a split and a
student, and writes spec.toml and task.toml, each line explained.";
