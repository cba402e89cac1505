//! The specification: inward through the domain's draft, so that defaults and mistakes are the domain's.

use crate::convert::{Checked, present, under};
use crate::enums::Named;
use crate::v1::{self, distillation_spec::TaskSource, label_set};
use domain::Violation;
use domain::spec::{
    Budget, Draft, Judging, JudgingDraft, Precision, Spec, Start, StudentDraft, TeacherDraft, TeacherSource,
    TeacherSpec, TrainingDraft, TrainingSpec,
};
use domain::task::{AnswerPattern, BUILT_IN, Exemplar, LabelSet, Task};

impl TryFrom<v1::DistillationSpec> for Spec {
    type Error = Vec<Violation>;

    fn try_from(message: v1::DistillationSpec) -> Checked<Self> {
        let mut found = Vec::new();
        let mut keep = |violations: Vec<Violation>| found.extend(violations);
        let task = task(message.task_source).map_err(&mut keep).ok();
        let judging = judging(message.judging.unwrap_or_default()).map_err(&mut keep).ok();
        let student = student(message.student.unwrap_or_default()).map_err(&mut keep).ok();
        let training = training(message.training.unwrap_or_default()).map_err(&mut keep).ok();
        let (Some(task), Some(judging), Some(student), Some(training)) = (task, judging, student, training)
        else {
            return Err(found);
        };
        let teacher = teacher(message.teacher.unwrap_or_default());
        Draft { name: message.name, task, teacher, judging, student, training }.resolve()
    }
}

fn task(source: Option<TaskSource>) -> Checked<Task> {
    match present("task", source)? {
        TaskSource::TaskName(name) => Task::built_in(&name).ok_or_else(|| {
            vec![Violation::new("task_name", format!("must be one of {}", BUILT_IN.join(", ")))]
        }),
        TaskSource::Task(task) => under("task", task.try_into()),
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Task) -> Checked<Self> {
        let mut found = Vec::new();
        let mut keep = |violations: Vec<Violation>| found.extend(violations);
        let shape = Named::required("answer_shape", message.answer_shape).map_err(&mut keep).ok();
        let metric = Named::required("metric", message.metric).map_err(&mut keep).ok();
        let kind = present("labels", message.labels.and_then(|labels| labels.kind)).map_err(&mut keep).ok();
        let (Some(shape), Some(metric), Some(kind)) = (shape, metric, kind) else { return Err(found) };
        Ok(Self {
            name: message.name,
            instruction: message.instruction,
            template: message.template,
            exemplars: message.exemplars.into_iter().map(Into::into).collect(),
            stop: message.stop,
            answer: AnswerPattern { marker: message.answer_marker, shape },
            labels: match kind {
                label_set::Kind::Open(_) => LabelSet::Open,
                label_set::Kind::Closed(closed) => LabelSet::Closed(closed.labels),
                label_set::Kind::Choices(_) => LabelSet::Choices,
            },
            metric,
            tokens_max: if message.tokens_max == 0 { 256 } else { message.tokens_max },
        })
    }
}

impl From<Task> for v1::Task {
    fn from(task: Task) -> Self {
        let kind = match task.labels {
            LabelSet::Open => label_set::Kind::Open(label_set::Open {}),
            LabelSet::Closed(labels) => label_set::Kind::Closed(label_set::Closed { labels }),
            LabelSet::Choices => label_set::Kind::Choices(label_set::Choices {}),
        };
        Self {
            name: task.name,
            instruction: task.instruction,
            template: task.template,
            exemplars: task.exemplars.into_iter().map(Into::into).collect(),
            stop: task.stop,
            answer_marker: task.answer.marker,
            answer_shape: task.answer.shape.number(),
            labels: Some(v1::LabelSet { kind: Some(kind) }),
            metric: task.metric.number(),
            tokens_max: task.tokens_max,
        }
    }
}

impl From<v1::Exemplar> for Exemplar {
    fn from(message: v1::Exemplar) -> Self {
        let v1::Exemplar { input, choices, premise, hypothesis, rationale, label } = message;
        Self { input, choices, premise, hypothesis, rationale, label }
    }
}

impl From<Exemplar> for v1::Exemplar {
    fn from(exemplar: Exemplar) -> Self {
        let Exemplar { input, choices, premise, hypothesis, rationale, label } = exemplar;
        Self { input, choices, premise, hypothesis, rationale, label }
    }
}

fn teacher(message: v1::TeacherSpec) -> TeacherDraft {
    TeacherDraft {
        profile: (!message.profile.is_empty()).then_some(message.profile),
        rows: message.rows,
        samples: message.samples,
        temperature: message.temperature,
        top_p: message.top_p,
        tokens_max: message.tokens_max,
        evaluate: message.evaluate,
        budget: message.budget.map(|budget| Budget {
            prompts: budget.prompts,
            tokens: budget.tokens,
            money_micros: budget.money_micros,
        }),
    }
}

pub(crate) fn judging(message: v1::JudgingSpec) -> Checked<JudgingDraft> {
    Ok(JudgingDraft {
        agree: message.agree,
        hint: message.hint,
        vote: message.vote,
        label: Named::read("judging.label", message.label)?,
    })
}

pub(crate) fn student(message: v1::StudentSpec) -> Checked<StudentDraft> {
    Ok(StudentDraft {
        size: Named::read("student.size", message.size)?,
        vocabulary: message.vocabulary,
        base: (!message.base.is_empty()).then_some(message.base),
    })
}

pub(crate) fn training(message: v1::TrainingSpec) -> Checked<TrainingDraft> {
    let mut found = Vec::new();
    let mut keep = |violations: Vec<Violation>| found.extend(violations);
    let objective = Named::read("training.objective", message.objective).map_err(&mut keep);
    let schedule = Named::read("training.schedule", message.schedule).map_err(&mut keep);
    let precision = precision(message.precision).map_err(&mut keep);
    let (Ok(objective), Ok(schedule), Ok(precision)) = (objective, schedule, precision) else {
        return Err(found);
    };
    Ok(TrainingDraft {
        objective,
        alpha: message.alpha,
        learning_rate: message.learning_rate,
        schedule,
        warmup_steps: message.warmup_steps,
        steps: message.steps,
        batch_examples: message.batch_examples,
        batch_tokens_max: message.batch_tokens_max,
        input_tokens_max: message.input_tokens_max,
        target_tokens_max: message.target_tokens_max,
        weight_decay: message.weight_decay,
        clip_norm: message.clip_norm,
        dropout: message.dropout,
        evaluate_every_steps: message.evaluate_every_steps,
        patience: message.patience,
        holdout_fraction: message.holdout_fraction,
        checkpoint_every_steps: message.checkpoint_every_steps,
        seed: message.seed,
        precision,
    })
}

/// On the wire, `auto` is what is not specified.
fn precision(number: i32) -> Checked<Option<Precision>> {
    match v1::Precision::try_from(number) {
        Ok(v1::Precision::Unspecified) => Ok(None),
        Ok(v1::Precision::Float32) => Ok(Some(Precision::Float32)),
        Ok(v1::Precision::Bfloat16) => Ok(Some(Precision::Bfloat16)),
        Err(_) => Err(vec![Violation::new("training.precision", format!("has the unknown value {number}"))]),
    }
}

impl From<Spec> for v1::DistillationSpec {
    fn from(spec: Spec) -> Self {
        Self {
            name: spec.name,
            task_source: Some(TaskSource::Task(spec.task.into())),
            teacher: Some(teacher_message(spec.teacher)),
            judging: Some(spec.judging.into()),
            student: Some(spec.start.into()),
            training: Some(spec.training.into()),
        }
    }
}

fn teacher_message(teacher: Option<TeacherSpec>) -> v1::TeacherSpec {
    let Some(teacher) = teacher else {
        return v1::TeacherSpec {
            profile: domain::spec::PROFILE_NONE.to_owned(),
            ..v1::TeacherSpec::default()
        };
    };
    v1::TeacherSpec {
        profile: match teacher.source {
            TeacherSource::Profile(name) => name,
            TeacherSource::Imported => domain::spec::PROFILE_IMPORTED.to_owned(),
        },
        rows: teacher.rows,
        samples: Some(teacher.samples),
        temperature: Some(teacher.temperature),
        top_p: Some(teacher.top_p),
        tokens_max: Some(teacher.tokens_max),
        evaluate: Some(teacher.evaluate),
        budget: Some(v1::Budget {
            prompts: teacher.budget.prompts,
            tokens: teacher.budget.tokens,
            money_micros: teacher.budget.money_micros,
        }),
    }
}

impl From<Judging> for v1::JudgingSpec {
    fn from(judging: Judging) -> Self {
        Self {
            agree: Some(judging.agree),
            hint: Some(judging.hint),
            vote: Some(judging.vote),
            label: judging.label.number(),
        }
    }
}

impl From<Start> for v1::StudentSpec {
    fn from(start: Start) -> Self {
        match start {
            Start::Scratch { size, vocabulary } => {
                Self { size: size.number(), vocabulary: Some(vocabulary), base: String::new() }
            }
            Start::Base { name } => Self { size: 0, vocabulary: None, base: name },
        }
    }
}

impl From<TrainingSpec> for v1::TrainingSpec {
    fn from(training: TrainingSpec) -> Self {
        Self {
            objective: training.objective.number(),
            alpha: Some(training.alpha),
            learning_rate: Some(training.learning_rate),
            schedule: training.schedule.number(),
            warmup_steps: Some(training.warmup_steps),
            steps: Some(training.steps),
            batch_examples: Some(training.batch_examples),
            batch_tokens_max: Some(training.batch_tokens_max),
            input_tokens_max: Some(training.input_tokens_max),
            target_tokens_max: Some(training.target_tokens_max),
            weight_decay: Some(training.weight_decay),
            clip_norm: Some(training.clip_norm),
            dropout: training.dropout,
            evaluate_every_steps: Some(training.evaluate_every_steps),
            patience: training.patience,
            holdout_fraction: Some(training.holdout_fraction),
            checkpoint_every_steps: Some(training.checkpoint_every_steps),
            seed: Some(training.seed),
            precision: i32::from(match training.precision {
                Precision::Auto => v1::Precision::Unspecified,
                Precision::Float32 => v1::Precision::Float32,
                Precision::Bfloat16 => v1::Precision::Bfloat16,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::spec::StudentSize;
    use proptest::prelude::*;

    fn draft() -> Draft {
        Draft {
            name: "job".into(),
            task: Task::built_in("choice").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        }
    }

    proptest! {
        #[test]
        fn a_resolved_specification_survives_the_wire(
            alpha in 0.0..=1.0f64, rows in proptest::option::of(0..1000u32), steps in 1..100_000u32,
            samples in 1..8u32, patience in proptest::option::of(1..9u32), base in proptest::bool::ANY,
            dropout in proptest::option::of(0.0..0.5f64), none in proptest::bool::ANY, seed: u64,
        ) {
            let mut draft = draft();
            draft.teacher.rows = rows;
            draft.teacher.samples = Some(samples);
            if none { draft.teacher.profile = Some("none".into()); }
            draft.student = if base {
                StudentDraft { base: Some("t5-small".into()), ..StudentDraft::default() }
            } else {
                StudentDraft { size: Some(StudentSize::Tiny), vocabulary: Some(500), base: None }
            };
            draft.training = TrainingDraft {
                alpha: Some(alpha), steps: Some(steps), patience, dropout, seed: Some(seed), ..TrainingDraft::default()
            };
            let spec = draft.resolve().unwrap();
            prop_assert_eq!(Spec::try_from(v1::DistillationSpec::from(spec.clone())), Ok(spec));
        }
    }

    #[test]
    fn numbers_from_a_newer_client_are_named() {
        let mut message = v1::DistillationSpec::from(draft().resolve().unwrap());
        message.training.as_mut().unwrap().schedule = 99;
        message.student.as_mut().unwrap().size = -1;
        let fields: Vec<String> =
            Spec::try_from(message).unwrap_err().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["student.size", "training.schedule"]);
    }

    #[test]
    fn an_empty_specification_names_what_is_missing() {
        let fields: Vec<String> = Spec::try_from(v1::DistillationSpec::default())
            .unwrap_err()
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        assert_eq!(fields, ["task"]);
    }
}
