//! The grammar of `study`.

use super::server::ServerArguments;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const STUDY_EXAMPLES: &str = "Examples:
  distillery study examples/word-problems/spec.toml
  distillery study spec.toml --within 40m
  distillery study spec.toml --out study --json > study.json

The section [study] of the specification says what is tried; labels only and shuffled rationales are tried in every study.
The teacher is asked once, as `run` asks it; every student learns from those answers. An interrupted study goes on where it
stopped, and students that are trained already cost nothing.";

/// See [`super::Verb::Study`].
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    /// Specification, a TOML file
    pub(crate) spec: PathBuf,
    /// Train the largest part of the grid that ends within this time, after ten steps were measured: 90s, 40m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) within: Option<Duration>,
    /// Directory of what the study found [default: studies/NAME in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON object on standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// `40m` as a time.
fn duration(words: &str) -> Result<Duration, String> {
    let unit = |letter: char| match letter {
        's' => Some(1.0),
        'm' => Some(60.0),
        'h' => Some(3_600.0),
        _ => None,
    };
    let read = || {
        let mut letters = words.chars();
        let seconds = unit(letters.next_back()?)?;
        let number: f64 = letters.as_str().parse().ok()?;
        (number > 0.0 && number < 1e5).then(|| Duration::from_secs_f64(number * seconds))
    };
    read().ok_or_else(|| "a time is a number and a unit: 90s, 40m, 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (words, seconds) in [("90s", 90), ("40m", 2_400), ("1.5h", 5_400)] {
            assert_eq!(duration(words), Ok(Duration::from_secs(seconds)), "{words}");
        }
        for wrong in ["", "40", "m", "-1m", "0s", "4 d", "NaNm", "infh", "10é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
