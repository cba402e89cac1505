//! Serving students: admission, one bounded queue, and one thread that owns the device.
//!
//! `service` is the gRPC API, `open_inference` the Open Inference Protocol for standard clients, `registry` knows the models by
//! name. `engine` admits a `request`; `work` is the thread that answers what was admitted, `queue` says what it begins at the
//! next step (a pure function), and `cache` keeps what was answered.
//!
//! # Invariants
//!
//! - No database and no tensor is imported: published models are watched over gRPC, read from the checkpoint store, and
//!   computed in `student`.
//! - A row's answer is the same alone and in any batch, and the same as in the trainer's evaluation.
//! - Nothing waits without a bound; an admitted call is not refused later; a row that fails fails alone.
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let inference = inference::Inference::start(inference::Settings::default())?;
//! inference.open_folder("reviews", "student".as_ref()).await?;
//! let _service = inference.service();
//! # Ok(())
//! # }
//! ```

mod cache;
mod engine;
mod error;
mod meters;
mod open_inference;
mod queue;
mod registry;
mod request;
mod served;
mod service;
mod settings;
mod watch;
mod work;

pub use error::InferenceError;
pub use settings::Settings;

use checkpoints::Checkpoints;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use wire::Channel;
use wire::open_inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use wire::v1::inference_service_server::InferenceServiceServer;

/// Largest message that asks about one example, in bytes.
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The inference service. Cloning shares it.
#[derive(Clone)]
pub struct Inference {
    api: Arc<service::InferenceApi>,
    device: student::Device,
    models: tokio::sync::watch::Sender<Option<BTreeMap<String, u64>>>,
}

impl Inference {
    /// Starts the thread that owns the device.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(settings: Settings) -> Result<Self, InferenceError> {
        let device = student::device(settings.use_cuda);
        student::use_threads(settings.threads);
        let engine = engine::Engine::start(settings)?;
        let api = Arc::new(service::InferenceApi::new(Arc::default(), engine));
        Ok(Self { api, device, models: Default::default() })
    }

    /// Serves the student in a folder under `name`, version 0.
    ///
    /// # Errors
    /// The folder is no student: what is missing or wrong is named.
    pub async fn open_folder(&self, name: &str, folder: &Path) -> Result<(), InferenceError> {
        let (name, folder, device) = (name.to_owned(), folder.to_owned(), self.device);
        let served = tokio::task::spawn_blocking(move || served::Served::open(&name, 0, &folder, device))
            .await
            .map_err(|error| InferenceError::Internal(error.to_string()))??;
        self.api.registry.insert(served);
        meters::models(self.api.registry.versions().len());
        Ok(())
    }

    /// Serves the newest version of every published model, as they come and go, until `shutdown`.
    pub async fn watch(&self, channel: Channel, checkpoints: Checkpoints, shutdown: CancellationToken) {
        let follower = watch::Follower {
            registry: &self.api.registry,
            device: self.device,
            models: &self.models,
            checkpoints,
        };
        follower.run(channel, shutdown).await;
    }

    /// Names and versions of the published models that are served; `None` until [`Inference::watch`] has loaded, and
    /// warmed up, those that it found first.
    pub fn models(&self) -> tokio::sync::watch::Receiver<Option<BTreeMap<String, u64>>> {
        self.models.subscribe()
    }

    /// The gRPC service.
    pub fn service(
        &self,
    ) -> InferenceServiceServer<impl wire::v1::inference_service_server::InferenceService> {
        InferenceServiceServer::from_arc(Arc::clone(&self.api))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(wire::MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    }

    /// The same answers by the Open Inference Protocol, version 2.
    pub fn open_inference(&self) -> GrpcInferenceServiceServer<impl GrpcInferenceService> {
        let loaded = self.models();
        GrpcInferenceServiceServer::new(open_inference::OpenInference {
            service: Arc::clone(&self.api),
            loaded,
        })
        .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(wire::MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
    }

    /// Takes no more requests; what waits is still answered.
    pub fn drain(&self) {
        self.api.engine.drain();
    }
}
