//! The gRPC services. Each is a door: messages become domain types, one call of the store or of the harvester follows.

mod datasets;
mod distillations;
mod models;
mod rationales;
mod runs;

use crate::Shared;
use domain::ports::{BATCH_MAX, PageRequest, StoreError};
use std::sync::Arc;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Response, Status};
use tracing::Instrument;
use wire::v1;
use wire::v1::datasets_service_server::DatasetsServiceServer;
use wire::v1::distillations_service_server::DistillationsServiceServer;
use wire::v1::models_service_server::ModelsServiceServer;
use wire::v1::rationales_service_server::RationalesServiceServer;
use wire::v1::runs_service_server::RunsServiceServer;

/// Messages that wait in one stream.
const STREAM_BUFFER: usize = 8;
/// Rows of one streamed chunk.
const CHUNK_ROWS: usize = 200;
/// Page size where the caller names none.
const PAGE_DEFAULT: usize = 100;

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;
/// What a streaming handler answers with.
type Stream<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

/// All services of the harvester.
pub(crate) fn routes(shared: &Arc<Shared>) -> Routes {
    let mut routes = Routes::builder();
    macro_rules! add {
        ($($server:ident($service:expr)),+ $(,)?) => {$(
            routes.add_service(
                $server::new($service)
                    .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(wire::MESSAGE_BYTES_MAX)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Gzip),
            );
        )+};
    }
    add!(
        DatasetsServiceServer(datasets::Datasets(Arc::clone(shared))),
        DistillationsServiceServer(distillations::Distillations(Arc::clone(shared))),
        RationalesServiceServer(rationales::Rationales(Arc::clone(shared))),
        RunsServiceServer(runs::Runs(Arc::clone(shared))),
        ModelsServiceServer(models::Models(Arc::clone(shared))),
    );
    routes.routes()
}

fn fail(error: StoreError) -> Status {
    wire::status(error.fault(), error.to_string())
}

fn id<T>(field: &str, text: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    wire::id(field, text).map_err(wire::invalid)
}

fn page(request: Option<v1::PageRequest>) -> PageRequest {
    let request = request.unwrap_or_default();
    let size = match request.page_size as usize {
        0 => PAGE_DEFAULT,
        size => size.min(BATCH_MAX),
    };
    PageRequest { size, cursor: (!request.page_token.is_empty()).then_some(request.page_token) }
}

/// A bounded stream fed by a task of its own, which ends when the caller leaves.
fn stream<T, F, Task>(feed: F) -> Stream<T>
where
    T: Send + 'static,
    F: FnOnce(Sink<T>) -> Task,
    Task: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(STREAM_BUFFER);
    let task = feed(Sink(sender.clone()));
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
struct Sink<T>(tokio::sync::mpsc::Sender<Result<T, Status>>);

impl<T> Sink<T> {
    /// Sends one message. Says whether the caller is still there.
    async fn send(&self, message: T) -> bool {
        self.0.send(Ok(message)).await.is_ok()
    }

    /// Whether the caller left.
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
