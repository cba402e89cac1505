//! The Retry-After header in both of its forms (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// Longest wait that is honoured.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The wait that `value` asks for: a number of seconds, or the time from `now` to a date.
pub(crate) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Duration::from_secs_f64(seconds.min(1e6)),
        Ok(_) => return None,
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, seconds: Option<f64>| {
            assert_eq!(parse(value, now), seconds.map(Duration::from_secs_f64), "{value}");
        };
        check("2", Some(2.0));
        check(" 0.5 ", Some(0.5));
        check("-1", None);
        check("soon", None);
        check("99999999", Some(900.0));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10.0));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0.0));
    }
}
