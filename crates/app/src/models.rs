//! Calls about models: messages of the API stay in here.

use domain::Violation;
use domain::records::BaseModel;
#[cfg(feature = "harvester")]
use domain::records::Model;
use tonic::Status;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

fn malformed(violations: Vec<Violation>) -> Status {
    let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Status::internal(format!("the server's answer cannot be read: {}", words.join("; ")))
}

/// Registers a base checkpoint that is complete in the checkpoint store.
pub(crate) async fn register_base(
    channel: &Channel,
    name: &str,
    manifest_sha256: &str,
) -> Result<BaseModel, Status> {
    let request =
        v1::RegisterBaseModelRequest { name: name.to_owned(), manifest_sha256: manifest_sha256.to_owned() };
    let answer = ModelsServiceClient::new(channel.clone()).register_base_model(request).await?;
    wire::present("base_model", answer.into_inner().base_model).map(Into::into).map_err(malformed)
}

/// A published model by its name; version 0 is the newest.
#[cfg(feature = "harvester")]
pub(crate) async fn find(channel: &Channel, name: &str, version: u64) -> Result<Model, Status> {
    let which =
        Some(v1::get_model_request::Which::ModelName(v1::ModelName { name: name.to_owned(), version }));
    let answer = ModelsServiceClient::new(channel.clone()).get_model(v1::GetModelRequest { which }).await?;
    wire::present("model", answer.into_inner().model).and_then(TryInto::try_into).map_err(malformed)
}

/// The newest models: the first page of them.
#[cfg(feature = "harvester")]
pub(crate) async fn newest(channel: &Channel) -> Result<Vec<Model>, Status> {
    let request = v1::ListModelsRequest::default();
    let answer = ModelsServiceClient::new(channel.clone()).list_models(request).await?.into_inner();
    answer.models.into_iter().map(|model| model.try_into().map_err(malformed)).collect()
}
