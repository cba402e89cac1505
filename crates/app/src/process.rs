//! The name of this process.

/// The holder of a lease: unique for each start.
pub(crate) fn name(role: &str) -> String {
    let started = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    format!("{role}-{}-{started}", std::process::id())
}
