//! The grammar of runs over a job's ledger.

use super::server::{JobArguments, names};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use domain::objective::Objective;
use domain::spec::LabelSource;

pub(crate) const RUNS_EXAMPLES: &str = "Examples:
  distillery runs word-problems
  distillery runs word-problems --server localhost:7070 --json

The final run trains the job's model. Further runs are found by their ids; `distillery predict --model` opens the folder of
their checkpoint.";

/// See [`super::Verb::Runs`].
#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    #[command(flatten)]
    pub(crate) job: JobArguments,
    /// Most runs, the newest first
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub(crate) limit: usize,
}

pub(crate) const TRAIN_EXAMPLES: &str = "Examples:
  distillery train word-problems --fraction 0.25 --seed 1
  distillery train word-problems --objective standard --agree false
  distillery train word-problems --fraction 0.5 --study curve --cell half --server localhost:7070

No teacher is asked: the run reads the ledger of a job whose harvest is over. What is not given is as in the job's
specification. Repeating a command repeats no training; a failed run is tried again. In the data folder it trains here, and
ends with the run; at a server it ends once the run is created.";

/// See [`super::Verb::Train`].
#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) job: JobArguments,
    /// Train on this fraction of the train rows; each label keeps its share [default: 1]
    #[arg(long, value_name = "FRACTION")]
    pub(crate) fraction: Option<f64>,
    /// Choose the rows of a fraction, and held-out rows, by this seed [default: the job's training seed]
    #[arg(long, value_name = "SEED")]
    pub(crate) rows_seed: Option<u64>,
    /// Train the student to write this
    #[arg(long, value_parser = names!(Objective))]
    pub(crate) objective: Option<Objective>,
    /// Start from this registered checkpoint
    #[arg(long, value_name = "NAME")]
    pub(crate) base: Option<String>,
    /// Seed of everything random in the training
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Most optimiser steps
    #[arg(long, value_name = "NUMBER")]
    pub(crate) steps: Option<u32>,
    /// Keep a rationale only where its label agrees with gold
    #[arg(long, value_name = "TRUE|FALSE")]
    pub(crate) agree: Option<bool>,
    /// Keep the rationales of the label that most samples reach
    #[arg(long, value_name = "TRUE|FALSE")]
    pub(crate) vote: Option<bool>,
    /// Learn these labels
    #[arg(long, value_parser = names!(LabelSource))]
    pub(crate) label: Option<LabelSource>,
    /// The study that the run is a cell of
    #[arg(long, value_name = "NAME", requires = "cell")]
    pub(crate) study: Option<String>,
    /// The cell's name in its study
    #[arg(long, value_name = "NAME", requires = "study")]
    pub(crate) cell: Option<String>,
}
