//! Arithmetic expressions, read and valued, never evaluated as code.

use crate::width::narrow;
use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of parentheses and signs.
pub const DEPTH_MAX: usize = 64;

/// The value of an arithmetic expression over decimal numbers, `+ - * /`, unary minus and parentheses, such as
/// `( 84.0 / 2.0 )`; `None` where `text` is no such expression, divides by zero, or has no finite value.
///
/// Numbers may have thousands separators (`1,000`) and an exponent (`1e3`), and brackets may be square; full-width forms are
/// read as ASCII, and `x`, `×`, `·`, `÷`, the typographic minus and the dashes that are written for it as the operators
/// they stand for. Anything else (names, units, `=`, two expressions) is no expression.
pub fn value(text: &str) -> Option<f64> {
    let ascii: String = text.chars().map(plain).collect();
    let mut reader = ExpressionParser { rest: ascii.chars().peekable(), depth: 0 };
    let value = reader.sum()?;
    match reader.next_token() {
        None if value.is_finite() => Some(value),
        _ => None,
    }
}

/// `character` as the parser knows it.
fn plain(character: char) -> char {
    match narrow(character) {
        'x' | 'X' | '×' | '·' | '⋅' | '∗' => '*',
        '÷' | '∕' | '⁄' => '/',
        '−' | '–' | '‐' | '‑' => '-',
        other => other,
    }
}

/// Recursive descent, one function a level of binding: sum, product, factor, number.
struct ExpressionParser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl ExpressionParser<'_> {
    /// The next character that is no white space, not taken.
    fn next_token(&mut self) -> Option<char> {
        while self.rest.next_if(|character| character.is_whitespace()).is_some() {}
        self.rest.peek().copied()
    }

    fn sum(&mut self) -> Option<f64> {
        let mut total = self.product()?;
        loop {
            let sign = match self.next_token() {
                Some('+') => 1.0,
                Some('-') => -1.0,
                _ => return Some(total),
            };
            self.rest.next();
            total += sign * self.product()?;
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut total = self.factor()?;
        loop {
            let divides = match self.next_token() {
                Some('*') => false,
                Some('/') => true,
                _ => return Some(total),
            };
            self.rest.next();
            let factor = self.factor()?;
            if divides && factor == 0.0 {
                return None;
            }
            total = if divides { total / factor } else { total * factor };
        }
    }

    fn factor(&mut self) -> Option<f64> {
        match self.next_token()? {
            '(' => self.bracketed(')'),
            '[' => self.bracketed(']'),
            '-' => self.nested(|reader| reader.factor().map(|value| -value)),
            _ => self.number(),
        }
    }

    fn bracketed(&mut self, close: char) -> Option<f64> {
        self.nested(|reader| {
            let value = reader.sum()?;
            (reader.next_token() == Some(close)).then(|| reader.rest.next())?;
            Some(value)
        })
    }

    /// Takes one character and reads what stands inside it, unless that is too deep.
    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<f64>) -> Option<f64> {
        self.rest.next();
        self.depth += 1;
        let value = if self.depth > DEPTH_MAX { None } else { read(self) };
        self.depth -= 1;
        value
    }

    fn number(&mut self) -> Option<f64> {
        let mut digits = self.digits();
        if (1..=3).contains(&digits.len()) {
            while let Some(group) = self.thousands() {
                digits.push_str(&group);
            }
        }
        if self.rest.next_if_eq(&'.').is_some() {
            digits.push('.');
            digits.push_str(&self.digits());
        }
        digits.push_str(&self.exponent().unwrap_or_default());
        // "" and "." are no numbers, and `parse` says so; it cannot meet a sign before them, or `inf`.
        digits.parse().ok()
    }

    /// Takes `e3` or `E-05`, as programs write large and small numbers, or nothing.
    fn exponent(&mut self) -> Option<String> {
        let mut ahead = ExpressionParser { rest: self.rest.clone(), depth: 0 };
        ahead.rest.next_if(|character| matches!(character, 'e' | 'E'))?;
        let sign = ahead.rest.next_if(|character| matches!(character, '+' | '-')).unwrap_or('+');
        let digits = ahead.digits();
        if digits.is_empty() {
            return None;
        }
        self.rest = ahead.rest;
        Some(format!("e{sign}{digits}"))
    }

    fn digits(&mut self) -> String {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        digits
    }

    /// Takes `,` and exactly three digits, or nothing.
    fn thousands(&mut self) -> Option<String> {
        let mut ahead = ExpressionParser { rest: self.rest.clone(), depth: 0 };
        ahead.rest.next_if_eq(&',')?;
        let digits = ahead.digits();
        if digits.len() != 3 {
            return None;
        }
        self.rest = ahead.rest;
        Some(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<f64>) {
        assert_eq!(value(text), expected, "{text:?}");
    }

    #[test]
    fn expressions_have_values() {
        check("( 84.0 / 2.0 )", Some(42.0));
        check("(12 - 2) - 7", Some(3.0));
        check("12 - (2 - 7)", Some(17.0));
        check("2 + 3 * 4 - 6 / 2", Some(11.0));
        check("10 - 4 - 3", Some(3.0));
        check("48 / 4 / 2", Some(6.0));
        check("-3 + 5", Some(2.0));
        check("4 * -2", Some(-8.0));
        check("-(2 + 3)", Some(-5.0));
        check("5 − 7", Some(-2.0));
        check("1,000 + 1", Some(1001.0));
        check("1,234,567.5", Some(1_234_567.5));
        check("3 x 4", Some(12.0));
        check("3 × 4 ÷ 2", Some(6.0));
        check("3 · 4 ⋅ 2 X 1 ∗ 1", Some(24.0));
        check("8 ∕ 4 ⁄ 2", Some(1.0));
        check("8 – 4 ‐ 2 ‑ 1", Some(1.0));
        check("[(1 + 2) * 2] / 3", Some(2.0));
        check("（３０　＋　１２）　／　２．０", Some(21.0));
        check("１，０００　－　１", Some(999.0));
        check(".5 * 2.", Some(1.0));
        check("\t7\n", Some(7.0));
        check("1e3 + 2.5E-1", Some(1000.25));
        check("1e+2", Some(100.0));
    }

    #[test]
    fn the_rest_is_no_expression() {
        for text in [
            "",
            " ",
            ".",
            "()",
            "(",
            ")",
            "1 +",
            "* 2",
            "(1 + 2",
            "1 + 2)",
            "1 2",
            "(2)(3)",
            "23 + x",
            "2x",
            "x",
            "some - 8",
            "7x = 14",
            "84 / 2 = 42",
            "175, 5",
            "1,00",
            "12,3456",
            "1234,567",
            "1.2.3",
            "1e",
            "1e+",
            "e5",
            "1e400",
            "inf",
            "NaN",
            "2 ** 3",
            "7 // 2",
            "$5",
            "5%",
            "1 / 0",
            "1 / (2 - 2)",
            "1 / (1 / 0)",
            "(8 / 4) and (6 / 4)",
            "+3",
            "٣",
            "5²",
            "½",
            "[1 + 2)",
            "(1 + 2]",
            "8 — 4",
        ] {
            check(text, None);
        }
        check(&"9".repeat(400), None);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        check(&nested(DEPTH_MAX), Some(1.0));
        check(&nested(DEPTH_MAX + 1), None);
        check(&nested(1_000_000), None);
        check(&format!("{}1", "-".repeat(1_000_000)), None);
        check(&format!("1{}", " + (1)".repeat(1_000)), Some(1001.0));
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = value(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_almost_expression_panics(text in "[0-9+*/()\\[\\].,x×÷−（）１＋\\- ]{0,80}") {
            prop_assert!(value(&text).is_none_or(f64::is_finite));
        }

        #[test]
        fn whole_numbers_are_valued_as_written(left in 0u32..100_000, right in 1u32..100_000) {
            let (first, second) = (f64::from(left), f64::from(right));
            prop_assert_eq!(value(&format!("({left} - {right}) * 2")), Some((first - second) * 2.0));
            prop_assert_eq!(value(&format!("{left} / {right}")), Some(first / second));
        }
    }
}
