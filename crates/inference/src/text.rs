//! Token ids as text while they come: never half a character, never a lost space.

use crate::served::Served;

/// Tokens that are decoded together: a longer past does not change what the newest ones say.
const WINDOW: usize = 16;

/// A text that grows token by token.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    ids: Vec<i64>,
    /// Ids before this one are told for good.
    settled: usize,
    /// Bytes of the unsettled ids' text that were handed out.
    told: usize,
}

impl Growing {
    /// The words that `token` makes certain; empty where it ends within a character.
    pub(crate) fn push(&mut self, served: &Served, token: i64) -> String {
        self.ids.push(token);
        let text = served.decode(self.ids.get(self.settled..).unwrap_or_default());
        if text.ends_with('\u{FFFD}') {
            return String::new();
        }
        let new = text.get(self.told..).unwrap_or_default().to_owned();
        self.told = text.len();
        if self.ids.len() - self.settled > WINDOW {
            // One token stays as context, so that the next one keeps its space.
            self.settled = self.ids.len() - 1;
            self.told = served.decode(self.ids.get(self.settled..).unwrap_or_default()).len();
        }
        new
    }
}
