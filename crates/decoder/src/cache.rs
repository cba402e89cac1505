//! Keys and values of a decoder row, by block and head, in bfloat16.

use crate::lanes::LANES;
use crate::memory::Buffer;
use crate::model::Model;
use crate::{Error, Result};
use std::ops::Range;

/// Keys and values of up to `capacity` positions.
#[derive(Debug)]
pub(crate) struct Cache {
    /// `[blocks][heads][keys, values]`, each `[capacity * head / 2]` pairs.
    pub(crate) words: Buffer<u32>,
    pub(crate) capacity: usize,
    heads: usize,
    head: usize,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn new(model: &Model, positions: usize) -> Result<Self> {
        let (heads, head) = (model.shape.num_heads, model.plan.widths.head);
        let blocks = model.shape.num_decoder_layers;
        let capacity = positions.checked_next_multiple_of(LANES);
        let words =
            capacity.and_then(|capacity| capacity.checked_mul(head)?.checked_mul(heads)?.checked_mul(blocks));
        let (Some(capacity), Some(words)) = (capacity, words) else { return Err(Error::Memory(usize::MAX)) };
        Ok(Self { words: Buffer::zeros(words)?, capacity, heads, head })
    }

    /// Bytes of a cache of so many positions.
    pub(crate) fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    /// Where a block's head keeps its keys, and its values.
    pub(crate) fn places(&self, block: usize, head: usize) -> (Range<usize>, Range<usize>) {
        let part = self.capacity * self.head / 2;
        let keys = (block * self.heads + head) * 2 * part;
        (keys..keys + part, keys + part..keys + 2 * part)
    }
}
