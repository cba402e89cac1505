//! The rationale in what stands before the marker.

use super::markup::{LAYERS_MAX, SHOWN, enclosed, runs, unwrapped, without_lead};

/// Words that join a rationale to an answer, and are left over where the marker does not include them.
const CONNECTIVES: &[&str] = &[
    "the final",
    "my final",
    "final",
    "so",
    "thus",
    "therefore",
    "hence",
    "then",
    "in conclusion",
    "finally",
];

/// Delimiters that open something at the end of a text, whatever stands before them.
const OPENERS: &[&str] =
    &[r"\(", r"\[", "<b>", "<strong>", "<i>", "<em>", "<u>", "<p>", "<mark>", "<answer>", "<br>", "<br/>"];
/// Characters that open something where they follow white space or other markup.
const OPENING: &[char] = &[
    '*', '_', '`', '~', '$', '"', '\'', '“', '„', '‘', '«', '»', '‹', '「', '『', '(', '[', '{', '【', '（',
];
/// What a line of nothing but markup consists of: headings, quotes, bullets, rules.
const LINE_MARKS: &[char] = &['#', '>', '*', '-', '_', '=', '•', '–', '—', '`', '~', ' ', '\t'];
/// Pairs that may open before a rationale and close behind the label.
const AROUND: &[(&str, &str)] = &[
    ("“", "”"),
    ("«", "»"),
    ("「", "」"),
    ("[", "]"),
    ("(", ")"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("<p>", "</p>"),
    ("<b>", "</b>"),
];

/// `before` without the markup around it and that of the marker, and without a connecting word that stands there as a
/// sentence of its own; empty where nothing is left that says anything (`###`, `---`).
pub(super) fn rationale(before: &str) -> &str {
    let mut text = before.trim();
    for _ in 0..LAYERS_MAX {
        let steps = [without_last_line, without_end, without_connective, without_start, unwrapped];
        match steps.iter().find_map(|step| step(text)) {
            Some(rest) => text = rest.trim(),
            None => break,
        }
    }
    if text.contains(char::is_alphanumeric) { text } else { "" }
}

/// The bracket in which the marker stands, and what closes it: `We add. (The answer is 3.)`.
pub(super) fn bracket(before: &str) -> Option<(char, char)> {
    let before = before.trim_end_matches(['*', '_', '`', '"', '“']);
    match before.chars().next_back()? {
        // LaTeX's own delimiters close with a backslash too.
        _ if before.ends_with(r"\(") || before.ends_with(r"\[") => None,
        '(' | '（' => Some(('(', ')')),
        '[' | '［' => Some(('[', ']')),
        // `\boxed{The answer is 3}`.
        '{' => Some(('{', '}')),
        _ => None,
    }
}

/// Without a last line that only formats what follows it, such as `>`, `---` or `2.`.
fn without_last_line(text: &str) -> Option<&str> {
    let (before, line) = text.rsplit_once('\n').unwrap_or(("", text));
    let marks = line.trim_matches(LINE_MARKS).is_empty();
    let numbered = line.trim().strip_suffix(['.', ')']).is_some_and(|number| {
        (1..=2).contains(&number.len()) && number.chars().all(|digit| digit.is_ascii_digit())
    });
    (!line.is_empty() && (marks || numbered)).then_some(before)
}

/// Without markup at the end that opens in front of the marker, or closes what is not open.
fn without_end(text: &str) -> Option<&str> {
    let heading = text.trim_end_matches('#');
    if heading.len() < text.len() && heading.ends_with(char::is_whitespace) {
        return Some(heading);
    }
    if let Some(rest) = OPENERS.iter().find_map(|opener| text.strip_suffix(opener)) {
        return Some(rest);
    }
    let command = text.strip_suffix('{').and_then(|rest| rest.rsplit_once('\\'));
    if let Some((rest, _)) = command.filter(|(_, name)| SHOWN.contains(name)) {
        return Some(rest);
    }
    let last = text.chars().next_back().filter(|last| OPENING.contains(last))?;
    let rest = text.trim_end_matches(last);
    let opens =
        rest.is_empty() || rest.ends_with(|before: char| before.is_whitespace() || OPENING.contains(&before));
    let left_over = matches!(last, '*' | '_' | '`' | '~' | '"') && runs(text, last) % 2 == 1;
    (opens || left_over).then_some(rest)
}

/// Without markup at the start that has no other half in the rationale.
fn without_start(text: &str) -> Option<&str> {
    if let Some(rest) = without_lead(text).filter(|_| !text.starts_with([':', '：'])) {
        return Some(rest);
    }
    let first = text.chars().next()?;
    let rest = text.trim_start_matches(first);
    let fence = matches!(first, '*' | '_' | '`' | '~' | '"') && runs(text, first) % 2 == 1;
    // An asterisk before white space is a bullet.
    if fence && (first == '`' || !rest.starts_with(char::is_whitespace)) {
        return Some(rest);
    }
    let unmatched = |(open, close): &(&str, &str)| {
        let opened = text.matches(open).count() > text.matches(close).count();
        text.strip_prefix(open).filter(|_| opened && enclosed(text, open, close).is_none())
    };
    AROUND.iter().find_map(unmatched)
}

fn without_connective(text: &str) -> Option<&str> {
    let plain = text.trim_end_matches([',', ':', '*', '_', ' ']);
    CONNECTIVES.iter().find_map(|word| {
        let (before, tail) = plain.split_at_checked(plain.len().checked_sub(word.len())?)?;
        // Emphasis of the word itself; what closes before it belongs to the rationale.
        let before = before.trim_end_matches(['*', '_']);
        let head = before.trim_end();
        let sentence = head.trim_end_matches(['*', '_', '`', '"', '”', ')']);
        let alone =
            head.is_empty() || sentence.ends_with(['.', '!', '?', ',', ';']) || before.ends_with('\n');
        (tail.eq_ignore_ascii_case(word) && alone).then_some(head.trim_end_matches([',', ';']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, expected: &str) {
        assert_eq!(rationale(before), expected, "{before:?}");
    }

    #[test]
    fn what_belongs_to_the_marker_is_left_out() {
        for before in [
            "We add.",
            " We add. ",
            "We add. **",
            "We add.**",
            "We add. *",
            "We add. ***",
            "We add. _",
            "We add. `",
            "We add. \"",
            "We add. “",
            "We add. «",
            "We add. (",
            "We add. [",
            "We add. $",
            "We add. $$",
            "We add.\n\n\\[",
            "We add. \\(",
            "We add. $\\boxed{\\text{",
            "We add. <b>",
            "We add.\n### ",
            "We add. ###",
            "We add.\n>",
            "We add.\n- ",
            "We add.\n---\n",
            "We add.\n***\n**",
            "We add.\n2. **",
            "We add.\n```\n",
            "**We add.**",
            "**We add.** **",
            "*We add.* ",
            "\"We add.\" ",
            "“We add.",
            "## We add.",
            "> We add.",
            "**We add.",
            "```\nWe add.",
            "(We add.",
            "We add. So",
            "We add. Therefore, ",
            "We add. **So, ",
            "We add. **So** ",
            "We add.\n**Final ",
            "We add.\nThe final",
        ] {
            check(before, "We add.");
        }
        check("We add, so ", "We add");
        check("We add\nTherefore,", "We add");
    }

    #[test]
    fn what_belongs_to_the_rationale_stays() {
        for before in [
            "We **add** both",
            "We use **addition**",
            "**First**, we use **addition**",
            "He said so",
            "We add. é so",
            "We add. Also",
            "It is C#",
            "He says \"add\"",
            "It is (so far) true",
            "It is 5$",
            "3 * 4",
            "* One.\n* Two.",
            "- One.\n- Two.",
            "We add:\n30 + 12",
            "“A” and “b”",
            "He said ‘no’",
            "It is a „Haus“",
            "at the finalfinal",
        ] {
            check(before, before);
        }
    }

    #[test]
    fn markup_alone_says_nothing() {
        for before in [
            "",
            "###",
            "**",
            "> ",
            "---",
            "\n\n***\n",
            "```",
            "$$",
            "“",
            "1.",
            "So,",
            "**So** ",
            "😊",
            "...",
            "•",
        ] {
            check(before, "");
        }
    }

    #[test]
    fn the_marker_may_stand_in_a_bracket() {
        let round = Some(('(', ')'));
        for (before, expected) in [
            ("We add. (", round),
            ("We add. (**", round),
            ("We add. （", round),
            ("We add. [", Some(('[', ']'))),
            (r"We add. $\boxed{\text{", Some(('{', '}'))),
            ("We add. \\[", None),
            ("We add. \\(", None),
            ("We add.", None),
            ("", None),
        ] {
            assert_eq!(bracket(before), expected, "{before:?}");
        }
    }
}
