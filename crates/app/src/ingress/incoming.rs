//! A request on its way in: what its messages take of memory is counted before they are read, over all calls, and one that
//! would take more than there is ends its call. A message counts until the next one begins, the last one until its answer
//! ends.
//!
//! Messages are framed as gRPC does (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): a byte that says whether
//! it is compressed, and its length in four.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

/// Bytes of what stands before a message.
const PREFIX_BYTES: usize = 5;
/// Messages up to this size are not counted: places bound how many there are.
const SMALL_BYTES: usize = 32 * 1024;
/// The most that a byte of gzip can hold.
const GZIP_RATIO: usize = 1_032;
/// What memory is counted in.
const UNIT_BYTES: usize = 1024;
/// When a caller that was refused at a limit of all calls may retry.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory that the messages of all calls share.
#[derive(Debug, Clone)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

impl Room {
    /// For at least one message of the largest size.
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(wire::MESSAGE_BYTES_MAX);
        Self {
            units: Arc::new(Semaphore::new(bytes_max.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS))),
            bytes_max,
        }
    }

    /// Room for a message of this length.
    pub(super) fn take(
        &self,
        is_compressed: bool,
        length: usize,
    ) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let longest = if is_compressed { length.saturating_mul(GZIP_RATIO) } else { length };
        // One that is too long is refused by who reads it, before it is.
        let bytes = longest.min(wire::MESSAGE_BYTES_MAX);
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.units).try_acquire_many_owned(units).map(Some).map_err(|_| self.full())
    }

    fn full(&self) -> Status {
        let words = format!(
            "messages take {} MiB already, which is the limit (server.messages_bytes_max): try again in a second",
            self.bytes_max >> 20
        );
        wire::busy(words, RETRY_AFTER)
    }
}

/// The room that a call has taken: shared by its request and its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Taken {
    /// Gives back what it holds, and holds this.
    pub(super) fn replace(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// The body of a request.
pub(super) struct Incoming {
    inner: tonic::body::Body,
    room: Room,
    taken: Taken,
    /// What has come of the next message's prefix.
    prefix: Vec<u8>,
    /// What is to come of the message.
    left: usize,
    ended: bool,
}

impl Incoming {
    /// `inner`, whose messages share `room`.
    pub(super) fn new(inner: tonic::body::Body, (room, taken): (Room, Taken)) -> Self {
        Self { inner, room, taken, prefix: Vec::with_capacity(PREFIX_BYTES), left: 0, ended: false }
    }

    /// Takes room for every message that begins in `data`.
    fn pass(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let of_message = self.left.min(data.len());
            self.left -= of_message;
            data = data.get(of_message..).unwrap_or_default();
            if self.left > 0 {
                return Ok(());
            }
            let of_prefix = (PREFIX_BYTES - self.prefix.len()).min(data.len());
            self.prefix.extend(data.get(..of_prefix).unwrap_or_default());
            data = data.get(of_prefix..).unwrap_or_default();
            if let [flag, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                let length = u32::from_be_bytes(length) as usize;
                self.taken.replace(None);
                self.taken.replace(self.room.take(*flag != 0, length)?);
                self.left = length;
                self.prefix.clear();
            }
        }
        Ok(())
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        let checked = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().cloned().map_or(Ok(()), |data| this.pass(&data)),
            // What a connection says has a cause; nobody hears it, and it is counted, and not as ours. What has none is said of a
            // body that is no message.
            Poll::Ready(Some(Err(status)))
                if status.code() != Code::Cancelled && std::error::Error::source(status).is_some() =>
            {
                Err(Status::aborted(format!("the request broke off: {}", status.message())))
            }
            Poll::Ready(_) | Poll::Pending => Ok(()),
        };
        if let Err(status) = checked {
            this.ended = true;
            return Poll::Ready(Some(Err(status)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    /// The room that is left, in KiB, after each piece of a body.
    fn check(pieces: &[Vec<u8>], wanted: &[usize]) {
        let room = Room::new(0);
        let mut body = Incoming::new(tonic::body::Body::empty(), (room.clone(), Taken::default()));
        let left = pieces.iter().map(|piece| {
            body.pass(piece).unwrap();
            room.units.available_permits()
        });
        assert_eq!(left.collect::<Vec<_>>(), wanted);
        drop(body);
        assert_eq!(room.units.available_permits(), 16 * 1024);
    }

    fn prefix(flag: u8, length: u32) -> Vec<u8> {
        [&[flag][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn a_message_takes_room_from_its_prefix_until_the_next() {
        let large = 1024 * 1024;
        check(&[prefix(0, 100), vec![0; 100]], &[16 * 1024, 16 * 1024]);
        check(&[prefix(0, large), vec![0; 5], vec![0; 1024 * 1024 - 5]], &[15 * 1024; 3]);
        let (begin, rest) = (prefix(0, large)[..3].to_vec(), prefix(0, large)[3..].to_vec());
        check(
            &[begin, rest, vec![0; 1024 * 1024], prefix(0, 9)],
            &[16 * 1024, 15 * 1024, 15 * 1024, 16 * 1024],
        );
        // What a byte of gzip may become, and no more than a message may be.
        check(&[prefix(1, 1024)], &[16 * 1024 - 1_032]);
        check(&[prefix(1, 1024 * 1024)], &[0]);
        check(&[prefix(0, u32::MAX)], &[0]);
        check(&[[prefix(0, 2), vec![0; 2], prefix(0, large)].concat()], &[15 * 1024]);
    }

    #[test]
    fn a_message_without_room_ends_its_call_and_says_when_to_retry() {
        let room = Room::new(0);
        let mut first = Incoming::new(tonic::body::Body::empty(), (room.clone(), Taken::default()));
        first.pass(&prefix(0, 16 * 1024 * 1024)).unwrap();
        let mut second = Incoming::new(tonic::body::Body::empty(), (room.clone(), Taken::default()));
        let refused = second.pass(&prefix(0, 1024 * 1024)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("server.messages_bytes_max"), "{refused}");
        assert_eq!(refused.get_details_retry_info().and_then(|info| info.retry_delay), Some(RETRY_AFTER));
        // A short one goes through, and a long one when there is room again.
        let next = || Incoming::new(tonic::body::Body::empty(), (room.clone(), Taken::default()));
        next().pass(&prefix(0, 1024)).unwrap();
        drop(first);
        next().pass(&prefix(0, 1024 * 1024)).unwrap();
    }
}
