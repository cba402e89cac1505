//! The port of models.

use super::error::StoreResult;
use super::page::{Page, PageRequest};
use crate::ids::ModelId;
use crate::records::{BaseModel, Model};
use async_trait::async_trait;

/// Published students and registered base checkpoints.
#[async_trait]
pub trait ModelStore: Send + Sync + 'static {
    /// One model.
    async fn model(&self, model: ModelId) -> StoreResult<Model>;
    /// A model by name: this version, or the newest.
    async fn find_model(&self, name: &str, version: Option<u64>) -> StoreResult<Option<Model>>;
    /// Models, newest first.
    async fn list_models(&self, name: Option<&str>, page: &PageRequest) -> StoreResult<Page<Model>>;
    /// Deletes the record and returns it, so that its folder can be collected.
    async fn delete_model(&self, model: ModelId) -> StoreResult<Model>;
    /// Registers a base model; the same name with the same manifest does nothing, with another one is a conflict.
    async fn register_base_model(&self, name: &str, manifest_sha256: &str) -> StoreResult<BaseModel>;
    /// A base model by name.
    async fn base_model(&self, name: &str) -> StoreResult<Option<BaseModel>>;
}
