//! `distillery doctor`: whether everything works that the configuration names.

use crate::args::ServerArguments;
use crate::target::{self, unless_interrupted};
use crate::terminal::{print_json, print_line};
use anyhow::bail;
use app::client::Health;
use app::config::Config;
use app::doctor::{self, Finding, State};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Doctor`].
pub(crate) async fn doctor(
    config: Config,
    is_json: bool,
    server: ServerArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let found = unless_interrupted(&shutdown, async {
        let mut found = doctor::examine(&config).await;
        for url in server.url().into_iter().flat_map(target::each) {
            found.push(Finding::of(format!("server {url}"), call(&config, url, &server).await));
        }
        Ok(found)
    });
    let found = found.await?;
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

/// Asks a server that verbs call for its health.
async fn call(config: &Config, url: &str, server: &ServerArguments) -> anyhow::Result<String> {
    let channel = target::connect(&config.client, url, server).await?;
    match app::client::health(channel, "").await? {
        Health::Serving => Ok("serves".to_owned()),
        Health::NotServing | Health::Unknown => {
            bail!("answers, and does not serve yet: it starts, loads or drains")
        }
    }
}
