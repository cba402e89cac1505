//! Where the parts of a provider's batch API are.

use super::grouping::{BatchAnswer, LineSaid};
use super::{anthropic, gemini, openai};
use crate::client::Client;
use crate::dialect;
use crate::error::TeacherError;
use crate::profile::Provider;
use reqwest::{Method, Url};
use serde_json::Value;
use std::time::Duration;

/// Longest time of an upload or a download.
pub(super) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2 * 3_600);

/// A provider's batch API. Cloning shares its connections.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
}

impl Api {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) fn provider(&self) -> Provider {
        self.client.profile().provider
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The request for a file of results, or for the results of a batch.
    pub(super) fn download(&self, file: &str) -> Result<reqwest::RequestBuilder, TeacherError> {
        let address = match self.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => {
                self.address(&["files", file, "content"])?
            }
            Provider::Anthropic => self.batch_address(file, Some("results"))?,
            Provider::Gemini => {
                let call = format!("{file}:download");
                let mut address =
                    before_path("/download", self.address(&call.split('/').collect::<Vec<_>>())?);
                address.query_pairs_mut().append_pair("alt", "media");
                address
            }
        };
        Ok(self.client.request(Method::GET, address).timeout(TRANSFER_TIMEOUT))
    }

    /// What a line of results says.
    pub(super) fn line(&self, line: &[u8]) -> BatchAnswer {
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(_) => serde_json::from_str(&String::from_utf8_lossy(line)).unwrap_or(Value::Null),
        };
        let answer = match self.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => openai::answer(&value),
            Provider::Anthropic => anthropic::answer(&value),
            Provider::Gemini => gemini::answer(&value),
        };
        answer.unwrap_or(BatchAnswer { call: None, said: LineSaid::Garbled })
    }

    pub(super) fn batch_address(&self, name: &str, act: Option<&str>) -> Result<Url, TeacherError> {
        match self.provider() {
            Provider::OpenAiChat | Provider::OpenAiCompletions => {
                self.address(&["batches", name].into_iter().chain(act).collect::<Vec<_>>())
            }
            Provider::Anthropic => {
                self.address(&anthropic::PATH.into_iter().chain([name]).chain(act).collect::<Vec<_>>())
            }
            Provider::Gemini => {
                let call = act.map_or_else(|| name.to_owned(), |act| format!("{name}:{act}"));
                self.address(&call.split('/').collect::<Vec<_>>())
            }
        }
    }

    pub(super) fn address(&self, path: &[&str]) -> Result<Url, TeacherError> {
        dialect::address(self.client.profile(), path).map_err(|error| self.invalid(&error))
    }

    pub(super) fn invalid(&self, what: &str) -> TeacherError {
        TeacherError::Invalid(format!("teacher `{}`: its batch API {what}", self.client.profile().name))
    }

    pub(super) fn malformed(&self, answer: &Value) -> TeacherError {
        self.client
            .malformed("sent an answer of its batch API that cannot be read: check the profile's url", answer)
    }
}

/// The same address with `before` in front of its path.
pub(super) fn before_path(before: &str, mut address: Url) -> Url {
    let path = format!("{before}{}", address.path());
    address.set_path(&path);
    address
}
