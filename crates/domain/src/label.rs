//! Comparing labels by a task's metric.

use crate::equation;
use crate::task::Metric;

/// Values closer than this share of the larger one are equal.
const TOLERANCE: f64 = 1e-6;
/// Values closer than this are equal whatever their size: what subtraction leaves of rounding near zero.
const TOLERANCE_NEAR_ZERO: f64 = 1e-9;

/// `text` as it is compared: trimmed, lower case, inner white space folded, a final full stop removed.
pub fn normalise(text: &str) -> String {
    let trimmed = text.trim();
    let words: Vec<&str> = trimmed.strip_suffix('.').unwrap_or(trimmed).split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Whether two labels are the same by `metric`. Equations are equal in value (relative tolerance 1e-6); one that cannot
/// be read equals nothing, except an identical text.
pub fn same(metric: Metric, left: &str, right: &str) -> bool {
    match metric {
        Metric::Text => normalise(left) == normalise(right),
        Metric::Equation => match (equation::value(left), equation::value(right)) {
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

    fn check(metric: Metric, left: &str, right: &str, expected: bool) {
        assert_eq!(same(metric, left, right), expected, "{metric}: {left:?} and {right:?}");
        assert_eq!(same(metric, right, left), expected, "{metric}: {right:?} and {left:?}");
    }

    #[test]
    fn text_is_folded() {
        assert_eq!(normalise("  Body \n of  Water. "), "body of water");
        assert_eq!(normalise("."), "");
        check(Metric::Text, "French government", "french government.", true);
        check(Metric::Text, "a  b", "a b", true);
        check(Metric::Text, "a b", "ab", false);
        check(Metric::Text, "( 4 + 2 )", "( 2 + 4 )", false);
        check(Metric::Text, "ÉTÉ", "été", true);
    }

    #[test]
    fn equations_are_valued() {
        check(Metric::Equation, "(84 / 2)", "( 84.0 / 2.0 )", true);
        check(Metric::Equation, "(67 * 66) / 6", "67 * ( 66 / 6 )", true);
        check(Metric::Equation, "1 / 3", "0.3333333", true);
        check(Metric::Equation, "1 / 3", "0.33", false);
        check(Metric::Equation, "1000000", "1000002", false);
        check(Metric::Equation, "0.1 + 0.2 - 0.3", "0", true);
        check(Metric::Equation, "0.00001", "0.00002", false);
        check(Metric::Equation, "(some - 8)", "(5 - 8)", false);
        check(Metric::Equation, "(some - 8)", " (some - 8)", true);
    }
}
