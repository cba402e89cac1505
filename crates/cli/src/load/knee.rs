//! Which rates are tried: those that are named, or a search for the highest one that is held.

use crate::args::RATE_MAX;

/// Steps by which the place between a rate that is held and one that is not is halved.
const HALVINGS: u32 = 3;
/// Rates of one search at most: from the least rate to the highest it doubles fewer times.
const RATES_MAX: usize = 32;

/// The rates of one measurement.
#[derive(Debug, Clone)]
pub(crate) enum Rates {
    /// These, one after another.
    Named(std::vec::IntoIter<f64>),
    /// Whatever finds the knee.
    Search(Search),
}

/// A search for the highest rate that is held: it doubles to one that is not, then halves the step between both.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    from: f64,
    held: Option<f64>,
    lost: Option<f64>,
    tried: usize,
    halvings: u32,
}

impl Search {
    /// Begins at `from`.
    pub(crate) fn new(from: f64) -> Self {
        Self { from, held: None, lost: None, tried: 0, halvings: 0 }
    }

    fn next(&mut self) -> Option<f64> {
        if self.tried == RATES_MAX {
            return None;
        }
        self.tried += 1;
        match (self.held, self.lost) {
            (None, None) => Some(self.from),
            (Some(held), None) => Some(held * 2.0).filter(|rate| *rate <= RATE_MAX),
            // Not even the first one is held: the knee lies below it.
            (None, Some(_)) => None,
            (Some(held), Some(lost)) if self.halvings < HALVINGS => {
                self.halvings += 1;
                Some(f64::midpoint(held, lost))
            }
            (Some(_), Some(_)) => None,
        }
    }

    fn saw(&mut self, rate: f64, is_held: bool) {
        if is_held {
            self.held = Some(rate);
        } else {
            self.lost = Some(rate);
        }
    }
}

impl Rates {
    /// The next rate; `None` where there is no other.
    pub(crate) fn next(&mut self) -> Option<f64> {
        match self {
            Self::Named(rates) => rates.next(),
            Self::Search(search) => search.next(),
        }
    }

    /// What came of a rate.
    pub(crate) fn saw(&mut self, rate: f64, is_held: bool) {
        if let Self::Search(search) = self {
            search.saw(rate, is_held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried at a server that holds up to `capacity`, and the highest that was held.
    fn tried(from: f64, capacity: f64) -> (Vec<f64>, Option<f64>) {
        let mut rates = Rates::Search(Search::new(from));
        let (mut tried, mut held) = (Vec::new(), None);
        while let Some(rate) = rates.next() {
            rates.saw(rate, rate <= capacity);
            tried.push(rate);
            held = (rate <= capacity).then_some(rate).or(held);
        }
        (tried, held)
    }

    #[test]
    fn a_search_doubles_and_then_halves_its_step() {
        assert_eq!(tried(5.0, 33.0), (vec![5.0, 10.0, 20.0, 40.0, 30.0, 35.0, 32.5], Some(32.5)));
        assert_eq!(tried(5.0, 1.0), (vec![5.0], None));
        let (rates, held) = tried(5.0, f64::INFINITY);
        assert!(rates.iter().all(|rate| *rate <= RATE_MAX) && held.is_some_and(|held| held * 2.0 > RATE_MAX));
        assert!(tried(0.01, 1e9).0.len() <= RATES_MAX);
    }
}
