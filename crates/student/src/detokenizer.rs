//! Token ids as text while they are written: never half a character, and joined the text of the whole.

use crate::Tokenizer;

/// Tokens that are decoded together: earlier ones do not change what the newest ones add.
const WINDOW: usize = 16;
/// What an incomplete character decodes to.
const INCOMPLETE: char = '\u{FFFD}';

/// A text that is decoded token by token. The pieces of [`IncrementalDetokenizer::push`] and
/// [`IncrementalDetokenizer::finish`], joined, are what [`Tokenizer::decode`] makes of all tokens.
///
/// ```no_run
/// # fn write(tokenizer: &student::Tokenizer, ids: &[i64]) -> Result<(), student::StudentError> {
/// let mut detokenizer = student::IncrementalDetokenizer::default();
/// let mut text = String::new();
/// for id in ids {
///     text.push_str(&detokenizer.push(tokenizer, *id)?);
/// }
/// text.push_str(&detokenizer.finish(tokenizer)?);
/// assert_eq!(text, tokenizer.decode(ids)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct IncrementalDetokenizer {
    /// The latest tokens that add to the text: the first ones are context, whose text is complete.
    window: Vec<i64>,
    /// Bytes of the window's text that were returned.
    returned: usize,
}

impl IncrementalDetokenizer {
    /// The text that `token` completes; empty where a character may be incomplete. A run of byte tokens is decoded as a
    /// whole: one wrong byte changes what the others become.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: i64) -> Result<String, crate::StudentError> {
        // A special token decodes to nothing. As the only context it would make the next token the first one of a text,
        // which loses its space.
        if tokenizer.is_silent(token) {
            return Ok(String::new());
        }
        self.window.push(token);
        let text = tokenizer.decode(&self.window)?;
        if text.ends_with(INCOMPLETE) || tokenizer.is_byte(token) {
            return Ok(String::new());
        }
        let piece = text.get(self.returned..).unwrap_or_default().to_owned();
        self.returned = text.len();
        if self.window.len() > WINDOW {
            self.shorten(tokenizer)?;
        }
        Ok(piece)
    }

    /// What is left when no token follows: the incomplete character at the end, if any.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, crate::StudentError> {
        let text = tokenizer.decode(&self.window)?;
        let piece = text.get(self.returned..).unwrap_or_default().to_owned();
        self.returned = text.len();
        Ok(piece)
    }

    /// Keeps the newest tokens that have a text of their own, as context.
    fn shorten(&mut self, tokenizer: &Tokenizer) -> Result<(), crate::StudentError> {
        for start in (1..self.window.len()).rev() {
            let context = tokenizer.decode(self.window.get(start..).unwrap_or_default())?;
            if !context.is_empty() && !context.contains(INCOMPLETE) {
                self.returned = context.len();
                self.window.drain(..start);
                break;
            }
        }
        Ok(())
    }
}
