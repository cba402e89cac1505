//! Datasets: staged, uploaded, committed.

use super::respond::{Answer, CHUNK_ROWS, Stream, fail, fitted, id, page, stream};
use crate::shared::Shared;
use domain::fingerprint::RowsHash;
use domain::ids::DatasetId;
use domain::ports::{BATCH_MAX, StoreError};
use domain::spec::is_name;
use domain::{Example, Split, Violation};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::datasets_service_server::DatasetsService;
use wire::v1::{self, get_dataset_request::Which};

/// Most rows of a dataset: the largest 32-bit count.
const ROWS_MAX: u64 = u32::MAX as u64;

pub(super) struct Datasets(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl DatasetsService for Datasets {
    async fn create_dataset(
        &self,
        request: Request<v1::CreateDatasetRequest>,
    ) -> Answer<v1::CreateDatasetResponse> {
        let request = request.into_inner();
        let request_id = id("request_id", &request.request_id)?;
        if !is_name(&request.name) {
            let words =
                "must have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter or digit";
            return Err(wire::invalid(vec![Violation::new("name", words)]));
        }
        let dataset = self.0.stores.datasets.create_dataset(request_id, &request.name).await.map_err(fail)?;
        Ok(Response::new(v1::CreateDatasetResponse { dataset: Some(dataset.into()) }))
    }

    async fn upload_rows(
        &self,
        request: Request<Streaming<v1::UploadRowsRequest>>,
    ) -> Answer<v1::UploadRowsResponse> {
        let mut chunks = request.into_inner();
        let mut rows = 0;
        let mut dataset: Option<DatasetId> = None;
        while let Some(chunk) = chunks.message().await? {
            let this: DatasetId = id("dataset_id", &chunk.dataset_id)?;
            if dataset.is_some_and(|dataset| dataset != this) {
                let words = "changes within one stream: open one stream for each dataset";
                return Err(wire::invalid(vec![Violation::new("dataset_id", words)]));
            }
            dataset = Some(this);
            let examples = read_chunk(chunk.offset, chunk.examples).map_err(wire::invalid)?;
            rows = self.0.stores.datasets.append_rows(this, chunk.offset, examples).await.map_err(fail)?;
        }
        if dataset.is_none() {
            return Err(wire::invalid(vec![Violation::new(
                "dataset_id",
                "is missing: the stream contains no chunk: send at least one",
            )]));
        }
        Ok(Response::new(v1::UploadRowsResponse { rows }))
    }

    async fn commit_dataset(
        &self,
        request: Request<v1::CommitDatasetRequest>,
    ) -> Answer<v1::CommitDatasetResponse> {
        let dataset = id("dataset_id", &request.into_inner().dataset_id)?;
        let fingerprint = fingerprint(&self.0, dataset).await?;
        let dataset = self.0.stores.datasets.commit_dataset(dataset, &fingerprint).await.map_err(fail)?;
        Ok(Response::new(v1::CommitDatasetResponse { dataset: Some(dataset.into()) }))
    }

    async fn get_dataset(&self, request: Request<v1::GetDatasetRequest>) -> Answer<v1::GetDatasetResponse> {
        let which = wire::present("which", request.into_inner().which).map_err(wire::invalid)?;
        let store = &self.0.stores.datasets;
        let absent = |name: &str| fail(StoreError::not_found("dataset", name));
        let dataset = match which {
            Which::DatasetId(text) => store.dataset(id("dataset_id", &text)?).await.map_err(fail)?,
            Which::Name(name) => {
                store.find_dataset(&name).await.map_err(fail)?.ok_or_else(|| absent(&name))?
            }
            Which::Fingerprint(fingerprint) => store
                .find_dataset_by_fingerprint(&fingerprint)
                .await
                .map_err(fail)?
                .ok_or_else(|| absent(&fingerprint))?,
        };
        Ok(Response::new(v1::GetDatasetResponse { dataset: Some(dataset.into()) }))
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Answer<v1::ListDatasetsResponse> {
        let store = &self.0.stores.datasets;
        let read = |page| async move { store.list_datasets(&page).await };
        let (datasets, next_page_token) = fitted(page(request.into_inner().page), read).await?;
        Ok(Response::new(v1::ListDatasetsResponse { datasets, next_page_token }))
    }

    type StreamRowsStream = Stream<v1::StreamRowsResponse>;

    async fn stream_rows(&self, request: Request<v1::StreamRowsRequest>) -> Answer<Self::StreamRowsStream> {
        let request = request.into_inner();
        let dataset: DatasetId = id("dataset_id", &request.dataset_id)?;
        let split = wire::filter::<Split>("split", request.split).map_err(wire::invalid)?;
        self.0.stores.datasets.dataset(dataset).await.map_err(fail)?;
        let shared = Arc::clone(&self.0);
        Ok(Response::new(stream(|sink| async move {
            let mut from = request.from_index;
            loop {
                let rows =
                    shared.stores.datasets.rows(dataset, split, from, CHUNK_ROWS).await.map_err(fail)?;
                let Some(last) = rows.last() else { return Ok(()) };
                from = last.index + 1;
                let rows = rows.into_iter().map(Into::into).collect();
                if !sink.send_all(rows, |rows| v1::StreamRowsResponse { rows }).await {
                    return Ok(());
                }
            }
        })))
    }

    async fn delete_dataset(
        &self,
        request: Request<v1::DeleteDatasetRequest>,
    ) -> Answer<v1::DeleteDatasetResponse> {
        let dataset = id("dataset_id", &request.into_inner().dataset_id)?;
        self.0.stores.datasets.delete_dataset(dataset).await.map_err(fail)?;
        Ok(Response::new(v1::DeleteDatasetResponse {}))
    }
}

/// A chunk's rows; mistakes are named by the row's index in the dataset.
fn read_chunk(offset: u64, examples: Vec<v1::Example>) -> Result<Vec<Example>, Vec<Violation>> {
    if examples.len() > wire::CHUNK_ROWS_MAX {
        let words = format!("has {} rows: the limit of a chunk is {}", examples.len(), wire::CHUNK_ROWS_MAX);
        return Err(vec![Violation::new("examples", words)]);
    }
    if offset > ROWS_MAX {
        let words = format!("is {offset}: a dataset has at most {ROWS_MAX} rows");
        return Err(vec![Violation::new("offset", words)]);
    }
    let mut rows = Vec::with_capacity(examples.len());
    let mut found = Vec::new();
    for (example, index) in examples.into_iter().zip(offset..) {
        match wire::under(&format!("rows[{index}]"), example.try_into()) {
            Ok(example) => rows.push(example),
            Err(violations) => found.extend(violations),
        }
    }
    if found.is_empty() { Ok(rows) } else { Err(found) }
}

/// The fingerprint (hex) of the rows in order.
async fn fingerprint(shared: &Shared, dataset: DatasetId) -> Result<String, Status> {
    let mut hasher = RowsHash::default();
    let mut from = 0;
    loop {
        let rows = shared.stores.datasets.rows(dataset, None, from, BATCH_MAX).await.map_err(fail)?;
        let Some(last) = rows.last() else { break };
        from = last.index + 1;
        for row in &rows {
            hasher.add(&row.example);
        }
    }
    Ok(hex::encode(hasher.finish()))
}
