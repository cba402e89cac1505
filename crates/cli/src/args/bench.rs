//! The grammar of measuring a served student under load.

use super::columns::ColumnArguments;
use super::server::ServerArguments;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(crate) const BENCH_SERVE_EXAMPLES: &str = "Examples:
  distillery bench-serve --server localhost:7070 --file rows.jsonl --rate 50
  distillery bench-serve --file rows.jsonl --rates 10,20,40,80 --mix predict=80,explain=20 --picture load.svg
  distillery bench-serve --file rows.jsonl --knee --cancel 0.1 --deadline 2000 --json

The load is open: calls are sent when they are due, however slowly others are answered, and each time is counted from when its
call was due. The same seed sends the same calls at the same times. A rate is held where at least 95% of its calls (those
that were dropped on purpose left out) are answered, and 99% of the answers come within --p99; --knee doubles the rate until one
is not held, then halves the step three times.";

/// See [`super::Verb::BenchServe`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("rates-of").args(["rate", "rates", "knee"]))]
pub(crate) struct BenchServeArguments {
    /// File of rows to send, over and over: JSON Lines, or CSV or Parquet by extension
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) columns: ColumnArguments,
    /// Name of the model at the server (`name` for the newest version, `name@2` for version 2) [default: the only one]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) model: String,
    /// Calls per second [default: 10]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Several rates, one after another, such as 10,20,40
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = rate)]
    pub(crate) rates: Vec<f64>,
    /// Raise the rate until it is not held, and find the highest that is
    #[arg(long)]
    pub(crate) knee: bool,
    /// Where --knee begins, in calls per second
    #[arg(long, value_name = "RATE", default_value_t = 5.0, value_parser = rate, requires = "knee")]
    pub(crate) from: f64,
    /// Seconds at each rate
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How calls arrive
    #[arg(long, value_enum, default_value_t = Arrival::Poisson)]
    pub(crate) arrivals: Arrival,
    /// What is asked, and with which weights
    #[arg(long, value_name = "TASK=WEIGHT", value_delimiter = ',', value_parser = weight, default_value = "predict=80,explain=20")]
    pub(crate) mix: Vec<(Ask, u32)>,
    /// Share of the calls that are dropped before they are answered, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) cancel: f64,
    /// Milliseconds within which such a call is dropped, at a moment that the seed says; a stream at its first piece at the latest
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) cancel_within: u32,
    /// Milliseconds that each call may take, which the server is told [default: as long as it takes, at most 120,000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub(crate) deadline: Option<u32>,
    /// Most milliseconds within which 99% of the answers come at a rate that is held
    #[arg(long = "p99", value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub(crate) held_p99: u32,
    /// Seed of the times, the rows, the tasks and the calls that are dropped
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Connections over which calls go in turn
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,
    /// Most calls in flight; what is due beyond them is not sent, and counted
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: u32,
    /// Draw latency against rate into this file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) picture: Option<PathBuf>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// How calls arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrival {
    /// Each independent of the others, as those of many callers are
    Poisson,
    /// In equal steps
    Constant,
    /// All of a second's in its first half, at twice the rate
    Burst,
}

impl Arrival {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
            Self::Burst => "burst",
        }
    }
}

/// What is asked of a student.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ask {
    /// The label.
    Predict,
    /// The rationale, piece by piece.
    Explain,
    /// Free text, piece by piece.
    Generate,
}

impl Ask {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Predict, Self::Explain, Self::Generate];

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Explain => "explain",
            Self::Generate => "generate",
        }
    }
}

/// The highest rate: beyond it one process sends no call in time.
pub(crate) const RATE_MAX: f64 = 100_000.0;

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.01..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("a rate is a number of calls per second between 0.01 and {RATE_MAX}"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number between 0 and 1".to_owned())
}

fn weight(text: &str) -> Result<(Ask, u32), String> {
    let words = "write tasks with their weights, such as predict=80,explain=20 (tasks: predict, explain, generate; weights: 1 to \
                 1000000)";
    let pair = text.split_once('=').and_then(|(name, weight)| {
        let ask = Ask::ALL.into_iter().find(|ask| ask.as_str() == name)?;
        Some((ask, weight.parse().ok().filter(|weight| (1..=1_000_000).contains(weight))?))
    });
    pair.ok_or_else(|| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_rates_and_shares_are_read_or_refused() {
        assert_eq!(weight("explain=20"), Ok((Ask::Explain, 20)));
        for wrong in ["explain", "explain=0", "explain=-1", "explain=x", "cook=1", "=1"] {
            assert!(weight(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("0.1"), Ok(0.1));
        for wrong in ["-0.1", "1.1", "nan", "half"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
