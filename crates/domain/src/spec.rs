//! The specification of a distillation: what a user asks for.
//!
//! A [`Draft`] is what a user wrote, with holes; [`Draft::resolve`] fills them with defaults and names every mistake at
//! once. A [`Spec`] has no holes and is what is stored, hashed and carried out. It names a teacher profile and a base
//! model, never a URL, a path or a key.

use crate::completion::exemplar_violations;
use crate::fault::Violation;
use crate::named::named;
use crate::objective::Objective;
use crate::task::Task;
use serde::{Deserialize, Serialize};

named!(
    /// How the learning rate moves after warm-up.
    Schedule {
        /// It stays.
        Constant = "constant",
        /// It falls to zero in a straight line.
        Linear = "linear",
        /// It falls to zero along half a cosine.
        Cosine = "cosine",
        /// It falls with the inverse square root of the step.
        InverseSquareRoot = "inverse_square_root",
    }
);

named!(
    /// The number format of the forward and backward pass. Master weights, norms, softmax and loss are float32 always.
    Precision {
        /// bfloat16 where the device multiplies it fast, else float32; the choice is recorded in the provenance.
        Auto = "auto",
        /// float32.
        Float32 = "float32",
        /// bfloat16.
        Bfloat16 = "bfloat16",
    }
);

named!(
    /// Which label the student learns.
    LabelSource {
        /// The dataset's.
        Gold = "gold",
        /// The teacher's: no gold labels needed.
        Teacher = "teacher",
    }
);

named!(
    /// The named sizes of a student that starts from scratch.
    StudentSize {
        /// About a million parameters: for tests.
        Tiny = "tiny",
        /// Some three million, with a small vocabulary.
        Mini = "mini",
        /// T5 v1.1 small, 60 million without its large vocabulary.
        Small = "small",
        /// T5 v1.1 base.
        Base = "base",
        /// T5 v1.1 large.
        Large = "large",
    }
);

/// Where rationales come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherSource {
    /// The operator's profile of this name is asked.
    Profile(String),
    /// The answers that came with the dataset are judged; nothing is asked.
    Imported,
}

/// Hard limits on what a distillation may spend; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Most calls to the teacher (cache hits are free).
    pub prompts: Option<u64>,
    /// Most tokens, in and out together.
    pub tokens: Option<u64>,
    /// Most money, in millionths of the profile's currency.
    pub money_micros: Option<u64>,
}

/// How the teacher is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherSpec {
    /// Whom to ask.
    pub source: TeacherSource,
    /// How many train rows get a rationale (the first ones, in row order); `None` for all.
    pub rows: Option<u32>,
    /// Samples an example.
    pub samples: u32,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus mass.
    pub top_p: f64,
    /// Most tokens of a completion.
    pub tokens_max: u32,
    /// Whether the teacher is measured on the test rows too.
    pub evaluate: bool,
    /// What may be spent.
    pub budget: Budget,
}

/// Which completions train the student.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judging {
    /// Keep a rationale only where its label agrees with gold.
    pub agree: bool,
    /// Where no sample agrees, ask once more with the gold label given (rationalisation, Zelikman et al. 2022).
    pub hint: bool,
    /// Self-consistency: keep the rationales of the label that most samples reach, each weighted 1/kept.
    pub vote: bool,
    /// Which label the student learns.
    pub label: LabelSource,
}

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

/// How the student is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// What it is trained to write.
    pub objective: Objective,
    /// L = alpha * L_label + (1 - alpha) * L_rationale.
    pub alpha: f64,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Its course after warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Optimiser steps at most.
    pub steps: u32,
    /// Examples of one optimiser step (a label row and, where there is one, a rationale row each).
    pub batch_examples: u32,
    /// Most padded tokens of one forward pass; a larger batch is accumulated in parts.
    pub batch_tokens_max: u32,
    /// Inputs are cut here.
    pub input_tokens_max: u32,
    /// Targets are cut here.
    pub target_tokens_max: u32,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Global gradient norm is clipped here.
    pub clip_norm: f64,
    /// Dropout; `None` keeps the checkpoint's.
    pub dropout: Option<f64>,
    /// Validation every so many steps.
    pub evaluate_every_steps: u32,
    /// Stop after so many validations without a better one; `None` never stops early.
    pub patience: Option<u32>,
    /// Share of the train rows held out as validation where the dataset has none.
    pub holdout_fraction: f64,
    /// Resume state is written every so many steps.
    pub checkpoint_every_steps: u32,
    /// Everything random comes from here.
    pub seed: u64,
    /// Number format of the passes.
    pub precision: Precision,
}

/// A whole specification, without holes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// What a user wrote of the teacher.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherDraft {
    /// A profile's name, `imported`, or `none`. Default: `imported`.
    pub profile: Option<String>,
    /// See [`TeacherSpec::rows`]. Default: all.
    pub rows: Option<u32>,
    /// See [`TeacherSpec::samples`]. Default: 1.
    pub samples: Option<u32>,
    /// See [`TeacherSpec::temperature`]. Default: 0 for one sample, 0.7 for more.
    pub temperature: Option<f64>,
    /// See [`TeacherSpec::top_p`]. Default: 1.
    pub top_p: Option<f64>,
    /// See [`TeacherSpec::tokens_max`]. Default: the task's.
    pub tokens_max: Option<u32>,
    /// See [`TeacherSpec::evaluate`]. Default: true.
    pub evaluate: Option<bool>,
    /// See [`TeacherSpec::budget`]. Default: no limits.
    pub budget: Option<Budget>,
}

/// What a user wrote of judging.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgingDraft {
    /// See [`Judging::agree`]. Default: true with gold labels, false with the teacher's.
    pub agree: Option<bool>,
    /// See [`Judging::hint`]. Default: false.
    pub hint: Option<bool>,
    /// See [`Judging::vote`]. Default: false.
    pub vote: Option<bool>,
    /// See [`Judging::label`]. Default: gold.
    pub label: Option<LabelSource>,
}

/// What a user wrote of the student.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentDraft {
    /// Start from scratch in this size. Default: mini, where `base` is absent.
    pub size: Option<StudentSize>,
    /// Entries of the tokenizer, from scratch only. Default: 2048.
    pub vocabulary: Option<u32>,
    /// Start from this registered checkpoint.
    pub base: Option<String>,
}

/// What a user wrote of training; each field as in [`TrainingSpec`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is documented at TrainingSpec, whose hole it is")]
pub struct TrainingDraft {
    pub objective: Option<Objective>,
    pub alpha: Option<f64>,
    pub learning_rate: Option<f64>,
    pub schedule: Option<Schedule>,
    pub warmup_steps: Option<u32>,
    pub steps: Option<u32>,
    pub batch_examples: Option<u32>,
    pub batch_tokens_max: Option<u32>,
    pub input_tokens_max: Option<u32>,
    pub target_tokens_max: Option<u32>,
    pub weight_decay: Option<f64>,
    pub clip_norm: Option<f64>,
    pub dropout: Option<f64>,
    pub evaluate_every_steps: Option<u32>,
    pub patience: Option<u32>,
    pub holdout_fraction: Option<f64>,
    pub checkpoint_every_steps: Option<u32>,
    pub seed: Option<u64>,
    pub precision: Option<Precision>,
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

/// The profile name that means: judge what came with the data, ask nobody.
pub const PROFILE_IMPORTED: &str = "imported";
/// The profile name that means: no rationales at all.
pub const PROFILE_NONE: &str = "none";

impl Draft {
    /// Fills the holes and names every mistake, each by its field as the user writes it.
    ///
    /// # Errors
    /// All violations at once, in the order of the fields.
    pub fn resolve(self) -> Result<Spec, Vec<Violation>> {
        let start = resolve_start(&self.student);
        let teacher = resolve_teacher(&self.teacher, &self.task);
        let objective = self.training.objective.unwrap_or_else(|| Objective::default_for(teacher.is_some()));
        let judging = resolve_judging(&self.judging);
        let training = resolve_training(&self.training, &start, objective);
        let mut found = contradictions(&self.student, &self.judging);
        let spec = Spec { name: self.name, task: self.task, teacher, judging, start, training };
        found.extend(spec.violations());
        if found.is_empty() { Ok(spec) } else { Err(found) }
    }
}

pub(crate) fn resolve_judging(draft: &JudgingDraft) -> Judging {
    let label = draft.label.unwrap_or(LabelSource::Gold);
    Judging {
        agree: draft.agree.unwrap_or(label == LabelSource::Gold),
        hint: draft.hint.unwrap_or(false),
        vote: draft.vote.unwrap_or(false),
        label,
    }
}

pub(crate) fn resolve_start(student: &StudentDraft) -> Start {
    match &student.base {
        Some(name) => Start::Base { name: name.clone() },
        None => Start::Scratch {
            size: student.size.unwrap_or(StudentSize::Mini),
            vocabulary: student.vocabulary.unwrap_or(2048),
        },
    }
}

fn resolve_teacher(teacher: &TeacherDraft, task: &Task) -> Option<TeacherSpec> {
    let source = match teacher.profile.as_deref() {
        Some(PROFILE_NONE) => return None,
        Some(PROFILE_IMPORTED) | None => TeacherSource::Imported,
        Some(name) => TeacherSource::Profile(name.to_owned()),
    };
    let samples = teacher.samples.unwrap_or(1);
    Some(TeacherSpec {
        source,
        rows: teacher.rows,
        samples,
        temperature: teacher.temperature.unwrap_or(if samples > 1 { 0.7 } else { 0.0 }),
        top_p: teacher.top_p.unwrap_or(1.0),
        tokens_max: teacher.tokens_max.unwrap_or(task.tokens_max),
        evaluate: teacher.evaluate.unwrap_or(true),
        budget: teacher.budget.unwrap_or_default(),
    })
}

/// The paper's defaults where a checkpoint is fine-tuned (section 4.1 and appendix A); defaults that learn where it
/// starts from scratch.
pub(crate) fn resolve_training(draft: &TrainingDraft, start: &Start, objective: Objective) -> TrainingSpec {
    let scratch = matches!(start, Start::Scratch { .. });
    let steps = draft.steps.unwrap_or(if scratch { 2_000 } else { 10_000 });
    let pick = |scratched: f64, tuned: f64| if scratch { scratched } else { tuned };
    TrainingSpec {
        objective,
        alpha: draft.alpha.unwrap_or(0.5),
        learning_rate: draft.learning_rate.unwrap_or(pick(1e-3, 5e-5)),
        schedule: draft.schedule.unwrap_or(if scratch { Schedule::Cosine } else { Schedule::Linear }),
        warmup_steps: draft.warmup_steps.unwrap_or(if scratch { steps / 20 } else { 0 }),
        steps,
        batch_examples: draft.batch_examples.unwrap_or(if scratch { 32 } else { 64 }),
        batch_tokens_max: draft.batch_tokens_max.unwrap_or(16_384),
        input_tokens_max: draft.input_tokens_max.unwrap_or(1024),
        target_tokens_max: draft.target_tokens_max.unwrap_or(256),
        weight_decay: draft.weight_decay.unwrap_or(pick(0.01, 0.0)),
        clip_norm: draft.clip_norm.unwrap_or(1.0),
        dropout: draft.dropout.or(scratch.then_some(0.0)),
        evaluate_every_steps: draft.evaluate_every_steps.unwrap_or((steps / 10).max(1)),
        patience: draft.patience,
        holdout_fraction: draft.holdout_fraction.unwrap_or(0.1),
        checkpoint_every_steps: draft.checkpoint_every_steps.unwrap_or((steps / 10).max(1)),
        seed: draft.seed.unwrap_or(0),
        precision: draft.precision.unwrap_or(Precision::Auto),
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
        for (field, given) in
            [("judging.agree", judging.agree == Some(true)), ("judging.hint", judging.hint == Some(true))]
        {
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
    /// Every mistake of the whole, each by its field.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        if !is_name(&self.name) {
            found.push(Violation::new(
                "name",
                "must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit",
            ));
        }
        found.extend(self.task.violations());
        found.extend(exemplar_violations(&self.task));
        if let Some(teacher) = &self.teacher {
            teacher_violations(teacher, &mut found);
        }
        self.push_judging(&mut found);
        match &self.start {
            Start::Scratch { vocabulary, .. } => {
                range(&mut found, "student.vocabulary", f64::from(*vocabulary), 300.0, 64_000.0);
            }
            Start::Base { name } if !is_name(name) => {
                found.push(Violation::new("student.base", "is no name of a registered checkpoint"));
            }
            Start::Base { .. } => {}
        }
        training_violations(&self.training, &mut found);
        found
    }

    fn push_judging(&self, found: &mut Vec<Violation>) {
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
        if self.judging.hint && imported {
            found.push(Violation::new(
                "judging.hint",
                "asks a teacher again, and `imported` answers cannot be asked",
            ));
        }
        if self.judging.hint && !self.judging.agree {
            found.push(Violation::new("judging.hint", "only makes sense with `judging.agree = true`"));
        }
    }
}

fn teacher_violations(teacher: &TeacherSpec, found: &mut Vec<Violation>) {
    if let TeacherSource::Profile(name) = &teacher.source
        && !is_name(name)
    {
        found.push(Violation::new("teacher.profile", "is no name of a teacher profile"));
    }
    range(found, "teacher.samples", f64::from(teacher.samples), 1.0, 64.0);
    range(found, "teacher.temperature", teacher.temperature, 0.0, 2.0);
    range(found, "teacher.top_p", teacher.top_p, 0.01, 1.0);
    range(found, "teacher.tokens_max", f64::from(teacher.tokens_max), 1.0, 8192.0);
    let limits = teacher.budget;
    countable(found, "teacher.budget.prompts", limits.prompts);
    countable(found, "teacher.budget.tokens", limits.tokens);
    countable(found, "teacher.budget.money_micros", limits.money_micros);
    if teacher.samples > 1 && teacher.temperature == 0.0 {
        found.push(Violation::new(
            "teacher.temperature",
            "is 0, so that all samples would be the same: raise it or ask for one sample",
        ));
    }
}

fn training_violations(training: &TrainingSpec, found: &mut Vec<Violation>) {
    range(found, "training.alpha", training.alpha, 0.0, 1.0);
    range(found, "training.learning_rate", training.learning_rate, 1e-9, 10.0);
    range(found, "training.steps", f64::from(training.steps), 1.0, 1e7);
    range(found, "training.warmup_steps", f64::from(training.warmup_steps), 0.0, f64::from(training.steps));
    range(found, "training.batch_examples", f64::from(training.batch_examples), 1.0, 65_536.0);
    range(found, "training.batch_tokens_max", f64::from(training.batch_tokens_max), 64.0, 1e7);
    range(found, "training.input_tokens_max", f64::from(training.input_tokens_max), 4.0, 8192.0);
    range(found, "training.target_tokens_max", f64::from(training.target_tokens_max), 2.0, 2048.0);
    range(found, "training.weight_decay", training.weight_decay, 0.0, 1.0);
    range(found, "training.clip_norm", training.clip_norm, 1e-6, 1e6);
    range(found, "training.dropout", training.dropout.unwrap_or(0.0), 0.0, 0.9);
    range(found, "training.evaluate_every_steps", f64::from(training.evaluate_every_steps), 1.0, 1e7);
    range(found, "training.checkpoint_every_steps", f64::from(training.checkpoint_every_steps), 1.0, 1e7);
    range(found, "training.patience", f64::from(training.patience.unwrap_or(1)), 1.0, 1e6);
    range(found, "training.holdout_fraction", training.holdout_fraction, 0.001, 0.5);
}

/// A limit is compared with what was spent, which the records count in 63 bits.
fn countable(found: &mut Vec<Violation>, field: &str, limit: Option<u64>) {
    let max = i64::MAX.unsigned_abs();
    if let Some(limit) = limit.filter(|limit| *limit > max) {
        let words = format!("is {limit}: it must be at most {max}; leave it out for no limit");
        found.push(Violation::new(field, words));
    }
}

fn range(found: &mut Vec<Violation>, field: &str, value: f64, low: f64, high: f64) {
    // A NaN lies in no range.
    if !(value >= low && value <= high) {
        found.push(Violation::new(field, format!("is {value}: it must lie between {low} and {high}")));
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
    fn a_slip_of_the_pen_gets_a_suggestion() {
        assert_eq!(suggestion("leraning_rate", ["learning_rate", "alpha"]), Some("learning_rate"));
        assert_eq!(suggestion("quantum", ["learning_rate", "alpha"]), None);
    }
}
