//! When calls are due: a pure function of their shape, their rate and a seed.

use crate::args::Arrival;
use domain::metric::SplitMix;
use std::time::Duration;

/// The part of each second in which a burst's calls arrive; the rest of the second is silent.
const BURST: f64 = 0.5;

/// The moments of calls within so many seconds, from the first second's begin on, in order.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    shape: Arrival,
    /// Calls per second, on average.
    rate: f64,
    seconds: f64,
    generator: SplitMix,
    /// Moments so far.
    count: u64,
    /// Seconds to the last one, silences left out.
    busy: f64,
}

impl Arrivals {
    /// Arrivals of this shape at `rate` per second, for so long.
    pub(crate) fn new(shape: Arrival, rate: f64, seconds: f64, seed: u64) -> Self {
        Self { shape, rate, seconds, generator: SplitMix::new(seed), count: 0, busy: 0.0 }
    }

    /// Moves on by a gap of a Poisson process: exponential, with the mean 1 / `rate`.
    fn step(&mut self, rate: f64) -> f64 {
        // In (0, 1]: its logarithm is finite.
        self.busy -= (1.0 - self.generator.next_f64()).ln() / rate;
        self.busy
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = match self.shape {
            Arrival::Constant => self.count as f64 / self.rate,
            Arrival::Poisson => self.step(self.rate),
            Arrival::Burst => {
                let busy = self.step(self.rate / BURST);
                (busy / BURST).floor() + busy % BURST
            }
        };
        self.count = self.count.saturating_add(1);
        (at < self.seconds).then(|| Duration::from_secs_f64(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(shape: Arrival, rate: f64, seconds: f64, seed: u64) -> Vec<f64> {
        Arrivals::new(shape, rate, seconds, seed).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_moments_in_order() {
        for shape in [Arrival::Poisson, Arrival::Constant, Arrival::Burst] {
            let first = moments(shape, 200.0, 10.0, 7);
            assert_eq!(first, moments(shape, 200.0, 10.0, 7));
            assert!(first.is_sorted() && first.iter().all(|at| (0.0..10.0).contains(at)), "{shape:?}");
            assert_eq!(first == moments(shape, 200.0, 10.0, 8), shape == Arrival::Constant, "{shape:?}");
        }
    }

    /// Counts of a Poisson process in windows have a variance that is their mean; its gaps have a standard deviation that is theirs.
    #[test]
    fn poisson_arrivals_have_the_mean_and_the_variance_of_their_name() {
        for (rate, seed) in [(5.0, 1), (50.0, 2), (800.0, 3)] {
            let seconds = 40_000.0 / rate;
            let at = moments(Arrival::Poisson, rate, seconds, seed);
            let count = at.len() as f64;
            assert!((count - 40_000.0).abs() < 4.0 * 200.0, "rate {rate}: {count}");
            let gaps: Vec<f64> =
                at.iter().zip(at.iter().skip(1)).map(|(before, after)| after - before).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean * rate - 1.0).abs() < 0.02, "rate {rate}: {mean}");
            assert!((variance.sqrt() * rate - 1.0).abs() < 0.03, "rate {rate}: {variance}");
            let mut windows = vec![0.0; 4_000];
            for moment in &at {
                windows[(moment * rate / 10.0) as usize] += 1.0;
            }
            let mean = windows.iter().sum::<f64>() / 4_000.0;
            let variance = windows.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 4_000.0;
            assert!((variance / mean - 1.0).abs() < 0.12, "rate {rate}: {variance} of {mean}");
        }
    }

    #[test]
    fn constant_arrivals_stand_in_equal_steps() {
        let at = moments(Arrival::Constant, 4.0, 2.0, 0);
        assert_eq!(at, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]);
    }

    #[test]
    fn bursts_fill_the_first_half_of_each_second_at_twice_the_rate() {
        let at = moments(Arrival::Burst, 400.0, 100.0, 5);
        assert!(at.iter().all(|moment| moment.fract() < 0.5), "{at:?}");
        assert!((at.len() as f64 - 40_000.0).abs() < 4.0 * 200.0, "{}", at.len());
        // No second is empty, and within its half the calls are spread evenly.
        for second in 0..100 {
            let within = at.iter().filter(|moment| moment.trunc() as u32 == second).count();
            assert!((280..=520).contains(&within), "second {second}: {within}");
        }
        let early = at.iter().filter(|moment| moment.fract() < 0.25).count() as f64;
        assert!((early / at.len() as f64 - 0.5).abs() < 0.02, "{early}");
    }
}
