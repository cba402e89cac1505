//! The grammar of a job's ledger.

use super::server::{JobArguments, names};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use domain::ports::LedgerFilter;
use domain::state::{Reason, Verdict};
use std::path::PathBuf;

pub(crate) const LEDGER_EXAMPLES: &str = "Examples:
  distillery ledger word-problems --verdict rejected --completions
  distillery ledger word-problems --reason no_answer --rows 0..100
  distillery ledger word-problems --server localhost:7070 --json > ledger.jsonl
  distillery ledger word-problems --export ledger.jsonl
  distillery ledger word-problems --judge agree=false,vote=true
  distillery ledger word-problems --forget --reason no_answer --yes
  distillery ledger word-problems --parked --retry --error timeout

--judge asks no teacher and changes nothing. --forget marks answers and removes none: a job that harvests, or is paused in its
harvest, asks their questions again; the ledger of any other job stays as it is, and the next job asks.";

/// See [`super::Verb::Ledger`].
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("act").args(["export", "judge", "forget", "parked"]))]
pub(crate) struct LedgerArguments {
    #[command(flatten)]
    pub(crate) job: JobArguments,
    #[command(flatten)]
    pub(crate) which: EntryArguments,
    /// List at most this many entries [default: 50 in a table, all with --json]
    #[arg(long, value_name = "NUMBER", conflicts_with = "act")]
    pub(crate) limit: Option<usize>,
    /// Show what the teacher wrote, and which model it is
    #[arg(long, conflicts_with_all = ["act", "json"])]
    pub(crate) completions: bool,
    /// Write the entries to this file, JSON Lines; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// Judge the whole ledger under the rules of this specification, or under rules such as agree=false,vote=true, and show
    /// what would change
    #[arg(long, value_name = "SPEC|RULES", conflicts_with_all = ["verdict", "reason", "model", "rows"])]
    pub(crate) judge: Option<String>,
    /// Forget these answers on purpose, so that they are asked for again; nothing is removed
    #[arg(long)]
    pub(crate) forget: bool,
    /// Forget without a look at how many there are
    #[arg(long, requires = "forget")]
    pub(crate) yes: bool,
    /// List prompts on which the teacher failed too often, each with the last failure
    #[arg(long, conflicts_with_all = ["verdict", "reason", "model", "rows"])]
    pub(crate) parked: bool,
    /// Ask parked prompts again
    #[arg(long, requires = "parked")]
    pub(crate) retry: bool,
    /// Only parked prompts whose last failure contains this text
    #[arg(long, value_name = "TEXT", requires = "parked")]
    pub(crate) error: Option<String>,
}

/// Which entries are meant.
#[derive(Debug, Args)]
pub(crate) struct EntryArguments {
    /// Only entries of this verdict
    #[arg(long, value_parser = names!(Verdict))]
    pub(crate) verdict: Option<Verdict>,
    /// Only entries with this reason; repeat for several
    #[arg(long, value_parser = names!(Reason))]
    pub(crate) reason: Vec<Reason>,
    /// Only answers of this teacher's model, as --completions shows it
    #[arg(long, visible_alias = "teacher", value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Only these rows: one, or the first and the one after the last, such as 7, 0..100 or 100..
    #[arg(long, value_name = "FROM..END", value_parser = rows)]
    pub(crate) rows: Option<RowSpan>,
}

/// Rows by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowSpan {
    pub(crate) from: u64,
    /// Exclusive.
    pub(crate) end: Option<u64>,
}

impl EntryArguments {
    /// As the API takes it.
    pub(crate) fn filter(&self) -> LedgerFilter {
        LedgerFilter {
            verdict: self.verdict,
            reasons: self.reason.clone(),
            model: self.model.clone(),
            after_row: self.rows.and_then(|rows| rows.from.checked_sub(1)),
            before_row: self.rows.and_then(|rows| rows.end),
        }
    }
}

fn rows(text: &str) -> Result<RowSpan, String> {
    let mistake = || {
        format!(
            "`{text}` names no rows: write one (7), or the first and the one after the last (0..100, 100..)"
        )
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| mistake());
    let span = match text.split_once("..") {
        None => {
            let row = number(text)?;
            RowSpan { from: row, end: row.checked_add(1) }
        }
        Some((from, end)) => RowSpan {
            from: if from.is_empty() { 0 } else { number(from)? },
            end: if end.is_empty() { None } else { Some(number(end)?) },
        },
    };
    if span.end.is_some_and(|end| end <= span.from) { Err(mistake()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_one_or_a_span() {
        for (text, expected) in [
            ("7", Some((7, Some(8)))),
            ("0..100", Some((0, Some(100)))),
            ("100..", Some((100, None))),
            ("..5", Some((0, Some(5)))),
            ("..", Some((0, None))),
            ("18446744073709551615", Some((u64::MAX, None))),
            ("5..5", None),
            ("..0", None),
            ("-1", None),
            ("1-5", None),
            ("a..b", None),
            ("", None),
        ] {
            assert_eq!(rows(text).ok(), expected.map(|(from, end)| RowSpan { from, end }), "{text:?}");
        }
    }
}
