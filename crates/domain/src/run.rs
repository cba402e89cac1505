//! What a training run does: its purpose, its rows, and its own settings in place of its job's.
//!
//! One ledger feeds many runs. The final run of a job is the one that publishes the job's model; probes and cells of
//! studies train other students over the same answers, without asking the teacher again.

use crate::fault::{Violation, beside};
use crate::metric::Accuracy;
use crate::paired::Pairs;
use crate::share::Share;
use crate::spec::{
    Context, Draft, Judging, JudgingDraft, Spec, Start, StudentDraft, TrainingDraft, TrainingSpec,
    contradictions, is_name,
};
use crate::subset::Subset;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

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
    /// The share of the train rows whose rationales it reads, of a probe that its job makes while it harvests; `None` for
    /// all of them.
    pub share: Option<Share>,
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
            share: None,
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

/// What a caller wrote of a run, with holes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDraft {
    /// Why it exists.
    pub purpose: RunPurpose,
    /// The fraction of the train rows; `None` for all.
    pub fraction: Option<f64>,
    /// The split seed; `None` for the job's training seed.
    pub seed: Option<u64>,
    /// See [`RunPlan::share`]; a caller has none.
    pub share: Option<Share>,
    /// The judging's part.
    pub judging: JudgingDraft,
    /// The student's part.
    pub student: StudentDraft,
    /// The training's part.
    pub training: TrainingDraft,
}

impl RunDraft {
    /// A run over the ledger of a job: what is absent is as in the job's specification.
    ///
    /// # Errors
    /// Every mistake at once, each by its field.
    pub fn resolve(self, job: &Spec) -> Result<RunPlan, Vec<Violation>> {
        self.resolve_after(job, Vec::new())
    }

    /// The same of what could be read, after the mistakes of reading it.
    ///
    /// # Errors
    /// Every mistake at once, each by its field.
    pub fn resolve_after(self, job: &Spec, mut mistakes: Vec<Violation>) -> Result<RunPlan, Vec<Violation>> {
        let judging = self.judging.clone().or(job.judging.into());
        let mut found = contradictions(&self.student, &judging);
        if self.purpose.is_final() {
            found.push(Violation::new("purpose", "is `final`: that run is created when the harvest ends"));
        }
        if self.share.is_some() {
            let words = "is for the probes that a job makes while it harvests: it cannot be asked for";
            found.push(Violation::new("share", words));
        }
        let rows = self.rows(job.training.seed).map_err(|violation| found.push(violation));
        let job = Draft::from(job.clone());
        let spec = Draft {
            judging,
            student: start_over(job.student, self.student.clone()),
            training: self.training.clone().or(job.training),
            ..job
        }
        .fill();
        found.extend(spec.violations());
        mistakes.extend(beside(&mistakes, found));
        match rows {
            Ok(rows) if mistakes.is_empty() => Ok(RunPlan::new(self.purpose, rows, &spec)),
            _ => Err(mistakes),
        }
    }

    /// The plan of a draft that has no holes, as a server sends it.
    ///
    /// # Errors
    /// The fraction is out of its range.
    pub fn complete(self) -> Result<RunPlan, Vec<Violation>> {
        // A run has no defaults of a teacher or a task.
        let is_scratch = self.student.base.is_none();
        let context = Context { is_scratch, has_teacher: true, tokens_max: 0 };
        let training = self.training.clone().fill(context);
        let rows = self.rows(training.seed).map_err(|violation| vec![violation])?;
        let (judging, start) = (self.judging.fill(context), self.student.fill());
        Ok(RunPlan { purpose: self.purpose, rows, share: self.share, judging, start, training })
    }

    fn rows(&self, seed: u64) -> Result<Subset, Violation> {
        Subset::new(self.fraction.unwrap_or(1.0), self.seed.unwrap_or(seed))
    }
}

/// What the run starts from; a part of a fresh student leaves the rest as the job has it.
fn start_over(job: StudentDraft, draft: StudentDraft) -> StudentDraft {
    let is_empty = draft == StudentDraft::default();
    if is_empty || (job.base.is_none() && draft.base.is_none()) { draft.or(job) } else { draft }
}

/// What a run came to: its checkpoint, and the accuracies that the predictions in it give.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// The folder in the object store, complete with its manifest.
    pub path: String,
    /// sha256 (hex) of the manifest.
    pub manifest_sha256: String,
    /// How many parameters the student has.
    pub parameters: u64,
    /// On the validation rows.
    pub validation: Option<Accuracy>,
    /// On the test rows.
    pub test: Option<Accuracy>,
    /// Seconds of training, all leases together.
    pub train_seconds: f64,
    /// Seconds of evaluation.
    pub evaluate_seconds: f64,
}

/// What a student answered to some rows: the rows by index, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// Rows that were answered as gold says.
    pub right: Vec<u64>,
    /// All others.
    pub wrong: Vec<u64>,
}

impl Outcomes {
    /// The outcomes of rows, each with whether it was right.
    pub fn of(rows: impl IntoIterator<Item = (u64, bool)>) -> Self {
        let mut outcomes = Self::default();
        for (row, is_right) in rows {
            if is_right { outcomes.right.push(row) } else { outcomes.wrong.push(row) }
        }
        outcomes.right.sort_unstable();
        outcomes.wrong.sort_unstable();
        outcomes
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.right.len() + self.wrong.len()
    }

    /// This student, the first, and another on the same rows; rows that only one of them was asked say nothing.
    pub fn against(&self, second: &Self) -> Pairs {
        let right: HashSet<u64> = second.right.iter().copied().collect();
        let wrong: HashSet<u64> = second.wrong.iter().copied().collect();
        let pair = |row: &u64, is_right: bool| match (right.contains(row), wrong.contains(row)) {
            (true, _) => Some((is_right, true)),
            (false, true) => Some((is_right, false)),
            (false, false) => None,
        };
        let rights = self.right.iter().filter_map(|row| pair(row, true));
        rights.chain(self.wrong.iter().filter_map(|row| pair(row, false))).collect()
    }
}

/// Which rows a run got right, as far as it is asked to say so: what its accuracy was measured on, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunOutcomes {
    /// The validation rows that have a gold label.
    pub validation: Outcomes,
    /// Train rows without a rationale that it got wrong.
    pub needed: Vec<u64>,
}

impl RunOutcomes {
    /// Most rows of each kind.
    pub const ROWS_MAX: usize = 100_000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Objective;
    use crate::spec::{LabelSource, StudentSize, TeacherDraft};
    use crate::task::Task;

    fn job() -> Spec {
        let draft = Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft { size: Some(StudentSize::Tiny), ..StudentDraft::default() },
            training: TrainingDraft { patience: Some(3), seed: Some(5), ..TrainingDraft::default() },
        };
        draft.resolve().unwrap()
    }

    fn draft() -> RunDraft {
        RunDraft {
            purpose: RunPurpose::Probe,
            fraction: None,
            seed: None,
            share: None,
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        }
    }

    #[test]
    fn what_a_draft_leaves_out_is_as_in_the_job() {
        let same = draft().resolve(&job()).unwrap();
        assert_eq!(same, RunPlan { purpose: RunPurpose::Probe, ..RunPlan::of_job(&job()) });
        assert_eq!((same.rows, same.spec(&job())), (Subset::all(5), job()));
        let other = RunDraft {
            fraction: Some(0.25),
            judging: JudgingDraft { agree: Some(false), ..JudgingDraft::default() },
            student: StudentDraft { vocabulary: Some(500), ..StudentDraft::default() },
            training: TrainingDraft {
                objective: Some(Objective::Standard),
                seed: Some(u64::MAX),
                learning_rate: Some(0.1 + 0.2),
                ..TrainingDraft::default()
            },
            ..draft()
        };
        let plan = other.resolve(&job()).unwrap();
        assert_eq!(plan.rows, Subset::new(0.25, 5).unwrap());
        assert_eq!(plan.judging, Judging { agree: false, ..job().judging });
        assert_eq!(plan.start, Start::Scratch { size: StudentSize::Tiny, vocabulary: 500 });
        let (objective, learning_rate) = (Objective::Standard, 0.1 + 0.2);
        assert_eq!(
            plan.training,
            TrainingSpec { objective, seed: u64::MAX, learning_rate, ..job().training }
        );
    }

    #[test]
    fn outcomes_are_compared_row_by_row() {
        let outcomes =
            |right: &[u64], wrong: &[u64]| Outcomes { right: right.to_vec(), wrong: wrong.to_vec() };
        let check = |first: Outcomes, second: Outcomes, counts: [u64; 4]| {
            let [both, first_only, second_only, neither] = counts;
            let expected = Pairs { both, first: first_only, second: second_only, neither };
            assert_eq!(first.against(&second), expected, "{first:?} {second:?}");
        };
        check(outcomes(&[1, 2], &[3, 4]), outcomes(&[1, 3], &[2, 4]), [1, 1, 1, 1]);
        check(outcomes(&[1, 2], &[3]), outcomes(&[1, 2, 3], &[]), [2, 0, 1, 0]);
        check(outcomes(&[1, 2, 9], &[3]), outcomes(&[1], &[2, 3, 8]), [1, 1, 0, 1]);
        check(outcomes(&[], &[]), outcomes(&[1], &[]), [0, 0, 0, 0]);
        let built = Outcomes::of([(3, true), (1, false), (2, true)]);
        assert_eq!((built.rows(), built), (3, outcomes(&[2, 3], &[1])));
    }

    #[test]
    fn every_mistake_of_a_draft_is_named_by_its_field() {
        let check = |change: fn(&mut RunDraft), fields: &[&str]| {
            let mut changed = draft();
            change(&mut changed);
            let found = changed.resolve(&job()).err().unwrap_or_default();
            let names: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(names, fields, "{found:?}");
        };
        check(|_| {}, &[]);
        check(|draft| draft.purpose = RunPurpose::Final, &["purpose"]);
        check(
            |draft| (draft.fraction, draft.training.alpha) = (Some(0.0), Some(2.0)),
            &["rows.fraction", "training.alpha"],
        );
        check(|draft| draft.judging.vote = Some(true), &["judging.vote"]);
        check(|draft| draft.share = Some(Share::Half), &["share"]);
        check(
            |draft| (draft.student.base, draft.student.size) = (Some("t5".into()), Some(StudentSize::Tiny)),
            &["student.size"],
        );
        check(|draft| draft.judging.label = Some(LabelSource::Teacher), &["judging.agree"]);
    }

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
