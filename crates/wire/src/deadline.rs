//! The caller's deadline, as gRPC writes it.

use std::time::Duration;

/// The header that carries it.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Most digits of its number.
const DIGITS_MAX: usize = 8;

/// The time that a caller gives, from the text of `grpc-timeout`: up to eight digits and one of H M S m u n. `None` where
/// it is written otherwise.
pub fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_and_its_unit() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("+1S", None),
            ("1s", None),
            ("1.5S", None),
            ("1é", None),
        ] {
            assert_eq!(timeout_of(text), wanted, "{text:?}");
        }
    }
}
