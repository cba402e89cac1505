//! What the student writes, by objective, and how it is read back. The trainer composes, trainer and inference split.

use crate::spec::Objective;

/// What stands between rationale and label in a `rationale_then_label` target.
pub const RATIONALE_THEN_LABEL: &str = " So the answer is: ";
/// What stands between label and rationale in a `label_then_rationale` target.
pub const LABEL_THEN_RATIONALE: &str = " Because: ";

/// A student's `predict: ` output, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The label; empty where none could be read.
    pub label: String,
    /// The rationale, for the objectives that write it beside the label.
    pub rationale: Option<String>,
}

/// The `predict: ` target of a row. A row without a rationale trains the label alone, under every objective.
pub fn compose(objective: Objective, rationale: Option<&str>, label: &str) -> String {
    match (objective, rationale) {
        (Objective::RationaleThenLabel, Some(rationale)) => {
            format!("{rationale}{RATIONALE_THEN_LABEL}{label}")
        }
        (Objective::LabelThenRationale, Some(rationale)) => {
            format!("{label}{LABEL_THEN_RATIONALE}{rationale}")
        }
        (Objective::Standard | Objective::StepByStep, _) | (_, None) => label.to_owned(),
    }
}

/// Reads a `predict: ` output. The separator is looked for without its outer spaces, which tokenizers may not keep.
pub fn split(objective: Objective, text: &str) -> Read {
    let parts = match objective {
        Objective::RationaleThenLabel => {
            text.rsplit_once(RATIONALE_THEN_LABEL.trim()).map(|(rationale, label)| (label, rationale))
        }
        Objective::LabelThenRationale => text.split_once(LABEL_THEN_RATIONALE.trim()),
        Objective::Standard | Objective::StepByStep => None,
    };
    match parts {
        Some((label, rationale)) => {
            Read { label: label.trim().to_owned(), rationale: Some(rationale.trim().to_owned()) }
        }
        None => Read { label: text.trim().to_owned(), rationale: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_is_read_back() {
        for objective in Objective::ALL {
            let text = compose(*objective, Some("Two and two."), "( 2 + 2 )");
            let read = split(*objective, &text);
            assert_eq!(read.label, "( 2 + 2 )", "{objective}");
            let joined = matches!(objective, Objective::RationaleThenLabel | Objective::LabelThenRationale);
            assert_eq!(read.rationale.as_deref(), joined.then_some("Two and two."), "{objective}");
            assert_eq!(split(*objective, &compose(*objective, None, "4")).label, "4");
        }
    }
}
