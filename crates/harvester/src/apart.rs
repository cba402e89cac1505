//! Work that takes long and waits for nothing, away from the threads on which everything else waits: rendering and judging.

use std::panic::resume_unwind;
use tokio::task::spawn_blocking;
use tracing::Span;

/// Does `work` on a thread of its own. A panic in it is one of the caller's.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = Span::current();
    match spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}
