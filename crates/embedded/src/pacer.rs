//! One profile's limits at one moment: the rules of [`domain::pacing`] over plain values. It has no clock; every time is in
//! microseconds since one beginning.

use domain::pacing::{self, MINUTE_US};
use domain::ports::{CallCost, CallOutcome, RateLimits, SeenLimit, WaitReason};
use std::collections::HashMap;
use std::time::Duration;

/// A booking is forgotten after this long without an end.
const BOOKING_MAX_US: i64 = 3_600_000_000;
const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;
/// The hours that make up a day: the one that began, and those that may lie within 24 hours.
const HOURS: i64 = 25;
/// How long callers wait for a call to end before they look again by themselves.
const FULL_WAIT_US: i64 = 50_000;
const PROBE_WAIT_US: i64 = 250_000;

/// What a reservation comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reserved {
    /// Booked under this number, to start at this time.
    At(u64, i64),
    /// Not before this many microseconds.
    After(i64, WaitReason),
}

#[derive(Debug)]
struct BookedCall {
    booked_at: i64,
    start: i64,
    /// Until when it counts as in flight without being renewed.
    live_until: i64,
    cost: CallCost,
    debits: [f64; 4],
    /// The parts of the limits that it takes, and of all limits that the bookings up to it took.
    shares: [f64; 4],
    taken: f64,
}

/// What was taken of the limits before a second began, in parts of a minute's limit: booked, and returned of that.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    second: i64,
    taken: f64,
    returned: f64,
}

/// Requests and tokens of one hour.
#[derive(Debug, Clone, Copy, Default)]
struct Hour {
    hour: i64,
    requests: u64,
    tokens: u64,
}

/// Output tokens a second, over about a second.
#[derive(Debug, Default)]
struct Measure {
    began_at: i64,
    level: usize,
    calls: f64,
    full: f64,
    tokens: f64,
    latency: f64,
    best: Option<f64>,
    /// Tokens a second by the binary logarithm of the ceiling.
    throughput: [Option<f64>; 16],
}

/// The state of one profile.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// When each limit's schedule is free again.
    next: [f64; 4],
    held_until: i64,
    reason: WaitReason,
    probing: bool,
    probe: Option<u64>,
    /// The part of the limits that was refused, and when.
    refused: Option<(f64, i64)>,
    burst_at: i64,
    strikes: f64,
    early: f64,
    failures: f64,
    openings: f64,
    opened_at: i64,
    ceiling: f64,
    concurrency_max: f64,
    growing: bool,
    answers: f64,
    answered_at: Option<i64>,
    seen: [Option<(u64, i64)>; 4],
    taken: f64,
    returned: f64,
    marks: [Mark; 64],
    hours: Vec<Hour>,
    measure: Measure,
    bookings: HashMap<u64, BookedCall>,
    numbers: u64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            next: [0.0; 4],
            held_until: 0,
            reason: WaitReason::Refused,
            probing: false,
            probe: None,
            refused: None,
            burst_at: -1,
            strikes: 0.0,
            early: 0.0,
            failures: 0.0,
            openings: 0.0,
            opened_at: -1,
            ceiling: pacing::CEILING_FIRST,
            concurrency_max: f64::MAX,
            growing: true,
            answers: 0.0,
            answered_at: None,
            seen: [None; 4],
            taken: 0.0,
            returned: 0.0,
            marks: [Mark { second: i64::MIN, taken: 0.0, returned: 0.0 }; 64],
            hours: Vec::new(),
            measure: Measure::default(),
            bookings: HashMap::new(),
            numbers: 0,
        }
    }
}

impl Pacer {
    /// Books a call, or says how long not to.
    pub(crate) fn reserve(&mut self, now: i64, limits: &RateLimits, cost: CallCost) -> Reserved {
        if let Some(wait) = self.obstacle(now, None) {
            return wait;
        }
        if let Some(wait) = self.day_full(now, limits, cost) {
            return Reserved::After(wait, WaitReason::Day);
        }
        self.concurrency_max = limits.concurrency_max as f64;
        if self.in_flight(now) as f64 >= self.ceiling().floor() {
            return Reserved::After(FULL_WAIT_US, WaitReason::Concurrency);
        }
        let factor = self.factor(now);
        let (mut start, mut shares, mut debits) = (now as f64, [0.0_f64; 4], [0.0_f64; 4]);
        let places = self.limits(now, limits).into_iter().zip(cost.by_dimension());
        let kept = debits.iter_mut().zip(&mut shares).zip(&self.next);
        for (((debit, share), next), (limit, cost)) in kept.zip(places) {
            let Some(limit) = limit else { continue };
            let (cost, limit) = (cost as f64, limit.max(1) as f64);
            *debit = pacing::debit(cost, limit * factor);
            start = start.max(next - pacing::tolerance(*debit));
            *share = cost / limit;
        }
        let start = start.ceil() as i64;
        if start - now > pacing::BOOKED_AHEAD_MAX_US {
            return Reserved::After(start - now, WaitReason::Rate);
        }
        for (next, debit) in self.next.iter_mut().zip(debits).filter(|(_, debit)| *debit > 0.0) {
            *next = next.max(start as f64) + debit;
        }
        Reserved::At(self.book(now, start, cost, debits, shares), start)
    }

    /// What keeps a booked call from starting; the booking is returned.
    pub(crate) fn start(&mut self, now: i64, number: u64) -> Option<(i64, WaitReason)> {
        let Some(Reserved::After(wait, reason)) = self.obstacle(now, Some(number)) else {
            if let Some(booking) = self.bookings.get_mut(&number) {
                booking.start = now;
                booking.live_until = now.saturating_add(permit_us());
            }
            return None;
        };
        self.settle(now, number, CallOutcome::NotSent, &[], 0.0);
        Some((wait, reason))
    }

    /// How a call ended; `jitter` is in [0, 1).
    pub(crate) fn settle(
        &mut self,
        now: i64,
        number: u64,
        outcome: CallOutcome,
        seen: &[SeenLimit],
        jitter: f64,
    ) {
        let in_flight = self.in_flight(now);
        let Some(booking) = self.bookings.remove(&number) else { return };
        let was_probe = self.probe == Some(number);
        if was_probe {
            self.probe = None;
        }
        self.return_unused(&booking, outcome);
        for seen in seen {
            self.see(now, *seen);
        }
        match outcome {
            CallOutcome::NotSent | CallOutcome::Unknown => {}
            CallOutcome::Answered { used, took } => {
                self.answered_at = Some(now);
                self.failures = 0.0;
                if booking.start > self.burst_at.max(self.opened_at) {
                    (self.probing, self.strikes, self.openings) = (false, 0.0, 0.0);
                }
                self.grow(in_flight);
                self.measure(now, in_flight, used, took);
            }
            CallOutcome::Refused { wait } => self.refuse(now, &booking, wait, jitter),
            CallOutcome::Failed { wait, overloaded } => {
                self.fail(now, &booking, was_probe, (wait, overloaded), jitter);
            }
        }
    }

    /// These calls are still being made.
    pub(crate) fn renew(&mut self, now: i64, numbers: &[u64]) {
        for number in numbers {
            if let Some(booking) = self.bookings.get_mut(number) {
                booking.live_until = booking.start.max(now).saturating_add(permit_us());
            }
        }
    }

    /// Calls booked or in flight.
    pub(crate) fn in_flight(&self, now: i64) -> usize {
        self.bookings.values().filter(|booking| booking.live_until > now).count()
    }

    /// The ceiling, within the profile's.
    pub(crate) fn ceiling(&self) -> f64 {
        self.ceiling.min(self.concurrency_max).max(1.0)
    }

    /// The part of the limits that is used.
    pub(crate) fn factor(&self, now: i64) -> f64 {
        let seconds = |at: i64| (now - at) as f64 / SECOND_US as f64;
        self.refused.map_or(1.0, |(refused, at)| pacing::factor(refused, seconds(at)))
    }

    /// Until when nobody is asked.
    pub(crate) fn held_until(&self) -> i64 {
        self.held_until
    }

    pub(crate) fn answered_at(&self) -> Option<i64> {
        self.answered_at
    }

    /// A pause, or the probe that ends it; `number` is a booking that wants to start and may be that probe.
    fn obstacle(&mut self, now: i64, number: Option<u64>) -> Option<Reserved> {
        if self.held_until > now {
            return Some(Reserved::After(self.held_until - now, self.reason));
        }
        if !self.probing {
            return None;
        }
        let alive = |number: &u64| self.bookings.get(number).filter(|booking| booking.live_until > now);
        let taken = |booking: &BookedCall| now - booking.start >= pacing::PROBE_TAKEN_US;
        if self.reason != WaitReason::Failed && self.probe.as_ref().and_then(alive).is_some_and(taken) {
            self.probing = false;
            return None;
        }
        match self.probe.filter(|probe| alive(probe).is_some()) {
            Some(probe) if Some(probe) != number => Some(Reserved::After(PROBE_WAIT_US, WaitReason::Probe)),
            Some(_) => None,
            None => {
                self.probe = number;
                None
            }
        }
    }

    fn limits(&self, now: i64, limits: &RateLimits) -> [Option<u64>; 4] {
        let mut found = limits.by_dimension();
        for (limit, seen) in found.iter_mut().zip(&self.seen) {
            if let Some((seen, _)) = seen.filter(|(_, until)| *until > now) {
                *limit = Some(limit.map_or(seen, |limit| limit.min(seen)));
            }
        }
        found
    }

    fn book(&mut self, now: i64, start: i64, cost: CallCost, debits: [f64; 4], shares: [f64; 4]) -> u64 {
        let second = start.div_euclid(SECOND_US);
        let place = usize::try_from(second.rem_euclid(64)).unwrap_or(0);
        if let Some(mark) = self.marks.get_mut(place).filter(|mark| mark.second != second) {
            *mark = Mark { second, taken: self.taken, returned: self.returned };
        }
        self.taken += most(shares);
        self.count_hour(now, 1, i128::from(cost.tokens()));
        let number = self.numbers;
        if number.is_multiple_of(256) {
            self.bookings.retain(|_, booking| now - booking.booked_at < BOOKING_MAX_US);
        }
        self.numbers = self.numbers.wrapping_add(1);
        let live_until = start.saturating_add(permit_us());
        let taken = self.taken;
        self.bookings
            .insert(number, BookedCall { booked_at: now, start, live_until, cost, debits, shares, taken });
        if self.probing {
            self.probe = Some(number);
        }
        number
    }

    /// Gives back what a call did not use; what was sent stays counted as a request.
    fn return_unused(&mut self, booking: &BookedCall, outcome: CallOutcome) {
        let used = match outcome {
            CallOutcome::Answered { used, .. } => used,
            CallOutcome::Unknown => booking.cost,
            CallOutcome::NotSent | CallOutcome::Refused { .. } | CallOutcome::Failed { .. } => {
                CallCost::default()
            }
        };
        let sent = outcome != CallOutcome::NotSent;
        let mut parts = [f64::from(u8::from(sent)), 0.0, 0.0, 0.0];
        let pairs = booking.cost.by_dimension().into_iter().zip(used.by_dimension());
        for (part, (booked, used)) in
            parts.iter_mut().zip(pairs).skip(1).filter(|(_, (booked, _))| *booked > 0)
        {
            *part = used as f64 / booked as f64;
        }
        let mut shares = booking.shares;
        let kept = self.next.iter_mut().zip(booking.debits).zip(&mut shares);
        for (((next, debit), share), part) in kept.zip(parts) {
            *next -= debit * (1.0 - part);
            *share *= part;
        }
        self.returned += most(booking.shares) - most(shares);
        let requests = if sent { 0 } else { -1 };
        self.count_hour(
            booking.booked_at,
            requests,
            i128::from(used.tokens()) - i128::from(booking.cost.tokens()),
        );
    }

    fn count_hour(&mut self, at: i64, requests: i64, tokens: i128) {
        let hour = at.div_euclid(HOUR_US);
        if !self.hours.iter().any(|counted| counted.hour == hour) {
            self.hours.retain(|counted| hour - counted.hour < HOURS);
            self.hours.push(Hour { hour, ..Hour::default() });
        }
        if let Some(counted) = self.hours.iter_mut().find(|counted| counted.hour == hour) {
            counted.requests = counted.requests.saturating_add_signed(requests);
            let sum = i128::from(counted.tokens).saturating_add(tokens);
            counted.tokens = u64::try_from(sum.max(0)).unwrap_or(u64::MAX);
        }
    }

    /// How long until the last 24 hours have room for the call; `None` where they have.
    fn day_full(&self, now: i64, limits: &RateLimits, cost: CallCost) -> Option<i64> {
        let hour = now.div_euclid(HOUR_US);
        let mut hours: Vec<&Hour> = self.hours.iter().filter(|counted| hour - counted.hour < HOURS).collect();
        hours.sort_by_key(|counted| counted.hour);
        let full = |from: usize| {
            let rest = || hours.iter().skip(from);
            let requests = rest().map(|counted| counted.requests).fold(1, u64::saturating_add);
            let tokens = rest().map(|counted| counted.tokens).fold(cost.tokens(), u64::saturating_add);
            limits.requests_per_day.is_some_and(|limit| requests > limit)
                || limits.tokens_per_day.is_some_and(|limit| tokens > limit)
        };
        // Room comes when enough of the oldest hours have left the day.
        let leaves = (0..=hours.len()).find(|from| !full(*from)).unwrap_or(hours.len());
        let last = hours.get(leaves.checked_sub(1)?)?;
        Some(((last.hour + HOURS) * HOUR_US - now).max(1))
    }

    fn see(&mut self, now: i64, seen: SeenLimit) {
        let reset = seen.reset.map(microseconds);
        let about_a_minute = reset.is_none_or(|reset| reset <= pacing::SEEN_RESET_MAX_US);
        if let (Some(limit), true) = (seen.limit.filter(|limit| *limit > 0), about_a_minute)
            && let Some(place) = self.seen.get_mut(seen.dimension.place())
        {
            *place = Some((limit, now.saturating_add(pacing::SEEN_MAX_US)));
        }
        if let (Some(0), Some(reset)) = (seen.remaining, reset) {
            self.hold(now, reset.min(pacing::NOTHING_LEFT_MAX_US), WaitReason::Rate);
        }
    }

    fn hold(&mut self, now: i64, wait: i64, reason: WaitReason) {
        let until = now.saturating_add(wait);
        if until > self.held_until {
            (self.held_until, self.reason) = (until, reason);
        }
    }

    fn refuse(&mut self, now: i64, booking: &BookedCall, asked: Option<Duration>, jitter: f64) {
        let asked = asked.map(|wait| microseconds(wait) as f64);
        let jittered = |wait: f64| (wait * (1.0 + pacing::JITTER * jitter)).ceil() as i64;
        if booking.start <= self.burst_at {
            // A call of the burst that was refused already.
            if let Some(asked) = asked {
                self.hold(now, jittered(asked), WaitReason::Refused);
            }
            return;
        }
        self.cut(now);
        self.strikes += 1.0;
        let (used, oldest) = self.used(booking);
        let plausible = used >= pacing::PLAUSIBLE * self.factor(now);
        if self.strikes <= 1.0 {
            self.early = used;
        }
        if plausible {
            self.learn(now, used);
        } else if self.strikes >= 2.0 && self.early > 0.0 {
            let early = std::mem::take(&mut self.early);
            self.learn(now, early);
        }
        let again = if self.strikes > 1.0 { pacing::refused_wait(self.strikes) } else { 0.0 };
        let wait = match asked {
            Some(asked) => asked.max(again),
            // What was sent in the last minute begins to leave the window then.
            None if plausible => again.max(((oldest + 61) * SECOND_US - now).max(SECOND_US) as f64),
            None => again.max(pacing::refused_wait(1.0)),
        };
        (self.probing, self.probe) = (true, None);
        self.hold(now, jittered(wait), WaitReason::Refused);
    }

    /// What was taken of the limits in the minute before a call started, and the second of the first call in it.
    fn used(&self, booking: &BookedCall) -> (f64, i64) {
        let from = (booking.start - MINUTE_US as i64).div_euclid(SECOND_US);
        let first = self.marks.iter().filter(|mark| mark.second > from).min_by_key(|mark| mark.second);
        let Some(first) = first else { return (0.0, from) };
        let used = booking.taken - first.taken - (self.returned - first.returned);
        (used.max(0.0), first.second)
    }

    fn learn(&mut self, now: i64, used: f64) {
        let most = pacing::FACTOR_CUT * self.factor(now);
        if used > 0.0 {
            self.refused = Some((used.min(most).max(pacing::FACTOR_LEAST), now));
        }
    }

    /// A burst of refusals begins.
    fn cut(&mut self, now: i64) {
        self.burst_at = now;
        self.growing = false;
        self.answers = 0.0;
        self.ceiling = (self.ceiling() * pacing::CEILING_CUT).max(1.0);
    }

    fn fail(
        &mut self,
        now: i64,
        booking: &BookedCall,
        was_probe: bool,
        (asked, overloaded): (Option<Duration>, bool),
        jitter: f64,
    ) {
        if overloaded && booking.start > self.burst_at {
            self.cut(now);
        }
        let asked = asked.map_or(0.0, |wait| microseconds(wait) as f64 * (1.0 + pacing::JITTER * jitter));
        if asked > 0.0 {
            self.hold(now, asked.ceil() as i64, WaitReason::Failed);
        }
        if booking.start <= self.opened_at {
            return;
        }
        self.failures += 1.0;
        if was_probe || self.failures >= pacing::FAILURES_MAX {
            self.openings += 1.0;
            let wait = pacing::failed_wait(self.openings, jitter).max(asked);
            (self.failures, self.opened_at, self.probing, self.probe) = (0.0, now, true, None);
            self.hold(now, wait.ceil() as i64, WaitReason::Failed);
        }
    }

    fn grow(&mut self, in_flight: usize) {
        let used = 2.0 * in_flight as f64 >= self.ceiling();
        self.answers += 1.0;
        if used && (self.growing || self.answers >= pacing::CEILING_ANSWERS) {
            self.answers = 0.0;
            self.ceiling = (self.ceiling() + 1.0).min(self.concurrency_max).max(1.0);
        }
    }

    fn measure(&mut self, now: i64, in_flight: usize, used: CallCost, took: Duration) {
        let ceiling = self.ceiling();
        let level = usize::try_from(ceiling.log2().floor() as i64).unwrap_or(0).min(15);
        let measure = &mut self.measure;
        if measure.calls == 0.0 || measure.level != level {
            let (best, throughput) = (measure.best, measure.throughput);
            *measure = Measure { began_at: now, level, best, throughput, ..Measure::default() };
        }
        let tokens = used.tokens_out.max(1) as f64;
        measure.calls += 1.0;
        measure.full += f64::from(u8::from(in_flight as f64 >= 0.8 * ceiling.floor()));
        measure.tokens += tokens;
        measure.latency += took.as_secs_f64() / tokens;
        let passed = now - measure.began_at;
        if passed < pacing::MEASURED_US || measure.calls < 2.0 * ceiling {
            return;
        }
        let (latency, throughput) = (measure.latency / measure.calls, measure.tokens / passed as f64);
        let full = measure.full >= 0.8 * measure.calls;
        let best = measure.best.map_or(latency, |best| latency.min(best * 1.01));
        (measure.calls, measure.best) = (0.0, Some(best));
        if !full {
            return;
        }
        if let Some(place) = measure.throughput.get_mut(level) {
            *place = Some(throughput);
        }
        let of_half = level.checked_sub(1).and_then(|half| measure.throughput.get(half).copied().flatten());
        if pacing::is_saturated(latency, best, throughput, of_half) {
            self.growing = false;
            self.answers = 0.0;
            self.ceiling = (ceiling * pacing::CEILING_CUT).max(1.0);
        }
    }
}

fn most(shares: [f64; 4]) -> f64 {
    shares.into_iter().fold(0.0, f64::max)
}

fn permit_us() -> i64 {
    microseconds(pacing::PERMIT_MAX)
}

pub(crate) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}
