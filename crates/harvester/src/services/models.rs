//! Published students and base checkpoints.

use super::respond::{Answer, Stream, check_bytes, fail, fitted, id, page, stream};
use crate::shared::Shared;
use crate::watching::{Look, Models};
use domain::ids::ModelId;
use domain::ports::{PageRequest, StoreError, StoreResult};
use domain::records::Model;
use domain::spec::is_name;
use domain::{ModelStore, Violation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};
use wire::v1;
use wire::v1::get_model_request::Which;
use wire::v1::models_service_server::ModelsService;

/// How often all models are read, so that it is seen that one was deleted elsewhere.
const READ_EVERY: Duration = Duration::from_secs(5);

pub(super) struct ModelsOf(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl ModelsService for ModelsOf {
    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Answer<v1::GetModelResponse> {
        let which = wire::present("which", request.into_inner().which).map_err(wire::invalid)?;
        let store = &self.0.stores.models;
        let model = match which {
            Which::ModelId(text) => store.model(id("model_id", &text)?).await.map_err(fail)?,
            Which::ModelName(name) => {
                let version = (name.version > 0).then_some(name.version);
                let found = store.find_model(&name.name, version).await.map_err(fail)?;
                found.ok_or_else(|| fail(StoreError::not_found("model", name.name)))?
            }
        };
        Ok(Response::new(v1::GetModelResponse { model: Some(model.into()) }))
    }

    async fn list_models(&self, request: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        let request = request.into_inner();
        let name = (!request.name.is_empty()).then_some(request.name.as_str());
        let store = &self.0.stores.models;
        let read = |page| async move { store.list_models(name, &page).await };
        let (models, next_page_token) = fitted(page(request.page), read).await?;
        Ok(Response::new(v1::ListModelsResponse { models, next_page_token }))
    }

    type WatchModelsStream = Stream<v1::WatchModelsResponse>;

    async fn watch_models(&self, _: Request<v1::WatchModelsRequest>) -> Answer<Self::WatchModelsStream> {
        let shared = &self.0;
        let look =
            || ModelsLook { shared: Arc::clone(shared), seen: None, read_at: Instant::now(), deleted: 0 };
        let mut watcher = shared.watched_models.watch((), look)?;
        Ok(Response::new(stream(move |sink| async move {
            let mut sent: Option<Models> = None;
            loop {
                let models = tokio::select! {
                    models = watcher.next() => models?,
                    () = sink.closed() => return Ok(()),
                };
                if sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &models)) {
                    continue;
                }
                let message = models.values().cloned().map(Into::into).collect();
                if !sink.send(v1::WatchModelsResponse { models: message }).await {
                    return Ok(());
                }
                sent = Some(models);
            }
        })))
    }

    async fn delete_model(
        &self,
        request: Request<v1::DeleteModelRequest>,
    ) -> Answer<v1::DeleteModelResponse> {
        let model = id("model_id", &request.into_inner().model_id)?;
        self.0.stores.models.delete_model(model).await.map_err(fail)?;
        self.0.deleted_models.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(v1::DeleteModelResponse {}))
    }

    async fn register_base_model(
        &self,
        request: Request<v1::RegisterBaseModelRequest>,
    ) -> Answer<v1::RegisterBaseModelResponse> {
        let request = request.into_inner();
        if !is_name(&request.name) {
            return Err(wire::invalid(vec![Violation::new(
                "name",
                "is not a valid checkpoint name: use 1 to 64 of [A-Za-z0-9._-]",
            )]));
        }
        check_bytes("manifest_sha256", request.manifest_sha256.len(), wire::PATH_BYTES_MAX)?;
        let base = self
            .0
            .stores
            .models
            .register_base_model(&request.name, &request.manifest_sha256)
            .await
            .map_err(fail)?;
        Ok(Response::new(v1::RegisterBaseModelResponse { base_model: Some(base.into()) }))
    }
}

/// Who looks at the models for all of their watchers.
struct ModelsLook {
    shared: Arc<Shared>,
    seen: Option<Seen>,
    read_at: Instant,
    /// How many models had been deleted by this process.
    deleted: u64,
}

/// The models that were read, and the last one that was published then.
struct Seen {
    models: Models,
    last: Option<ModelId>,
}

impl Look for ModelsLook {
    type Seen = Models;
    const EVERY: Duration = Duration::from_millis(500);

    /// Whether a model was published is asked every time; all of them are read where one was, or was deleted here, and now
    /// and then, for those that were deleted elsewhere.
    async fn look(&mut self) -> Result<Option<Models>, Status> {
        let store = self.shared.stores.models.as_ref();
        let deleted = self.shared.deleted_models.load(Ordering::SeqCst);
        let newest_first =
            store.list_models(None, &PageRequest { size: 1, cursor: None }).await.map_err(fail)?;
        let last = newest_first.items.first().map(|model| model.id);
        let is_known = self.seen.as_ref().is_some_and(|seen| seen.last == last) && self.deleted == deleted;
        if is_known && self.read_at.elapsed() < READ_EVERY {
            return Ok(None);
        }
        (self.read_at, self.deleted) = (Instant::now(), deleted);
        let read = newest(store).await.map_err(fail)?;
        if let Some(seen) = self.seen.as_mut().filter(|seen| *seen.models == read) {
            seen.last = last;
            return Ok(None);
        }
        let models = Arc::new(read);
        self.seen = Some(Seen { models: Arc::clone(&models), last });
        Ok(Some(models))
    }
}

/// The newest version of every name.
async fn newest(store: &dyn ModelStore) -> StoreResult<BTreeMap<String, Model>> {
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let mut page = PageRequest { size: 1_000, cursor: None };
    loop {
        let found = store.list_models(None, &page).await?;
        for model in found.items {
            match models.get(&model.name) {
                Some(known) if known.version >= model.version => {}
                _ => {
                    models.insert(model.name.clone(), model);
                }
            }
        }
        match found.next {
            Some(cursor) => page.cursor = Some(cursor),
            None => return Ok(models),
        }
    }
}
