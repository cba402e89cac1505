//! An answer on its way out: it keeps the call's place and room until it ends, and ends at the deadline, or when its connection
//! closes and it would last for ever.

use super::incoming::Taken;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// How an answer ends at its deadline.
pub(super) fn late() -> Status {
    Status::deadline_exceeded("the deadline passed before the answer was complete")
}

/// How a watch ends when its connection closes.
fn closing() -> Status {
    Status::unavailable("the server is closing this connection: call again")
}

/// The call's place, and the room of its request.
pub(super) type Held = (Option<OwnedSemaphorePermit>, Taken);

/// The body of an answer.
pub(super) struct Outgoing {
    inner: tonic::body::Body,
    deadline: Option<Pin<Box<Sleep>>>,
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
    /// Given back when the answer is over, or its caller left.
    _held: Held,
}

impl Outgoing {
    /// `inner`, until `deadline`; until `closing` too, where it would last for ever.
    pub(super) fn new(
        inner: tonic::body::Body,
        deadline: Option<Instant>,
        closing: Option<CancellationToken>,
        held: Held,
    ) -> Self {
        Self {
            inner,
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            closing: closing.map(|closing| Box::pin(closing.cancelled_owned())),
            ended: false,
            _held: held,
        }
    }

    /// The trailers that end it before its time.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }
}

impl Body for Outgoing {
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
        if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return this.end(&late());
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if this.closing.as_mut().is_some_and(|closing| closing.as_mut().poll(context).is_ready()) {
            return this.end(&closing());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // It may end before its time.
        SizeHint::default()
    }
}
