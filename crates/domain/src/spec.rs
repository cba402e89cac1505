//! The specification of a distillation: what a user asks for.
//!
//! A [`Draft`] is what a user wrote, with holes; [`Draft::resolve`] fills them with defaults and names every mistake at
//! once. A [`Spec`] has no holes and is what is stored and carried out. It names a teacher profile and a base model,
//! never a URL, a path or a key. Every setting is written once, in `spec/sections.rs`.

mod field;
mod hint;
mod sections;
mod stored;

pub use field::{Field, Section};
pub use hint::Hint;
pub use sections::{
    Budget, Judging, JudgingDraft, LabelSource, PROFILE_IMPORTED, PROFILE_NONE, Precision, Rationales,
    Schedule, Select, StudentDraft, StudentSize, StudyDraft, StudySpec, TeacherDraft, TeacherSource,
    TeacherSpec, TrainingDraft, TrainingSpec, Until,
};

use crate::completion::exemplar_violations;
use crate::fault::{Violation, beside};
use crate::task::{TOKENS_MAX, Task};
pub(crate) use sections::Context;
use serde::{Deserialize, Serialize};

/// Most profiles of one job.
const PROFILES_MAX: usize = 4;

/// Every section of settings, in order.
pub const SECTIONS: &[Section] = &[
    TeacherDraft::SECTION,
    Budget::SECTION,
    JudgingDraft::SECTION,
    StudentDraft::SECTION,
    TrainingDraft::SECTION,
    StudyDraft::SECTION,
];

/// What the student's weights are before training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Mesh-TensorFlow initialisation, and a tokenizer trained on the job's own text.
    Scratch {
        /// The shape.
        size: StudentSize,
        /// Entries of the tokenizer.
        vocabulary: u32,
    },
    /// A registered checkpoint, by name.
    Base {
        /// Its name under `base/`.
        name: String,
    },
}

/// A whole specification, without holes.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// A name for people; also the published model's name.
    pub name: String,
    /// The task, as data.
    pub task: Task,
    /// How the teacher is asked; `None` where the student learns labels only.
    pub teacher: Option<TeacherSpec>,
    /// Which completions train the student.
    pub judging: Judging,
    /// What the student starts from.
    pub start: Start,
    /// How it is trained.
    pub training: TrainingSpec,
}

/// What a user wrote, with holes.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// See [`Spec::name`].
    pub name: String,
    /// The task, resolved from its name or file.
    pub task: Task,
    /// The teacher's part.
    pub teacher: TeacherDraft,
    /// The judging's part.
    pub judging: JudgingDraft,
    /// The student's part.
    pub student: StudentDraft,
    /// The training's part.
    pub training: TrainingDraft,
}

impl Draft {
    /// Fills the holes and names every mistake, each by its field as the user writes it.
    ///
    /// # Errors
    /// All violations at once, in the order of the fields.
    pub fn resolve(self) -> Result<Spec, Vec<Violation>> {
        let (spec, found) = self.resolve_after(Vec::new());
        if found.is_empty() { Ok(spec) } else { Err(found) }
    }

    /// Fills the holes of what could be read, and names every mistake: those of reading it, then its own as far as they do not
    /// follow from these. The specification holds where there is none.
    pub fn resolve_after(self, mut mistakes: Vec<Violation>) -> (Spec, Vec<Violation>) {
        let mut found = contradictions(&self.student, &self.judging);
        found.extend(self.teacher.contradictions());
        let spec = self.fill();
        found.extend(spec.violations_after(&mistakes));
        mistakes.extend(beside(&mistakes, found));
        (spec, mistakes)
    }

    /// Whether the rows decide which label the student learns: nothing here says it, and there is a teacher.
    pub fn leaves_label_open(&self) -> bool {
        let judging = &self.judging;
        let needs_gold = judging.agree == Some(true) || judging.hint.is_some_and(Hint::is_on);
        let has_teacher = self.teacher.profile.as_deref() != Some(PROFILE_NONE);
        judging.label.is_none() && !needs_gold && has_teacher
    }

    /// The same for rows of which none has a label: where it is [open](Self::leaves_label_open), the student learns the
    /// teacher's.
    #[must_use]
    pub fn over_unlabelled_rows(mut self) -> Self {
        if self.leaves_label_open() {
            self.judging.label = Some(LabelSource::Teacher);
        }
        self
    }

    /// Every setting that is given, as `section.key` and text.
    fn given(&self) -> Vec<(String, String)> {
        let sections = [
            (TeacherDraft::SECTION, self.teacher.given()),
            (JudgingDraft::SECTION, self.judging.given()),
            (StudentDraft::SECTION, self.student.given()),
            (TrainingDraft::SECTION, self.training.given()),
        ];
        let mut settings = Vec::new();
        for (section, given) in sections {
            settings.extend(given.into_iter().map(|(key, text)| (format!("{}.{key}", section.name), text)));
        }
        settings
    }

    /// Fills the holes with their defaults and checks nothing.
    pub(crate) fn fill(self) -> Spec {
        let profile = self.teacher.profile.clone();
        let first = self.teacher.profiles.as_ref().and_then(|profiles| profiles.first().cloned());
        let source = match profile.or(first).as_deref() {
            Some(PROFILE_NONE) => None,
            Some(PROFILE_IMPORTED) | None => Some(TeacherSource::Imported),
            Some(name) => Some(TeacherSource::Profile(name.to_owned())),
        };
        let context = Context {
            is_scratch: self.student.base.is_none(),
            has_teacher: source.is_some(),
            // A default lies within its range, also where the task's own does not.
            tokens_max: self.task.tokens_max.clamp(1, TOKENS_MAX),
        };
        Spec {
            name: self.name,
            task: self.task,
            teacher: source.map(|source| self.teacher.fill(context, source)),
            judging: self.judging.fill(context),
            start: self.student.fill(),
            training: self.training.fill(context),
        }
    }
}

impl TeacherDraft {
    /// Mistakes in what was typed: one profile, or several.
    fn contradictions(&self) -> Option<Violation> {
        let first = self.profiles.as_ref()?.first();
        (self.profile.is_some() && self.profile.as_ref() != first)
            .then(|| Violation::new("teacher.profiles", "contradicts `teacher.profile`: remove one of them"))
    }
}

impl StudentDraft {
    /// Where the student starts, its holes filled.
    pub(crate) fn fill(self) -> Start {
        match self.base {
            Some(name) => Start::Base { name },
            None => Start::Scratch {
                size: self.size.unwrap_or(StudentSize::Mini),
                vocabulary: self.vocabulary.unwrap_or(2048),
            },
        }
    }
}

/// A draft without a hole: resolving it gives the specification back.
impl From<Spec> for Draft {
    fn from(spec: Spec) -> Self {
        let teacher = match spec.teacher {
            None => TeacherDraft { profile: Some(PROFILE_NONE.to_owned()), ..TeacherDraft::default() },
            Some(teacher) => {
                let profile = Some(teacher.source.profile().to_owned());
                TeacherDraft { profile, ..teacher.into() }
            }
        };
        Self {
            name: spec.name,
            task: spec.task,
            teacher,
            judging: spec.judging.into(),
            student: spec.start.into(),
            training: spec.training.into(),
        }
    }
}

impl From<Start> for StudentDraft {
    fn from(start: Start) -> Self {
        match start {
            Start::Scratch { size, vocabulary } => {
                Self { size: Some(size), vocabulary: Some(vocabulary), base: None }
            }
            Start::Base { name } => Self { size: None, vocabulary: None, base: Some(name) },
        }
    }
}

pub(crate) fn contradictions(student: &StudentDraft, judging: &JudgingDraft) -> Vec<Violation> {
    let mut found = Vec::new();
    if student.base.is_some() {
        for (field, given) in
            [("student.size", student.size.is_some()), ("student.vocabulary", student.vocabulary.is_some())]
        {
            if given {
                found.push(Violation::new(
                    field,
                    "contradicts `student.base`: a checkpoint brings its own size and vocabulary; remove one of them",
                ));
            }
        }
    }
    if judging.label == Some(LabelSource::Teacher) {
        for (field, given) in [
            ("judging.agree", judging.agree == Some(true)),
            ("judging.hint", judging.hint.is_some_and(Hint::is_on)),
        ] {
            if given {
                found.push(Violation::new(
                    field,
                    "needs gold labels, and `judging.label = \"teacher\"` says to use none; remove one of them",
                ));
            }
        }
    }
    found
}

impl Spec {
    /// Every setting that differs from its default, as `section.key` and text. A setting that a later version adds is not
    /// among them until it is used.
    pub(crate) fn chosen(&self) -> Vec<(String, String)> {
        let chosen = Draft::from(self.clone());
        let defaults = Draft {
            teacher: TeacherDraft { profile: chosen.teacher.profile.clone(), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            training: TrainingDraft::default(),
            ..chosen.clone()
        };
        // What a checkpoint's or a profile's name is has no default.
        let (mut given, defaults) = (chosen.given(), Draft::from(defaults.fill()).given());
        given.retain(|setting| {
            setting.0.starts_with("student.") || setting.0 == "teacher.profile" || !defaults.contains(setting)
        });
        given
    }

    /// Every mistake of the whole, each by its field.
    pub fn violations(&self) -> Vec<Violation> {
        self.violations_after(&[])
    }

    fn violations_after(&self, mistakes: &[Violation]) -> Vec<Violation> {
        let mut found = Vec::new();
        if !is_name(&self.name) {
            found.push(Violation::new(
                "name",
                "must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit",
            ));
        }
        found.extend(self.task.violations());
        // Exemplars are read by these: where one is wrong, all exemplars would seem to be.
        let reads = ["task.answer", "task.labels", "task.stop"];
        let reads_otherwise =
            |mistake: &Violation| reads.iter().any(|field| mistake.field.starts_with(field));
        if !mistakes.iter().chain(&found).any(reads_otherwise) {
            found.extend(exemplar_violations(&self.task));
        }
        if let Some(teacher) = &self.teacher {
            check_teacher(teacher, &mut found);
        }
        found.extend(self.judging.check());
        self.check_judging(&mut found);
        if let Start::Base { name } = &self.start
            && !is_name(name)
        {
            found.push(Violation::new("student.base", "is not the name of a registered checkpoint"));
        }
        found.extend(StudentDraft::from(self.start.clone()).check());
        found.extend(self.training.check());
        if self.training.warmup_steps > self.training.steps {
            found.push(Violation::new(
                "training.warmup_steps",
                format!("is {}: it must not exceed `training.steps`", self.training.warmup_steps),
            ));
        }
        found
    }

    /// What a job contradicts that asks until rationales stop helping: its probes learn the dataset's labels, and rationales.
    /// A further run over its ledger may do otherwise.
    pub fn probe_violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let Some(teacher) = self.teacher.as_ref().filter(|teacher| teacher.stops_early()) else {
            return found;
        };
        if !self.training.objective.needs_rationales() {
            found.push(Violation::new(
                "teacher.until",
                "needs `training.objective` to learn from rationales: nothing else can show whether they help",
            ));
        }
        if self.judging.label == LabelSource::Teacher {
            found.push(Violation::new(
                "teacher.until",
                "needs `judging.label = \"gold\"`: the first probe learns labels without asking the teacher",
            ));
        }
        if teacher.probe_steps.is_some_and(|steps| steps > self.training.steps) {
            let most = self.training.steps;
            found.push(Violation::new(
                "teacher.probe_steps",
                format!("is more than the {most} of `training.steps`: a probe is the shorter training"),
            ));
        }
        found
    }

    fn check_judging(&self, found: &mut Vec<Violation>) {
        let needs_teacher =
            self.training.objective.needs_rationales() || self.judging.label == LabelSource::Teacher;
        if self.teacher.is_none() && needs_teacher {
            found.push(Violation::new(
                "teacher.profile",
                format!(
                    "is `none`, but `training.objective = \"{}\"` or `judging.label` needs a teacher's rationales",
                    self.training.objective
                ),
            ));
        }
        let samples = self.teacher.as_ref().map_or(1, |teacher| teacher.samples);
        let imported = self.teacher.as_ref().is_some_and(|teacher| teacher.source == TeacherSource::Imported);
        if self.judging.vote && samples < 2 && !imported {
            found.push(Violation::new("judging.vote", "needs `teacher.samples` of 2 or more to count votes"));
        }
        if self.judging.hint.is_on() && imported {
            found.push(Violation::new(
                "judging.hint",
                "asks a teacher again, and `imported` answers cannot be asked",
            ));
        }
        let several =
            self.teacher.as_ref().and_then(|teacher| teacher.profiles.as_ref()).map_or(1, Vec::len) > 1;
        if several && !self.judging.agree {
            found.push(Violation::new(
                "teacher.profiles",
                "asks a further profile where gold shows that the ones before are wrong: needs `judging.agree = true`",
            ));
        }
        if several && self.judging.vote {
            found.push(Violation::new(
                "judging.vote",
                "counts the samples of one profile: name one, or turn it off",
            ));
        }
        if self.judging.hint.is_on() && !self.judging.agree {
            found.push(Violation::new("judging.hint", "only makes sense with `judging.agree = true`"));
        }
    }
}

fn check_teacher(teacher: &TeacherSpec, found: &mut Vec<Violation>) {
    if let TeacherSource::Profile(name) = &teacher.source
        && !is_name(name)
    {
        found.push(Violation::new("teacher.profile", "is not the name of a teacher profile"));
    }
    if let Some(profiles) = &teacher.profiles {
        let reserved =
            |name: &&String| !is_name(name) || [PROFILE_NONE, PROFILE_IMPORTED].contains(&name.as_str());
        if profiles.is_empty() || profiles.len() > PROFILES_MAX || profiles.iter().any(|name| reserved(&name))
        {
            found.push(Violation::new(
                "teacher.profiles",
                format!("takes 1 to {PROFILES_MAX} names of teacher profiles, the cheapest first"),
            ));
        }
    }
    check_until(teacher, found);
    if teacher.rows_per_call > 1 {
        let mut refuse = |is_wrong: bool, words: &str| {
            if is_wrong {
                found.push(Violation::new("teacher.rows_per_call", words));
            }
        };
        let imported = teacher.source == TeacherSource::Imported;
        refuse(imported, "asks a teacher, and `imported` answers are all there already");
        refuse(teacher.batch, "contradicts `teacher.batch`, whose lines ask about one row each: remove one");
    }
    found.extend(teacher.check());
    found.extend(teacher.budget.check());
    check_budget(&teacher.budget, found);
    if teacher.samples > 1 && teacher.temperature == 0.0 {
        found.push(Violation::new(
            "teacher.temperature",
            "is 0, so that all samples would be the same: raise it or ask for one sample",
        ));
    }
}

/// What contradicts asking until rationales stop helping, and what means nothing without it.
fn check_until(teacher: &TeacherSpec, found: &mut Vec<Violation>) {
    let mut refuse = |field: &str, is_wrong: bool, words: &str| {
        if is_wrong {
            found.push(Violation::new(field, words));
        }
    };
    if !teacher.stops_early() {
        let words = "only makes sense with `teacher.until = \"no_gain\"`";
        refuse("teacher.select", teacher.select == Select::Needed, words);
        refuse("teacher.probe_steps", teacher.probe_steps.is_some(), words);
        return;
    }
    let imported = teacher.source == TeacherSource::Imported;
    refuse("teacher.until", imported, "asks a teacher, and `imported` answers are all there already");
    let words = "contradicts `teacher.until`, which waits for each share of the rows, and a batch may take a day: remove one";
    refuse("teacher.batch", teacher.batch, words);
    let words = "contradicts `teacher.until`, which finds out how many rows to ask about: remove one of them";
    refuse("teacher.rows", teacher.rows.is_some(), words);
}

/// A limit is compared with what was spent, which the records count in 63 bits.
fn check_budget(budget: &Budget, found: &mut Vec<Violation>) {
    for (key, limit) in budget.given() {
        if limit.parse::<i64>().is_err() {
            found.push(Violation::new(
                format!("teacher.budget.{key}"),
                format!("is {limit}: it must be at most {}; leave it out for no limit", i64::MAX),
            ));
        }
    }
}

/// Whether `text` can name a distillation, model, dataset, profile or base model: 1 to 64 of `[A-Za-z0-9._-]`, the first
/// a letter or digit (so no path climbs out through a name).
pub fn is_name(text: &str) -> bool {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(allowed)
}

/// The known word nearest to `word`, where one is near enough to be what was meant.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Objective;

    fn draft() -> Draft {
        Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        }
    }

    fn check(change: impl FnOnce(&mut Draft), fields: &[&str]) {
        let mut changed = draft();
        change(&mut changed);
        let found = changed.resolve().err().unwrap_or_default();
        let names: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(names, fields, "{found:?}");
    }

    #[test]
    fn holes_are_filled_by_where_the_student_starts() {
        let scratch = draft().resolve().unwrap();
        assert_eq!(scratch.training.objective, Objective::StepByStep);
        assert_eq!(scratch.training.learning_rate, 1e-3);
        let tuned =
            Draft { student: StudentDraft { base: Some("t5".into()), ..StudentDraft::default() }, ..draft() };
        let tuned = tuned.resolve().unwrap();
        assert_eq!((tuned.training.learning_rate, tuned.training.batch_examples), (5e-5, 64));
        assert_eq!((tuned.training.steps, tuned.training.dropout), (10_000, None));
    }

    #[test]
    fn contradictions_and_ranges_are_named_by_field() {
        check(|_| {}, &[]);
        check(|draft| draft.name = "../up".into(), &["name"]);
        check(|draft| draft.training.alpha = Some(1.5), &["training.alpha"]);
        check(|draft| draft.training.alpha = Some(f64::NAN), &["training.alpha"]);
        check(|draft| draft.teacher.samples = Some(0), &["teacher.samples"]);
        let budget = |tokens| Budget { tokens: Some(tokens), ..Budget::default() };
        check(|draft| draft.teacher.budget = Some(budget(1 << 63)), &["teacher.budget.tokens"]);
        check(|draft| draft.teacher.budget = Some(budget(0)), &[]);
        check(|draft| draft.training.warmup_steps = Some(2_001), &["training.warmup_steps"]);
        check(|draft| draft.judging.vote = Some(true), &["judging.vote"]);
        check(|draft| draft.teacher.profile = Some("none".into()), &[]);
        check(
            |draft| {
                draft.teacher.profile = Some("none".into());
                draft.training.objective = Some(Objective::StepByStep);
            },
            &["teacher.profile"],
        );
        check(
            |draft| {
                draft.judging.label = Some(LabelSource::Teacher);
                draft.judging.agree = Some(true);
            },
            &["judging.agree"],
        );
        check(
            |draft| {
                draft.student.base = Some("t5".into());
                draft.student.size = Some(StudentSize::Tiny);
            },
            &["student.size"],
        );
        check(
            |draft| {
                draft.teacher.samples = Some(4);
                draft.teacher.temperature = Some(0.0);
            },
            &["teacher.temperature"],
        );
    }

    #[test]
    fn asking_until_it_stops_helping_needs_a_teacher_and_gold() {
        let until = |change: fn(&mut Draft), fields: &[&str]| {
            let mut changed = draft();
            changed.teacher.until = Some(Until::NoGain);
            change(&mut changed);
            let spec = changed.fill();
            let found = [spec.violations(), spec.probe_violations()].concat();
            let names: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(names, fields, "{found:?}");
        };
        until(|_| {}, &[]);
        until(|draft| draft.teacher.select = Some(Select::Needed), &[]);
        until(|draft| draft.teacher.probe_steps = Some(100), &[]);
        until(|draft| draft.teacher.probe_steps = Some(0), &["teacher.probe_steps"]);
        until(|draft| draft.teacher.probe_steps = Some(2_001), &["teacher.probe_steps"]);
        until(|draft| draft.teacher.profile = Some("imported".into()), &["teacher.until"]);
        until(|draft| draft.teacher.rows = Some(100), &["teacher.rows"]);
        until(|draft| draft.teacher.batch = Some(true), &["teacher.batch"]);
        until(|draft| draft.training.objective = Some(Objective::Standard), &["teacher.until"]);
        until(|draft| draft.judging.label = Some(LabelSource::Teacher), &["teacher.until"]);
        // A further run may learn otherwise: what its job probed is not its concern.
        check(
            |draft| {
                draft.teacher.until = Some(Until::NoGain);
                draft.judging.label = Some(LabelSource::Teacher);
                draft.training.objective = Some(Objective::Standard);
            },
            &[],
        );
        check(|draft| draft.teacher.select = Some(Select::Needed), &["teacher.select"]);
        check(|draft| draft.teacher.probe_steps = Some(100), &["teacher.probe_steps"]);
    }

    #[test]
    fn several_rows_a_call_are_asked_of_a_teacher_at_once() {
        let together = |edit: fn(&mut Draft), fields: &[&str]| {
            check(
                |draft| {
                    draft.teacher.rows_per_call = Some(8);
                    edit(draft);
                },
                fields,
            );
        };
        together(|_| {}, &[]);
        together(|draft| draft.teacher.batch = Some(true), &["teacher.rows_per_call"]);
        together(|draft| draft.teacher.profile = Some("imported".into()), &["teacher.rows_per_call"]);
        together(|draft| draft.teacher.rows_per_call = Some(0), &["teacher.rows_per_call"]);
        together(|draft| draft.teacher.rows_per_call = Some(33), &["teacher.rows_per_call"]);
        together(
            |draft| {
                draft.teacher.rows_per_call = Some(1);
                draft.teacher.batch = Some(true);
            },
            &[],
        );
    }

    #[test]
    fn over_unlabelled_rows_an_open_label_is_the_teachers() {
        let check = |change: fn(&mut Draft), label: LabelSource, agree: bool| {
            let mut changed = draft();
            change(&mut changed);
            let judging = changed.over_unlabelled_rows().resolve().unwrap().judging;
            assert_eq!((judging.label, judging.agree), (label, agree));
        };
        check(|_| {}, LabelSource::Teacher, false);
        check(|draft| draft.teacher.profile = None, LabelSource::Teacher, false);
        check(|draft| draft.judging.agree = Some(false), LabelSource::Teacher, false);
        check(|draft| draft.judging.label = Some(LabelSource::Gold), LabelSource::Gold, true);
        check(|draft| draft.judging.agree = Some(true), LabelSource::Gold, true);
        check(|draft| draft.judging.hint = Some(Hint::After), LabelSource::Gold, true);
        check(|draft| draft.teacher.profile = Some("none".into()), LabelSource::Gold, true);
    }

    #[test]
    fn a_slip_of_the_pen_gets_a_suggestion() {
        assert_eq!(suggestion("leraning_rate", ["learning_rate", "alpha"]), Some("learning_rate"));
        assert_eq!(suggestion("quantum", ["learning_rate", "alpha"]), None);
    }
}
