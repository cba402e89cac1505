//! What the services share: ids and pages of requests, failures and streams of answers.

use domain::Violation;
use domain::ports::{BATCH_MAX, Page, PageRequest, StoreError, StoreResult};
use tonic::{Response, Status};
use tracing::Instrument;
use wire::v1;

/// Messages that wait in one stream. They are few and short: a caller need not read what it asked for.
const STREAM_BUFFER: usize = 2;
/// Rows of one streamed chunk.
pub(super) const CHUNK_ROWS: usize = 32;
/// Page size where the caller names none.
const PAGE_DEFAULT: usize = 100;

/// What a handler answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;
/// What a streaming handler answers with.
pub(super) type Stream<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

pub(super) fn fail(error: StoreError) -> Status {
    wire::status(error.fault(), error.to_string())
}

pub(super) fn id<T>(field: &str, text: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    wire::id(field, text).map_err(wire::invalid)
}

pub(super) fn page(request: Option<v1::PageRequest>) -> PageRequest {
    let request = request.unwrap_or_default();
    let size = match request.page_size as usize {
        0 => PAGE_DEFAULT,
        size => size.min(BATCH_MAX),
    };
    PageRequest { size, cursor: (!request.page_token.is_empty()).then_some(request.page_token) }
}

/// Refuses a text that is kept and longer than `bytes_max`: whatever lists it could not be sent.
pub(super) fn check_bytes(field: &str, bytes: usize, bytes_max: usize) -> Result<(), Status> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let words = format!("is {bytes} bytes long: the limit is {bytes_max}; shorten it");
    Err(wire::invalid(vec![Violation::new(field, words)]))
}

/// A page of a list, and the token of the next: `read` is asked for fewer items where those of a whole page do not go into one
/// message.
pub(super) async fn fitted<T, M, Reading>(
    mut page: PageRequest,
    read: impl Fn(PageRequest) -> Reading,
) -> Result<(Vec<M>, String), Status>
where
    M: wire::Message + From<T>,
    Reading: Future<Output = StoreResult<Page<T>>>,
{
    loop {
        let found = read(page.clone()).await.map_err(fail)?;
        let items: Vec<M> = found.items.into_iter().map(M::from).collect();
        let fitting = wire::fitting(&items);
        if fitting == items.len() {
            return Ok((items, found.next.unwrap_or_default()));
        }
        page.size = fitting;
    }
}

/// A bounded stream fed by a task of its own, which ends when the caller leaves.
pub(super) fn stream<T, F, Task>(feed: F) -> Stream<T>
where
    T: Send + 'static,
    F: FnOnce(StreamSender<T>) -> Task,
    Task: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(STREAM_BUFFER);
    let task = feed(StreamSender(sender.clone()));
    let feeding = async move {
        if let Err(status) = task.await {
            // A caller that left needs no status.
            let _ = sender.send(Err(status)).await;
        }
    };
    tokio::spawn(feeding.in_current_span());
    Stream::new(receiver)
}

/// Where a stream's task puts its messages.
pub(super) struct StreamSender<T>(tokio::sync::mpsc::Sender<Result<T, Status>>);

impl<T> StreamSender<T> {
    /// Sends one message. Returns whether the caller is still there.
    pub(super) async fn send(&self, message: T) -> bool {
        self.0.send(Ok(message)).await.is_ok()
    }

    /// Sends items in as many messages as they need. Returns whether the caller is still there.
    pub(super) async fn send_all<M: wire::Message>(
        &self,
        items: Vec<M>,
        message: impl Fn(Vec<M>) -> T,
    ) -> bool {
        for part in wire::parts(items) {
            if !self.send(message(part)).await {
                return false;
            }
        }
        true
    }

    /// Waits until the caller has left.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
