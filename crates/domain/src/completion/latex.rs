//! LaTeX as plain text.

use super::markup::SHOWN;
use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 32;

/// `text` with its LaTeX written plainly: `\frac{84}{2}` is `(84 / 2)`, `\times` is `*`, `\text{apples}` is `apples`, and
/// `$`, `\(` and `\[` are gone. A command that is not known stays, and so does `text` where it is nested too deeply.
pub(super) fn plain(text: &str) -> String {
    let mut reader = Reader { rest: text.chars().peekable() };
    let mut written = String::new();
    // A closing brace without an opening one ends a sequence, and says nothing at the top.
    while reader.rest.peek().is_some() {
        match reader.sequence(0) {
            Some(part) => written.push_str(&part),
            None => return text.to_owned(),
        }
    }
    written.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    /// Reads to the closing brace, which is taken, or to the end; `None` where it is nested too deeply.
    fn sequence(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut written = String::new();
        while let Some(character) = self.rest.next() {
            match character {
                '}' => break,
                '{' => written.push_str(&self.sequence(depth + 1)?),
                '$' => {}
                '\\' => written.push_str(&self.command(depth)?),
                other => written.push(other),
            }
        }
        Some(written)
    }

    fn command(&mut self, depth: usize) -> Option<String> {
        let mut name = String::new();
        while let Some(letter) = self.rest.next_if(char::is_ascii_alphabetic) {
            name.push(letter);
        }
        let plain = match name.as_str() {
            "" => return Some(self.sign()),
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                let (above, below) = (self.argument(depth)?, self.argument(depth)?);
                return Some(format!("({} / {})", factor(&above), factor(&below)));
            }
            shown if SHOWN.contains(&shown) => return self.argument(depth),
            "times" | "cdot" | "ast" => "*",
            "div" => "/",
            "left" | "right" | "big" | "bigl" | "bigr" | "Big" | "Bigl" | "Bigr" | "displaystyle" => "",
            "quad" | "qquad" => " ",
            _ => return Some(format!("\\{name}")),
        };
        Some(plain.to_owned())
    }

    /// Reads behind a backslash that no letter follows: a delimiter, a space, or a character that markdown escapes.
    fn sign(&mut self) -> String {
        match self.rest.next() {
            Some('(' | ')' | '[' | ']' | ',' | ';' | ':' | '!') | None => String::new(),
            Some('\\' | ' ') => " ".to_owned(),
            Some(other) => other.to_string(),
        }
    }

    /// Reads `{...}`, or one character or command; `None` where it is nested too deeply.
    fn argument(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        while self.rest.next_if(|character| character.is_whitespace()).is_some() {}
        match self.rest.next() {
            Some('{') => self.sequence(depth + 1).map(|text| text.trim().to_owned()),
            Some('\\') => self.command(depth + 1),
            Some(other) => Some(other.to_string()),
            None => Some(String::new()),
        }
    }
}

/// `text` as one side of a fraction.
fn factor(text: &str) -> String {
    let number = text.chars().all(|character| character.is_ascii_digit() || matches!(character, '.' | ','));
    if number { text.to_owned() } else { format!("({text})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn latex_is_written_plainly() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected, "{text:?}");
        check(r"\frac{84}{2}", "(84 / 2)");
        check(r"\dfrac{84 + 2}{2}", "((84 + 2) / 2)");
        check(r"\frac12", "(1 / 2)");
        check(r"\frac{\frac{1}{2}}{3}", "(((1 / 2)) / 3)");
        check(r"30 \times 12 \div 2 \cdot 3", "30 * 12 / 2 * 3");
        check(r"$\boxed{30 + 12}$", "30 + 12");
        check(r"\[ \boxed{42} \]", "42");
        check(r"\left(30\,+\,12\right)", "(30+12)");
        check(r"1{,}000", "1,000");
        check(r"42 \text{ apples}", "42 apples");
        check(r"3 \* 4 \$ 5\%", "3 * 4 $ 5%");
        check(r"\sqrt{4}", r"\sqrt4");
        check(r"3^{2}", "3^2");
        check(r"42}$", "42");
        check(r"\frac{1", "(1 / )");
        check("\\", "");
        let deep = "{".repeat(1_000_000);
        check(&deep, &deep);
        let fractions = r"\frac".repeat(100_000);
        check(&fractions, &fractions);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"(\\frac|\\text|\\boxed|[a-z0-9{}$\\ é]){0,40}") {
            let _ = plain(&text);
        }
    }
}
