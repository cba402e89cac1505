//! Answers of gRPC, taken apart: message by message, with the status at the end.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes of what stands before a message.
const PREFIX_BYTES: usize = 5;

/// The messages of an answer.
pub(super) struct Messages {
    body: Body,
    buffer: BytesMut,
    ended: bool,
}

impl Messages {
    /// Those of `response`, next to the id of its request.
    ///
    /// # Errors
    /// The call failed before its first message.
    pub(super) fn of(response: Response<Body>) -> (Option<HeaderValue>, Result<Self, Status>) {
        let id = response.headers().get(super::super::guard::REQUEST_ID).cloned();
        let (head, body) = response.into_parts();
        let status = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok);
        let opened = match status {
            Some(status) => Err(status),
            None if !head.status.is_success() => {
                Err(Status::unknown(format!("the service answered {}", head.status)))
            }
            None => Ok(Self { body, buffer: BytesMut::new(), ended: false }),
        };
        (id, opened)
    }

    /// The next message; `None` at the end of an answer that is whole.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
                Some(Err(status)) => return Err(status),
                None => self.ended = true,
            }
        }
    }

    /// The one message of an answer.
    ///
    /// # Errors
    /// The call failed.
    pub(super) async fn one(mut self) -> Result<Bytes, Status> {
        let message = self.next().await?;
        let message =
            message.ok_or_else(|| wire::status(domain::Fault::Internal, "an answer without a message"))?;
        while self.next().await?.is_some() {}
        Ok(message)
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Status> {
        self.ended = true;
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(()),
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((flag, rest)) = self.buffer.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
            return Ok(None);
        };
        if *flag != 0 {
            return Err(wire::status(
                domain::Fault::Internal,
                "an answer is compressed, and was not asked to be",
            ));
        }
        if self.buffer.len() < PREFIX_BYTES.saturating_add(length) {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}
