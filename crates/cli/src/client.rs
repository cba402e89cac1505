//! What the verbs say to the services: small helpers over the generated clients.

use crate::exit::Usage;
use crate::progress::say;
use anyhow::anyhow;
use domain::example::Row;
use domain::{Fault, Split, Violation};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tonic::Status;
use wire::Channel;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::v1::{self, get_dataset_request};

/// Entries of one page of a list.
const PAGE_ROWS: usize = 500;

/// A status as an error of this program: what the caller wrote wrong is bad usage.
pub(crate) fn failure(status: Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
            Usage(status.message().to_owned()).into()
        }
        tonic::Code::Unauthenticated => {
            anyhow!("{}: set DISTILLERY_TOKEN, or name a file by --token-file", status.message())
        }
        tonic::Code::Internal => {
            match status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()) {
                Some(id) => anyhow!("{} (request {id})", status.message()),
                None => anyhow!("{}", status.message()),
            }
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

/// How long a lost connection is waited for: the server may be on its way up, or another replica takes over.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: u32,
}

impl Patience {
    /// Calls in vain, one after the other, until it ends: about two minutes.
    const FAILURES_MAX: u32 = 30;
    const DELAY: Duration = Duration::from_millis(200);
    const DELAY_MAX: Duration = Duration::from_secs(5);

    /// Waits before the call is made again, or gives the status back where that would not help.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), Status> {
        let passing = matches!(wire::fault_of(&status), Fault::Unavailable | Fault::Overloaded);
        if !passing || self.failures == Self::FAILURES_MAX {
            return Err(status);
        }
        if self.failures == 1 {
            say(&format!("the server does not answer ({}): trying again", status.message()));
        }
        self.failures += 1;
        tokio::time::sleep((Self::DELAY * self.failures).min(Self::DELAY_MAX)).await;
        Ok(())
    }

    /// It answers again.
    pub(crate) fn restored(&mut self) {
        self.failures = 0;
    }
}

/// The next page of a list of which `seen` entries came already; `None` where `limit` is reached. Takes the token.
pub(crate) fn page(limit: usize, seen: usize, token: &mut String) -> Option<v1::PageRequest> {
    let size = limit.saturating_sub(seen).min(PAGE_ROWS);
    let page_size = u32::try_from(size).unwrap_or(u32::MAX);
    (size > 0).then(|| v1::PageRequest { page_size, page_token: std::mem::take(token) })
}

/// Hands the rows of a dataset to `see`, in order; after a lost connection it goes on behind the last one.
pub(crate) async fn rows(
    channel: &Channel,
    dataset_id: &str,
    split: Option<Split>,
    mut see: impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut datasets =
        DatasetsServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
    let split = split.map_or(v1::Split::Unspecified, v1::Split::from).into();
    let mut patience = Patience::default();
    let mut from_index = 0;
    loop {
        let request = v1::StreamRowsRequest { dataset_id: dataset_id.to_owned(), split, from_index };
        let lost = match datasets.stream_rows(request).await {
            Ok(answer) => {
                let mut chunks = answer.into_inner();
                loop {
                    match chunks.message().await {
                        Ok(Some(chunk)) => {
                            patience.restored();
                            for row in chunk.rows {
                                let row = Row::try_from(row).map_err(malformed)?;
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

/// `name` or `name@version`; version 0 is the newest.
pub(crate) fn name_and_version(model: &str) -> anyhow::Result<(String, u64)> {
    let Some((name, version)) = model.split_once('@') else { return Ok((model.to_owned(), 0)) };
    let version = version.parse::<u64>().ok().filter(|version| *version > 0).ok_or_else(|| {
        Usage(format!(
            "--model: {model}: `{version}` is no version: write {name}@1, or {name} for the newest"
        ))
    })?;
    Ok((name.to_owned(), version))
}

/// A published model by `name` or `name@version`.
pub(crate) async fn model(channel: &Channel, model: &str) -> anyhow::Result<v1::Model> {
    let (name, version) = name_and_version(model)?;
    let which = Some(v1::get_model_request::Which::ModelName(v1::ModelName { name, version }));
    let mut models = ModelsServiceClient::new(channel.clone());
    let answer =
        models.get_model(v1::GetModelRequest { which }).await.map_err(|status| match status.code() {
            tonic::Code::NotFound => {
                Usage(format!("there is no model `{model}`: `distillery models` shows those there are"))
                    .into()
            }
            _ => failure(status),
        })?;
    answer.into_inner().model.ok_or_else(|| anyhow!("the server sent no model"))
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
