//! Published models: found, listed, deleted.

use super::call::{failure, page, record, records};
use crate::exit::Usage;
use domain::ids::ModelId;
use domain::records::Model;
use tonic::Status;
use wire::v1::get_model_request::Which;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

/// `name` or `name@version`; version 0 is the newest.
pub(crate) fn name_and_version(model: &str) -> anyhow::Result<(String, u64)> {
    let Some((name, version)) = model.split_once('@') else { return Ok((model.to_owned(), 0)) };
    let version = version.parse::<u64>().ok().filter(|version| *version > 0).ok_or_else(|| {
        Usage(format!(
            "--model: {model}: `{version}` is not a version: write {name}@1, or {name} for the newest"
        ))
    })?;
    Ok((name.to_owned(), version))
}

/// A published model by `name` or `name@version`.
pub(crate) async fn find(channel: &Channel, model: &str) -> anyhow::Result<Model> {
    let (name, version) = name_and_version(model)?;
    let which = Some(Which::ModelName(v1::ModelName { name, version }));
    let answer = ModelsServiceClient::new(channel.clone()).get_model(v1::GetModelRequest { which }).await;
    let answer = answer.map_err(|status| match status.code() {
        tonic::Code::NotFound => {
            Usage(format!("there is no model `{model}`: `distillery models` shows the models")).into()
        }
        _ => failure(status),
    })?;
    record("model", answer.into_inner().model).map_err(failure)
}

/// A published model by its id.
pub(crate) async fn get(channel: &Channel, model: ModelId) -> Result<Model, Status> {
    let which = Some(Which::ModelId(model.to_string()));
    let answer = ModelsServiceClient::new(channel.clone()).get_model(v1::GetModelRequest { which }).await;
    record("model", answer?.into_inner().model)
}

/// At most `limit` models, the newest first.
pub(crate) async fn list(channel: &Channel, name: Option<&str>, limit: usize) -> Result<Vec<Model>, Status> {
    let mut client = ModelsServiceClient::new(channel.clone());
    let (mut models, mut token) = (Vec::new(), String::new());
    while let Some(page) = page(limit, models.len(), &mut token) {
        let request = v1::ListModelsRequest { page: Some(page), name: name.unwrap_or_default().to_owned() };
        let answer = client.list_models(request).await?.into_inner();
        models.extend(records::<_, Model>(answer.models)?);
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(models)
}

/// Deletes a model.
pub(crate) async fn delete(channel: &Channel, model: ModelId) -> Result<(), Status> {
    let request = v1::DeleteModelRequest { model_id: model.to_string() };
    ModelsServiceClient::new(channel.clone()).delete_model(request).await.map(drop)
}
