//! Uploads that were begun and never committed are removed.

use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after it began an upload can be continued and committed.
const STAGED_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often older ones are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        match shared.stores.datasets.remove_staged(STAGED_AGE).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "uploads that were never committed are removed"),
            Err(error) => tracing::warn!(%error, "uploads that were never committed cannot be removed"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
