//! The body of a request, as messages of gRPC. It is read when the service behind the guard asks for it, not before: who is
//! not let in sends nothing that is kept. What is read takes room like messages do.

use super::super::incoming::{Room, Taken};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// Makes messages of a whole body.
pub(super) type Read = Box<dyn FnOnce(&[u8]) -> Result<Vec<Vec<u8>>, Status> + Send>;

/// A body that becomes messages.
pub(super) struct Reading {
    inner: Body,
    /// Until the body is whole.
    read: Option<Read>,
    text: BytesMut,
    /// As many as the caller says, or the most that there may be.
    expected: usize,
    room: Room,
    /// While text is held.
    taken: Taken,
    has_room: bool,
}

impl Reading {
    pub(super) fn new(inner: Body, headers: &HeaderMap, read: Read, room: Room) -> Self {
        let length =
            headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        // A request without a body says neither, and takes no room.
        let expected = if inner.is_end_stream() { 0 } else { length.unwrap_or(wire::MESSAGE_BYTES_MAX) };
        let text = BytesMut::new();
        Self { inner, read: Some(read), text, expected, room, taken: Taken::default(), has_room: false }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        if self.text.len().saturating_add(data.len()) > wire::MESSAGE_BYTES_MAX {
            return Err(too_long());
        }
        self.text.extend_from_slice(data);
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), Status> {
        if self.expected > wire::MESSAGE_BYTES_MAX {
            return Err(too_long());
        }
        if !self.has_room {
            self.taken.replace(self.room.take(false, self.expected)?);
            self.has_room = true;
        }
        Ok(())
    }

    /// All messages, each behind its prefix.
    fn messages(&mut self) -> Result<Bytes, Status> {
        let Some(read) = self.read.take() else { return Ok(Bytes::new()) };
        let messages = read(&std::mem::take(&mut self.text))?;
        self.taken.replace(None);
        let mut framed = BytesMut::new();
        for message in messages {
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).map_err(|_| too_long())?);
            framed.put_slice(&message);
        }
        Ok(framed.freeze())
    }

    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        self.make_room()?;
        loop {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.take(data)?;
                    }
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(status)),
                Poll::Ready(None) => return Poll::Ready(self.messages()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn too_long() -> Status {
    let words = format!(
        "the body has more than {} MiB, which is the limit: send less at once",
        wire::MESSAGE_BYTES_MAX >> 20
    );
    Status::out_of_range(words)
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.read.is_none() {
            return Poll::Ready(None);
        }
        match this.poll_whole(context) {
            Poll::Ready(Ok(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Err(status)) => {
                this.read = None;
                Poll::Ready(Some(Err(status)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
