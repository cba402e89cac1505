//! gRPC inside one process: the same services and clients, over memory.

use crate::ingress::Observed;
use domain::Fault;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tower::layer::layer_fn;
use tower::service_fn;
use wire::{Channel, Credentials};

/// Bytes in flight in one direction of one connection.
const BUFFER_BYTES: usize = 1024 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 16;

/// Serves `routes` until `shutdown`, and returns a channel to them.
///
/// # Errors
/// The first connection cannot be made, which only happens when the server ended already.
pub async fn in_memory(routes: Routes, shutdown: CancellationToken) -> anyhow::Result<Channel> {
    let (accept, accepted) = mpsc::channel::<DuplexStream>(BACKLOG);
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, io::Error>);
    tokio::spawn(async move {
        let served = Server::builder()
            .layer(layer_fn(Observed::traced))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(fault = ?Fault::Internal, %error, "the in-memory server ended");
        }
    });
    let connector = service_fn(move |_| {
        let accept = accept.clone();
        async move {
            let (client, server) = tokio::io::duplex(BUFFER_BYTES);
            accept.send(server).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok::<_, io::Error>(TokioIo::new(client))
        }
    });
    // The address is never looked up; the connector answers for any.
    let channel = Endpoint::from_static("http://in-memory.invalid").connect_with_connector(connector).await?;
    // Callers within this process are not authenticated.
    Ok(wire::channel(channel, Credentials::default()))
}
