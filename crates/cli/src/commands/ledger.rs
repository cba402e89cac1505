//! `distillery ledger`: list the teacher's answers with their verdicts.

use crate::args::LedgerArguments;
use crate::client::jobs;
use crate::client::ledger::entries;
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table, say};
use app::config::Config;
use domain::records::LedgerEntry;
use domain::state::{Purpose, Reason};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// Entries of a table, where the user asks for no other number.
const TABLE_ROWS: usize = 50;
/// Characters of a rationale in a table.
const RATIONALE_CHARACTERS: usize = 100;

/// See [`crate::args::Verb::Ledger`].
pub(crate) async fn ledger(
    config: Config,
    arguments: LedgerArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let printed = unless_interrupted(&shutdown, print(target.channel(), &arguments)).await;
    target.close().await?;
    printed
}

async fn print(channel: &Channel, arguments: &LedgerArguments) -> anyhow::Result<()> {
    let id = jobs::find(channel, &arguments.job).await?.job.id;
    if arguments.json {
        let limit = arguments.limit.unwrap_or(usize::MAX);
        return entries(channel, id, arguments.verdict, limit, |entry| print_json(&json(&entry))).await;
    }
    let mut table = Table::new(&["row", "sample", "verdict", "reason", "label", "rationale"]);
    let limit = arguments.limit.unwrap_or(TABLE_ROWS);
    entries(channel, id, arguments.verdict, limit, |entry| {
        add(&mut table, entry);
        Ok(())
    })
    .await?;
    if table.rows() == 0 {
        return print_line("no entries");
    }
    print_table(&table)?;
    if table.rows() == limit {
        say(&format!("the first {limit} entries; --limit shows more, --json all of them"));
    }
    Ok(())
}

fn add(table: &mut Table, entry: LedgerEntry) {
    let mut rationale: String = entry.parsed.rationale.chars().take(RATIONALE_CHARACTERS).collect();
    if rationale.len() < entry.parsed.rationale.len() {
        rationale.push_str("...");
    }
    table.add([
        entry.row.to_string(),
        entry.sample.to_string(),
        entry.verdict.to_string(),
        entry.reason.map_or("-", Reason::as_str).to_owned(),
        entry.parsed.label.unwrap_or_else(|| "-".to_owned()),
        rationale,
    ]);
}

fn json(entry: &LedgerEntry) -> serde_json::Value {
    serde_json::json!({
        "row": entry.row,
        "sample": entry.sample,
        "hinted": entry.hinted,
        "evaluates": entry.purpose == Purpose::Evaluate,
        "verdict": entry.verdict,
        "reason": entry.reason,
        "weight": entry.weight,
        "label": entry.parsed.label,
        "rationale": entry.parsed.rationale,
        "completion": entry.completion,
        "model": entry.model,
        "prompt": entry.prompt.to_string(),
    })
}
