//! Text from outside, made fit for a terminal.
//!
//! A teacher's answer, a cell of a file or a reason may hold what a terminal acts on: escape sequences that erase the
//! screen or set its title, carriage returns that overwrite a line, characters that reverse the direction of reading. Each is
//! shown as it would be written in a program, `\u{1b}`, so that a reader sees that it is there.

use std::borrow::Cow;

/// `text` on one line: everything that a terminal acts on is shown, line feeds too.
pub fn line(text: &str) -> Cow<'_, str> {
    shown(text, acts, |character| character.escape_default().to_string())
}

/// `text` on its lines: as [`line()`], but line feeds stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    shown(
        text,
        |character| character != '\n' && acts(character),
        |character| character.escape_default().to_string(),
    )
}

/// JSON on one line, which means the same: what a terminal acts on can only stand in its texts.
pub fn json(text: &str) -> Cow<'_, str> {
    shown(text, acts, |character| {
        let mut units = [0; 2];
        character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

fn shown(text: &str, is_shown: impl Fn(char) -> bool, show: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&is_shown) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_shown(character) {
            out.push_str(&show(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal does something else than show a character: control characters (C0, DEL, C1), line and paragraph
/// separators, marks and overrides of direction, and the invisible tags.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061C}'
                | '\u{200E}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2066}'..='\u{206F}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_shown() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected, "{text:?}");
        check("plain \u{e9} \u{4e2d} \u{1F980} \\n", "plain \u{e9} \u{4e2d} \u{1F980} \\n");
        check("\u{1b}[31mred\u{1b}]0;owned\u{7}", "\\u{1b}[31mred\\u{1b}]0;owned\\u{7}");
        check("a\0b\u{7f}\u{9b}2J\u{85}", "a\\u{0}b\\u{7f}\\u{9b}2J\\u{85}");
        check("one\ntwo\rthree\tfour", "one\\ntwo\\rthree\\tfour");
        check(
            "\u{202e}txt\u{2066}\u{200f}\u{2028}\u{e0041}",
            "\\u{202e}txt\\u{2066}\\u{200f}\\u{2028}\\u{e0041}",
        );
        assert_eq!(lines("one\ntwo\rthree\u{1b}"), "one\ntwo\\rthree\\u{1b}");
        for code in 0..=0x2_FFFF {
            let Some(character) = char::from_u32(code) else { continue };
            let shown = line(character.encode_utf8(&mut [0; 4])).into_owned();
            assert!(!shown.chars().any(char::is_control), "{code:x}");
        }
    }

    #[test]
    fn json_means_the_same() {
        let text = "\u{1b}\0\u{7f}\u{9b}\u{202e}\u{e0041}\n\"\\";
        let written = serde_json::to_string(&[text]).unwrap();
        let safe = json(&written);
        assert!(!safe.chars().any(acts), "{safe}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&safe).unwrap()[0], text);
    }
}
