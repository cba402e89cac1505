//! What a student is trained to write, and how its answer is read back: everything that depends on the objective.
//!
//! To add an objective: one value in [`Objective`], one arm in each function below that the compiler asks for, one line
//! in `spec.proto`, and one case in the tests of this file. Trainer, evaluation, inference, harvester and the
//! specification call these functions and match on no objective themselves.

use crate::example::{Example, Row};
use crate::named::named;
use crate::task::Task;

/// The task prefix under which the student answers with a label.
pub const PREFIX_PREDICT: &str = "predict: ";
/// The task prefix under which the student writes a rationale.
pub const PREFIX_EXPLAIN: &str = "explain: ";

/// What stands between rationale and label in a `rationale_then_label` target.
const RATIONALE_THEN_LABEL: &str = " So the answer is: ";
/// What stands between label and rationale in a `label_then_rationale` target.
const LABEL_THEN_RATIONALE: &str = " Because: ";

named!(
    /// What the student is trained to write.
    Objective {
        /// The label only: ordinary fine-tuning.
        Standard = "standard",
        /// Label and rationale as two tasks (Hsieh et al. 2023).
        StepByStep = "step_by_step",
        /// One target: rationale, then label.
        RationaleThenLabel = "rationale_then_label",
        /// One target: label, then rationale.
        LabelThenRationale = "label_then_rationale",
    }
);

/// An accepted rationale of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedRationale {
    /// The sample that it is.
    pub sample: u32,
    /// The chain of thought.
    pub text: String,
    /// The label it argues for.
    pub label: String,
    /// Its share in the row's rationale loss.
    pub weight: f64,
}

/// What a trainer reads of a row: rows in order of index, rationales in order of sample.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingExample {
    /// The row.
    pub row: Row,
    /// The label that the student learns, by the run's `judging.label`; `None` where there is none.
    pub target: Option<String>,
    /// Its accepted rationales; none for rows that were not asked, or whose answers were rejected.
    pub rationales: Vec<AcceptedRationale>,
}

/// One thing to learn: read `source`, write `target`.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// What the student reads, with its task prefix.
    pub source: String,
    /// What it writes.
    pub target: String,
    /// Its weight in its loss.
    pub weight: f64,
}

/// Everything that a row trains.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Texts {
    /// Under `predict: `; several where several rationales are composed with the label. They make L_label.
    pub labels: Vec<Text>,
    /// Under `explain: `; none unless the objective [explains separately](Objective::explains_separately). They make
    /// L_rationale.
    pub rationales: Vec<Text>,
}

/// A student's `predict: ` output, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The label; empty where none could be read.
    pub label: String,
    /// The rationale, for the objectives that write it next to the label.
    pub rationale: Option<String>,
}

/// What the student reads to label `example`.
pub fn predict_source(task: &Task, example: &Example) -> String {
    format!("{PREFIX_PREDICT}{}", task.student_input(example))
}

/// What the student reads to explain `example`.
pub fn explain_source(task: &Task, example: &Example) -> String {
    format!("{PREFIX_EXPLAIN}{}", task.student_input(example))
}

impl Objective {
    /// The objective of a specification that names none.
    pub fn default_for(has_teacher: bool) -> Self {
        if has_teacher { Self::StepByStep } else { Self::Standard }
    }

    /// Whether a `predict: ` answer is a label and nothing else, so that a closed set of labels can be scored.
    pub fn writes_label_alone(self) -> bool {
        match self {
            Self::Standard | Self::StepByStep => true,
            Self::RationaleThenLabel | Self::LabelThenRationale => false,
        }
    }

    /// Whether training needs accepted rationales.
    pub fn needs_rationales(self) -> bool {
        match self {
            Self::Standard => false,
            Self::StepByStep | Self::RationaleThenLabel | Self::LabelThenRationale => true,
        }
    }

    /// Whether rationales are a task of their own, under `explain: `, with a loss of their own.
    pub fn explains_separately(self) -> bool {
        match self {
            Self::StepByStep => true,
            Self::Standard | Self::RationaleThenLabel | Self::LabelThenRationale => false,
        }
    }

    /// The texts that `example` trains. A row without accepted rationales trains the label alone under every objective;
    /// a row without a label trains no label text.
    pub fn compose(self, task: &Task, example: &TrainingExample) -> Texts {
        let mut texts = Texts::default();
        if let Some(label) = &example.target {
            let source = predict_source(task, &example.row.example);
            let text = |target: String, weight: f64| Text { source: source.clone(), target, weight };
            if !self.writes_label_alone() {
                let composed = |rationale: &AcceptedRationale| {
                    text(self.predict_target(&rationale.text, label), rationale.weight)
                };
                texts.labels.extend(example.rationales.iter().map(composed));
            }
            if texts.labels.is_empty() {
                texts.labels.push(text(label.clone(), 1.0));
            }
        }
        if self.explains_separately() {
            texts.rationales.extend(example.rationales.iter().map(|rationale| Text {
                source: explain_source(task, &example.row.example),
                target: rationale.text.clone(),
                weight: rationale.weight,
            }));
        }
        texts
    }

    /// The `predict: ` target of a row with a rationale.
    fn predict_target(self, rationale: &str, label: &str) -> String {
        match self {
            Self::Standard | Self::StepByStep => label.to_owned(),
            Self::RationaleThenLabel => format!("{rationale}{RATIONALE_THEN_LABEL}{label}"),
            Self::LabelThenRationale => format!("{label}{LABEL_THEN_RATIONALE}{rationale}"),
        }
    }

    /// Reads a `predict: ` output. The separator is searched without its outer spaces, which tokenizers may not keep.
    pub fn split(self, text: &str) -> Read {
        let parts = match self {
            Self::Standard | Self::StepByStep => None,
            Self::RationaleThenLabel => {
                text.rsplit_once(RATIONALE_THEN_LABEL.trim()).map(|(rationale, label)| (label, rationale))
            }
            Self::LabelThenRationale => text.split_once(LABEL_THEN_RATIONALE.trim()),
        };
        let (label, rationale) = parts.map_or((text, None), |(label, rationale)| (label, Some(rationale)));
        Read { label: label.trim().to_owned(), rationale: rationale.map(|text| text.trim().to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(rationales: usize) -> TrainingExample {
        let rationale =
            AcceptedRationale { sample: 0, text: "Two twos.".into(), label: "4".into(), weight: 0.5 };
        TrainingExample {
            row: Row { index: 0, example: Example { input: "2 + 2?".into(), ..Example::default() } },
            target: Some("4".into()),
            rationales: vec![rationale; rationales],
        }
    }

    fn texts(objective: Objective, example: &TrainingExample) -> Texts {
        objective.compose(&Task::built_in("equation").unwrap(), example)
    }

    fn check(objective: Objective, rationales: usize, labels: &[&str], explained: usize) {
        let texts = texts(objective, &example(rationales));
        let found: Vec<&str> = texts.labels.iter().map(|text| text.target.as_str()).collect();
        assert_eq!(found, labels, "{objective}");
        assert!(texts.labels.iter().all(|text| text.source == "predict: 2 + 2?"));
        assert_eq!(texts.rationales.len(), explained, "{objective}");
        assert!(texts.rationales.iter().all(|text| text.source == "explain: 2 + 2?" && text.weight == 0.5));
    }

    #[test]
    fn each_objective_has_its_texts() {
        check(Objective::Standard, 1, &["4"], 0);
        check(Objective::StepByStep, 2, &["4"], 2);
        check(Objective::StepByStep, 0, &["4"], 0);
        check(Objective::RationaleThenLabel, 1, &["Two twos. So the answer is: 4"], 0);
        check(Objective::LabelThenRationale, 1, &["4 Because: Two twos."], 0);
        check(Objective::LabelThenRationale, 2, &["4 Because: Two twos."; 2], 0);
        check(Objective::LabelThenRationale, 0, &["4"], 0);
    }

    #[test]
    fn a_row_without_a_label_trains_its_rationales_alone() {
        for objective in Objective::ALL {
            let texts = texts(*objective, &TrainingExample { target: None, ..example(2) });
            assert_eq!(texts.labels, [], "{objective}");
            assert_eq!(texts.rationales.len(), if objective.explains_separately() { 2 } else { 0 });
        }
    }

    #[test]
    fn what_is_composed_is_read_back() {
        for objective in Objective::ALL {
            for rationales in [0, 1] {
                let texts = texts(*objective, &example(rationales));
                let read = objective.split(&texts.labels[0].target);
                assert_eq!(read.label, "4", "{objective}");
                let joined = rationales > 0 && !objective.writes_label_alone();
                assert_eq!(read.rationale.as_deref(), joined.then_some("Two twos."), "{objective}");
            }
        }
    }

    #[test]
    fn every_objective_is_documented() {
        assert_eq!(Objective::Standard.documentation(), "The label only: ordinary fine-tuning.");
        for objective in Objective::ALL {
            assert_ne!(objective.documentation(), "", "{objective}");
        }
    }
}
