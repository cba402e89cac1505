//! Rows that are being decoded. A row's memory is reserved when it joins and freed when it leaves; joining and leaving
//! between two steps changes nothing for the others.

use crate::cache::Cache;
use crate::encoded::Encoded;
use crate::model::Model;
use crate::{Error, Result};
use std::sync::Arc;

/// Most slots.
const SLOTS_MAX: usize = 1 << 16;
/// Most tokens of a row.
const TOKENS_MAX: usize = 1 << 20;

/// A row that has joined. After it has left, it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    index: usize,
    generation: u64,
}

/// What a slot holds.
#[derive(Debug)]
pub(crate) struct Row {
    generation: u64,
    pub(crate) own: Cache,
    pub(crate) encoded: Encoded,
    /// Tokens that it has seen.
    pub(crate) length: usize,
    pub(crate) tokens_max: usize,
}

/// A fixed number of places for rows.
#[derive(Debug)]
pub struct Slots {
    model: Arc<Model>,
    rows: Vec<Option<Row>>,
    tokens_max: usize,
    next_generation: u64,
}

impl Slots {
    /// `count` empty slots for rows of up to `tokens_max` tokens each.
    ///
    /// # Errors
    /// The count is not in 1..=65,536, or the tokens are not in 1..=1,048,576.
    pub fn new(model: &Arc<Model>, count: usize, tokens_max: usize) -> Result<Self> {
        for (what, value, most) in [("slots", count, SLOTS_MAX), ("tokens a slot", tokens_max, TOKENS_MAX)] {
            if !(1..=most).contains(&value) {
                return Err(Error::Input(format!("{value} {what}: from 1 to {most} can be had")));
            }
        }
        let rows = (0..count).map(|_| None).collect();
        Ok(Self { model: Arc::clone(model), rows, tokens_max, next_generation: 0 })
    }

    /// Places in all.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Places that are free.
    pub fn free(&self) -> usize {
        self.rows.iter().filter(|row| row.is_none()).count()
    }

    /// Bytes of keys and values that are reserved now, without those of the encoder's output.
    pub fn bytes(&self) -> usize {
        self.rows.iter().flatten().map(|row| row.own.bytes()).sum()
    }

    /// Reserves a slot and memory for `tokens_max` tokens.
    ///
    /// # Errors
    /// No slot is free; the row asks for no tokens or more than a slot may have; it was encoded by another model; there is no
    /// memory.
    pub fn join(&mut self, encoded: &Encoded, tokens_max: usize) -> Result<Slot> {
        if !(1..=self.tokens_max).contains(&tokens_max) {
            let message = format!("a row of {tokens_max} tokens: a slot has from 1 to {}", self.tokens_max);
            return Err(Error::Input(message));
        }
        encoded.check(&self.model)?;
        let free = self.rows.iter().position(Option::is_none);
        let Some((index, place)) = free.and_then(|index| Some((index, self.rows.get_mut(index)?))) else {
            return Err(Error::Input("no slot is free".to_owned()));
        };
        let own = Cache::new(&self.model, tokens_max)?;
        let generation = self.next_generation;
        self.next_generation += 1;
        *place = Some(Row { generation, own, encoded: encoded.clone(), length: 0, tokens_max });
        Ok(Slot { index, generation })
    }

    /// Frees a slot and its memory.
    ///
    /// # Errors
    /// The row has left before.
    pub fn leave(&mut self, slot: Slot) -> Result<()> {
        self.row(slot)?;
        if let Some(place) = self.rows.get_mut(slot.index) {
            *place = None;
        }
        Ok(())
    }

    /// Forgets all tokens of a row but the first `length`: those of a draft that were not accepted.
    ///
    /// # Errors
    /// The row has left, or has fewer tokens.
    pub fn truncate(&mut self, slot: Slot, length: usize) -> Result<()> {
        let row = self.row_mut(slot)?;
        if length > row.length {
            return Err(Error::Input(format!("a row of {} tokens has no first {length}", row.length)));
        }
        row.length = length;
        Ok(())
    }

    /// Tokens that a row has seen.
    ///
    /// # Errors
    /// The row has left.
    pub fn length(&self, slot: Slot) -> Result<usize> {
        self.row(slot).map(|row| row.length)
    }

    pub(crate) fn row(&self, slot: Slot) -> Result<&Row> {
        let row = self.rows.get(slot.index).and_then(Option::as_ref);
        row.filter(|row| row.generation == slot.generation).ok_or_else(left)
    }

    pub(crate) fn row_mut(&mut self, slot: Slot) -> Result<&mut Row> {
        let row = self.rows.get_mut(slot.index).and_then(Option::as_mut);
        row.filter(|row| row.generation == slot.generation).ok_or_else(left)
    }

    /// Whether the slots are those of this model.
    pub(crate) fn check(&self, model: &Model) -> Result<()> {
        if self.model.id == model.id {
            Ok(())
        } else {
            Err(Error::Input("the slots belong to another model".to_owned()))
        }
    }
}

fn left() -> Error {
    Error::Input("the row has left its slot".to_owned())
}
