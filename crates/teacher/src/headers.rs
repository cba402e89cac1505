//! What an answer's headers say of limits: how long to wait, and what is left of which limit.

use crate::retry_after;
use http::HeaderMap;
use std::time::{Duration, SystemTime};

/// Longest time until a limit is whole again that is believed: a day and some.
const RESET_MAX: Duration = Duration::from_secs(36 * 60 * 60);

/// The largest limit that is believed: what is more stands for none.
const LIMIT_MAX: f64 = 1e12;

/// One limit of a server as it stood after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitState {
    /// The limit; whether it is one of a minute or of a day, few servers tell.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// When it is whole again.
    pub reset: Option<Duration>,
}

impl LimitState {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits that a server told in the headers `x-ratelimit-*` or `anthropic-ratelimit-*`. What is absent, -1, 0
/// or more than a million million is not known; 0 that remain of a known limit are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimitHeaders {
    /// Requests.
    pub requests: LimitState,
    /// Tokens, in and out together.
    pub tokens: LimitState,
    /// Tokens of prompts.
    pub tokens_in: LimitState,
    /// Tokens of completions.
    pub tokens_out: LimitState,
}

impl RateLimitHeaders {
    /// What `headers`, which came at `now`, tell.
    pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let state = |kinds: &[&str]| {
            kinds
                .iter()
                .map(|kind| one_limit(headers, kind, now))
                .find(|state| !state.is_unknown())
                .unwrap_or_default()
        };
        Self {
            // Mistral names the minute.
            requests: state(&["requests", "req-minute"]),
            tokens: state(&["tokens", "tokens-minute"]),
            tokens_in: state(&["input-tokens"]),
            tokens_out: state(&["output-tokens"]),
        }
    }

    /// When the first call may be made, where a limit has nothing left.
    pub(crate) fn used_up_for(&self) -> Option<Duration> {
        [self.requests, self.tokens, self.tokens_in, self.tokens_out]
            .into_iter()
            .filter(|state| state.remaining == Some(0))
            .filter_map(|state| state.reset)
            .max()
    }
}

/// OpenAI writes `x-ratelimit-limit-requests`, Anthropic `anthropic-ratelimit-requests-limit`.
fn one_limit(headers: &HeaderMap, kind: &str, now: SystemTime) -> LimitState {
    let text = |what: &str| {
        let value = headers
            .get(format!("x-ratelimit-{what}-{kind}"))
            .or_else(|| headers.get(format!("anthropic-ratelimit-{kind}-{what}")))?;
        value.to_str().ok().map(str::trim)
    };
    let number = |what: &str| text(what).and_then(whole);
    let limit = number("limit").filter(|limit| *limit > 0);
    LimitState {
        limit,
        remaining: number("remaining").filter(|remaining| *remaining > 0 || limit.is_some()),
        reset: text("reset").and_then(|text| reset(text, now)).filter(|reset| !reset.is_zero()),
    }
}

/// A number of requests or tokens; some servers write a fraction.
fn whole(text: &str) -> Option<u64> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=LIMIT_MAX).contains(number))?;
    Some(number as u64)
}

/// A duration ("6m0s", "12ms"), a number of seconds, or a time (RFC 3339).
fn reset(text: &str, now: SystemTime) -> Option<Duration> {
    let wait = match duration(text) {
        Some(duration) => duration,
        None => date(text)?.duration_since(now).unwrap_or(Duration::ZERO),
    };
    (wait <= RESET_MAX).then_some(wait)
}

/// A duration as Go writes it, such as `1h2m3.5s` or `12ms`; a bare number is one of seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.');
        let (number, after) = rest.split_at_checked(digits.unwrap_or(rest.len()))?;
        let number: f64 = number.parse().ok()?;
        let units = after.find(|character: char| character.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(units)?;
        seconds += number
            * match unit {
                "d" => 86_400.0,
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                "" if seconds == 0.0 && after.is_empty() => 1.0,
                _ => return None,
            };
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// A time such as `2026-11-27T10:00:05Z` (RFC 3339).
fn date(text: &str) -> Option<SystemTime> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(SystemTime::from)
}

/// The wait that a refusal's headers ask for: `retry-after-ms`, else `Retry-After` in both of its forms.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let milliseconds = text("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok());
    let milliseconds = milliseconds.and_then(|wait| retry_after::parse(&(wait / 1e3).to_string(), now));
    milliseconds.or_else(|| retry_after::parse(text(http::header::RETRY_AFTER.as_str())?, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27T10:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_773_600)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn state(limit: u64, remaining: u64, reset_ms: u64) -> LimitState {
        let reset = Some(Duration::from_millis(reset_ms)).filter(|reset| !reset.is_zero());
        LimitState { limit: Some(limit), remaining: Some(remaining), reset }
    }

    #[test]
    fn resets_are_durations_or_times() {
        let check = |text: &str, seconds: Option<f64>| {
            assert_eq!(reset(text, now()), seconds.map(Duration::from_secs_f64), "{text}");
        };
        check("6m0s", Some(360.0));
        check("12ms", Some(0.012));
        check("1h2m3.5s", Some(3_723.5));
        check("7.66s", Some(7.66));
        check("37", Some(37.0));
        check("1d", Some(86_400.0));
        check("2d", None);
        check("-1", None);
        check("", None);
        check("soon", None);
        check("5x", None);
        check("1m7", None);
        check("2026-11-27T10:00:05Z", Some(5.0));
        check("2026-11-27T12:00:05.5+02:00", Some(5.5));
        check("2026-11-27T09:00:05-01:00", Some(5.0));
        check("2026-11-27T09:59:05Z", Some(0.0));
        check("2026-11-28T10:00:00Z", Some(86_400.0));
        check("2028-02-29T00:00:00Z", None);
        check("2026-13-27T10:00:05Z", None);
        check("2026-11-27", None);
    }

    #[test]
    fn every_server_s_headers_are_read() {
        let check = |pairs: &[(&'static str, &'static str)], expected: RateLimitHeaders| {
            assert_eq!(RateLimitHeaders::read(&headers(pairs), now()), expected, "{pairs:?}");
        };
        check(&[], RateLimitHeaders::default());
        check(
            &[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-requests", "1s"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            RateLimitHeaders {
                requests: state(60, 59, 1_000),
                tokens: state(150_000, 149_984, 360_000),
                ..RateLimitHeaders::default()
            },
        );
        check(
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-requests-reset", "2026-11-27T10:00:07Z"),
                ("anthropic-ratelimit-input-tokens-limit", "40000"),
                ("anthropic-ratelimit-input-tokens-remaining", "39000"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
                ("anthropic-ratelimit-output-tokens-remaining", "8000"),
            ],
            RateLimitHeaders {
                requests: state(50, 0, 7_000),
                tokens_in: state(40_000, 39_000, 0),
                tokens_out: state(8_000, 8_000, 0),
                ..RateLimitHeaders::default()
            },
        );
        check(
            &[("x-ratelimit-limit-req-minute", "30"), ("x-ratelimit-remaining-req-minute", "29")],
            RateLimitHeaders { requests: state(30, 29, 0), ..RateLimitHeaders::default() },
        );
        let unknown = [
            ("x-ratelimit-limit-requests", "-1"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "0s"),
            ("x-ratelimit-limit-tokens", "many"),
            ("x-ratelimit-remaining-tokens", "-1"),
            ("x-ratelimit-reset-tokens", "-1"),
        ];
        check(&unknown, RateLimitHeaders::default());
        let absurd = [
            ("x-ratelimit-limit-requests", "18446744073709551615"),
            ("x-ratelimit-remaining-requests", "1e300"),
            ("x-ratelimit-limit-tokens", "1000000000001"),
            ("x-ratelimit-remaining-tokens", "inf"),
        ];
        check(&absurd, RateLimitHeaders::default());
        let zero = [("x-ratelimit-limit-requests", "0"), ("x-ratelimit-remaining-requests", "0")];
        check(&zero, RateLimitHeaders::default());
    }

    #[test]
    fn the_wait_is_read_from_either_header() {
        let check = |pairs: &[(&'static str, &'static str)], seconds: Option<f64>| {
            assert_eq!(
                retry_after(&headers(pairs), now()),
                seconds.map(Duration::from_secs_f64),
                "{pairs:?}"
            );
        };
        check(&[("retry-after", "7")], Some(7.0));
        check(&[("retry-after-ms", "1500"), ("retry-after", "2")], Some(1.5));
        check(&[("retry-after-ms", "soon"), ("retry-after", "2")], Some(2.0));
        check(&[("retry-after", "Fri, 27 Nov 2026 10:00:09 GMT")], Some(9.0));
        check(&[], None);
    }
}
