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
/// How long to wait before a model that could not be loaded is tried again: twice as long every time.
const RELOAD_AFTER: Duration = Duration::from_secs(2);
/// The longest such wait.
const RELOAD_AFTER_MAX: Duration = Duration::from_secs(60);

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
        let Some(message) = models.message().await? else { return Ok(()) };
        let (mut wanted, mut pause) = (message.models, RELOAD_AFTER);
        loop {
            let is_behind = !self.serve(&wanted).await;
            tokio::select! {
                message = models.message() => match message? {
                    Some(message) => (wanted, pause) = (message.models, RELOAD_AFTER),
                    None => return Ok(()),
                },
                // What could not be loaded may be there by now: its folder, or the store that has it.
                () = tokio::time::sleep(pause), if is_behind => pause = (pause * 2).min(RELOAD_AFTER_MAX),
            }
        }
    }

    /// Serves these models and no others. Returns whether all of them could be loaded.
    async fn serve(&self, models: &[v1::Model]) -> bool {
        let served = self.registry.versions();
        let wanted: HashSet<&str> = models.iter().map(|model| model.name.as_str()).collect();
        for name in served.keys().filter(|name| !wanted.contains(name.as_str())) {
            self.registry.remove(name);
        }
        for model in models.iter().filter(|model| served.get(&model.name) != Some(&model.version)) {
            load(self.registry, self.device, &self.checkpoints, model.clone()).await;
        }
        let served = self.registry.versions();
        let all = models.iter().all(|model| served.get(&model.name) == Some(&model.version));
        meters::models(served.len());
        self.models.send_replace(Some(served));
        all
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
