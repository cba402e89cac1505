//! The cells of a study, and the questions that they answer.

use crate::fault::Violation;
use crate::objective::Objective;
use crate::run::{RunPlan, RunPurpose};
use crate::spec::{PROFILE_NONE, Rationales, Spec, Start, StudentSize, StudyDraft, StudySpec};
use crate::subset::Subset;
use serde::{Serialize, Serializer};
use std::collections::HashSet;
use std::fmt;

/// Most cells of one study.
const CELLS_MAX: usize = 512;

/// What a student learns from: an objective, and whose rationales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arm {
    /// The objective.
    pub objective: Objective,
    /// Whose rationales.
    pub rationales: Rationales,
}

impl Arm {
    /// The control that learns labels only.
    pub const NONE: Self = Self { objective: Objective::Standard, rationales: Rationales::Own };

    /// The name under which it is stored and shown: the objective's, `none` or `shuffled`.
    pub fn name(self) -> &'static str {
        match (self.rationales, self.objective) {
            (Rationales::Shuffled, _) => "shuffled",
            (Rationales::Own, Objective::Standard) => "none",
            (Rationales::Own, objective) => objective.as_str(),
        }
    }

    /// The name as people read it.
    pub fn words(self) -> String {
        match (self.rationales, self.objective) {
            (Rationales::Shuffled, _) => "shuffled rationales".to_owned(),
            (Rationales::Own, Objective::Standard) => "labels only".to_owned(),
            (Rationales::Own, objective) => objective.as_str().replace('_', " "),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Serialize for Arm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Cells that differ in their seed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Setting {
    /// What its students learn from.
    pub arm: Arm,
    /// The fraction of the train rows, in millionths.
    #[serde(rename = "fraction", serialize_with = "as_fraction")]
    pub millionths: u32,
    /// The student's size; `None` where it is the specification's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<StudentSize>,
}

impl Setting {
    /// The fraction of the train rows, above 0 and at most 1.
    pub fn fraction(&self) -> f64 {
        Subset::of_millionths(self.millionths, 0).map_or(1.0, |subset| subset.fraction())
    }
}

fn as_fraction<S: Serializer>(millionths: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::from(*millionths) / 1e6)
}

/// One run of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// All but its seed.
    pub setting: Setting,
    /// The seed of everything random: which rows a fraction takes, which are held out, the weights, the order of the rows.
    pub seed: u64,
}

impl Cell {
    /// Its name, the same in every version: `step_by_step-0.25-mini-0`.
    pub fn name(&self) -> String {
        let Setting { arm, size, .. } = self.setting;
        let size = size.map_or("student", StudentSize::as_str);
        format!("{arm}-{}-{size}-{}", self.setting.fraction(), self.seed)
    }

    /// What its run does, in a study of a job's ledger.
    pub fn plan(&self, study: &str, job: &Spec) -> RunPlan {
        let Setting { arm, millionths, size } = self.setting;
        let mut spec = job.clone();
        spec.training.objective = arm.objective;
        spec.training.rationales = arm.rationales;
        spec.training.seed = self.seed;
        if let (Some(wanted), Start::Scratch { size, .. }) = (size, &mut spec.start) {
            *size = wanted;
        }
        let purpose = RunPurpose::Cell { study: study.to_owned(), cell: self.name() };
        let rows = Subset::of_millionths(millionths, self.seed).unwrap_or(Subset::all(self.seed));
        RunPlan::new(purpose, rows, &spec)
    }
}

/// Whether one arm is better than another, at one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The arm that may be better.
    pub first: Setting,
    /// The arm that it is compared with.
    pub second: Setting,
}

/// All cells of a study: every arm with every fraction, size and seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Labels only, each objective, and the first one's control with shuffled rationales.
    pub arms: Vec<Arm>,
    /// Fractions of the train rows in millionths, rising.
    pub millionths: Vec<u32>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The sizes of students; `None` for the specification's.
    pub sizes: Vec<Option<StudentSize>>,
    /// A difference of up to this share of the rows does not matter.
    pub margin: f64,
    /// The share of right answers that is wanted of rows that the student answers itself; the others go to the teacher.
    pub accuracy: Option<f64>,
}

impl Grid {
    /// The grid that a specification asks for.
    ///
    /// # Errors
    /// Every mistake at once, each by its field.
    pub fn new(spec: &Spec, study: &StudySpec) -> Result<Self, Vec<Violation>> {
        let mut found = violations(spec, study);
        let fraction = |fraction: &f64| {
            let subset = Subset::new(*fraction, 0);
            subset.map(|subset| subset.millionths()).map_err(|violation| {
                found.push(Violation::new("study.fractions", violation.message));
            })
        };
        let mut millionths: Vec<u32> = study.fractions.iter().flat_map(fraction).collect();
        millionths.sort_unstable();
        refuse_doubles(&mut found, "study.fractions", &millionths);
        if found.iter().all(|violation| violation.field != "study.fractions")
            && millionths.last() != Some(&Subset::all(0).millionths())
        {
            let words =
                "has no 1: the teacher is asked about every row, so that some cells learn from all of them";
            found.push(Violation::new("study.fractions", words));
        }
        let sizes =
            study.sizes.as_ref().map_or(vec![None], |sizes| sizes.iter().copied().map(Some).collect());
        let arms = arms(&study.objectives);
        let grid = Self {
            arms,
            millionths,
            seeds: study.seeds.clone(),
            sizes,
            margin: study.margin / 100.0,
            accuracy: study.accuracy.map(|percent| percent / 100.0),
        };
        let cells = grid.settings_count().saturating_mul(grid.seeds.len());
        if cells > CELLS_MAX {
            let words = format!("asks for {cells} cells: a study has at most {CELLS_MAX}");
            found.push(Violation::new("study", words));
        }
        if found.is_empty() { Ok(grid) } else { Err(found) }
    }

    /// Every cell: whole seeds one after the other, so that a study that is interrupted has few seeds and not few arms.
    pub fn cells(&self) -> Vec<Cell> {
        let settings = self.settings();
        let mut cells = Vec::with_capacity(settings.len().saturating_mul(self.seeds.len()));
        for seed in &self.seeds {
            cells.extend(settings.iter().map(|setting| Cell { setting: *setting, seed: *seed }));
        }
        cells
    }

    /// Every setting, by size, fraction and arm.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::with_capacity(self.settings_count());
        for size in &self.sizes {
            for millionths in &self.millionths {
                settings.extend(self.arms.iter().map(|arm| Setting {
                    arm: *arm,
                    millionths: *millionths,
                    size: *size,
                }));
            }
        }
        settings
    }

    fn settings_count(&self) -> usize {
        self.arms.len().saturating_mul(self.millionths.len()).saturating_mul(self.sizes.len())
    }

    /// What the study asks: of each arm whether it is better than labels only, and of the one that has a control whether it is
    /// better than that, at every fraction and size; and of each arm with rationales of its own, on each smaller fraction, whether it
    /// is as good as labels only on all rows.
    pub fn questions(&self) -> Vec<Question> {
        let control = self.arms.iter().copied().find(|arm| arm.rationales == Rationales::Shuffled);
        let explained = self.arms.iter().copied().find(|arm| arm.objective.needs_rationales());
        let against = |arm: Arm| {
            let own = (Some(arm) == explained).then_some(control).flatten();
            [(arm != Arm::NONE).then_some(Arm::NONE), own]
        };
        let ask = |first: Setting| {
            let second = against(first.arm).into_iter().flatten();
            second.map(move |arm| Question { first, second: Setting { arm, ..first } })
        };
        let has_rationales = |arm: Arm| arm != Arm::NONE && Some(arm) != control;
        let most = self.millionths.iter().max().copied().unwrap_or_default();
        let with_less = self
            .settings()
            .into_iter()
            .filter(|setting| has_rationales(setting.arm) && setting.millionths < most);
        let with_less = with_less
            .map(|first| Question { first, second: Setting { arm: Arm::NONE, millionths: most, ..first } });
        self.settings().into_iter().flat_map(ask).chain(with_less).collect()
    }

    /// The largest study of the same kind that fits, by [`Grid::smaller`]; `None` where none does.
    pub fn fitting(self, fits: impl Fn(&Self) -> bool) -> Option<Self> {
        let mut grid = Some(self);
        while let Some(tried) = grid {
            if fits(&tried) {
                return Some(tried);
            }
            grid = tried.smaller();
        }
        None
    }

    /// The next smaller study of the same kind: with one seed less down to two, then with fewer fractions, then with fewer sizes,
    /// then with one seed; `None` where there is none.
    pub fn smaller(&self) -> Option<Self> {
        let mut smaller = self.clone();
        if self.seeds.len() > 2 {
            smaller.seeds.pop();
        } else if self.millionths.len() > 1 {
            smaller.millionths.remove(0);
        } else if self.sizes.len() > 1 {
            smaller.sizes.pop();
        } else if self.seeds.len() > 1 {
            smaller.seeds.pop();
        } else {
            return None;
        }
        Some(smaller)
    }
}

fn arms(objectives: &[Objective]) -> Vec<Arm> {
    let own = |objective: &Objective| Arm { objective: *objective, rationales: Rationales::Own };
    let control =
        objectives.first().map(|objective| Arm { rationales: Rationales::Shuffled, ..own(objective) });
    [Arm::NONE].into_iter().chain(objectives.iter().map(own)).chain(control).collect()
}

fn violations(spec: &Spec, study: &StudySpec) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut refuse = |field: &str, words: &str| found.push(Violation::new(field, words));
    if spec.teacher.is_none() {
        let words =
            format!("is `{PROFILE_NONE}`: a study asks whether a teacher's rationales help; name a teacher");
        refuse("teacher.profile", &words);
    }
    if spec.training.rationales == Rationales::Shuffled {
        refuse("training.rationales", "is `shuffled`: every study has that arm; remove it");
    }
    if study.objectives.contains(&Objective::Standard) {
        refuse("study.objectives", "names `standard`, which every study has as its arm `none`: remove it");
    }
    if study.sizes.is_some() && matches!(spec.start, Start::Base { .. }) {
        refuse(
            "study.sizes",
            "contradicts a checkpoint to start from, which brings its own size: remove one of them",
        );
    }
    let lists = [
        ("study.objectives", study.objectives.is_empty()),
        ("study.fractions", study.fractions.is_empty()),
        ("study.seeds", study.seeds.is_empty()),
        ("study.sizes", study.sizes.as_ref().is_some_and(Vec::is_empty)),
    ];
    for (field, _) in lists.into_iter().filter(|(_, is_empty)| *is_empty) {
        refuse(field, "is empty: name at least one, or leave it out for the default");
    }
    refuse_doubles(&mut found, "study.objectives", &study.objectives);
    refuse_doubles(&mut found, "study.seeds", &study.seeds);
    refuse_doubles(&mut found, "study.sizes", study.sizes.as_deref().unwrap_or_default());
    found.extend(study.check());
    found
}

fn refuse_doubles<T: Eq + std::hash::Hash>(found: &mut Vec<Violation>, field: &str, values: &[T]) {
    let distinct: HashSet<&T> = values.iter().collect();
    if distinct.len() < values.len() {
        found.push(Violation::new(field, "names the same value twice: remove one"));
    }
}

impl StudyDraft {
    /// Fills the holes with their defaults.
    pub fn resolve(self) -> StudySpec {
        self.fill(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft};
    use crate::task::Task;

    fn draft() -> Draft {
        Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft { size: Some(StudentSize::Tiny), ..StudentDraft::default() },
            training: TrainingDraft::default(),
        }
    }

    fn spec() -> Spec {
        draft().resolve().unwrap()
    }

    fn grid(study: StudyDraft) -> Result<Grid, Vec<Violation>> {
        Grid::new(&spec(), &study.resolve())
    }

    fn two_by_two() -> Grid {
        grid(StudyDraft {
            fractions: Some(vec![1.0, 0.25]),
            seeds: Some(vec![0, 7]),
            ..StudyDraft::default()
        })
        .unwrap()
    }

    #[test]
    fn controls_are_in_every_grid_and_names_are_stable() {
        let names: Vec<String> = two_by_two().cells().iter().map(Cell::name).collect();
        let expected = [
            "none-0.25-student-0",
            "step_by_step-0.25-student-0",
            "shuffled-0.25-student-0",
            "none-1-student-0",
            "step_by_step-1-student-0",
            "shuffled-1-student-0",
        ];
        assert_eq!(names.len(), 12);
        assert_eq!(names[..6], expected);
        assert_eq!(names[6], "none-0.25-student-7");
        let longest = Cell {
            setting: Setting {
                arm: Arm { objective: Objective::RationaleThenLabel, rationales: Rationales::Own },
                millionths: 123_457,
                size: None,
            },
            seed: u64::MAX,
        };
        for name in names.into_iter().chain([longest.name()]) {
            RunPurpose::read("cell", "job", &name).unwrap();
        }
    }

    #[test]
    fn cells_differ_in_one_thing() {
        let (grid, job) = (two_by_two(), spec());
        let plans: Vec<RunPlan> = grid.cells().iter().map(|cell| cell.plan("job", &job)).collect();
        for (cell, plan) in grid.cells().iter().zip(&plans) {
            let mut same = plan.clone();
            assert_eq!((plan.rows.seed, plan.training.seed), (cell.seed, cell.seed));
            assert_eq!(plan.rows.fraction(), cell.setting.fraction());
            same.training.objective = job.training.objective;
            same.training.rationales = job.training.rationales;
            same.training.seed = job.training.seed;
            same.rows = Subset::all(job.training.seed);
            same.purpose = RunPurpose::Final;
            assert_eq!(same, RunPlan::of_job(&job));
        }
        let small =
            Cell { setting: Setting { size: Some(StudentSize::Small), ..grid.settings()[0] }, seed: 0 };
        let plan = small.plan("job", &job);
        assert_eq!(plan.start, Start::Scratch { size: StudentSize::Small, vocabulary: 2048 });
        let distinct: HashSet<String> = grid.cells().iter().map(Cell::name).collect();
        assert_eq!(distinct.len(), plans.len());
    }

    #[test]
    fn every_arm_is_asked_about_and_the_first_one_beside_its_control() {
        let objectives = vec![Objective::StepByStep, Objective::RationaleThenLabel];
        let grid = grid(StudyDraft { objectives: Some(objectives), ..StudyDraft::default() }).unwrap();
        let asked: Vec<(&str, &str, f64)> = grid
            .questions()
            .iter()
            .map(|question| {
                (question.first.arm.name(), question.second.arm.name(), question.first.fraction())
            })
            .filter(|(_, _, fraction)| *fraction == 1.0)
            .collect();
        let with_less: Vec<(&str, f64, f64)> = grid
            .questions()
            .iter()
            .filter(|question| question.first.millionths != question.second.millionths)
            .map(|question| {
                (question.first.arm.name(), question.first.fraction(), question.second.fraction())
            })
            .collect();
        assert_eq!(with_less, [("step_by_step", 0.25, 1.0), ("rationale_then_label", 0.25, 1.0)]);
        let expected = [
            ("step_by_step", "none", 1.0),
            ("step_by_step", "shuffled", 1.0),
            ("rationale_then_label", "none", 1.0),
            ("shuffled", "none", 1.0),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn every_mistake_is_named_by_its_field() {
        let check = |study: StudyDraft, fields: &[&str]| {
            let found = grid(study).err().unwrap_or_default();
            let names: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(names, fields, "{found:?}");
        };
        let empty = StudyDraft::default;
        check(empty(), &[]);
        for fractions in
            [vec![0.0, 1.0], vec![1.5, 1.0], vec![f64::NAN], vec![0.5, 0.5, 1.0], vec![0.5], vec![]]
        {
            let fields: &[&str] =
                if fractions.is_empty() { &["study.fractions"; 2] } else { &["study.fractions"] };
            let fields = if fractions.is_empty() { &fields[..1] } else { fields };
            check(StudyDraft { fractions: Some(fractions), ..empty() }, fields);
        }
        check(StudyDraft { seeds: Some(vec![3, 3]), ..empty() }, &["study.seeds"]);
        check(StudyDraft { seeds: Some(vec![]), ..empty() }, &["study.seeds"]);
        let standard = vec![Objective::StepByStep, Objective::Standard];
        check(StudyDraft { objectives: Some(standard), ..empty() }, &["study.objectives"]);
        let twice = vec![Objective::StepByStep; 2];
        check(StudyDraft { objectives: Some(twice), ..empty() }, &["study.objectives"]);
        check(StudyDraft { sizes: Some(vec![]), ..empty() }, &["study.sizes"]);
        check(StudyDraft { margin: Some(-1.0), ..empty() }, &["study.margin"]);
        check(StudyDraft { seeds: Some((0..200).collect()), ..empty() }, &["study"]);
        let mut other = spec();
        other.teacher = None;
        other.start = Start::Base { name: "t5".into() };
        other.training.rationales = Rationales::Shuffled;
        let study = StudyDraft { sizes: Some(vec![StudentSize::Tiny]), ..empty() }.resolve();
        let found = Grid::new(&other, &study).unwrap_err();
        let names: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(names, ["teacher.profile", "training.rationales", "study.sizes"]);
    }

    #[test]
    fn a_smaller_study_keeps_the_controls_and_all_rows() {
        let mut grid = grid(StudyDraft {
            fractions: Some(vec![0.125, 0.5, 1.0]),
            seeds: Some(vec![0, 1, 2]),
            sizes: Some(vec![StudentSize::Tiny, StudentSize::Mini]),
            ..StudyDraft::default()
        })
        .unwrap();
        let arms = grid.arms.clone();
        let mut sizes = vec![grid.cells().len()];
        while let Some(smaller) = grid.smaller() {
            assert!(smaller.arms == arms && smaller.millionths.last() == Some(&1_000_000));
            sizes.push(smaller.cells().len());
            grid = smaller;
        }
        assert_eq!(sizes, [54, 36, 24, 12, 6, 3]);
        let fitting = |most: usize| two_by_two().fitting(|grid| grid.cells().len() <= most);
        assert_eq!(fitting(12), Some(two_by_two()));
        assert_eq!(fitting(7).map(|grid| (grid.seeds.len(), grid.millionths.len())), Some((2, 1)));
        assert_eq!(fitting(2), None);
    }
}
