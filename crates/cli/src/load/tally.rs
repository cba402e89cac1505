//! What came of a load: counts, and times in histograms of a bounded size (HDR: three digits of each, up to an hour).

use crate::args::Ask;
use anyhow::Context;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time that a histogram tells apart.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
/// Significant digits of every time.
const DIGITS: u8 = 3;
/// Codes of failures that are told apart, each with the words of its first.
pub(crate) type Failures = BTreeMap<String, (u64, String)>;
/// Versions that are told apart; answers of more are counted as unnamed.
const VERSIONS_MAX: usize = 64;

/// How a call ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was answered, by this version of a model where it was named.
    Answered(Option<String>),
    /// It was dropped, as it was meant to be.
    Dropped,
    /// The server had too much to do.
    Refused(String),
    /// Its deadline passed.
    Late,
    /// Anything else, with its code.
    Failed(String, String),
}

/// A call that is over; times are from when it was due.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ask: Ask,
    pub(crate) end: End,
    /// To when it was sent.
    pub(crate) sent: Duration,
    /// To its end.
    pub(crate) took: Duration,
    /// To a stream's first piece.
    pub(crate) first: Option<Duration>,
    /// From the begin of the load to its end.
    pub(crate) at: Duration,
}

/// Times.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

/// What is told of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Times {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS).context("a histogram")?))
    }

    fn record(&mut self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(microseconds.max(1));
    }

    /// `None` where there is none.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1e3;
        let all = Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.0.max() as f64 / 1e3 };
        (!self.0.is_empty()).then_some(all)
    }
}

/// What came of the calls of one kind.
#[derive(Debug, Clone)]
pub(crate) struct OfAsk {
    pub(crate) answered: u64,
    /// To the end of each answer.
    pub(crate) latency: Times,
    /// To the first piece of each stream.
    pub(crate) first: Times,
}

impl OfAsk {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { answered: 0, latency: Times::new()?, first: Times::new()? })
    }
}

/// What came of a load at one rate.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Calls per second that were wanted.
    pub(crate) rate: f64,
    seconds: f64,
    /// Calls that were due, those that were not sent among them.
    pub(crate) due: u64,
    /// Calls that were due while as many were in flight as may be.
    pub(crate) not_sent: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
    /// Why the first call was refused.
    pub(crate) refusal: Option<String>,
    pub(crate) deadline: u64,
    pub(crate) failures: Failures,
    /// All answers.
    pub(crate) all: OfAsk,
    pub(crate) by_ask: BTreeMap<Ask, OfAsk>,
    /// To each refusal.
    pub(crate) refusals: Times,
    /// How late calls were sent: the generator's own time.
    pub(crate) sent: Times,
    /// Answers of each version.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Answers that named no version.
    pub(crate) unnamed: u64,
    last: Duration,
}

/// The least share of calls that are answered at a rate that is held.
pub(crate) const HELD_SHARE: f64 = 0.95;

impl Tally {
    /// Of calls at `rate` for so many seconds.
    pub(crate) fn new(rate: f64, seconds: u32) -> anyhow::Result<Self> {
        Ok(Self {
            rate,
            seconds: f64::from(seconds),
            due: 0,
            not_sent: 0,
            dropped: 0,
            refused: 0,
            refusal: None,
            deadline: 0,
            failures: Failures::new(),
            all: OfAsk::new()?,
            by_ask: BTreeMap::new(),
            refusals: Times::new()?,
            sent: Times::new()?,
            versions: BTreeMap::new(),
            unnamed: 0,
            last: Duration::ZERO,
        })
    }

    /// Counts a call that is over.
    pub(crate) fn add(&mut self, done: Done) -> anyhow::Result<()> {
        self.sent.record(done.sent);
        match done.end {
            End::Answered(by) => {
                let of_ask = match self.by_ask.entry(done.ask) {
                    std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::btree_map::Entry::Vacant(new) => new.insert(OfAsk::new()?),
                };
                for tally in [of_ask, &mut self.all] {
                    tally.answered += 1;
                    tally.latency.record(done.took);
                    if let Some(first) = done.first {
                        tally.first.record(first);
                    }
                }
                self.last = self.last.max(done.at);
                self.name(by);
            }
            End::Dropped => self.dropped += 1,
            End::Refused(words) => {
                self.refused += 1;
                self.refusals.record(done.took);
                self.refusal.get_or_insert(words);
            }
            End::Late => self.deadline += 1,
            End::Failed(code, words) => self.failures.entry(code).or_insert((0, words)).0 += 1,
        }
        Ok(())
    }

    fn name(&mut self, version: Option<String>) {
        match version {
            Some(version) if self.versions.len() < VERSIONS_MAX || self.versions.contains_key(&version) => {
                *self.versions.entry(version).or_default() += 1;
            }
            _ => self.unnamed += 1,
        }
    }

    /// Answers per second, to the last of them.
    pub(crate) fn goodput(&self) -> f64 {
        self.all.answered as f64 / self.seconds.max(self.last.as_secs_f64())
    }

    /// The share of the calls that were answered, those left out that were dropped on purpose.
    pub(crate) fn good_share(&self) -> f64 {
        let wanted = self.due.saturating_sub(self.dropped);
        if wanted == 0 { 1.0 } else { self.all.answered as f64 / wanted as f64 }
    }

    /// Failed calls, over all codes.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// Whether the server held this rate: calls are answered, and in time.
    pub(crate) fn is_held(&self, p99_ms_max: f64) -> bool {
        let in_time = self.all.latency.percentiles().is_none_or(|times| times.p99 <= p99_ms_max);
        self.good_share() >= HELD_SHARE && in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(end: End, milliseconds: u64) -> Done {
        Done {
            ask: Ask::Predict,
            end,
            sent: Duration::from_micros(80),
            took: Duration::from_millis(milliseconds),
            first: None,
            at: Duration::from_millis(milliseconds),
        }
    }

    fn answered(version: &str) -> End {
        End::Answered(Some(version.to_owned()))
    }

    #[test]
    fn times_have_three_digits_and_no_end() {
        let mut times = Times::new().unwrap();
        assert_eq!(times.percentiles(), None);
        for milliseconds in 1..=1_000 {
            times.record(Duration::from_millis(milliseconds));
        }
        let told = times.percentiles().unwrap();
        for (found, wanted) in [(told.p50, 500.0), (told.p90, 900.0), (told.p99, 990.0), (told.max, 1_000.0)]
        {
            assert!((found / wanted - 1.0).abs() < 2e-3, "{told:?}");
        }
        times.record(Duration::from_secs(1 << 40));
        assert!(times.percentiles().unwrap().max >= 3.6e6);
    }

    #[test]
    fn a_rate_is_held_where_calls_are_answered_in_time() {
        let mut tally = Tally::new(10.0, 10).unwrap();
        tally.due = 100;
        for _ in 0..85 {
            tally.add(done(answered("m@1"), 20)).unwrap();
        }
        for _ in 0..10 {
            tally.add(done(answered("m@2"), 40)).unwrap();
        }
        assert!(tally.is_held(1_000.0) && !tally.is_held(30.0), "{tally:?}");
        assert!((tally.goodput() - 9.5).abs() < 1e-9);
        assert_eq!(tally.versions, BTreeMap::from([("m@1".to_owned(), 85), ("m@2".to_owned(), 10)]));
        tally.due = 101;
        assert!(!tally.is_held(1_000.0), "94 of 100");
        // What was dropped on purpose was not to be answered.
        tally.add(done(End::Dropped, 1)).unwrap();
        assert!(tally.is_held(1_000.0));
    }

    #[test]
    fn refusals_and_failures_are_told_apart() {
        let mut tally = Tally::new(10.0, 10).unwrap();
        tally.due = 4;
        tally.add(done(End::Refused("full".to_owned()), 3)).unwrap();
        tally.add(done(End::Late, 200)).unwrap();
        tally.add(done(End::Failed("UNAVAILABLE".to_owned(), "gone".to_owned()), 1)).unwrap();
        tally.add(done(End::Failed("UNAVAILABLE".to_owned(), "again".to_owned()), 1)).unwrap();
        assert_eq!((tally.refused, tally.deadline, tally.failed()), (1, 1, 2));
        assert_eq!(tally.failures["UNAVAILABLE"], (2, "gone".to_owned()));
        assert!(tally.refusals.percentiles().is_some_and(|times| (times.max - 3.0).abs() < 0.01));
        assert!(tally.good_share() < 1e-9 && tally.all.latency.percentiles().is_none());
    }

    /// A backlog that is worked off later is no goodput of the load's seconds.
    #[test]
    fn goodput_counts_to_the_last_answer() {
        let mut tally = Tally::new(10.0, 10).unwrap();
        tally.due = 100;
        for place in 1..=100 {
            tally.add(done(answered("m@1"), place * 200)).unwrap();
        }
        assert!((tally.goodput() - 5.0).abs() < 1e-9, "{}", tally.goodput());
    }
}
