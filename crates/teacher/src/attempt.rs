//! How long to wait before the next call, after one that failed.

use std::time::Duration;

/// Longest wait between two calls.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The wait after a refusal that names none.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
/// The part of a wait that jitter adds at most.
const JITTER: f64 = 0.1;

/// The wait before the next call after `failures` failed ones: exponential with full jitter (`jitter` in [0, 1)), and never
/// less than what the server asked for.
pub(crate) fn backoff(failures: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    let ceiling =
        BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(BACKOFF_MAX);
    ceiling
        .mul_f64(jitter.clamp(0.0, 1.0))
        .max(asked.filter(|asked| !asked.is_zero()).map_or(Duration::ZERO, |asked| later(asked, jitter)))
}

/// The wait of a refused prompt: what the server asked for (zero for nothing) with jitter (`jitter` in [0, 1)) on top.
pub(crate) fn later(asked: Duration, jitter: f64) -> Duration {
    let asked = if asked.is_zero() { REFUSED_WAIT } else { asked };
    asked.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_and_is_bounded() {
        assert_eq!(backoff(1, None, 1.0), Duration::from_millis(250));
        assert_eq!(backoff(3, None, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(40, None, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(3, None, 0.0), Duration::ZERO);
        assert_eq!(backoff(3, Some(Duration::from_secs(7)), 0.5), Duration::from_millis(7_350));
        assert_eq!(backoff(5, Some(Duration::from_millis(10)), 0.5), Duration::from_secs(2));
        assert_eq!(later(Duration::from_secs(30), 0.0), Duration::from_secs(30));
        assert_eq!(later(Duration::from_secs(30), 1.0), Duration::from_secs(33));
        assert_eq!(later(Duration::ZERO, 0.0), REFUSED_WAIT);
    }
}
