//! What the verbs say to the services: small helpers over the generated clients.

use crate::exit::Usage;
use anyhow::anyhow;
use domain::{Example, Violation};
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::transport::Channel;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::{self, get_dataset_request};

/// Rows of one uploaded chunk.
const CHUNK_ROWS: usize = 500;

/// A status as an error of this program: what the caller wrote wrong is bad usage.
pub(crate) fn failure(status: Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
            Usage(status.message().to_owned()).into()
        }
        _ => anyhow!("{}", status.message()),
    }
}

/// A broken promise of a server.
pub(crate) fn malformed(violations: Vec<Violation>) -> anyhow::Error {
    let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
    anyhow!("the server's answer cannot be read: {}", words.join("; "))
}

/// A request id that says what is asked for: the same content is the same request, in this process and the next, so that
/// an interrupted call repeated does nothing twice.
pub(crate) fn request_id(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// The fingerprint by which an upload is known before it is made.
pub(crate) fn content_hash(rows: &[Example]) -> anyhow::Result<Vec<u8>> {
    let mut hasher = Sha256::new();
    for row in rows {
        hasher.update(serde_json::to_vec(row)?);
        hasher.update(b"\n");
    }
    Ok(hasher.finalize().to_vec())
}

/// Uploads rows by their content: rows that are there already are not sent again, an interrupted upload goes on.
pub(crate) async fn upload(channel: &Channel, name: &str, rows: Vec<Example>) -> anyhow::Result<v1::Dataset> {
    let mut datasets = DatasetsServiceClient::new(channel.clone());
    let request_id = request_id(&[b"dataset", name.as_bytes(), &content_hash(&rows)?]);
    let created = datasets
        .create_dataset(v1::CreateDatasetRequest { request_id, name: name.to_owned() })
        .await
        .map_err(failure)?;
    let dataset = created.into_inner().dataset.ok_or_else(|| anyhow!("the server made no dataset"))?;
    if dataset.state() == v1::DatasetState::Committed {
        return Ok(dataset);
    }
    let (id, begin) = (dataset.id.clone(), dataset.rows);
    let remaining: Vec<Example> = rows.into_iter().skip(usize::try_from(begin)?).collect();
    let chunks: Vec<v1::UploadRowsRequest> = remaining
        .chunks(CHUNK_ROWS)
        .zip(0_u64..)
        .map(|(chunk, place)| v1::UploadRowsRequest {
            dataset_id: id.clone(),
            offset: begin + place * CHUNK_ROWS as u64,
            examples: chunk.iter().cloned().map(Into::into).collect(),
        })
        .collect();
    datasets.upload_rows(futures::stream::iter(chunks)).await.map_err(failure)?;
    let committed =
        datasets.commit_dataset(v1::CommitDatasetRequest { dataset_id: id }).await.map_err(failure)?;
    committed.into_inner().dataset.ok_or_else(|| anyhow!("the server committed no dataset"))
}

/// A dataset by name.
pub(crate) async fn dataset(channel: &Channel, name: &str) -> anyhow::Result<v1::Dataset> {
    let which = Some(get_dataset_request::Which::Name(name.to_owned()));
    let answer = DatasetsServiceClient::new(channel.clone())
        .get_dataset(v1::GetDatasetRequest { which })
        .await
        .map_err(|status| match status.code() {
            tonic::Code::NotFound => {
                Usage(format!("there is no dataset `{name}`: `distillery import` brings one in")).into()
            }
            _ => failure(status),
        })?;
    answer.into_inner().dataset.ok_or_else(|| anyhow!("the server sent no dataset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_is_the_same_request() {
        assert_eq!(request_id(&[b"a", b"b"]), request_id(&[b"a", b"b"]));
        assert_ne!(request_id(&[b"a", b"b"]), request_id(&[b"ab", b""]));
        assert!(request_id(&[b"a"]).parse::<uuid::Uuid>().is_ok());
    }
}
