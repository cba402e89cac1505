//! `distillery doctor`: whether everything works that the configuration names.

use crate::terminal::{print_json, print_line};
use anyhow::bail;
use app::config::Config;
use app::doctor::{self, State};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Doctor`].
pub(crate) async fn doctor(config: Config, is_json: bool, shutdown: CancellationToken) -> anyhow::Result<()> {
    let found =
        crate::target::unless_interrupted(&shutdown, async { Ok(doctor::examine(&config).await) }).await?;
    let failed: Vec<&str> = found
        .iter()
        .filter(|finding| finding.state == State::Fails)
        .map(|finding| finding.what.as_str())
        .collect();
    if is_json {
        let each = found.iter().map(
            |finding| json!({"what": finding.what, "state": finding.state.as_str(), "words": finding.words}),
        );
        print_json(&json!({"findings": each.collect::<Vec<_>>()}))?;
    } else {
        for finding in &found {
            print_line(&format!("{:<6} {}: {}", finding.state.as_str(), finding.what, finding.words))?;
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} of {} do not work: {}", failed.len(), found.len(), failed.join(", "))
}
