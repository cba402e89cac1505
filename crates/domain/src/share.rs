//! A share of the train rows: what a job asks about that stops where rationales stop helping, and what is said of it.

use crate::named::named;
use crate::subset::Subset;
use serde::{Deserialize, Serialize};

/// Probes of one job at most: one for each share but the whole.
pub const PROBES_MAX: usize = Share::ALL.len() - 1;

named!(
    /// The share of the train rows that is asked about.
    Share {
        /// No row.
        None = "none",
        /// An eighth of them.
        Eighth = "eighth",
        /// A quarter of them.
        Quarter = "quarter",
        /// Half of them.
        Half = "half",
        /// Every row.
        All = "all",
    }
);

impl Share {
    /// How many eighths it is.
    pub fn eighths(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Eighth => 1,
            Self::Quarter => 2,
            Self::Half => 4,
            Self::All => 8,
        }
    }

    /// Its place among the shares, from 0.
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|share| *share == self).unwrap_or_default()
    }

    /// The next greater share; `None` for every row.
    pub fn next(self) -> Option<Self> {
        Self::ALL.get(self.place() + 1).copied()
    }

    /// What a probe of this share learns, as people say it.
    pub fn words(self) -> String {
        match self {
            Self::None => "without rationales".to_owned(),
            Self::Eighth | Self::Quarter | Self::Half | Self::All => {
                format!("with rationales for {}", self.rows())
            }
        }
    }

    /// The rows that it is, as people say it.
    pub fn rows(self) -> &'static str {
        match self {
            Self::None => "no row",
            Self::Eighth => "1/8 of the rows",
            Self::Quarter => "1/4 of the rows",
            Self::Half => "1/2 of the rows",
            Self::All => "all rows",
        }
    }

    /// The fraction of the train rows, nested and stratified; `None` for no row.
    pub(crate) fn subset(self, seed: u64) -> Option<Subset> {
        Subset::of_millionths(self.eighths() * 125_000, seed)
    }
}

named!(
    /// Why no more rows are asked about.
    End {
        /// The last doubling gains less than a point of accuracy.
        Flat = "flat",
        /// A student without rationales is not worse.
        NoBetter = "no_better",
    }
);

impl End {
    /// Why asking ends, in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Flat => "the last doubling gains less than a point",
            Self::NoBetter => "a student without rationales is not worse",
        }
    }
}

/// What a probe gains over another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// The difference of the accuracies.
    pub value: f64,
    /// What it is at most, with 90%.
    pub upper: f64,
}
