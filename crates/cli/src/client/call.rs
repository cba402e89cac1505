//! What every call needs: its errors, its retries and its pages.

use crate::exit::Usage;
use crate::terminal::say;
use anyhow::anyhow;
use domain::{Fault, Violation};
use std::time::Duration;
use tonic::Status;
use wire::v1;

/// Entries of one page of a list.
const PAGE_ROWS: usize = 500;

/// A status as an error of this program: what the caller wrote wrong is bad usage.
pub(crate) fn failure(status: Status) -> anyhow::Error {
    if let Some(words) = app::client::unanswered(&status) {
        return anyhow!(words);
    }
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => {
            Usage(status.message().to_owned()).into()
        }
        tonic::Code::Unauthenticated => {
            anyhow!("{}: set DISTILLERY_TOKEN, or pass --token-file", status.message())
        }
        tonic::Code::Internal => {
            match status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()) {
                Some(id) => anyhow!("{} (request {id})", status.message()),
                None => anyhow!("{}", status.message()),
            }
        }
        code if status.message().is_empty() => anyhow!("{code}"),
        _ => anyhow!("{}", status.message()),
    }
}

/// An answer that breaks the API's rules.
pub(crate) fn malformed(violations: Vec<Violation>) -> Status {
    let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Status::internal(format!("the server's answer cannot be read: {}", words.join("; ")))
}

/// Retries after a lost connection: the server may be starting, or another replica takes over.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: u32,
}

impl Patience {
    /// Failed calls in a row until it gives up: about two minutes.
    const FAILURES_MAX: u32 = 30;
    const DELAY: Duration = Duration::from_millis(200);
    const DELAY_MAX: Duration = Duration::from_secs(5);

    /// Waits before the next attempt; returns the status where another attempt would not help.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), Status> {
        let passing = matches!(wire::fault_of(&status), Fault::Unavailable | Fault::Overloaded);
        if !passing || self.failures == Self::FAILURES_MAX {
            return Err(status);
        }
        if self.failures == 1 {
            say(&format!("the server does not answer ({}): retrying", status.message()));
        }
        self.failures += 1;
        tokio::time::sleep((Self::DELAY * self.failures).min(Self::DELAY_MAX)).await;
        Ok(())
    }

    /// The server answered.
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

/// Reads the record of an answer that must have one.
pub(crate) fn record<M, T>(what: &str, message: Option<M>) -> Result<T, Status>
where
    T: TryFrom<M, Error = Vec<Violation>>,
{
    wire::present(what, message).and_then(T::try_from).map_err(malformed)
}

/// Reads the records of a list.
pub(crate) fn records<M, T>(messages: Vec<M>) -> Result<Vec<T>, Status>
where
    T: TryFrom<M, Error = Vec<Violation>>,
{
    messages.into_iter().map(|message| T::try_from(message).map_err(malformed)).collect()
}
