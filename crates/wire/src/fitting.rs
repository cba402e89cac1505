//! What goes into one message. Streams and pages are cut by rows and by bytes.

use prost::Message;

/// Bytes after which a chunk of a stream or a page of a list ends: half of what a client of gRPC reads without being told
/// otherwise. One item that has more goes alone.
pub const CHUNK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How many of these, from the first one on, go into one message: as many as have [`CHUNK_BYTES_MAX`] bytes together, and at
/// least one.
pub fn fitting<M: Message>(items: &[M]) -> usize {
    let mut bytes = 0_usize;
    let fits = |item: &&M| {
        bytes = bytes.saturating_add(item.encoded_len());
        bytes <= CHUNK_BYTES_MAX
    };
    items.iter().take_while(fits).count().max(1).min(items.len())
}

/// The items in order, cut into parts that go into one message each.
pub fn parts<M: Message>(mut items: Vec<M>) -> Vec<Vec<M>> {
    let mut parts = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(fitting(&items));
        parts.push(items);
        items = rest;
    }
    parts
}

/// Bytes of a message as it is sent.
pub fn bytes_of(message: &impl Message) -> usize {
    message.encoded_len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Example;

    #[test]
    fn parts_have_few_bytes_and_all_items_in_order() {
        let check = |lengths: &[usize], expected: &[usize]| {
            let items =
                lengths.iter().map(|bytes| Example { input: "x".repeat(*bytes), ..Default::default() });
            let parts = parts(items.collect::<Vec<_>>());
            assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{lengths:?}");
            let found = parts.concat();
            assert_eq!(found.iter().map(|item| item.input.len()).collect::<Vec<_>>(), lengths);
        };
        let half = CHUNK_BYTES_MAX / 2;
        check(&[], &[]);
        check(&[1, 2, 3], &[3]);
        check(&[half, half - 100, half, 3 * half, 1, half, half], &[2, 1, 1, 2, 1]);
    }
}
