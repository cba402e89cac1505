//! Records: rows, datasets and models.

use crate::convert::{Checked, each, id, present, timestamp, timestamp_of, under};
use crate::enums::Named;
use crate::v1::{self, answer};
use domain::example::Row;
use domain::metric::Accuracy;
use domain::records::{BaseModel, Dataset, MetricPoint, Model};
use domain::{Answer, Example, Split, Violation};

impl TryFrom<v1::Example> for Example {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Example) -> Checked<Self> {
        let split = Split::read("split", message.split)?.unwrap_or_default();
        let answers = each("answers", message.answers, Answer::try_from)?;
        let example = Self {
            key: (!message.key.is_empty()).then_some(message.key),
            split,
            input: message.input,
            choices: message.choices,
            premise: message.premise,
            hypothesis: message.hypothesis,
            label: message.label,
            answers,
        };
        let violations = example.violations();
        if violations.is_empty() { Ok(example) } else { Err(violations) }
    }
}

impl From<Example> for v1::Example {
    fn from(example: Example) -> Self {
        Self {
            key: example.key.unwrap_or_default(),
            split: example.split.number(),
            input: example.input,
            choices: example.choices,
            premise: example.premise,
            hypothesis: example.hypothesis,
            label: example.label,
            answers: example.answers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Answer> for Answer {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Answer) -> Checked<Self> {
        let teacher = if message.teacher.is_empty() { "import".to_owned() } else { message.teacher };
        match present("content", message.content)? {
            answer::Content::Completion(text) => Ok(Self::Completion { teacher, text }),
            answer::Content::Rationale(text) => Ok(Self::Rationale { teacher, text, label: message.label }),
        }
    }
}

impl From<Answer> for v1::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Completion { teacher, text } => {
                Self { teacher, content: Some(answer::Content::Completion(text)), label: None }
            }
            Answer::Rationale { teacher, text, label } => {
                Self { teacher, content: Some(answer::Content::Rationale(text)), label }
            }
        }
    }
}

impl TryFrom<v1::Row> for Row {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Row) -> Checked<Self> {
        let example = present("example", message.example)?;
        Ok(Self { index: message.index, example: under("example", example.try_into())? })
    }
}

impl From<Row> for v1::Row {
    fn from(row: Row) -> Self {
        Self { index: row.index, example: Some(row.example.into()) }
    }
}

impl TryFrom<v1::Accuracy> for Accuracy {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Accuracy) -> Checked<Self> {
        let v1::Accuracy { rows, correct, parsed, low, high } = message;
        let sound =
            correct <= rows && parsed <= rows && (0.0..=1.0).contains(&low) && (low..=1.0).contains(&high);
        if sound {
            Ok(Self { rows, correct, parsed, low, high })
        } else {
            Err(vec![Violation::new(
                "accuracy",
                "has counts beyond its rows, or no interval between 0 and 1",
            )])
        }
    }
}

impl From<Accuracy> for v1::Accuracy {
    fn from(accuracy: Accuracy) -> Self {
        let Accuracy { rows, correct, parsed, low, high } = accuracy;
        Self { rows, correct, parsed, low, high }
    }
}

/// The measurement in `field`, where there is one.
fn accuracy_of(field: &str, message: Option<v1::Accuracy>) -> Checked<Option<Accuracy>> {
    message.map(|message| under(field, message.try_into())).transpose()
}

impl From<v1::MetricPoint> for MetricPoint {
    fn from(message: v1::MetricPoint) -> Self {
        Self { step: message.step, name: message.name, value: message.value }
    }
}

impl From<MetricPoint> for v1::MetricPoint {
    fn from(point: MetricPoint) -> Self {
        Self { step: point.step, name: point.name, value: point.value }
    }
}

impl TryFrom<v1::Dataset> for Dataset {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Dataset) -> Checked<Self> {
        Ok(Self {
            id: id("id", &message.id)?,
            name: message.name,
            state: Named::required("state", message.state)?,
            rows: message.rows,
            rows_by_split: [message.rows_train, message.rows_validation, message.rows_test],
            rows_labelled: message.rows_labelled,
            fingerprint: message.fingerprint,
            created_at: timestamp_of(message.created_at),
        })
    }
}

impl From<Dataset> for v1::Dataset {
    fn from(dataset: Dataset) -> Self {
        let [rows_train, rows_validation, rows_test] = dataset.rows_by_split;
        Self {
            id: dataset.id.to_string(),
            name: dataset.name,
            state: dataset.state.number(),
            rows: dataset.rows,
            rows_train,
            rows_validation,
            rows_test,
            rows_labelled: dataset.rows_labelled,
            fingerprint: dataset.fingerprint,
            created_at: Some(timestamp(dataset.created_at)),
        }
    }
}

impl TryFrom<v1::Model> for Model {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Model) -> Checked<Self> {
        Ok(Self {
            id: id("id", &message.id)?,
            name: message.name,
            version: message.version,
            distillation: id("distillation_id", &message.distillation_id)?,
            run: id("run_id", &message.run_id)?,
            path: message.path,
            manifest_sha256: message.manifest_sha256,
            parameters: message.parameters,
            validation: accuracy_of("validation", message.validation)?,
            test: accuracy_of("test", message.test)?,
            created_at: timestamp_of(message.created_at),
            traceparent: message.traceparent,
        })
    }
}

impl From<Model> for v1::Model {
    fn from(model: Model) -> Self {
        Self {
            id: model.id.to_string(),
            name: model.name,
            version: model.version,
            distillation_id: model.distillation.to_string(),
            run_id: model.run.to_string(),
            path: model.path,
            manifest_sha256: model.manifest_sha256,
            parameters: model.parameters,
            validation: model.validation.map(Into::into),
            test: model.test.map(Into::into),
            created_at: Some(timestamp(model.created_at)),
            traceparent: model.traceparent,
        }
    }
}

impl From<v1::BaseModel> for BaseModel {
    fn from(message: v1::BaseModel) -> Self {
        Self {
            name: message.name,
            manifest_sha256: message.manifest_sha256,
            created_at: timestamp_of(message.created_at),
        }
    }
}

impl From<BaseModel> for v1::BaseModel {
    fn from(base: BaseModel) -> Self {
        Self {
            name: base.name,
            manifest_sha256: base.manifest_sha256,
            created_at: Some(timestamp(base.created_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use domain::state::Verdict;
    use proptest::prelude::*;

    fn example() -> impl Strategy<Value = Example> {
        let text = "[a-zA-Z0-9 äß✓]{1,20}x";
        let answer =
            (text, proptest::option::of(text), proptest::bool::ANY).prop_map(|(text, label, raw)| {
                if raw {
                    Answer::Completion { teacher: "t".into(), text }
                } else {
                    Answer::Rationale { teacher: "t".into(), text, label }
                }
            });
        (
            text,
            proptest::option::of(text),
            proptest::collection::vec(text, 2..5),
            proptest::option::of(text),
            proptest::collection::vec(answer, 0..3),
            0..3_usize,
        )
            .prop_map(|(input, key, choices, label, answers, split)| Example {
                key,
                split: Split::ALL[split],
                input,
                choices,
                premise: None,
                hypothesis: None,
                label,
                answers,
            })
    }

    proptest! {
        #[test]
        fn rows_survive_the_wire(example in example(), index: u64) {
            let row = Row { index, example };
            prop_assert_eq!(Row::try_from(v1::Row::from(row.clone())), Ok(row));
        }

        #[test]
        fn no_number_of_an_enumeration_panics(number: i32) {
            let _ = Split::read("split", number);
            let _ = Verdict::read("verdict", number);
            let message = v1::Example { split: number, input: "x".into(), ..v1::Example::default() };
            prop_assert_eq!(Example::try_from(message).is_ok(), (0..=3).contains(&number));
        }
    }

    #[test]
    fn base_models_survive_the_wire() {
        let base = BaseModel { name: "t5".into(), manifest_sha256: "ab".into(), created_at: Timestamp(12) };
        assert_eq!(BaseModel::from(v1::BaseModel::from(base.clone())), base);
    }

    #[test]
    fn mistakes_of_rows_are_named_by_field() {
        let message = v1::Row {
            index: 0,
            example: Some(v1::Example { choices: vec!["one".into()], ..v1::Example::default() }),
        };
        let fields: Vec<String> =
            Row::try_from(message).unwrap_err().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["example.input", "example.choices"]);
    }
}
