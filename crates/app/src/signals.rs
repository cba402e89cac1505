//! SIGINT and SIGTERM mean the same: shut down in order. A second one exits now.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first signal.
pub fn shutdown() -> CancellationToken {
    let token = CancellationToken::new();
    tokio::spawn(watch(token.clone()));
    token
}

async fn watch(token: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be watched: only SIGKILL will end this process");
        return;
    };
    let mut seen = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if seen {
            std::process::exit(EXIT_INTERRUPTED);
        }
        seen = true;
        // Calls in flight may take minutes: the user sees why the process does not end yet.
        tracing::warn!("shutting down when what was begun is done; a second signal exits at once");
        token.cancel();
    }
}
