//! One answer, from its first token to its end.

use crate::{Choice, IncrementalDetokenizer, StudentError, Tokenizer};
use std::ops::ControlFlow;
use t5::Step;

/// What happens to one row.
#[derive(Debug)]
pub enum Event {
    /// One more token; the text that it completes, which may be empty.
    Token(String),
    /// The row's text is complete.
    Done {
        /// What is left of its text.
        rest: String,
        /// The natural logarithm of the text's probability: the sum over its tokens, and the end token where it was written.
        log_probability: f64,
        /// Tokens written, without the end token.
        tokens: usize,
    },
    /// The row's label is chosen.
    Chosen(Choice),
    /// The row has no answer.
    Failed(StudentError),
}

/// Takes the events of rows, by the key that each joined with. `Break` ends the row.
pub(crate) type OnEvent<'a> = dyn FnMut(u64, Event) -> ControlFlow<()> + 'a;

/// A text that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) key: u64,
    tokens_max: usize,
    text: IncrementalDetokenizer,
    log_probability: f64,
    tokens: usize,
}

impl Writing {
    /// A text of at most so many tokens, and of one at least.
    pub(crate) fn new(key: u64, tokens_max: usize) -> Self {
        let tokens_max = tokens_max.max(1);
        Self { key, tokens_max, text: IncrementalDetokenizer::default(), log_probability: 0.0, tokens: 0 }
    }

    pub(crate) fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Its next step, by a predictor of this number format. `Break`: the row is over.
    pub(crate) fn take(
        &mut self,
        step: Step,
        (tokenizer, precision): (&Tokenizer, &'static str),
        on_event: &mut OnEvent<'_>,
    ) -> ControlFlow<()> {
        match self.next(step, tokenizer, precision) {
            Ok(Some(event)) => {
                on_event(self.key, event)?;
                if self.tokens < self.tokens_max {
                    return ControlFlow::Continue(());
                }
            }
            Ok(None) => {}
            Err(error) => {
                let _ = on_event(self.key, Event::Failed(error));
                return ControlFlow::Break(());
            }
        }
        let last = match self.text.finish(tokenizer) {
            Ok(rest) => Event::Done { rest, log_probability: self.log_probability, tokens: self.tokens },
            Err(error) => Event::Failed(error),
        };
        let _ = on_event(self.key, last);
        ControlFlow::Break(())
    }

    /// The event of a token; `None` at the end token.
    fn next(
        &mut self,
        step: Step,
        tokenizer: &Tokenizer,
        precision: &'static str,
    ) -> Result<Option<Event>, StudentError> {
        match step {
            Step::Token { id, log_probability } => {
                self.tokens += 1;
                self.log_probability += log_probability;
                Ok(Some(Event::Token(self.text.push(tokenizer, id)?)))
            }
            Step::End { log_probability } => {
                self.log_probability += log_probability;
                Ok(None)
            }
            Step::NotFinite => Err(StudentError::NotFinite(precision)),
        }
    }
}
