//! Whether a student's rationales can be trusted: beside accuracy, never folded into it.

use super::answers::{Answered, Answers, Asked, rounded, share};
use crate::example::Example;
use crate::label::{self, Comparison, normalise};
use crate::task::Task;
use crate::{equation, width::narrow};
use serde::Serialize;
use std::collections::HashMap;

/// What the rationales of a setting's students are like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trust {
    /// How many rationales were looked at, of all students together.
    pub rationales: u64,
    /// The share of them that comes to a label of its own.
    pub concluding: f64,
    /// The share of those whose label is the one that the student predicts; `None` where there are none.
    pub agreeing: Option<f64>,
    /// How much of their words they have in common with the teacher's of the same row (the F1 of single words), on average;
    /// `None` where no row has both.
    pub overlap: Option<f64>,
    /// Words of a rationale, on average.
    pub words: f64,
}

impl Answered {
    /// Adds a rationale, and whether what it comes to is the predicted label.
    #[must_use]
    pub fn explained(self, task: &Task, example: &Example, rationale: String) -> Self {
        let concludes = conclusion(task, example, &rationale);
        let agrees =
            concludes.as_ref().map(|concludes| label::same(task.metric, concludes, &self.prediction));
        Self { rationale: Some(rationale), concludes, agrees, ..self }
    }
}

/// The label that a rationale comes to by itself: of a set, the one that it names last; of an equation, the last expression with
/// an operator, or what stands behind the last `=`. `None` where it names none, and for labels of any text.
pub fn conclusion(task: &Task, example: &Example, rationale: &str) -> Option<String> {
    match (task.label_set(example), task.metric) {
        (Some(set), _) if !set.is_empty() => named_last(set, rationale),
        (_, Comparison::Equation) => last_expression(rationale),
        _ => None,
    }
}

fn named_last(set: &[String], rationale: &str) -> Option<String> {
    let text = normalise(rationale);
    fn last<'a>(text: &str, name: &'a String) -> Option<(usize, usize, &'a String)> {
        let wanted = normalise(name);
        let is_word = |(start, _): &(usize, &str)| {
            let end = start + wanted.len();
            let before = text.get(..*start).and_then(|before| before.chars().next_back());
            let after = text.get(end..).and_then(|after| after.chars().next());
            !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
        };
        if wanted.is_empty() {
            return None;
        }
        let (start, _) = text.rmatch_indices(wanted.as_str()).find(is_word)?;
        Some((start + wanted.len(), wanted.len(), name))
    }
    // Of two that end together (`a` in `not a`), the longer one was meant.
    set.iter()
        .filter_map(|name| last(&text, name))
        .max_by_key(|(end, length, _)| (*end, *length))
        .map(|(_, _, name)| name.clone())
}

fn last_expression(rationale: &str) -> Option<String> {
    let is_part = |letter: char| letter.is_ascii_digit() || " .,+-*/()=×÷−".contains(letter);
    let plain: String = rationale.chars().map(narrow).collect();
    plain.split(|letter| !is_part(letter)).rev().find_map(|run| {
        let (before, last) = run.rsplit_once('=').map_or((None, run), |(before, last)| (Some(before), last));
        let last = last.trim().trim_end_matches(['.', ',']).trim();
        let counts = before.is_some()
            || last.trim_start_matches(['-', '−']).contains(['+', '-', '*', '/', '×', '÷', '−']);
        (counts && equation::value(last).is_some()).then(|| last.to_owned())
    })
}

impl Trust {
    /// Of the students of one setting; `None` where they wrote no rationale.
    pub(super) fn of(cells: &[&Answers], teacher: Option<&Asked>) -> Option<Self> {
        let theirs: HashMap<u64, &str> = teacher
            .into_iter()
            .flat_map(|asked| &asked.rows)
            .filter_map(|row| Some((row.row, row.rationale.as_deref()?)))
            .collect();
        let explained = || cells.iter().flat_map(|cell| &cell.rows).filter(|row| row.rationale.is_some());
        let rationales = explained().count() as u64;
        if rationales == 0 {
            return None;
        }
        let concluding = explained().filter(|row| row.concludes.is_some()).count() as u64;
        let agreeing = explained().filter(|row| row.agrees == Some(true)).count() as u64;
        let overlaps: Vec<f64> = explained()
            .filter_map(|row| Some(overlap(row.rationale.as_deref()?, theirs.get(&row.row)?)))
            .collect();
        let words: u64 = explained()
            .filter_map(|row| Some(row.rationale.as_deref()?.split_whitespace().count() as u64))
            .sum();
        let mean = |values: &[f64]| rounded(values.iter().sum::<f64>() / values.len().max(1) as f64);
        Some(Self {
            rationales,
            concluding: share(concluding, rationales),
            agreeing: (concluding > 0).then(|| share(agreeing, concluding)),
            overlap: (!overlaps.is_empty()).then(|| mean(&overlaps)),
            words: share(words, rationales),
        })
    }
}

/// The F1 of the words of two texts, each as often as it occurs in both.
fn overlap(one: &str, other: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let text = normalise(text);
        let word = |word: &str| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned();
        text.split_whitespace().map(word).filter(|word| !word.is_empty()).collect()
    };
    let (one, other) = (words(one), words(other));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &other {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0_usize;
    for word in &one {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    let all = one.len() + other.len();
    if all == 0 { 1.0 } else { 2.0 * common as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(choices: &[&str]) -> (Task, Example) {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        (Task::built_in("choice").unwrap(), Example { choices, ..Example::default() })
    }

    #[test]
    fn a_rationale_comes_to_what_it_names_last() {
        let check = |choices: &[&str], rationale: &str, expected: Option<&str>| {
            let (task, example) = choice(choices);
            assert_eq!(conclusion(&task, &example, rationale).as_deref(), expected, "{rationale}");
        };
        check(&["yes", "no"], "Not no, so Yes.", Some("yes"));
        check(&["yes", "no"], "Nobody eyes it.", None);
        check(&["Ann", "Bob"], "Ann 3, Bob 5: Bob", Some("Bob"));
        check(&["river", "dry river"], "It is a dry river.", Some("dry river"));
        check(&["été", "hiver"], "Il fait chaud, donc ÉTÉ.", Some("été"));
        check(&[], "river", None);
        let equation = |rationale: &str, expected: Option<&str>| {
            let task = Task::built_in("equation").unwrap();
            assert_eq!(conclusion(&task, &Example::default(), rationale).as_deref(), expected, "{rationale}");
        };
        equation("He had 5 and lost 3, 5 - 3 = 2.", Some("2"));
        equation("We add (30 + 12).", Some("(30 + 12)"));
        equation("We add 30 and 12.", None);
        equation("He is at -4.", None);
        equation("It is 5 ÷ 0, and 8×2 before", Some("8×2"));
    }

    #[test]
    fn agreement_is_with_the_predicted_label() {
        let (task, example) = choice(&["yes", "no"]);
        let answered = Answered {
            row: 1,
            gold: "no".into(),
            prediction: "Yes".into(),
            right: false,
            ..Answered::default()
        };
        let said = |rationale: &str| answered.clone().explained(&task, &example, rationale.to_owned());
        assert_eq!(
            (said("So yes.").agrees, said("So no.").agrees, said("So.").agrees),
            (Some(true), Some(false), None)
        );
        let equation = Answered { prediction: "(5 - 3)".into(), ..Answered::default() };
        let task = Task::built_in("equation").unwrap();
        let said = equation.explained(&task, &Example::default(), "5 - 3 = 2".into());
        assert_eq!((said.concludes.as_deref(), said.agrees), (Some("2"), Some(true)));
    }

    #[test]
    fn words_in_common_are_counted_as_often_as_both_have_them() {
        assert!((overlap("a b b.", "B c, b") - 4.0 / 6.0).abs() < 1e-12);
        assert!((overlap("", "") - 1.0).abs() < 1e-12);
        assert!(overlap("a", "") < 1e-12);
    }
}
