//! Which calls are due: a pure function of a load and its seed.

use super::arrivals::Arrivals;
use crate::args::{Arrival, Ask};
use domain::metric::SplitMix;
use std::time::Duration;

/// Makes what is asked independent of when it is asked.
const SALT: u64 = 0x6C6F_6164_6361_6C6C;

/// A load at one rate.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) arrivals: Arrival,
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) seconds: u32,
    /// What is asked, with weights.
    pub(crate) mix: Vec<(Ask, u32)>,
    /// Rows that there are.
    pub(crate) rows: usize,
    /// The share of calls that are dropped.
    pub(crate) cancel: f64,
    /// Within which a call that is dropped is.
    pub(crate) cancel_within: Duration,
    pub(crate) seed: u64,
}

/// A call that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// From the begin of the load.
    pub(crate) due: Duration,
    pub(crate) ask: Ask,
    /// The place of its row.
    pub(crate) row: usize,
    /// How long after it was due its caller leaves, where it does.
    pub(crate) dropped_after: Option<Duration>,
}

impl Load {
    /// Its calls in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Call> + use<> {
        let (load, mut generator) = (self.clone(), SplitMix::new(self.seed ^ SALT));
        let arrivals = Arrivals::new(self.arrivals, self.rate, f64::from(self.seconds), self.seed);
        arrivals.map(move |due| load.call(due, &mut generator))
    }

    fn call(&self, due: Duration, generator: &mut SplitMix) -> Call {
        let ask = self.drawn(generator);
        let row = usize::try_from(generator.below(self.rows as u64)).unwrap_or(0);
        // Both are drawn for every call, so that another share drops other calls and changes nothing else.
        let (is_dropped, moment) = (generator.next_f64() < self.cancel, generator.next_f64());
        Call { due, ask, row, dropped_after: is_dropped.then(|| self.cancel_within.mul_f64(moment)) }
    }

    /// What a call asks, by the weights.
    fn drawn(&self, generator: &mut SplitMix) -> Ask {
        let all: u64 = self.mix.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut place = generator.below(all);
        for (ask, weight) in &self.mix {
            match place.checked_sub(u64::from(*weight)) {
                None => return *ask,
                Some(rest) => place = rest,
            }
        }
        Ask::Predict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cancel: f64) -> Load {
        Load {
            arrivals: Arrival::Poisson,
            rate: 500.0,
            seconds: 40,
            mix: vec![(Ask::Predict, 80), (Ask::Explain, 20)],
            rows: 10,
            cancel,
            cancel_within: Duration::from_millis(20),
            seed: 3,
        }
    }

    #[test]
    fn calls_follow_the_mix_and_the_share_that_is_dropped() {
        let calls: Vec<Call> = load(0.1).calls().collect();
        assert_eq!(calls, load(0.1).calls().collect::<Vec<_>>(), "the same again");
        let share = |is: &dyn Fn(&Call) -> bool| {
            calls.iter().filter(|call| is(call)).count() as f64 / calls.len() as f64
        };
        assert!((share(&|call| call.ask == Ask::Explain) - 0.2).abs() < 0.02);
        assert!((share(&|call| call.dropped_after.is_some()) - 0.1).abs() < 0.02);
        for row in 0..10 {
            assert!((share(&|call| call.row == row) - 0.1).abs() < 0.02, "row {row}");
        }
        assert!(calls.iter().flat_map(|call| call.dropped_after).all(|after| after.as_millis() < 20));
    }

    #[test]
    fn a_share_that_is_dropped_changes_nothing_else() {
        let kept = |call: Call| Call { dropped_after: None, ..call };
        let (all, some): (Vec<Call>, Vec<Call>) =
            (load(0.0).calls().collect(), load(0.5).calls().map(kept).collect());
        assert_eq!(all, some);
    }
}
