//! Rows that are answered together, step by step: they join and leave between steps.

use crate::packed::Place;
use crate::writing::Writing;
use crate::{Ask, Prompt};
use decoder::Slots;
use std::fmt;
use t5::Strategy;

/// A question, and the key of its row.
pub(crate) type Keyed = (u64, Prompt);

/// Rows of one student that are answered together. [`Predictor::step`](crate::Predictor::step) moves them on; between steps others
/// join. A row's answer does not depend on the rows beside it, nor on when it joined.
#[derive(Default)]
pub struct Session {
    /// Those that the next step begins with.
    pub(crate) joined: Vec<Keyed>,
    /// Those that the packed form is writing.
    pub(crate) written: Vec<Written>,
    /// The memory of those; none before the first.
    pub(crate) slots: Option<Slots>,
}

/// A row that the packed form is writing.
pub(crate) struct Written {
    pub(crate) place: Place,
    pub(crate) text: Writing,
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = (self.joined.len(), self.written.len());
        out.debug_struct("Session").field("rows", &rows).finish_non_exhaustive()
    }
}

impl Session {
    /// A row joins; its events come with this key.
    pub fn join(&mut self, key: u64, prompt: Prompt) {
        self.joined.push((key, prompt));
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.written.is_empty()
    }

    /// Rows that have joined and are not over.
    pub fn rows(&self) -> usize {
        self.joined.len() + self.written.len()
    }

    /// Takes the rows that one pass of the reference answers: the choices, and the texts that share a strategy with the first:
    /// greedy, or it alone. The others stay.
    pub(crate) fn take_pass(&mut self) -> (Vec<Keyed>, Vec<Keyed>) {
        let (choices, texts): (Vec<_>, Vec<_>) = std::mem::take(&mut self.joined)
            .into_iter()
            .partition(|(_, prompt)| matches!(prompt.ask, Ask::Choice(_)));
        let is_greedy = |prompt: &Prompt| matches!(prompt.ask, Ask::Text { strategy: Strategy::Greedy, .. });
        let all_greedy = texts.first().is_some_and(|(_, prompt)| is_greedy(prompt));
        let (mut pass, mut later) = (Vec::new(), Vec::new());
        for (key, prompt) in texts {
            let shares = if all_greedy { is_greedy(&prompt) } else { pass.is_empty() };
            if shares { pass.push((key, prompt)) } else { later.push((key, prompt)) }
        }
        self.joined = later;
        (choices, pass)
    }
}
