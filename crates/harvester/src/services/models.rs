//! Published students and base checkpoints.

use super::respond::{Answer, Stream, check_bytes, fail, fitted, id, page, stream};
use crate::shared::Shared;
use domain::ports::{PageRequest, StoreError, StoreResult};
use domain::records::Model;
use domain::spec::is_name;
use domain::{ModelStore, Violation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response};
use wire::v1;
use wire::v1::get_model_request::Which;
use wire::v1::models_service_server::ModelsService;

/// Interval at which a watcher polls for models.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Models(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl ModelsService for Models {
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
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(move |sink| async move {
            let mut sent = None;
            while !sink.is_closed() {
                let models = newest(shared.stores.models.as_ref()).await.map_err(fail)?;
                if sent.as_ref() != Some(&models) {
                    let message = models.values().cloned().map(Into::into).collect();
                    if !sink.send(v1::WatchModelsResponse { models: message }).await {
                        break;
                    }
                    sent = Some(models);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        })))
    }

    async fn delete_model(
        &self,
        request: Request<v1::DeleteModelRequest>,
    ) -> Answer<v1::DeleteModelResponse> {
        let model = id("model_id", &request.into_inner().model_id)?;
        self.0.stores.models.delete_model(model).await.map_err(fail)?;
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
