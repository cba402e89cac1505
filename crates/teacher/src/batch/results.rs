//! Results, line by line: files are long, and lines come in any order.

use super::api::Api;
use super::grouping::BatchAnswer;
use crate::client::BODY_BYTES_MAX;
use crate::error::TeacherError;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::VecDeque;

/// The lines of a batch's files. What is held at a time is one line.
pub struct Results {
    api: Api,
    files: VecDeque<String>,
    chunks: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    buffer: BytesMut,
    /// Where the search for an end of line goes on.
    looked: usize,
    /// The line that is being read is too long: it is thrown away.
    is_skipping: bool,
}

impl Results {
    pub(super) fn new(api: Api, files: Vec<String>) -> Self {
        let (chunks, buffer, looked, is_skipping) = (None, BytesMut::new(), 0, false);
        Self { api, files: files.into(), chunks, buffer, looked, is_skipping }
    }

    /// The next line; `None` behind the last one of the last file.
    ///
    /// # Errors
    /// The provider's, or that of the connection: what was read before stands, and the files can be read again.
    pub async fn next(&mut self) -> Result<Option<BatchAnswer>, TeacherError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(self.api.line(&line)));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next whole line of what has come.
    fn take_line(&mut self) -> Option<Bytes> {
        loop {
            let end = self.buffer.get(self.looked..)?.iter().position(|byte| *byte == b'\n');
            let Some(end) = end.and_then(|end| end.checked_add(self.looked)) else {
                self.looked = self.buffer.len();
                if self.buffer.len() > BODY_BYTES_MAX {
                    tracing::warn!(
                        "a line of a batch's results has more than {BODY_BYTES_MAX} bytes: it is left out"
                    );
                    self.is_skipping = true;
                    self.buffer.clear();
                    self.looked = 0;
                }
                return None;
            };
            let line = self.buffer.split_to(end).freeze();
            self.buffer.advance(1);
            self.looked = 0;
            if !std::mem::take(&mut self.is_skipping) {
                return Some(self.api.client().line(line));
            }
        }
    }

    /// Reads on. Returns whether there may be another line.
    async fn fill(&mut self) -> Result<bool, TeacherError> {
        let Some(chunks) = &mut self.chunks else {
            let Some(file) = self.files.pop_front() else { return Ok(false) };
            let request = self.api.download(&file)?;
            self.chunks = Some(self.api.client().response(request).await?.bytes_stream().boxed());
            return Ok(true);
        };
        match chunks.next().await {
            Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
            Some(Err(error)) => return Err(self.api.client().transport(&error)),
            // The last line may have no end.
            None => {
                self.chunks = None;
                self.buffer.extend_from_slice(b"\n");
            }
        }
        Ok(true)
    }
}
