//! What answers are worth, next to the labels of their rows.

use crate::answers::Answered;
use crate::report::{grouped, interval, percent};
use crate::terminal::table_text;
use domain::label::{normalise, same};
use domain::metric::Accuracy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most labels that a table of labels has: equations and free texts make none.
const LABELS_MAX: usize = 12;
/// What stands for rows without a label in the answer.
const NONE: &str = "(none)";

/// Answers to the rows that have a label.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Whether each answer is right, in the order of the rows.
    pub(crate) rights: Vec<bool>,
    parsed: u64,
    /// Why the first row that was not answered was not, and how many there are.
    refused: Option<(String, u64)>,
    /// Rows by their label and the answer's.
    counts: BTreeMap<(String, String), u64>,
}

impl Measured {
    /// Counts one answer, where its row has a label. A row that was not answered counts as wrong.
    pub(crate) fn add(&mut self, answered: &Answered) {
        let Some(gold) = answered.row.label.as_deref() else { return };
        let (label, right) = match &answered.answer {
            Ok(answer) => (answer.label.as_str(), same(answer.comparison, &answer.label, gold)),
            Err(error) => {
                self.refused.get_or_insert_with(|| (error.clone(), 0)).1 += 1;
                ("", false)
            }
        };
        self.rights.push(right);
        self.parsed += u64::from(!label.is_empty());
        // A right answer stands in the column of its row, however it is written.
        let answer = match (label, right) {
            ("", _) => NONE.to_owned(),
            (_, true) => normalise(gold),
            (label, false) => normalise(label),
        };
        *self.counts.entry((normalise(gold), answer)).or_default() += 1;
    }

    /// How many rows have a label.
    pub(crate) fn rows(&self) -> u64 {
        self.rights.len() as u64
    }

    /// The share of right answers.
    pub(crate) fn accuracy(&self) -> Accuracy {
        let correct = self.rights.iter().filter(|right| **right).count() as u64;
        Accuracy::measure(self.rows(), correct, self.parsed)
    }

    /// For people: the accuracy, and a table of the labels where there are few.
    pub(crate) fn lines(&self) -> String {
        let accuracy = self.accuracy();
        let mut text = format!(
            "accuracy {} (95% interval {}), {} rows, {} with a label in the answer",
            percent(accuracy.value()),
            interval(accuracy),
            grouped(accuracy.rows),
            grouped(accuracy.parsed),
        );
        if let Some((first, count)) = &self.refused {
            text.push_str(&format!(
                "\n{} rows were not answered and count as wrong: {first}",
                grouped(*count)
            ));
        }
        if let Some(table) = self.table() {
            text.push('\n');
            text.push_str(&table);
        }
        text
    }

    /// For scripts: what was measured, under the name `key` of the student, `name`.
    pub(crate) fn json(&self, key: &str, name: &str) -> Value {
        let accuracy = self.accuracy();
        let counts: Vec<Value> = self
            .counts
            .iter()
            .map(|((expected, label), rows)| {
                let label = (label != NONE).then_some(label);
                json!({"expected": expected, "label": label, "rows": rows})
            })
            .collect();
        let mut object = serde_json::Map::from_iter([(key.to_owned(), name.into())]);
        object.extend([
            ("rows".to_owned(), accuracy.rows.into()),
            ("correct".to_owned(), accuracy.correct.into()),
            ("parsed".to_owned(), accuracy.parsed.into()),
            ("accuracy".to_owned(), accuracy.value().into()),
            ("low".to_owned(), accuracy.low.into()),
            ("high".to_owned(), accuracy.high.into()),
            ("confusion".to_owned(), counts.into()),
        ]);
        object.into()
    }

    /// A row for each label, a column for each answer, and the share of right answers; `None` where there are too many labels.
    fn table(&self) -> Option<String> {
        let labels: BTreeSet<&str> = self.counts.keys().map(|(gold, _)| gold.as_str()).collect();
        let others: BTreeSet<&str> = self
            .counts
            .keys()
            .map(|(_, answer)| answer.as_str())
            .filter(|answer| !labels.contains(answer))
            .collect();
        let columns: Vec<&str> = labels.iter().chain(&others).copied().collect();
        if columns.len() > LABELS_MAX {
            return None;
        }
        let count = |gold: &str, answer: &str| {
            self.counts.get(&(gold.to_owned(), answer.to_owned())).copied().unwrap_or(0)
        };
        let mut header = vec!["label \\ answer"];
        header.extend(&columns);
        header.push("right");
        let rows = labels.iter().map(|gold| {
            let counts: Vec<u64> = columns.iter().map(|answer| count(gold, answer)).collect();
            let right = count(gold, gold) as f64 / counts.iter().sum::<u64>().max(1) as f64;
            let counts = counts.into_iter().map(grouped);
            std::iter::once((*gold).to_owned()).chain(counts).chain([percent(right)]).collect()
        });
        Some(table_text(&header, rows.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::student::Prediction;
    use domain::Example;
    use domain::label::Comparison;

    fn measured(comparison: Comparison, rows: &[(Option<&str>, Option<&str>)]) -> Measured {
        let mut measured = Measured::default();
        for (gold, label) in rows {
            let row = Example { label: gold.map(str::to_owned), ..Example::default() };
            let answer = label.ok_or_else(|| "too long".to_owned()).map(|label| Prediction {
                label: label.to_owned(),
                probabilities: Vec::new(),
                rationale: None,
                log_probability: 0.0,
                ask_teacher: false,
                comparison,
            });
            measured.add(&Answered { row, answer });
        }
        measured
    }

    #[test]
    fn answers_are_counted_by_label_and_answer() {
        let rows = [
            (Some("good"), Some("Good.")),
            (Some("good"), Some("bad")),
            (Some("bad"), Some("bad")),
            (Some("bad"), Some("")),
            (Some("bad"), None),
            (None, Some("good")),
        ];
        let measured = measured(Comparison::Text, &rows);
        assert_eq!(measured.rights, [true, false, true, false, false]);
        let accuracy = measured.accuracy();
        assert_eq!((accuracy.rows, accuracy.correct, accuracy.parsed), (5, 2, 3));
        let text = measured.lines();
        assert!(text.starts_with("accuracy 40.0% (95% interval "), "{text}");
        assert!(text.contains("1 rows were not answered and count as wrong: too long"), "{text}");
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().filter(|word| !word.contains('│')).collect())
            .collect();
        assert!(words.contains(&vec!["bad", "1", "0", "2", "33.3%"]), "{text}");
        assert!(words.contains(&vec!["good", "1", "1", "0", "50.0%"]), "{text}");
        let json = measured.json("model", "m");
        assert_eq!(json["confusion"][0], serde_json::json!({"expected": "bad", "label": null, "rows": 2}));
        assert_eq!(json["accuracy"], 0.4);
    }

    #[test]
    fn labels_are_compared_as_the_task_does_and_many_make_no_table() {
        let equations: Vec<String> = (0..20).map(|number| format!("{number} + 1")).collect();
        let rows: Vec<_> = equations.iter().map(|text| (Some(text.as_str()), Some(text.as_str()))).collect();
        let all = measured(Comparison::Equation, &rows);
        assert!(all.table().is_none());
        assert_eq!(all.lines().lines().count(), 1);
        assert_eq!(measured(Comparison::Equation, &[(Some("1 + 2"), Some("(2 + 1)"))]).rights, [true]);
        assert_eq!(measured(Comparison::Text, &[(Some("1 + 2"), Some("(2 + 1)"))]).rights, [false]);
        assert_eq!(measured(Comparison::Text, &[]).rows(), 0);
    }
}
