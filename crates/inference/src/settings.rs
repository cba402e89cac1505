//! What the operator decides about serving.

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tokens that requests may hold at once, from their admission to their end: those that they read, and those that they may
    /// write. More are refused.
    pub queue_tokens_max: usize,
    /// Padded source tokens of one batch; rows that are answered hold twice as many at most, read and promised.
    pub batch_tokens_max: usize,
    /// Bytes of the answers that are kept to be given again; 0 to keep none.
    pub cache_bytes_max: usize,
    /// Whether CUDA is used where it is found.
    pub use_cuda: bool,
    /// Threads of the tensor library; 0 for one per core.
    pub threads: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_tokens_max: 65_536,
            batch_tokens_max: 8_192,
            cache_bytes_max: 16 * 1024 * 1024,
            use_cuda: true,
            threads: 0,
        }
    }
}
