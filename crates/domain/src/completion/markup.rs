//! Markup around an answer and its parts: markdown, quotes, brackets, HTML, and the delimiters of LaTeX.
//!
//! Only what stands around a text is removed, never what stands inside: `We use **addition** here` stays as it is.

use std::borrow::Cow;

/// Most layers of markup that are removed: more is no formatting.
pub(super) const LAYERS_MAX: usize = 24;

/// Characters that open and close alike, in runs of any length (`*`, `**`, three backticks).
const FENCES: &[char] = &['*', '_', '`', '~', '$', '"', '\''];
/// Those of them of which one without a partner is what is left of markup that began or ended elsewhere. A lone `$` is a
/// currency, a lone `'` an apostrophe.
const LONE_FENCES: &[char] = &['*', '_', '`', '~', '"'];

/// What opens and closes differently, and encloses a text as a whole.
const PAIRS: &[(&str, &str)] = &[
    ("“", "”"),
    ("„", "“"),
    ("„", "”"),
    ("”", "”"),
    ("‘", "’"),
    ("‚", "‘"),
    ("«", "»"),
    ("»", "«"),
    ("‹", "›"),
    ("「", "」"),
    ("『", "』"),
    ("[", "]"),
    ("［", "］"),
    ("【", "】"),
    ("{", "}"),
];

/// Pairs of which one half without the other is what is left of markup that began or ended elsewhere.
const LONE_PAIRS: &[(&str, &str)] = &[
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("<b>", "</b>"),
    ("<strong>", "</strong>"),
    ("<i>", "</i>"),
    ("<em>", "</em>"),
    ("<u>", "</u>"),
    ("<p>", "</p>"),
    ("<mark>", "</mark>"),
    ("<code>", "</code>"),
    ("<span>", "</span>"),
    ("<answer>", "</answer>"),
    ("<br>", "<br/>"),
    ("“", "”"),
];

/// LaTeX commands that show their one argument, up to its brace.
pub(super) const SHOWN: &[&str] = &[
    "boxed",
    "fbox",
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "texttt",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "emph",
    "mbox",
    "operatorname",
];

/// The whole answer without a block quote, a code fence or quotes around all of it.
pub(super) fn unquoted(text: &str) -> Cow<'_, str> {
    let mut quoted = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    let shown = if quoted.peek().is_some() && quoted.all(|line| line.trim_start().starts_with('>')) {
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim_start().strip_prefix('>').unwrap_or(line))
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        Cow::Owned(lines.join("\n"))
    } else {
        Cow::Borrowed(text)
    };
    match unwrapped(shown.trim()) {
        Some(inner) => Cow::Owned(inner.to_owned()),
        None => shown,
    }
}

/// `text` after each layer of markup: first as it is, last without any. One full stop is a layer too, since it may stand
/// inside or outside of the others.
pub(super) fn layers(text: &str) -> Vec<&str> {
    let mut layers = vec![text.trim()];
    let mut stop = true;
    for _ in 0..LAYERS_MAX {
        let last = layers.last().copied().unwrap_or_default();
        let next = match unwrapped(last) {
            Some(inner) => Some(inner),
            None if stop && last.ends_with(['.', '。', '．']) => {
                stop = false;
                last.strip_suffix(['.', '。', '．'])
            }
            None => without_lead(last).or_else(|| without_lone(last)),
        };
        match next {
            Some(inner) => layers.push(inner.trim()),
            None => break,
        }
    }
    layers
}

/// `text` without any markup around it, and without its full stop.
pub(super) fn bare(text: &str) -> &str {
    layers(text).last().copied().unwrap_or_default()
}

/// The inside of `text`, where markup encloses it as a whole.
pub(super) fn unwrapped(text: &str) -> Option<&str> {
    let fenced = FENCES.iter().find_map(|fence| unfenced(text, *fence));
    fenced
        .or_else(|| PAIRS.iter().chain(LONE_PAIRS).find_map(|(open, close)| enclosed(text, open, close)))
        .or_else(|| {
            let (command, _) = text.strip_prefix('\\')?.split_once('{')?;
            let shown = SHOWN.contains(&command.trim());
            shown.then(|| enclosed(text.strip_prefix('\\')?.strip_prefix(command)?, "{", "}"))?
        })
}

fn unfenced(text: &str, fence: char) -> Option<&str> {
    let inner = text.trim_start_matches(fence);
    let inside = inner.trim_end_matches(fence);
    let (before, behind) = (text.len() - inner.len(), inner.len() - inside.len());
    if before == 0 || behind == 0 || inside.is_empty() || runs(text, fence) != 2 {
        return None;
    }
    let width = before.min(behind);
    let content = text.get(width..text.len() - width)?;
    // The first line of a code block may name a language.
    let named = |(first, rest): (&str, &'_ str)| {
        let name = fence == '`' && width >= 3 && first.chars().all(char::is_alphanumeric);
        (name && !rest.trim().is_empty()).then_some(first.len())
    };
    content.split_once('\n').and_then(named).map_or(Some(content), |name| content.get(name..))
}

/// How many runs of `fence` in `text` may open or close something: not one inside a word or expression (`snake_case`,
/// `3*4`), and not one by itself (`3 * 4`).
pub(super) fn runs(text: &str, fence: char) -> usize {
    let mut count = 0;
    let mut before: Option<char> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == fence {
            let mut length = 1;
            while characters.next_if_eq(&fence).is_some() {
                length += 1;
            }
            let behind = characters.peek().copied();
            let both = |is: fn(char) -> bool| before.is_some_and(is) && behind.is_some_and(is);
            let sign =
                both(char::is_alphanumeric) || both(char::is_whitespace) || (fence == '~' && length < 2);
            count += usize::from(!sign);
        }
        before = Some(character);
    }
    count
}

/// What stands between `open` and `close`, where they belong together.
pub(super) fn enclosed<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let inner = text.strip_prefix(open)?.strip_suffix(close)?;
    let mut depth = 0_usize;
    let mut before: Option<char> = None;
    for (place, character) in inner.char_indices() {
        let from = inner.get(place..)?;
        let behind = from.chars().nth(1);
        let apostrophe = character == '’'
            && before.is_some_and(char::is_alphanumeric)
            && behind.is_some_and(char::is_alphanumeric);
        if from.starts_with(close) && !apostrophe {
            depth = depth.checked_sub(1)?;
        } else if from.starts_with(open) {
            depth += 1;
        }
        before = Some(character);
    }
    (depth == 0).then_some(inner)
}

/// `text` without the mark of a heading, a quote or a colon in front of it.
pub(super) fn without_lead(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix([':', '：']) {
        return Some(rest);
    }
    let rest = text.trim_start_matches('#').trim_start_matches('>');
    (rest.len() < text.len() && (rest.is_empty() || rest.starts_with(char::is_whitespace))).then_some(rest)
}

/// `text` without one half of markup at its start or end, whose other half is not in it.
pub(super) fn without_lone(text: &str) -> Option<&str> {
    let fence = LONE_FENCES.iter().find_map(|fence| {
        let odd = runs(text, *fence) % 2 == 1;
        let (head, tail) = (text.trim_start_matches(*fence), text.trim_end_matches(*fence));
        if tail.len() < text.len() && (odd || tail.ends_with(char::is_whitespace)) {
            Some(tail)
        } else {
            (head.len() < text.len() && (odd || head.starts_with(char::is_whitespace))).then_some(head)
        }
    });
    fence.or_else(|| {
        LONE_PAIRS.iter().find_map(|(open, close)| {
            let (opened, closed) = (text.matches(open).count(), text.matches(close).count());
            let tail = text.strip_suffix(close).filter(|_| closed > opened);
            let head = text.strip_prefix(open).filter(|_| opened > closed);
            tail.or_else(|| text.strip_suffix(open)).or(head).or_else(|| text.strip_prefix(close))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(bare(text), expected, "{text:?}");
    }

    #[test]
    fn markup_around_a_text_is_removed() {
        for text in [
            "**a b**",
            "*a b*",
            "***a b***",
            "__a b__",
            "_a b_",
            "`a b`",
            "```\na b\n```",
            "```text\na b\n```",
            "~~a b~~",
            "\"a b\"",
            "'a b'",
            "“a b”",
            "„a b“",
            "‘a b’",
            "«a b»",
            "»a b«",
            "「a b」",
            "[a b]",
            "【a b】",
            "{a b}",
            "$a b$",
            "$$a b$$",
            r"\(a b\)",
            r"\[ a b \]",
            r"\boxed{a b}",
            r"$\boxed{\text{a b}}$",
            "<b>a b</b>",
            "### a b",
            "> a b",
            "**a b.**",
            "**a b**.",
            "*\"a b.\"*",
            "**: a b",
            "** a b",
            "a b.**",
            "a b”",
            "a b\\]",
            "a b </b>",
            "a b。",
        ] {
            check(text, "a b");
        }
    }

    #[test]
    fn markup_inside_a_text_is_kept() {
        for text in [
            "",
            "a **b** c",
            "**a** and **b**",
            "snake_case",
            "3 * 4",
            "3*4",
            "$5",
            "the dogs'",
            "'a' or 'b'",
            "[a] or [b]",
            "“a” or “b”",
            "(a b)",
            "C#",
            "a > b",
            "#1",
            "~5",
            r"\frac{1}{2}",
            "{a} {b}",
            "- 5",
            "don't",
        ] {
            check(text, text);
        }
        check("a..", "a.");
        check("‘don’t’", "don’t");
        check("'don't'", "don't");
        check("`a_b`", "a_b");
    }

    #[test]
    fn a_whole_answer_is_unquoted() {
        let check = |text: &str, expected: &str| assert_eq!(unquoted(text), expected, "{text:?}");
        check("> a\n>\n> b", "a\n\nb");
        check("> a\nb", "> a\nb");
        check("```\na\nb\n```", "\na\nb\n");
        check("\"a. b\"", "a. b");
        check("\n\nQ: a", "\n\nQ: a");
        check("\n", "\n");
    }
}
