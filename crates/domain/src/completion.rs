//! Cutting and reading completions. Never fails and never panics, whatever a completion holds.

use crate::equation;
use crate::example::{Answer, Example};
use crate::fault::Violation;
use crate::label::{Comparison, normalise};
use crate::named::named;
use crate::state::Reason;
use crate::task::{AnswerShape, Task};

named!(
    /// Why a completion ended.
    FinishReason {
        /// At a stop sequence or the end of text.
        Stop = "stop",
        /// At the limit of tokens.
        Length = "length",
        /// A content filter cut it.
        ContentFilter = "content_filter",
    }
);

/// A completion as the task reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The chain of thought before the marker; empty where none was read.
    pub rationale: String,
    /// The label after the marker; `None` where none was read.
    pub label: Option<String>,
    /// Why it cannot be used, where it cannot.
    pub reason: Option<Reason>,
}

/// How a teacher begins that will not answer; looked for only where there is no answer.
const REFUSALS: &[&str] =
    &["i'm sorry", "i’m sorry", "i am sorry", "sorry,", "i cannot", "i can't", "i can’t", "as an ai"];

/// Words that join a rationale to an answer, and are left over where the marker does not include them.
const CONNECTIVES: &[&str] = &["so", "thus", "therefore", "hence", "then"];

/// Reads a completion of `example`: cut at the task's stop sequences, then rationale and label around the marker.
///
/// The rules are those of the paper's released code, read with care:
/// - the text ends at the first stop sequence in it, so that a run-on completion is read like one that was stopped;
/// - the marker must stand exactly once before that, else [`Reason::NoAnswer`] (or [`Reason::Refused`], where the words
///   are a refusal);
/// - an expression is everything after the marker, a text or a lettered choice the rest of its line; a final full stop
///   is removed;
/// - a label in the set is returned as the set writes it; one outside is kept as the teacher wrote it, with
///   [`Reason::LabelNotInSet`]. The set of an equation task is every expression that has a value; a row without choices
///   has an open set.
///
/// A completion that reached its token limit is [`Reason::Truncated`], unless a stop sequence stands in it: what comes
/// before that is whole.
pub fn parse(task: &Task, example: &Example, text: &str, finish_reason: FinishReason) -> Parsed {
    let (kept, stopped) = cut(text, &task.stop);
    match finish_reason {
        FinishReason::ContentFilter => return unread(Reason::Refused),
        FinishReason::Length if !stopped => return unread(Reason::Truncated),
        FinishReason::Length | FinishReason::Stop => {}
    }
    let Some((before, after)) = around(kept, &task.answer.marker) else {
        return unread(if is_refusal(kept) { Reason::Refused } else { Reason::NoAnswer });
    };
    let set = task.label_set(example).unwrap_or_default();
    match written_label(task.answer.shape, set, after) {
        Some(label) => judge_label(task, set, without_connective(before), &label),
        None => unread(Reason::NoAnswer),
    }
}

/// Exemplars that the task's own rules cannot read: they teach the teacher to write completions that are rejected.
pub fn exemplar_violations(task: &Task) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, exemplar) in task.exemplars.iter().enumerate() {
        let text = format!("{}\n{} {}.", exemplar.rationale, task.answer.marker, exemplar.label);
        if let Some(reason) = parse(task, &exemplar.example(), &text, FinishReason::Stop).reason {
            found.push(Violation::new(
                format!("task.exemplars[{index}]"),
                format!(
                    "would be rejected as `{reason}` if the teacher wrote it: correct its rationale or label"
                ),
            ));
        }
    }
    found
}

/// Reads an answer that came with the data. A rationale is taken as it is, and argues for the row's own label where it
/// names none; where there is neither, it is [`Reason::NoAnswer`].
pub fn parse_imported(task: &Task, example: &Example, answer: &Answer) -> Parsed {
    match answer {
        Answer::Completion { text, .. } => parse(task, example, text, FinishReason::Stop),
        Answer::Rationale { text, label, .. } => match label.as_ref().or(example.label.as_ref()) {
            Some(label) => {
                let set = task.label_set(example).unwrap_or_default();
                judge_label(task, set, text.trim(), label.trim())
            }
            None => Parsed { rationale: text.trim().to_owned(), label: None, reason: Some(Reason::NoAnswer) },
        },
    }
}

/// The label after the marker in the teacher's own words, whether or not the set has it so; `None` where [`parse`] reads
/// none. For figures that compare text to the letter.
pub fn label_as_written(task: &Task, example: &Example, text: &str) -> Option<String> {
    let (_, after) = around(cut(text, &task.stop).0, &task.answer.marker)?;
    written_label(task.answer.shape, task.label_set(example).unwrap_or_default(), after)
}

/// `text` up to the first of `stops` in it, and whether there is one.
pub fn cut<'a>(text: &'a str, stops: &[String]) -> (&'a str, bool) {
    let first = stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.split_once(stop.as_str()))
        .min_by_key(|(before, _)| before.len());
    first.map_or((text, false), |(before, _)| (before, true))
}

fn unread(reason: Reason) -> Parsed {
    Parsed { rationale: String::new(), label: None, reason: Some(reason) }
}

/// What stands on both sides of `marker`, where it stands exactly once.
fn around<'a>(text: &'a str, marker: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = text.split_once(marker)?;
    (!after.contains(marker)).then_some((before, after))
}

fn is_refusal(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(16).collect::<String>().to_lowercase();
    REFUSALS.iter().any(|refusal| start.starts_with(refusal))
}

/// `before` the marker, without a connecting word that stands there as a sentence of its own.
fn without_connective(before: &str) -> &str {
    let trimmed = before.trim();
    let bare = trimmed.trim_end_matches(',');
    let stripped = CONNECTIVES.iter().find_map(|word| {
        let (head, tail) = bare.split_at_checked(bare.len().checked_sub(word.len())?)?;
        let head = head.trim_end();
        let alone = head.is_empty() || head.ends_with(['.', '!', '?', ',', ';']);
        (tail.eq_ignore_ascii_case(word) && alone).then_some(head.trim_end_matches([',', ';']))
    });
    stripped.unwrap_or(trimmed)
}

/// The label as the teacher wrote it after the marker; `None` where there is none.
fn written_label(shape: AnswerShape, set: &[String], after: &str) -> Option<String> {
    let answer = after.trim().trim_start_matches(':').trim_start();
    let line = answer.lines().next().unwrap_or_default();
    let label = match shape {
        AnswerShape::Expression => plain(answer).to_owned(),
        AnswerShape::Text => plain(line).to_owned(),
        AnswerShape::Choice => choice(set, plain(line))?,
    };
    (!label.is_empty()).then_some(label)
}

/// Without the emphasis that chat models add, and without the sentence's full stop.
fn plain(text: &str) -> &str {
    let text = text.trim().trim_matches('*').trim();
    text.strip_suffix('.').unwrap_or(text).trim().trim_end_matches('*').trim_end()
}

/// The text of a lettered option such as `(d) body of water`. A letter by itself names the option in that position; words
/// without any letter count only where they are an option.
fn choice(set: &[String], answer: &str) -> Option<String> {
    if let Some((letter, text)) = lettered(answer) {
        let option =
            ('a'..='z').zip(set).find(|(known, _)| *known == letter).map(|(_, option)| option.clone());
        return Some(if text.is_empty() {
            option.unwrap_or_else(|| answer.to_owned())
        } else {
            text.to_owned()
        });
    }
    let names_letters = answer.split('(').skip(1).any(|part| closes_letter(part).is_some());
    (set.is_empty() || names_letters || canonical(set, answer).is_some()).then(|| answer.to_owned())
}

fn lettered(text: &str) -> Option<(char, &str)> {
    closes_letter(text.strip_prefix('(')?)
}

/// Reads `d) text`.
fn closes_letter(text: &str) -> Option<(char, &str)> {
    let mut characters = text.chars();
    let letter = characters.next().filter(char::is_ascii_alphabetic)?;
    Some((letter.to_ascii_lowercase(), characters.as_str().strip_prefix(')')?.trim()))
}

/// `label` as the set writes it; an identical text goes before one that is equal after normalisation.
fn canonical<'a>(set: &'a [String], label: &str) -> Option<&'a String> {
    let normal = normalise(label);
    let identical = set.iter().find(|known| *known == label);
    identical.or_else(|| set.iter().find(|known| normalise(known) == normal))
}

fn judge_label(task: &Task, set: &[String], rationale: &str, label: &str) -> Parsed {
    let (label, in_set) = match canonical(set, label) {
        Some(known) => (known.clone(), true),
        None if !set.is_empty() => (label.to_owned(), false),
        None => (label.to_owned(), task.metric != Comparison::Equation || equation::value(label).is_some()),
    };
    let reason = match (in_set, rationale.is_empty()) {
        (false, _) => Some(Reason::LabelNotInSet),
        (true, true) => Some(Reason::EmptyRationale),
        (true, false) => None,
    };
    Parsed { rationale: rationale.to_owned(), label: Some(label), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task(name: &str) -> Task {
        Task::built_in(name).unwrap()
    }

    fn row(choices: &[&str]) -> Example {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        Example { input: "?".into(), choices, ..Example::default() }
    }

    /// `expected` is rationale, label (empty for none) and reason.
    fn check(name: &str, text: &str, finish: FinishReason, expected: (&str, &str, Option<Reason>)) {
        let example = row(&["bank", "body of water", "washington d.c", "Bank"]);
        let parsed = parse(&task(name), &example, text, finish);
        let label = parsed.label.as_deref().unwrap_or_default();
        assert_eq!((parsed.rationale.as_str(), label, parsed.reason), expected, "{name}: {text:?}");
    }

    fn stopped(name: &str, text: &str, expected: (&str, &str, Option<Reason>)) {
        check(name, text, FinishReason::Stop, expected);
    }

    #[test]
    fn equations_are_read_whole() {
        stopped("equation", " 84 in 2. The answer is (84 / 2).", ("84 in 2.", "(84 / 2)", None));
        stopped("equation", "Take 7. The answer is (12 - 2) - 7.\n", ("Take 7.", "(12 - 2) - 7", None));
        stopped("equation", "Two. The answer is: **(1 + 1)**.", ("Two.", "(1 + 1)", None));
        let outside = Some(Reason::LabelNotInSet);
        stopped("equation", "Hm. The answer is (some - 8).", ("Hm.", "(some - 8)", outside));
        stopped("equation", "Hm. The answer is (2 + 2) = 4.", ("Hm.", "(2 + 2) = 4", outside));
    }

    #[test]
    fn choices_are_read_by_their_text() {
        let choice = |answer: &str, label: &str, reason| {
            stopped("choice", &format!("Deep. So the answer is{answer}"), ("Deep.", label, reason));
        };
        choice(" (b) body of water.", "body of water", None);
        choice(" (b) Body of  Water.\nIndeed.", "body of water", None);
        choice(" (b)", "body of water", None);
        choice(" body of water.", "body of water", None);
        // The text decides, not the letter; an identical option goes before one that differs in case.
        choice(" (a) Bank.", "Bank", None);
        choice(" (d) bank.", "bank", None);
        choice(" (c) Washington D.C..", "washington d.c", None);
        let outside = Some(Reason::LabelNotInSet);
        choice(" (a) river.", "river", outside);
        choice(" either (a) bank or (b) body of water.", "either (a) bank or (b) body of water", outside);
        choice(" (z)", "(z)", outside);
        let nothing = ("", "", Some(Reason::NoAnswer));
        stopped("choice", "Deep. So the answer is one of these four.", nothing);
        stopped("choice", "Deep. So the answer is", nothing);
        let written = |text| label_as_written(&task("choice"), &row(&["Bank", "river"]), text);
        assert_eq!(
            written("Deep. So the answer is (a) bank.\n\nQ: So the answer is").as_deref(),
            Some("bank")
        );
        assert_eq!(written("Deep."), None);
        let open = parse(&task("choice"), &row(&[]), "Deep. So the answer is (a) river.", FinishReason::Stop);
        assert_eq!((open.label.as_deref(), open.reason), (Some("river"), None));
    }

    #[test]
    fn closed_sets_answer_in_their_own_words() {
        stopped("nli", "It may. So the answer is Neutral.", ("It may.", "neutral", None));
        stopped("nli", "It may. So the answer is **neutral**.\nMore.", ("It may.", "neutral", None));
        stopped("nli", "It may. So the answer is maybe.", ("It may.", "maybe", Some(Reason::LabelNotInSet)));
        stopped("esnli", " It is.\nAnswer: entailment\n\nPremise: A dog", ("It is.", "entailment", None));
        stopped("esnli", "It is.\nAnswer: entailmentPremise", ("It is.", "entailment", None));
        stopped(
            "esnli",
            "It is.\nAnswer: no\nPremise:\nAnswer: no",
            ("It is.", "no", Some(Reason::LabelNotInSet)),
        );
        stopped("generate", "By a poet. So the answer is Poet.", ("By a poet.", "Poet", None));
    }

    #[test]
    fn the_marker_stands_once_after_the_cut() {
        let nothing = ("", "", Some(Reason::NoAnswer));
        stopped("equation", "One. The answer is (1).\n\nQ: Two? The answer is (2).", ("One.", "(1)", None));
        stopped("equation", "One. The answer is (1). The answer is (2).", nothing);
        stopped("equation", "One is all.", nothing);
        stopped("equation", "", nothing);
        stopped("equation", "\n\nQ: One. The answer is (1).", nothing);
        stopped("equation", "One. The answer is .", nothing);
        stopped(
            "nli",
            "It. So the answer is neutral.\n\nPremise: It. So the answer is",
            ("It.", "neutral", None),
        );
        stopped("choice", "Deep. So the answer is (a) bank.\n\nQ: (a)", ("Deep.", "bank", None));
    }

    #[test]
    fn what_cannot_be_used_has_its_reason() {
        let (length, filter) = (FinishReason::Length, FinishReason::ContentFilter);
        let refused = ("", "", Some(Reason::Refused));
        check("equation", "One. The answer is (1).", filter, refused);
        stopped("equation", "I'm sorry, but I can't help with that.", refused);
        stopped("equation", "I cannot be sure. The answer is (1).", ("I cannot be sure.", "(1)", None));
        check("equation", "One. The answer is (1 ", length, ("", "", Some(Reason::Truncated)));
        check("equation", "One. The answer is (1).\n\nQ: Tw", length, ("One.", "(1)", None));
        stopped("equation", "The answer is (1).", ("", "(1)", Some(Reason::EmptyRationale)));
        stopped("equation", "\n So, The answer is (1).", ("", "(1)", Some(Reason::EmptyRationale)));
    }

    #[test]
    fn no_connecting_word_is_left_over() {
        for (before, rationale) in [
            ("We add. So ", "We add."),
            ("We add. Therefore, ", "We add."),
            ("We add, so ", "We add"),
            ("He said so ", "He said so"),
            ("We add. é so", "We add. é so"),
            ("We add. Also ", "We add. Also"),
        ] {
            stopped("equation", &format!("{before}The answer is (1)."), (rationale, "(1)", None));
        }
    }

    #[test]
    fn imported_rationales_are_taken_as_they_are() {
        let check =
            |gold: Option<&str>, label: Option<&str>, expected: (&str, Option<&str>, Option<Reason>)| {
                let example = Example { label: gold.map(str::to_owned), ..row(&["bank", "river"]) };
                let answer = Answer::Rationale {
                    teacher: "import".into(),
                    text: " Deep. ".into(),
                    label: label.map(str::to_owned),
                };
                let parsed = parse_imported(&task("choice"), &example, &answer);
                assert_eq!((parsed.rationale.as_str(), parsed.label.as_deref(), parsed.reason), expected);
            };
        check(Some("bank"), None, ("Deep.", Some("bank"), None));
        check(Some("bank"), Some("River"), ("Deep.", Some("river"), None));
        check(None, Some("sea"), ("Deep.", Some("sea"), Some(Reason::LabelNotInSet)));
        check(None, None, ("Deep.", None, Some(Reason::NoAnswer)));
        let text = "Deep. So the answer is (b) river.\n\nQ: And?".to_owned();
        let parsed = parse_imported(
            &task("choice"),
            &row(&["bank", "river"]),
            &Answer::Completion { teacher: "palm-540b".into(), text },
        );
        assert_eq!((parsed.label.as_deref(), parsed.reason), (Some("river"), None));
    }

    #[test]
    fn every_built_in_exemplar_is_readable() {
        for name in crate::task::BUILT_IN {
            assert_eq!(exemplar_violations(&task(name)), vec![], "{name}");
        }
    }

    #[test]
    fn an_exemplar_that_would_be_rejected_is_named() {
        let check = |change: &dyn Fn(&mut Task), fields: &[&str]| {
            let mut task: Task =
                toml::from_str(include_str!("../../../examples/tasks/sentiment.toml")).unwrap();
            change(&mut task);
            let found: Vec<String> =
                exemplar_violations(&task).into_iter().map(|violation| violation.field).collect();
            assert_eq!(found, fields);
        };
        check(&|_| {}, &[]);
        check(&|task| task.exemplars[1].label = "awful".into(), &["task.exemplars[1]"]);
        check(&|task| task.exemplars[0].rationale = String::new(), &["task.exemplars[0]"]);
        check(&|task| task.exemplars[2].rationale.push_str(" So the answer is no."), &["task.exemplars[2]"]);
        check(
            &|task| task.labels = crate::task::LabelSet::Closed(vec!["positive".into()]),
            &["task.exemplars[1]", "task.exemplars[2]"],
        );
    }

    #[test]
    fn the_first_stop_cuts() {
        let stops = ["ab".to_owned(), "b".to_owned(), String::new()];
        assert_eq!(cut("xxabyy", &stops), ("xx", true));
        assert_eq!(cut("xby ab", &stops), ("x", true));
        assert_eq!(cut("xyz", &stops), ("xyz", false));
    }

    proptest! {
        #[test]
        fn no_completion_panics(
            parts in proptest::collection::vec(
                prop_oneof![
                    any::<String>(),
                    proptest::collection::vec(any::<u8>(), 0..40)
                        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                    proptest::sample::select(vec![
                        "The answer is", "So the answer is", "Answer:", "\n\nQ:", "Premise", "(", ")", "(d)", "so", "é",
                        ".", "**", ":", "\n", " ", "1", "x", "neutral",
                    ]).prop_map(str::to_owned),
                ],
                0..12,
            ),
        ) {
            let text = parts.concat();
            for name in crate::task::BUILT_IN {
                let task = task(name);
                for finish in [FinishReason::Stop, FinishReason::Length, FinishReason::ContentFilter] {
                    let parsed = parse(&task, &row(&["a", "é"]), &text, finish);
                    if parsed.reason.is_none() {
                        prop_assert!(!parsed.rationale.trim().is_empty());
                        prop_assert!(parsed.label.is_some_and(|label| !label.trim().is_empty()));
                    }
                }
            }
        }
    }
}
