//! SIGINT and SIGTERM mean the same: shut down in order. A second one exits now.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first signal, which the log tells of.
pub fn shutdown() -> CancellationToken {
    shutdown_after(|| tracing::warn!("{WORDS}"))
}

/// What somebody is told who sends a signal: calls in flight may take minutes.
pub const WORDS: &str = "shutting down when what was begun here is done; a second signal exits at once";

/// A token that is cancelled by the first signal, after `tell`.
pub fn shutdown_after(tell: impl FnOnce() + Send + 'static) -> CancellationToken {
    let token = CancellationToken::new();
    tokio::spawn(watch(token.clone(), tell));
    token
}

async fn watch(token: CancellationToken, tell: impl FnOnce()) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be watched: only SIGKILL will end this process");
        return;
    };
    let mut tell = Some(tell);
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let Some(tell) = tell.take() else { std::process::exit(EXIT_INTERRUPTED) };
        tell();
        token.cancel();
    }
}
