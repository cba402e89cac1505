//! Pseudorandom numbers of tests.

use domain::metric::SplitMix;

/// Pseudorandom numbers, reproducible by their seed.
#[derive(Debug, Clone)]
pub struct Dice(SplitMix);

impl Dice {
    /// Seeded with `DISTILLERY_TEST_SEED`, otherwise with the time. Prints the seed.
    #[allow(clippy::disallowed_methods, reason = "the environment may choose the seed")]
    #[allow(clippy::print_stdout, reason = "a failure is reproducible by its seed")]
    #[allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "helpers of tests fail loudly too")]
    pub fn new() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        let seed = std::env::var("DISTILLERY_TEST_SEED").map_or(now, |seed| seed.parse().unwrap());
        println!("DISTILLERY_TEST_SEED={seed}");
        Self(SplitMix::new(seed))
    }

    /// The dice of the part `number` of what these decide: parts that run at once do not depend on each other.
    #[must_use]
    pub fn part(&self, number: u64) -> Self {
        let seed = self.clone().any();
        Self(SplitMix::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// A place among so many; 0 where there is none.
    pub fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap_or(0)
    }

    /// Whether something with this probability, in percent, happens.
    pub fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several; `None` of none.
    pub fn one_of<'a, T>(&mut self, several: &'a [T]) -> Option<&'a T> {
        several.get(self.place(several.len()))
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.any() as u8).collect()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
