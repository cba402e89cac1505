//! The answers to several questions in one text, each under the number of its question.

use super::thoughts::split_thoughts;

/// Marks that may stand before a number: of a list, a quote, a heading or emphasis.
const BEFORE: &[char] = &['*', '_', '#', '>', '-', '`', ' ', '\t', '\u{3000}'];
/// What may stand between a number and its answer.
const BEHIND: &[char] = &['*', '_', '`', ':', ' ', '\t', '\u{3000}'];

/// A line that begins with a number.
struct Numbered {
    number: usize,
    /// Where the line begins, in bytes.
    line: usize,
    /// Where the answer begins, in bytes.
    answer: usize,
}

/// The answers in `text` to `count` questions, without thoughts: that to the question with number n at n - 1.
///
/// An answer stands behind its number in square brackets at the start of a line (`[2]`, `**[2]**:`), or, in a text that has no such
/// line, behind `2.`, `2)` or `2:`, up to the next number. `None` where a question's number is not there, is there more than
/// once, or has nothing behind it: nothing is guessed.
pub fn split_answers(text: &str, count: usize) -> Vec<Option<String>> {
    let (_, text) = split_thoughts(text);
    let bracketed = numbered(&text, in_brackets);
    let lines = if bracketed.is_empty() { numbered(&text, plain) } else { bracketed };
    (1..=count).map(|number| answer(&text, &lines, number)).collect()
}

fn answer(text: &str, lines: &[Numbered], number: usize) -> Option<String> {
    let mut own = lines.iter().enumerate().filter(|(_, line)| line.number == number);
    let (place, line) = own.next()?;
    if own.next().is_some() {
        return None;
    }
    let end = lines.get(place + 1).map_or(text.len(), |next| next.line);
    let answer = text.get(line.answer..end)?.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

/// The lines of `text` that begin with a number, as `read` finds it; that returns the number and what is left of the line.
fn numbered(text: &str, read: impl Fn(&str) -> Option<(usize, &str)>) -> Vec<Numbered> {
    let mut start = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        if let Some((number, rest)) = read(line.trim_start_matches(BEFORE)) {
            found.push(Numbered { number, line: start, answer: end - rest.trim_start_matches(BEHIND).len() });
        }
        start = end;
    }
    found
}

fn in_brackets(line: &str) -> Option<(usize, &str)> {
    let (inside, rest) =
        line.strip_prefix('[').or_else(|| line.strip_prefix('【'))?.split_once([']', '】'])?;
    Some((digits(inside.trim())?, rest))
}

fn plain(line: &str) -> Option<(usize, &str)> {
    let (number, rest) = line.split_once(['.', ')', ':'])?;
    Some((digits(number.trim_end_matches(BEHIND))?, rest))
}

fn digits(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, count: usize, expected: &[Option<&str>]) {
        let expected: Vec<Option<String>> = expected.iter().map(|answer| answer.map(str::to_owned)).collect();
        assert_eq!(split_answers(text, count), expected, "{text:?}");
    }

    #[test]
    fn answers_stand_under_their_numbers() {
        check("[1]\nOne. So 1.\n\n[2]\nTwo.\nSo 2.", 2, &[Some("One. So 1."), Some("Two.\nSo 2.")]);
        check("Sure!\n**[1]** One.\n**[2]:** Two.", 2, &[Some("One."), Some("Two.")]);
        check("> [1]: One.\r\n> [2]: Two.\r\n", 2, &[Some("One."), Some("Two.")]);
        check("[2] Two.\n[1] One.", 2, &[Some("One."), Some("Two.")]);
        check("1. One.\n2) Two.\n**3:** Three.", 3, &[Some("One."), Some("Two."), Some("Three.")]);
        check("【1】One.\n【2】Two.", 2, &[Some("One."), Some("Two.")]);
        check("<think>[1] no\n[2] no</think>[1] One.\n[2] Two.", 2, &[Some("One."), Some("Two.")]);
        // Steps of a rationale are no answers where brackets are.
        check("[1]\n1. add\n2. take\n[2]\nTwo.", 2, &[Some("1. add\n2. take"), Some("Two.")]);
    }

    #[test]
    fn nothing_is_guessed() {
        check("[1] One.\n[3] Three.", 3, &[Some("One."), None, Some("Three.")]);
        check("[1] One.\n[2] Two.\n[2] Again.", 2, &[Some("One."), None]);
        check("[1] One.\n[2]\n\n[3] Three.", 3, &[Some("One."), None, Some("Three.")]);
        // What runs on under further numbers belongs to nobody.
        check("[1] One.\n[2] Two.\n[3] Q: more?", 2, &[Some("One."), Some("Two.")]);
        check("We add. The answer is (1 + 2).", 2, &[None, None]);
        check("", 2, &[None, None]);
        check("[99999999999999999999999] x\n[1] One.", 1, &[Some("One.")]);
        check("[1] One.", 0, &[]);
    }

    proptest! {
        #[test]
        fn any_text_has_as_many_answers_as_questions(text in "[\\[\\]【】0-9.): \\n*a-c]{0,60}", count in 0_usize..6) {
            let answers = split_answers(&text, count);
            prop_assert_eq!(answers.len(), count);
            for answer in answers.into_iter().flatten() {
                prop_assert!(!answer.trim().is_empty() && text.contains(answer.lines().next().unwrap_or_default()));
            }
        }

        #[test]
        fn what_was_numbered_is_split_again(answers in prop::collection::vec("[a-zA-Z ,.=+]{0,20}[a-z][a-z.]{0,5}", 1..8)) {
            let text: String = answers.iter().enumerate().map(|(place, answer)| format!("[{}]\n{answer}\n\n", place + 1)).collect();
            let expected: Vec<Option<String>> = answers.iter().map(|answer| Some(answer.trim().to_owned())).collect();
            prop_assert_eq!(split_answers(&text, answers.len()), expected);
        }
    }
}
