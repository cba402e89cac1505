//! Cutting and reading completions. Never fails and never panics, whatever a completion holds.

mod ending;
mod known;
mod latex;
mod marker;
mod markup;
mod rationale;
mod thoughts;
mod together;
mod written;

use crate::equation;
use crate::example::{Answer, Example};
use crate::fault::Violation;
use crate::label::Comparison;
use crate::named::named;
use crate::state::Reason;
use crate::task::{AnswerShape, Task};
use crate::width::narrow;
use known::canonical;
use marker::Sides;

pub use ending::cut;
pub use thoughts::split_thoughts;
pub use together::split_answers;

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
const REFUSALS: &[&str] = &[
    "i'm sorry",
    "i am sorry",
    "sorry,",
    "i cannot",
    "i can't",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "as an ai",
];

/// Reads a completion of `example`: without its thoughts, up to its end, then rationale and label around the marker.
///
/// The rules are those of the paper's released code, read with care:
/// - thoughts are no part of the answer ([`split_thoughts`]);
/// - the text ends at the first special token that ends a turn, and at the first stop sequence in it, so that a run-on
///   completion is read like one that was stopped. Behind the marker a stop sequence that begins a line also ends the
///   text where other white space stands before it (`. Q: Where`), before the marker it does not;
/// - the marker must stand exactly once before that, else [`Reason::NoAnswer`] (or [`Reason::Refused`], where the words
///   are a refusal). Where it is not there to the letter, case, commas and markup in it do not matter;
/// - rationale and label are read without the markup around them. Markup alone is no rationale
///   ([`Reason::EmptyRationale`]);
/// - an expression is everything after the marker, or its first paragraph, line or sentences, where only they have a
///   value; results that agree with it are left out (`(2 + 2) = 4` is `(2 + 2)`), with one that does not, it is no
///   label of the set. A text or a lettered choice is the rest of its line, or the sentences of it that are a label of
///   the set; a final full stop is removed, and so is a chat model's leave;
/// - a label in the set is returned as the set writes it; one outside is kept as the teacher wrote it, with
///   [`Reason::LabelNotInSet`]. The set of an equation task is every expression that has a value; a row without choices
///   has an open set.
///
/// A completion that reached its token limit is [`Reason::Truncated`], unless its end stands in it: what comes before
/// that is whole.
pub fn parse(task: &Task, example: &Example, text: &str, finish_reason: FinishReason) -> Parsed {
    if finish_reason == FinishReason::ContentFilter {
        return unread(Reason::Refused);
    }
    let set = task.label_set(example).unwrap_or_default();
    let (_, answer) = split_thoughts(text);
    let (answer, ended) = ending::without_tokens(&answer);
    let shown = markup::unquoted(answer);
    let (kept, stopped) = cut(&shown, &task.stop);
    let sides = sides(task, set, kept);
    let whole = ended || stopped || sides.is_some_and(|(_, ran_on)| ran_on);
    if finish_reason == FinishReason::Length && !whole {
        return unread(Reason::Truncated);
    }
    let silent = || unread(if is_refusal(kept) { Reason::Refused } else { Reason::NoAnswer });
    let Some((sides, _)) = sides else { return silent() };
    let Some(label) = written::written(task.answer.shape, set, sides.after) else { return silent() };
    let parsed = judge_label(task, set, rationale::rationale(sides.before), &label);
    // `I'm sorry, I cannot say what the answer is` has no marker, only words that are like it.
    let declined = !sides.exact && parsed.reason == Some(Reason::LabelNotInSet) && is_refusal(kept);
    if declined { unread(Reason::Refused) } else { parsed }
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
    let set = task.label_set(example).unwrap_or_default();
    let (_, answer) = split_thoughts(text);
    let shown = markup::unquoted(ending::without_tokens(&answer).0);
    let (sides, _) = sides(task, set, cut(&shown, &task.stop).0)?;
    written::written(task.answer.shape, set, sides.after)
}

/// What stands on both sides of the marker in `kept`, and whether a run-on was cut off behind it.
fn sides<'a>(task: &Task, set: &[String], kept: &'a str) -> Option<(Sides<'a>, bool)> {
    let free = set.is_empty() && task.answer.shape != AnswerShape::Expression;
    let run_on = |after: &'a str| ending::before_run_on(after, &task.stop, set, free);
    let sides = marker::sides(kept, &task.answer.marker, |after| run_on(after).unwrap_or(after))?;
    // What was cut off is no longer at the end of what was kept.
    let ran_on = !kept.ends_with(sides.after);
    let after = match rationale::bracket(sides.before) {
        Some((open, close)) => before_unopened(sides.after, open, close),
        None => sides.after,
    };
    Some((Sides { after, ..sides }, ran_on))
}

/// `text` up to the first `close` that no `open` in it belongs to.
fn before_unopened(text: &str, open: char, close: char) -> &str {
    let mut depth = 0_usize;
    for (place, character) in text.char_indices() {
        let character = narrow(character);
        if character == open {
            depth += 1;
        } else if character == close {
            match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return text.get(..place).unwrap_or(text),
            }
        }
    }
    text
}

fn unread(reason: Reason) -> Parsed {
    Parsed { rationale: String::new(), label: None, reason: Some(reason) }
}

fn is_refusal(text: &str) -> bool {
    let words = text.trim_start_matches(|character: char| !character.is_alphanumeric());
    let start: String = words.chars().filter(|character| !matches!(character, '*' | '_')).take(16).collect();
    let start = start.to_lowercase().replace('’', "'");
    REFUSALS.iter().any(|refusal| start.starts_with(refusal))
}

fn judge_label(task: &Task, set: &[String], rationale: &str, label: &str) -> Parsed {
    let (label, in_set) = match canonical(set, label) {
        Some(known) => (known.clone(), true),
        None if !set.is_empty() => (label.to_owned(), false),
        None => (label.to_owned(), task.metric != Comparison::Equation || equation::value(label).is_some()),
    };
    let says_nothing = !rationale.contains(char::is_alphanumeric);
    let reason = match (in_set, says_nothing) {
        (false, _) => Some(Reason::LabelNotInSet),
        (true, true) => Some(Reason::EmptyRationale),
        (true, false) => None,
    };
    Parsed { rationale: rationale.to_owned(), label: Some(label), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::normalise;
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
        stopped("equation", "Hm. The answer is (2 + 2) = 4.", ("Hm.", "(2 + 2)", None));
        stopped("equation", "Hm. The answer is (2 + 2) = 5.", ("Hm.", "(2 + 2) = 5", outside));
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
        stopped("equation", "**I’m sorry**, but I can't help with that.", refused);
        stopped("equation", "> *Sorry*, no.", refused);
        stopped("equation", "<think>Hm.</think>\n\nI am unable to help.<|im_end|>", refused);
        stopped("equation", "I cannot be sure. The answer is (1).", ("I cannot be sure.", "(1)", None));
        check("equation", "One. The answer is (1 ", length, ("", "", Some(Reason::Truncated)));
        check("equation", "One. The answer is (1).\n\nQ: Tw", length, ("One.", "(1)", None));
        stopped("equation", "The answer is (1).", ("", "(1)", Some(Reason::EmptyRationale)));
        for before in ["\n So, ", "### ", "**", "---\n", "> ", "1. ", "```\n"] {
            let text = format!("{before}The answer is (1).");
            stopped("equation", &text, ("", "(1)", Some(Reason::EmptyRationale)));
        }
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
        check(Some("ｂａｎｋ"), None, ("Deep.", Some("bank"), None));
        check(None, None, ("Deep.", None, Some(Reason::NoAnswer)));
        let example = Example { label: Some("bank".into()), ..row(&["bank", "river"]) };
        let answer = Answer::Rationale { teacher: "import".into(), text: "###".into(), label: None };
        let parsed = parse_imported(&task("choice"), &example, &answer);
        assert_eq!(parsed.reason, Some(Reason::EmptyRationale));
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

    /// A task, a rationale, and a label as a teacher writes it.
    const CLEAN: &[(&str, &str, &str)] = &[
        ("equation", "We add.", "(30 + 12)"),
        ("choice", "Boats need water.", "(b) body of water"),
        ("nli", "It may be so.", "neutral"),
        ("esnli", "A child is a person.", "entailment"),
        ("classify", "Boats need water.", "body of water"),
        ("generate", "He wrote poems.", "the poet of Lark"),
    ];

    /// Forms of one answer: `R` is its rationale, `M` the marker, `L` the label. No word in them has these letters.
    const FORMS: &[&str] = &[
        "R **M L.**",
        "R\n\n**M** L.",
        "R **M: L**",
        "R **M** **L**.",
        "R M **L**.",
        "R M **L.**",
        "R *M L.*",
        "R _M L_.",
        "R ***M L.***",
        "R M `L`.",
        "R `M L`",
        "R M \"L\".",
        "R M 'L'.",
        "R M “L.”",
        "R M „L“.",
        "R M «L».",
        "R “M L.”",
        "R\n### M L",
        "R\n\n## M L.",
        "R\n> M L.",
        "> R\n>\n> M L.",
        "> R M L.",
        "R\n---\nM L.",
        "R\n\n***\n\n**M L**",
        "R (M L.)",
        "R [M L.]",
        "R M [L].",
        "R M $L$.",
        "R M $$L$$",
        r"R M \(L\).",
        r"R M \[ L \]",
        "R M\n\\[\nL\n\\]\n",
        r"R M \boxed{L}.",
        r"R M $\boxed{\text{L}}$.",
        r"R $\boxed{\text{M L}}$",
        "R <b>M L.</b>",
        "<p>R M L.</p>",
        "**R M L.**",
        "**R** M L.",
        "**R** **M L**",
        "\"R M L.\"",
        "“R M L.”",
        "\"R\" M L.",
        "```\nR M L.\n```",
        "```text\nR\nM L.\n```",
        "`R M L.`",
        "### R\nM L.",
        "R M:\n\n**L**",
        "R M L.</s>",
        "R M L.<|im_end|>",
        "R M L<|eot_id|>",
        "R M L.<|endoftext|>user\nM",
        "R M L<end_of_turn>",
        "<|im_start|>assistant\nR M L.<|im_end|>",
        "R M L.\n\nI hope this helps!",
        "R **M L.** let me know if you need more.",
        "R M L. Feel free to ask!",
        "<think>M 1.\n\nQ: M</think>\n\nR M L.",
        "M 1?</think>R M L.",
        "<think>\n</think>R **M L**",
        "<|channel|>analysis<|message|>M 1<|end|><|start|>assistant<|channel|>final<|message|>R M L.<|return|>",
    ];

    #[test]
    fn markup_changes_nothing() {
        let example = row(&["garden shed", "body of water"]);
        for (name, rationale, label) in CLEAN {
            let task = task(name);
            let text = |form: &str| {
                let parts = form.chars().map(|part| match part {
                    'R' => (*rationale).to_owned(),
                    'M' => task.answer.marker.clone(),
                    'L' => (*label).to_owned(),
                    other => other.to_string(),
                });
                parts.collect::<String>()
            };
            let clean = parse(&task, &example, &text("R M L."), FinishReason::Stop);
            assert_eq!((clean.rationale.as_str(), clean.reason), (*rationale, None), "{name}");
            for form in FORMS {
                let text = text(form);
                let parsed = parse(&task, &example, &text, FinishReason::Stop);
                assert_eq!(parsed, clean, "{name}: {form:?} {text:?}");
                let written = label_as_written(&task, &example, &text).unwrap_or_default();
                let label = clean.label.as_deref().unwrap_or_default();
                assert_eq!(normalise(&written), normalise(label), "{name}: {form:?} {text:?}");
            }
        }
    }

    #[test]
    fn thoughts_are_apart_from_the_rationale() {
        let (length, nothing) = (FinishReason::Length, ("", "", Some(Reason::NoAnswer)));
        let add = ("We add.", "(1 + 2)", None);
        for thoughts in [
            "<think>A sum.</think>",
            "<think>The answer is (1 + 2).</think>",
            "<think>\nThe answer is (4 / 2).\nQ: and so on\n</think>",
            "Not closed: </s> The answer is\n</think>",
        ] {
            stopped("equation", &format!("{thoughts}\n\nWe add. The answer is (1 + 2)."), add);
        }
        stopped("equation", "<think>We add. The answer is (1 + 2).", nothing);
        stopped("equation", "<think>We add. The answer is (1 + 2).</think>", nothing);
        let truncated = ("", "", Some(Reason::Truncated));
        check("equation", "<think>We add. The answer is (1 + 2).\n\nQ: and", length, truncated);
        check("equation", "<think>We add.</think>\nWe add. The answer is (1", length, truncated);
        check("equation", "<think>We add.</think>\nWe add. The answer is (1 + 2).</s>", length, add);
        let empty = ("", "(1 + 2)", Some(Reason::EmptyRationale));
        stopped("equation", "<think>We add.</think>The answer is (1 + 2).", empty);
    }

    #[test]
    fn run_ons_are_cut_behind_the_label_only() {
        let sea = ("Deep.", "bank", None);
        stopped(
            "choice",
            "Deep. So the answer is (a) bank. Q: Where? So the answer is (b) body of water",
            sea,
        );
        stopped("choice", "Deep. So the answer is (a) bank Q: Where?", sea);
        check("choice", "Deep. So the answer is (a) bank. Q: Whe", FinishReason::Length, sea);
        stopped("nli", "It. So the answer is no. Premise: A", ("It.", "no", Some(Reason::LabelNotInSet)));
        stopped("equation", "One. The answer is (1). Q: Two? The answer is (2).", ("One.", "(1)", None));
        stopped(
            "generate",
            "By Lark. So the answer is Lark. Q: Who? So the answer is I.",
            ("By Lark.", "Lark", None),
        );
        for rationale in
            ["He asks Q: who is it? A bank.", "The FAQ: it is deep.", "Look it up. Q: is a letter."]
        {
            stopped("choice", &format!("{rationale} So the answer is (a) bank."), (rationale, "bank", None));
        }
        stopped(
            "generate",
            "As the FAQ: says. So the answer is the FAQ: page.",
            ("As the FAQ: says.", "the FAQ: page", None),
        );
    }

    #[test]
    fn a_marker_in_other_letters_is_one_where_there_is_no_other() {
        let deep = ("Deep.", "bank", None);
        for marker in
            ["So, the answer is", "so the answer is", "**So**, the *answer* is:", "So the\nanswer is"]
        {
            stopped("choice", &format!("Deep. {marker} (a) bank."), deep);
        }
        stopped(
            "choice",
            "I think so, the answer is near. So the answer is (a) bank.",
            ("I think so, the answer is near.", "bank", None),
        );
        stopped("esnli", "It is.\n\n**Answer**: neutral", ("It is.", "neutral", None));
        stopped("esnli", "It is.\n\n**Final Answer: neutral**", ("It is.", "neutral", None));
        stopped(
            "equation",
            "I'm sorry, I cannot tell what the answer is here.",
            ("", "", Some(Reason::Refused)),
        );
    }

    #[test]
    fn long_texts_are_read_in_time() {
        let fills = [
            "\n",
            "*",
            "(",
            "<think>",
            "</think>",
            "<|channel|>",
            "so, ",
            "\\frac{",
            " Q:",
            "“",
            "1. ",
            "=1",
            "$",
        ];
        for name in crate::task::BUILT_IN {
            let task = task(name);
            for fill in fills {
                let fill = fill.repeat(30_000);
                let marker = &task.answer.marker;
                for text in [format!("{fill}One. {marker} (1)."), format!("One. {marker} (1).{fill}"), fill] {
                    let begun = std::time::Instant::now();
                    parse(&task, &row(&["bank", "river"]), &text, FinishReason::Stop);
                    // Milliseconds, where the time grows with the text; minutes, where it grows with its square.
                    assert!(
                        begun.elapsed().as_secs() < 10,
                        "{name}: {:?}",
                        text.chars().take(40).collect::<String>()
                    );
                }
            }
        }
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
                        ".", "**", ":", "\n", " ", "1", "x", "neutral", "<think>", "</think>", "<|channel|>", "<|message|>", "\\boxed{",
                        "\\frac", "}", "$", "`", "_", "#", ">", "“", "</s>", " Q:", "=", "（", "option ", "I hope",
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
                        prop_assert!(parsed.rationale.contains(char::is_alphanumeric));
                        prop_assert!(parsed.label.is_some_and(|label| !label.trim().is_empty()));
                    }
                }
            }
        }
    }
}
