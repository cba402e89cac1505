//! What a row trains: its texts under each objective, before the tokenizer.

use domain::Task;
use domain::records::TrainingExample;
use domain::spec::Objective;
use domain::target::compose;
use domain::task::{PREFIX_EXPLAIN, PREFIX_PREDICT};

/// One thing to learn: read `source`, write `target`.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// What the student reads, with its task prefix.
    pub source: String,
    /// What it writes.
    pub target: String,
    /// Its share in its loss.
    pub weight: f64,
}

/// The label text of a row, and its rationale texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Texts {
    /// Under `predict: `; several where several rationales are composed with the label.
    pub labels: Vec<Text>,
    /// Under `explain: `; only step by step.
    pub rationales: Vec<Text>,
}

/// What `example` trains under `objective`.
pub fn texts(objective: Objective, task: &Task, example: &TrainingExample) -> Texts {
    let input = task.student_input(&example.row.example);
    let predict = format!("{PREFIX_PREDICT}{input}");
    let label = |target: String, weight: f64| Text { source: predict.clone(), target, weight };
    let mut texts = Texts::default();
    match objective {
        Objective::Standard | Objective::StepByStep => {
            texts.labels.extend(example.target.as_ref().map(|target| label(target.clone(), 1.0)));
        }
        Objective::RationaleThenLabel | Objective::LabelThenRationale => {
            let Some(target) = &example.target else { return texts };
            let composed = example
                .rationales
                .iter()
                .map(|rationale| label(compose(objective, Some(&rationale.text), target), rationale.weight));
            texts.labels.extend(composed);
            if texts.labels.is_empty() {
                texts.labels.push(label(target.clone(), 1.0));
            }
        }
    }
    if objective == Objective::StepByStep {
        texts.rationales.extend(example.rationales.iter().map(|rationale| Text {
            source: format!("{PREFIX_EXPLAIN}{input}"),
            target: rationale.text.clone(),
            weight: rationale.weight,
        }));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Example;
    use domain::records::{AcceptedRationale, Row};

    fn check(objective: Objective, rationales: usize, labels: &[&str], explained: usize) {
        let example = TrainingExample {
            row: Row { index: 0, example: Example { input: "2 + 2?".into(), ..Example::default() } },
            target: Some("4".into()),
            rationales: vec![
                AcceptedRationale { text: "Two twos.".into(), label: "4".into(), weight: 0.5 };
                rationales
            ],
        };
        let texts = texts(objective, &Task::built_in("equation").unwrap(), &example);
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
        check(Objective::LabelThenRationale, 0, &["4"], 0);
    }
}
