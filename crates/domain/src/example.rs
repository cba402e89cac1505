//! One row of task data.

use crate::fault::Violation;
use crate::named::named;
use serde::{Deserialize, Serialize};

/// Longest text of one field of a row, in bytes. A longer one is refused with its row and field.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Longest row, in bytes of all its texts with the answers that came with it, so that it goes into one message with everything
/// that is made of it.
pub const ROW_BYTES_MAX: usize = 1024 * 1024;
/// Most choices of one row.
pub const CHOICES_MAX: usize = 26;

named!(
    /// Which part of a dataset a row belongs to.
    Split {
        /// The student learns from it.
        Train = "train",
        /// It selects the checkpoint.
        Validation = "validation",
        /// It is read once, at the end.
        Test = "test",
    }
);

/// A teacher's answer that came with the row: one of the paper's released completions, or a column of rationales.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// A raw completion, to be cut, parsed and judged by the task's rules.
    Completion {
        /// Who wrote it, such as `palm-540b`.
        teacher: String,
        /// The completion as it was released, run-on and all.
        text: String,
    },
    /// A rationale that argues for `label`, already cut.
    Rationale {
        /// Who wrote it; `import` where nothing is known.
        teacher: String,
        /// The rationale.
        text: String,
        /// The label it ends in; the row's own label where absent.
        label: Option<String>,
    },
}

/// One example: what the student reads, and the gold label where there is one.
///
/// Either `input` is not empty, or `premise` and `hypothesis` are both present.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Example {
    /// The caller's own id, unique in the dataset where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Which part of the dataset it belongs to.
    #[serde(default)]
    pub split: Split,
    /// The question or text; empty for premise and hypothesis pairs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// The options of a multiple-choice question, in order; empty for other tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The premise of a natural-language-inference pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub premise: Option<String>,
    /// The hypothesis of a natural-language-inference pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<String>,
    /// The gold label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Teachers' answers that came with the row; usually none or one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

/// An example with its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its index in the dataset, from 0.
    pub index: u64,
    /// The example itself.
    pub example: Example,
}

impl Default for Split {
    /// Rows without a split train.
    fn default() -> Self {
        Self::Train
    }
}

impl Example {
    /// Every mistake of this row by itself; fields are named as a user writes them (`input`, `choices[2]`).
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let pair = self.premise.is_some() || self.hypothesis.is_some();
        if pair && !self.input.is_empty() {
            found.push(Violation::new(
                "input",
                "a row has either `input`, or `premise` and `hypothesis`, not both",
            ));
        }
        if pair && (self.premise.is_none() || self.hypothesis.is_none()) {
            let absent = if self.premise.is_none() { "premise" } else { "hypothesis" };
            found.push(Violation::new(absent, "`premise` and `hypothesis` go together: add the absent one"));
        }
        if !pair && self.input.trim().is_empty() {
            found.push(Violation::new("input", "is empty: write the text that the student reads"));
        }
        if self.choices.len() == 1 || self.choices.len() > CHOICES_MAX {
            found.push(Violation::new(
                "choices",
                format!("has {} entries: give between 2 and {CHOICES_MAX}", self.choices.len()),
            ));
        }
        for (index, choice) in self.choices.iter().enumerate() {
            if choice.trim().is_empty() {
                found.push(Violation::new(format!("choices[{index}]"), "is empty: every choice needs text"));
            }
        }
        if self.label.as_deref().is_some_and(|label| label.trim().is_empty()) {
            found.push(Violation::new("label", "is empty: leave the field out where there is no gold label"));
        }
        self.push_long_fields(&mut found);
        found
    }

    /// Bytes of all texts of the row.
    pub fn bytes(&self) -> usize {
        self.texts().map(|(_, text)| text.len()).sum()
    }

    /// Every text with its field, as a user writes that.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [
            ("id", self.key.as_deref()),
            ("input", Some(self.input.as_str())),
            ("premise", self.premise.as_deref()),
            ("hypothesis", self.hypothesis.as_deref()),
            ("label", self.label.as_deref()),
        ];
        let choices = self.choices.iter().map(|choice| ("choices", Some(choice.as_str())));
        let answers = self.answers.iter().flat_map(|answer| {
            [
                ("rationale", Some(answer.text())),
                ("teacher", Some(answer.teacher())),
                ("label", answer.label()),
            ]
        });
        let texts = named.into_iter().chain(choices).chain(answers);
        texts.filter_map(|(field, text)| Some((field, text?)))
    }

    fn push_long_fields(&self, found: &mut Vec<Violation>) {
        for (field, text) in self.texts() {
            let bytes = text.len();
            if bytes > FIELD_BYTES_MAX {
                found.push(Violation::new(
                    field,
                    format!(
                        "is {bytes} bytes long: the limit is {FIELD_BYTES_MAX}; shorten it or split the row"
                    ),
                ));
            }
        }
        let bytes = self.bytes();
        if bytes > ROW_BYTES_MAX {
            let field = if self.answers.is_empty() { "choices" } else { "answers" };
            let message =
                format!("make the row {bytes} bytes long: the limit is {ROW_BYTES_MAX}; shorten or split it");
            found.push(Violation::new(field, message));
        }
    }
}

impl Answer {
    /// The words themselves: the completion or the rationale.
    pub fn text(&self) -> &str {
        match self {
            Self::Completion { text, .. } | Self::Rationale { text, .. } => text,
        }
    }

    /// The label that a rationale says it ends in.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Completion { .. } => None,
            Self::Rationale { label, .. } => label.as_deref(),
        }
    }

    /// Who wrote it.
    pub fn teacher(&self) -> &str {
        match self {
            Self::Completion { teacher, .. } | Self::Rationale { teacher, .. } => teacher,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(example: Example, fields: &[&str]) {
        let found: Vec<String> = example.violations().into_iter().map(|violation| violation.field).collect();
        assert_eq!(found, fields);
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        let input = || "2 + 2?".to_owned();
        check(Example { input: input(), ..Example::default() }, &[]);
        check(Example::default(), &["input"]);
        check(Example { premise: Some("a".into()), ..Example::default() }, &["hypothesis"]);
        check(Example { premise: Some("a".into()), hypothesis: Some("b".into()), ..Example::default() }, &[]);
        check(
            Example {
                input: input(),
                premise: Some("a".into()),
                hypothesis: Some("b".into()),
                ..Example::default()
            },
            &["input"],
        );
        check(Example { input: input(), choices: vec!["a".into()], ..Example::default() }, &["choices"]);
        check(
            Example { input: input(), choices: vec!["a".into(), " ".into()], ..Example::default() },
            &["choices[1]"],
        );
        check(Example { input: input(), label: Some(String::new()), ..Example::default() }, &["label"]);
        check(Example { input: "x".repeat(FIELD_BYTES_MAX + 1), ..Example::default() }, &["input"]);
        let answer = |teacher: String, label: Option<String>| {
            vec![Answer::Rationale { teacher, text: "One.".into(), label }]
        };
        let long = || "x".repeat(FIELD_BYTES_MAX + 1);
        check(Example { input: input(), answers: answer(long(), None), ..Example::default() }, &["teacher"]);
        check(
            Example { input: input(), answers: answer("a".into(), Some(long())), ..Example::default() },
            &["label"],
        );
        let choices = |count: usize| vec!["x".repeat(FIELD_BYTES_MAX); count];
        check(Example { input: input(), choices: choices(15), ..Example::default() }, &[]);
        check(Example { input: input(), choices: choices(16), ..Example::default() }, &["choices"]);
        let mut rationales = answer("x".repeat(FIELD_BYTES_MAX), None);
        rationales.extend(std::iter::repeat_n(rationales[0].clone(), 15));
        check(Example { input: input(), answers: rationales, ..Example::default() }, &["answers"]);
    }
}
