//! The specification: inward through the domain's draft, so that defaults and mistakes are the domain's.

use crate::convert::{Checked, present};
use crate::enums::Named;
use crate::v1::{self, distillation_spec::TaskSource, label_set};
use domain::Violation;
use domain::spec::{Budget, Draft, JudgingDraft, Spec, StudentDraft, TeacherDraft, TrainingDraft};
use domain::task::{AnswerPattern, BUILT_IN, Exemplar, LabelSet, Task};

impl TryFrom<v1::DistillationSpec> for Spec {
    type Error = Vec<Violation>;

    fn try_from(message: v1::DistillationSpec) -> Checked<Self> {
        let (draft, found) = draft(message);
        let (spec, found) = draft.resolve_after(found);
        if found.is_empty() { Ok(spec) } else { Err(found) }
    }
}

/// What can be read of a specification, and every mistake in the rest.
pub fn draft(message: v1::DistillationSpec) -> (Draft, Vec<Violation>) {
    let mut found = Vec::new();
    let task = task(message.task_source, &mut found);
    let draft = Draft {
        name: message.name,
        task,
        teacher: TeacherDraft::read(message.teacher.unwrap_or_default(), &mut found),
        judging: JudgingDraft::read(message.judging.unwrap_or_default(), &mut found),
        student: StudentDraft::read(message.student.unwrap_or_default(), &mut found),
        training: TrainingDraft::read(message.training.unwrap_or_default(), &mut found),
    };
    (draft, found)
}

fn task(source: Option<TaskSource>, found: &mut Vec<Violation>) -> Task {
    let mut refuse = |field: &str, words: String| {
        found.push(Violation::new(field, words));
        Task::stand_in()
    };
    match source {
        None => refuse("task", "is missing".to_owned()),
        Some(TaskSource::TaskName(name)) => Task::built_in(&name)
            .unwrap_or_else(|| refuse("task_name", format!("must be one of {}", BUILT_IN.join(", ")))),
        Some(TaskSource::Task(task)) => own_task(task, found),
    }
}

/// What can be read of a task; the rest is that of [`Task::stand_in`].
fn own_task(message: v1::Task, found: &mut Vec<Violation>) -> Task {
    let stand_in = Task::stand_in();
    let mut keep = |violations: Vec<Violation>| found.extend(violations);
    let shape = Named::required("task.answer_shape", message.answer_shape).map_err(&mut keep);
    let metric = Named::required("task.metric", message.metric).map_err(&mut keep);
    let kind = present("task.labels", message.labels.and_then(|labels| labels.kind)).map_err(&mut keep);
    Task {
        name: message.name,
        instruction: message.instruction,
        template: message.template,
        exemplars: message.exemplars.into_iter().map(Into::into).collect(),
        stop: message.stop,
        answer: AnswerPattern {
            marker: message.answer_marker,
            shape: shape.unwrap_or(stand_in.answer.shape),
        },
        labels: match kind {
            Ok(label_set::Kind::Closed(closed)) => LabelSet::Closed(closed.labels),
            Ok(label_set::Kind::Choices(_)) => LabelSet::Choices,
            Ok(label_set::Kind::Open(_)) | Err(()) => LabelSet::Open,
        },
        metric: metric.unwrap_or(stand_in.metric),
        tokens_max: if message.tokens_max == 0 { stand_in.tokens_max } else { message.tokens_max },
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

impl From<Spec> for v1::DistillationSpec {
    fn from(spec: Spec) -> Self {
        let draft = Draft::from(spec);
        Self {
            name: draft.name,
            task_source: Some(TaskSource::Task(draft.task.into())),
            teacher: Some(draft.teacher.into()),
            judging: Some(draft.judging.into()),
            student: Some(draft.student.into()),
            training: Some(draft.training.into()),
        }
    }
}

/// A section of settings, as the message `M`.
pub(crate) trait Section<M> {
    /// What can be read of the message, a hole for the rest; mistakes are added to `found`.
    fn read(message: M, found: &mut Vec<Violation>) -> Self;
}

/// A setting that may be absent, as the field `M` of a message.
trait Setting<M>: Sized {
    /// Reads the field of the message.
    fn read(field: &str, message: M) -> Checked<Option<Self>>;
    /// Writes the field of the message.
    fn write(value: Option<Self>) -> M;
}

impl<T: Named> Setting<i32> for T {
    fn read(field: &str, message: i32) -> Checked<Option<Self>> {
        Named::read(field, message)
    }

    fn write(value: Option<Self>) -> i32 {
        value.map_or(0, Named::number)
    }
}

impl Setting<String> for String {
    fn read(_: &str, message: String) -> Checked<Option<Self>> {
        Ok(Some(message).filter(|text| !text.is_empty()))
    }

    fn write(value: Option<Self>) -> String {
        value.unwrap_or_default()
    }
}

impl Setting<Self> for Vec<String> {
    fn read(_: &str, message: Self) -> Checked<Option<Self>> {
        Ok(Some(message).filter(|texts| !texts.is_empty()))
    }

    fn write(value: Option<Self>) -> Self {
        value.unwrap_or_default()
    }
}

macro_rules! plain_settings {
    ($($type:ty),+) => {
        $(impl Setting<Option<$type>> for $type {
            fn read(_: &str, message: Option<$type>) -> Checked<Option<Self>> {
                Ok(message)
            }

            fn write(value: Option<Self>) -> Option<$type> {
                value
            }
        })+
    };
}

plain_settings!(bool, f64, u32, u64);

impl Setting<Option<v1::Budget>> for Budget {
    fn read(_: &str, message: Option<v1::Budget>) -> Checked<Option<Self>> {
        message.map(Self::try_from).transpose()
    }

    fn write(value: Option<Self>) -> Option<v1::Budget> {
        value.map(Into::into)
    }
}

/// Converts the section `$section`, field by field, from its message and into it.
macro_rules! section {
    ([$section:literal, $draft:ident, $message:ident] $($field:ident)+) => {
        impl Section<v1::$message> for $draft {
            fn read(message: v1::$message, found: &mut Vec<Violation>) -> Self {
                Self {
                    $($field: Setting::read(concat!($section, ".", stringify!($field)), message.$field)
                        .unwrap_or_else(|violations| {
                            found.extend(violations);
                            None
                        }),)+
                }
            }
        }

        impl TryFrom<v1::$message> for $draft {
            type Error = Vec<Violation>;

            fn try_from(message: v1::$message) -> Checked<Self> {
                let mut found = Vec::new();
                let draft = Section::read(message, &mut found);
                if found.is_empty() { Ok(draft) } else { Err(found) }
            }
        }

        impl From<$draft> for v1::$message {
            fn from(draft: $draft) -> Self {
                Self { $($field: Setting::write(draft.$field)),+ }
            }
        }
    };
}

domain::teacher_fields!(section "teacher", TeacherDraft, TeacherSpec);
domain::budget_fields!(section "teacher.budget", Budget, Budget);
domain::judging_fields!(section "judging", JudgingDraft, JudgingSpec);
domain::student_fields!(section "student", StudentDraft, StudentSpec);
domain::training_fields!(section "training", TrainingDraft, TrainingSpec);

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
    fn mistakes_of_the_message_and_of_its_values_are_named_together() {
        let mut message = v1::DistillationSpec::from(draft().resolve().unwrap());
        message.name = "../up".into();
        let Some(TaskSource::Task(task)) = &mut message.task_source else { panic!() };
        (task.metric, task.answer_marker) = (99, String::new());
        message.teacher.as_mut().unwrap().samples = Some(0);
        message.judging.as_mut().unwrap().label = 99;
        message.training.as_mut().unwrap().alpha = Some(2.0);
        let fields: Vec<String> =
            Spec::try_from(message).unwrap_err().into_iter().map(|violation| violation.field).collect();
        let wanted = [
            "task.metric",
            "judging.label",
            "name",
            "task.answer.marker",
            "teacher.samples",
            "training.alpha",
        ];
        assert!(wanted.iter().all(|field| fields.iter().any(|found| found == field)), "{fields:?}");
    }

    #[test]
    fn an_empty_specification_names_what_is_missing() {
        let fields: Vec<String> = Spec::try_from(v1::DistillationSpec::default())
            .unwrap_err()
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        assert_eq!(fields, ["task", "name"]);
    }
}
