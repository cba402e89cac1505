//! The paper's datasets by name.

use super::layout::Columns;
use crate::row::shown;
use domain::Violation;
use std::fmt;
use std::str::FromStr;

/// The paper's datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaperDataset {
    /// SVAMP: word problems.
    Svamp,
    /// CommonsenseQA, through CoS-E.
    Cqa,
    /// ANLI, round 1.
    Anli1,
    /// e-SNLI.
    Esnli,
}

impl PaperDataset {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::Svamp, Self::Cqa, Self::Anli1, Self::Esnli];

    /// Its name, which its files begin with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Svamp => "svamp",
            Self::Cqa => "cqa",
            Self::Anli1 => "anli1",
            Self::Esnli => "esnli",
        }
    }

    /// The built-in task that reads its completions.
    pub fn task_name(self) -> &'static str {
        match self {
            Self::Svamp => "equation",
            Self::Cqa => "choice",
            Self::Anli1 => "nli",
            Self::Esnli => "esnli",
        }
    }

    pub(super) fn columns(self) -> Columns {
        match self {
            Self::Svamp => &[("input", "input"), ("label", "label")],
            Self::Cqa => &[("id", "id"), ("question", "input"), ("choices", "choices"), ("answer", "label")],
            Self::Anli1 => {
                &[("uid", "id"), ("premise", "premise"), ("hypothesis", "hypothesis"), ("label", "label")]
            }
            Self::Esnli => &[("premise", "premise"), ("hypothesis", "hypothesis"), ("label", "label")],
        }
    }
}

impl fmt::Display for PaperDataset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for PaperDataset {
    type Err = Violation;

    fn from_str(text: &str) -> Result<Self, Violation> {
        let known = Self::ALL.iter().find(|dataset| dataset.as_str() == text);
        known.copied().ok_or_else(|| {
            let message = format!("`{}` is not one of: svamp, cqa, anli1, esnli", shown(text));
            Violation::new("dataset", message)
        })
    }
}
