//! How calls to a teacher are paced: the rules that both rate limiters follow, and their figures.
//!
//! **Starts.** Each limit a minute is a virtual schedule (GCRA, the generic cell rate algorithm of ITU-T I.371): a call takes
//! its share of a minute, and starts when the schedule is no more than a second's burst ahead. The rate is so much below the
//! limit that no window of a minute, wherever it begins, holds more than the limit ([`debit`]): a server that counts the
//! calls of the last minute, refused ones included, never has a reason to refuse.
//!
//! **The real limit.** A refusal at a time when a good part of the configured limit was used in the last minute shows what
//! the real limit is: as much as was used. The rate falls to just below that and comes back along a cubic curve, which stays
//! near the value that was refused and then leaves it faster and faster ([`factor`]; the shape is CUBIC's, RFC 9438). A
//! refusal early in a minute may also mean too many calls at once: it counts as a rate only when the next call after the
//! wait is refused, too.
//!
//! **Calls at once.** The ceiling begins at [`CEILING_FIRST`] and grows by one with each answer until the teacher first refuses or is
//! overloaded; then it falls to [`CEILING_CUT`] of itself, once for a burst of refusals, and grows by one in
//! [`CEILING_ANSWERS`] answers. Where nobody says 429, it falls when seconds per output token are [`SLOWER`] times their best
//! and twice the calls at once brought less than [`GAIN`] times the tokens a second ([`is_saturated`]).
//!
//! **Refusals and failures.** After a refusal, or [`FAILURES_MAX`] failures in a row, nobody is asked until a wait is over: at
//! least what the server asked for, with jitter on top, else growing exponentially while nothing is answered. Then one call
//! probes; its answer ends the pause (after refusals, also that it is not refused within [`PROBE_TAKEN_US`]), its failure
//! doubles it.

/// The longest time ahead for which a call is booked. Callers that have to wait longer are free for something else.
pub const BOOKED_AHEAD_MAX_US: i64 = 60_000_000;
/// Bookings that are not renewed for this long have no caller.
pub const PERMIT_MAX: std::time::Duration = std::time::Duration::from_secs(20);
/// A minute, in microseconds.
pub const MINUTE_US: f64 = 60_000_000.0;
/// The burst: a second.
pub const BURST_US: f64 = 1_000_000.0;
/// How far the rate stays below the limit for calls that take different times to arrive.
pub const MARGIN: f64 = 1.005;

/// Calls at once before the teacher has answered.
pub const CEILING_FIRST: f64 = 64.0;
/// What is left of the ceiling after a burst of refusals.
pub const CEILING_CUT: f64 = 0.75;
/// Answers after which the ceiling grows by one.
pub const CEILING_ANSWERS: f64 = 25.0;

/// Failures in a row after which the teacher is not asked for a while.
pub const FAILURES_MAX: f64 = 5.0;
/// The first wait after a refusal that names none; it doubles while nothing is answered.
pub const REFUSED_FIRST_US: f64 = 2_000_000.0;
/// The first wait after failures, before jitter; it doubles while nothing is answered.
pub const FAILED_FIRST_US: f64 = 1_000_000.0;
/// The shortest wait after failures.
pub const FAILED_LEAST_US: f64 = 250_000.0;
/// The longest wait after refusals that no server asked for.
pub const REFUSED_MAX_US: f64 = 60_000_000.0;
/// The longest wait after failures that no server asked for.
pub const FAILED_MAX_US: f64 = 30_000_000.0;
/// A probe that is in flight for this long was not refused at the door: answers may take minutes, and a refusal does not.
pub const PROBE_TAKEN_US: i64 = 2_000_000;
/// The part of a wait that jitter adds at most.
pub const JITTER: f64 = 0.1;

/// The part of the limit that was used in the last minute from which on a refusal is about the limit.
pub const PLAUSIBLE: f64 = 0.3;
/// The least cut of the factor.
pub const FACTOR_CUT: f64 = 0.97;
/// The least factor: a limit is never learned to be less than a thousandth of the configured one.
pub const FACTOR_LEAST: f64 = 0.001;
/// Where the curve of the factor begins after a cut, as a part of the value that was refused.
pub const FACTOR_BEGIN: f64 = 0.95;
/// Seconds until the factor is back at the value that was refused.
pub const FACTOR_PLATEAU_S: f64 = 60.0;
/// How long a limit that a server told in its headers is believed.
pub const SEEN_MAX_US: i64 = 600_000_000;
/// Headers whose limit is whole again after more than this are not about a minute.
pub const SEEN_RESET_MAX_US: i64 = 61_000_000;
/// The longest wait when headers say that nothing remains: a server that refills evenly has something again soon, and one
/// that does not refuses with the time to wait.
pub const NOTHING_LEFT_MAX_US: i64 = 5_000_000;

/// How much slower an output token may become.
pub const SLOWER: f64 = 2.0;
/// How many times the tokens a second twice the calls at once should bring.
pub const GAIN: f64 = 1.2;
/// The shortest time over which tokens a second are measured.
pub const MEASURED_US: i64 = 1_000_000;

/// How long a call of `cost` keeps the schedule of `limit` a minute, in microseconds. Small calls may come in a burst of a
/// second, for which the rate makes room; of large ones (more than a sixtieth of the limit) a whole number fits into a minute.
pub fn debit(cost: f64, limit: f64) -> f64 {
    if cost <= 0.0 {
        return 0.0;
    }
    let limit = limit.max(f64::MIN_POSITIVE);
    let share = cost / limit;
    let minutes = if share * MINUTE_US <= BURST_US {
        share * MINUTE_US / (MINUTE_US - BURST_US)
    } else if share <= 1.0 {
        1.0 / (1.0 / share).floor()
    } else {
        share
    };
    minutes * MINUTE_US * MARGIN
}

/// How far a schedule may be ahead of the clock when a call with this debit starts, in microseconds: a second's burst, and
/// at least one call.
pub fn tolerance(debit: f64) -> f64 {
    (BURST_US - debit).max(0.0)
}

/// The part of the configured limits that is used `seconds` after a refusal at `refused` of them.
pub fn factor(refused: f64, seconds: f64) -> f64 {
    let width = FACTOR_PLATEAU_S / (1.0 - FACTOR_BEGIN).cbrt();
    let from_plateau = (seconds - FACTOR_PLATEAU_S) / width;
    (refused * (1.0 + from_plateau.powi(3))).clamp(FACTOR_LEAST, 1.0)
}

/// The wait before the next probe after failures, the `openings`-th time in a row (from 1), with `jitter` in [0, 1).
pub fn failed_wait(openings: f64, jitter: f64) -> f64 {
    let most = (FAILED_FIRST_US * 2_f64.powf((openings - 1.0).clamp(0.0, 30.0))).min(FAILED_MAX_US);
    (most * jitter).max(FAILED_LEAST_US)
}

/// The wait after the `strikes`-th refusal in a row (from 1) that names no wait.
pub fn refused_wait(strikes: f64) -> f64 {
    (REFUSED_FIRST_US * 2_f64.powf((strikes - 1.0).clamp(0.0, 30.0))).min(REFUSED_MAX_US)
}

/// Whether more calls at once only wait in the server: output tokens are slower than at best, and `throughput` is little more
/// than what about half the calls brought.
pub fn is_saturated(latency: f64, best: f64, throughput: f64, of_half: Option<f64>) -> bool {
    latency > SLOWER * best && of_half.is_some_and(|of_half| throughput < GAIN * of_half)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most calls of `cost` in any window of a minute, where they start as early as the schedule allows.
    fn most_in_a_minute(cost: f64, limit: f64) -> usize {
        let debit = debit(cost, limit);
        let (mut next, mut now, mut starts) = (0.0_f64, 0.0_f64, Vec::new());
        while now < 3.0 * MINUTE_US {
            now = now.max(next - tolerance(debit));
            next = next.max(now) + debit;
            starts.push(now);
        }
        let count = |(place, from): (usize, &f64)| {
            starts.partition_point(|start| *start < from + MINUTE_US).saturating_sub(place)
        };
        starts.iter().enumerate().map(count).max().unwrap_or(0)
    }

    #[test]
    fn no_window_holds_more_than_the_limit_and_the_rate_is_close_to_it() {
        for (cost, limit) in [
            (1.0, 6_000.0),
            (1.0, 100.0),
            (1.0, 61.0),
            (1.0, 60.0),
            (1.0, 59.0),
            (1.0, 7.0),
            (1.0, 1.0),
            (700.0, 60_000.0),
            (3_000.0, 10_000.0),
            (6_000.0, 10_000.0),
            (10_000.0, 10_000.0),
        ] {
            let calls = most_in_a_minute(cost, limit);
            assert!(calls as f64 * cost <= limit, "{calls} calls of {cost} under {limit}");
            assert!((calls + 1) as f64 * cost > 0.97 * limit, "{calls} calls of {cost} under {limit}");
            let a_minute = MINUTE_US / debit(cost, limit);
            let whole = if cost * 60.0 <= limit { limit / cost } else { (limit / cost).floor() };
            assert!(a_minute > 0.975 * whole && a_minute < whole, "{a_minute} of {whole} a minute");
        }
        assert!(debit(0.0, 10.0) == 0.0);
        assert!(debit(20.0, 10.0) > 1.9 * MINUTE_US, "what exceeds a learned limit takes minutes");
    }

    #[test]
    fn the_factor_stays_near_what_was_refused_and_then_leaves() {
        let check = |seconds: f64, least: f64, most: f64| {
            let found = factor(0.5, seconds);
            assert!((least..=most).contains(&found), "{found} after {seconds} s");
        };
        check(0.0, 0.475, 0.475_001);
        check(30.0, 0.49, 0.5);
        check(60.0, 0.5, 0.5);
        check(90.0, 0.5, 0.51);
        check(120.0, 0.52, 0.53);
        check(300.0, 1.0, 1.0);
        assert!(factor(0.01, 900.0) > 0.99, "a value that was learned by mistake is left behind");
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let check = |found: f64, seconds: f64| assert!((found - seconds * 1e6).abs() < 1.0, "{found}");
        check(refused_wait(1.0), 2.0);
        check(refused_wait(4.0), 16.0);
        check(refused_wait(1e9), 60.0);
        check(failed_wait(1.0, 0.5), 0.5);
        check(failed_wait(1.0, 0.0), 0.25);
        check(failed_wait(4.0, 0.5), 4.0);
        check(failed_wait(1e9, 1.0), 30.0);
    }

    #[test]
    fn a_server_is_saturated_where_more_calls_bring_no_more_tokens() {
        assert!(is_saturated(0.3, 0.1, 100.0, Some(95.0)));
        assert!(!is_saturated(0.15, 0.1, 100.0, Some(95.0)), "hardly slower");
        assert!(!is_saturated(0.3, 0.1, 180.0, Some(95.0)), "slower for each, and faster together");
        assert!(!is_saturated(0.3, 0.1, 100.0, None), "nothing to compare with");
    }
}
