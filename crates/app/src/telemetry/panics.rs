//! Panics in the log: one line each, as of any other trouble, in place of the raw text that Rust writes.

use std::panic::PanicHookInfo;

/// What stands for words that were put together where it happened: they may quote a row, an answer or a key.
const LEFT_OUT: &str = "its words are left out, because they may quote what was worked at";

/// Writes the panics of this process into its log.
pub(super) fn log() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or(LEFT_OUT);
    tracing::error!(place, thread = thread.name().unwrap_or_default(), "a panic: {words}");
}
