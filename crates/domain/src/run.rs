//! What a training run does: its purpose, its rows, and its own settings in place of its job's.
//!
//! One ledger feeds many runs. The final run of a job is the one that publishes the job's model; probes and cells of
//! studies train other students over the same answers, without asking the teacher again.

use crate::fault::Violation;
use crate::spec::{Judging, Spec, Start, TrainingSpec, is_name};
use crate::subset::Subset;

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunPurpose {
    /// It trains the job's model: one of each job, made when the harvest ends, with the job's own settings.
    Final,
    /// It tries other settings.
    Probe,
    /// It is one cell of a study.
    Cell {
        /// The study's name.
        study: String,
        /// The cell's name.
        cell: String,
    },
}

impl RunPurpose {
    /// Whether the run moves its job, and publishes its model.
    pub fn is_final(&self) -> bool {
        *self == Self::Final
    }

    /// The purpose's name, under which it is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Probe => "probe",
            Self::Cell { .. } => "cell",
        }
    }

    /// The names of the study and of the cell; empty for other purposes.
    pub fn study_and_cell(&self) -> (&str, &str) {
        match self {
            Self::Final | Self::Probe => ("", ""),
            Self::Cell { study, cell } => (study, cell),
        }
    }

    /// The purpose of that name.
    ///
    /// # Errors
    /// There is none of that name, or the names of study and cell do not fit it.
    pub fn read(name: &str, study: &str, cell: &str) -> Result<Self, Violation> {
        match (name, study, cell) {
            ("final", "", "") => Ok(Self::Final),
            ("probe", "", "") => Ok(Self::Probe),
            ("cell", study, cell) if is_name(study) && is_name(cell) => {
                Ok(Self::Cell { study: study.to_owned(), cell: cell.to_owned() })
            }
            ("cell", ..) => Err(Violation::new(
                "purpose",
                "`cell` needs the names of the study and of the cell: 1 to 64 letters, digits, `-`, `_` or `.`",
            )),
            ("final" | "probe", ..) => {
                Err(Violation::new("purpose", format!("`{name}` takes no study and no cell")))
            }
            _ => Err(Violation::new("purpose", "must be one of: final, probe, cell")),
        }
    }
}

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// Why it exists.
    pub purpose: RunPurpose,
    /// The train rows it learns from.
    pub rows: Subset,
    /// Its judging rules: which rationales of the ledger it accepts.
    pub judging: Judging,
    /// What its student starts from.
    pub start: Start,
    /// How its student is trained.
    pub training: TrainingSpec,
}

impl RunPlan {
    /// The final run of a job: every row, under the job's own settings.
    pub fn of_job(spec: &Spec) -> Self {
        Self::new(RunPurpose::Final, Subset::all(spec.training.seed), spec)
    }

    /// A run that carries out `spec`.
    pub fn new(purpose: RunPurpose, rows: Subset, spec: &Spec) -> Self {
        Self {
            purpose,
            rows,
            judging: spec.judging,
            start: spec.start.clone(),
            training: spec.training.clone(),
        }
    }

    /// What the run carries out: its job's specification with its own settings in place.
    pub fn spec(&self, job: &Spec) -> Spec {
        Spec {
            judging: self.judging,
            start: self.start.clone(),
            training: self.training.clone(),
            ..job.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_read_by_its_names() {
        let check = |name: &str, study: &str, cell: &str, expected: Option<&str>| {
            let read = RunPurpose::read(name, study, cell);
            match (&read, expected) {
                (Ok(purpose), None) => {
                    assert_eq!((purpose.name(), purpose.study_and_cell()), (name, (study, cell)));
                }
                (Err(violation), Some(words)) => assert!(violation.message.contains(words), "{violation}"),
                _ => panic!("{name}, {study}, {cell}: {read:?}"),
            }
        };
        check("final", "", "", None);
        check("probe", "", "", None);
        check("cell", "curve", "rows-0.25", None);
        check("cell", "curve", "", Some("needs the names"));
        check("cell", "../up", "one", Some("needs the names"));
        check("probe", "curve", "", Some("takes no study"));
        check("last", "", "", Some("must be one of"));
        assert!(RunPurpose::Final.is_final() && !RunPurpose::Probe.is_final());
    }
}
