//! Where the marker stands between rationale and label.

use crate::width::narrow;

/// What stands on both sides of the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sides<'a> {
    pub(super) before: &'a str,
    pub(super) after: &'a str,
    /// Whether the marker stands there to the letter.
    pub(super) exact: bool,
}

/// What stands on both sides of `marker`, where it stands exactly once in `text` up to the end that `ends` finds behind
/// its first place.
///
/// The marker to the letter counts alone. Only where it is nowhere, it may be in other case, have a comma or markup
/// between its words, or full-width letters: `So, the **answer** is`, `**Answer**:`.
pub(super) fn sides<'a>(text: &'a str, marker: &str, ends: impl Fn(&'a str) -> &'a str) -> Option<Sides<'a>> {
    if let Some((before, after)) = text.split_once(marker) {
        let after = ends(after);
        return (!after.contains(marker)).then_some(Sides { before, after, exact: true });
    }
    let (before, after) = split_loosely(text, marker)?;
    let after = ends(after);
    split_loosely(after, marker).is_none().then_some(Sides { before, after, exact: false })
}

fn split_loosely<'a>(text: &'a str, marker: &str) -> Option<(&'a str, &'a str)> {
    let mut inside_word = false;
    for (place, character) in text.char_indices() {
        if !inside_word {
            let (before, from) = text.split_at_checked(place)?;
            if let Some(after) = strip_loosely(from, marker.trim()) {
                return Some((before, after));
            }
        }
        inside_word = character.is_alphanumeric();
    }
    None
}

/// `text` behind `marker`, where it begins with it.
fn strip_loosely<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    let mut rest = text;
    let mut last = ' ';
    for wanted in marker.chars() {
        if wanted.is_whitespace() {
            let next = rest.trim_start_matches(is_gap);
            if next.len() == rest.len() && !last.is_whitespace() {
                return None;
            }
            rest = next;
        } else {
            let first = last == ' ' && rest.len() == text.len();
            let next = match (first, wanted.is_alphanumeric()) {
                (true, _) => rest,
                (false, true) => rest.trim_start_matches(is_markup),
                (false, false) => rest.trim_start_matches(is_gap),
            };
            let mut characters = next.chars();
            if !same_letter(characters.next()?, wanted) {
                return None;
            }
            rest = characters.as_str();
        }
        last = wanted;
    }
    let whole = !last.is_alphanumeric() || !rest.starts_with(char::is_alphanumeric);
    whole.then_some(rest)
}

fn is_markup(character: char) -> bool {
    matches!(character, '*' | '_' | '`' | '~')
}

fn is_gap(character: char) -> bool {
    is_markup(character) || matches!(character, ',' | '，') || character.is_whitespace()
}

fn same_letter(written: char, wanted: char) -> bool {
    written == wanted || narrow(written).to_lowercase().eq(wanted.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, marker: &str, expected: Option<(&str, &str, bool)>) {
        let found = sides(text, marker, |after| after).map(|sides| (sides.before, sides.after, sides.exact));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn the_marker_stands_once() {
        let marker = "So the answer is";
        check("Deep. So the answer is b.", marker, Some(("Deep. ", " b.", true)));
        check("Deep. So the answer is b. So the answer is c.", marker, None);
        check("so the answer is b. So the answer is c.", marker, Some(("so the answer is b. ", " c.", true)));
        check("Deep. So, the answer is b.", marker, Some(("Deep. ", " b.", false)));
        check("Deep, so the\nanswer is b.", marker, Some(("Deep, ", " b.", false)));
        check("Deep. **So**, the **answer** is: b.", marker, Some(("Deep. **", ": b.", false)));
        check("Deep. Ｓｏ　the answer is b.", marker, Some(("Deep. ", " b.", false)));
        check("Deep. so the answer is b. So, the answer is b.", marker, None);
        check("Also the answer is b.", marker, None);
        check("So the answer isn't b.", marker, Some(("", "n't b.", true)));
        check("so the answer isn't b.", marker, None);
        check("So theanswer is b.", marker, None);
        check("So the answer", marker, None);
    }

    #[test]
    fn punctuation_of_the_marker_may_stand_apart() {
        check("It is.\n**Answer**: no", "Answer:", Some(("It is.\n**", " no", false)));
        check("It is.\nANSWER : no", "Answer:", Some(("It is.\n", " no", false)));
        check("It is.\nAnswer：no", "Answer:", Some(("It is.\n", "no", false)));
        check("It is.\nAnswer no", "Answer:", None);
    }
}
