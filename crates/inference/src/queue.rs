//! What waits, and what of it is begun at the next step: a pure function of the queue and of what runs.
//!
//! Requests join between steps. Labels go before texts, which take many steps; a text that has waited for long goes like a
//! label, in the order of arrival. While rows are written, only so much is read at a step that none of them waits for long.

use std::time::Duration;

/// Rows of each kind that are answered at once at most: labels and texts do not take each other's places.
const ROWS_MAX: usize = 64;
/// Source tokens that are read at a step while rows are written. A longer request is read alone.
const CHUNK_TOKENS: usize = 512;
/// A text that has waited for so long goes before later labels.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the plan knows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Source tokens.
    pub(crate) source: usize,
    /// Tokens that it holds, from its admission to its end: source tokens, and those that it may write.
    pub(crate) tokens: usize,
    /// Whether somebody waits for a label, and not for a text.
    pub(crate) label: bool,
    /// Since its admission.
    pub(crate) waited: Duration,
}

impl Waiting {
    fn goes_first(&self) -> bool {
        self.label || self.waited >= PATIENCE
    }
}

/// What is being answered, of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    /// Tokens that they hold.
    pub(crate) tokens: usize,
}

impl Rows {
    /// With one more.
    pub(crate) fn with(self, tokens: usize) -> Self {
        Self { count: self.count + 1, tokens: self.tokens.saturating_add(tokens) }
    }
}

/// What is being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Running {
    pub(crate) labels: Rows,
    pub(crate) texts: Rows,
}

impl Running {
    /// Those of the same kind.
    pub(crate) fn kind(&mut self, label: bool) -> &mut Rows {
        if label { &mut self.labels } else { &mut self.texts }
    }

    fn is_idle(&self) -> bool {
        self.labels.count == 0 && self.texts.count == 0
    }
}

/// The places of the requests that are begun at the next step, in the order in which they are. Nothing overtakes a request of
/// its own kind. One that does not fit by itself goes when nothing of its kind runs. `batch_tokens_max` is the size of an idle
/// engine's first batch, in padded source tokens; the rows of a kind hold twice as many at most.
pub(crate) fn plan(
    waiting: impl Iterator<Item = Waiting> + Clone,
    mut running: Running,
    batch_tokens_max: usize,
) -> Vec<usize> {
    let read_max = if running.is_idle() { batch_tokens_max } else { CHUNK_TOKENS.min(batch_tokens_max) };
    let held_max = batch_tokens_max.saturating_mul(2);
    let (mut places, mut longest) = (Vec::new(), 0);
    let (mut labels_wait, mut texts_wait) = (false, false);
    let kind =
        |first: bool| waiting.clone().enumerate().filter(move |(_, request)| request.goes_first() == first);
    for (place, request) in kind(true).chain(kind(false)) {
        let waits = if request.label { &mut labels_wait } else { &mut texts_wait };
        let rows = running.kind(request.label);
        let more = rows.with(request.tokens);
        let fits = more.count <= ROWS_MAX && (more.tokens <= held_max || rows.count == 0);
        *waits |= !fits;
        if *waits {
            continue;
        }
        let longer = longest.max(request.source);
        if !places.is_empty() && longer.saturating_mul(places.len() + 1) > read_max {
            break;
        }
        places.push(place);
        (longest, *rows) = (longer, more);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: usize, promised: usize) -> Waiting {
        Waiting { source, tokens: source + promised, label: false, waited: Duration::ZERO }
    }

    fn label(source: usize) -> Waiting {
        Waiting { label: true, ..text(source, 2) }
    }

    fn busy(count: usize, tokens: usize) -> Running {
        Running { texts: Rows { count, tokens }, ..Running::default() }
    }

    fn check(waiting: &[Waiting], running: Running, expected: &[usize]) {
        assert_eq!(plan(waiting.iter().copied(), running, 1_000), expected, "{waiting:?} {running:?}");
    }

    #[test]
    fn an_idle_engine_takes_what_fits_and_nothing_overtakes() {
        let idle = Running::default();
        check(&[], idle, &[]);
        check(&[text(100, 10), text(200, 10), text(300, 10)], idle, &[0, 1, 2]);
        // Rows are counted as long as the longest.
        check(&[text(100, 10), text(400, 10), text(100, 10), text(1, 1)], idle, &[0, 1]);
        check(&[text(4_000, 10), text(1, 1)], idle, &[0]);
        // A promise that is larger than all that rows may hold.
        check(&[text(1, 9_000), text(1, 1)], idle, &[0]);
        check(&[text(1, 1_500), text(1, 600), text(1, 1)], idle, &[0]);
    }

    #[test]
    fn labels_go_first_and_texts_are_not_left_behind() {
        let idle = Running::default();
        check(&[text(10, 10), label(10), text(10, 10), label(20)], idle, &[1, 3, 0, 2]);
        let old = Waiting { waited: PATIENCE, ..text(10, 10) };
        check(&[text(10, 10), old, label(10)], idle, &[1, 2, 0]);
        // Texts that hold all that texts may do not hold up labels.
        check(&[text(1, 1), label(20), old], busy(3, 2_000), &[1]);
        check(&[old, label(20), text(1, 1)], busy(ROWS_MAX, 100), &[1]);
    }

    #[test]
    fn while_rows_are_written_little_is_read_at_a_step() {
        check(&[text(200, 10), text(200, 10), text(200, 10)], busy(3, 300), &[0, 1]);
        check(&[text(900, 10), text(1, 1)], busy(3, 300), &[0]);
        check(&[text(1, 1)], busy(ROWS_MAX, 100), &[]);
        check(&[text(1, 1), text(1, 1)], busy(ROWS_MAX - 1, 100), &[0]);
        check(&[text(100, 100)], busy(1, 1_900), &[]);
        let labels = Running { labels: Rows { count: ROWS_MAX, tokens: 100 }, ..Running::default() };
        check(&[label(1), text(1, 1)], labels, &[1]);
    }

    #[test]
    fn whatever_waits_is_begun_in_the_end() {
        // Every mix of kinds and sizes: as rows end, the queue empties, and nothing waits twice.
        for seed in 0..200_usize {
            let size = |number: usize| (seed * 7_919 + number * 104_729) % 1_500;
            let request = |number: usize| Waiting {
                source: 1 + size(number),
                tokens: 2 + size(number) + size(number + 31),
                label: size(number + 57) % 2 == 0,
                waited: Duration::from_millis(size(number + 91) as u64),
            };
            let mut waiting: Vec<Waiting> = (0..50).map(request).collect();
            let mut rounds = 0;
            while !waiting.is_empty() {
                let places = plan(waiting.iter().copied(), Running::default(), 1_000);
                assert!(!places.is_empty());
                let kept =
                    |(place, request): (usize, &Waiting)| (!places.contains(&place)).then_some(*request);
                waiting = waiting.iter().enumerate().filter_map(kept).collect();
                rounds += 1;
            }
            assert!(rounds <= 50);
        }
    }
}
