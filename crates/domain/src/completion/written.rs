//! The label in what stands behind the marker, in the teacher's own words.

use super::ending::{boundaries, without_pleasantry};
use super::known::canonical;
use super::latex;
use super::markup::{bare, layers};
use crate::equation;
use crate::label::{Comparison, same};
use crate::task::AnswerShape;
use crate::width::narrow;

/// Longest text in which a label is looked for, in bytes: more is none.
const LABEL_BYTES_MAX: usize = 4096;
/// Most sentences behind the marker at whose end the label may end.
const SENTENCES_MAX: usize = 16;
/// Words in front of a letter.
const OPTION_WORDS: &[&str] = &["the ", "correct ", "answer ", "option ", "choice ", "letter ", "is "];
/// What may stand between a letter and its text.
const SEPARATORS: &[char] = &['.', ':', ',', ')', '-', '–', '—', '：', '。', '，'];

/// The label as the teacher wrote it; `None` where there is none. Of several readings of the same text the first whose
/// label can be used is taken: the whole text, then less and less of it, each with its markup and without.
pub(super) fn written(shape: AnswerShape, set: &[String], after: &str) -> Option<String> {
    let answer = without_pleasantry(after).trim();
    let label = match shape {
        AnswerShape::Expression => expression(answer),
        AnswerShape::Text => text(set, first_line(answer)),
        AnswerShape::Choice => choice(set, first_line(answer))?,
    };
    (!label.is_empty()).then_some(label)
}

/// The first line that is more than markup.
fn first_line(answer: &str) -> &str {
    let says = |line: &&str| line.contains(|character: char| character.is_alphanumeric() || character == '.');
    answer.lines().find(says).unwrap_or_default().trim()
}

/// `text`, its first paragraph, its first line, and then less by a sentence each time.
fn stretches(text: &str) -> Vec<&str> {
    let text = text.trim();
    let mut ends: Vec<&str> =
        boundaries(text).take(SENTENCES_MAX).filter_map(|place| text.get(..place)).collect();
    ends.reverse();
    let lines = [text.split_once("\n\n"), text.split_once('\n')].into_iter().flatten().map(|(head, _)| head);
    let all = std::iter::once(text).chain(lines).chain(ends);
    all.filter(|stretch| stretch.len() <= LABEL_BYTES_MAX).collect()
}

/// The first stretch that is an expression with a value, in ASCII and without LaTeX; else all that stands there.
fn expression(answer: &str) -> String {
    let valued = stretches(answer).into_iter().find_map(|stretch| {
        let rest = answer.trim().get(stretch.len()..)?;
        let plain = latex::plain(bare(stretch)).chars().map(narrow).collect::<String>();
        with_result(bare(&plain)).filter(|_| is_prose(rest)).map(str::to_owned)
    });
    valued.unwrap_or_else(|| bare_within_limits(answer).to_owned())
}

/// Whether `rest` is words, or nothing: what stands behind an expression without a word may be more of it (`- x`).
fn is_prose(rest: &str) -> bool {
    let mut words = rest.split(|character: char| !character.is_alphabetic());
    !rest.contains(char::is_alphanumeric) || words.any(|word| word.chars().nth(1).is_some())
}

/// `text` where it is an expression; its left side where it goes on with results that agree (`(2 + 2) = 4`).
fn with_result(text: &str) -> Option<&str> {
    if equation::value(text).is_some() {
        return Some(text);
    }
    let (expression, results) = text.split_once('=')?;
    let agree = results
        .split('=')
        .all(|result| equation::value(result).is_some() && same(Comparison::Equation, expression, result));
    agree.then_some(expression.trim())
}

fn bare_within_limits(text: &str) -> &str {
    if text.len() <= LABEL_BYTES_MAX { bare(text) } else { text }
}

/// An option in the words of `line`; else all that stands there.
fn text(set: &[String], line: &str) -> String {
    if let Some(label) = option(set, stretches(line)) {
        return label;
    }
    let shown = bare_within_limits(line);
    let latex = ["\\boxed", "\\text", "\\math"].iter().any(|command| shown.contains(command));
    if latex { bare_within_limits(&inline(shown)).to_owned() } else { shown.to_owned() }
}

/// The first of `stretches` that is an option of `set`, with markup or without: to the letter before in other case, and
/// with less markup before more of the same.
fn option(set: &[String], stretches: Vec<&str>) -> Option<String> {
    if set.is_empty() {
        return None;
    }
    stretches.into_iter().find_map(|stretch| {
        let plain = inline(stretch);
        let mut readings = layers(stretch);
        readings.extend(layers(&plain));
        readings.extend(layers(stretch).last().map(|last| last.trim_end_matches(['!', ',', ';', ':'])));
        readings.extend(
            layers(stretch).last().and_then(|last| last.strip_prefix(['-', '•', '–'])).map(str::trim),
        );
        readings.extend(layers(stretch).last().and_then(|last| last.strip_prefix('(')?.strip_suffix(')')));
        let identical = readings.iter().find(|reading| set.iter().any(|known| known == *reading));
        // A final full stop is no difference to a set: the reading without it is the label.
        let equal = || readings.iter().rev().find(|reading| canonical(set, reading).is_some());
        identical.or_else(equal).map(|label| (*label).to_owned())
    })
}

/// `text` without markup also in its inside, and in ASCII where it has full-width forms.
fn inline(text: &str) -> String {
    let plain = if text.contains(['\\', '$']) { latex::plain(text) } else { text.to_owned() };
    let plain = ["<b>", "</b>", "<strong>", "</strong>", "<i>", "</i>", "<em>", "</em>"]
        .iter()
        .fold(plain, |plain, tag| plain.replace(tag, ""));
    plain.replace("__", "").chars().filter(|character| !matches!(character, '*' | '`')).map(narrow).collect()
}

/// A letter at the start of an answer.
struct Lettered<'a> {
    letter: char,
    /// Whether it stands in parentheses or brackets: then it is a letter of an option whatever follows.
    enclosed: bool,
    /// Whether a sentence ends behind it.
    ends: bool,
    /// What follows it.
    text: &'a str,
}

/// The text of a lettered option such as `(d) body of water`, in the forms that chat models write. A letter by itself
/// names the option in that position; words without any letter count only where they are an option.
fn choice(set: &[String], line: &str) -> Option<String> {
    if line.len() > LABEL_BYTES_MAX {
        return set.is_empty().then(|| line.to_owned());
    }
    if let Some(label) = option(set, vec![line]) {
        return Some(label);
    }
    let plain = inline(line);
    let answer = without_option_words(bare(&plain));
    if let Some(found) = lettered(answer) {
        if found.text.is_empty() && (found.enclosed || !set.is_empty()) {
            return Some(in_position(set, found.letter).unwrap_or_else(|| bare(line).to_owned()));
        }
        if let Some(label) = option(set, stretches(found.text)) {
            return Some(label);
        }
        if found.enclosed {
            let named = if found.ends { in_position(set, found.letter) } else { None };
            return Some(named.unwrap_or_else(|| bare(found.text).to_owned()));
        }
    }
    if let Some(label) = option(set, stretches(line)) {
        return Some(label);
    }
    let names_letters = plain.split('(').skip(1).any(|part| closes_letter(part, ')').is_some());
    (set.is_empty() || names_letters).then(|| bare(line).to_owned())
}

/// The option whose letter is `letter`.
fn in_position(set: &[String], letter: char) -> Option<String> {
    ('a'..='z').zip(set).find(|(known, _)| *known == letter).map(|(_, option)| option.clone())
}

/// `text` without words such as `option` in front of a letter; all of it where none follows.
fn without_option_words(text: &str) -> &str {
    let mut rest = text;
    for _ in 0..OPTION_WORDS.len() {
        let stripped = OPTION_WORDS.iter().find_map(|word| {
            let (head, tail) = rest.split_at_checked(word.len())?;
            head.eq_ignore_ascii_case(word).then(|| tail.trim_start_matches([':', ' ']))
        });
        match stripped {
            Some(tail) => rest = tail,
            None => break,
        }
    }
    if lettered(rest).is_some() { rest } else { text }
}

/// Reads `(d) text`, `[d] text`, `d) text`, `d. text`, `d: text`, `d - text`, `d`.
fn lettered(text: &str) -> Option<Lettered<'_>> {
    let enclosed = match text.chars().next()? {
        '(' => text.strip_prefix('(').and_then(|rest| closes_letter(rest, ')')),
        '[' => text.strip_prefix('[').and_then(|rest| closes_letter(rest, ']')),
        _ => None,
    };
    let (letter, rest) = match enclosed {
        Some(found) => found,
        None => {
            let mut characters = text.chars();
            let letter = characters.next().filter(char::is_ascii_alphabetic)?;
            let rest = characters.as_str();
            let separate = rest.trim_start().starts_with(SEPARATORS) || rest.trim().is_empty();
            separate.then_some((letter.to_ascii_lowercase(), rest))?
        }
    };
    let behind = rest.trim_start().trim_start_matches(SEPARATORS);
    let ends = rest.trim_start().starts_with(['.', '。']) && behind.starts_with(char::is_whitespace);
    Some(Lettered { letter, enclosed: enclosed.is_some(), ends, text: behind.trim() })
}

/// Reads `d) text`.
fn closes_letter(text: &str, close: char) -> Option<(char, &str)> {
    let mut characters = text.trim_start().chars();
    let letter = characters.next().filter(char::is_ascii_alphabetic)?;
    Some((letter.to_ascii_lowercase(), characters.as_str().trim_start().strip_prefix(close)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: AnswerShape, set: &[&str], cases: &[(&str, &str)]) {
        let set: Vec<String> = set.iter().map(|label| (*label).to_owned()).collect();
        for (after, expected) in cases {
            let label = written(shape, &set, after);
            assert_eq!(label.as_deref().unwrap_or_default(), *expected, "{shape}: {after:?}");
        }
    }

    #[test]
    fn expressions_are_read_through_their_markup() {
        check(
            AnswerShape::Expression,
            &[],
            &[
                (" (30 + 12).", "(30 + 12)"),
                (" (30 + 12).**", "(30 + 12)"),
                ("** (30 + 12).", "(30 + 12)"),
                ("**: (30 + 12)", "(30 + 12)"),
                (" `30 + 12`.", "30 + 12"),
                (" $42$.", "42"),
                (" $42.", "42"),
                (r" $\boxed{30 + 12}$.", "30 + 12"),
                (r" \[ \boxed{42} \]", "42"),
                (" \\[\n\\boxed{\\frac{84}{2}}\n\\]", "(84 / 2)"),
                (r" \(30 \times 12\).", "30 * 12"),
                (r" \( 84 \div 2 \)", "84 / 2"),
                (r" $30 + 12$ = $42$", "30 + 12"),
                (r" 3 \* 4", "3 * 4"),
                (" \"30 + 12\".", "30 + 12"),
                (" [30 + 12].", "30 + 12"),
                (" [30 + 12] * 2.", "[30 + 12] * 2"),
                (" （３０ ＋ １２）。", "(30 + 12)"),
                (" (30 + 12). So they have 42 apples.", "(30 + 12)"),
                (" **(30 + 12)**. That is 42.", "(30 + 12)"),
                (" (30 + 12)\nThat is 42.", "(30 + 12)"),
                (" 1.5 + 2. That is it.", "1.5 + 2"),
                (" (30 + 12)\n- 2", "(30 + 12) - 2"),
                (" (30 + 12)\n- x", "(30 + 12)\n- x"),
                (" (30 + 12).\n\nQ", "(30 + 12).\n\nQ"),
                (" (2 + 2) = 4.", "(2 + 2)"),
                (" 2 + 2 = 4 = 8 / 2", "2 + 2"),
                (" (2 + 2) = 5", "(2 + 2) = 5"),
                (" x = 5", "x = 5"),
                (" 2 + 2 = four", "2 + 2 = four"),
                (" 2 + 2 =", "2 + 2 ="),
                (" (some - 8).", "(some - 8)"),
                (" 42 apples. 43", "42 apples. 43"),
                (" **30** + 12 apples", "**30** + 12 apples"),
                (r" 3\frac{1}{2}", r"3\frac{1}{2}"),
                (" .", ""),
            ],
        );
    }

    /// What stands for the second option of three.
    const WATER: &[&str] = &[
        "**(b)** body of water.",
        "(b) **body of water**.",
        "(b): body of water.",
        "(b). body of water.",
        "option (b).",
        "choice (b) body of water.",
        "the correct option (b)",
        "Option B: body of water",
        "(b) \"body of water\".",
        "(b) “body of water.”",
        "（b） body of water.",
        "（ｂ）ｂｏｄｙ of water",
        "(b)",
        "(B)",
        "b)",
        "b.",
        "b",
        "B",
        "**b**",
        "`b`",
        "[b]",
        "[b] body of water",
        "[body of water]",
        "'body of water'",
        "\"(b) body of water\"",
        "(b) - body of water",
        "b) body of water",
        "b. body of water",
        "b: body of water",
        "b - body of water",
        r"\boxed{b}",
        r"$\boxed{\text{(b)}}$.",
        r"\text{(b) body of water}",
        "(b) <b>body of water</b>",
        "body of water!",
        "(body of water)",
        "- body of water",
        "\n\n(b) body of water",
        "*(b) body of water*. Water carries boats.",
        "(b). Boats float on it.",
        "(b)\nBoats float.",
        ":\n\n**(b)**",
    ];

    #[test]
    fn options_are_read_in_the_forms_that_models_write() {
        let set = ["garden shed", "body of water", "attic"];
        let known: Vec<String> = set.iter().map(|label| (*label).to_owned()).collect();
        for after in WATER {
            let label = written(AnswerShape::Choice, &known, after).unwrap_or_default();
            assert_eq!(
                canonical(&known, &label).map(String::as_str),
                Some("body of water"),
                "{after:?}: {label:?}"
            );
        }
        check(
            AnswerShape::Choice,
            &set,
            &[
                ("(b) river.", "river"),
                ("(b) or (c).", "or (c)"),
                ("(b) because boats float.", "because boats float"),
                ("either (a) or (b)", "either (a) or (b)"),
                ("(z)", "(z)"),
                ("b. because boats float", ""),
                ("a boat", ""),
                ("one of them", ""),
                ("option", ""),
            ],
        );
        check(
            AnswerShape::Choice,
            &[],
            &[("**(b)** river.", "river"), ("river.", "river"), ("B. Smith", "B. Smith")],
        );
        check(AnswerShape::Choice, &["a", "b", "(a) c"], &[("b", "b"), ("(a) c", "(a) c"), ("(a)", "a")]);
    }

    #[test]
    fn texts_are_read_through_their_markup() {
        let set = ["entailment", "neutral", "“quoted”", "no", "no. 5"];
        check(
            AnswerShape::Text,
            &set,
            &[
                ("** entailment", "entailment"),
                (" 'entailment'", "entailment"),
                (" `entailment`.", "entailment"),
                (" **Neutral.**", "Neutral"),
                (" neutral. It may be so.", "neutral"),
                (" neutral!", "neutral"),
                ("\n\n---\n> neutral", "neutral"),
                (r" $\text{neutral}$", "neutral"),
                (" ｎｅｕｔｒａｌ", "neutral"),
                (" “quoted”.", "“quoted”"),
                (" no. 5.", "no. 5"),
                (" no. It is not.", "no"),
                (" neutral or no", "neutral or no"),
                (" neutral, no", "neutral, no"),
            ],
        );
        check(
            AnswerShape::Text,
            &[],
            &[
                (" **Saturday**.", "Saturday"),
                (" \"Saturday.\"", "Saturday"),
                (" Saturday. I hope this helps!", "Saturday"),
                (" Saturday. It rains.\nMore.", "Saturday. It rains"),
                (r" \boxed{\text{Saturday}}.", "Saturday"),
                (" $5.", "$5"),
                (" C#.", "C#"),
                (" .\nSaturday", ""),
            ],
        );
    }
}
