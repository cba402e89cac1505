//! Pages of a list.

/// Most rows or entries of one page or one batch.
pub const BATCH_MAX: usize = 1_000;

/// A page of a list, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The things.
    pub items: Vec<T>,
    /// The cursor of the next page, an opaque text that only this store reads; `None` at the end.
    pub next: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageRequest {
    /// At most this many; clamped to 1..=[`BATCH_MAX`].
    pub size: usize,
    /// The `next` of the page before; a cursor of another list is [`StoreError::Invalid`](super::StoreError::Invalid).
    pub cursor: Option<String>,
}
