//! What waits, and what of it goes through the model next: a pure function of the queue.

/// What the assembly knows of a request: whose it is, and how long.
pub(crate) trait Waiting {
    /// Requests of one group can share a pass.
    fn group(&self) -> usize;
    /// Source tokens.
    fn tokens(&self) -> usize;
}

/// The places of the requests that go next: the first one, and those of its group behind it that keep the padded batch
/// within `tokens_max`. No request overtakes the first; a request that is longer than that by itself forms its own batch.
pub(crate) fn assemble<T: Waiting>(waiting: &[T], tokens_max: usize) -> Vec<usize> {
    let Some(first) = waiting.first() else { return Vec::new() };
    let (mut places, mut longest) = (vec![0], first.tokens());
    for (place, request) in waiting.iter().enumerate().skip(1) {
        if request.group() != first.group() {
            continue;
        }
        let longer = longest.max(request.tokens());
        if longer * (places.len() + 1) <= tokens_max {
            places.push(place);
            longest = longer;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Waiting for (usize, usize) {
        fn group(&self) -> usize {
            self.0
        }

        fn tokens(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn the_first_goes_and_takes_along_what_fits() {
        let check = |waiting: &[(usize, usize)], expected: &[usize]| {
            assert_eq!(assemble(waiting, 100), expected, "{waiting:?}");
        };
        check(&[], &[]);
        check(&[(0, 10), (0, 20), (1, 5), (0, 30)], &[0, 1, 3]);
        check(&[(1, 10), (0, 20), (1, 5)], &[0, 2]);
        check(&[(0, 40), (0, 40), (0, 40)], &[0, 1]);
        check(&[(0, 400), (0, 1)], &[0]);
        check(&[(0, 10), (0, 90), (0, 20)], &[0, 2]);
    }
}
