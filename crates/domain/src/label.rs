//! Comparing labels by a task's rule.

use crate::equation;
use crate::named::named;
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

named!(
    /// How two labels are compared.
    Comparison {
        /// Equal after normalisation (Unicode's compatibility forms, case, white space, final full stop).
        Text = "text",
        /// Equal in value as arithmetic expressions.
        Equation = "equation",
    }
);

/// Values closer than this share of the larger one are equal.
const TOLERANCE: f64 = 1e-6;
/// Values closer than this are equal whatever their size: what subtraction leaves of rounding near zero.
const TOLERANCE_NEAR_ZERO: f64 = 1e-9;

/// `text` as it is compared: in Unicode's normalisation form KC (so that `ｙｅｓ`, a no-break space, and an accent of its own
/// are what they look like), trimmed, lower case, inner white space folded, a final full stop removed.
pub fn normalise(text: &str) -> String {
    let composed: Cow<'_, str> =
        if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfkc().collect()) };
    let trimmed = composed.trim();
    let sentence = trimmed.strip_suffix(['.', '。']).unwrap_or(trimmed);
    let words: Vec<&str> = sentence.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Whether two labels are the same by `comparison`. Equations are equal in value (relative tolerance 1e-6); one that cannot
/// be read equals nothing, except an identical text.
pub fn same(comparison: Comparison, left: &str, right: &str) -> bool {
    match comparison {
        Comparison::Text => normalise(left) == normalise(right),
        Comparison::Equation => match (equation::value(left), equation::value(right)) {
            (Some(left), Some(right)) => {
                let tolerance = (TOLERANCE * left.abs().max(right.abs())).max(TOLERANCE_NEAR_ZERO);
                (left - right).abs() <= tolerance
            }
            _ => left.trim() == right.trim(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(comparison: Comparison, left: &str, right: &str, expected: bool) {
        assert_eq!(same(comparison, left, right), expected, "{comparison}: {left:?} and {right:?}");
        assert_eq!(same(comparison, right, left), expected, "{comparison}: {right:?} and {left:?}");
    }

    #[test]
    fn text_is_folded() {
        assert_eq!(normalise("  Body \n of  Water. "), "body of water");
        assert_eq!(normalise("."), "");
        check(Comparison::Text, "French government", "french government.", true);
        check(Comparison::Text, "a  b", "a b", true);
        check(Comparison::Text, "a b", "ab", false);
        check(Comparison::Text, "( 4 + 2 )", "( 2 + 4 )", false);
        check(Comparison::Text, "ÉTÉ", "été", true);
        check(Comparison::Text, "e\u{301}te\u{301}", "été", true);
        check(Comparison::Text, "ｙｅｓ。", "yes", true);
        check(Comparison::Text, "ﬁne\u{a0}art", "fine art", true);
        check(Comparison::Text, "№ 5", "no 5", true);
        check(Comparison::Text, "naïve", "naive", false);
    }

    #[test]
    fn equations_are_valued() {
        check(Comparison::Equation, "(84 / 2)", "( 84.0 / 2.0 )", true);
        check(Comparison::Equation, "(67 * 66) / 6", "67 * ( 66 / 6 )", true);
        check(Comparison::Equation, "1 / 3", "0.3333333", true);
        check(Comparison::Equation, "1 / 3", "0.33", false);
        check(Comparison::Equation, "1000000", "1000002", false);
        check(Comparison::Equation, "0.1 + 0.2 - 0.3", "0", true);
        check(Comparison::Equation, "0.00001", "0.00002", false);
        check(Comparison::Equation, "（８４ ÷ ２）", "(84 / 2)", true);
        check(Comparison::Equation, "(some - 8)", "(5 - 8)", false);
        check(Comparison::Equation, "(some - 8)", " (some - 8)", true);
    }
}
