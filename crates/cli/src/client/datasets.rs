//! Datasets: found, read, uploaded, deleted.

use super::call::{Patience, failure, malformed, record};
use crate::exit::Usage;
use domain::example::Row;
use domain::ids::{DatasetId, RequestId};
use domain::records::Dataset;
use domain::{Example, Split};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::Channel;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::{self, get_dataset_request};

fn client(channel: &Channel) -> DatasetsServiceClient<Channel> {
    DatasetsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
}

/// A dataset by name.
pub(crate) async fn find(channel: &Channel, name: &str) -> anyhow::Result<Dataset> {
    let which = Some(get_dataset_request::Which::Name(name.to_owned()));
    let answer =
        client(channel).get_dataset(v1::GetDatasetRequest { which }).await.map_err(|status| match status
            .code()
        {
            tonic::Code::NotFound => {
                Usage(format!("there is no dataset `{name}`: `distillery import` brings one in")).into()
            }
            _ => failure(status),
        })?;
    record("dataset", answer.into_inner().dataset).map_err(failure)
}

/// Deletes a dataset.
pub(crate) async fn delete(channel: &Channel, dataset: DatasetId) -> Result<(), Status> {
    let request = v1::DeleteDatasetRequest { dataset_id: dataset.to_string() };
    client(channel).delete_dataset(request).await.map(drop)
}

/// Passes the rows of a dataset to `see`, in order; after a lost connection it resumes behind the last one.
pub(crate) async fn rows(
    channel: &Channel,
    dataset: DatasetId,
    split: Option<Split>,
    mut see: impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client = client(channel);
    let split = split.map_or(v1::Split::Unspecified, v1::Split::from).into();
    let mut patience = Patience::default();
    let mut from_index = 0;
    loop {
        let request = v1::StreamRowsRequest { dataset_id: dataset.to_string(), split, from_index };
        let lost = match client.stream_rows(request).await {
            Ok(answer) => {
                let mut chunks = answer.into_inner();
                loop {
                    match chunks.message().await {
                        Ok(Some(chunk)) => {
                            patience.restored();
                            for row in chunk.rows {
                                let row = Row::try_from(row).map_err(|found| failure(malformed(found)))?;
                                from_index = row.index + 1;
                                see(row)?;
                            }
                        }
                        Ok(None) => return Ok(()),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// A dataset to upload to: a new one, or that of an earlier call with the same request id.
pub(crate) async fn create(channel: &Channel, request: RequestId, name: &str) -> Result<Dataset, Status> {
    let request = v1::CreateDatasetRequest { request_id: request.to_string(), name: name.to_owned() };
    let answer = client(channel).create_dataset(request).await?;
    record("dataset", answer.into_inner().dataset)
}

/// Rows to upload, and the index of the first of them.
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) rows: Vec<Example>,
}

/// Uploads chunks as they come, to the last one.
pub(crate) async fn append(
    channel: &Channel,
    dataset: DatasetId,
    chunks: mpsc::Receiver<Chunk>,
) -> Result<(), Status> {
    let requests = ReceiverStream::new(chunks).map(move |chunk| v1::UploadRowsRequest {
        dataset_id: dataset.to_string(),
        offset: chunk.offset,
        examples: chunk.rows.into_iter().map(Into::into).collect(),
    });
    client(channel).upload_rows(requests).await.map(drop)
}

/// Makes a dataset visible and immutable.
pub(crate) async fn commit(channel: &Channel, dataset: DatasetId) -> Result<Dataset, Status> {
    let request = v1::CommitDatasetRequest { dataset_id: dataset.to_string() };
    let answer = client(channel).commit_dataset(request).await?;
    record("dataset", answer.into_inner().dataset)
}
