//! Following the published models: load, warm up, swap in while the old one answers.

use crate::registry::Registry;
use crate::served::Served;
use crate::{InferenceError, meters};
use checkpoints::Checkpoints;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;
use student::Device;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

/// How long to wait before asking again after the harvester was away.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the published models.
pub(crate) struct Follower<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) device: Device,
    /// Names and versions that are served.
    pub(crate) models: &'a watch::Sender<Option<BTreeMap<String, u64>>>,
    pub(crate) checkpoints: Checkpoints,
}

impl Follower<'_> {
    /// Follows until `shutdown`, through outages of the harvester.
    pub(crate) async fn run(&self, channel: Channel, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.follow(channel.clone()) => {
                    if let Err(status) = result {
                        tracing::warn!(%status, "the models cannot be watched");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow(&self, channel: Channel) -> Result<(), tonic::Status> {
        let mut client = ModelsServiceClient::new(channel).max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
        let mut models = client.watch_models(v1::WatchModelsRequest {}).await?.into_inner();
        while let Some(message) = models.message().await? {
            let served = self.registry.versions();
            let wanted: HashSet<&str> = message.models.iter().map(|model| model.name.as_str()).collect();
            for name in served.keys().filter(|name| !wanted.contains(name.as_str())) {
                self.registry.remove(name);
            }
            for model in &message.models {
                if served.get(&model.name) == Some(&model.version) {
                    continue;
                }
                load(self.registry, self.device, &self.checkpoints, model.clone()).await;
            }
            let served = self.registry.versions();
            meters::models(served.len());
            self.models.send_replace(Some(served));
        }
        Ok(())
    }
}

/// A model that cannot be loaded leaves the old one in its place.
async fn load(registry: &Registry, device: Device, checkpoints: &Checkpoints, model: v1::Model) {
    let checkpoints = checkpoints.clone();
    let name = model.name.clone();
    let span = load_span(&model);
    let within = span.clone();
    let opened = tokio::task::spawn_blocking(move || {
        within.in_scope(|| {
            let folder = checkpoints
                .fetch(&model.path, Some(&model.manifest_sha256))
                .map_err(|error| InferenceError::Model(error.to_string()))?;
            let mut served = Served::open(&model.name, model.version, &folder, device)?;
            served.traceparent = model.traceparent;
            Ok(served)
        })
    });
    let opened = opened.await.unwrap_or_else(|error| Err(InferenceError::Internal(error.to_string())));
    meters::loaded(opened.is_ok());
    let _within = span.enter();
    match opened {
        Ok(served) => {
            tracing::info!(model = name, version = served.version, "serving");
            registry.insert(served);
        }
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            tracing::error!(model = name, %error, "a model cannot be served");
        }
    }
}

/// The span of loading a model, in the trace of the job that made it.
fn load_span(model: &v1::Model) -> Span {
    let span = tracing::info_span!(
        domain::telemetry::span::LOAD,
        distillery.job = %model.distillation_id,
        distillery.run = %model.run_id,
        distillery.model = %model.name,
        distillery.version = model.version,
        otel.status_code = tracing::field::Empty,
    );
    wire::trace::adopt(&span, &model.traceparent);
    span
}
