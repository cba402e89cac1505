//! How long to wait before the next call, after one that failed.

use std::time::Duration;

/// Longest wait between two calls.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The wait before the next call after `failures` failed ones: what the server asked for, else exponential with full jitter
/// (`jitter` in [0, 1)).
pub(crate) fn backoff(failures: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    if let Some(asked) = asked {
        return asked;
    }
    let ceiling =
        BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(BACKOFF_MAX);
    ceiling.mul_f64(jitter.clamp(0.0, 1.0))
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
        assert_eq!(backoff(3, Some(Duration::from_secs(7)), 0.5), Duration::from_secs(7));
    }
}
